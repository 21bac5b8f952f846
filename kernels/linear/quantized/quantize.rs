//! Choosing scales, zero points and codes: the block of 32 rows by 32 features at once, each row's group for itself.
//!
//! For each group, scales near the one that spans its range are tried on the grid of numbers that can be stored, and
//! the one with the least squared error is kept. Sums and products are never fused, so that every processor chooses
//! the same.

#![allow(unsafe_code)]

use super::{
    Scheme,
    format::{FIRST_SCALE, GROUP, HEADER, LAST_SCALE, LAST_ZERO, OFFSET, PANEL, code_place, header_word},
};
use crate::processor::Isa;

/// Something for each row of a panel.
type Lanes<T = f32> = [T; PANEL];
/// One block of weights, feature by feature.
pub(super) type Weights = [Lanes; GROUP];

/// Quantizes one block of finite weights into `block`.
pub(super) fn quantize(isa: Isa, scheme: Scheme, weights: &Weights, block: &mut [u8]) {
    match isa {
        // SAFETY: an `Isa` other than the portable one comes from detecting it.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { quantize_avx512(scheme, weights, block) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { quantize_avx2(scheme, weights, block) },
        _ => quantize_any(scheme, weights, block),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantize_avx512(scheme: Scheme, weights: &Weights, block: &mut [u8]) {
    quantize_any(scheme, weights, block);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_avx2(scheme: Scheme, weights: &Weights, block: &mut [u8]) {
    quantize_any(scheme, weights, block);
}

#[inline(always)]
fn quantize_any(scheme: Scheme, weights: &Weights, block: &mut [u8]) {
    let (header, codes) = block.split_at_mut(HEADER);
    let mut words = [0u16; PANEL];
    match scheme {
        Scheme::Int8 => {
            let scale = symmetric::<-128, 127, 1>(weights, &[1.0]);
            write(weights, &scale, |w, inverse| {
                (round(w * inverse).clamp(-128.0, 127.0) as i32 + OFFSET) as u8
            })
            .iter()
            .enumerate()
            .for_each(|(feature, row)| put_wide(codes, feature, row));
            words = scale.map(bf16_word);
        }
        Scheme::Int4Symmetric => {
            let scale = symmetric::<-8, 7, 8>(weights, &[1.03, 0.97, 0.91, 0.85, 0.79, 0.73]);
            let nibbles = write(weights, &scale, |w, inverse| {
                (round(w * (inverse * 0.125)).clamp(-8.0, 7.0) as i32 + 8) as u8
            });
            nibbles.iter().enumerate().for_each(|(feature, row)| put_narrow(codes, feature, row));
            words = scale.map(bf16_word);
        }
        Scheme::Int4Asymmetric => {
            let (scale, zero) = asymmetric(weights);
            let mut inverse = [0.0f32; PANEL];
            for row in 0..PANEL {
                inverse[row] = 1.0 / nine_bits(scale[row]);
                words[row] = (scale[row] << 7 | zero[row] as u32) as u16;
            }
            for (feature, w) in weights.iter().enumerate() {
                let mut nibbles = [0u8; PANEL];
                for row in 0..PANEL {
                    nibbles[row] = nibble(w[row] * inverse[row], zero[row]) as i32 as u8;
                }
                put_narrow(codes, feature, &nibbles);
            }
        }
    }
    for (row, word) in words.into_iter().enumerate() {
        header[2 * header_word(row)..][..2].copy_from_slice(&word.to_le_bytes());
    }
}

/// Scales, rounded to bf16, for `weight = STEP * q * scale` with `LEAST <= q <= MOST`. The number of the greatest
/// magnitude lies near `LEAST`, whatever its sign: scales may be negative.
#[inline(always)]
fn symmetric<const LEAST: i32, const MOST: i32, const STEP: i32>(weights: &Weights, parts: &[f32]) -> Lanes {
    let (least, most, step) = (LEAST as f32, MOST as f32, STEP as f32);
    let mut extreme = [0.0f32; PANEL];
    for w in weights {
        for row in 0..PANEL {
            extreme[row] = if w[row].abs() > extreme[row].abs() { w[row] } else { extreme[row] };
        }
    }
    // What is smaller still counts as zero, so that products of scales never lose digits.
    for extreme in &mut extreme {
        *extreme = if extreme.abs() < 1e-18 { 0.0 } else { *extreme };
    }
    let mut best = [0.0f32; PANEL];
    let mut best_error = [f32::INFINITY; PANEL];
    let mut scale = [0.0f32; PANEL];
    // Codes for one guess of the scale give the scale that suits them best; that one is rounded and judged.
    for &part in parts {
        // The extreme at `LEAST`, and at `MOST`.
        for end in [least, most] {
            for row in 0..PANEL {
                scale[row] = extreme[row] * (part / end);
            }
            let inverse = inverses(&scale);
            let mut products = [0.0f32; PANEL];
            let mut squares = [0.0f32; PANEL];
            for w in weights {
                for row in 0..PANEL {
                    let q = round(w[row] * inverse[row]).max(least).min(most);
                    products[row] += w[row] * q;
                    squares[row] += q * q;
                }
            }
            for row in 0..PANEL {
                let fit = if squares[row] > 0.0 { products[row] / squares[row] } else { 0.0 };
                scale[row] = to_bf16(fit / step);
            }
            judge(weights, &scale, least, most, step, &mut best, &mut best_error);
        }
    }
    // Eight bits leave little to gain but by the rounding of the scale itself.
    if STEP == 1 {
        for neighbour in -2..=2i32 {
            for row in 0..PANEL {
                let bits = to_bf16(extreme[row] / least).to_bits();
                let reach = bits & 0x7fff_ffff > 4 << 16;
                let bits = if reach { bits.wrapping_add_signed(neighbour << 16) } else { 0 };
                scale[row] = f32::from_bits(bits);
            }
            judge(weights, &scale, least, most, step, &mut best, &mut best_error);
        }
    }
    best
}

/// Keeps `scale` where its squared error is below the best so far.
#[inline(always)]
fn judge(
    weights: &Weights,
    scale: &Lanes,
    least: f32,
    most: f32,
    step: f32,
    best: &mut Lanes,
    best_error: &mut Lanes,
) {
    let mut whole = [0.0f32; PANEL];
    for row in 0..PANEL {
        whole[row] = scale[row] * step;
    }
    let inverse = inverses(&whole);
    let mut error = [0.0f32; PANEL];
    for w in weights {
        for row in 0..PANEL {
            let q = round(w[row] * inverse[row]).max(least).min(most);
            let miss = w[row] - q * whole[row];
            error[row] += miss * miss;
        }
    }
    for row in 0..PANEL {
        let better = error[row] < best_error[row];
        best[row] = if better { scale[row] } else { best[row] };
        best_error[row] = if better { error[row] } else { best_error[row] };
    }
}

/// Nine-bit scales and zero points for `weight = (8 q - zero) * scale` with `0 <= q <= 15`.
#[inline(always)]
fn asymmetric(weights: &Weights) -> (Lanes<u32>, Lanes) {
    let mut least = [0.0f32; PANEL];
    let mut most = [0.0f32; PANEL];
    for w in weights {
        for row in 0..PANEL {
            least[row] = least[row].min(w[row]);
            most[row] = most[row].max(w[row]);
        }
    }
    let mut best = [0u32; PANEL];
    let mut best_zero = [0.0f32; PANEL];
    let mut best_error = [f32::INFINITY; PANEL];
    let mut code = [0u32; PANEL];
    let mut scale = [0.0f32; PANEL];
    let mut inverse = [0.0f32; PANEL];
    let mut zero = [0.0f32; PANEL];
    for neighbour in -8..=1i32 {
        for row in 0..PANEL {
            let spans = (most[row] - least[row]) * (1.0 / 120.0);
            let nearest = ((spans.to_bits() + (1 << 18)) >> 19) as i32 - FIRST_SCALE as i32;
            code[row] = (nearest + neighbour).clamp(0, LAST_SCALE as i32) as u32;
            scale[row] = nine_bits(code[row]);
            inverse[row] = 1.0 / scale[row];
        }
        // What a narrower span cuts off is cut off at the top, at both ends alike, or at the bottom.
        for part in [0.0, 0.5, 1.0] {
            for row in 0..PANEL {
                let (bottom, top) = (-least[row] * inverse[row], 120.0 - most[row] * inverse[row]);
                zero[row] = to_zero(bottom + (top - bottom) * part);
            }
            // The mean of what is missed moves the zero point, which may move codes.
            for _ in 0..2 {
                let mut missed = [0.0f32; PANEL];
                let mut squares = [0.0f32; PANEL];
                for w in weights {
                    for row in 0..PANEL {
                        let value = w[row] * inverse[row];
                        let miss = 8.0 * nibble(value, zero[row]) - zero[row] - value;
                        missed[row] += miss;
                        squares[row] += miss * miss;
                    }
                }
                for row in 0..PANEL {
                    let error = squares[row] * scale[row] * scale[row];
                    let better = error < best_error[row];
                    best[row] = if better { code[row] } else { best[row] };
                    best_zero[row] = if better { zero[row] } else { best_zero[row] };
                    best_error[row] = if better { error } else { best_error[row] };
                    zero[row] = to_zero(zero[row] + missed[row] * (1.0 / GROUP as f32));
                }
            }
        }
    }
    (best, best_zero)
}

/// The four-bit code of `value`, in units of its scale, and as a float.
#[inline(always)]
fn nibble(value: f32, zero: f32) -> f32 {
    round((value + zero) * 0.125).clamp(0.0, 15.0)
}

#[inline(always)]
fn to_zero(zero: f32) -> f32 {
    round(zero.clamp(0.0, LAST_ZERO as f32))
}

#[inline(always)]
fn nine_bits(code: u32) -> f32 {
    f32::from_bits((code + FIRST_SCALE) << 19)
}

/// To the nearest whole number, for what is below 2^22 in magnitude. Larger numbers stay large enough to be clamped.
#[inline(always)]
fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// The nearest bf16; ties away from zero.
#[inline(always)]
fn to_bf16(x: f32) -> f32 {
    f32::from_bits(x.to_bits().wrapping_add(0x8000) & 0xffff_0000)
}

#[inline(always)]
fn bf16_word(scale: f32) -> u16 {
    (scale.to_bits() >> 16) as u16
}

/// What weights are multiplied by in place of a division; zero where the scale is too small to divide by.
#[inline(always)]
fn inverses(scale: &Lanes) -> Lanes {
    let mut inverse = [0.0f32; PANEL];
    for row in 0..PANEL {
        inverse[row] = if scale[row].abs() > 1e-36 { 1.0 / scale[row] } else { 0.0 };
    }
    inverse
}

/// Codes of all weights by one rule.
#[inline(always)]
fn write(weights: &Weights, scale: &Lanes, code: impl Fn(f32, f32) -> u8) -> [Lanes<u8>; GROUP] {
    let inverse = inverses(scale);
    let mut codes = [[0u8; PANEL]; GROUP];
    for (codes, w) in codes.iter_mut().zip(weights) {
        for row in 0..PANEL {
            codes[row] = code(w[row], inverse[row]);
        }
    }
    codes
}

#[inline(always)]
fn put_wide(codes: &mut [u8], feature: usize, row: &Lanes<u8>) {
    for (i, &code) in row.iter().enumerate() {
        codes[code_place(i, feature)] = code;
    }
}

#[inline(always)]
fn put_narrow(codes: &mut [u8], feature: usize, row: &Lanes<u8>) {
    const HALF: usize = GROUP / 2;
    for (i, &code) in row.iter().enumerate() {
        let place = &mut codes[code_place(i, feature % HALF)];
        *place = if feature < HALF { code } else { *place | code << 4 };
    }
}
