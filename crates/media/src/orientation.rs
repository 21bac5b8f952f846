//! Which way up a picture is, by its metadata, and turning it.

use image::metadata::Orientation;

use crate::PixelBuffer;

/// The orientation that metadata ask for: Exif first, then XMP, as Pillow's `exif_transpose` reads them. Values outside
/// of 1 to 8 and unreadable metadata leave the picture as it is.
pub(crate) fn from_metadata(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    exif.and_then(from_exif).or_else(|| xmp.and_then(from_xmp)).unwrap_or(Orientation::NoTransforms)
}

/// Turns `rgb: (height, width, 3)` upright and gives the new height and width with it, or nothing when there is no
/// memory for it.
pub(crate) fn turn(
    mut rgb: PixelBuffer,
    (height, width): (u32, u32),
    orientation: Orientation,
) -> Option<(PixelBuffer, (u32, u32))> {
    use Orientation::{
        FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270,
        Rotate270FlipH,
    };
    let row_bytes = width as usize * 3;
    let (rows_backwards, columns_backwards) = match orientation {
        NoTransforms => return Some((rgb, (height, width))),
        Rotate180 => {
            rgb.as_chunks_mut::<3>().0.reverse();
            return Some((rgb, (height, width)));
        }
        FlipHorizontal => {
            rgb.chunks_exact_mut(row_bytes).for_each(|row| row.as_chunks_mut::<3>().0.reverse());
            return Some((rgb, (height, width)));
        }
        FlipVertical => {
            let (upper, lower) = rgb.split_at_mut(height as usize / 2 * row_bytes);
            for (above, below) in upper.chunks_exact_mut(row_bytes).zip(lower.rchunks_exact_mut(row_bytes)) {
                above.swap_with_slice(below);
            }
            return Some((rgb, (height, width)));
        }
        Rotate90FlipH => (false, false),
        Rotate90 => (true, false),
        Rotate270 => (false, true),
        Rotate270FlipH => (true, true),
    };
    let mut turned = PixelBuffer::zeros(rgb.len())?;
    let target_row_bytes = height as usize * 3;
    // Blocks of rows that stay in cache while their columns become rows.
    const BLOCK: usize = 64;
    for (block, rows) in rgb.chunks(row_bytes * BLOCK).enumerate() {
        for (column, target) in turned.chunks_exact_mut(target_row_bytes).enumerate() {
            let column = if columns_backwards { width as usize - 1 - column } else { column };
            let count = rows.len() / row_bytes;
            let first = block * BLOCK;
            let first = if rows_backwards { height as usize - first - count } else { first };
            let target = target[first * 3..].as_chunks_mut::<3>().0.iter_mut().take(count);
            let source = rows.chunks_exact(row_bytes).map(|row| &row[column * 3..][..3]);
            if rows_backwards {
                target.zip(source.rev()).for_each(|(target, source)| target.copy_from_slice(source));
            } else {
                target.zip(source).for_each(|(target, source)| target.copy_from_slice(source));
            }
        }
    }
    Some((turned, (width, height)))
}

/// The tag of an Exif block; some writers of WebP put JPEG's prefix before it.
fn from_exif(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

/// `tiff:Orientation="6"` or `<tiff:Orientation>6`.
fn from_xmp(xmp: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(offset, _)| {
        let value = &xmp[offset + NAME.len()..];
        let digit = value.strip_prefix(b"=\"").or_else(|| value.strip_prefix(b">"))?.first()?;
        Orientation::from_exif(digit.wrapping_sub(b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_in_their_order() {
        let exif = |value: u8| {
            [b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[value, 0, 0, 0, 0, 0, 0, 0]]
                .concat()
        };
        let prefixed = [b"Exif\0\0".as_slice(), &exif(8)].concat();
        let check = |exif: Option<&[u8]>, xmp: Option<&[u8]>, expected: u8| {
            assert_eq!(from_metadata(exif, xmp).to_exif(), expected, "{exif:?} {xmp:?}");
        };
        check(None, None, 1);
        check(Some(&exif(6)), None, 6);
        check(Some(&prefixed), None, 8);
        check(Some(&exif(3)), Some(b"tiff:Orientation=\"6\""), 3);
        check(Some(&exif(9)), None, 1);
        check(Some(b"nonsense"), Some(b"<tiff:Orientation>5</tiff:Orientation>"), 5);
        check(None, Some(b"tiff:Orientation=\"6\""), 6);
        check(None, Some(b"tiff:Orientation=\""), 1);
        check(None, Some(b"tiff:Orientation=\"0\""), 1);
        check(None, Some(b"tiff:Orientation"), 1);
    }

    /// Where the pixels of a picture of two rows and three columns go.
    #[test]
    fn turning() {
        let check = |orientation, size, pixels: [u8; 6]| {
            let spread =
                |pixels: [u8; 6]| pixels.iter().flat_map(|&pixel| [pixel; 3]).collect::<PixelBuffer>();
            let orientation = Orientation::from_exif(orientation).unwrap();
            let turned = turn(spread([1, 2, 3, 4, 5, 6]), (2, 3), orientation).unwrap();
            assert_eq!(turned, (spread(pixels), size), "{orientation:?}");
        };
        check(1, (2, 3), [1, 2, 3, 4, 5, 6]);
        check(2, (2, 3), [3, 2, 1, 6, 5, 4]);
        check(3, (2, 3), [6, 5, 4, 3, 2, 1]);
        check(4, (2, 3), [4, 5, 6, 1, 2, 3]);
        check(5, (3, 2), [1, 4, 2, 5, 3, 6]);
        check(6, (3, 2), [4, 1, 5, 2, 6, 3]);
        check(7, (3, 2), [6, 3, 5, 2, 4, 1]);
        check(8, (3, 2), [3, 6, 2, 5, 1, 4]);
    }

    /// Larger than a block, against the codecs' own turning.
    #[test]
    fn turning_large() {
        for (height, width) in [(1, 200), (64, 3), (65, 131), (200, 1)] {
            let rgb: Vec<u8> = (0..height * width * 3).map(|index| (index * 7 % 251) as u8).collect();
            for exif in 1..=8 {
                let orientation = Orientation::from_exif(exif).unwrap();
                let mut expected = image::DynamicImage::ImageRgb8(
                    image::RgbImage::from_raw(width, height, rgb.clone()).unwrap(),
                );
                expected.apply_orientation(orientation);
                let (turned, size) = turn(rgb.clone().into(), (height, width), orientation).unwrap();
                assert_eq!(size, (expected.height(), expected.width()), "{orientation:?}");
                assert!(*turned == *expected.as_bytes(), "{height}x{width} {orientation:?}");
            }
        }
    }
}
