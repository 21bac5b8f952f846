//! TIFF and BigTIFF: strips or tiles, interleaved or planar, any of the colour types that cameras and scanners write.
//!
//! The decoder underneath gives samples as they lie in the file and knows no palettes; what they mean is decided here
//! (TIFF revision 6.0).

use std::io::{Cursor, ErrorKind};

use tiff::{
    ColorType, TiffError,
    decoder::{ChunkType, Decoder, DecodingResult, Limits},
    tags::Tag,
};

use crate::{
    Budget, Error, Format, PixelBuffer, container,
    image::{Decoded, zeros},
    orientation,
    pixels::Color,
};

const FORMAT: Format = Format::Tiff;

/// Decodes the first page.
pub(crate) fn decode(bytes: &[u8], budget: &Budget) -> Result<Decoded, Error> {
    let foreign = |error| translate(bytes.len(), budget, error);
    // The decoder refuses palettes and inverts white-is-zero at some depths only. Both are grey to it under the other
    // name, and what the values mean is applied here afterwards.
    let photometric = photometric_field(bytes);
    let meaning = photometric.map_or(Meaning::Color, |field| field.meaning);
    let mut renamed;
    let bytes = match photometric {
        Some(PhotometricField {
            offset,
            low_byte_first,
            meaning: Meaning::Palette | Meaning::WhiteIsZero,
        }) => {
            renamed = zeros(FORMAT, bytes.len(), budget)?;
            renamed.copy_from_slice(bytes);
            renamed[offset + usize::from(!low_byte_first)] = BLACK_IS_ZERO;
            &*renamed
        }
        _ => bytes,
    };

    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(foreign)?;
    let (width, height) = decoder.dimensions().map_err(foreign)?;
    let size = (height as usize, width as usize);
    let count = budget.check_size(FORMAT, size)?;
    let color_type = decoder.colortype().map_err(foreign)?;
    check_sample_format(&mut decoder)?;
    check_chunks(&mut decoder, bytes, budget)?;
    let (color, bits) = interpret(&mut decoder, color_type, meaning)?;
    let palette = match meaning {
        Meaning::Palette => Some(Palette::read(&mut decoder, bits)?),
        _ => None,
    };
    let orientation = {
        let tag = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten();
        let xmp = decoder.get_tag_u8_vec(Tag::Unknown(XMP_TAG)).ok();
        tag.and_then(image::metadata::Orientation::from_exif)
            .unwrap_or_else(|| orientation::from_metadata(None, xmp.as_deref()))
    };

    // Samples as they lie in the file, as eight bits, and as RGB, and the file's again for a chunk decoded as a whole.
    let file_bytes = color.samples() * usize::from(bits).div_ceil(8);
    budget.check_memory(FORMAT, count, 2 * file_bytes + color.samples() + 3)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = budget.max_memory_bytes;
    limits.intermediate_buffer_size = budget.max_memory_bytes;
    limits.ifd_value_size = bytes.len();
    let mut decoder = decoder.with_limits(limits);
    let mut result = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut result).map_err(foreign)?;

    let buffer = SampleBuffer {
        size,
        bands: color.samples(),
        bits,
        row_bytes: layout.row_stride.map_or(0, usize::from),
        plane_bytes: layout.plane_stride.map_or(0, usize::from),
        is_planar: layout.planes > 1,
    };
    let samples = buffer.to_eight_bits(&result, budget)?;
    let (samples, color) = match (meaning, palette) {
        (_, Some(palette)) => (palette.apply(&samples).into(), Color::Rgb),
        (Meaning::WhiteIsZero, _) => (buffer.scale(samples).iter().map(|value| !value).collect(), color),
        _ => (buffer.scale(samples), color),
    };
    Ok(Decoded { size: (height, width), samples, color, orientation })
}

/// What the values of a grey-like picture mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// What the decoder says.
    Color,
    /// Grey, upside down.
    WhiteIsZero,
    /// Places in a table of colours.
    Palette,
}

const BLACK_IS_ZERO: u8 = 1;
const PHOTOMETRIC_TAG: usize = 262;
const XMP_TAG: u16 = 700;

/// Where the first directory says what its values mean.
#[derive(Clone, Copy)]
struct PhotometricField {
    /// Position of the two-byte value in the file.
    offset: usize,
    low_byte_first: bool,
    meaning: Meaning,
}

/// Finds the photometric interpretation. Nothing when the file is too broken: the decoder will say why.
fn photometric_field(bytes: &[u8]) -> Option<PhotometricField> {
    let low_byte_first = bytes.first() == Some(&b'I');
    let read = |offset, length| match low_byte_first {
        true => container::little_endian(bytes, offset, length),
        false => container::big_endian(bytes, offset, length),
    };
    let big = read(2, 2)? == 43;
    let (directory, count_bytes, entry_bytes, value_at) =
        if big { (read(8, 8)?, 8, 20, 12) } else { (read(4, 4)?, 2, 12, 8) };
    let entries = read(directory, count_bytes)?;
    let first = directory.checked_add(count_bytes)?;
    const SHORT: usize = 3;
    let position = (0..entries)
        .map_while(|index| first.checked_add(index.checked_mul(entry_bytes)?).filter(|at| *at < bytes.len()))
        .find(|&position| read(position, 2) == Some(PHOTOMETRIC_TAG))?;
    let offset = position.checked_add(value_at)?;
    if read(position + 2, 2)? != SHORT {
        return None;
    }
    let meaning = match read(offset, 2)? {
        0 => Meaning::WhiteIsZero,
        3 => Meaning::Palette,
        _ => Meaning::Color,
    };
    Some(PhotometricField { offset, low_byte_first, meaning })
}

