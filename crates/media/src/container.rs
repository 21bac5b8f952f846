//! Walks over the outer structure of a file: is it whole, and what will its decoder need?
//!
//! The decoders are lenient where a stream ends early (a cut JPEG comes back grey at the bottom), so every format's own
//! framing is followed to its end before any pixel is decoded. Bytes after the end are ignored.

use crate::{Budget, Error, Format};

/// What a walk over a whole JPEG found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JpegFrame {
    /// Height in pixels.
    pub(crate) height: usize,
    /// Width in pixels.
    pub(crate) width: usize,
    /// Samples per pixel.
    pub(crate) components: usize,
    /// Whether all coefficients are kept until the last scan: progressive pictures, and those with several scans.
    pub(crate) buffered: bool,
}

/// Follows the markers to the end of the image (ITU-T T.81, annex B). `format` is named in errors: JPEG data also occur
/// within TIFF.
pub(crate) fn jpeg(bytes: &[u8], format: Format) -> Result<JpegFrame, Error> {
    let truncated = |reason: &str| Error::Truncated { format, bytes: bytes.len(), reason: reason.to_owned() };
    let broken = |reason: &str| Error::Broken { format, reason: reason.to_owned() };
    const END: &str = "there is no end-of-image marker";

    let mut frame: Option<JpegFrame> = None;
    let mut scans = 0;
    let mut position = 2;
    loop {
        // A marker is 0xff and a code that is neither 0xff (fill) nor zero (a stuffed data byte).
        let ahead = bytes.get(position..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff));
        position += ahead.ok_or_else(|| truncated(END))? + 1;
        let code = *bytes.get(position).ok_or_else(|| truncated(END))?;
        match code {
            0xff => continue,
            0x00 | 0x01 | 0xd0..=0xd8 => {
                position += 1;
                continue;
            }
            0xd9 => break,
            _ => position += 1,
        }
        let segment =
            big_endian(bytes, position, 2).ok_or_else(|| truncated("a segment's length is missing"))?;
        if segment < 2 {
            return Err(broken("a segment says that it is shorter than its own length field"));
        }
        let data =
            bytes.get(position + 2..position + segment).ok_or_else(|| truncated("a segment is cut"))?;
        position += segment;
        match code {
            // Start of frame; the three codes left out mean other things.
            0xc0..=0xcf if !matches!(code, 0xc4 | 0xc8 | 0xcc) => {
                let &[_, height_high, height_low, width_high, width_low, components, ..] = data else {
                    return Err(broken("the frame header is too short"));
                };
                frame.get_or_insert(JpegFrame {
                    height: usize::from(u16::from_be_bytes([height_high, height_low])),
                    width: usize::from(u16::from_be_bytes([width_high, width_low])),
                    components: usize::from(components),
                    buffered: matches!(code, 0xc2 | 0xc6 | 0xca | 0xce),
                });
            }
            0xda => scans += 1,
            _ => {}
        }
    }
    let mut frame = frame.ok_or_else(|| broken("there is no frame header"))?;
    if scans == 0 {
        return Err(broken("there is no scan"));
    }
    frame.buffered |= scans > 1;
    Ok(frame)
}

/// What a walk over a whole PNG found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PngParts<'a> {
    /// Height and width in pixels.
    pub(crate) size: (usize, usize),
    /// The data of `eXIf`, which may stand behind the pixels, where the decoder no longer looks.
    pub(crate) exif: Option<&'a [u8]>,
}

/// Follows the chunks to `IEND` (PNG, third edition).
pub(crate) fn png(bytes: &[u8]) -> Result<PngParts<'_>, Error> {
    let truncated = |reason: &str| Error::Truncated {
        format: Format::Png,
        bytes: bytes.len(),
        reason: reason.to_owned(),
    };
    // The first chunk is the header, and it opens with the sides.
    let size = big_endian(bytes, 20, 4)
        .zip(big_endian(bytes, 16, 4))
        .ok_or_else(|| truncated("the header is cut"))?;
    let mut exif = None;
    let mut position = 8;
    loop {
        let length = big_endian(bytes, position, 4).ok_or_else(|| truncated("there is no IEND chunk"))?;
        let kind =
            bytes.get(position + 4..position + 8).ok_or_else(|| truncated("there is no IEND chunk"))?;
        let data = bytes
            .get(position + 8..)
            .and_then(|rest| rest.get(..length))
            .ok_or_else(|| truncated("a chunk is cut"))?;
        // The checksum follows the data.
        position += 8 + length + 4;
        if position > bytes.len() {
            return Err(truncated("a chunk is cut"));
        }
        match kind {
            b"IEND" => return Ok(PngParts { size, exif }),
            b"eXIf" => exif = exif.or(Some(data)),
            _ => {}
        }
    }
}

