//! Causal attention over the paged bf16 cache, for the decoder: prefill and decoding by the same steps.
//!
//! The query heads of a group are rows of one tile, so that keys and values are read once for all of them. The
//! floor of decoding is reading the cache once, `4 · keys · kv_heads · head_dim` bytes; of prefill it is
//! `2 · n² · heads · head_dim` operations at the rate of the bf16 dot product.

use std::{cell::RefCell, ops::Range};

use super::{
    rows::{GROUPS, Groups, ROWS, Row, Rows, add_span, attend, finish, narrow_query, split, total},
    scratch::{ForRows, Scratch, Words},
    step::{QUERY_STRIDE, for_isa},
};
use crate::{
    Error, Result,
    attention::Sequence,
    error::argument,
    kv_cache::{bf16::Bf16Layer, group},
    pool::{self, SharedSlice},
    processor::Isa,
    vectorised::for_each_isa,
};

const OP: &str = "attention::causal";
/// Keys after which the running maximum and the sums begin anew. Spans can be computed by different threads.
pub(crate) const SPAN: usize = 512;

/// What [`causal_bf16`] takes and gives.
pub(crate) struct Causal<'a> {
    /// `(tokens, heads, head_dim)`, rotated; the sequences' queries side by side.
    pub(crate) q: &'a [f32],
    /// A multiple of the cache's heads.
    pub(crate) heads: usize,
    pub(crate) cache: &'a Bf16Layer,
    pub(crate) sequences: &'a [Sequence<'a>],
    /// What scores are multiplied by.
    pub(crate) scale: f32,
    /// `(tokens, heads, head_dim)`.
    pub(crate) out: &'a mut [f32],
}

/// Attention of the newest tokens of each sequence over all its tokens in the cache, themselves included.
///
/// # Errors
/// [`Error::Argument`] or [`Error::Index`] when lengths or blocks disagree.
pub(crate) fn causal_bf16(isa: Isa, arguments: Causal<'_>) -> Result<()> {
    let Causal { q, heads, cache, sequences, scale, out } = arguments;
    let shape = cache.shape();
    if heads == 0 || !heads.is_multiple_of(shape.kv_heads) {
        return Err(argument(OP, "heads", heads, format!("a multiple of {}", shape.kv_heads)));
    }
    let tokens = sequences.iter().try_fold(0usize, |sum, s| sum.checked_add(s.queries));
    let elements = tokens.and_then(|n| n.checked_mul(heads * shape.head_dim));
    if elements != Some(q.len()) || q.len() != out.len() {
        return Err(argument(OP, "q", q.len(), format!("{elements:?} elements, as many as out")));
    }
    for s in sequences {
        if s.queries > s.keys {
            return Err(argument(OP, "keys", s.keys, format!("at least {} queries", s.queries)));
        }
        let needed = s.keys.div_ceil(shape.block_size);
        let Some(blocks) = s.blocks.get(..needed) else {
            return Err(Error::Index { op: OP, index: needed - 1, len: s.blocks.len() });
        };
        if let Some(&block) = blocks.iter().find(|&&block| block as usize >= shape.blocks) {
            return Err(Error::Index { op: OP, index: block as usize, len: shape.blocks });
        }
    }
    let input = Input { isa, q, heads, group: heads / shape.kv_heads, cache, sequences, scale };
    PLAN.with_borrow_mut(|plan| {
        plan.cut(&input);
        plan.carry_out(&input, out);
    });
    Ok(())
}

thread_local! {
    /// The plan of the last call: the next one finds its memory.
    static PLAN: RefCell<Plan> = const { RefCell::new(Plan { tasks: Vec::new(), whole: Vec::new(), partials: Vec::new() }) };
}

/// How a call's work is cut.
struct Plan {
    tasks: Vec<Task>,
    /// The tasks before spans are cut.
    whole: Vec<Task>,
    /// Sums of the spans of split tasks.
    partials: Vec<f32>,
}

