//! How a product is cut into tiles and shared among threads, for every instruction set alike.

use std::{cell::RefCell, ops::Range, sync::Mutex, sync::PoisonError};

use super::{
    Numbers, PackedBf16,
    squeeze::{Squeezed, UNIT, UNIT_BYTES},
    tile::{Ahead, BLOCK, End, Path, ROW, SqueezedTile, Tile},
};
use crate::{
    Result,
    linear::product::{Finish, PANEL, Product},
    pages::Block,
    pool::{self, SharedSlice},
    processor::Isa,
};

/// Panels whose blocks of features lie in the second-level cache together, and share a pass over `x`.
const GROUP: usize = 4;
/// Rows whose sums rest in memory between two blocks of features.
const STRIP: usize = 768;
/// Rounded `x` takes no more than that; longer ones are cut.
const X_BYTES: usize = 32 << 20;
/// From this many elements on, rounding `x` is worth a fork.
const LARGE_X: usize = 1 << 15;
/// How far ahead of its use a streaming weight is fetched, in pairs of a panel (128 bytes).
const DISTANCE: usize = 32;

/// The product; all lengths were checked by [`PackedBf16::check`].
pub(super) fn multiply<P: Path>(isa: Isa, weight: &PackedBf16, p: Product<'_>) -> Result<()> {
    let outputs = weight.outputs(p.finish);
    if p.tokens == 0 || outputs == 0 {
        return Ok(());
    }
    let blocks = Blocks::new(weight.padded_cols());
    let row_bytes = blocks.count * ROW * size_of::<P::Element>();
    let most = (X_BYTES / row_bytes).clamp(P::ROWS, p.tokens.max(P::ROWS));
    let parts = Parts::new(p.tokens, most);
    let mut scratch = Scratch::take(parts.longest() * row_bytes)?;
    let elements = bytemuck::cast_slice_mut(scratch.block.as_mut_slice());
    let y = SharedSlice::new(p.y);
    for part in 0..parts.count {
        let rows = parts.part(part);
        let x = &p.x[rows.start * p.features..rows.end * p.features];
        let values = &mut elements[..rows.len() * blocks.count * ROW];
        Rounding { x, rows: rows.len(), features: p.features, cols: weight.cols, blocks }.run::<P>(values);
        let job = Job::<P> {
            x: elements.as_ptr(),
            rows: rows.len(),
            isa,
            panels: match weight.numbers() {
                Numbers::Plain(bytes) => Panels::Plain(bytemuck::cast_slice(bytes)),
                Numbers::Squeezed(squeezed) => Panels::Squeezed(squeezed),
            },
            features: weight.padded_cols(),
            blocks,
            panel_rows: weight.rows,
            bias: p.bias,
            finish: p.finish,
            y: y.as_mut_ptr().wrapping_add(rows.start * outputs),
            y_stride: outputs,
        };
        if rows.len() <= P::ROWS { job.stream() } else { job.blocked() }
    }
    scratch.put_back();
    Ok(())
}

/// How the features of a weight are cut: evenly.
#[derive(Clone, Copy)]
struct Blocks {
    /// At least one.
    count: usize,
    /// Features in a block, of which the last may have fewer.
    size: usize,
}

impl Blocks {
    fn new(features: usize) -> Self {
        let count = features.div_ceil(BLOCK).max(1);
        Self { count, size: features.div_ceil(count).next_multiple_of(super::FEATURES) }
    }
}

/// From `x: (rows, features)` to the form that tiles take.
struct Rounding<'a> {
    x: &'a [f32],
    rows: usize,
    features: usize,
    /// The features that are read; zeros follow.
    cols: usize,
    blocks: Blocks,
}

