//! Plain Rust, which the compiler vectorises as far as the target's baseline goes.

use super::tile::{self, Path, ROW, Tile};
use crate::linear::product::PANEL;

pub(super) struct Portable;

impl Path for Portable {
    type Element = f32;
    const ROWS: usize = 4;

    fn round(x: &[f32], values: &mut [f32]) {
        round(x, values);
    }

    unsafe fn tile(tile: &Tile<'_, f32>) {
        // SAFETY: the caller's promises.
        unsafe {
            match tile.rows {
                1 => compute::<1>(tile),
                2 => compute::<2>(tile),
                3 => compute::<3>(tile),
                _ => compute::<4>(tile),
            }
        }
    }
}

/// Rounds to the nearest bf16, to even in the middle, held as f32. Free of branches.
#[inline(always)]
pub(super) fn round(x: &[f32], values: &mut [f32]) {
    for (x, value) in x.iter().zip(values) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
        // Rounding might make an infinity of a NaN.
        *value = if x.is_nan() { f32::NAN } else { f32::from_bits(rounded) };
    }
}

/// # Safety
/// `tile` is as its fields say.
unsafe fn compute<const M: usize>(tile: &Tile<'_, f32>) {
    let mut sums = [[0.0f32; PANEL]; M];
    if tile.resumes {
        // SAFETY: the tile's promise: `sums` is `(M, 32)`.
        sums = unsafe { tile.sums.cast::<[[f32; PANEL]; M]>().read() };
    }
    for first in (0..tile.features).step_by(tile.block.max(1)) {
        let x = tile.x.wrapping_add(first / tile.block * tile.x_stride);
        for feature in (0..tile.block.min(tile.features - first)).step_by(2) {
            // SAFETY: the tile's promises: every block of `x` has `M` rows, and the panel has `features`.
            unsafe {
                let pairs = &*tile.panel.add((first + feature) / 2 * PANEL).cast::<[u32; PANEL]>();
                let x = x.add(feature);
                for (row, sums) in sums.iter_mut().enumerate() {
                    let (first, second) = (*x.add(row * ROW), *x.add(row * ROW + 1));
                    for (sum, pair) in sums.iter_mut().zip(pairs) {
                        *sum += first * f32::from_bits(pair << 16);
                        *sum += second * f32::from_bits(pair & 0xffff_0000);
                    }
                }
            }
        }
    }
    // SAFETY: the tile's promises.
    unsafe {
        match tile.end {
            Some(end) => tile::finish(&sums, end),
            None => tile.sums.cast::<[[f32; PANEL]; M]>().write(sums),
        }
    }
}
