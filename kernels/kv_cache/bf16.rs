//! The paged cache of keys and values in bf16, laid out for the attention kernels of the processor: half the memory
//! of the f32 one, and read from end to end as it lies.
//!
//! Slots are those of [`super::Layer`]. Sixteen slots of one head are a [`group`]; groups lie one after another,
//! `(slots / 16, kv_heads, group)`. Where the block size is a multiple of sixteen, sixteen neighbouring tokens of a
//! sequence are one group; else attention puts groups together as it goes.

use super::{OP, Shape, group};
use crate::{
    Error, Result,
    error::argument,
    pages::Block,
    pool::{self, SharedSlice},
    processor::Isa,
    rotary::cpu::rotate,
    vectorised::{cut, for_each_isa},
};

/// Keys and values of one layer in bf16.
#[derive(Debug)]
pub(crate) struct Bf16Layer {
    memory: Block,
    shape: Shape,
}

/// What [`Bf16Layer::rotate_and_cache`] takes and gives, all f32.
pub(crate) struct RotateAndCache<'a> {
    /// The fused projection, `(tokens, (heads + 2 · kv_heads) · head_dim)`: queries, keys, values.
    pub(crate) qkv: &'a [f32],
    /// `(tokens, head_dim)`.
    pub(crate) cos: &'a [f32],
    /// `(tokens, head_dim)`.
    pub(crate) sin: &'a [f32],
    /// Where each token's keys and values go.
    pub(crate) slots: &'a [u32],
    /// Heads of the queries.
    pub(crate) heads: usize,
    /// The rotated queries, `(tokens, heads · head_dim)`.
    pub(crate) queries: &'a mut [f32],
}

impl Bf16Layer {
    /// Whether heads of this width can be held.
    pub(crate) fn can_hold(head_dim: usize) -> bool {
        head_dim != 0 && head_dim.is_multiple_of(2) && head_dim <= crate::attention::cpu::MOST_HEAD_DIM
    }