/// Only whole numbers from zero have an agreed black and white.
fn check_sample_format(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<(), Error> {
    const UNSIGNED: u16 = 1;
    const LOW_BIT_FIRST: u16 = 2;
    if decoder.find_tag_unsigned::<u16>(Tag::FillOrder).ok().flatten() == Some(LOW_BIT_FIRST) {
        return Err(feature("bytes whose first bit is the lowest (FillOrder 2)"));
    }
    let formats = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat).ok().flatten().unwrap_or_default();
    match formats.iter().find(|format| **format != UNSIGNED) {
        None => Ok(()),
        Some(2) => Err(feature("signed samples have no agreed black and white")),
        Some(3) => Err(feature("floating-point samples have no agreed black and white")),
        Some(other) => Err(feature(&format!("sample format {other}"))),
    }
}

/// Checks that every strip or tile lies within the file and is not absurdly large. A chunk of JPEG is a whole file of
/// its own: its size and its end are looked at before it is decoded.
fn check_chunks(decoder: &mut Decoder<Cursor<&[u8]>>, bytes: &[u8], budget: &Budget) -> Result<(), Error> {
    const JPEG: u16 = 7;
    let (offsets, lengths) = match decoder.get_chunk_type() {
        ChunkType::Strip => (Tag::StripOffsets, Tag::StripByteCounts),
        ChunkType::Tile => {
            let (width, height) = decoder.chunk_dimensions();
            budget.check_size(FORMAT, (height as usize, width as usize))?;
            (Tag::TileOffsets, Tag::TileByteCounts)
        }
    };
    let mut read = |tag| decoder.get_tag_u64_vec(tag).map_err(|error| translate(bytes.len(), budget, error));
    let (offsets, lengths) = (read(offsets)?, read(lengths)?);
    let compression = decoder.find_tag_unsigned::<u16>(Tag::Compression).ok().flatten();
    for (index, (&offset, &length)) in offsets.iter().zip(&lengths).enumerate() {
        let chunk = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(length).ok())
            .and_then(|(offset, length)| bytes.get(offset..)?.get(..length))
            .ok_or_else(|| truncated(bytes.len(), format!("strip or tile {index} ends beyond the file")))?;
        if compression == Some(JPEG) {
            let frame = container::jpeg(chunk, FORMAT)?;
            budget.check_size(FORMAT, (frame.height, frame.width))?;
        }
    }
    Ok(())
}

/// What the samples mean and how many bits each has.
fn interpret(
    decoder: &mut Decoder<Cursor<&[u8]>>,
    color_type: ColorType,
    meaning: Meaning,
) -> Result<(Color, u8), Error> {
    const PREMULTIPLIED: u16 = 1;
    const ALPHA: u16 = 2;
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).ok().flatten().unwrap_or_default();
    let (color, bits) = match color_type {
        ColorType::Gray(bits) => (Color::Gray, bits),
        ColorType::RGB(bits) => (Color::Rgb, bits),
        ColorType::RGBA(bits) if extra.first() == Some(&PREMULTIPLIED) => (Color::PremultipliedRgba, bits),
        ColorType::RGBA(bits) => (Color::Rgba, bits),
        ColorType::CMYK(bits) => (Color::Cmyk, bits),
        ColorType::YCbCr(bits) => (Color::YCbCr, bits),
        ColorType::Multiband { bit_depth, num_samples: 2 }
            if extra.first() == Some(&ALPHA) && meaning == Meaning::Color =>
        {
            (Color::GrayAlpha, bit_depth)
        }
        ColorType::Multiband { bit_depth, num_samples } => {
            return Err(feature(&format!("{num_samples} bands of {bit_depth} bits")));
        }
        other => return Err(feature(&format!("pixels of type {other:?}"))),
    };
    if !matches!(bits, 1 | 2 | 4 | 8 | 16 | 32) || (bits < 8 && color != Color::Gray) {
        return Err(feature(&format!("{bits} bits in samples of type {color_type:?}")));
    }
    if meaning == Meaning::Palette && (bits > 8 || color != Color::Gray) {
        return Err(feature(&format!("a palette for samples of type {color_type:?}")));
    }
    Ok((color, bits))
}

