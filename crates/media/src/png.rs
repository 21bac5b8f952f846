//! A picture becomes a PNG file again, for those who show what was drawn on it.

use std::io;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use crate::Picture;

/// The picture as the bytes of a PNG file.
///
/// # Errors
/// When the picture has other than three bytes for each pixel, or sides that no PNG file has.
pub fn encode_png(picture: &Picture) -> io::Result<Vec<u8>> {
    let side = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let (width, height) = (side(picture.width)?, side(picture.height)?);
    if picture.rgb.len() as u64 != 3 * u64::from(width) * u64::from(height) {
        return Err(io::Error::other(format!("{} bytes, expected {width}x{height}x3", picture.rgb.len())));
    }
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    encoder.write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, decode_image};

    #[test]
    fn what_is_written_is_read_again() {
        for (height, width) in [(1, 1), (3, 5), (64, 33)] {
            let rgb = (0..height * width * 3).map(|i| (i * 7) as u8).collect();
            let picture = Picture { height, width, rgb };
            let file = encode_png(&picture).unwrap();
            assert_eq!(decode_image(&file, &Budget::default()).unwrap(), picture);
        }
    }

    #[test]
    fn pixels_that_are_missing() {
        let picture = Picture { height: 2, width: 2, rgb: vec![0; 11].into() };
        assert_eq!(encode_png(&picture).unwrap_err().to_string(), "11 bytes, expected 2x2x3");
    }
}
