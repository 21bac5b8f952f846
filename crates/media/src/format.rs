//! What a file is, by its first bytes. Names and declared media types are never asked.

use std::fmt;

use crate::Error;

/// The picture formats that are decoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Windows bitmap.
    Bmp,
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG; of an animated one the first frame.
    Png,
    /// TIFF or BigTIFF; of several pages the first.
    Tiff,
    /// WebP, lossy or lossless; of an animated one the first frame.
    WebP,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bmp => "BMP",
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Tiff => "TIFF",
            Self::WebP => "WEBP",
        })
    }
}

/// The format of a picture.
///
/// # Errors
/// [`Error::NeedsCodec`] for HEIC and videos, [`Error::Unsupported`] for what is known and not accepted, and
/// [`Error::Unrecognised`] for the rest. Each names what the content looks like.
pub fn probe(bytes: &[u8]) -> Result<Format, Error> {
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));

    if at(0, b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    }
    if at(0, b"\xff\xd8\xff") {
        return Ok(Format::Jpeg);
    }
    if at(0, b"RIFF") && at(8, b"WEBP") {
        return Ok(Format::WebP);
    }
    if [b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"].iter().any(|magic| at(0, *magic)) {
        return Ok(Format::Tiff);
    }
    // Two letters alone would take in any text that starts with them, so the two header lengths are looked at too.
    if at(0, b"BM")
        && bytes.get(14).is_some_and(|&length| matches!(length, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
        && at(15, &[0, 0, 0])
    {
        return Ok(Format::Bmp);
    }

    if at(4, b"ftyp") {
        return Err(Error::NeedsCodec { format: brand(bytes.get(8..12).unwrap_or_default()) });
    }
    for (offset, magic, format) in VIDEOS {
        if at(*offset, magic) {
            return Err(Error::NeedsCodec { format });
        }
    }
    if at(0, &[0x47]) && at(188, &[0x47]) {
        return Err(Error::NeedsCodec { format: "an MPEG transport stream" });
    }
    for (offset, magic, format) in OTHERS {
        if at(*offset, magic) {
            return Err(Error::Unsupported { format });
        }
    }
    if bytes.is_empty() {
        return Err(Error::Unsupported { format: "nothing (no bytes at all)" });
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    for (magic, format) in TEXTS {
        if text.get(..magic.len()).is_some_and(|start| start.eq_ignore_ascii_case(magic)) {
            return Err(Error::Unsupported { format });
        }
    }
    let start: Vec<_> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Err(Error::Unrecognised { bytes: bytes.len(), start: start.join(" ") })
}

/// What an ISO base media file is, by its major brand.
fn brand(major: &[u8]) -> &'static str {
    match major {
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
            "a HEIC or HEIF picture"
        }
        b"avif" | b"avis" => "an AVIF picture",
        b"qt  " => "a QuickTime video",
        b"3gp4" | b"3gp5" | b"3gp6" | b"3g2a" => "a 3GP video",
        b"crx " => "a Canon CR3 raw picture",
        b"M4A " | b"M4B " => "an MP4 sound file",
        _ => "an MP4 video",
    }
}

/// Offset, first bytes and name of what only the codec process may open.
const VIDEOS: &[(usize, &[u8], &str)] = &[
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"FLV\x01", "a Flash video"),
    (0, b"\0\0\x01\xba", "an MPEG program stream"),
    (0, b"\0\0\x01\xb3", "an MPEG video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (0, b"OggS", "an Ogg file"),
    (4, b"moov", "a QuickTime video"),
    (4, b"mdat", "a QuickTime video"),
];

/// Offset, first bytes and name of what is known and refused.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"GIF8", "a GIF picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\x01\0", "an icon file"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"qoif", "a QOI picture"),
    (0, b"#?RADIANCE", "a Radiance picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"DDS ", "a DirectDraw surface"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (8, b"WAVE", "a WAVE sound file"),
    (0, b"ID3", "an MP3 sound file"),
    (0, b"fLaC", "a FLAC sound file"),
];

/// First characters, in any case, and name of texts that are sent by mistake.
const TEXTS: &[(&[u8], &str)] = &[
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML or SVG document"),
    (b"data:", "a data URI that was not decoded"),
    (b"{", "a JSON text"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_their_first_bytes() {
        let check = |bytes: &[u8], format| assert_eq!(probe(bytes).ok(), Some(format), "{bytes:02x?}");
        check(b"\x89PNG\r\n\x1a\n", Format::Png);
        check(b"\xff\xd8\xff\xe0", Format::Jpeg);
        check(b"RIFF\0\0\0\0WEBPVP8 ", Format::WebP);
        check(b"II\x2a\0", Format::Tiff);
        check(b"MM\0\x2b", Format::Tiff);
        check(b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x28\0\0\0", Format::Bmp);
    }

    #[test]
    fn refusals_name_what_the_content_looks_like() {
        let check = |bytes: &[u8], words: &str| {
            let message = probe(bytes).unwrap_err().to_string();
            assert!(message.contains(words), "{bytes:02x?}: {message}");
        };
        check(b"", "no bytes at all");
        check(b"GIF89a", "a GIF picture, which is not accepted");
        check(b"\0\0\0\x18ftypheic", "a HEIC or HEIF picture, which needs a codec");
        check(b"\0\0\0\x18ftypavif", "an AVIF picture, which needs a codec");
        check(b"\0\0\0\x18ftypisom", "an MP4 video");
        check(b"\0\0\0\x14ftypqt  ", "a QuickTime video");
        check(b"\0\0\0\x14ftyp", "an MP4 video");
        check(b"\x1a\x45\xdf\xa3", "a Matroska or WebM video");
        check(b"RIFF\0\0\0\0AVI LIST", "an AVI video");
        check(b"%PDF-1.7", "a PDF document");
        check(b"  <SVG xmlns=", "an SVG drawing");
        check(b"<!DOCTYPE html>", "an HTML page");
        check(b"{\"error\":1}", "a JSON text");
        check(b"BMW drives", "10 bytes that start with [42 4d 57 20 64 72 69 76]");
        check(b"RIFF", "4 bytes that start with [52 49 46 46]");
        check(b"\x89PNG\r\n", "6 bytes that start with");
    }
}
