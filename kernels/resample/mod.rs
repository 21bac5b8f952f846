//! Frames of pixels become normalised patches in one pass: resampled across, resampled down, scaled, and laid in the
//! order in which a tower of patches reads them.
//!
//! For the output pixel `(y, x)` of a channel, with the windows and weights of both axes,
//!
//! ```text
//! narrow[r, x] = clip((half + Σ_i across[x, i] * rgb[r, start_x + i]) >> 22)     eight bits in between
//! level[y, x]  = clip((half + Σ_i down[y, i] * narrow[start_y + i, x]) >> 22)
//! value[y, x]  = (level * scale - mean) / std                                    three roundings to f32
//! ```
//!
//! and values run over the squares of `merge` x `merge` patches in raster order, the patches of a square in raster
//! order, channel, time, row, column. All paths give the same bits: sums are integers, and the three roundings of a
//! value are each of one operation.
//!
//! A task takes whole rows of squares from top to bottom, and keeps the narrowed rows of the window it is at in
//! cache: they are written once and nothing of the resized picture is ever written. Four narrowed rows share a word
//! (byte `i` of it is row `4 g + i`), which is what the dot product of four bytes takes.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plan;
mod portable;
#[cfg(test)]
mod reference;

use std::ops::Range;

use crate::{
    Error, Result,
    error::argument,
    pages,
    pool::{self, SharedSlice},
    processor::Isa,
};
use plan::Plan;

/// Red, green and blue.
const CHANNELS: usize = 3;
/// Fraction bits of the weights: eight are left for the pixel and two for sums beyond its range.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// One half in fixed point: sums start from it so that cutting the fraction off rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);
/// The largest sum of the sizes of one output's weights, close to two: 255 times it and one half stay within an i32,
/// and each weight within three digits of eight bits with signs.
const LARGEST_SUM: i64 = 0x7f_0000;
const OP: &str = "resample";

/// What becomes of one frame.
#[derive(Clone, Debug)]
pub struct Resample<'a> {
    /// `(down.input, across.input, 3)`, red first.
    pub rgb: &'a [u8],
    /// From rows to rows.
    pub down: Axis<'a>,
    /// From columns to columns.
    pub across: Axis<'a>,
    /// From levels to values.
    pub scaling: Scaling,
    /// From pixels to patches.
    pub cut: Cut,
    /// Which of the `cut.temporal` times of a patch the frame fills: a still picture fills all of them.
    pub times: Range<usize>,
}

/// How positions along one axis are made of others.
#[derive(Clone, Debug)]
pub struct Axis<'a> {
    /// How many input positions there are.
    pub input: usize,
    /// For each output position, the input positions that it is made of.
    pub windows: &'a [Range<usize>],
    /// For each output position, `taps` weights with 22 fraction bits, of which those beyond its window are not read.
    pub weights: &'a [i32],
    /// Weights per output position.
    pub taps: usize,
}

/// A value is `(level * scale - mean) / std`, rounded after each operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// What the level is multiplied by.
    pub scale: f32,
    /// What is subtracted, red first.
    pub mean: [f32; CHANNELS],
    /// What divides, red first.
    pub std: [f32; CHANNELS],
}

/// How the resized frame is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Side of a square patch, in pixels.
    pub patch: usize,
    /// Side of the squares of patches that lie together, in patches.
    pub merge: usize,
    /// Frames that a patch spans.
    pub temporal: usize,
}

/// `count` zeros to be filled with values. They take time only when they are first written, by the thread that does.
///
/// # Errors
/// When there is no room for them.
pub fn unfilled(count: usize) -> Result<Vec<f32>> {
    pages::untouched_zeros(count, "patch values")
}

/// Fills the `times` of all patches of one frame: `values: (down / patch * across / patch, 3 * temporal * patch *
/// patch)`. The other times of the patches are left as they are.
///
/// # Errors
/// When lengths do not fit each other, a window is outside of its input, or weights are so large that sums could
/// leave 32 bits; when memory for the tables cannot be had.
pub fn resample(frame: &Resample<'_>, values: &mut [f32]) -> Result<()> {
    resample_on(Isa::current(), frame, values)
}

fn resample_on(isa: Isa, frame: &Resample<'_>, values: &mut [f32]) -> Result<()> {
    frame.check(values.len())?;
    let plan = Plan::new(isa, frame)?;
    let square = frame.cut.square_values();
    let square_rows = frame.down.windows.len() / frame.cut.side();
    let squares_across = frame.across.windows.len() / frame.cut.side();
    // A few times more tasks than threads, and few enough that hardly any row is narrowed for two of them.
    let tasks = square_rows.min(3 * pool::threads());
    let narrow_words = plan.narrow_words();
    let words = narrow_words.saturating_mul(tasks);
    let bytes = words.saturating_mul(size_of::<u32>());
    let mut narrowed = bytemuck::allocation::try_zeroed_vec::<u32>(words)
        .map_err(|()| Error::Memory { what: "narrowed rows", bytes })?;

    let (values, narrowed) = (SharedSlice::new(values), SharedSlice::new(&mut narrowed));
    pool::run(tasks, |task| {
        let rows = square_rows * task / tasks..square_rows * (task + 1) / tasks;
        // SAFETY: each task has its own part.
        let narrowed = unsafe { narrowed.part(task * narrow_words, narrow_words) };
        let mut narrowed = Narrowed { words: narrowed, groups: 0..0 };
        for row in rows {
            let row_values = squares_across * square;
            // SAFETY: the ranges of rows of the tasks do not overlap.
            let values = unsafe { values.part(row * row_values, row_values) };
            narrowed.move_to(isa, &plan, plan.groups_of(row));
            for (column, values) in values.chunks_exact_mut(square).enumerate() {
                let place = Square { row, column };
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: `Isa` has these instructions only where the processor does.
                    Isa::Avx512 => unsafe { avx512::square(&plan, &narrowed, place, values) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: as above.
                    Isa::Avx2 => unsafe { avx2::square(&plan, &narrowed, place, values) },
                    _ => portable::square(&plan, &narrowed, place, values),
                }
            }
        }
    });
    Ok(())
}