/// Checks the length that the RIFF header declares and the size of the first picture inside, which its decoder would
/// allocate before comparing it with the canvas (RFC 9649). Says whether the file is an animation.
pub(crate) fn webp(bytes: &[u8], budget: &Budget) -> Result<bool, Error> {
    let truncated = |reason: &str| Error::Truncated {
        format: Format::WebP,
        bytes: bytes.len(),
        reason: reason.to_owned(),
    };
    let declared = little_endian(bytes, 4, 4).ok_or_else(|| truncated("the header is cut"))?;
    let body = bytes
        .get(12..declared.saturating_add(8))
        .ok_or_else(|| truncated("the header declares more bytes"))?;
    for (kind, data) in RiffChunks(body) {
        match kind {
            b"VP8 " | b"VP8L" => {
                check_webp_bitstream(kind, data, budget)?;
                return Ok(false);
            }
            b"ANMF" => {
                let frame = data.get(16..).unwrap_or_default();
                for (kind, data) in RiffChunks(frame) {
                    check_webp_bitstream(kind, data, budget)?;
                }
                return Ok(true);
            }
            _ => {}
        }
    }
    Err(Error::Broken { format: Format::WebP, reason: "there is no picture chunk".to_owned() })
}

fn check_webp_bitstream(kind: &[u8], data: &[u8], budget: &Budget) -> Result<(), Error> {
    let size = match kind {
        // Three bytes of tag, three of start code, then two sides of 14 bits with a scale above.
        b"VP8 " => {
            little_endian(data, 8, 2).zip(little_endian(data, 6, 2)).map(|(h, w)| (h & 0x3fff, w & 0x3fff))
        }
        // One byte of signature, then two sides of 14 bits, each less one.
        b"VP8L" => little_endian(data, 1, 4).map(|bits| ((bits >> 14 & 0x3fff) + 1, (bits & 0x3fff) + 1)),
        _ => return Ok(()),
    };
    let short = || Error::Broken { format: Format::WebP, reason: "a picture chunk is too short".to_owned() };
    budget.check_size(Format::WebP, size.ok_or_else(short)?).map(|_| ())
}

/// Checks the size that the header declares and that its pixels are there. The file length in the header is not trusted: many
/// writers get it wrong.
pub(crate) fn bmp(bytes: &[u8], budget: &Budget) -> Result<(), Error> {
    let truncated = |reason: &str| Error::Truncated {
        format: Format::Bmp,
        bytes: bytes.len(),
        reason: reason.to_owned(),
    };
    let header = little_endian(bytes, 14, 4).ok_or_else(|| truncated("the header is cut"))?;
    if header.checked_add(14).is_none_or(|end| end > bytes.len()) {
        return Err(truncated("the header is cut"));
    }
    let read = |offset, length| little_endian(bytes, offset, length).unwrap_or(0);
    let offset = read(10, 4);
    let (height, width, bits, compression) = if header == 12 {
        (read(20, 2), read(18, 2), read(24, 2), 0)
    } else {
        // A negative height means that the first row is the top one.
        ((read(22, 4) as u32 as i32).unsigned_abs() as usize, read(18, 4), read(28, 2), read(30, 4))
    };
    budget.check_size(Format::Bmp, (height, width))?;
    let pixel_bytes = match compression {
        // Rows of any depth, padded to four bytes.
        0 | 3 | 6 => {
            width.checked_mul(bits).and_then(|bits| bits.div_ceil(32).checked_mul(4)?.checked_mul(height))
        }
        _ => Some(read(34, 4)),
    };
    match pixel_bytes.and_then(|pixel_bytes| pixel_bytes.checked_add(offset)) {
        Some(end) if end <= bytes.len() => Ok(()),
        _ => Err(truncated("the header declares more pixels")),
    }
}

/// The chunks of a RIFF body up to the first that is cut.
struct RiffChunks<'a>(&'a [u8]);

impl<'a> Iterator for RiffChunks<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = little_endian(self.0, 4, 4)?;
        let kind = &self.0[..4];
        let data = self.0.get(8..)?.get(..length)?;
        // Chunks start at even positions.
        self.0 = self.0.get(8 + length + length % 2..).unwrap_or_default();
        Some((kind, data))
    }
}

/// Up to eight bytes as a number, the high one first.
pub(crate) fn big_endian(bytes: &[u8], offset: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(offset..)?.get(..length)?;
    usize::try_from(bytes.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte))).ok()
}

/// Up to eight bytes as a number, the low one first.
pub(crate) fn little_endian(bytes: &[u8], offset: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(offset..)?.get(..length)?;
    usize::try_from(bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte))).ok()
}