    /// An empty cache. Its pages are taken only when they are first written.
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Argument`] when the size can't be had or is nonsense.
    pub(crate) fn new(shape: Shape) -> Result<Self> {
        const WIDEST: usize = crate::attention::cpu::MOST_HEAD_DIM;
        if shape.head_dim == 0 || !shape.head_dim.is_multiple_of(2) || shape.head_dim > WIDEST {
            return Err(argument(OP, "head_dim", shape.head_dim, format!("an even number up to {WIDEST}")));
        }
        let bytes = Self::size_in_bytes(shape);
        if bytes == 0 || bytes > isize::MAX as usize {
            return Err(Error::Memory { what: "KV cache", bytes });
        }
        Ok(Self { memory: Block::zeros(bytes, "KV cache")?, shape })
    }

    /// Bytes of keys and values together; `usize::MAX` when that is too much to count.
    pub(crate) fn size_in_bytes(shape: Shape) -> usize {
        let slots = shape.blocks.saturating_mul(shape.block_size);
        [shape.kv_heads, group::words(shape.head_dim), size_of::<u32>()]
            .into_iter()
            .fold(slots.div_ceil(group::TOKENS), usize::saturating_mul)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// How many tokens fit in all blocks.
    pub(crate) fn slots(&self) -> usize {
        self.shape.blocks * self.shape.block_size
    }

    /// The group that holds `slot` of `kv_head`.
    pub(crate) fn group(&self, slot: usize, kv_head: usize) -> &[u32] {
        let words = group::words(self.shape.head_dim);
        let index = slot / group::TOKENS * self.shape.kv_heads + kv_head;
        &bytemuck::cast_slice(self.memory.as_slice())[index * words..][..words]
    }

    /// Writes `keys` and `values`, both `(tokens, kv_heads, head_dim)`, to `slots`. Where a slot comes twice, the last
    /// token stays.
    ///
    /// # Errors
    /// [`Error::Index`] when a slot does not exist, [`Error::Argument`] when lengths disagree.
    pub(crate) fn write(&mut self, isa: Isa, keys: &[f32], values: &[f32], slots: &[u32]) -> Result<()> {
        let width = self.shape.kv_heads * self.shape.head_dim;
        expect("keys", keys.len(), slots.len() * width)?;
        expect("values", values.len(), slots.len() * width)?;
        self.check(slots)?;
        let source = Source { keys: (keys, 0), values: (values, 0), stride: width, angles: None };
        self.write_heads(isa, &source, slots);
        Ok(())
    }

    /// Rotates queries and keys by the tables, narrows keys and values into the cache, and gives the queries.
    ///
    /// # Errors
    /// [`Error::Index`] when a slot does not exist, [`Error::Argument`] when lengths disagree.
    #[allow(unsafe_code)]
    pub(crate) fn rotate_and_cache(&mut self, isa: Isa, arguments: RotateAndCache<'_>) -> Result<()> {
        let RotateAndCache { qkv, cos, sin, slots, heads, queries } = arguments;
        let Shape { kv_heads, head_dim, .. } = self.shape;
        let stride = (heads + 2 * kv_heads) * head_dim;
        expect("qkv", qkv.len(), slots.len() * stride)?;
        expect("cos", cos.len(), slots.len() * head_dim)?;
        expect("sin", sin.len(), slots.len() * head_dim)?;
        expect("queries", queries.len(), slots.len() * heads * head_dim)?;
        self.check(slots)?;
        let source = Source {
            keys: (qkv, heads * head_dim),
            values: (qkv, (heads + kv_heads) * head_dim),
            stride,
            angles: Some((cos, sin)),
        };
        self.write_heads(isa, &source, slots);
        let (tokens_per_task, tasks) = cut(slots.len(), heads * head_dim);
        let queries = SharedSlice::new(queries);
        pool::run(tasks, |task| {
            let tokens = task * tokens_per_task..((task + 1) * tokens_per_task).min(slots.len());
            let width = heads * head_dim;
            // SAFETY: each task has tokens of its own.
            let out = unsafe { queries.part(tokens.start * width, tokens.len() * width) };
            for (token, out) in tokens.zip(out.chunks_exact_mut(width.max(1))) {
                let angles = (&cos[token * head_dim..][..head_dim], &sin[token * head_dim..][..head_dim]);
                turn_heads(isa, &qkv[token * stride..][..width], angles, out);
            }
        });
        Ok(())
    }

    fn check(&self, slots: &[u32]) -> Result<()> {
        match slots.iter().find(|&&slot| slot as usize >= self.slots()) {
            Some(&slot) => Err(Error::Index { op: OP, index: slot as usize, len: self.slots() }),
            None => Ok(()),
        }
    }

    /// Each head is one task: so no two threads meet in a group.
    #[allow(unsafe_code)]
    fn write_heads(&mut self, isa: Isa, source: &Source<'_>, slots: &[u32]) {
        let Shape { kv_heads, head_dim, .. } = self.shape;
        let words = group::words(head_dim);
        let memory = SharedSlice::new(bytemuck::cast_slice_mut::<u8, u32>(self.memory.as_mut_slice()));
        let write = |kv_head: usize| {
            for (token, &slot) in slots.iter().enumerate() {
                let index = slot as usize / group::TOKENS * kv_heads + kv_head;
                // SAFETY: the group is of this head, and this is the only task that writes the head.
                let group = unsafe { memory.part(index * words, words) };
                write_token(
                    isa,
                    source,
                    Place { token, kv_head, lane: slot as usize % group::TOKENS },
                    head_dim,
                    group,
                );
            }
        };
        // A few tokens take less time than a fork.
        if slots.len() * head_dim < 2048 { (0..kv_heads).for_each(write) } else { pool::run(kv_heads, write) }
    }
}

/// Where a token's keys and values come from.
struct Source<'a> {
    /// Rows, and where the first head begins in each.
    keys: (&'a [f32], usize),
    values: (&'a [f32], usize),
    /// From one token to the next.
    stride: usize,
    /// Cosines and sines to rotate keys by.
    angles: Option<(&'a [f32], &'a [f32])>,
}

#[derive(Clone, Copy)]
struct Place {
    token: usize,
    kv_head: usize,
    lane: usize,
}

for_each_isa!(fn write_token = write_one(
    source: &Source<'_>,
    place: Place,
    head_dim: usize,
    group: &mut [u32],
));

#[inline(always)]
fn write_one<const FUSED: bool>(source: &Source<'_>, place: Place, head_dim: usize, group: &mut [u32]) {
    let at = place.token * source.stride + place.kv_head * head_dim;
    let key = &source.keys.0[at + source.keys.1..][..head_dim];
    let value = &source.values.0[at + source.values.1..][..head_dim];
    match source.angles {
        None => group::write(group, place.lane, key, value),
        Some((cos, sin)) => {
            let mut rotated = [0.0; crate::attention::cpu::MOST_HEAD_DIM];
            let at = place.token * head_dim;
            rotate::<FUSED>(key, (&cos[at..][..head_dim], &sin[at..][..head_dim]), &mut rotated[..head_dim]);
            group::write(group, place.lane, &rotated[..head_dim], value);
        }
    }
}

for_each_isa!(fn turn_heads = turn_all(x: &[f32], angles: (&[f32], &[f32]), out: &mut [f32]));

#[inline(always)]
fn turn_all<const FUSED: bool>(x: &[f32], angles: (&[f32], &[f32]), out: &mut [f32]) {
    let head_dim = angles.0.len();
    for (x, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
        rotate::<FUSED>(x, angles, out);
    }
}

fn expect(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(argument(OP, what, found, format!("{expected} elements"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;
    use crate::testing;

    const SHAPE: Shape =
        Shape { blocks: 3, block_size: 24, kv_heads: 2, head_dim: 6, precision: Precision::Bf16 };

    /// The numbers of a slot: keys and values of one head.
    fn slot(cache: &Bf16Layer, slot: usize, kv_head: usize) -> [Vec<f32>; 2] {
        let Shape { head_dim, .. } = cache.shape();
        let (group, lane) = (cache.group(slot, kv_head), slot % group::TOKENS);
        let (keys, values) = group.split_at(group::half(head_dim));
        let of = |pair: u32, second: bool| {
            let (a, b) = group::widen(pair);
            if second { b } else { a }
        };
        let key = (0..head_dim).map(|i| of(keys[i / 2 * group::TOKENS + lane], i % 2 == 1));
        let padded = group::padded(head_dim);
        let value = (0..head_dim).map(|i| of(values[lane / 2 * padded + i], lane % 2 == 1));
        [key.collect(), value.collect()]
    }

    #[test]
    fn tokens_land_in_their_slots_rotated_and_narrowed() {
        let (heads, slots) = (4, [71, 0, 1, 17, 16, 40]);
        let Shape { kv_heads, head_dim, .. } = SHAPE;
        let stride = (heads + 2 * kv_heads) * head_dim;
        let qkv = testing::numbers(1, slots.len() * stride);
        let [cos, sin] = [2, 3].map(|seed| testing::numbers(seed, slots.len() * head_dim));
        for isa in Isa::available() {
            let mut cache = Bf16Layer::new(SHAPE).unwrap();
            let mut queries = vec![f32::NAN; slots.len() * heads * head_dim];
            let arguments = RotateAndCache {
                qkv: &qkv,
                cos: &cos,
                sin: &sin,
                slots: &slots,
                heads,
                queries: &mut queries,
            };
            cache.rotate_and_cache(isa, arguments).unwrap();
            for (token, &at) in slots.iter().enumerate() {
                let row = |head: usize| &qkv[token * stride + head * head_dim..][..head_dim];
                let rotated = |x: &[f32]| -> Vec<f32> {
                    let turned = |i: usize| if i < 3 { -x[i + 3] } else { x[i - 3] };
                    let at = token * head_dim;
                    (0..6).map(|i| x[i] * cos[at + i] + turned(i) * sin[at + i]).collect()
                };
                for head in 0..heads {
                    let found = &queries[(token * heads + head) * head_dim..][..head_dim];
                    // Two f32 roundings of numbers below 2.
                    testing::assert_values("queries", found, &rotated(row(head)), 3e-7);
                }
                for head in 0..kv_heads {
                    let [key, value] = slot(&cache, at as usize, head);
                    // Half a unit of bf16 below 2.
                    testing::assert_values("key", &key, &rotated(row(heads + head)), 4e-3);
                    testing::assert_values("value", &value, row(heads + kv_heads + head), 2e-3);
                }
            }
            assert_eq!(slot(&cache, 2, 0), [vec![0.0; 6], vec![0.0; 6]]);
        }
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let mut cache = Bf16Layer::new(SHAPE).unwrap();
        let error = cache.write(Isa::Portable, &[0.0; 12], &[0.0; 12], &[72]).unwrap_err();
        assert_eq!(error.to_string(), "kv_cache: index 72 is outside of 72 rows");
        assert!(cache.write(Isa::Portable, &[0.0; 11], &[0.0; 12], &[0]).is_err());
        assert!(Bf16Layer::new(Shape { blocks: usize::MAX, ..SHAPE }).is_err());
        assert!(Bf16Layer::new(Shape { head_dim: 7, ..SHAPE }).is_err());
        assert!(Bf16Layer::new(Shape { head_dim: 258, ..SHAPE }).is_err());
    }
}
