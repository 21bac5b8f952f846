//! The innermost piece of a product, which each instruction set has its own form of: some rows of `x` times one
//! panel, over some features.

use super::squeeze::Panel;
use crate::{
    exp::silu,
    linear::product::{Finish, PANEL},
};

/// The most features in a block: that many of some panels and of the rows of a tile lie in the second-level cache.
/// The vision tower's width is one block.
pub(super) const BLOCK: usize = 1280;
/// Elements from one row of rounded `x` to the next within a block. A cache line more than a block, so that the rows
/// of a tile fall into different sets of the cache.
pub(super) const ROW: usize = BLOCK + 32;

/// How one instruction set computes.
pub(super) trait Path {
    /// What activations are held in; its numbers are those of bf16.
    type Element: bytemuck::Pod + Send + Sync;
    /// The most rows of a tile.
    const ROWS: usize;

    /// Rounds `x` to bf16. Both slices have the same length.
    fn round(x: &[f32], values: &mut [Self::Element]);

    /// Computes a tile.
    ///
    /// # Safety
    /// The processor has the instruction set, and everything in `tile` is as its fields say.
    unsafe fn tile(tile: &Tile<'_, Self::Element>);

    /// Whether there is [`Path::squeezed`].
    const SQUEEZES: bool = false;

    /// Computes all features of a panel in twelve bits, where [`Path::SQUEEZES`]: the same bits as [`Path::tile`].
    ///
    /// # Safety
    /// As for [`Path::tile`].
    unsafe fn squeezed(_tile: &SqueezedTile<'_, Self::Element>) {}
}

/// `rows` rows of `x` times one panel in twelve bits. What has the name of a field of [`Tile`] is the same.
pub(super) struct SqueezedTile<'a, E> {
    pub(super) x: *const E,
    pub(super) block: usize,
    pub(super) x_stride: usize,
    pub(super) rows: usize,
    pub(super) panel: Panel<'a>,
    pub(super) end: &'a End,
}

/// `rows` rows of `x` times one panel.
pub(super) struct Tile<'a, E> {
    /// The first row at the first of the features. The other rows lie [`ROW`] elements apart.
    pub(super) x: *const E,
    /// Features in a block of `x`; the last may have fewer.
    pub(super) block: usize,
    /// Elements from one block of `x` to the next.
    pub(super) x_stride: usize,
    /// `1..=ROWS`.
    pub(super) rows: usize,
    /// The panel at the first of the features: `(features / 2, 32)` pairs.
    pub(super) panel: *const u32,
    /// A multiple of [`super::FEATURES`].
    pub(super) features: usize,
    /// `(rows, 32)`: where sums rest between blocks of features.
    pub(super) sums: *mut f32,
    /// Whether `sums` holds those of the features before.
    pub(super) resumes: bool,
    /// What is done with the sums when no features follow.
    pub(super) end: Option<&'a End>,
    /// What will be needed soon, fetched along the way, one after the other.
    pub(super) ahead: [Ahead; 2],
}

/// Memory to be fetched into the caches. It need not be readable.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) start: *const u32,
    /// In steps of a pair of features of a panel, 128 bytes; a multiple of four.
    pub(super) pairs: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self { start: std::ptr::null(), pairs: 0 };
}

/// Where finished sums of a tile go.
pub(super) struct End {
    pub(super) finish: Finish,
    /// That of the panel's first row.
    pub(super) bias: Option<*const f32>,
    /// How many rows the panel has, `1..=32`; all of them for [`Finish::SwiGlu`].
    pub(super) columns: usize,
    /// The first row at the panel's first output.
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
}

/// Finishes `sums: (rows, 32)`. Inlined into code for more than the baseline, it is compiled for that.
///
/// # Safety
/// `end` is as its fields say, with `rows` rows of `y` that nobody else touches in these columns.
#[inline(always)]
pub(super) unsafe fn finish(sums: &[[f32; PANEL]], end: &End) {
    let mut bias = [0.0; PANEL];
    if let Some(values) = end.bias {
        // SAFETY: the bias has an element for each row of the weight, and the panel has `columns` of them.
        bias[..end.columns].copy_from_slice(unsafe { std::slice::from_raw_parts(values, end.columns) });
    }
    for (row, sums) in sums.iter().enumerate() {
        let width = if end.finish == Finish::SwiGlu { PANEL / 2 } else { end.columns };
        // SAFETY: the caller vouches for this part of the row.
        let y = unsafe { std::slice::from_raw_parts_mut(end.y.add(row * end.y_stride), width) };
        match end.finish {
            Finish::Store => {
                for ((y, sum), bias) in y.iter_mut().zip(sums).zip(bias) {
                    *y = sum + bias;
                }
            }
            Finish::Add => {
                for ((y, sum), bias) in y.iter_mut().zip(sums).zip(bias) {
                    *y += sum + bias;
                }
            }
            Finish::SwiGlu => {
                let (gate, up) = sums.split_at(PANEL / 2);
                let (gate_bias, up_bias) = bias.split_at(PANEL / 2);
                for (i, y) in y.iter_mut().enumerate() {
                    *y = silu(gate[i] + gate_bias[i]) * (up[i] + up_bias[i]);
                }
            }
        }
    }
}
