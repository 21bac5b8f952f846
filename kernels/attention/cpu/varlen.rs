//! Attention within segments, for the vision tower: from the fused projection to the heads' outputs.
//!
//! The floor is `4 · n² · head_dim` operations per segment and head at the rate of the bf16 dot product; for
//! windows, reading the projection and writing the output once takes about half as long as that.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use super::{
    rows::{Packed, ROWS, Rows, attend, finish, narrow_query, total},
    scratch::{ForRows, GROUPS, Scratch},
    step::{MOST_HEAD_DIM, QUERY_STRIDE, for_isa},
};
use crate::{
    Result,
    error::argument,
    kv_cache::group,
    pages::Block,
    pool::{self, SharedSlice},
    prefetch,
    processor::Isa,
    rotary,
    vectorised::for_each_isa,
};

const OP: &str = "attention::varlen";
/// Segments of up to so many patches are packed by the task that attends to them.
const SMALL: usize = GROUPS * group::TOKENS;
/// Packed keys and values of a long segment take so many bytes at a time, or one head's.
const PACKED_BYTES: usize = 64 << 20;
/// How many patches early a head's row is asked for: rows of the projection lie so far apart that nobody guesses
/// the next one, and memory takes about as long as working on so many.
const AHEAD: usize = 6;
/// Groups that are packed by one task.
const GROUPS_PER_TASK: usize = 16;

/// What [`varlen_bf16`] takes and gives.
pub(crate) struct Varlen<'a> {
    /// `(patches, 3 · heads · head_dim)`: queries, keys and values, each `(heads, head_dim)`.
    pub(crate) qkv: &'a [f32],
    /// `(patches, head_dim)`.
    pub(crate) cos: &'a [f32],
    /// `(patches, head_dim)`.
    pub(crate) sin: &'a [f32],
    pub(crate) heads: usize,
    /// An even number up to 256.
    pub(crate) head_dim: usize,
    /// Patches of each segment, in sum all.
    pub(crate) lengths: &'a [usize],
    /// What scores are multiplied by.
    pub(crate) scale: f32,
    /// `(patches, heads · head_dim)`.
    pub(crate) out: &'a mut [f32],
}

/// Rotates queries and keys and attends within each segment.
///
/// # Errors
/// [`crate::Error::Argument`] when lengths disagree, [`crate::Error::Memory`] when a long segment finds no room.
pub(crate) fn varlen_bf16(isa: Isa, arguments: Varlen<'_>) -> Result<()> {
    let Varlen { qkv, cos, sin, heads, head_dim, lengths, scale, out } = arguments;
    if heads == 0 || head_dim == 0 || head_dim > MOST_HEAD_DIM || !head_dim.is_multiple_of(2) {
        return Err(argument(OP, "head_dim", head_dim, format!("an even number up to {MOST_HEAD_DIM}")));
    }
    let patches = lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    let expect = |what, found: usize, width: usize| match patches.and_then(|n| n.checked_mul(width)) {
        Some(expected) if expected == found => Ok(()),
        expected => Err(argument(OP, what, found, format!("{expected:?} elements"))),
    };
    let width = heads.saturating_mul(head_dim);
    expect("qkv", qkv.len(), width.saturating_mul(3))?;
    expect("cos", cos.len(), head_dim)?;
    expect("sin", sin.len(), head_dim)?;
    expect("out", out.len(), width)?;
    let input = Input { isa, qkv, cos, sin, heads, head_dim, scale };
    let out = SharedSlice::new(out);
    small_segments(&input, lengths, &out);
    let mut start = 0;
    for &length in lengths {
        if length > SMALL {
            long_segment(&input, start..start + length, &out)?;
        }
        start += length;
    }
    Ok(())
}

/// What all tasks read.
struct Input<'a> {
    isa: Isa,
    qkv: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    heads: usize,
    head_dim: usize,
    scale: f32,
}

