//! The rows of a task, block after block of keys, and what is done with their sums at the end.

use std::ops::Range;

use super::{
    scratch::State,
    step::{BLOCK, LEAST, MOST_HEAD_DIM, QUERY_STRIDE, Step, TILE, Tile},
};
use crate::{
    kv_cache::group,
    processor::Isa,
    vectorised::{for_each_isa, multiply_add, power_of_two_below_one},
};

/// Rows of a task, at most: enough to reuse keys from the second-level cache, few enough to be shared out evenly.
pub(crate) const ROWS: usize = 8 * TILE;

/// The rows of a task: which keys each sees.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) rows: usize,
    pub(crate) head_dim: usize,
    /// Row `i` sees the first `visible + (offset + i) / group` keys.
    pub(crate) visible: usize,
    /// Where the first row stands in its group.
    pub(crate) offset: usize,
    /// Rows that see the same keys; `usize::MAX` when all do.
    pub(crate) group: usize,
}

impl Rows {
    pub(crate) fn visible(&self, row: usize) -> usize {
        self.visible + (self.offset + row) / self.group
    }

    /// The most keys that a row sees.
    pub(crate) fn most_visible(&self) -> usize {
        self.visible(self.rows.saturating_sub(1))
    }
}

/// Where the groups of keys and values are: `groups(index)` gives the sequence's group `index`, keys first.
pub(crate) trait Groups {
    /// Makes groups `range` ready and calls `f` with their keys, their values, and the keys of the groups after
    /// them that will be needed next.
    fn with(&mut self, range: Range<usize>, f: impl FnOnce(&[&[u32]], &[&[u32]], &[&[u32]]));
}

/// Groups that lie side by side, the first at the beginning of the slice.
pub(crate) struct Packed<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) head_dim: usize,
}

impl Groups for Packed<'_> {
    fn with(&mut self, range: Range<usize>, f: impl FnOnce(&[&[u32]], &[&[u32]], &[&[u32]])) {
        let words = group::words(self.head_dim);
        let group = |i: usize| &self.words[i * words..][..words];
        let ahead = range.end..(range.end + GROUPS).min(self.words.len() / words);
        split(range.map(group), ahead.map(group), self.head_dim, f);
    }
}

/// Groups in a block.
pub(crate) const GROUPS: usize = BLOCK / group::TOKENS;

/// Calls `f` with keys and values of up to a block of groups, and the keys of those ahead.
pub(crate) fn split<'a>(
    groups: impl Iterator<Item = &'a [u32]>,
    groups_ahead: impl Iterator<Item = &'a [u32]>,
    head_dim: usize,
    f: impl FnOnce(&[&[u32]], &[&[u32]], &[&[u32]]),
) {
    let mut slices = [[&[] as &[u32]; GROUPS]; 3];
    let [keys, values, ahead] = &mut slices;
    let (mut n, mut n_ahead) = (0, 0);
    for (group, (key, value)) in groups.zip(keys.iter_mut().zip(values)) {
        (*key, *value) = group.split_at(group::half(head_dim));
        n += 1;
    }
    for (group, key) in groups_ahead.zip(ahead) {
        *key = &group[..group::half(head_dim)];
        n_ahead += 1;
    }
    let [keys, values, ahead] = &slices;
    f(&keys[..n], &values[..n], &ahead[..n_ahead]);
}

