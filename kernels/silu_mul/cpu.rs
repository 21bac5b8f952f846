//! SwiGLU's gate over slices, for products that do not gate while they store.

use crate::{
    pool::{self, SharedSlice},
    processor::Isa,
    vectorised::{cut, exponential, for_each_isa},
};

/// `out = gate / (1 + e^-gate) · up` for each element.
///
/// # Panics
/// When lengths disagree.
#[allow(unsafe_code)]
pub(crate) fn forward(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "silu_mul: lengths");
    let (per_task, tasks) = cut(gate.len(), 1);
    let out = SharedSlice::new(out);
    pool::run(tasks, |task| {
        let part = task * per_task..((task + 1) * per_task).min(gate.len());
        // SAFETY: each task has elements of its own.
        let out = unsafe { out.part(part.start, part.len()) };
        elements(isa, &gate[part.clone()], &up[part], out);
    });
}

for_each_isa!(fn elements = all(gate: &[f32], up: &[f32], out: &mut [f32]));

#[inline(always)]
fn all<const FUSED: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((&gate, &up), out) in gate.iter().zip(up).zip(out) {
        *out = gate / (1.0 + exponential::<FUSED>(-gate)) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Tensor, testing};

    #[test]
    fn equals_the_reference() {
        let gate: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 / 400.0).collect();
        let n = gate.len();
        let up = testing::numbers(1, n);
        let tensor = |x: &[f32]| Tensor::from_f32(x.to_vec(), &[n], &Device::cpu()).unwrap();
        let expected = super::super::reference(&tensor(&gate), &tensor(&up)).unwrap().to_f32_vec().unwrap();
        for isa in Isa::available() {
            let mut found = vec![f32::NAN; n];
            forward(isa, &gate, &up, &mut found);
            for i in 0..n {
                // Four units in the last place, and what the exponential's limit leaves of -88.
                let tolerance = 4.8e-7 * expected[i].abs() + 1e-35;
                assert!((found[i] - expected[i]).abs() <= tolerance, "{isa}: {}, {}", gate[i], found[i]);
            }
            let mut found = [1.0; 2];
            forward(isa, &[f32::NAN, 0.0], &[1.0, 2.0], &mut found);
            assert!(found[0].is_nan() && found[1] == 0.0, "{isa}");
        }
    }
}