/// The place of a square of patches, counted in squares.
#[derive(Clone, Copy)]
struct Square {
    row: usize,
    column: usize,
}

/// The narrowed rows that a task is at, four to a word.
struct Narrowed<'a> {
    /// `(groups, 3, plan.stride)`.
    words: &'a mut [u32],
    /// Which groups of four rows these are.
    groups: Range<usize>,
}

impl Narrowed<'_> {
    /// Keeps the groups that are still needed and computes the others.
    fn move_to(&mut self, isa: Isa, plan: &Plan<'_>, groups: Range<usize>) {
        let words = CHANNELS * plan.stride;
        let kept = groups.start..self.groups.end.clamp(groups.start, groups.end);
        // Windows move downwards as a rule; where one moved up, all is computed again.
        let kept = if self.groups.start <= kept.start { kept } else { groups.start..groups.start };
        if !kept.is_empty() {
            let from = (kept.start - self.groups.start) * words;
            self.words.copy_within(from..from + kept.len() * words, 0);
        }
        for group in kept.end..groups.end {
            let rows = plan.rows(group);
            let target = &mut self.words[(group - groups.start) * words..][..words];
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Isa` has these instructions only where the processor does.
                Isa::Avx512 => unsafe { avx512::narrow(plan, rows, target) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Isa::Avx2 => unsafe { avx2::narrow(plan, rows, target) },
                _ => portable::narrow(plan, rows, target),
            }
        }
        self.groups = groups;
    }
}

impl Cut {
    /// Side of a square of patches, in pixels.
    fn side(&self) -> usize {
        self.patch * self.merge
    }

    /// Values of all patches of a square.
    fn square_values(&self) -> usize {
        self.merge * self.merge * self.patch_values()
    }

    fn patch_values(&self) -> usize {
        CHANNELS * self.temporal * self.patch * self.patch
    }
}

impl Resample<'_> {
    fn check(&self, values: usize) -> Result<()> {
        let Self { rgb, down, across, cut, times, .. } = self;
        let &Cut { patch, merge, temporal } = cut;
        // No product below leaves 64 bits with sizes up to this.
        const LARGEST: usize = 1 << 12;
        if [patch, merge, temporal].iter().any(|size| !(1..=LARGEST).contains(size)) {
            return Err(argument(OP, "cut", cut, format!("sizes of 1 to {LARGEST}")));
        }
        if times.is_empty() || times.end > temporal {
            return Err(argument(OP, "times", times, format!("some of {temporal}")));
        }
        for (name, axis) in [("down", down), ("across", across)] {
            axis.check(name, cut.side())?;
        }
        let pixels = down.input.checked_mul(across.input).and_then(|pixels| pixels.checked_mul(CHANNELS));
        if pixels != Some(rgb.len()) {
            return Err(argument(OP, "rgb", rgb.len(), format!("{} x {} x 3", down.input, across.input)));
        }
        let squares = (down.windows.len() / cut.side()).checked_mul(across.windows.len() / cut.side());
        if squares.and_then(|squares| squares.checked_mul(cut.square_values())) != Some(values) {
            let (rows, columns) = (down.windows.len(), across.windows.len());
            return Err(argument(OP, "values", values, format!("3 x {temporal} x {rows} x {columns}")));
        }
        Ok(())
    }
}

impl<'a> Axis<'a> {
    /// Beyond this, offsets of bytes could not be computed with on small machines.
    const LONGEST: usize = 1 << 30;

    fn check(&self, what: &'static str, side: usize) -> Result<()> {
        let outputs = self.windows.len();
        if outputs == 0 || !outputs.is_multiple_of(side) || outputs.max(self.input) > Self::LONGEST {
            let expected = format!("a positive multiple of {side} up to {}", Self::LONGEST);
            return Err(argument(OP, what, outputs, expected));
        }
        if self.input == 0 || self.taps.checked_mul(outputs) != Some(self.weights.len()) {
            return Err(argument(OP, what, self.weights.len(), format!("{outputs} x {} weights", self.taps)));
        }
        for (index, window) in self.windows.iter().enumerate() {
            if window.start >= window.end || window.end > self.input || window.len() > self.taps {
                let expected = format!("1 to {} of {} positions", self.taps, self.input);
                return Err(argument(OP, what, window, expected));
            }
            let sum: i64 = self.weights_of(index).iter().map(|&weight| i64::from(weight).abs()).sum();
            if sum > LARGEST_SUM {
                return Err(argument(OP, what, sum, format!("weights that sum up to {LARGEST_SUM} at most")));
            }
        }
        Ok(())
    }

    /// The weights of an output position, as many as its window is long.
    fn weights_of(&self, index: usize) -> &'a [i32] {
        &self.weights[index * self.taps..][..self.windows[index].len()]
    }
}

#[cfg(test)]
mod tests;
