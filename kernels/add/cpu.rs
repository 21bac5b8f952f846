//! Addition over slices, as fast as memory.

use crate::{
    pool::{self, SharedSlice},
    processor::Isa,
    vectorised::{cut, for_each_isa},
};

/// `out = a + b` for each element.
///
/// # Panics
/// When lengths disagree.
#[allow(unsafe_code)]
pub(crate) fn forward(isa: Isa, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "add: lengths");
    let (per_task, tasks) = cut(a.len(), 1);
    let out = SharedSlice::new(out);
    pool::run(tasks, |task| {
        let part = task * per_task..((task + 1) * per_task).min(a.len());
        // SAFETY: each task has elements of its own.
        let out = unsafe { out.part(part.start, part.len()) };
        elements(isa, &a[part.clone()], &b[part], out);
    });
}

for_each_isa!(fn elements = all(a: &[f32], b: &[f32], out: &mut [f32]));

#[inline(always)]
fn all<const FUSED: bool>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((&a, &b), out) in a.iter().zip(b).zip(out) {
        *out = a + b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn adds_each_element_once() {
        for n in [0, 1, 17, 50_001] {
            let (a, b) = (testing::numbers(1, n), testing::numbers(2, n));
            let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            for isa in Isa::available() {
                let mut found = vec![f32::NAN; n];
                forward(isa, &a, &b, &mut found);
                assert_eq!(found, expected, "{isa}, {n}");
            }
        }
    }
}
