//! The integers of a step in a CUDA device's memory: one buffer, filled by one copy.
//!
//! Sequences come in three kinds, by their own sizes alone, so that what a sequence is computed by does not depend on
//! what else is in the batch: those whose queries, times the heads of a group, fill at most 16 rows, at most 32, and more.
//! The first two are computed by splitting their keys, the third in tiles of 128 rows.

use std::{cmp::Reverse, ops::Range, sync::Arc};

use super::{Limits, OP, Parts};
use crate::{
    Result,
    attention::Sequence,
    cuda::{CudaTensor, Gpu},
    error::argument,
    rotary::cuda::DeviceAngles,
};

/// Tokens in a block of the cache.
pub(crate) const BLOCK: usize = 16;
/// Rows of a tile.
const TILE: usize = 128;
/// Queries of a sequence whose keys are split, at most.
const FEW: usize = 4;
/// The slot of a token that has none.
const NOWHERE: u32 = u32::MAX;

/// How many of each thing there are, and so where each lies in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Sequences whose keys are split: those of at most 16 rows, then those of at most 32.
    few: [Few; 2],
    many: usize,
    tiles: usize,
    tokens: usize,
    /// Rows of the table of blocks, and their length.
    table: [usize; 2],
    /// Half the width of a head.
    half: usize,
    /// Heads of queries that share a head of keys.
    group: usize,
}

/// Sequences of a kind whose keys are split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Few {
    pub(crate) sequences: usize,
    /// The most splits that one of them has.
    pub(crate) splits: usize,
    /// The most rows that one of them has: queries times heads of a group.
    pub(crate) rows: usize,
}

/// What a sequence is computed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its keys are split; the index into [`Layout::few`].
    Few(usize),
    Many,
}

impl Kind {
    fn of(queries: usize, group: usize) -> Self {
        match queries * group {
            rows if queries <= FEW && rows <= 16 => Self::Few(0),
            rows if queries <= FEW && rows <= 32 => Self::Few(1),
            _ => Self::Many,
        }
    }
}

/// How many keys belong to one split of a sequence of `keys`; the kernels count likewise.
fn split_keys(keys: usize) -> usize {
    keys.div_ceil(64).next_power_of_two().max(128)
}

/// How many splits a sequence of `keys` has.
pub(crate) fn splits(keys: usize) -> usize {
    keys.div_ceil(split_keys(keys))
}

/// The most splits that a sequence of at most `keys` has.
fn most_splits(keys: usize) -> usize {
    if keys <= 64 * 128 { splits(keys) } else { 64 }
}

impl Few {
    fn add(&mut self, s: &Sequence<'_>, group: usize) {
        self.sequences += 1;
        self.splits = self.splits.max(splits(s.keys));
        self.rows = self.rows.max(s.queries * group);
    }
}

impl Layout {
    /// The layout of one step for a cache of `kv_heads` heads.
    pub(crate) fn of(parts: &Parts<'_>, kv_heads: usize) -> Result<Self> {
        let group = parts.heads / kv_heads;
        let longest = parts.sequences.iter().map(|s| s.keys.div_ceil(BLOCK)).max().unwrap_or(0);
        let mut layout = Self::empty(parts, group, [parts.sequences.len(), longest]);
        for s in parts.sequences.iter().filter(|s| s.queries > 0) {
            match Kind::of(s.queries, group) {
                Kind::Few(kind) => layout.few[kind].add(s, group),
                Kind::Many => {
                    layout.many += 1;
                    layout.tiles += (s.queries * group).div_ceil(TILE);
                }
            }
        }
        layout.checked()
    }

