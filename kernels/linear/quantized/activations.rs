//! Activations in eight bits: for each token and group of 32 features the greatest magnitude is 127 steps. A token's
//! codes depend on that token alone.

#![allow(unsafe_code)]

use super::format::{GROUP, OFFSET};
use crate::{
    pool::{self, SharedSlice},
    processor::Isa,
};

/// Tokens times features from which it pays to share the work out.
const SHARED_FROM: usize = 1 << 15;
/// Tokens that are quantized in one task.
const TOKENS: usize = 16;

/// Quantized tokens, in buffers that are kept for the next product.
#[derive(Default)]
pub(super) struct Activations {
    codes: Vec<i8>,
    scales: Vec<f32>,
    starts: Vec<i32>,
    tokens: usize,
    groups: usize,
}

/// A view of [`Activations`].
#[derive(Clone, Copy)]
pub(super) struct Codes<'a> {
    /// `(tokens, code_stride)`; codes of the features that fill up the last group are zero.
    pub(super) codes: &'a [i8],
    pub(super) code_stride: usize,
    /// `(tokens, groups)`: what a step is.
    pub(super) scales: &'a [f32],
    /// `(tokens, groups)`: where an integer sum begins, so that the offset of the weights' codes cancels.
    pub(super) starts: &'a [i32],
    pub(super) groups: usize,
}

impl Activations {
    /// Takes `x: (tokens, features)`.
    pub(super) fn quantize(&mut self, isa: Isa, x: &[f32], tokens: usize, features: usize) {
        assert_eq!(x.len(), tokens * features, "x");
        let groups = features.div_ceil(GROUP);
        (self.tokens, self.groups) = (tokens, groups);
        let stride = code_stride(groups);
        grow(&mut self.codes, tokens * stride);
        grow(&mut self.scales, tokens * groups);
        grow(&mut self.starts, tokens * groups);
        let codes = SharedSlice::new(&mut self.codes);
        let scales = SharedSlice::new(&mut self.scales);
        let starts = SharedSlice::new(&mut self.starts);
        let part = |first: usize, count: usize| {
            for token in first..first + count {
                // SAFETY: each token is quantized once, and its parts are its own.
                let row = unsafe {
                    Row {
                        x: &x[token * features..(token + 1) * features],
                        codes: codes.part(token * stride, groups * GROUP),
                        scales: scales.part(token * groups, groups),
                        starts: starts.part(token * groups, groups),
                    }
                };
                quantize_row(isa, row);
            }
        };
        if tokens * features < SHARED_FROM {
            part(0, tokens);
        } else {
            let size = TOKENS.min(tokens.div_ceil(pool::threads()));
            pool::run(tokens.div_ceil(size), |task| part(task * size, size.min(tokens - task * size)));
        }
    }

    pub(super) fn codes(&self) -> Codes<'_> {
        let (stride, count) = (code_stride(self.groups), self.tokens * self.groups);
        Codes {
            codes: &self.codes[..self.tokens * stride],
            code_stride: stride,
            scales: &self.scales[..count],
            starts: &self.starts[..count],
            groups: self.groups,
        }
    }
}

/// An odd number of cache lines, so that rows don't fall on the same places of a cache.
fn code_stride(groups: usize) -> usize {
    (groups * GROUP).div_ceil(64) / 2 * 128 + 64
}

fn grow<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

/// One token.
struct Row<'a> {
    x: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    starts: &'a mut [i32],
}

fn quantize_row(isa: Isa, row: Row<'_>) {
    match isa {
        // SAFETY: an `Isa` other than the portable one comes from detecting it.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { quantize_row_avx512(row) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { quantize_row_avx2(row) },
        _ => quantize_row_any(row),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantize_row_avx512(row: Row<'_>) {
    quantize_row_any(row);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_row_avx2(row: Row<'_>) {
    quantize_row_any(row);
}

#[inline(always)]
fn quantize_row_any(row: Row<'_>) {
    let (whole, rest) = row.x.as_chunks::<GROUP>();
    let (codes, _) = row.codes.as_chunks_mut::<GROUP>();
    for (group, codes) in codes.iter_mut().enumerate() {
        let (scale, sum) = match whole.get(group) {
            Some(x) => quantize_group(x, codes),
            None => {
                let mut x = [0.0; GROUP];
                x[..rest.len()].copy_from_slice(rest);
                quantize_group(&x, codes)
            }
        };
        row.scales[group] = scale;
        row.starts[group] = -OFFSET * sum;
    }
}

/// Gives the scale and the sum of the codes. What is not finite makes the scale not finite, and with it the result.
#[inline(always)]
fn quantize_group(x: &[f32; GROUP], codes: &mut [i8; GROUP]) -> (f32, i32) {
    /// Below this a group counts as zero, so that neither its inverse overflows nor products of scales lose digits.
    const LEAST: f32 = 1e-12;
    /// Adding this leaves a rounded whole number in the lower bits.
    const SHIFT: f32 = 12_582_912.0;
    // As whole numbers, magnitudes keep their order, with infinity and then NaN at the top.
    let mut greatest = 0u32;
    for x in x {
        greatest = greatest.max(x.to_bits() & 0x7fff_ffff);
    }
    let greatest = f32::from_bits(greatest);
    let (scale, inverse) =
        if greatest < LEAST { (0.0, 0.0) } else { (greatest * (1.0 / 127.0), 127.0 / greatest) };
    let mut sum = 0i32;
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + SHIFT).to_bits() as i8;
        sum += i32::from(*code);
    }
    (scale, sum)
}
