//! A product cut into tasks: token blocks times panels, each panel's features in blocks that stay in the first-level
//! cache while all tokens of the task pass over them.

#![allow(unsafe_code)]

use std::{cell::RefCell, ops::Range};

use super::{
    PackedInt, Scheme,
    activations::{Activations, Codes, Steps},
    finish::{Bias, Outputs, finish},
    format::{PANEL, WIDE_BLOCK},
    stream::{self, Stream},
    sums::{self, Sums, Tile},
};
use crate::{
    linear::product::{Finish, Product},
    pool::{self, SharedSlice},
    processor::Isa,
};

/// Tokens of a task at most: with 2048 features their codes fill half of the second-level cache.
const BLOCK_TOKENS: usize = 258;
/// How far ahead of the arithmetic of a single tile weights are asked for, in bytes.
const AHEAD: usize = 8192;
/// Panels of a task at least when there are few tokens.
const FEW_PANELS: usize = 2;

/// What a thread keeps from one product to the next.
#[derive(Default)]
struct Scratch {
    sums: Vec<Sums>,
    /// Unpacked blocks, in cache lines.
    wide: Vec<Line>,
}

/// Its bytes are read and written through pointers.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

thread_local! {
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Carries out `p`, whose shapes [`PackedInt::multiply`] has checked.
pub(super) fn multiply(isa: Isa, weight: &PackedInt, p: Product<'_>) {
    if p.tokens == 0 || weight.rows() == 0 {
        return;
    }
    ACTIVATIONS.with_borrow_mut(|activations| {
        activations.quantize(isa, Steps::beside(weight.scheme()), p.x, p.tokens, p.features);
        let width = p.y.len() / p.tokens;
        let job = Job {
            isa,
            weight,
            activations: activations.codes(),
            bias: Bias::new(p.bias),
            finish: p.finish,
            y: SharedSlice::new(p.y),
            width,
        };
        job.run(p.tokens);
    });
}

/// Panels cut into parts that are handed out one after the other: one for each thread makes half of all panels, as many
/// more half of the rest, and so on. The first are long streams, the last so short that all threads end together. (Products
/// in bf16 end with single panels instead, which are longer there.)
struct Halves {
    panels: usize,
    threads: usize,
    rounds: usize,
}

impl Halves {
    fn new(panels: usize, threads: usize) -> Self {
        let mut rounds = 1;
        while panels >> rounds >= threads * FEW_PANELS {
            rounds += 1;
        }
        Self { panels, threads, rounds }
    }

    fn count(&self) -> usize {
        self.rounds * self.threads
    }

    fn of(&self, part: usize) -> Range<usize> {
        let (round, place) = (part / self.threads, part % self.threads);
        let left = self.panels >> round;
        let here = if round + 1 < self.rounds { left - left / 2 } else { left };
        let start = |place| self.panels - left + here * place / self.threads;
        start(place)..start(place + 1)
    }
}

/// A product whose activations are quantized.
struct Job<'a> {
    isa: Isa,
    weight: &'a PackedInt,
    activations: Codes<'a>,
    bias: Bias<'a>,
    finish: Finish,
    y: SharedSlice<'a, f32>,
    /// Elements of a row of `y`.
    width: usize,
}

