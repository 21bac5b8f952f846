//! What happens to a panel's finished sums: bias, residual, SwiGLU. The same operations in the same order on every
//! processor.

#![allow(unsafe_code)]

use super::sums::Sums;
use crate::{
    linear::product::{Finish, PANEL},
    pool::SharedSlice,
    processor::Isa,
};

/// Where some tokens' outputs of one panel go.
pub(super) struct Outputs<'a> {
    pub(super) y: &'a SharedSlice<'a, f32>,
    /// The first token's first.
    pub(super) start: usize,
    /// From one token's to the next one's.
    pub(super) stride: usize,
    /// Of each token: 32, or 16 for SwiGLU, or fewer in the last panel.
    pub(super) count: usize,
}

impl<'a> Outputs<'a> {
    /// Those of `panel` and the tokens from `token` on in rows of `width`.
    #[inline]
    pub(super) fn new(
        y: &'a SharedSlice<'a, f32>,
        finish: Finish,
        width: usize,
        panel: usize,
        token: usize,
    ) -> Self {
        let count = if finish == Finish::SwiGlu { PANEL / 2 } else { PANEL };
        let start = panel * count;
        Self { y, start: token * width + start, stride: width, count: count.min(width - start) }
    }

    /// # Safety
    /// Nobody else has this token's outputs of this panel.
    #[inline(always)]
    unsafe fn of(&self, token: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.y.part(self.start + token * self.stride, self.count) }
    }
}

/// What is added to the rows of a weight, if anything.
pub(super) struct Bias<'a> {
    whole: &'a [[f32; PANEL]],
    /// The last panel's, filled up with zeros.
    rest: [f32; PANEL],
}

impl<'a> Bias<'a> {
    pub(super) fn new(bias: Option<&'a [f32]>) -> Self {
        let (whole, last) = bias.unwrap_or_default().as_chunks();
        let mut rest = [0.0; PANEL];
        rest[..last.len()].copy_from_slice(last);
        Self { whole, rest }
    }

    /// One panel's.
    #[inline]
    pub(super) fn of(&self, panel: usize) -> &[f32; PANEL] {
        // Without a bias all of them are the rest.
        self.whole.get(panel).unwrap_or(&self.rest)
    }
}

/// Finishes the `sums` of some tokens with the panel's `bias`, zeros where there is none.
///
/// # Safety
/// Nobody else has these tokens' outputs of this panel.
pub(super) unsafe fn finish(isa: Isa, finish: Finish, sums: &[Sums], bias: &[f32; PANEL], y: &Outputs<'_>) {
    // SAFETY: the caller's promise; an `Isa` other than the portable one comes from detecting it.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => finish_avx512(finish, sums, bias, y),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => finish_avx2(finish, sums, bias, y),
            _ => finish_any(finish, sums, bias, y),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn finish_avx512(finish: Finish, sums: &[Sums], bias: &[f32; PANEL], y: &Outputs<'_>) {
    // SAFETY: the caller's promise.
    unsafe { finish_any(finish, sums, bias, y) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn finish_avx2(finish: Finish, sums: &[Sums], bias: &[f32; PANEL], y: &Outputs<'_>) {
    // SAFETY: the caller's promise.
    unsafe { finish_any(finish, sums, bias, y) }
}

/// [`finish`] with whatever instructions the caller has.
///
/// # Safety
/// Nobody else has these tokens' outputs of this panel.
#[inline(always)]
pub(super) unsafe fn finish_any(finish: Finish, sums: &[Sums], bias: &[f32; PANEL], y: &Outputs<'_>) {
    for (token, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        let y = unsafe { y.of(token) };
        match finish {
            Finish::Store => each(y, |i, y: &mut f32| *y = sums.0[i] + bias[i]),
            Finish::Add => each(y, |i, y: &mut f32| *y += sums.0[i] + bias[i]),
            Finish::SwiGlu => each_half(y, |i, y: &mut f32| {
                let gate = sums.0[i] + bias[i];
                *y = gate / (1.0 + exp(-gate)) * (sums.0[PANEL / 2 + i] + bias[PANEL / 2 + i]);
            }),
        }
    }
}

/// `set` on all of `y`; a whole panel's length is known when this is compiled.
#[inline(always)]
fn each(y: &mut [f32], mut set: impl FnMut(usize, &mut f32)) {
    match <&mut [f32; PANEL]>::try_from(&mut *y) {
        Ok(y) => y.iter_mut().enumerate().for_each(|(i, y)| set(i, y)),
        Err(_) => y.iter_mut().take(PANEL).enumerate().for_each(|(i, y)| set(i, y)),
    }
}

/// [`each`] for half of a panel.
#[inline(always)]
fn each_half(y: &mut [f32], mut set: impl FnMut(usize, &mut f32)) {
    match <&mut [f32; PANEL / 2]>::try_from(&mut *y) {
        Ok(y) => y.iter_mut().enumerate().for_each(|(i, y)| set(i, y)),
        Err(_) => y.iter_mut().take(PANEL / 2).enumerate().for_each(|(i, y)| set(i, y)),
    }
}

/// The exponential function within 2 units in the last place, from 2^-126 to 2^127; what is beyond gives those.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding this leaves a rounded whole number in the lower bits.
    const SHIFT: f32 = 12_582_912.0;
    /// The logarithm of 2, the part of it with few digits, and the rest.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * LN_2.0 - n * LN_2.1;
    // Taylor's coefficients; |r| is at most 0.35, so the first one left out is below 2^-26.
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_the_last_places() {
        for i in -8700..=8800 {
            let x = i as f32 * 0.01 + 0.003;
            let x = x.clamp(-87.0, 88.0);
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 3e-7, "exp({x}) is {found}, expected {expected}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY).is_finite());
        assert_eq!(exp(0.0), 1.0);
    }
}
