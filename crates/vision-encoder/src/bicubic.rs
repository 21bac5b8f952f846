//! Pillow's bicubic resize, bit for bit: width first, then height, eight bits in between.
//!
//! The models were trained on pictures resized by Pillow up to version 12 (`src/libImaging/Resample.c`), and no other
//! resampler equals it: those with a float picture between the passes differ by up to 20 levels at hard edges. The
//! kernel is Keys' cubic with a = -0.5 (R. Keys, "Cubic convolution interpolation for digital image processing",
//! 1981), widened by the factor when shrinking. Pillow 13 sometimes runs the height pass first; this does not.

use std::ops::Range;

use rayon::prelude::*;

use crate::{Error, geometry::CHANNELS};

/// Resizes `rgb: (height, width, 3)` u8 between two sizes, each `(height, width)`. A pass whose size does not change
/// is skipped.
///
/// # Errors
/// [`Error::Pixels`] when the buffer is not as long as `from` says, [`Error::Size`] when a side is zero or too long,
/// [`Error::Memory`] when the result does not fit into memory.
pub fn resize(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Result<Vec<u8>, Error> {
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

/// Positions are computed in f64 and kept in 32 bits; a billion is far beyond any picture that memory holds.
const LARGEST_SIDE: usize = 1 << 30;

/// Fraction bits of the weights: eight are left for the pixel and two for sums beyond its range.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half of the kernel's width when it is not widened, in input pixels.
const SUPPORT: f64 = 2.0;

/// The fixed-point weights of every output position along one axis.
struct Weights {
    /// For each output position, the input positions that it is made of.
    windows: Vec<Range<usize>>,
    /// For each output position, `taps` weights of which those beyond its window are zero.
    values: Vec<i32>,
    /// Weights per output position.
    taps: usize,
}

impl Weights {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc`.
    fn new(input: usize, output: usize) -> Result<Self, Error> {
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
    resized.par_chunks_exact_mut(new_row_bytes).zip(rgb.par_chunks_exact(row_bytes)).for_each(
        |(row, source)| {
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
        },
    );
    Ok(resized)
}

/// All columns of `rgb: (height, width, 3)` at the new height.
fn resize_height(rgb: &[u8], width: usize, weights: &Weights) -> Result<Vec<u8>, Error> {
    let row_bytes = width * CHANNELS;
    let mut resized = zeros(weights.len(), row_bytes, "resized picture")?;
    let rows: Vec<_> = weights.iter().collect();
    resized.par_chunks_exact_mut(row_bytes).zip(rows).for_each_init(
        || vec![0; row_bytes],
        |sums, (row, (window, weights))| {
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
        },
    );
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
    let count = rows.checked_mul(columns).unwrap_or(usize::MAX);
    let mut buffer = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    buffer.try_reserve_exact(count).map_err(|_| Error::Memory { what, bytes })?;
    buffer.resize(count, T::default());
    Ok(buffer)
}
