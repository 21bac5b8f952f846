//! AVX-512 with its dot product of bf16: 12 rows times 32 outputs in 24 accumulators, fed by two loads of the panel
//! and twelve broadcasts for every pair of features.

use std::arch::x86_64::*;

use super::tile::{End, Path, ROW, Tile};
use crate::{
    exp::avx512::silu,
    linear::product::{Finish, PANEL},
};

pub(super) struct Avx512;

impl Path for Avx512 {
    type Element = u16;
    const ROWS: usize = 12;

    fn round(x: &[f32], values: &mut [u16]) {
        // SAFETY: this path is chosen only where the processor has it.
        unsafe { round(x, values) }
    }

    unsafe fn tile(tile: &Tile<'_, u16>) {
        // SAFETY: the caller's promises.
        unsafe {
            match tile.rows {
                1 => compute::<1>(tile),
                2 => compute::<2>(tile),
                3 => compute::<3>(tile),
                4 => compute::<4>(tile),
                5 => compute::<5>(tile),
                6 => compute::<6>(tile),
                7 => compute::<7>(tile),
                8 => compute::<8>(tile),
                9 => compute::<9>(tile),
                10 => compute::<10>(tile),
                11 => compute::<11>(tile),
                _ => compute::<12>(tile),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(x: &[f32], values: &mut [u16]) {
    let (whole, rest) = x.as_chunks::<16>();
    let (out, out_rest) = values.as_chunks_mut::<16>();
    for (x, out) in whole.iter().zip(out) {
        // SAFETY: both are sixteen elements.
        unsafe {
            let narrow = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), std::mem::transmute::<__m256bh, __m256i>(narrow));
        }
    }
    let count = rest.len().min(out_rest.len());
    let mask = (1u16 << count) - 1;
    // SAFETY: the mask leaves `count` elements.
    unsafe {
        let narrow = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, rest.as_ptr()));
        let narrow = std::mem::transmute::<__m256bh, __m256i>(narrow);
        _mm256_mask_storeu_epi16(out_rest.as_mut_ptr().cast(), mask, narrow);
    }
}

type Sums<const M: usize> = [[__m512; 2]; M];

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn compute<const M: usize>(tile: &Tile<'_, u16>) {
    let mut sums: Sums<M> = [[_mm512_setzero_ps(); 2]; M];
    // SAFETY: the tile's promises: `sums` is `(M, 32)`, every block of `x` has `M` rows, and the panel has
    // `features`.
    unsafe {
        if tile.resumes {
            for (row, sums) in sums.iter_mut().enumerate() {
                sums[0] = _mm512_loadu_ps(tile.sums.add(row * PANEL));
                sums[1] = _mm512_loadu_ps(tile.sums.add(row * PANEL + 16));
            }
        }
        let (mut x, mut panel, mut ahead) = (tile.x, tile.panel, tile.ahead);
        let mut left = tile.features;
        while left > 0 {
            let features = left.min(tile.block);
            let mut done = 0;
            for ahead in &mut ahead {
                let fetching = (features - done).min(ahead.pairs * 2);
                sums = accumulate::<M, true>(sums, x.add(done), panel, fetching, ahead.start);
                panel = panel.add(fetching / 2 * PANEL);
                ahead.start = ahead.start.wrapping_add(fetching / 2 * PANEL);
                ahead.pairs -= fetching / 2;
                done += fetching;
            }
            let rest = features - done;
            sums = accumulate::<M, false>(sums, x.add(done), panel, rest, std::ptr::null());
            panel = panel.add(rest / 2 * PANEL);
            left -= features;
            x = x.wrapping_add(tile.x_stride);
        }
        match tile.end {
            Some(end) => finish(sums, end),
            None => {
                for (row, sums) in sums.iter().enumerate() {
                    _mm512_storeu_ps(tile.sums.add(row * PANEL), sums[0]);
                    _mm512_storeu_ps(tile.sums.add(row * PANEL + 16), sums[1]);
                }
            }
        }
    }
}

/// Adds the products of `features` (a multiple of 8) to the sums.
///
/// # Safety
/// `x` has `M` rows and `panel` pairs of that many features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn accumulate<const M: usize, const AHEAD: bool>(
    mut sums: Sums<M>,
    mut x: *const u16,
    mut panel: *const u32,
    features: usize,
    mut ahead: *const u32,
) -> Sums<M> {
    for _ in 0..features / 8 {
        for pair in 0..4 {
            if AHEAD {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(pair * PANEL).cast());
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(pair * PANEL + 16).cast());
            }
            // SAFETY: the caller's promise.
            unsafe {
                let low = as_bf16(_mm512_loadu_si512(panel.add(pair * PANEL).cast()));
                let high = as_bf16(_mm512_loadu_si512(panel.add(pair * PANEL + 16).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = x.add(row * ROW + pair * 2).cast::<i32>().read_unaligned();
                    let x = as_bf16(_mm512_set1_epi32(x));
                    sums[0] = _mm512_dpbf16_ps(sums[0], x, low);
                    sums[1] = _mm512_dpbf16_ps(sums[1], x, high);
                }
            }
        }
        x = x.wrapping_add(8);
        panel = panel.wrapping_add(4 * PANEL);
        ahead = ahead.wrapping_add(4 * PANEL);
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid patterns.
    unsafe { std::mem::transmute(bits) }
}

/// # Safety
/// `end` is as its fields say, for `M` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn finish<const M: usize>(sums: Sums<M>, end: &End) {
    let columns = (1u64 << end.columns) - 1;
    let (low, high) = (columns as u16, (columns >> 16) as u16);
    let (mut low_bias, mut high_bias) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    // SAFETY: the masks keep all accesses within the panel's columns.
    unsafe {
        if let Some(bias) = end.bias {
            low_bias = _mm512_maskz_loadu_ps(low, bias);
            high_bias = _mm512_maskz_loadu_ps(high, bias.wrapping_add(16));
        }
        for (row, sums) in sums.iter().enumerate() {
            let y = end.y.wrapping_add(row * end.y_stride);
            let mut a = _mm512_add_ps(sums[0], low_bias);
            let mut b = _mm512_add_ps(sums[1], high_bias);
            match end.finish {
                Finish::Store => {}
                Finish::Add => {
                    a = _mm512_add_ps(_mm512_maskz_loadu_ps(low, y), a);
                    b = _mm512_add_ps(_mm512_maskz_loadu_ps(high, y.wrapping_add(16)), b);
                }
                Finish::SwiGlu => {
                    _mm512_storeu_ps(y, _mm512_mul_ps(silu(a), b));
                    continue;
                }
            }
            _mm512_mask_storeu_ps(y, low, a);
            _mm512_mask_storeu_ps(y.wrapping_add(16), high, b);
        }
    }
}
