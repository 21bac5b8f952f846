//! What all rows and squares of a frame share: weights in the form that an instruction set multiplies with.

use std::ops::Range;

use super::{CHANNELS, Resample};
use crate::{Error, Result, processor::Isa};

/// Output pixels that are narrowed together are four times the lanes.
const PIXELS_PER_LANE: usize = 4;
/// Input positions that one dot product takes.
pub(super) const GROUP: usize = 4;
/// A group of four pixels is read as so many bytes, of which twelve are used.
const READ: usize = 16;
/// The longest vector, in words: narrowed rows are padded for its last read.
const LONGEST_VECTOR: usize = 16;

/// A frame and its tables.
pub(super) struct Plan<'a> {
    pub(super) frame: &'a Resample<'a>,
    /// Pixels that are narrowed together.
    pub(super) block: usize,
    /// Words into which four weights are encoded.
    pub(super) digits: usize,
    /// Groups of four input columns that each output column is made of.
    pub(super) groups_across: usize,
    /// Where the window of each output column begins, in bytes of a row: `(blocks, 4, lanes)`, where lane `l` of `j`
    /// is pixel `4 l + j` of the block, so that transposing four vectors puts pixels in their order.
    pub(super) starts: Vec<usize>,
    /// `(blocks, 4, groups_across, digits, lanes)`.
    pub(super) across: Vec<i32>,
    /// Groups of four rows that each output row is made of, all of them beginning at a multiple of four.
    pub(super) groups_down: Vec<Range<usize>>,
    /// `(outputs, most_groups, digits)`.
    down: Vec<i32>,
    most_groups: usize,
    /// Words between the channels of narrowed rows.
    pub(super) stride: usize,
    /// Bytes that are read of each row: the padding may be anything, since its weights are zero.
    pub(super) reach: usize,
    /// The last rows once more, padded, because reading beyond their end would leave the frame: `(rows, reach)`.
    tail: Vec<u8>,
    /// The first of them.
    tail_start: usize,
}

impl<'a> Plan<'a> {
    /// The frame has been checked.
    pub(super) fn new(isa: Isa, frame: &'a Resample<'a>) -> Result<Self> {
        let (lanes, digits) = match isa {
            Isa::Avx512 => (4, 3),
            Isa::Avx2 => (2, 4),
            Isa::Portable => (1, 4),
        };
        let encode = |weights: [i32; GROUP], words: &mut dyn Iterator<Item = &mut i32>| {
            let encoded = match isa {
                Isa::Avx512 => bytes(weights),
                Isa::Avx2 => halves(weights),
                Isa::Portable => weights,
            };
            words.zip(encoded).for_each(|(word, digit)| *word = digit);
        };

        let block = PIXELS_PER_LANE * lanes;
        let columns = frame.across.windows.len();
        let blocks = columns.div_ceil(block);
        let longest = frame.across.windows.iter().map(Range::len).max().unwrap_or(0);
        let groups_across = longest.div_ceil(GROUP);
        let mut starts = filled(blocks * block, 0usize)?;
        let mut across = filled((blocks * block).saturating_mul(groups_across * digits), 0i32)?;
        for (column, window) in frame.across.windows.iter().enumerate() {
            let (lane, j) = (column % block / PIXELS_PER_LANE, column % PIXELS_PER_LANE);
            let part = column / block * PIXELS_PER_LANE + j;
            starts[part * lanes + lane] = window.start * CHANNELS;
            let table = &mut across[part * groups_across * digits * lanes..];
            for (group, weights) in frame.across.weights_of(column).chunks(GROUP).enumerate() {
                let words = table[group * digits * lanes + lane..].iter_mut().step_by(lanes);
                encode(four(weights, 0), &mut words.take(digits));
            }
        }

        let windows = frame.down.windows;
        let mut groups_down = Vec::new();
        let no_room = |_| Error::Memory { what: "resampling windows", bytes: size_of_val(windows) };
        groups_down.try_reserve_exact(windows.len()).map_err(no_room)?;
        groups_down.extend(windows.iter().map(|rows| rows.start / GROUP..rows.end.div_ceil(GROUP)));
        let most_groups = groups_down.iter().map(Range::len).max().unwrap_or(0);
        let mut down = filled(windows.len().saturating_mul(most_groups * digits), 0i32)?;
        for (row, table) in down.chunks_exact_mut(most_groups * digits).enumerate() {
            // The first group holds what precedes the window with weights of zero.
            let lead = windows[row].start % GROUP;
            let (first, rest) = {
                let weights = frame.down.weights_of(row);
                weights.split_at(weights.len().min(GROUP - lead))
            };
            let all = std::iter::once(four(first, lead))
                .chain(rest.chunks(GROUP).map(|four_rows| four(four_rows, 0)));
            for (weights, words) in all.zip(table.chunks_exact_mut(digits)) {
                encode(weights, &mut words.iter_mut());
            }
        }

        let row_bytes = frame.across.input * CHANNELS;
        let reach = row_bytes + groups_across * GROUP * CHANNELS + READ;
        let beyond = frame.rgb.len().saturating_sub(reach);
        // Row `r` may be read in place while `r * row_bytes + reach` is within the frame.
        let tail_start =
            if frame.rgb.len() < reach { 0 } else { (beyond / row_bytes + 1).min(frame.down.input) };
        let mut tail = filled((frame.down.input - tail_start).saturating_mul(reach), 0u8)?;
        let rows = frame.rgb[tail_start * row_bytes..].chunks_exact(row_bytes);
        for (padded, row) in tail.chunks_exact_mut(reach).zip(rows) {
            padded[..row_bytes].copy_from_slice(row);
        }

        let stride = columns.next_multiple_of(block) + LONGEST_VECTOR;
        Ok(Self {
            frame,
            block,
            digits,
            groups_across,
            starts,
            across,
            groups_down,
            down,
            most_groups,
            stride,
            reach,
            tail,
            tail_start,
        })
    }

