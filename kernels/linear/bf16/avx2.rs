//! AVX2 and FMA: both factors are widened to f32 in registers. Six rows times sixteen outputs take twelve of the
//! sixteen registers; up to two rows take all 32 outputs of a panel at once.

use std::arch::x86_64::*;

use super::{
    portable,
    tile::{self, Path, ROW, Tile},
};
use crate::{linear::product::PANEL, opaque::opaque};

pub(super) struct Avx2;

impl Path for Avx2 {
    type Element = f32;
    const ROWS: usize = 6;

    fn round(x: &[f32], values: &mut [f32]) {
        #[target_feature(enable = "avx2,fma")]
        fn round(x: &[f32], values: &mut [f32]) {
            portable::round(x, values);
        }
        // SAFETY: this path is chosen only where the processor has it.
        unsafe { round(x, values) }
    }

    unsafe fn tile(tile: &Tile<'_, f32>) {
        // SAFETY: the caller's promises.
        unsafe {
            match tile.rows {
                1 => compute::<1, 4>(tile),
                2 => compute::<2, 4>(tile),
                3 => compute::<3, 2>(tile),
                4 => compute::<4, 2>(tile),
                5 => compute::<5, 2>(tile),
                _ => compute::<6, 2>(tile),
            }
        }
    }
}

/// `M` rows, `V` vectors of eight outputs at a time.
#[target_feature(enable = "avx2,fma")]
unsafe fn compute<const M: usize, const V: usize>(tile: &Tile<'_, f32>) {
    let mut all = [[0.0f32; PANEL]; M];
    if tile.resumes {
        // SAFETY: the tile's promise: `sums` is `(M, 32)`.
        all = unsafe { tile.sums.cast::<[[f32; PANEL]; M]>().read() };
    }
    for column in (0..PANEL).step_by(8 * V) {
        // SAFETY: the tile's promises; `column + 8 * V` is at most `PANEL`.
        unsafe { accumulate::<M, V>(tile, column, &mut all) };
    }
    // SAFETY: the tile's promises.
    unsafe {
        match tile.end {
            Some(end) => tile::finish(&all, end),
            None => tile.sums.cast::<[[f32; PANEL]; M]>().write(all),
        }
    }
}

/// # Safety
/// `tile` is as its fields say, and `column + 8 * V <= 32`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate<const M: usize, const V: usize>(
    tile: &Tile<'_, f32>,
    column: usize,
    all: &mut [[f32; PANEL]; M],
) {
    let mut sums = [[_mm256_setzero_ps(); V]; M];
    // SAFETY: the caller's promises: the panel has `features`, and every block of `x` has `M` rows of them.
    unsafe {
        for (sums, all) in sums.iter_mut().zip(all.iter()) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(all.as_ptr().add(column + 8 * i));
            }
        }
        let mut panel = tile.panel.add(column);
        // This slower path leaves the rows of `x` to the processor.
        let [mut ahead, _] = tile.ahead;
        let high = _mm256_set1_epi32(0xffff_0000u32 as i32);
        for first in (0..tile.features).step_by(tile.block.max(1)) {
            let x = tile.x.wrapping_add(first / tile.block * tile.x_stride);
            for feature in (0..tile.block.min(tile.features - first)).step_by(2) {
                if column == 0 && ahead.pairs > 0 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.start.cast());
                    _mm_prefetch::<_MM_HINT_T0>(ahead.start.wrapping_add(16).cast());
                    ahead.start = ahead.start.wrapping_add(PANEL);
                    ahead.pairs -= 1;
                }
                let x = x.add(feature);
                let mut weights = [_mm256_setzero_ps(); V];
                for (i, weight) in weights.iter_mut().enumerate() {
                    let pairs = _mm256_loadu_si256(panel.add(8 * i).cast());
                    *weight = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*x.add(row * ROW));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_fmadd_ps(x, weight, *sum);
                    }
                }
                // Read again: six rows leave no register for what the two features of a pair share.
                panel = opaque(panel);
                for (i, weight) in weights.iter_mut().enumerate() {
                    let pairs = _mm256_loadu_si256(panel.add(8 * i).cast());
                    *weight = _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*x.add(row * ROW + 1));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_fmadd_ps(x, weight, *sum);
                    }
                }
                panel = panel.wrapping_add(PANEL);
            }
        }
        for (sums, all) in sums.iter().zip(all.iter_mut()) {
            for (i, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(all.as_mut_ptr().add(column + 8 * i), *sum);
            }
        }
    }
}
