//! Top-k on the host.

use std::cmp::Ordering;

use super::Entry;
use crate::{Result, Tensor};

/// See [`super::forward`].
pub fn forward(x: &Tensor, k: usize) -> Result<Vec<Vec<Entry>>> {
    let (values, columns) = (x.to_f32_vec()?, x.dim(1));
    if columns == 0 {
        return Ok(vec![Vec::new(); x.dim(0)]);
    }
    Ok(values.chunks_exact(columns).map(|row| largest(row, k)).collect())
}

fn largest(row: &[f32], k: usize) -> Vec<Entry> {
    let entry = |(index, &value): (usize, &f32)| Entry { index: index as u32, value };
    if k == 1 {
        return row.iter().enumerate().map(entry).min_by(order).into_iter().collect();
    }
    let mut entries: Vec<Entry> = row.iter().enumerate().map(entry).collect();
    if k < entries.len() {
        entries.select_nth_unstable_by(k, order);
        entries.truncate(k);
    }
    entries.sort_unstable_by(order);
    entries
}

/// Larger values first, then smaller indices, NaN last.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let by_value = match (a.value.is_nan(), b.value.is_nan()) {
        (false, false) => b.value.partial_cmp(&a.value).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    };
    by_value.then(a.index.cmp(&b.index))
}