/// Every short segment is a task for some of its heads, from packing to output.
fn small_segments(input: &Input<'_>, lengths: &[usize], out: &SharedSlice<'_, f32>) {
    let mut segments = Vec::new();
    let mut start = 0;
    for &length in lengths {
        if (1..=SMALL).contains(&length) {
            segments.push(start..start + length);
        }
        start += length;
    }
    // All heads of a segment together read whole rows of the projection; fewer only where threads would be idle.
    let parts = (8 * pool::threads()).div_ceil(segments.len().max(1)).min(input.heads);
    let heads_per_task = input.heads.div_ceil(parts);
    let parts = input.heads.div_ceil(heads_per_task);
    pool::run(segments.len() * parts, |task| {
        let segment = &segments[task / parts];
        let first = task % parts * heads_per_task;
        Scratch::with(|scratch| {
            for head in first..(first + heads_per_task).min(input.heads) {
                let groups = segment.len().div_ceil(group::TOKENS);
                let words = groups * group::words(input.head_dim);
                let packed = &mut scratch.groups.get()[..words];
                input.pack(segment.clone(), head, packed, &mut scratch.rows.rotated);
                for rows in (0..segment.len()).step_by(ROWS) {
                    let rows = rows..(rows + ROWS).min(segment.len());
                    input.attend(segment, rows, head, packed, &mut scratch.rows, out);
                }
            }
        });
    });
}

/// Keys and values of some heads are packed first, by all threads, and then shared by tasks of some rows each.
fn long_segment(input: &Input<'_>, segment: Range<usize>, out: &SharedSlice<'_, f32>) -> Result<()> {
    let groups = segment.len().div_ceil(group::TOKENS);
    let words_per_head = groups * group::words(input.head_dim);
    let heads_at_once = (PACKED_BYTES / 4 / words_per_head).max(pool::threads()).min(input.heads);
    let mut memory = Memory::take(heads_at_once * words_per_head * 4)?;
    for first in (0..input.heads).step_by(heads_at_once) {
        let heads = heads_at_once.min(input.heads - first);
        let packed = &mut memory.words()[..heads * words_per_head];
        let parts = groups.div_ceil(GROUPS_PER_TASK);
        let shared = SharedSlice::new(packed);
        pool::run(heads * parts, |task| {
            let (head, part) = (task / parts, task % parts);
            let from = part * GROUPS_PER_TASK;
            let to = (from + GROUPS_PER_TASK).min(groups);
            let words = group::words(input.head_dim);
            #[allow(unsafe_code)]
            // SAFETY: each task has groups of its own.
            let packed = unsafe { shared.part(head * words_per_head + from * words, (to - from) * words) };
            let patches =
                segment.start + from * group::TOKENS..(segment.start + to * group::TOKENS).min(segment.end);
            Scratch::with(|scratch| input.pack(patches, first + head, packed, &mut scratch.rows.rotated));
        });
        let packed = &*packed;
        let parts = segment.len().div_ceil(ROWS);
        pool::run(heads * parts, |task| {
            let (head, part) = (task / parts, task % parts);
            let rows = part * ROWS..((part + 1) * ROWS).min(segment.len());
            let packed = &packed[head * words_per_head..][..words_per_head];
            Scratch::with(|scratch| {
                input.attend(&segment, rows, first + head, packed, &mut scratch.rows, out);
            });
        });
    }
    memory.give_back();
    Ok(())
}