    /// The layout of all steps of a bucket.
    pub(crate) fn of_bucket(limits: Limits, parts: &Parts<'_>, kv_heads: usize) -> Result<Self> {
        let group = parts.heads / kv_heads.max(1);
        let mut layout = Self::empty(parts, group, [limits.sequences, limits.keys.div_ceil(BLOCK)]);
        let Kind::Few(kind) = Kind::of(1, group) else {
            return Err(argument(OP, "heads", parts.heads, format!("at most 32 times {kv_heads}")));
        };
        layout.few[kind] = Few { sequences: limits.sequences, splits: most_splits(limits.keys), rows: group };
        layout.checked()
    }

    fn empty(parts: &Parts<'_>, group: usize, table: [usize; 2]) -> Self {
        let (tokens, half) = (parts.positions.len(), parts.rope.head_dim / 2);
        Self { few: [Few::default(); 2], many: 0, tiles: 0, tokens, table, half, group }
    }

    /// Refuses what kernels can't count in 32 bits.
    fn checked(self) -> Result<Self> {
        let rows = self.tokens.saturating_mul(self.group);
        if rows > i32::MAX as usize
            || self.len() > i32::MAX as usize
            || self.few.iter().any(|few| few.sequences > 65_535)
        {
            return Err(argument(OP, "tokens", self.tokens, "fewer"));
        }
        Ok(self)
    }

    /// Descriptions of four integers each.
    fn sequences(&self) -> [Range<usize>; 3] {
        let [a, b] = self.few.map(|few| 4 * few.sequences);
        [0..a, a..a + b, a + b..a + b + 4 * self.many]
    }

    fn tiles(&self) -> Range<usize> {
        after(&self.sequences()[2], 2 * self.tiles)
    }

    fn frequencies(&self) -> Range<usize> {
        after(&self.tiles(), self.half)
    }

    fn axes(&self) -> Range<usize> {
        after(&self.frequencies(), self.half)
    }

    fn positions(&self) -> Range<usize> {
        after(&self.axes(), 3 * self.tokens)
    }

    fn slots(&self) -> Range<usize> {
        after(&self.positions(), self.tokens)
    }

    fn table(&self) -> Range<usize> {
        after(&self.slots(), self.table[0] * self.table[1])
    }

    /// How many integers there are.
    fn len(&self) -> usize {
        self.table().end
    }

    /// All integers of a step, in their places. Where the step has fewer sequences or tokens than the layout, there are
    /// tokens without keys and without a slot.
    fn integers(&self, parts: &Parts<'_>) -> Result<Vec<u32>> {
        let mut integers = vec![0; self.len()];
        let mut descriptions = self.sequences();
        let mut tiles = Vec::with_capacity(self.tiles);
        let [_, width] = self.table;
        let (table, mut first, mut many) = (self.table(), 0, 0);
        for (row, s) in parts.sequences.iter().enumerate() {
            let blocks = s.blocks.iter().take(s.keys.div_ceil(BLOCK));
            let place = table.start + row * width;
            integers[place..][..blocks.len()].iter_mut().zip(blocks).for_each(|(to, &block)| *to = block);
            if s.queries == 0 {
                continue;
            }
            let kind = match Kind::of(s.queries, self.group) {
                Kind::Few(kind) => kind,
                Kind::Many => {
                    let (rows, before) = (s.queries * self.group, s.keys - s.queries);
                    tiles.extend((0..rows).step_by(TILE).map(|start| {
                        let last = (start + TILE).min(rows) - 1;
                        (before + last / self.group + 1, [many, start as u32])
                    }));
                    many += 1;
                    2
                }
            };
            let place = descriptions[kind].start;
            integers[place..place + 4].copy_from_slice(&[
                first as u32,
                s.queries as u32,
                s.keys as u32,
                row as u32,
            ]);
            descriptions[kind].start += 4;
            first += s.queries;
        }
        for range in &descriptions[..2] {
            for (i, place) in range.clone().step_by(4).enumerate() {
                integers[place..place + 4].copy_from_slice(&[(first + i) as u32, 1, 0, 0]);
            }
        }
        // Those with most keys first.
        tiles.sort_by_key(|&(keys, _)| Reverse(keys));
        for (to, (_, tile)) in integers[self.tiles()].chunks_exact_mut(2).zip(tiles) {
            to.copy_from_slice(&tile);
        }
        let mut room = [0.0; crate::rotary::MOST_FREQUENCIES];
        let (frequencies, axis) = parts.rope.frequencies(&mut room)?;
        integers[self.frequencies()].iter_mut().zip(frequencies).for_each(|(to, from)| *to = from.to_bits());
        integers[self.axes()].iter_mut().enumerate().for_each(|(i, to)| *to = axis(i) as u32);
        let positions = parts.positions.as_flattened();
        integers[self.positions()].iter_mut().zip(positions).for_each(|(to, &from)| *to = from);
        let slots = parts.slots.iter().copied().chain(std::iter::repeat(NOWHERE));
        integers[self.slots()].iter_mut().zip(slots).for_each(|(to, from)| *to = from);
        Ok(integers)
    }
}