impl Rounding<'_> {
    /// Writes `values: (blocks, rows, ROW)`.
    fn run<P: Path>(&self, values: &mut [P::Element]) {
        let shared = SharedSlice::new(values);
        if self.x.len() < LARGE_X {
            (0..self.rows).for_each(|row| self.row::<P>(row, shared));
        } else {
            let parts = Parts::new(self.rows, self.rows.div_ceil(8 * pool::threads()));
            pool::run(parts.count, |part| parts.part(part).for_each(|row| self.row::<P>(row, shared)));
        }
    }

    fn row<P: Path>(&self, row: usize, values: SharedSlice<'_, P::Element>) {
        let x = &self.x[row * self.features..][..self.cols];
        for (block, x) in x.chunks(self.blocks.size.max(1)).enumerate() {
            // SAFETY: each row of each block is written by the one task that has the row.
            let values = unsafe { values.part((block * self.rows + row) * ROW, ROW) };
            let (head, rest) = values.split_at_mut(x.len());
            P::round(x, head);
            let filled = x.len().next_multiple_of(super::FEATURES) - x.len();
            rest[..filled].fill(bytemuck::Zeroable::zeroed());
        }
    }
}

/// The weight.
#[derive(Clone, Copy)]
enum Panels<'a> {
    /// `(panels, features / 2, 32)`.
    Plain(&'a [u32]),
    Squeezed(&'a Squeezed),
}

/// One product of at most [`X_BYTES`] of rounded `x`.
struct Job<'a, P: Path> {
    /// `(blocks, rows, ROW)`.
    x: *const P::Element,
    rows: usize,
    isa: Isa,
    panels: Panels<'a>,
    /// The padded number.
    features: usize,
    blocks: Blocks,
    /// The weight's.
    panel_rows: usize,
    bias: Option<&'a [f32]>,
    finish: Finish,
    /// `(rows, y_stride)`.
    y: *mut f32,
    y_stride: usize,
}

// SAFETY: `x` is only read; of `y` each task writes the columns and rows of its own tiles.
unsafe impl<P: Path> Sync for Job<'_, P> {}

/// What one task computes.
struct Strip {
    rows: Range<usize>,
    panels: Range<usize>,
    /// The first of those that this thread will probably be given next.
    next_panel: usize,
}