impl Plan {
    fn carry_out(&mut self, input: &Input<'_>, out: &mut [f32]) {
        let Self { tasks, partials, .. } = self;
        let parts = tasks.iter().map(|task| task.partial_words(input)).sum();
        partials.resize(parts, 0.0);
        let (shared_out, shared) = (SharedSlice::new(out), SharedSlice::new(partials));
        pool::run(tasks.len(), |i| {
            let task = &tasks[i];
            Scratch::with(|scratch| {
                let Scratch { groups, rows } = scratch;
                input.attend(task, groups, rows, &shared);
                if !task.is_split() {
                    input.finish_whole(task, rows, &shared_out);
                }
            });
        });
        // The spans of a split task are put together by its first part.
        tasks.retain(|task| task.is_split() && task.spans.start == 0);
        pool::run(tasks.len(), |i| input.finish_split(&tasks[i], partials, &shared_out));
    }

    /// Cuts the work: rows first, and spans only where some task would be too large a part of all.
    fn cut(&mut self, input: &Input<'_>) {
        let Self { tasks, whole, .. } = self;
        tasks.clear();
        whole.clear();
        let mut first = 0;
        for (index, sequence) in input.sequences.iter().enumerate() {
            let rows = sequence.queries * input.group;
            for kv_head in 0..input.cache.shape().kv_heads {
                for start in (0..rows).step_by(ROWS) {
                    let rows = start..(start + ROWS).min(rows);
                    let keys = sequence.keys - sequence.queries + (rows.end - 1) / input.group + 1;
                    let all_spans = keys.div_ceil(SPAN);
                    let (spans, sequence) = (0..all_spans, index);
                    whole.push(Task { sequence, first, kv_head, rows, spans, all_spans, partial: 0 });
                }
            }
            first += sequence.queries;
        }
        // What a task costs is about in proportion to this.
        let cost = |task: &Task| (task.rows.len() + 4) * task.spans.len();
        let share = whole.iter().map(cost).sum::<usize>() / (3 * pool::threads()) + 1;
        let mut partial = 0;
        for task in whole.iter() {
            let parts = if pool::threads() == 1 { 1 } else { cost(task).div_ceil(share).min(task.all_spans) };
            let spans_per_part = task.all_spans.div_ceil(parts);
            for start in (0..task.all_spans).step_by(spans_per_part) {
                let spans = start..(start + spans_per_part).min(task.all_spans);
                let mut part = Task { spans, partial, ..task.clone() };
                if part.is_split() {
                    part.partial += start * part.rows.len() * partial_row(input);
                }
                tasks.push(part);
            }
            if parts > 1 {
                partial += task.all_spans * task.rows.len() * partial_row(input);
            }
        }
        // The longest first, so that no thread begins a long one when the others are done.
        tasks.sort_unstable_by_key(|task| std::cmp::Reverse(cost(task)));
    }
}

/// What all tasks read.
struct Input<'a> {
    isa: Isa,
    q: &'a [f32],
    heads: usize,
    /// Query heads that share keys and values.
    group: usize,
    cache: &'a Bf16Layer,
    sequences: &'a [Sequence<'a>],
    scale: f32,
}

/// Some rows of one head of keys and values of one sequence, over all or some of the spans.
#[derive(Clone)]
struct Task {
    /// Which of the batch's sequences.
    sequence: usize,
    /// The sequence's first query in the batch.
    first: usize,
    kv_head: usize,
    /// Row `i` is query head `i % group` of the sequence's query `i / group`.
    rows: Range<usize>,
    spans: Range<usize>,
    /// How many spans the rows need.
    all_spans: usize,
    /// Where the rows' partial sums begin, if the task is split.
    partial: usize,
}

impl Task {
    fn is_split(&self) -> bool {
        self.spans.len() < self.all_spans
    }

    /// Floats that a row's partial sums take: output, largest score, sum of weights.
    fn partial_words(&self, input: &Input<'_>) -> usize {
        if self.is_split() { self.rows.len() * self.spans.len() * partial_row(input) } else { 0 }
    }
}

fn partial_row(input: &Input<'_>) -> usize {
    input.cache.shape().head_dim + 2
}