fn after(range: &Range<usize>, n: usize) -> Range<usize> {
    range.end..range.end + n
}

/// A step in the device's memory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct DeviceStep {
    layout: Layout,
    /// All integers; the tensors below are parts of it.
    integers: CudaTensor,
    /// Of each kind: first row, queries, keys and row of `tables`.
    sequences: [CudaTensor; 3],
    /// Sequence and first row of each tile of the third kind.
    pub(crate) tiles: CudaTensor,
    /// `(sequences, table_width)`.
    pub(crate) tables: CudaTensor,
    /// `(tokens)`.
    pub(crate) slots: CudaTensor,
    pub(crate) angles: DeviceAngles,
}

impl DeviceStep {
    pub(super) fn new(gpu: &Arc<Gpu>, layout: Layout, parts: &Parts<'_>) -> Result<Self> {
        // Nothing is nowhere; one integer is somewhere.
        let mut all = layout.integers(parts)?;
        all.resize(all.len().max(1), 0);
        let integers = gpu.integers(&all)?;
        let part = |range: Range<usize>| integers.narrow(0, range.start, range.len());
        let [few, some, many] = layout.sequences();
        Ok(Self {
            sequences: [part(few)?, part(some)?, part(many)?],
            tiles: part(layout.tiles())?,
            tables: part(layout.table())?,
            slots: part(layout.slots())?,
            angles: DeviceAngles {
                positions: part(layout.positions())?,
                frequencies: part(layout.frequencies())?,
                axes: part(layout.axes())?,
                n_axes: 3,
            },
            integers,
            layout,
        })
    }

    /// Replaces the integers by those of another step that fits the layout.
    pub(super) fn fill(&self, parts: &Parts<'_>, kv_heads: usize) -> Result<()> {
        if parts.heads != self.layout.group * kv_heads {
            return Err(argument(OP, "heads", parts.heads, format!("{}", self.layout.group * kv_heads)));
        }
        self.integers.set_integers(&self.layout.integers(parts)?)
    }

    pub(crate) fn tokens(&self) -> usize {
        self.layout.tokens
    }

    /// The sequences whose keys are split, by kind, those of at most 16 rows first.
    pub(crate) fn few(&self) -> [(Few, &CudaTensor); 2] {
        let [a, b, _] = &self.sequences;
        [(self.layout.few[0], a), (self.layout.few[1], b)]
    }

    /// The sequences that are computed in tiles, and how many tiles there are.
    pub(crate) fn many(&self) -> (usize, &CudaTensor) {
        (self.layout.tiles, &self.sequences[2])
    }

    /// The length of a row of `tables`.
    pub(crate) fn table_width(&self) -> usize {
        self.layout.table[1]
    }

