//! The largest logits without sorting the vocabulary.

use std::cmp::Ordering;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

/// The `n` largest logits, or all when there are fewer; largest first, among equals the lower id first. NaN
/// counts as minus infinity.
///
/// One pass over the logits keeps up to `2 n` candidates and drops the smaller half whenever they are full;
/// after the first time only logits above the smallest kept one are looked at, which are few.
pub(super) fn largest(logits: &[f32], n: usize) -> Vec<Candidate> {
    let n = n.min(logits.len());
    if n == 0 {
        return Vec::new();
    }
    let capacity = n.saturating_mul(2).min(logits.len());
    let mut kept: Vec<Candidate> = Vec::with_capacity(capacity);
    let mut threshold = None;
    for (id, logit) in (0..).zip(logits) {
        let logit = if logit.is_nan() { f32::NEG_INFINITY } else { *logit };
        // An equal logit that comes later has a higher id and loses.
        if threshold.is_some_and(|threshold| logit <= threshold) {
            continue;
        }
        kept.push(Candidate { id, logit });
        if kept.len() == capacity && n < capacity {
            kept.select_nth_unstable_by(n - 1, larger_first);
            kept.truncate(n);
            threshold = kept.last().map(|smallest| smallest.logit);
        }
    }
    kept.sort_unstable_by(larger_first);
    kept.truncate(n);
    kept
}

fn larger_first(a: &Candidate, b: &Candidate) -> Ordering {
    // Without NaN the comparison is total; -0 and 0 are equal here.
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_a_full_sort() {
        let values = [0.0, -0.0, 1.0, -1.0, 2.5, 2.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-30];
        proptest::proptest!(|(picks: Vec<proptest::sample::Index>, n in 0..40usize)| {
            let logits: Vec<f32> = picks.iter().map(|pick| *pick.get(&values)).collect();
            let clean = |logit: f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit };
            let mut sorted: Vec<Candidate> =
                (0..).zip(&logits).map(|(id, logit)| Candidate { id, logit: clean(*logit) }).collect();
            // Stable, so equals stay in the order of ids.
            sorted.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap());
            sorted.truncate(n);
            assert_eq!(largest(&logits, n), sorted);
        });
    }

    #[test]
    fn takes_any_number() {
        let logits: Vec<f32> = (0..1000u32).map(|id| (id * 7919 % 1000) as f32).collect();
        for n in [0, 1, 2, 499, 500, 501, 999, 1000, 1001, usize::MAX] {
            let found: Vec<f32> = largest(&logits, n).iter().map(|candidate| candidate.logit).collect();
            let expected: Vec<f32> = (0..1000).rev().take(n).map(|logit| logit as f32).collect();
            assert_eq!(found, expected, "{n}");
        }
    }
}