thread_local! {
    /// `(panels of a group, rows of a strip, 32)`.
    static SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// `(panels of a group, features of a block / 2, 32)`, where the weight is squeezed; all features of one panel when
    /// streaming without a path for that.
    static WIDE: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Sixteen pairs, a cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Gives room for `len` pairs.
fn with_wide<T>(len: usize, work: impl FnOnce(&mut [u32]) -> T) -> T {
    WIDE.with_borrow_mut(|wide| {
        if wide.len() < len.div_ceil(16) {
            wide.resize(len.div_ceil(16), Line([0; 16]));
        }
        work(&mut bytemuck::cast_slice_mut(wide)[..len])
    })
}

impl<P: Path> Job<'_, P> {
    /// All rows at once, so that each panel is read once, from end to end.
    fn stream(&self) {
        let shares = Shares::new(self.panel_count(), self.panel_count().div_ceil(8 * pool::threads()));
        pool::run(shares.count(), |share| {
            for panel in shares.share(share) {
                let end = self.end(panel, 0);
                match self.panels {
                    Panels::Plain(words) => {
                        let start = words[self.place(panel, 0)..].as_ptr();
                        let ahead =
                            Ahead { start: start.wrapping_add(DISTANCE * PANEL), pairs: self.features / 2 };
                        self.stream_panel(start, ahead, &end);
                    }
                    Panels::Squeezed(weight) if P::SQUEEZES => {
                        let tile = SqueezedTile {
                            x: self.x,
                            block: self.blocks.size,
                            x_stride: self.rows * ROW,
                            rows: self.rows,
                            panel: weight.panel(panel),
                            end: &end,
                        };
                        // SAFETY: as in `stream_panel`.
                        unsafe { P::squeezed(&tile) };
                    }
                    Panels::Squeezed(weight) => with_wide(self.features / 2 * PANEL, |wide| {
                        weight.panel(panel).expand(self.isa, 0..self.features, wide);
                        self.stream_panel(wide.as_ptr(), Ahead::NOTHING, &end);
                    }),
                }
            }
        });
    }

    /// All rows times one panel, whose pairs begin at `panel`.
    fn stream_panel(&self, panel: *const u32, ahead: Ahead, end: &End) {
        let tile = Tile {
            x: self.x,
            block: self.blocks.size,
            x_stride: self.rows * ROW,
            rows: self.rows,
            panel,
            features: self.features,
            sums: std::ptr::null_mut(),
            resumes: false,
            end: Some(end),
            ahead: [ahead, Ahead::NOTHING],
        };
        // SAFETY: `multiply` chose a path that the processor has, `check` compared all lengths, and this panel belongs to
        // this task.
        unsafe { P::tile(&tile) };
    }

    /// Strips of rows times groups of panels, block by block of features.
    fn blocked(&self) {
        let strips = Parts::new(self.rows, STRIP);
        let shares = Shares::new(self.panel_count(), GROUP);
        pool::run(strips.count * shares.count(), |task| {
            let strip = strips.part(task / shares.count());
            let share = task % shares.count();
            let group = shares.share(share);
            // Other threads take the shares between.
            let next = shares.share((share + pool::threads()).min(shares.count() - 1)).start;
            SUMS.with_borrow_mut(|sums| {
                let size = group.len() * strip.len() * PANEL;
                if sums.len() < size {
                    sums.resize(GROUP * strips.longest() * PANEL, 0.0);
                }
                let strip = Strip { rows: strip, panels: group, next_panel: next };
                match self.panels {
                    Panels::Plain(_) => self.strip(strip, &mut sums[..size], &mut []),
                    Panels::Squeezed(_) => {
                        let pairs = strip.panels.len() * self.blocks.size / 2 * PANEL;
                        with_wide(pairs, |wide| self.strip(strip, &mut sums[..size], wide));
                    }
                }
            });
        });
    }

    /// `sums: (panels, rows, 32)`; `wide: (panels, features of a block / 2, 32)` where the weight is squeezed.
    fn strip(&self, strip: Strip, sums: &mut [f32], wide: &mut [u32]) {
        let tiles = Parts::new(strip.rows.len(), P::ROWS);
        let group = strip.panels.len();
        for block in 0..self.blocks.count {
            let first = block * self.blocks.size;
            let features = self.blocks.size.min(self.features - first);
            let last = block + 1 == self.blocks.count;
            let panel_words = self.blocks.size / 2 * PANEL;
            if let Panels::Squeezed(weight) = self.panels {
                for (panel, wide) in strip.panels.clone().zip(wide.chunks_exact_mut(panel_words)) {
                    weight.panel(panel).expand(self.isa, first..first + features, wide);
                }
            }
            for index in 0..tiles.count {
                let rows = tiles.part(index);
                let row = strip.rows.start + rows.start;
                let x = self.x.wrapping_add((block * self.rows + row) * ROW);
                // Each tile fetches its part of the next rows, and of the next block of its panel or of the panel
                // that takes its place.
                let next_rows = x.wrapping_add(rows.len() * ROW).cast::<u32>();
                let row_pairs =
                    (rows.len() * ROW * size_of::<P::Element>()).div_ceil(group * 128).next_multiple_of(4);
                // In steps of 128 bytes, of which a squeezed panel has a quarter fewer.
                let steps = match self.panels {
                    Panels::Plain(_) => self.blocks.size / 2,
                    Panels::Squeezed(_) => self.blocks.size / UNIT * UNIT_BYTES / 128,
                };
                let panel_pairs = steps.div_ceil(tiles.count).next_multiple_of(4);
                for (i, panel) in strip.panels.clone().enumerate() {
                    let end = self.end(panel, row);
                    let next = if last { (strip.next_panel + i, 0) } else { (panel, first + features) };
                    let next_panel = self.ahead(next.0, next.1);
                    let start = match self.panels {
                        Panels::Plain(words) => words[self.place(panel, first)..].as_ptr(),
                        Panels::Squeezed(_) => wide[i * panel_words..].as_ptr(),
                    };
                    let tile = Tile {
                        x,
                        block: self.blocks.size,
                        x_stride: self.rows * ROW,
                        rows: rows.len(),
                        panel: start,
                        features,
                        sums: sums[(i * strip.rows.len() + rows.start) * PANEL..][..rows.len() * PANEL]
                            .as_mut_ptr(),
                        resumes: block > 0,
                        end: last.then_some(&end),
                        ahead: [
                            Ahead {
                                start: next_panel.wrapping_add(index * panel_pairs * PANEL),
                                pairs: panel_pairs,
                            },
                            Ahead { start: next_rows.wrapping_add(i * row_pairs * PANEL), pairs: row_pairs },
                        ],
                    };
                    // SAFETY: as in `stream_panel`; rows and panels belong to this task.
                    unsafe { P::tile(&tile) };
                }
            }
        }
    }

    fn panel_count(&self) -> usize {
        self.panel_rows.div_ceil(PANEL)
    }

    /// Where a panel that is not squeezed lies from `feature` on.
    fn place(&self, panel: usize, feature: usize) -> usize {
        (panel * self.features + feature) / 2 * PANEL
    }

    /// Where a panel lies from `feature` on, to fetch it: it need not be there.
    fn ahead(&self, panel: usize, feature: usize) -> *const u32 {
        match self.panels {
            Panels::Plain(words) => words.as_ptr().wrapping_add(self.place(panel, feature)),
            Panels::Squeezed(_) if panel >= self.panel_count() => std::ptr::null(),
            Panels::Squeezed(weight) => {
                weight.panel(panel).units.as_ptr().wrapping_add(feature / UNIT * UNIT_BYTES).cast()
            }
        }
    }

    fn end(&self, panel: usize, row: usize) -> End {
        let first = panel * PANEL;
        let column = if self.finish == Finish::SwiGlu { first / 2 } else { first };
        End {
            finish: self.finish,
            bias: self.bias.map(|bias| bias[first..].as_ptr()),
            columns: PANEL.min(self.panel_rows - first),
            y: self.y.wrapping_add(row * self.y_stride + column),
            y_stride: self.y_stride,
        }
    }
}