    /// Heads of queries that share a head of keys.
    pub(crate) fn group(&self) -> usize {
        self.layout.group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotary::Multimodal;

    #[test]
    fn splits_follow_from_the_length_alone() {
        for (keys, each, n) in [
            (0, 128, 0),
            (1, 128, 1),
            (128, 128, 1),
            (129, 128, 2),
            (1300, 128, 11),
            (8192, 128, 64),
            (8193, 256, 33),
            (16_384, 256, 64),
            (128_000, 2048, 63),
        ] {
            assert_eq!((split_keys(keys), splits(keys)), (each, n), "{keys}");
        }
        for limit in [1, 127, 128, 1000, 8192, 8193, 20_000] {
            assert_eq!((0..=limit).map(splits).max(), Some(most_splits(limit).max(splits(limit))), "{limit}");
        }
    }

    const ROPE: Multimodal<'static> = Multimodal { head_dim: 16, theta: 1e4, sections: &[2, 3, 3] };

    #[test]
    fn every_sequence_finds_its_kind_and_place() {
        let blocks: Vec<u32> = (10..40).collect();
        let sequence = |queries, keys| Sequence { queries, keys, blocks: &blocks };
        // A group of seven: 7, 21 and 140 rows, and nothing.
        let sequences =
            [sequence(20, 33), sequence(1, 16), sequence(0, 5), sequence(3, 300), sequence(1, 129)];
        let slots: Vec<u32> = (100..125).collect();
        let positions: Vec<[u32; 3]> = (0..25).map(|i| [i, i + 1, i + 2]).collect();
        let parts =
            Parts { sequences: &sequences, slots: &slots, positions: &positions, rope: ROPE, heads: 14 };
        let layout = Layout::of(&parts, 2).unwrap();
        assert_eq!(layout.few[0], Few { sequences: 2, splits: 2, rows: 7 });
        assert_eq!(layout.few[1], Few { sequences: 1, splits: 3, rows: 21 });
        assert_eq!((layout.many, layout.tiles, layout.table), (1, 2, [5, 19]));
        let integers = layout.integers(&parts).unwrap();
        let [few, some, many] = layout.sequences();
        assert_eq!(integers[few], [20, 1, 16, 1, 24, 1, 129, 4]);
        assert_eq!(integers[some], [21, 3, 300, 3]);
        assert_eq!(integers[many], [0, 20, 33, 0]);
        // The last rows see most keys.
        assert_eq!(integers[layout.tiles()], [0, 128, 0, 0]);
        assert_eq!(integers[layout.slots()], slots);
        assert_eq!(integers[layout.positions()], *positions.as_flattened());
        assert_eq!(integers[layout.axes()], [0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(f32::from_bits(integers[layout.frequencies()][0]), 1.0);
        let table = &integers[layout.table()];
        assert_eq!((&table[..4], &table[19..21]), (&[10, 11, 12, 0][..], &[10, 0][..]));
        assert_eq!(table[3 * 19..4 * 19], blocks[..19]);
    }

    #[test]
    fn a_bucket_is_filled_up_with_tokens_without_keys() {
        let limits = Limits { sequences: 4, keys: 1000 };
        let positions = [[0; 3]; 4];
        let empty = Parts { sequences: &[], slots: &[], positions: &positions, rope: ROPE, heads: 4 };
        let layout = Layout::of_bucket(limits, &empty, 2).unwrap();
        assert_eq!(layout.few[0], Few { sequences: 4, splits: 8, rows: 2 });
        let sequences = [Sequence { queries: 1, keys: 20, blocks: &[7, 8] }];
        let parts = Parts { sequences: &sequences, slots: &[131], positions: &[[5; 3]], ..empty };
        let integers = layout.integers(&parts).unwrap();
        let [few, ..] = layout.sequences();
        assert_eq!(integers[few], [0, 1, 20, 0, 1, 1, 0, 0, 2, 1, 0, 0, 3, 1, 0, 0]);
        assert_eq!(integers[layout.slots()], [131, NOWHERE, NOWHERE, NOWHERE]);
        assert_eq!(integers[layout.table()][..3], [7, 8, 0]);
        assert!(Layout::of_bucket(limits, &Parts { heads: 66, ..empty }, 2).is_err());
    }
}
