//! The exact GELU over slices, as `max(x, 0) - |x| · Φ(-|x|)`: the tail is computed as itself and not as the
//! difference of two numbers near one, so that small results are right too.
//!
//! `Φ(-a) = e^(-a²/2) · t · P(t)` with `t = 1 / (1 + 0.35 a)`; `P` is a minimax fit of degree 8 with a relative
//! error below 4e-8 for `a` up to 13, where the product with `a` leaves the normal f32.

use crate::{
    pool::{self, SharedSlice},
    processor::Isa,
    vectorised::{cut, exponential, for_each_isa, multiply_add},
};

/// `out = x · Φ(x)` for each element.
///
/// # Panics
/// When lengths disagree.
#[allow(unsafe_code)]
pub(crate) fn forward(isa: Isa, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "gelu: lengths");
    let (per_task, tasks) = cut(x.len(), 1);
    let out = SharedSlice::new(out);
    pool::run(tasks, |task| {
        let part = task * per_task..((task + 1) * per_task).min(x.len());
        // SAFETY: each task has elements of its own.
        let out = unsafe { out.part(part.start, part.len()) };
        elements(isa, &x[part], out);
    });
}

for_each_isa!(fn elements = all(x: &[f32], out: &mut [f32]));

#[inline(always)]
fn all<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    for (&x, out) in x.iter().zip(out) {
        *out = element::<FUSED>(x);
    }
}

#[inline(always)]
fn element<const FUSED: bool>(x: f32) -> f32 {
    const P: [f32; 9] = [
        0.139_621_82,
        0.139_854_79,
        0.119_882_45,
        0.105_318_22,
        -0.022_674_02,
        0.158_557_18,
        -0.255_186_62,
        0.143_721_71,
        -0.029_095_55,
    ];
    // A comparison, not min: it lets NaN through.
    let a = if x.abs() > 13.0 { 13.0 } else { x.abs() };
    let t = multiply_add::<FUSED>(a, 0.35, 1.0).recip();
    let mut sum = P[8];
    for p in [P[7], P[6], P[5], P[4], P[3], P[2], P[1], P[0]] {
        sum = multiply_add::<FUSED>(sum, t, p);
    }
    let tail = exponential::<FUSED>(-0.5 * a * a) * (t * sum);
    (if x > 0.0 { x } else { 0.0 }) - a * tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Tensor};

    #[test]
    fn equals_the_reference_everywhere() {
        let x: Vec<f32> = (-150_000..=150_000).map(|i| i as f32 / 1e4).collect();
        let n = x.len();
        let tensor = Tensor::from_f32(x.clone(), &[n], &Device::cpu()).unwrap();
        let expected = super::super::reference(&tensor).unwrap().to_f32_vec().unwrap();
        for isa in Isa::available() {
            let mut found = vec![f32::NAN; n];
            forward(isa, &x, &mut found);
            for ((&x, &found), &expected) in x.iter().zip(&found).zip(&expected) {
                // Two units in the last place of the result, or of the 0.17 that is the most below zero.
                let tolerance = 2.4e-7 * x.max(0.5);
                assert!((found - expected).abs() <= tolerance, "{isa}: gelu({x}) is {found}, not {expected}");
            }
        }
    }

    #[test]
    fn the_tail_and_what_is_not_finite() {
        for isa in Isa::available() {
            let x = [-6.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0, f32::MAX];
            let mut y = [1.0; 6];
            forward(isa, &x, &mut y);
            // The rounding of 18, which the exponential multiplies by 18.
            assert!((y[0] / -5.919_526e-9 - 1.0).abs() < 2e-6, "{isa}: {y:?}");
            assert!(y[1].abs() < 1e-36 && y[2] == f32::INFINITY && y[3].is_nan(), "{isa}: {y:?}");
            assert!(y[4] == 0.0 && y[5] == f32::MAX, "{isa}: {y:?}");
        }
    }
}
