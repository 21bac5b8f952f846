//! RMSNorm over slices: two passes over a row that stays in the first-level cache, so memory is read and written once.
//!
//! A row's sum of squares is taken in 32 interleaved parts, added up as a tree: the same bits in any batch.

use crate::{
    pool::{self, SharedSlice},
    processor::Isa,
    vectorised::{cut, for_each_isa, multiply_add},
};

/// `out = weight · x / √(mean(x²) + eps)` for each row of `x: (tokens, features)`; `weight: (features)`.
///
/// # Panics
/// When lengths disagree.
#[allow(unsafe_code)]
pub(crate) fn forward(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let features = weight.len();
    assert!(x.len() == out.len() && (features == 0 || x.len().is_multiple_of(features)), "rms_norm: lengths");
    if features == 0 {
        return;
    }
    let rows = x.len() / features;
    let (rows_per_task, tasks) = cut(rows, features);
    let out = SharedSlice::new(out);
    pool::run(tasks, |task| {
        let first = task * rows_per_task;
        let part = first * features..(first + rows_per_task).min(rows) * features;
        // SAFETY: each task has rows of its own.
        let out = unsafe { out.part(part.start, part.len()) };
        normalise(isa, &x[part], weight, eps, out);
    });
}

for_each_isa!(fn normalise = rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));

#[inline(always)]
fn rows<const FUSED: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let scale = (sum_of_squares::<FUSED>(x) / weight.len() as f32 + eps).sqrt().recip();
        for ((&x, &weight), out) in x.iter().zip(weight).zip(out) {
            *out = x * scale * weight;
        }
    }
}

#[inline(always)]
fn sum_of_squares<const FUSED: bool>(x: &[f32]) -> f32 {
    const PARTS: usize = 32;
    let mut sums = [0.0f32; PARTS];
    let (whole, rest) = x.as_chunks::<PARTS>();
    for x in whole {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum = multiply_add::<FUSED>(x, x, *sum);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum = multiply_add::<FUSED>(x, x, *sum);
    }
    let mut width = PARTS / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn equals_the_reference_and_a_row_does_not_see_the_others() {
        for (tokens, features) in [(0, 5), (1, 1), (3, 31), (65, 80), (17, 1280), (33, 2049), (2, 3584)] {
            let (x, weight) = (testing::tensor(1, &[tokens, features]), testing::tensor(2, &[features]));
            let expected = super::super::reference(&x, &weight, 1e-6).unwrap().to_f32_vec().unwrap();
            let (x, weight) = (x.to_f32_vec().unwrap(), weight.to_f32_vec().unwrap());
            for isa in Isa::available() {
                let mut found = vec![f32::NAN; x.len()];
                forward(isa, &x, &weight, 1e-6, &mut found);
                // A handful of f32 roundings of numbers below 4.
                testing::assert_values(&format!("rms_norm, {isa}"), &found, &expected, 4e-6);
                for (x, found) in x.chunks_exact(features).zip(found.chunks_exact(features)) {
                    let mut alone = vec![f32::NAN; features];
                    forward(isa, x, &weight, 1e-6, &mut alone);
                    assert_eq!(alone, found, "{isa}");
                }
            }
        }
    }
}