/// Attention of `rows` over keys `range` of their sequence, from a fresh state. `range` begins at a block's edge.
pub(crate) fn attend(
    step: fn(&mut Step<'_>),
    rows: &Rows,
    queries: &[u32],
    groups: &mut impl Groups,
    range: Range<usize>,
    state: &mut State,
    tile: &mut Tile,
) {
    let padded = group::padded(rows.head_dim);
    assert!(rows.rows <= ROWS && padded <= MOST_HEAD_DIM, "attention: {} rows of {padded}", rows.rows);
    state.largest[..rows.rows].fill(LEAST);
    state.sums[..rows.rows].fill([0.0; 16]);
    let end = range.end.min(rows.most_visible());
    for block in range.clone().step_by(BLOCK) {
        let fresh = block == range.start;
        let limit = end.saturating_sub(block).min(BLOCK);
        if limit == 0 && !fresh {
            break;
        }
        let first_group = block / group::TOKENS;
        groups.with(first_group..first_group + limit.div_ceil(group::TOKENS), |keys, values, ahead| {
            for first in (0..rows.rows).step_by(TILE) {
                let n = TILE.min(rows.rows - first);
                let mut visible = [0; TILE];
                for (i, visible) in visible.iter_mut().enumerate().take(n) {
                    *visible = rows.visible(first + i).saturating_sub(block).min(limit);
                }
                // Later rows see more.
                let needed = visible[n - 1].div_ceil(group::TOKENS);
                let out = &mut state.out[first * padded..(first + n) * padded];
                if needed == 0 {
                    if fresh {
                        out.fill(0.0);
                    }
                    continue;
                }
                step(&mut Step {
                    queries: &queries[first * QUERY_STRIDE..],
                    head_dim: rows.head_dim,
                    keys: &keys[..needed],
                    values: &values[..needed],
                    // The first tile asks for all.
                    ahead: if first == 0 { ahead } else { &[] },
                    visible: &visible[..n],
                    fresh,
                    largest: &mut state.largest[first..first + n],
                    sums: &mut state.sums[first..first + n],
                    out,
                    tile,
                });
            }
        });
    }
}

/// One row of a state, its parts summed.
pub(crate) struct Row<'a> {
    pub(crate) largest: f32,
    pub(crate) sum: f32,
    /// `(head_dim)` or longer.
    pub(crate) out: &'a [f32],
}

/// Sixteen parts, as a tree.
#[inline(always)]
pub(crate) fn total(parts: &[f32; 16]) -> f32 {
    let mut parts = *parts;
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            parts[i] += parts[i + width];
        }
    }
    parts[0]
}

for_each_isa!(
    /// Adds the span's `row` to the sums of the spans before it.
    fn join_row = join(largest: &mut f32, sum: &mut f32, out: &mut [f32], row: &Row<'_>)
);

/// Adds the span's `row` to the sums of the spans before it.
pub(crate) fn add_span(isa: Isa, largest: &mut f32, sum: &mut f32, out: &mut [f32], row: &Row<'_>) {
    join_row(isa, largest, sum, out, row);
}

#[inline(always)]
fn join<const FUSED: bool>(largest: &mut f32, sum: &mut f32, out: &mut [f32], row: &Row<'_>) {
    let most = largest.max(row.largest);
    let old = power_of_two_below_one::<FUSED>(*largest - most);
    let new = power_of_two_below_one::<FUSED>(row.largest - most);
    *largest = most;
    *sum = multiply_add::<FUSED>(row.sum, new, *sum * old);
    for (out, &value) in out.iter_mut().zip(row.out) {
        *out = multiply_add::<FUSED>(value, new, *out * old);
    }
}

for_each_isa!(
    fn finish_row = divide(sums: &[f32], sum: f32, out: &mut [f32])
);

/// The weighted mean, from the weighted sum.
pub(crate) fn finish(isa: Isa, sums: &[f32], sum: f32, out: &mut [f32]) {
    finish_row(isa, sums, sum, out);
}

#[inline(always)]
fn divide<const FUSED: bool>(sums: &[f32], sum: f32, out: &mut [f32]) {
    let factor = sum.recip();
    for (out, &value) in out.iter_mut().zip(sums) {
        // A masked key may have turned the sign of a zero; adding zero turns it back.
        *out = value * factor + 0.0;
    }
}

/// Writes `query · factor` in pairs of bf16; the words behind it up to the padded width become zero.
#[inline(always)]
pub(crate) fn narrow_query(query: &[f32], factor: f32, words: &mut [u32]) {
    let (whole, rest) = words[..group::padded(query.len()) / 2].split_at_mut(query.len() / 2);
    let (pairs, single) = query.as_chunks::<2>();
    for (word, [first, second]) in whole.iter_mut().zip(pairs) {
        *word = group::pair(first * factor, second * factor);
    }
    rest.fill(0);
    if let ([single], Some(word)) = (single, rest.first_mut()) {
        *word = group::pair(single * factor, 0.0);
    }
}
