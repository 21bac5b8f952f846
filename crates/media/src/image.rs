//! The bytes of one picture become one upright frame.

use std::{
    io::{Cursor, ErrorKind},
    panic::catch_unwind,
};

use image::{
    ColorType, ImageDecoder, ImageError, ImageResult, Limits,
    codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder},
    error::LimitErrorKind,
    metadata::Orientation,
};

use crate::{
    Budget, Error, Format, PixelBuffer, container, orientation,
    pixels::{self, Color},
    probe, tiff,
};

/// Decodes a picture: BMP, JPEG, PNG, TIFF or WEBP of any depth and colour type, whatever its name says.
///
/// Transparent pixels are laid on white and the orientation that the metadata ask for is applied. Colour profiles are
/// ignored. Of animations and many-page files the first picture is taken.
///
/// # Errors
/// [`Error::TooManyBytes`], [`Error::TooManyPixels`] and [`Error::TooMuchMemory`] when the budget does not allow it,
/// which is known before pixels are allocated; [`Error::Truncated`] when the file ends early, however little is
/// missing; every other variant of [`Error`] as its own words say.
pub fn decode_image(bytes: &[u8], budget: &Budget) -> Result<Picture, Error> {
    budget.check_bytes(bytes.len())?;
    let format = probe(bytes)?;
    // The decoders are foreign code that untrusted bytes run through. Nothing outlives a panic but the shared bytes
    // and the budget, both of them read only, so there is no state that it could leave half-changed.
    let decoded = catch_unwind(|| decode(format, bytes, budget)).unwrap_or(Err(Error::Decoder { format }))?;

    let rgb = pixels::to_rgb(decoded.samples, decoded.color);
    let refuse = || Error::Decoder { format };
    let (rgb, (height, width)) =
        orientation::turn(rgb, decoded.size, decoded.orientation).ok_or_else(refuse)?;
    Ok(Picture { height: height as usize, width: width as usize, rgb })
}

/// One upright picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Height in pixels, 1 at least.
    pub height: usize,
    /// Width in pixels, 1 at least.
    pub width: usize,
    /// `(height, width, 3)`, red first.
    pub rgb: PixelBuffer,
}

/// What a format's decoder gives: samples of eight bits, not yet RGB and not yet upright.
pub(crate) struct Decoded {
    /// Height and width in pixels.
    pub(crate) size: (u32, u32),
    /// `(height, width, color.samples())`.
    pub(crate) samples: PixelBuffer,
    /// What the samples mean.
    pub(crate) color: Color,
    /// How the picture has to be turned.
    pub(crate) orientation: Orientation,
}

fn decode(format: Format, bytes: &[u8], budget: &Budget) -> Result<Decoded, Error> {
    let reader = Cursor::new(bytes);
    let foreign = |error| translate(format, bytes.len(), budget, error);
    match format {
        Format::Bmp => {
            container::bmp(bytes, budget)?;
            finish(
                BmpDecoder::new(reader).map_err(foreign)?,
                &Job { format, bytes, budget, beside: 0, exif: None },
            )
        }
        Format::Jpeg => {
            let frame = container::jpeg(bytes, format)?;
            budget.check_size(format, (frame.height, frame.width))?;
            // Two bytes for each coefficient, of which sub-sampled chroma has fewer.
            let beside = if frame.buffered { 2 * frame.components } else { 0 };
            finish(
                JpegDecoder::new(reader).map_err(foreign)?,
                &Job { format, bytes, budget, beside, exif: None },
            )
        }
        Format::Png => {
            let parts = container::png(bytes)?;
            budget.check_size(format, parts.size)?;
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(budget.max_memory_bytes as u64);
            let decoder = PngDecoder::with_limits(reader, limits).map_err(foreign)?;
            finish(decoder, &Job { format, bytes, budget, beside: 0, exif: parts.exif })
        }
        Format::Tiff => tiff::decode(bytes, budget),
        Format::WebP => {
            let animated = container::webp(bytes, budget)?;
            // The planes of a lossy picture or four samples of a lossless one; an animation has a canvas as well.
            let beside = if animated { 12 } else { 4 };
            finish(
                WebPDecoder::new(reader).map_err(foreign)?,
                &Job { format, bytes, budget, beside, exif: None },
            )
        }
    }
}