/// The colours of a palette.
struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// All reds, then all greens, then all blues, of 16 bits, of which the high byte counts.
    fn read(decoder: &mut Decoder<Cursor<&[u8]>>, bits: u8) -> Result<Self, Error> {
        let table = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(|error| broken(&error.to_string()))?;
        let colors = 1 << bits;
        if table.len() != 3 * colors {
            return Err(broken(&format!("the palette has {} values, expected {}", table.len(), 3 * colors)));
        }
        let high = |index: usize| (table[index] >> 8) as u8;
        Ok(Self(
            (0..colors).map(|index| [high(index), high(colors + index), high(2 * colors + index)]).collect(),
        ))
    }

    fn apply(&self, indices: &[u8]) -> Vec<u8> {
        // Every index is below two to the number of bits, and so many colours there are.
        indices.iter().flat_map(|&index| self.0[usize::from(index)]).collect()
    }
}

/// How the decoder laid the samples out.
struct SampleBuffer {
    /// Height and width in pixels.
    size: (usize, usize),
    /// Samples of a pixel that are wanted.
    bands: usize,
    /// Bits of a sample. Those of less than a byte lie side by side, the first in the high bits.
    bits: u8,
    /// Bytes from one row to the next.
    row_bytes: usize,
    /// Bytes from one plane to the next.
    plane_bytes: usize,
    /// Whether each band has a plane of its own.
    is_planar: bool,
}

impl SampleBuffer {
    /// `(height, width, bands)`, the high byte of longer samples. Shorter ones keep their value.
    fn to_eight_bits(&self, result: &DecodingResult, budget: &Budget) -> Result<PixelBuffer, Error> {
        match result {
            DecodingResult::U8(values) if self.bits < 8 => self.unpack(values, budget),
            DecodingResult::U8(values) => self.interleave(values, |value| value, budget),
            DecodingResult::U16(values) => self.interleave(values, |value| (value >> 8) as u8, budget),
            DecodingResult::U32(values) => self.interleave(values, |value| (value >> 24) as u8, budget),
            _ => Err(feature("samples that are no unsigned integers of 32 bits or less")),
        }
    }

    fn interleave<T: Copy>(
        &self,
        values: &[T],
        narrow: impl Fn(T) -> u8,
        budget: &Budget,
    ) -> Result<PixelBuffer, Error> {
        let (height, width) = self.size;
        let (row, plane) = (self.row_bytes / size_of::<T>(), self.plane_bytes / size_of::<T>());
        let (planes, step) = if self.is_planar { (self.bands, 1) } else { (1, self.bands) };
        let mut samples = zeros(FORMAT, height * width * self.bands, budget)?;
        for (y, target) in samples.chunks_exact_mut(width * self.bands).enumerate() {
            for band in 0..planes {
                let source = values.get(band * plane + y * row..).and_then(|rest| rest.get(..width * step));
                let source =
                    source.ok_or_else(|| broken("the decoder gave fewer samples than the header says"))?;
                for (sample, &value) in target[band..].iter_mut().step_by(planes).zip(source) {
                    *sample = narrow(value);
                }
            }
        }
        Ok(samples)
    }

    fn unpack(&self, bytes: &[u8], budget: &Budget) -> Result<PixelBuffer, Error> {
        let (height, width) = self.size;
        let bits = usize::from(self.bits);
        let mut samples = zeros(FORMAT, height * width, budget)?;
        for (y, target) in samples.chunks_exact_mut(width).enumerate() {
            let source = bytes.get(y * self.row_bytes..).unwrap_or_default();
            for (x, sample) in target.iter_mut().enumerate() {
                let byte = source.get(x * bits / 8);
                let byte =
                    *byte.ok_or_else(|| broken("the decoder gave fewer samples than the header says"))?;
                *sample = byte >> (8 - bits - x * bits % 8) & self.largest();
            }
        }
        Ok(samples)
    }

    /// Stretches samples of less than a byte so that the largest value is 255.
    fn scale(&self, mut samples: PixelBuffer) -> PixelBuffer {
        if self.bits < 8 {
            samples.iter_mut().for_each(|sample| *sample *= 255 / self.largest());
        }
        samples
    }

    /// The largest value of a sample, as far as a byte holds it.
    fn largest(&self) -> u8 {
        0xff >> (8 - self.bits.min(8))
    }
}

fn truncated(bytes: usize, reason: String) -> Error {
    Error::Truncated { format: FORMAT, bytes, reason }
}

fn broken(reason: &str) -> Error {
    Error::Broken { format: FORMAT, reason: reason.to_owned() }
}

fn feature(reason: &str) -> Error {
    Error::Feature { format: FORMAT, reason: reason.to_owned() }
}

/// The decoder's error in our words.
fn translate(bytes: usize, budget: &Budget, error: TiffError) -> Error {
    match error {
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            truncated(bytes, "the decoder wants more".to_owned())
        }
        TiffError::LimitsExceeded => {
            let max_memory_bytes = budget.max_memory_bytes;
            Error::TooMuchMemory {
                format: FORMAT,
                bytes: max_memory_bytes.saturating_add(1),
                max_memory_bytes,
            }
        }
        TiffError::UnsupportedError(error) => feature(&error.to_string()),
        error => broken(&error.to_string()),
    }
}