/// `0..len` in as few parts as `most` allows, whose lengths differ by one at most.
struct Parts {
    len: usize,
    count: usize,
}

impl Parts {
    fn new(len: usize, most: usize) -> Self {
        Self { len, count: len.div_ceil(most.max(1)) }
    }

    fn longest(&self) -> usize {
        self.len.div_ceil(self.count.max(1))
    }

    fn part(&self, index: usize) -> Range<usize> {
        let start = |index: usize| index * (self.len / self.count) + index.min(self.len % self.count);
        start(index)..start(index + 1)
    }
}

/// `0..len` in shares of equal size, and single ones at the end, so that threads finish together.
struct Shares {
    len: usize,
    size: usize,
    /// How many shares are whole.
    whole: usize,
}

impl Shares {
    fn new(len: usize, size: usize) -> Self {
        let single = 2 * size * pool::threads();
        Self { len, size, whole: len.saturating_sub(single) / size }
    }

    fn count(&self) -> usize {
        self.whole + self.len - self.whole * self.size
    }

    fn share(&self, index: usize) -> Range<usize> {
        match index.checked_sub(self.whole) {
            None => index * self.size..(index + 1) * self.size,
            Some(single) => {
                let start = self.whole * self.size + single;
                start..start + 1
            }
        }
    }
}

/// Memory for rounded `x`, kept between calls: a decode step allocates nothing.
struct Scratch {
    block: Block,
    bytes: usize,
}

static KEPT: Mutex<Option<Scratch>> = Mutex::new(None);

impl Scratch {
    fn take(bytes: usize) -> Result<Self> {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(kept) = kept.filter(|kept| kept.bytes >= bytes) {
            return Ok(kept);
        }
        // Few sizes, so that growing ends soon.
        let bytes = bytes.next_power_of_two().max(1 << 20);
        Ok(Self { block: Block::zeros(bytes, "activations in bf16")?, bytes })
    }

    fn put_back(self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|kept| kept.bytes < self.bytes) {
            *kept = Some(self);
        }
    }
}

/// Fills the memory that is kept between calls with NaNs: the shared part, and the calling thread's.
#[cfg(test)]
pub(super) fn poison() {
    if let Ok(mut scratch) = Scratch::take(1) {
        scratch.block.as_mut_slice().fill(0xff);
        scratch.put_back();
    }
    SUMS.with_borrow_mut(|sums| sums.fill(f32::NAN));
}
