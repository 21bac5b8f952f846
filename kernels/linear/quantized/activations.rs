//! Activations in eight bits, for each token and group of 32 features in steps of their own. A token's codes depend on that
//! token alone.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::{
    Scheme,
    format::{FIRST_SCALE, GROUP, OFFSET},
};
use crate::{
    pool::{self, SharedSlice},
    processor::Isa,
};

/// Tokens times features from which it pays to share the work out.
const SHARED_FROM: usize = 1 << 15;
/// Tokens that are quantized in one task.
const TOKENS: usize = 16;

/// How large a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    /// The greatest magnitude is 127 steps.
    Fitting,
    /// The same rounded up to a power of two. Scaling by it is an addition of whole numbers, while the arithmetic that
    /// multiplies is busy with dot products. Beside weights of four bits the half bit that is lost hardly counts: the mean
    /// difference of a logit of the built-in model to f32 is 0.342 in place of 0.337 (`scripts/check cpu divergence`).
    Powers,
}

impl Steps {
    /// The steps that go with weights of `scheme`: powers where no scale of a weight is zero.
    pub(super) fn beside(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Int8 | Scheme::Int4Symmetric => Self::Fitting,
            Scheme::Int4Asymmetric => Self::Powers,
        }
    }
}

/// Quantized tokens, in buffers that are kept for the next product.
#[derive(Default)]
pub(super) struct Activations {
    codes: Vec<i8>,
    scales: Vec<f32>,
    starts: Vec<i32>,
    origins: Vec<f32>,
    words: Vec<Words>,
    tokens: usize,
    groups: usize,
    powers: bool,
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
    /// `(tokens)`: where sums begin, at zero, or at NaN where the token has a number without a code.
    pub(super) origins: &'a [f32],
    /// `(groups)` of one token whose scales are powers of two, else none.
    pub(super) words: &'a [Words],
    pub(super) groups: usize,
    /// Whether all scales are powers of two.
    pub(super) powers: bool,
}

/// A group of one token as whole numbers that a stream of four-bit weights takes as they are.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Words {
    /// Minus twice the sum of the codes, in the lower and in the upper half of a word, beside zero.
    pub(super) sums: [i32; 2],
    /// What is added to the nine bits of a weight's scale, where an f32 has them, for half of what both scales give.
    pub(super) exponent: i32,
}

impl Words {
    fn new(scale: f32, start: i32) -> Self {
        // 32 codes of up to 127 steps: their sum has 13 bits.
        let sum = start / (OFFSET / 2);
        // Both exponents count from that of one.
        let exponent = scale.to_bits().wrapping_add(FIRST_SCALE << 19).wrapping_sub(128 << 23);
        Self { sums: [sum & 0xffff, sum << 16], exponent: exponent as i32 }
    }
}

impl Activations {
    /// Takes `x: (tokens, features)`.
    pub(super) fn quantize(&mut self, isa: Isa, steps: Steps, x: &[f32], tokens: usize, features: usize) {
        assert_eq!(x.len(), tokens * features, "x");
        let groups = features.div_ceil(GROUP);
        (self.tokens, self.groups, self.powers) = (tokens, groups, steps == Steps::Powers);
        let stride = code_stride(groups);
        grow(&mut self.codes, tokens * stride);
        grow(&mut self.scales, tokens * groups);
        grow(&mut self.starts, tokens * groups);
        grow(&mut self.origins, tokens);
        let codes = SharedSlice::new(&mut self.codes);
        let scales = SharedSlice::new(&mut self.scales);
        let starts = SharedSlice::new(&mut self.starts);
        let origins = SharedSlice::new(&mut self.origins);
        let part = |first: usize, count: usize| {
            for token in first..first + count {
                // SAFETY: each token is quantized once, and its parts are its own.
                let row = unsafe {
                    Row {
                        x: &x[token * features..(token + 1) * features],
                        codes: codes.part(token * stride, groups * GROUP),
                        scales: scales.part(token * groups, groups),
                        starts: starts.part(token * groups, groups),
                        origin: origins.part(token, 1),
                    }
                };
                quantize_row(isa, steps, row);
            }
        };
        if tokens * features < SHARED_FROM {
            part(0, tokens);
        } else {
            let size = TOKENS.min(tokens.div_ceil(pool::threads()));
            pool::run(tokens.div_ceil(size), |task| part(task * size, size.min(tokens - task * size)));
        }
        self.words.clear();
        if self.powers && tokens == 1 {
            let groups = self.scales.iter().zip(&self.starts).take(groups);
            self.words.extend(groups.map(|(&scale, &start)| Words::new(scale, start)));
        }
    }

