//! Quantizers of the field's block formats, after their public descriptions, for comparing errors at equal bits. They
//! give the values that their codes stand for.

use half::f16;

use crate::testing::numbers;

/// From values to what is left of them; the length is a multiple of 256.
pub(super) type Quantizer = fn(&[f32]) -> Vec<f32>;

/// Weights as they might be: normal ones, and some with a heavy tail (Student's t with 4 degrees of freedom).
pub(super) fn samples(seed: u64, n: usize) -> [(&'static str, Vec<f32>); 2] {
    let normal = |seed: u64| -> Vec<f32> {
        let (u, v) = (numbers(seed, n), numbers(seed + 1, n));
        let pair = |(u, v): (&f32, &f32)| {
            (-2.0 * (0.5 + 0.5 * u).max(1e-7).ln()).sqrt() * (std::f32::consts::PI * v).cos()
        };
        u.iter().zip(&v).map(pair).collect()
    };
    let parts: Vec<Vec<f32>> = (1..=4).map(|i| normal(seed + 10 * i)).collect();
    let tail = normal(seed)
        .into_iter()
        .enumerate()
        .map(|(i, x)| x / (parts.iter().map(|p| p[i] * p[i]).sum::<f32>() / 4.0).sqrt());
    let scaled = |x: f32| 0.02 * x;
    [("normal", normal(seed).into_iter().map(scaled).collect()), ("heavy-tailed", tail.map(scaled).collect())]
}

/// 8.5 bits: groups of 32, the greatest magnitude is 127 steps, the step in f16.
pub(super) fn q8_0(values: &[f32]) -> Vec<f32> {
    let group = |x: &[f32]| {
        let step = x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        let stored = f16::from_f32(step).to_f32();
        x.iter().map(|x| (x * inverse).round() * stored).collect::<Vec<_>>()
    };
    values.chunks(32).flat_map(group).collect()
}

/// 4.5 bits: groups of 32, the number of the greatest magnitude is -8 steps, the step in f16.
pub(super) fn q4_0(values: &[f32]) -> Vec<f32> {
    let group = |x: &[f32]| {
        let extreme = x.iter().fold(0.0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        let step = extreme / -8.0;
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        let stored = f16::from_f32(step).to_f32();
        x.iter().map(|x| ((x * inverse + 8.5).floor().min(15.0) - 8.0) * stored).collect::<Vec<_>>()
    };
    values.chunks(32).flat_map(group).collect()
}

/// 4.5 bits: blocks of 256 with eight groups of 32, each with a scale and a minimum of six bits, in units of two f16.
/// Scale and minimum come from weighted least squares over 21 guesses, with weights `sqrt(mean x²) + |x|`.
pub(super) fn q4_k(values: &[f32]) -> Vec<f32> {
    let block = |values: &[f32]| {
        let fits: Vec<(f32, f32)> = values.chunks(32).map(fit).collect();
        let unit = |greatest: f32| f16::from_f32(greatest / 63.0).to_f32();
        let code = |x: f32, greatest: f32| {
            if greatest > 0.0 { (63.0 / greatest * x).round_ties_even().min(63.0) } else { 0.0 }
        };
        let scale = fits.iter().fold(0.0f32, |m, f| m.max(f.0));
        let minimum = fits.iter().fold(0.0f32, |m, f| m.max(f.1));
        let mut found = Vec::with_capacity(values.len());
        for (x, fit) in values.chunks(32).zip(fits) {
            let d = unit(scale) * code(fit.0, scale);
            let m = unit(minimum) * code(fit.1, minimum);
            found.extend(x.iter().map(|x| {
                if d == 0.0 { -m } else { ((x + m) / d).round_ties_even().clamp(0.0, 15.0) * d - m }
            }));
        }
        found
    };
    values.chunks(256).flat_map(block).collect()
}

/// Activations as their products see them: 127 steps to the greatest magnitude of a group.
pub(super) fn eight_bits(x: &[f32], group: usize) -> Vec<f32> {
    let quantized = |x: &[f32]| {
        let step = x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
        x.iter().map(|x| (x / step).round() * step).collect::<Vec<_>>()
    };
    x.chunks(group).flat_map(quantized).collect()
}

/// Scale and (negated) minimum of a group.
fn fit(x: &[f32]) -> (f32, f32) {
    let mean = (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
    let least = x.iter().fold(0.0f32, |m, &x| m.min(x));
    let most = x.iter().fold(f32::MIN, |m, &x| m.max(x));
    if most <= least {
        return (0.0, -least);
    }
    let error = |scale: f32, least: f32, q: &dyn Fn(f32) -> f32| -> f32 {
        x.iter().map(|x| (mean + x.abs()) * (scale * q(*x) + least - x).powi(2)).sum()
    };
    let inverse = 15.0 / (most - least);
    let first = |x: f32| (inverse * (x - least)).round_ties_even().clamp(0.0, 15.0);
    let mut best = (1.0 / inverse, least);
    let mut best_error = error(best.0, best.1, &first);
    for i in 0..=20 {
        let inverse = (-1.0 + 0.1 * i as f32 + 15.0) / (most - least);
        let q = |x: f32| (inverse * (x - least)).round_ties_even().clamp(0.0, 15.0);
        let [mut w, mut wx, mut wq, mut wqq, mut wxq] = [0.0f32; 5];
        for &x in x {
            let (weight, q) = (mean + x.abs(), q(x));
            w += weight;
            wx += weight * x;
            wq += weight * q;
            wqq += weight * q * q;
            wxq += weight * x * q;
        }
        let determinant = w * wqq - wq * wq;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (w * wxq - wx * wq) / determinant;
        let mut least = (wqq * wx - wq * wxq) / determinant;
        if least > 0.0 {
            (scale, least) = (wxq / wqq, 0.0);
        }
        let found = error(scale, least, &q);
        if found < best_error {
            (best, best_error) = ((scale, least), found);
        }
    }
    (best.0, -best.1)
}