impl Input<'_> {
    /// Computes the task's spans: their sum in `scratch.total`, or each of them in `partials`.
    fn attend(
        &self,
        task: &Task,
        groups: &mut Words,
        scratch: &mut ForRows,
        partials: &SharedSlice<'_, f32>,
    ) {
        let head_dim = self.cache.shape().head_dim;
        let padded = group::padded(head_dim);
        for (i, words) in task.rows.clone().zip(scratch.queries.get().chunks_exact_mut(QUERY_STRIDE)) {
            let at = self.element(task, i);
            queries(self.isa, &self.q[at..][..head_dim], self.scale * std::f32::consts::LOG2_E, words);
        }
        let sequence = &self.sequences[task.sequence];
        let visible = sequence.keys - sequence.queries + task.rows.start / self.group + 1;
        let offset = task.rows.start % self.group;
        let rows = Rows { rows: task.rows.len(), head_dim, visible, offset, group: self.group };
        let mut groups = Paged {
            cache: self.cache,
            sequence,
            kv_head: task.kv_head,
            end: task.spans.end * SPAN,
            memory: groups.get(),
        };
        for span in task.spans.clone() {
            let keys = span * SPAN..(span + 1) * SPAN;
            let first = span == 0 && !task.is_split();
            let state = if first { &mut scratch.total } else { &mut scratch.span };
            attend(
                for_isa(self.isa),
                &rows,
                scratch.queries.get(),
                &mut groups,
                keys,
                state,
                &mut scratch.tile,
            );
            if first {
                for row in 0..rows.rows {
                    scratch.total.sums[row][0] = total(&scratch.total.sums[row]);
                }
                continue;
            }
            for i in 0..rows.rows {
                let sum = total(&scratch.span.sums[i]);
                let out = &scratch.span.out[i * padded..][..head_dim];
                if task.is_split() {
                    let at = (span - task.spans.start) * rows.rows + i;
                    #[allow(unsafe_code)]
                    // SAFETY: the task's spans of its rows are written by no other.
                    let row =
                        unsafe { partials.part(task.partial + at * partial_row(self), partial_row(self)) };
                    row[..head_dim].copy_from_slice(out);
                    row[head_dim..].copy_from_slice(&[scratch.span.largest[i], sum]);
                    continue;
                }
                let row = Row { largest: scratch.span.largest[i], sum, out };
                let all = &mut scratch.total;
                let all_out = &mut all.out[i * padded..][..head_dim];
                add_span(self.isa, &mut all.largest[i], &mut all.sums[i][0], all_out, &row);
            }
        }
    }

    /// Where the task's row `row` begins in queries and output.
    fn element(&self, task: &Task, row: usize) -> usize {
        let token = task.first + row / self.group;
        let head = task.kv_head * self.group + row % self.group;
        (token * self.heads + head) * self.cache.shape().head_dim
    }

    fn finish_whole(&self, task: &Task, scratch: &ForRows, out: &SharedSlice<'_, f32>) {
        let head_dim = self.cache.shape().head_dim;
        for (i, row) in task.rows.clone().enumerate() {
            #[allow(unsafe_code)]
            // SAFETY: no other task has this row.
            let out = unsafe { out.part(self.element(task, row), head_dim) };
            let sums = &scratch.total.out[i * group::padded(head_dim)..][..head_dim];
            finish(self.isa, sums, scratch.total.sums[i][0], out);
        }
    }

    /// Puts all spans of the rows of `task`, its first part, together in order.
    fn finish_split(&self, task: &Task, partials: &[f32], out: &SharedSlice<'_, f32>) {
        let head_dim = self.cache.shape().head_dim;
        let (width, n) = (partial_row(self), task.rows.len());
        let mut all = [0.0; super::MOST_HEAD_DIM];
        let all = &mut all[..head_dim];
        for (i, row) in task.rows.clone().enumerate() {
            let of_span = |span: usize| &partials[task.partial + (span * n + i) * width..][..width];
            all.copy_from_slice(&of_span(0)[..head_dim]);
            let (mut largest, mut sum) = (of_span(0)[head_dim], of_span(0)[head_dim + 1]);
            for span in 1..task.all_spans {
                let partial = of_span(span);
                let row =
                    Row { largest: partial[head_dim], sum: partial[head_dim + 1], out: &partial[..head_dim] };
                add_span(self.isa, &mut largest, &mut sum, all, &row);
            }
            #[allow(unsafe_code)]
            // SAFETY: no other task finishes this row.
            let out = unsafe { out.part(self.element(task, row), head_dim) };
            finish(self.isa, all, sum, out);
        }
    }
}