impl Job<'_> {
    fn run(&self, tokens: usize) {
        let panels = self.weight.rows().div_ceil(PANEL);
        let tile = sums::tokens(self.isa);
        // Blocks of nearly equal size, of whole tiles.
        let blocks = tokens.div_ceil(BLOCK_TOKENS);
        let block = tokens.div_ceil(blocks).next_multiple_of(tile);
        let blocks = tokens.div_ceil(block);
        let few = blocks == 1 && tokens <= 16;
        let halves = Halves::new(panels, pool::threads());
        let parts = if few { halves.count() } else { panels };
        if stream::streams(self.isa, tokens) {
            pool::run(parts, |part| self.stream(halves.of(part)));
            return;
        }
        pool::run(blocks * parts, |task| {
            let (part, first) = (task % parts, task / parts * block);
            SCRATCH.with_borrow_mut(|scratch| {
                for panel in if few { halves.of(part) } else { part..part + 1 } {
                    // Other threads take the tasks between.
                    let next = if few { panel + 1 } else { panel + pool::threads() };
                    self.panel(panel, next, first, block.min(tokens - first), scratch);
                }
            });
        });
    }

    /// Panels times all tokens, of which there are few.
    fn stream(&self, panels: Range<usize>) {
        let place = |panel| self.weight.panel_start(panel);
        let stream = Stream {
            scheme: self.weight.scheme(),
            blocks: &self.weight.bytes()[place(panels.start)..place(panels.end)],
            panels,
            activations: self.activations,
            bias: &self.bias,
            finish: self.finish,
            y: &self.y,
            width: self.width,
        };
        // SAFETY: each panel is finished once.
        unsafe { stream::run(self.isa, &stream) };
    }

    /// One panel times tokens `first..first + tokens`; `next` is the panel that this thread is given afterwards.
    fn panel(&self, panel: usize, next: usize, first: usize, tokens: usize, scratch: &mut Scratch) {
        let Scratch { sums, wide } = scratch;
        if sums.len() < tokens {
            sums.resize(tokens, Sums([0.0; PANEL]));
        }
        let sums = &mut sums[..tokens];
        let scheme = self.weight.scheme();
        let groups = self.activations.groups;
        let cut = sums::cut(self.isa, scheme, tokens, groups);
        let tiles = tokens.div_ceil(cut.tokens);
        let (all, start) = (self.weight.bytes(), self.weight.panel_start(panel));
        for first_group in (0..groups).step_by(cut.groups.max(1)) {
            let count = cut.groups.min(groups - first_group);
            let place = start + first_group * scheme.block();
            let mut blocks = &all[place..][..count * scheme.block()];
            let ahead = match (cut.asks, tiles) {
                (false, _) => &[],
                (true, 0 | 1) => part(all, place + AHEAD, blocks.len()),
                (true, _) if first_group + count < groups => part(all, place + blocks.len(), blocks.len()),
                (true, _) => part(all, self.weight.panel_start(next), blocks.len()),
            };
            if cut.unpacks {
                wide.resize(cut.groups * WIDE_BLOCK / 64, Line([0; 64]));
                let wide = &mut lines_as_bytes(wide)[..count * WIDE_BLOCK];
                sums::unpack(self.isa, scheme, blocks, wide);
                blocks = wide;
            }
            let share = ahead.len().div_ceil(tiles.max(1));
            for (i, sums) in sums.chunks_mut(cut.tokens).enumerate() {
                let mut tile = Tile {
                    scheme: if cut.unpacks { Scheme::Int8 } else { scheme },
                    blocks,
                    activations: self.activations,
                    first_token: first + i * cut.tokens,
                    first_group,
                    resumes: first_group > 0,
                    sums,
                    ahead: part(ahead, i * share, share),
                };
                sums::add(self.isa, &mut tile);
            }
        }
        let y = Outputs::new(&self.y, self.finish, self.width, panel, first);
        // SAFETY: each panel and token is finished once.
        unsafe { finish(self.isa, self.finish, sums, self.bias.of(panel), &y) };
    }
}

/// As much of `bytes` as there is from `start` on, up to `len`.
fn part(bytes: &[u8], start: usize, len: usize) -> &[u8] {
    let start = start.min(bytes.len());
    &bytes[start..bytes.len().min(start + len)]
}

fn lines_as_bytes(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: a line is 64 bytes without padding, and the length is the same memory's.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), std::mem::size_of_val(lines)) }
}

/// Fills the memory that the calling thread keeps between calls with NaNs.
#[cfg(test)]
pub(super) fn poison() {
    SCRATCH.with_borrow_mut(|scratch| scratch.sums.fill(Sums([f32::NAN; PANEL])));
}

#[cfg(test)]
mod tests {
    use super::Halves;

    #[test]
    fn halves_are_all_panels_in_order_and_grow_smaller() {
        for panels in (0..70).chain([344, 688, 4748]) {
            for threads in [1, 2, 3, 8, 64] {
                let halves = Halves::new(panels, threads);
                let parts: Vec<_> = (0..halves.count()).map(|part| halves.of(part)).collect();
                let mut next = 0;
                for part in &parts {
                    assert_eq!(part.start, next, "{panels} panels, {threads} threads: {parts:?}");
                    next = part.end;
                }
                assert_eq!(next, panels, "{threads} threads: {parts:?}");
                let longest = |round: &[std::ops::Range<usize>]| round.iter().map(|part| part.len()).max();
                let rounds: Vec<_> = parts.chunks(threads).map(longest).collect();
                assert!(rounds.is_sorted_by(|a, b| a >= b), "{panels} panels, {threads} threads: {parts:?}");
                assert!(rounds.last() <= Some(&Some(4)), "{panels} panels, {threads} threads: {parts:?}");
            }
        }
    }
}
