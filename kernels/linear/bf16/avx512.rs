//! AVX-512 with its dot product of bf16: 12 rows times 32 outputs in 24 accumulators, fed by two loads of the panel
//! and twelve broadcasts for every pair of features.

use std::arch::x86_64::*;

use super::{
    squeeze::{self, UNIT, UNIT_BYTES, WHOLE_WORDS},
    tile::{End, Path, ROW, SqueezedTile, Tile},
};
use crate::{
    exp::avx512::silu,
    linear::product::{Finish, PANEL},
};

/// Calls `$f::<ROWS>` with the constant that equals the number of rows, `1..=12`.
macro_rules! with_rows {
    ($rows:expr, $f:ident($tile:expr)) => {
        match $rows {
            1 => $f::<1>($tile),
            2 => $f::<2>($tile),
            3 => $f::<3>($tile),
            4 => $f::<4>($tile),
            5 => $f::<5>($tile),
            6 => $f::<6>($tile),
            7 => $f::<7>($tile),
            8 => $f::<8>($tile),
            9 => $f::<9>($tile),
            10 => $f::<10>($tile),
            11 => $f::<11>($tile),
            _ => $f::<12>($tile),
        }
    };
}

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
        unsafe { with_rows!(tile.rows, compute(tile)) }
    }

    const SQUEEZES: bool = true;

    unsafe fn squeezed(tile: &SqueezedTile<'_, u16>) {
        // SAFETY: the caller's promises.
        unsafe { with_rows!(tile.rows, compute_squeezed(tile)) }
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
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(pair * PANEL).cast());
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(pair * PANEL + 16).cast());
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn compute_squeezed<const M: usize>(tile: &SqueezedTile<'_, u16>) {
    let panel = &tile.panel;
    let mut sums: Sums<M> = [[_mm512_setzero_ps(); 2]; M];
    let count = panel.units.len() / UNIT_BYTES;
    let (mut unit, mut whole, mut x) = (0, 0, tile.x);
    // SAFETY: the tile's promises: every block of `x` has `M` rows and all blocks together as many features as the panel,
    // whose whole units lie in order.
    unsafe {
        let bytes = upper_bytes(&panel.bytes);
        while unit < count {
            let end = count.min(unit + tile.block / UNIT);
            let mut x_unit = x;
            while unit < end {
                let next = panel.places.get(whole).map_or(end, |&place| end.min(place as usize));
                while unit < next {
                    let weights = expand_unit(bytes, panel.units.as_ptr().add(unit * UNIT_BYTES));
                    add_unit(&mut sums, weights, x_unit);
                    x_unit = x_unit.add(UNIT);
                    unit += 1;
                }
                if unit < end {
                    let words = panel.words[whole * WHOLE_WORDS..][..WHOLE_WORDS].as_ptr();
                    let vector = |i: usize| _mm512_loadu_si512(words.add(i * 16).cast());
                    add_unit(&mut sums, [[vector(0), vector(1)], [vector(2), vector(3)]], x_unit);
                    x_unit = x_unit.add(UNIT);
                    (unit, whole) = (unit + 1, whole + 1);
                }
            }
            x = x.wrapping_add(tile.x_stride);
        }
        finish(sums, tile.end);
    }
}

/// Adds the products of two pairs of features.
///
/// # Safety
/// `x` has `M` rows of four features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn add_unit<const M: usize>(sums: &mut Sums<M>, weights: [[__m512i; 2]; 2], x: *const u16) {
    for (pair, weights) in weights.into_iter().enumerate() {
        let [low, high] = weights.map(|bits| as_bf16(bits));
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let x = unsafe { x.add(row * ROW + pair * 2).cast::<i32>().read_unaligned() };
            let x = as_bf16(_mm512_set1_epi32(x));
            sums[0] = _mm512_dpbf16_ps(sums[0], x, low);
            sums[1] = _mm512_dpbf16_ps(sums[1], x, high);
        }
    }
}

/// The upper bytes in every 128 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn upper_bytes(bytes: &[u8; squeeze::BYTES]) -> __m512i {
    // SAFETY: sixteen bytes.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Both pairs of a unit, each as two vectors of sixteen rows.
///
/// # Safety
/// `unit` is 192 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn expand_unit(bytes: __m512i, unit: *const u8) -> [[__m512i; 2]; 2] {
    let mask = _mm512_set1_epi8(15);
    // SAFETY: the caller's promise.
    let load = |i: usize| unsafe { _mm512_loadu_si512(unit.add(64 * i).cast()) };
    let codes = load(0);
    let upper = [
        _mm512_shuffle_epi8(bytes, _mm512_and_si512(codes, mask)),
        _mm512_shuffle_epi8(bytes, _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask)),
    ];
    let lower = [load(1), load(2)];
    [
        [_mm512_unpacklo_epi8(lower[0], upper[0]), _mm512_unpackhi_epi8(lower[0], upper[0])],
        [_mm512_unpacklo_epi8(lower[1], upper[1]), _mm512_unpackhi_epi8(lower[1], upper[1])],
    ]
}

/// Writes what units of a panel stand for, all of them squeezed ones.
///
/// # Safety
/// The processor has the instructions, and there are as many units as two pairs of features of 32 rows.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn expand(bytes: &[u8; squeeze::BYTES], units: &[u8], pairs: &mut [u32]) {
    let bytes = upper_bytes(bytes);
    for (unit, words) in units.chunks_exact(UNIT_BYTES).zip(pairs.chunks_exact_mut(WHOLE_WORDS)) {
        // SAFETY: a unit is 192 bytes, and its words are four vectors.
        unsafe {
            let [[a, b], [c, d]] = expand_unit(bytes, unit.as_ptr());
            let words = words.as_mut_ptr();
            _mm512_storeu_si512(words.cast(), a);
            _mm512_storeu_si512(words.add(16).cast(), b);
            _mm512_storeu_si512(words.add(32).cast(), c);
            _mm512_storeu_si512(words.add(48).cast(), d);
        }
    }
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
