//! Pillow's bicubic resize, bit for bit: width first, then height, eight bits in between.
//!
//! The models were trained on pictures resized by Pillow up to version 12 (`src/libImaging/Resample.c`), and no other
//! resampler equals it: those with a float picture between the passes differ by up to 20 levels at hard edges. The
//! kernel is Keys' cubic with a = -0.5 (R. Keys, "Cubic convolution interpolation for digital image processing",
//! 1981), widened by the factor when shrinking. Pillow 13 sometimes runs the height pass first; this does not.

use std::ops::Range;

use ocellus_kernels::resample::Axis;

use crate::{Error, geometry::CHANNELS};

/// Resizes `rgb: (height, width, 3)` u8 between two sizes, each `(height, width)`. A pass whose size does not change
/// is skipped.
///
/// This is the definition, pass by pass. [`crate::preprocess`] does the same together with all that follows.
///
/// # Errors
/// [`Error::Pixels`] when the buffer is not as long as `from` says, [`Error::Size`] when a side is zero or too long,
/// [`Error::Memory`] when the result does not fit into memory.
pub fn resize(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Result<Vec<u8>, Error> {
    check(rgb, from, to)?;
    let vertical = (from.0 != to.0).then(|| Weights::new(from.0, to.0)).transpose()?;
    if from.1 == to.1 {
        return match vertical {
            None => Ok(rgb.to_vec()),
            Some(weights) => resize_height(rgb, from.1, &weights),
        };
    }
    let horizontal = Weights::new(from.1, to.1)?;
    match vertical {
        None => resize_width(rgb, from.1, &horizontal),
        Some(weights) => {
            let intermediate = resize_width(rgb, from.1, &horizontal)?;
            resize_height(&intermediate, to.1, &weights)
        }
    }
}

/// Checks the sizes and that the buffer is as long as `from` says.
pub(crate) fn check(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Result<(), Error> {
    for (height, width) in [from, to] {
        if height.min(width) == 0 || height.max(width) > LARGEST_SIDE {
            return Err(Error::Size { height, width, largest: LARGEST_SIDE });
        }
    }
    let expected = from.0.checked_mul(from.1).and_then(|pixels| pixels.checked_mul(CHANNELS));
    if expected != Some(rgb.len()) {
        return Err(Error::Pixels {
            what: "picture to resize",
            found: rgb.len(),
            expected: expected.map_or("more than memory holds".to_owned(), |bytes| bytes.to_string()),
            height: from.0,
            width: from.1,
        });
    }
    Ok(())
}

/// Positions are computed in f64 and kept in 32 bits; a billion is far beyond any picture that memory holds.
const LARGEST_SIDE: usize = 1 << 30;

/// Fraction bits of the weights: eight are left for the pixel and two for sums beyond its range.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half of the kernel's width when it is not widened, in input pixels.
const SUPPORT: f64 = 2.0;

/// The fixed-point weights of every output position along one axis.
#[derive(Debug)]
pub(crate) struct Weights {
    /// For each output position, the input positions that it is made of.
    windows: Vec<Range<usize>>,
    /// For each output position, `taps` weights of which those beyond its window are zero.
    values: Vec<i32>,
    /// Weights per output position.
    taps: usize,
}

impl Weights {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc`. Between equal sizes each position has a weight of one, which
    /// gives its own level: what Pillow does by skipping the pass.
    pub(crate) fn new(input: usize, output: usize) -> Result<Self, Error> {
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let inverse = 1.0 / filter_scale;
        // No window is longer than the widened kernel, nor than the input itself.
        let taps = ((support.ceil() as usize) * 2 + 1).min(input);
        let mut windows = Vec::new();
        let bytes = output.saturating_mul(size_of::<Range<usize>>());
        windows.try_reserve_exact(output).map_err(|_| Error::Memory { what: "resampling windows", bytes })?;
        let mut values = zeros(output, taps, "resampling weights")?;
        let mut real = vec![0.0; taps];
        for (index, fixed) in values.chunks_exact_mut(taps).enumerate() {
            let center = (index as f64 + 0.5) * scale;
            // Conversions to integers cut towards zero, as in C.
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let mut total = 0.0;
            for (x, weight) in real[..end - start].iter_mut().enumerate() {
                *weight = cubic(((x + start) as f64 - center + 0.5) * inverse);
                total += *weight;
            }
            for (&weight, fixed) in real[..end - start].iter().zip(fixed) {
                let weight = if total == 0.0 { weight } else { weight / total };
                let half = if weight < 0.0 { -0.5 } else { 0.5 };
                *fixed = (half + weight * f64::from(1 << PRECISION_BITS)) as i32;
            }
            windows.push(start..end);
        }
        Ok(Self { windows, values, taps })
    }

    /// As the kernel takes them, for an axis of `input` positions.
    pub(crate) fn axis(&self, input: usize) -> Axis<'_> {
        Axis { input, windows: &self.windows, weights: &self.values, taps: self.taps }
    }

    /// The input positions and the weights of each output position.
    fn iter(&self) -> impl Iterator<Item = (Range<usize>, &[i32])> {
        self.windows.iter().zip(self.values.chunks_exact(self.taps)).map(|(window, values)| {
            let n = window.len();
            (window.clone(), &values[..n])
        })
    }

    /// How many output positions there are.
    fn len(&self) -> usize {
        self.windows.len()
    }
}

/// `bicubic_filter`.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Every row of `rgb: (rows, width, 3)` at the new width.
fn resize_width(rgb: &[u8], width: usize, weights: &Weights) -> Result<Vec<u8>, Error> {
    let (row_bytes, new_row_bytes) = (width * CHANNELS, weights.len() * CHANNELS);
    let mut resized = zeros(rgb.len() / row_bytes, new_row_bytes, "resized picture")?;
    for (row, source) in resized.chunks_exact_mut(new_row_bytes).zip(rgb.chunks_exact(row_bytes)) {
        for (pixel, (window, weights)) in row.chunks_exact_mut(CHANNELS).zip(weights.iter()) {
            let taps = source[window.start * CHANNELS..window.end * CHANNELS].chunks_exact(CHANNELS);
            let (mut red, mut green, mut blue) = (HALF, HALF, HALF);
            for (tap, &weight) in taps.zip(weights) {
                red += i32::from(tap[0]) * weight;
                green += i32::from(tap[1]) * weight;
                blue += i32::from(tap[2]) * weight;
            }
            pixel.copy_from_slice(&[clip(red), clip(green), clip(blue)]);
        }
    }
    Ok(resized)
}

/// All columns of `rgb: (height, width, 3)` at the new height.
fn resize_height(rgb: &[u8], width: usize, weights: &Weights) -> Result<Vec<u8>, Error> {
    let row_bytes = width * CHANNELS;
    let mut resized = zeros(weights.len(), row_bytes, "resized picture")?;
    let mut sums = vec![0; row_bytes];
    for (row, (window, weights)) in resized.chunks_exact_mut(row_bytes).zip(weights.iter()) {
        sums.fill(HALF);
        let sources = rgb[window.start * row_bytes..window.end * row_bytes].chunks_exact(row_bytes);
        for (source, &weight) in sources.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(source) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, &sum) in row.iter_mut().zip(sums.iter()) {
            *value = clip(sum);
        }
    }
    Ok(resized)
}

/// One half in fixed point: sums start from it so that cutting the fraction off rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The pixel that a fixed-point sum stands for. Weights add up to one and their sizes to less than two, so that sums
/// of 255 times them stay within an i32.
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// `rows * columns` zeros, or an error instead of an abort.
fn zeros<T: Clone + Default>(rows: usize, columns: usize, what: &'static str) -> Result<Vec<T>, Error> {
    let count = rows.saturating_mul(columns);
    let mut buffer = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    buffer.try_reserve_exact(count).map_err(|_| Error::Memory { what, bytes })?;
    buffer.resize(count, T::default());
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of hard edges, and what `Image.resize(.., BICUBIC)` of Pillow 12.3.0 makes of it.
    #[test]
    fn equal_to_pillow() {
        #[rustfmt::skip]
        const PICTURE: [u8; 5 * 7 * 3] = [200, 0, 0, 255, 0, 200, 200, 17, 0, 0, 255, 17, 128, 17, 255, 0, 128, 128, 0, 0, 17, 255, 200, 17, 17, 17, 128, 17, 0, 128, 128, 200, 128, 255, 255, 128, 128, 128, 200, 255, 200, 0, 0, 200, 200, 255, 0, 255, 0, 200, 128, 17, 255, 17, 0, 128, 17, 0, 255, 128, 17, 255, 255, 0, 128, 128, 17, 200, 200, 255, 128, 128, 255, 255, 17, 128, 255, 128, 128, 255, 255, 200, 200, 128, 0, 128, 255, 200, 200, 17, 200, 128, 255, 200, 255, 0, 17, 200, 128, 255, 200, 17, 255, 0, 255];
        let check =
            |to, expected: &[u8]| assert_eq!(resize(&PICTURE, (5, 7), to).unwrap(), expected, "{to:?}");
        check(
            (3, 9),
            &[
                229, 89, 2, 182, 29, 123, 140, 0, 129, 100, 48, 54, 49, 230, 67, 169, 139, 182, 113, 117,
                194, 67, 112, 105, 108, 85, 3, 56, 199, 139, 120, 86, 202, 107, 75, 191, 58, 167, 107, 97,
                241, 45, 94, 199, 46, 66, 209, 130, 70, 233, 186, 114, 247, 168, 0, 122, 204, 77, 185, 123,
                179, 172, 145, 232, 149, 173, 227, 255, 4, 79, 230, 103, 129, 232, 123, 212, 181, 145, 232,
                82, 204,
            ],
        );
        check(
            (8, 4),
            &[
                239, 0, 93, 162, 90, 32, 52, 108, 169, 0, 40, 74, 199, 44, 73, 107, 67, 76, 126, 160, 166,
                92, 92, 75, 141, 113, 72, 34, 56, 132, 194, 225, 143, 200, 174, 94, 129, 107, 190, 36, 141,
                125, 46, 199, 50, 57, 234, 170, 81, 119, 225, 104, 186, 113, 33, 207, 42, 34, 255, 206, 7,
                154, 168, 215, 178, 105, 161, 253, 115, 155, 230, 193, 51, 159, 156, 222, 179, 121, 139, 241,
                87, 223, 141, 167, 96, 156, 154, 208, 180, 135, 104, 224, 56, 255, 78, 149,
            ],
        );
        check(
            (2, 7),
            &[
                175, 131, 51, 151, 7, 189, 78, 54, 80, 58, 232, 64, 154, 144, 146, 49, 160, 165, 108, 150,
                63, 1, 151, 190, 130, 153, 148, 170, 145, 176, 183, 253, 14, 63, 213, 97, 145, 236, 144, 183,
                150, 202,
            ],
        );
        check(
            (5, 3),
            &[
                227, 3, 79, 96, 122, 92, 20, 59, 116, 100, 75, 85, 120, 148, 139, 208, 187, 111, 112, 114,
                215, 18, 195, 51, 5, 231, 152, 57, 155, 159, 213, 223, 91, 152, 238, 184, 129, 157, 155, 156,
                211, 92, 206, 126, 124,
            ],
        );
    }

    /// The definition without shortcuts: each output pixel from all input pixels along one axis, in i64.
    fn resize_slowly(
        rgb: &[u8],
        (height, width): (usize, usize),
        (new_height, new_width): (usize, usize),
    ) -> Vec<u8> {
        let along = |input: usize, output: usize, index: usize, pixel: &dyn Fn(usize) -> u8| {
            if input == output {
                return pixel(index);
            }
            let scale = input as f64 / output as f64;
            let widened = scale.max(1.0);
            let center = (index as f64 + 0.5) * scale;
            let from = ((center - 2.0 * widened + 0.5) as i64).max(0);
            let to = ((center + 2.0 * widened + 0.5) as i64).min(input as i64);
            let weights: Vec<_> =
                (from..to).map(|x| cubic((x as f64 - center + 0.5) * (1.0 / widened))).collect();
            let total: f64 = weights.iter().sum();
            let mut sum = 1i64 << 21;
            for (x, weight) in (from..to).zip(weights) {
                let weight = weight / total * 4_194_304.0;
                sum += i64::from(pixel(x as usize)) * (weight + 0.5f64.copysign(weight)) as i64;
            }
            (sum >> 22).clamp(0, 255) as u8
        };
        let mut narrow = vec![0; height * new_width * 3];
        for (index, value) in narrow.iter_mut().enumerate() {
            let (y, x, channel) = (index / 3 / new_width, index / 3 % new_width, index % 3);
            *value = along(width, new_width, x, &|x| rgb[(y * width + x) * 3 + channel]);
        }
        let mut result = vec![0; new_height * new_width * 3];
        for (index, value) in result.iter_mut().enumerate() {
            let (y, x, channel) = (index / 3 / new_width, index / 3 % new_width, index % 3);
            *value = along(height, new_height, y, &|y| narrow[(y * new_width + x) * 3 + channel]);
        }
        result
    }

    #[test]
    fn equal_to_the_slow_definition() {
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Black and white half of the time: edges where rounding and cutting off show.
            let value = (state >> 24) as u8;
            if state >> 20 & 1 == 0 { value } else { 255 * (value & 1) }
        };
        let sides = [1, 2, 3, 5, 28, 31, 64, 101];
        for (index, from) in sides.iter().flat_map(|&h| sides.iter().map(move |&w| (h, w))).enumerate() {
            let rgb: Vec<_> = (0..from.0 * from.1 * 3).map(|_| random()).collect();
            // Every pair of sides meets a different pair, so that shrinking, growing and keeping all mix.
            for step in [1, 3, 6] {
                let to = (sides[(index / 8 + step) % 8], sides[(index + 2 * step) % 8]);
                assert!(
                    resize(&rgb, from, to).unwrap() == resize_slowly(&rgb, from, to),
                    "{from:?} to {to:?}"
                );
            }
        }
    }

    #[test]
    fn a_picture_of_the_right_size_stays_as_it_is() {
        let rgb: Vec<_> = (0..90).collect();
        assert_eq!(resize(&rgb, (5, 6), (5, 6)).unwrap(), rgb);
    }

    #[test]
    fn one_color_stays_one_color() {
        for (from, to) in [((1, 1), (56, 84)), ((97, 3), (28, 28)), ((500, 2), (1, 1))] {
            let rgb = [0, 128, 255].repeat(from.0 * from.1);
            assert_eq!(
                resize(&rgb, from, to).unwrap(),
                [0, 128, 255].repeat(to.0 * to.1),
                "{from:?} to {to:?}"
            );
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let check = |from, to, words: &str| {
            let message = resize(&[0; 12], from, to).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        check((2, 3), (2, 2), "the buffer has 12 bytes, expected 18 for 2x3 RGB pixels");
        check((0, 2), (2, 2), "0x2 pixels");
        check((2, 2), (2, 0), "2x0 pixels");
        check((usize::MAX, 2), (2, 2), "can't be resized");
        check((1 << 30, 1 << 30), (2, 2), "expected 3458764513820540928");
    }
}