    pub(super) fn codes(&self) -> Codes<'_> {
        let (stride, count) = (code_stride(self.groups), self.tokens * self.groups);
        Codes {
            codes: &self.codes[..self.tokens * stride],
            code_stride: stride,
            scales: &self.scales[..count],
            starts: &self.starts[..count],
            origins: &self.origins[..self.tokens],
            words: &self.words,
            groups: self.groups,
            powers: self.powers,
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
    origin: &'a mut [f32],
}

fn quantize_row(isa: Isa, steps: Steps, row: Row<'_>) {
    match isa {
        // SAFETY: an `Isa` other than the portable one comes from detecting it.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { quantize_row_avx512(steps, row) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { quantize_row_avx2(steps, row) },
        _ => quantize_row_any(steps, row),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn quantize_row_avx512(steps: Steps, row: Row<'_>) {
    let greatest = |x: &_| greatest_avx512(x);
    let encode = |x: &_, inverse, codes: &mut _| encode_avx512(x, inverse, codes);
    match steps {
        Steps::Fitting => quantize_groups(row, greatest, fitting, encode),
        Steps::Powers => quantize_groups(row, greatest, power, encode),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_row_avx2(steps: Steps, row: Row<'_>) {
    quantize_row_any(steps, row);
}

#[inline(always)]
fn quantize_row_any(steps: Steps, row: Row<'_>) {
    match steps {
        Steps::Fitting => quantize_groups(row, greatest, fitting, encode),
        Steps::Powers => quantize_groups(row, greatest, power, encode),
    }
}

/// A group's scale, its inverse and what is added to the token's origin, from the greatest magnitude.
type Scale = (f32, f32, f32);

/// Below this a group counts as zero, so that neither its inverse overflows nor products of scales lose digits.
const LEAST: f32 = 1e-12;

/// What is not finite makes the scale not finite, and with it the result.
#[inline(always)]
fn fitting(greatest: f32) -> Scale {
    if greatest < LEAST { (0.0, 0.0, 0.0) } else { (greatest * (1.0 / 127.0), 127.0 / greatest, 0.0) }
}

/// What is not finite, or so large that the exponents of scales can't be added, makes the origin NaN.
#[inline(always)]
fn power(greatest: f32) -> Scale {
    /// 2^96.
    const MOST: f32 = 79_228_162_514_264_337_593_543_950_336.0;
    const MANTISSA: u32 = (1 << 23) - 1;
    if greatest < LEAST {
        return (1.0, 0.0, 0.0);
    }
    // Of infinity and NaN too.
    if greatest.partial_cmp(&MOST).is_none_or(|order| order.is_ge()) {
        return (1.0, 0.0, f32::NAN);
    }
    let scale = ((greatest * (1.0 / 127.0)).to_bits() + MANTISSA) & !MANTISSA;
    (f32::from_bits(scale), f32::from_bits((254 << 23) - scale), 0.0)
}

#[inline(always)]
fn quantize_groups(
    row: Row<'_>,
    greatest: impl Fn(&[f32; GROUP]) -> f32,
    scale: impl Fn(f32) -> Scale,
    encode: impl Fn(&[f32; GROUP], f32, &mut [i8; GROUP]) -> i32,
) {
    let (whole, rest) = row.x.as_chunks::<GROUP>();
    let (codes, _) = row.codes.as_chunks_mut::<GROUP>();
    let mut origin = 0.0;
    for (group, codes) in codes.iter_mut().enumerate() {
        let mut last = [0.0; GROUP];
        let x = match whole.get(group) {
            Some(x) => x,
            None => {
                last[..rest.len()].copy_from_slice(rest);
                &last
            }
        };
        let (scale, inverse, begins) = scale(greatest(x));
        row.scales[group] = scale;
        row.starts[group] = -OFFSET * encode(x, inverse, codes);
        origin += begins;
    }
    row.origin.fill(origin);
}

#[inline(always)]
fn greatest(x: &[f32; GROUP]) -> f32 {
    // As whole numbers, magnitudes keep their order, with infinity and then NaN at the top.
    let mut greatest = 0u32;
    for x in x {
        greatest = greatest.max(x.to_bits() & 0x7fff_ffff);
    }
    f32::from_bits(greatest)
}

/// Adding this leaves a rounded whole number in the lower bits.
const SHIFT: f32 = 12_582_912.0;

/// Gives the sum of the codes.
#[inline(always)]
fn encode(x: &[f32; GROUP], inverse: f32, codes: &mut [i8; GROUP]) -> i32 {
    let mut sum = 0i32;
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + SHIFT).to_bits() as i8;
        sum += i32::from(*code);
    }
    sum
}

/// [`greatest`], the same bits.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn greatest_avx512(x: &[f32; GROUP]) -> f32 {
    let magnitudes = halves(x).map(|x| _mm512_castps_si512(_mm512_abs_ps(x)));
    f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(magnitudes[0], magnitudes[1])))
}

