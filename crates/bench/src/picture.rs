//! Pictures to measure with, drawn without any codec. No two are the same.

use crate::random::{Xorshift, fresh_seed};

/// Noise over slow waves, `(height, width, 3)`: neither flat nor all edges, and never drawn twice.
pub fn rgb(height: usize, width: usize) -> Vec<u8> {
    let mut noise = Xorshift::new(fresh_seed());
    let mut rgb = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        for x in 0..width {
            let random = noise.next();
            for channel in 0..3 {
                let wave = (x * (channel + 1) / 3 + y * (3 - channel) / 2) % 512;
                let wave = if wave < 256 { wave } else { 511 - wave } as u64;
                rgb.push(((wave * 3 + (random >> (8 * channel) & 0xff)) / 4) as u8);
            }
        }
    }
    rgb
}

/// Such a picture as a bitmap file of 24 bits per pixel.
pub fn bmp(height: usize, width: usize) -> Vec<u8> {
    let row_bytes = (width * 3).next_multiple_of(4);
    let pixel_bytes = row_bytes * height;
    let mut file = b"BM".to_vec();
    for number in [54 + pixel_bytes, 0, 54, 40, width, height] {
        file.extend((number as u32).to_le_bytes());
    }
    // One plane of 24 bits, not compressed; the rest of the header may be zero.
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    for row in rgb(height, width).chunks_exact((width * 3).max(1)) {
        let end = file.len() + row_bytes;
        file.extend_from_slice(row);
        file.resize(end, 0);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_new_and_files_are_read_back() {
        assert_ne!(rgb(5, 7), rgb(5, 7));
        let picture = ocellus_media::decode_image(&bmp(5, 7), &ocellus_media::Budget::default()).unwrap();
        assert_eq!((picture.height, picture.width), (5, 7));
    }
}