impl Input<'_> {
    /// The row of `patch` in part 0 (queries), 1 (keys) or 2 (values) of the projection.
    fn head(&self, patch: usize, part: usize, head: usize) -> &[f32] {
        &self.qkv[((patch * 3 + part) * self.heads + head) * self.head_dim..][..self.head_dim]
    }

    /// Packs keys and values of `patches`; places behind the last become zero.
    fn pack(&self, patches: Range<usize>, head: usize, packed: &mut [u32], rotated: &mut [f32]) {
        pack_groups(self.isa, self, patches, head, packed, rotated);
    }

    /// Attention of rows `rows` of the segment.
    fn attend(
        &self,
        segment: &Range<usize>,
        rows: Range<usize>,
        head: usize,
        packed: &[u32],
        scratch: &mut ForRows,
        out: &SharedSlice<'_, f32>,
    ) {
        let (head_dim, padded) = (self.head_dim, group::padded(self.head_dim));
        let first = segment.start + rows.start;
        let patches = first..segment.start + rows.end;
        queries(self.isa, self, patches, head, scratch.queries.get(), &mut scratch.rotated);
        let shape = Rows { rows: rows.len(), head_dim, visible: segment.len(), offset: 0, group: usize::MAX };
        attend(
            for_isa(self.isa),
            &shape,
            scratch.queries.get(),
            &mut Packed { words: packed, head_dim },
            0..segment.len(),
            &mut scratch.total,
            &mut scratch.tile,
        );
        for row in 0..rows.len() {
            #[allow(unsafe_code)]
            // SAFETY: no other task has this head of these rows.
            let out = unsafe { out.part(((first + row) * self.heads + head) * head_dim, head_dim) };
            let state = &scratch.total;
            finish(self.isa, &state.out[row * padded..][..head_dim], total(&state.sums[row]), out);
        }
    }
}

for_each_isa!(
    fn pack_groups = pack(
        input: &Input<'_>,
        patches: Range<usize>,
        head: usize,
        packed: &mut [u32],
        rotated: &mut [f32],
    )
);

#[inline(always)]
fn pack<const FUSED: bool>(
    input: &Input<'_>,
    patches: Range<usize>,
    head: usize,
    packed: &mut [u32],
    rotated: &mut [f32],
) {
    let (head_dim, padded) = (input.head_dim, group::padded(input.head_dim));
    let mut first = patches.start;
    for words in packed.chunks_exact_mut(group::words(head_dim)) {
        let n = group::TOKENS.min(patches.end - first);
        let (keys, values) = words.split_at_mut(group::half(head_dim));
        if n < group::TOKENS || padded != head_dim {
            keys.fill(0);
            values.fill(0);
        }
        for token in 0..n {
            let patch = first + token;
            ask_for(input, patch + AHEAD, &patches, 1, head);
            rotate::<FUSED>(input, input.head(patch, 1, head), patch, rotated);
            for (lanes, pair) in
                keys.chunks_exact_mut(group::TOKENS).zip(rotated[..head_dim].as_chunks::<2>().0)
            {
                lanes[token] = group::pair(pair[0], pair[1]);
            }
        }
        for pair in 0..n.div_ceil(2) {
            let patch = first + 2 * pair;
            ask_for(input, patch + AHEAD, &patches, 2, head);
            ask_for(input, patch + AHEAD + 1, &patches, 2, head);
            let row = &mut values[pair * padded..][..head_dim];
            let one = input.head(patch, 2, head);
            if 2 * pair + 1 < n {
                let two = input.head(patch + 1, 2, head);
                for ((word, &one), &two) in row.iter_mut().zip(one).zip(two) {
                    *word = group::pair(one, two);
                }
            } else {
                row.iter_mut().zip(one).for_each(|(word, &one)| *word = group::pair(one, 0.0));
            }
        }
        first += n;
    }
}

for_each_isa!(
    fn queries = narrow_queries(
        input: &Input<'_>,
        patches: Range<usize>,
        head: usize,
        words: &mut [u32],
        rotated: &mut [f32],
    )
);

#[inline(always)]
fn narrow_queries<const FUSED: bool>(
    input: &Input<'_>,
    patches: Range<usize>,
    head: usize,
    words: &mut [u32],
    rotated: &mut [f32],
) {
    for (patch, words) in patches.clone().zip(words.chunks_exact_mut(QUERY_STRIDE)) {
        ask_for(input, patch + AHEAD, &patches, 0, head);
        rotate::<FUSED>(input, input.head(patch, 0, head), patch, rotated);
        narrow_query(&rotated[..input.head_dim], input.scale * std::f32::consts::LOG2_E, words);
    }
}

/// Asks for a head's row early, if it is one of `patches`.
#[inline(always)]
fn ask_for(input: &Input<'_>, patch: usize, patches: &Range<usize>, part: usize, head: usize) {
    if patch < patches.end {
        prefetch::ask_for(input.head(patch, part, head));
    }
}