/// [`encode`], the same bits.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn encode_avx512(x: &[f32; GROUP], inverse: f32, codes: &mut [i8; GROUP]) -> i32 {
    let (inverse, shift) = (_mm512_set1_ps(inverse), _mm512_set1_ps(SHIFT));
    let [low, high] = halves(x)
        .map(|x| _mm512_cvtepi32_epi8(_mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(x, inverse), shift))));
    let all = _mm256_set_m128i(high, low);
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), all) };
    let fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), all);
    let sum = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256::<1>(fours));
    let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_11_10>(sum));
    _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_00_01>(sum)))
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(x: &[f32; GROUP]) -> [__m512; 2] {
    let (halves, _) = x.as_chunks::<16>();
    // SAFETY: sixteen elements each.
    [0, 1].map(|half: usize| unsafe { _mm512_loadu_ps(halves[half].as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a token becomes: codes, scales, starts, origin.
    fn quantized(isa: Isa, steps: Steps, x: &[f32]) -> (Vec<i8>, Vec<u32>, Vec<i32>, bool) {
        let mut activations = Activations::default();
        activations.quantize(isa, steps, x, 1, x.len());
        let codes = activations.codes();
        let scales = codes.scales.iter().map(|scale| scale.to_bits()).collect();
        (codes.codes.to_vec(), scales, codes.starts.to_vec(), codes.origins[0].is_nan())
    }

    #[test]
    fn every_processor_quantizes_alike() {
        let random = crate::testing::numbers(11, 3000);
        let mut cases = vec![vec![], vec![0.0; 64], vec![f32::NAN; 33], vec![1e-20; 40], vec![3e38; 5]];
        for len in [1, 31, 32, 33, 97, 2048] {
            let start = len * 7 % 900;
            for factor in [1.0, 1e-13, 1e30] {
                cases.push(random[start..start + len].iter().map(|x| x * factor).collect());
            }
        }
        for steps in [Steps::Fitting, Steps::Powers] {
            for x in &cases {
                let expected = quantized(Isa::Portable, steps, x);
                for isa in Isa::available() {
                    assert_eq!(quantized(isa, steps, x), expected, "{isa}, {steps:?}, {} numbers", x.len());
                }
            }
        }
    }
}