    /// Words that the narrowed rows of any row of squares take.
    pub(super) fn narrow_words(&self) -> usize {
        let rows = self.groups_down.len() / self.frame.cut.side();
        let groups = (0..rows).map(|row| self.groups_of(row).len()).max().unwrap_or(0);
        groups.saturating_mul(CHANNELS * self.stride)
    }

    /// The groups of four rows that a row of squares is made of.
    pub(super) fn groups_of(&self, square_row: usize) -> Range<usize> {
        let side = self.frame.cut.side();
        let groups = &self.groups_down[square_row * side..][..side];
        let start = groups.iter().map(|groups| groups.start).min().unwrap_or(0);
        start..groups.iter().map(|groups| groups.end).max().unwrap_or(start)
    }

    /// Four rows of `reach` bytes each. Those below the frame have weights of zero: the last one stands for them.
    pub(super) fn rows(&self, group: usize) -> [&[u8]; GROUP] {
        let row_bytes = self.frame.across.input * CHANNELS;
        std::array::from_fn(|i| {
            let row = (group * GROUP + i).min(self.frame.down.input - 1);
            match row.checked_sub(self.tail_start) {
                Some(row) => &self.tail[row * self.reach..][..self.reach],
                None => &self.frame.rgb[row * row_bytes..][..self.reach],
            }
        })
    }

    /// The weights of an output row: `(groups, digits)`.
    pub(super) fn down(&self, row: usize) -> &[i32] {
        &self.down[row * self.most_groups * self.digits..][..self.groups_down[row].len() * self.digits]
    }
}

/// Up to four weights that follow on `lead` zeros, filled up with zeros.
fn four(weights: &[i32], lead: usize) -> [i32; GROUP] {
    let mut filled = [0; GROUP];
    filled[lead..].iter_mut().zip(weights).for_each(|(slot, &weight)| *slot = weight);
    filled
}

/// Three digits of eight bits, each with its sign, of four weights: word `d` holds digit `d`, of 256 to the power of
/// `d`. The fourth word is not used.
fn bytes(weights: [i32; GROUP]) -> [i32; 4] {
    let mut words = [0u32; 4];
    for (tap, &weight) in weights.iter().enumerate() {
        let mut rest = weight;
        for word in &mut words[..3] {
            let digit = rest as i8;
            *word |= u32::from(digit as u8) << (8 * tap);
            rest = (rest - i32::from(digit)) >> 8;
        }
    }
    words.map(|word| word as i32)
}

/// The low twelve bits and the rest of four weights as pairs of sixteen bits: low of taps 0 and 2, low of 1 and 3,
/// high of 0 and 2, high of 1 and 3.
fn halves(weights: [i32; GROUP]) -> [i32; 4] {
    let low = weights.map(|weight| weight & 0xfff);
    let high = weights.map(|weight| (weight >> 12) & 0xffff);
    let pair = |first: i32, second: i32| first | second << 16;
    [pair(low[0], low[2]), pair(low[1], low[3]), pair(high[0], high[2]), pair(high[1], high[3])]
}

fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>> {
    let mut table = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    table.try_reserve_exact(count).map_err(|_| Error::Memory { what: "resampling tables", bytes })?;
    table.resize(count, value);
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_make_up_the_weight() {
        let weights =
            [0, 1, -1, 127, 128, -128, -129, 255, 4_194_304, -400_000, 0x7f_0000, -0x7f_0000, 32_895];
        for &weight in &weights {
            let words = bytes([1, 2, weight, 3]);
            let digit = |word: i32| i32::from((word >> 16) as i8);
            let sum = digit(words[0]) + 256 * digit(words[1]) + 65_536 * digit(words[2]);
            assert_eq!(sum, weight);
            let words = halves([1, weight, 2, 3]);
            assert_eq!(i32::from(words[1] as i16) + 4096 * i32::from(words[3] as i16), weight);
        }
    }
}