/// `x` of `patch`, rotated, to the beginning of `rotated`.
#[inline(always)]
fn rotate<const FUSED: bool>(input: &Input<'_>, x: &[f32], patch: usize, rotated: &mut [f32]) {
    let at = patch * input.head_dim;
    let angles = (&input.cos[at..][..x.len()], &input.sin[at..][..x.len()]);
    rotary::cpu::rotate::<FUSED>(x, angles, &mut rotated[..x.len()]);
}

/// Memory for packed keys and values, kept for the next long segment: pages are taken from the system once.
struct Memory(Block);

static KEPT: Mutex<Option<Block>> = Mutex::new(None);

impl Memory {
    fn take(bytes: usize) -> Result<Self> {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(block) if block.as_slice().len() >= bytes => Ok(Self(block)),
            // Larger than blocks that share a mapping, so that it goes back to the system when it is dropped.
            _ => Block::zeros(bytes.max(PACKED_BYTES), "packed keys and values").map(Self),
        }
    }

    fn words(&mut self) -> &mut [u32] {
        let bytes = self.0.as_mut_slice();
        let len = bytes.len() / 4 * 4;
        bytemuck::cast_slice_mut(&mut bytes[..len])
    }

    fn give_back(self) {
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    struct Sizes<'a> {
        heads: usize,
        head_dim: usize,
        lengths: &'a [usize],
        scale: f32,
    }

    /// Random projections and angles.
    fn inputs(sizes: &Sizes<'_>) -> [Vec<f32>; 3] {
        let patches: usize = sizes.lengths.iter().sum();
        let qkv = testing::numbers(1, patches * 3 * sizes.heads * sizes.head_dim);
        let angles = testing::numbers(2, patches * sizes.head_dim);
        [
            qkv,
            angles.iter().map(|a| (3.0 * a).cos()).collect(),
            angles.iter().map(|a| (3.0 * a).sin()).collect(),
        ]
    }

    fn run(isa: Isa, sizes: &Sizes<'_>, [qkv, cos, sin]: &[Vec<f32>; 3]) -> Vec<f32> {
        let &Sizes { heads, head_dim, lengths, scale } = sizes;
        let mut out = vec![f32::NAN; qkv.len() / 3];
        let arguments = Varlen { qkv, cos, sin, heads, head_dim, lengths, scale, out: &mut out };
        varlen_bf16(isa, arguments).unwrap();
        out
    }

    fn rounded(x: f32) -> f64 {
        f64::from(group::widen(group::narrow(x)).0)
    }

    /// By the formula in f64, one query and one key after another, from inputs rounded to bf16: the outputs, and
    /// how far off each may be. A weight narrowed to bf16 is off by up to 1/256 of itself; a quarter more is for
    /// rotated numbers that round to the other side.
    fn plain(sizes: &Sizes<'_>, [qkv, cos, sin]: &[Vec<f32>; 3]) -> Vec<(f64, f64)> {
        let &Sizes { heads, head_dim, lengths, scale } = sizes;
        let factor = scale * std::f32::consts::LOG2_E;
        let row =
            |patch: usize, part: usize, head: usize| &qkv[((patch * 3 + part) * heads + head) * head_dim..];
        let rotated = |patch: usize, part: usize, head: usize, factor: f32| -> Vec<f64> {
            let (x, half) = (row(patch, part, head), head_dim / 2);
            let turn = |i: usize| if i < half { -x[i + half] } else { x[i - half] };
            let at = patch * head_dim;
            (0..head_dim).map(|i| rounded((x[i] * cos[at + i] + turn(i) * sin[at + i]) * factor)).collect()
        };
        let mut out = vec![(0.0, 0.0); qkv.len() / 3];
        let mut start = 0;
        for &length in lengths {
            for head in 0..heads {
                let keys: Vec<_> = (start..start + length).map(|p| rotated(p, 1, head, 1.0)).collect();
                for patch in start..start + length {
                    let q = rotated(patch, 0, head, factor);
                    let scores: Vec<f64> =
                        keys.iter().map(|k| k.iter().zip(&q).map(|(k, q)| k * q).sum::<f64>()).collect();
                    let most = scores.iter().copied().fold(f64::MIN, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp2()).collect();
                    let sum: f64 = weights.iter().sum();
                    for i in 0..head_dim {
                        let terms = || {
                            weights
                                .iter()
                                .enumerate()
                                .map(|(key, w)| w / sum * rounded(row(start + key, 2, head)[i]))
                        };
                        let tolerance = terms().map(f64::abs).sum::<f64>() / 200.0 + 1e-4;
                        out[(patch * heads + head) * head_dim + i] = (terms().sum(), tolerance);
                    }
                }
            }
            start += length;
        }
        out
    }

    #[test]
    fn equals_the_formula() {
        let windows = &[64, 36, 16, 4, 0, 1, 2, 63, 65][..];
        for (heads, head_dim, lengths) in [
            (2, 80, windows),
            (1, 80, &[15, 17, 31, 33, 127, 129]),
            (1, 80, &[96, 97, 257]),
            (3, 16, &[5, 128, 12]),
            (1, 4, &[20, 7]),
            (1, 20, &[33]),
            (2, 32, &[40]),
            (1, 64, &[64, 13, 260]),
            (1, 96, &[50]),
            (1, 128, &[70]),
            (1, 256, &[35]),
            (1, 80, &[]),
        ] {
            for scale in [0.1, 1.0] {
                let sizes = Sizes { heads, head_dim, lengths, scale };
                let inputs = inputs(&sizes);
                let expected = plain(&sizes, &inputs);
                for isa in Isa::available() {
                    let found = run(isa, &sizes, &inputs);
                    for (i, (&found, (expected, tolerance))) in found.iter().zip(&expected).enumerate() {
                        assert!(
                            (f64::from(found) - expected).abs() <= *tolerance,
                            "{isa}, {head_dim}, {lengths:?}: element {i} is {found}, expected {expected} ± {tolerance}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_segment_does_not_see_its_neighbours_even_when_they_are_no_numbers() {
        let (heads, head_dim, scale) = (2, 80, 0.2);
        let lengths = &[16, 64, 3, 280, 36, 1][..];
        let all = Sizes { heads, head_dim, lengths, scale };
        let inputs = inputs(&all);
        let (width, mut start) = (heads * head_dim, 0);
        for isa in Isa::available() {
            start = 0;
            let together = run(isa, &all, &inputs);
            for &length in lengths {
                let one = Sizes { heads, head_dim, lengths: &[length], scale };
                let part = |x: &Vec<f32>, width: usize| x[start * width..(start + length) * width].to_vec();
                let [qkv, cos, sin] = &inputs;
                let alone = run(isa, &one, &[part(qkv, 3 * width), part(cos, head_dim), part(sin, head_dim)]);
                assert_eq!(alone, part(&together, width), "{isa}, {length} patches");
                let mut spoiled = inputs.clone();
                for (i, x) in spoiled[0].iter_mut().enumerate() {
                    if !(start..start + length).contains(&(i / (3 * width))) {
                        *x = f32::NAN;
                    }
                }
                assert_eq!(alone, part(&run(isa, &all, &spoiled), width), "{isa}, {length} patches");
                start += length;
            }
        }
        assert_eq!(start, lengths.iter().sum::<usize>());
    }

    #[test]
    fn lengths_that_disagree_are_named() {
        let mut out = [0.0; 8];
        let arguments = Varlen {
            qkv: &[0.0; 24],
            cos: &[0.0; 8],
            sin: &[0.0; 8],
            heads: 1,
            head_dim: 4,
            lengths: &[1],
            scale: 1.0,
            out: &mut out,
        };
        let error = varlen_bf16(Isa::Portable, arguments).unwrap_err();
        assert_eq!(error.to_string(), "attention::varlen: qkv is 24, expected Some(12) elements");
    }
}