for_each_isa!(fn queries = narrow_one(query: &[f32], factor: f32, words: &mut [u32]));

#[inline(always)]
fn narrow_one<const FUSED: bool>(query: &[f32], factor: f32, words: &mut [u32]) {
    narrow_query(query, factor, words);
}

/// The groups of a task's sequence and head, where they lie in the cache.
struct Paged<'a> {
    cache: &'a Bf16Layer,
    sequence: &'a Sequence<'a>,
    kv_head: usize,
    /// The token after the task's last span.
    end: usize,
    memory: &'a mut [u32],
}

impl Paged<'_> {
    fn slot(&self, token: usize) -> usize {
        let block_size = self.cache.shape().block_size;
        self.sequence.blocks[token / block_size] as usize * block_size + token % block_size
    }
}

impl Groups for Paged<'_> {
    fn with(&mut self, range: Range<usize>, f: impl FnOnce(&[&[u32]], &[&[u32]], &[&[u32]])) {
        let shape = self.cache.shape();
        if shape.block_size.is_multiple_of(group::TOKENS) {
            let group = |i: usize| self.cache.group(self.slot(i * group::TOKENS), self.kv_head);
            let end = self.end.min(self.sequence.keys).div_ceil(group::TOKENS);
            let ahead = range.end..(range.end + GROUPS).min(end);
            split(range.map(group), ahead.map(group), shape.head_dim, f);
            return;
        }
        // Neighbours lie apart: they are brought together, one token after another.
        let words = group::words(shape.head_dim);
        let keys = self.sequence.keys;
        let mut memory = std::mem::take(&mut self.memory);
        for (at, group) in range.clone().enumerate() {
            let target = &mut memory[at * words..][..words];
            target.fill(0);
            for token in group * group::TOKENS..((group + 1) * group::TOKENS).min(keys) {
                let slot = self.slot(token);
                let source = (self.cache.group(slot, self.kv_head), slot % group::TOKENS);
                group::copy(source, (target, token % group::TOKENS), shape.head_dim);
            }
        }
        split(memory.chunks_exact(words).take(range.len()), std::iter::empty(), shape.head_dim, f);
        std::mem::swap(&mut self.memory, &mut memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;
    use crate::{kv_cache::Shape, testing};

    /// A sequence with random queries, keys and values of all its tokens.
    struct Tokens {
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
        blocks: Vec<u32>,
        tokens: usize,
    }

    struct World {
        cache: Bf16Layer,
        heads: usize,
        sequences: Vec<Tokens>,
    }

    const SCALE: f32 = 0.3;

    impl World {
        /// Sequences of `lengths` tokens whose blocks lie in disorder among others, which hold what is no number.
        fn new(isa: Isa, heads: usize, shape: Shape, lengths: &[usize]) -> Self {
            let Shape { block_size, kv_heads, head_dim, .. } = shape;
            let needed: usize = lengths.iter().map(|n| n.div_ceil(block_size)).sum();
            let mut cache = Bf16Layer::new(Shape { blocks: 2 * needed + 1, ..shape }).unwrap();
            let width = kv_heads * head_dim;
            let all: Vec<u32> = (0..cache.slots() as u32).collect();
            let spoiled = vec![f32::NAN; all.len() * width];
            cache.write(isa, &spoiled, &spoiled, &all).unwrap();
            let mut free = (0..needed as u32).rev().map(|block| 2 * block + 1);
            let sequences = lengths.iter().enumerate().map(|(i, &tokens)| {
                let numbers =
                    |j: u64, heads: usize| testing::numbers(10 * i as u64 + j, tokens * heads * head_dim);
                let blocks: Vec<u32> = free.by_ref().take(tokens.div_ceil(block_size)).collect();
                let mut q = numbers(1, heads);
                // Some scores stand out.
                q.iter_mut().step_by(3).for_each(|q| *q *= 4.0);
                Tokens { q, k: numbers(2, kv_heads), v: numbers(3, kv_heads), blocks, tokens }
            });
            let sequences: Vec<Tokens> = sequences.collect();
            for s in &sequences {
                let slot = |i: usize| s.blocks[i / block_size] * block_size as u32 + (i % block_size) as u32;
                let slots: Vec<u32> = (0..s.tokens).map(slot).collect();
                cache.write(isa, &s.k, &s.v, &slots).unwrap();
            }
            Self { cache, heads, sequences }
        }

        /// Attention of the tokens `range` of each sequence named in `parts`, one output for each part.
        fn run(&self, isa: Isa, parts: &[(usize, Range<usize>)]) -> Vec<Vec<f32>> {
            let width = self.heads * self.cache.shape().head_dim;
            let part = |(i, range): &(usize, Range<usize>)| {
                self.sequences[*i].q[range.start * width..range.end * width].to_vec()
            };
            let q: Vec<f32> = parts.iter().flat_map(part).collect();
            let sequences: Vec<Sequence<'_>> = parts
                .iter()
                .map(|(i, range)| Sequence {
                    queries: range.len(),
                    keys: range.end,
                    blocks: &self.sequences[*i].blocks,
                })
                .collect();
            let mut out = vec![f32::NAN; q.len()];
            let arguments = Causal {
                q: &q,
                heads: self.heads,
                cache: &self.cache,
                sequences: &sequences,
                scale: SCALE,
                out: &mut out,
            };
            causal_bf16(isa, arguments).unwrap();
            let mut rest = &out[..];
            let mut outputs = Vec::new();
            for (_, range) in parts {
                let (one, others) = rest.split_at(range.len() * width);
                outputs.push(one.to_vec());
                rest = others;
            }
            outputs
        }

        /// By the formula in f64, from numbers rounded to bf16, for token `token` and `head` of sequence `i`: the
        /// output, and how far off it may be, because a weight narrowed to bf16 is off by up to
        /// 1/256 of itself.
        fn plain(&self, i: usize, token: usize, head: usize) -> Vec<(f64, f64)> {
            let rounded = |x: f32| f64::from(group::widen(group::narrow(x)).0);
            let Shape { kv_heads, head_dim, .. } = self.cache.shape();
            let (s, kv_head) = (&self.sequences[i], head / (self.heads / kv_heads));
            let factor = SCALE * std::f32::consts::LOG2_E;
            let q = &s.q[(token * self.heads + head) * head_dim..][..head_dim];
            let row = |x: &[f32], key: usize| {
                let row = &x[(key * kv_heads + kv_head) * head_dim..][..head_dim];
                row.iter().map(|&x| rounded(x)).collect::<Vec<f64>>()
            };
            let score =
                |key| row(&s.k, key).iter().zip(q).map(|(k, &q)| k * rounded(q * factor)).sum::<f64>();
            let scores: Vec<f64> = (0..=token).map(score).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp2()).collect();
            let sum: f64 = weights.iter().sum();
            let mut out = vec![(0.0, 1e-4); head_dim];
            for (key, weight) in weights.iter().enumerate() {
                for (out, v) in out.iter_mut().zip(row(&s.v, key)) {
                    out.0 += weight / sum * v;
                    out.1 += (weight / sum * v).abs() / 250.0;
                }
            }
            out
        }
    }

    fn check(heads: usize, shape: Shape, parts: &[Range<usize>]) {
        for isa in Isa::available() {
            let lengths: Vec<usize> = parts.iter().map(|range| range.end).collect();
            let world = World::new(isa, heads, shape, &lengths);
            let parts: Vec<_> = parts.iter().cloned().enumerate().collect();
            let found = world.run(isa, &parts);
            for ((i, range), found) in parts.iter().zip(&found) {
                // The first and the last tokens and one in between, all heads.
                let middle = range.start + range.len() / 2;
                for token in
                    range.clone().filter(|t| *t < range.start + 2 || t + 2 >= range.end || *t == middle)
                {
                    for head in 0..heads {
                        let at = ((token - range.start) * heads + head) * shape.head_dim;
                        let found = &found[at..at + shape.head_dim];
                        for (i, (found, (expected, tolerance))) in
                            found.iter().zip(world.plain(*i, token, head)).enumerate()
                        {
                            assert!(
                                (f64::from(*found) - expected).abs() <= tolerance,
                                "{isa}, {heads} heads, {shape:?}, {range:?}: element {i} of head {head} of token \
                                 {token} is {found}, expected {expected} ± {tolerance}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn equals_the_formula() {
        let shape = |block_size, kv_heads, head_dim| Shape {
            blocks: 0,
            block_size,
            kv_heads,
            head_dim,
            precision: Precision::Bf16,
        };
        let heads = [(1, 1, 128), (2, 1, 16), (16, 2, 128), (5, 1, 80), (14, 2, 32), (8, 2, 20), (3, 3, 4)];
        for (heads, kv_heads, head_dim) in heads {
            check(heads, shape(16, kv_heads, head_dim), &[0..1, 0..17, 15..16, 16..17, 0..0, 120..130]);
            check(heads, shape(32, kv_heads, head_dim), &[3..33, 31..32, 0..64]);
        }
        for block_size in [1, 5, 24, 48] {
            check(4, shape(block_size, 2, 16), &[0..37, 30..31, 100..140]);
        }
    }

    #[test]
    fn spans_are_put_together() {
        let shape =
            Shape { blocks: 0, block_size: 16, kv_heads: 2, head_dim: 64, precision: Precision::Bf16 };
        check(4, shape, &[510..515, 1535..1537, 1024..1025, 511..512]);
        check(14, shape, &[1700..1701, 0..1]);
        check(2, Shape { block_size: 7, ..shape }, &[1030..1033, 0..1]);
    }

    #[test]
    fn a_token_has_the_same_bits_alone_in_any_batch_and_in_any_chunk() {
        for (heads, kv_heads, block_size) in [(4, 2, 16), (7, 1, 16), (3, 3, 10)] {
            let shape = Shape { blocks: 0, block_size, kv_heads, head_dim: 20, precision: Precision::Bf16 };
            let lengths = [300, 33, 129, 600];
            for isa in Isa::available() {
                let world = World::new(isa, heads, shape, &lengths);
                let whole: Vec<Vec<f32>> =
                    (0..lengths.len()).map(|i| world.run(isa, &[(i, 0..lengths[i])]).remove(0)).collect();
                let width = heads * shape.head_dim;
                let mut random = testing::numbers(7, 100_000).into_iter().map(|x| (x * 500.0).abs() as usize);
                for _ in 0..8 {
                    // Chunks of any size from any token on, decoding steps among them.
                    let parts: Vec<_> = (0..1 + random.next().unwrap() % 6)
                        .map(|_| {
                            let i = random.next().unwrap() % lengths.len();
                            let start = 3 * random.next().unwrap() % lengths[i];
                            let size =
                                if random.next().unwrap() % 2 == 0 { 1 } else { random.next().unwrap() };
                            (i, start..(start + size).min(lengths[i]))
                        })
                        .collect();
                    for ((i, range), found) in parts.iter().zip(world.run(isa, &parts)) {
                        let expected = &whole[*i][range.start * width..range.end * width];
                        let same = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{isa}, {heads} heads, tokens {range:?} of {parts:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_disagrees_is_named() {
        let shape = Shape { blocks: 2, block_size: 16, kv_heads: 2, head_dim: 4, precision: Precision::Bf16 };
        let cache = Bf16Layer::new(shape).unwrap();
        let run = |heads: usize, elements: usize, sequence: Sequence<'_>| {
            let (q, mut out) = (vec![0.0; elements], vec![0.0; elements]);
            let sequences = &[sequence];
            let arguments = Causal { q: &q, heads, cache: &cache, sequences, scale: 1.0, out: &mut out };
            causal_bf16(Isa::Portable, arguments).map_err(|error| error.to_string())
        };
        let sequence = |queries, keys, blocks| Sequence { queries, keys, blocks };
        assert!(run(2, 8, sequence(1, 1, &[0])).is_ok());
        assert!(run(3, 12, sequence(1, 1, &[0])).unwrap_err().contains("heads is 3"));
        assert!(run(2, 7, sequence(1, 1, &[0])).unwrap_err().contains("q is 7"));
        assert!(run(2, 16, sequence(2, 1, &[0])).unwrap_err().contains("keys is 1"));
        assert!(run(2, 8, sequence(1, 17, &[0])).unwrap_err().contains("index 1 is outside of 1"));
        assert!(run(2, 8, sequence(1, 17, &[0, 2])).unwrap_err().contains("index 2 is outside of 2"));
        assert!(run(2, 8, sequence(usize::MAX, usize::MAX, &[0])).is_err());
    }
}
