//! `exp` and SiLU for vectors: a polynomial in place of the library's call, which no loop could be vectorised around.
//!
//! `eˣ = 2ⁿ · eʳ` with `n` the nearest integer to `x / ln 2`, so that `|r| <= ln 2 / 2`, where the Taylor polynomial
//! of degree 7 is off by less than 4e-9. What remains is rounding: both forms are within 2 units in the last place
//! (the tests go through all magnitudes). The forms may differ from each other in that last place.

#![allow(unsafe_code)]
/// `ln 2` in two parts: the first has so few digits that its product with any `n` is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// `1/7!`, `1/6!`, … `1/2!`.
const TAYLOR: [f32; 6] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];

/// `eˣ`, free of branches, so that a loop of it is vectorised. Results below the smallest normal number are zero.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits of the mantissa.
    const SHIFT: f32 = 12_582_912.0;
    // Beyond these the result is zero or infinite anyway. A NaN passes.
    let inside = x.clamp(-87.336_54, 89.0);
    let shifted = inside * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = inside - n * LN_2_HIGH - n * LN_2_LOW;
    let tail = TAYLOR.into_iter().fold(0.0, |sum, factor| sum * r + factor);
    let power = (tail * r) * r + r + 1.0;
    // 2ⁿ in two factors, as n reaches from -126 to 128.
    let n = shifted.to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
    let half = n >> 1;
    let factor = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let result = power * factor(half) * factor(n.wrapping_sub(half));
    if x < -87.336_54 { 0.0 } else { result }
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512 {
    use super::{LN_2_HIGH, LN_2_LOW, TAYLOR};
    use std::arch::x86_64::*;

    /// `eˣ` of sixteen numbers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn exp(x: __m512) -> __m512 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // The scaling at the end makes zero or infinity of what lies beyond. With the number as the second operand,
        // a NaN passes.
        let inside = _mm512_min_ps(_mm512_set1_ps(128.0), _mm512_max_ps(_mm512_set1_ps(-128.0), x));
        let n =
            _mm512_roundscale_ps::<NEAREST>(_mm512_mul_ps(inside, _mm512_set1_ps(std::f32::consts::LOG2_E)));
        let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_HIGH), inside);
        let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_LOW), r);
        let mut sum = _mm512_set1_ps(TAYLOR[0]);
        for factor in &TAYLOR[1..] {
            sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(*factor));
        }
        let one = _mm512_set1_ps(1.0);
        sum = _mm512_fmadd_ps(sum, r, one);
        sum = _mm512_fmadd_ps(sum, r, one);
        _mm512_scalef_ps(sum, n)
    }

    /// `x · sigmoid(x)` of sixteen numbers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn silu(x: __m512) -> __m512 {
        let minus = _mm512_sub_ps(_mm512_setzero_ps(), x);
        _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0), exp(minus)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::Isa;

    type Function = fn(f32) -> f32;

    fn forms() -> Vec<(&'static str, Function, Function)> {
        let mut forms: Vec<(&'static str, Function, Function)> = vec![("portable", exp, silu)];
        #[cfg(target_arch = "x86_64")]
        if Isa::detect() == Isa::Avx512 {
            use std::arch::x86_64::*;
            #[target_feature(enable = "avx512f")]
            fn both(x: f32) -> (f32, f32) {
                let x = _mm512_set1_ps(x);
                (_mm512_cvtss_f32(avx512::exp(x)), _mm512_cvtss_f32(avx512::silu(x)))
            }
            // SAFETY: the processor has it.
            forms.push(("avx512", |x| unsafe { both(x) }.0, |x| unsafe { both(x) }.1));
        }
        forms
    }

    #[test]
    fn all_magnitudes_are_within_two_units_in_the_last_place() {
        for (name, exp, silu) in forms() {
            for bits in (0..u32::MAX).step_by(9973) {
                let x = f32::from_bits(bits);
                if !x.is_finite() {
                    continue;
                }
                let expected = f64::from(x).exp();
                let found = exp(x);
                if expected > f64::from(f32::MAX) {
                    assert_eq!(found, f32::INFINITY, "{name}: exp({x})");
                } else if expected < f64::from(f32::MIN_POSITIVE) * 1.001 {
                    assert!(found <= f32::MIN_POSITIVE * 1.01, "{name}: exp({x}) is {found}");
                } else {
                    let error = (f64::from(found) - expected).abs() / expected;
                    assert!(
                        error <= 2.0 * f64::from(f32::EPSILON),
                        "{name}: exp({x}) is {found}, {error:e} off"
                    );
                }
                // The exponential, the sum and the quotient each add a rounding. Below -87 the exponential overflows
                // and the quotient, which is next to nothing, becomes nothing.
                let expected = f64::from(x) / (1.0 + (-f64::from(x)).exp());
                let error = (f64::from(silu(x)) - expected).abs();
                let tolerance = 4.0 * f64::from(f32::EPSILON) * expected.abs() + 1e-36;
                assert!(error <= tolerance, "{name}: silu({x}) is {}, expected {expected}", silu(x));
            }
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        for (name, exp, silu) in forms() {
            assert_eq!(exp(0.0), 1.0, "{name}");
            assert_eq!(exp(f32::NEG_INFINITY), 0.0, "{name}");
            assert_eq!(exp(f32::INFINITY), f32::INFINITY, "{name}");
            assert!(exp(f32::NAN).is_nan() && silu(f32::NAN).is_nan(), "{name}");
            assert_eq!(silu(f32::INFINITY), f32::INFINITY, "{name}");
            assert_eq!(silu(-1e30), 0.0, "{name}");
        }
    }
}