/// What [`finish`] needs to know beside the decoder.
struct Job<'a> {
    format: Format,
    bytes: &'a [u8],
    budget: &'a Budget,
    /// Memory per pixel that the decoder holds beside the samples that it gives.
    beside: usize,
    /// Exif data that the decoder may not have seen.
    exif: Option<&'a [u8]>,
}

/// Everything after the header: orientation, budget, samples.
fn finish(mut decoder: impl ImageDecoder, job: &Job<'_>) -> Result<Decoded, Error> {
    let &Job { format, bytes, budget, beside, exif } = job;
    let (width, height) = decoder.dimensions();
    let count = budget.check_size(format, (height as usize, width as usize))?;
    let orientation = orientation_of(&mut decoder, exif);
    let (color, sample_bytes) = match decoder.color_type() {
        ColorType::L8 => (Color::Gray, 1),
        ColorType::La8 => (Color::GrayAlpha, 1),
        ColorType::Rgb8 => (Color::Rgb, 1),
        ColorType::Rgba8 => (Color::Rgba, 1),
        ColorType::L16 => (Color::Gray, 2),
        ColorType::La16 => (Color::GrayAlpha, 2),
        ColorType::Rgb16 => (Color::Rgb, 2),
        ColorType::Rgba16 => (Color::Rgba, 2),
        other => return Err(Error::Feature { format, reason: format!("samples of type {other:?}") }),
    };
    let turned = if orientation == Orientation::NoTransforms { 0 } else { 3 };
    budget.check_memory(format, count, color.samples() * sample_bytes + (beside.max(3 + turned)))?;

    let mut samples = zeros(format, count * color.samples() * sample_bytes, budget)?;
    decoder.read_image(&mut samples).map_err(|error| translate(format, bytes.len(), budget, error))?;
    if sample_bytes == 2 {
        samples = pixels::high_bytes(samples);
    }
    Ok(Decoded { size: (height, width), samples, color, orientation })
}

/// Unreadable metadata are no reason to refuse a picture.
fn orientation_of(decoder: &mut impl ImageDecoder, exif: Option<&[u8]>) -> Orientation {
    let ignore = |metadata: ImageResult<Option<Vec<u8>>>| metadata.ok().flatten();
    let own = ignore(decoder.exif_metadata());
    let xmp = ignore(decoder.xmp_metadata());
    orientation::from_metadata(own.as_deref().or(exif), xmp.as_deref())
}

/// A buffer of zeros, or an error instead of an abort.
pub(crate) fn zeros(format: Format, bytes: usize, budget: &Budget) -> Result<PixelBuffer, Error> {
    let max_memory_bytes = budget.max_memory_bytes;
    PixelBuffer::zeros(bytes).ok_or(Error::TooMuchMemory { format, bytes, max_memory_bytes })
}

/// A decoder's error in our words.
fn translate(format: Format, bytes: usize, budget: &Budget, error: ImageError) -> Error {
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Error::Truncated { format, bytes, reason: "the decoder wants more".to_owned() }
        }
        ImageError::Limits(error) if matches!(error.kind(), LimitErrorKind::InsufficientMemory) => {
            let max_memory_bytes = budget.max_memory_bytes;
            Error::TooMuchMemory { format, bytes: max_memory_bytes.saturating_add(1), max_memory_bytes }
        }
        ImageError::Unsupported(error) => Error::Feature { format, reason: error.to_string() },
        error => Error::Broken { format, reason: error.to_string() },
    }
}
