//! The step with the bf16 dot product of AVX-512: accumulators stay in registers for all of a block.
//!
//! Of the instructions per sixteen scores, `head_dim / 2` make the scores, as many the output, and about twelve the
//! exponential.

#![allow(unsafe_code)]
// An index names a register here; iterators over rows and columns of registers would hide which.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::step::{BLOCK, LEAST, QUERY_STRIDE, Step};
use crate::kv_cache::group;

/// See [`super::step::Step`]. Given out by `for_isa` only where the processor has the instructions.
pub(super) fn step(step: &mut Step<'_>) {
    step.check();
    // SAFETY: `for_isa` has asked the processor, and `check` the sizes.
    unsafe { run(step) }
}

/// # Safety
/// The processor has AVX-512 F, BW, VL, DQ and BF16, and `step.check()` has passed.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn run(step: &mut Step<'_>) {
    // SAFETY: the sizes that each reads and writes are those that `check` has asserted.
    unsafe {
        scores(step);
        for row in 0..step.rows() {
            softmax(step, row);
        }
        values(step);
    }
}

/// Calls `$f::<M, N>` with the constants that equal the variables.
macro_rules! with_constants {
    ($m:expr, $n:expr, $f:ident $arguments:tt, $($M:literal: [$($N:literal)*]),* $(,)?) => {
        match ($m, $n) {
            $($(($M, $N) => with_constants!(@call $f, $M, $N, $arguments),)*)*
            (m, n) => unreachable!("no tile of {m} by {n}"),
        }
    };
    (@call $f:ident, $M:literal, $N:literal, ($($argument:expr),*)) => {
        $f::<$M, $N>($($argument),*)
    };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn scores(step: &mut Step<'_>) {
    let (rows, pairs, groups) = (step.rows(), step.head_dim.div_ceil(2), step.keys.len());
    let most = match rows {
        1 | 2 => 8,
        3..=6 => 4,
        _ => 2,
    };
    let mut first = 0;
    while first < groups {
        let n = 1 << (groups - first).min(most).ilog2();
        let (queries, keys) = (step.queries.as_ptr(), &step.keys[first..first + n]);
        let out = step.tile.scores.as_mut_ptr();
        // SAFETY: `check` has asserted as many rows of queries and groups of keys; `first + n` groups of scores
        // fit a row of the tile.
        unsafe {
            let out = out.add(first * 16);
            let values = &step.values[first..first + n];
            with_constants!(rows, n, scores_of(queries, keys, values, pairs, out),
                1: [1 2 4 8], 2: [1 2 4 8], 3: [1 2 4], 4: [1 2 4], 5: [1 2 4], 6: [1 2 4], 7: [1 2], 8: [1 2],
                9: [1 2], 10: [1 2], 11: [1 2], 12: [1 2]);
        }
        first += n;
    }
}

/// `M` rows by `N` groups of scores.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn scores_of<const M: usize, const N: usize>(
    queries: *const u32,
    keys: &[&[u32]],
    values: &[&[u32]],
    pairs: usize,
    out: *mut f32,
) {
    let (mut starts, mut needed_next) = ([std::ptr::null(); N], [std::ptr::null(); N]);
    for n in 0..N {
        starts[n] = keys[n].as_ptr();
        needed_next[n] = values[n].as_ptr();
    }
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    // SAFETY: the caller's promise: `M` queries of `pairs`, `N` groups of `pairs` vectors, room for the scores.
    unsafe {
        for i in 0..pairs {
            let mut keys = [zero(); N];
            for n in 0..N {
                keys[n] = load(starts[n].add(i * 16));
                fetch(needed_next[n].wrapping_add(i * 16));
            }
            for m in 0..M {
                let query = broadcast(queries.add(m * QUERY_STRIDE + i));
                for n in 0..N {
                    sums[m][n] = _mm512_dpbf16_ps(sums[m][n], query, keys[n]);
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                _mm512_storeu_ps(out.add(m * BLOCK + n * 16), sums[m][n]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn softmax(step: &mut Step<'_>, row: usize) {
    let (visible, groups) = (step.visible[row], step.keys.len());
    let scores = step.tile.scores[row * BLOCK..][..groups * 16].as_mut_ptr();
    let weights = step.tile.weights[row * (BLOCK / 2)..][..groups * 8].as_mut_ptr();
    // SAFETY: both slices hold `groups` vectors, and a sum is one vector.
    unsafe {
        if visible < groups * 16 {
            for g in visible / 16..groups {
                let seen = (1u32 << visible.saturating_sub(g * 16).min(16)) - 1;
                let hidden = _mm512_set1_ps(f32::NEG_INFINITY);
                let kept = _mm512_mask_mov_ps(hidden, seen as u16, _mm512_loadu_ps(scores.add(g * 16)));
                _mm512_storeu_ps(scores.add(g * 16), kept);
            }
        }
        let mut lanes = _mm512_set1_ps(LEAST);
        for g in 0..groups {
            lanes = _mm512_max_ps(_mm512_loadu_ps(scores.add(g * 16)), lanes);
        }
        let before = step.largest[row];
        let largest = before.max(_mm512_reduce_max_ps(lanes));
        let scale = _mm512_cvtss_f32(power_of_two(_mm512_set1_ps(before - largest)));
        step.largest[row] = largest;
        step.tile.scales[row] = scale;
        let largest = _mm512_set1_ps(largest);
        let sums = step.sums[row].as_mut_ptr();
        let mut sum = _mm512_mul_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(scale));
        for g in 0..groups {
            let weight = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores.add(g * 16)), largest));
            sum = _mm512_add_ps(sum, weight);
            let narrow: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(weight));
            _mm256_storeu_si256(weights.add(g * 8).cast(), narrow);
        }
        _mm512_storeu_ps(sums, sum);
    }
}

/// `2ˣ`, exactly 1 at 0 and exactly 0 at minus infinity: a polynomial in what is above the next lower integer,
/// with a relative error of 3e-6, a thousandth of what narrowing the weights costs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
fn power_of_two(x: __m512) -> __m512 {
    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    let fraction = _mm512_reduce_ps::<DOWN>(x);
    let mut sum = _mm512_set1_ps(POWERS[3]);
    for p in [POWERS[2], POWERS[1], POWERS[0], 1.0] {
        sum = _mm512_fmadd_ps(sum, fraction, _mm512_set1_ps(p));
    }
    _mm512_scalef_ps(sum, x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn values(step: &mut Step<'_>) {
    let (rows, padded) = (step.rows(), group::padded(step.head_dim));
    let (columns, pairs) = (padded / 16, step.most_visible().div_ceil(2));
    // Accumulators are the product of both, up to 24.
    let (most_rows, most_columns) = match (rows, columns) {
        (1..=3, _) => (3, 8),
        (_, 5) => (4, 5),
        _ => (6, 4),
    };
    let parts = rows.div_ceil(most_rows);
    let mut row = 0;
    for part in 0..parts {
        let m = (rows - row).div_ceil(parts - part);
        let mut column = 0;
        while column < columns {
            let n = (columns - column).min(most_columns);
            // SAFETY: `check` has asserted rows and columns of `out`, and groups of whole values; weights of all
            // groups were written just now.
            unsafe {
                let part = Part {
                    weights: step.tile.weights.as_ptr().add(row * (BLOCK / 2)),
                    scales: step.tile.scales.as_ptr().add(row),
                    values: step.values,
                    ahead: step.ahead,
                    column: column * 16,
                    padded,
                    pairs,
                    fresh: step.fresh,
                    out: step.out.as_mut_ptr().add(row * padded + column * 16),
                };
                with_constants!(m, n, values_of(&part),
                    1: [1 2 3 4 5 6 7 8], 2: [1 2 3 4 5 6 7 8], 3: [1 2 3 4 5 6 7 8],
                    4: [1 2 3 4 5], 5: [1 2 3 4], 6: [1 2 3 4]);
            }
            column += n;
        }
        row += m;
    }
}

/// What [`values_of`] reads and writes.
struct Part<'a> {
    weights: *const u32,
    scales: *const f32,
    values: &'a [&'a [u32]],
    ahead: &'a [&'a [u32]],
    column: usize,
    padded: usize,
    pairs: usize,
    fresh: bool,
    out: *mut f32,
}

/// `M` rows by `N` vectors of the output.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn values_of<const M: usize, const N: usize>(part: &Part<'_>) {
    let &Part { weights, scales, values, ahead, column, padded, pairs, fresh, out } = part;
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    // SAFETY: the caller's promise: `M` rows and `N` vectors from `column` on of everything, `pairs` of keys.
    unsafe {
        if !fresh {
            for m in 0..M {
                let scale = _mm512_set1_ps(*scales.add(m));
                for n in 0..N {
                    sums[m][n] = _mm512_mul_ps(_mm512_loadu_ps(out.add(m * padded + n * 16)), scale);
                }
            }
        }
        let (mut left, mut weights) = (pairs, weights);
        for (g, values) in values.iter().enumerate() {
            // Where there is no next block, what is read here already.
            let mut needed_next = ahead.get(g).unwrap_or(values).as_ptr().wrapping_add(column);
            let mut values = values.as_ptr().add(column);
            for _ in 0..left.min(8) {
                let mut vectors = [zero(); N];
                for n in 0..N {
                    vectors[n] = load(values.add(n * 16));
                    fetch(needed_next.wrapping_add(n * 16));
                }
                needed_next = needed_next.wrapping_add(padded);
                for m in 0..M {
                    let weight = broadcast(weights.add(m * (BLOCK / 2)));
                    for n in 0..N {
                        sums[m][n] = _mm512_dpbf16_ps(sums[m][n], weight, vectors[n]);
                    }
                }
                values = values.add(padded);
                weights = weights.add(1);
            }
            left = left.saturating_sub(8);
        }
        for m in 0..M {
            for n in 0..N {
                _mm512_storeu_ps(out.add(m * padded + n * 16), sums[m][n]);
            }
        }
    }
}

/// Asks for a cache line that is needed soon: of the values while the keys are read, and of the next block's keys
/// while the values are. Decoding reads each line once, and would else wait for memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
// Compilers differ in whether the hint is unsafe.
#[allow(unused_unsafe)]
fn fetch(words: *const u32) {
    // SAFETY: a hint reads nothing and faults nowhere.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(words.cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn load(words: *const u32) -> __m512bh {
    // SAFETY: the caller's promise: sixteen words.
    unsafe { std::mem::transmute(_mm512_loadu_si512(words.cast())) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn broadcast(word: *const u32) -> __m512bh {
    // SAFETY: the caller's promise: one word.
    unsafe { std::mem::transmute(_mm512_set1_epi32(*word.cast())) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn zero() -> __m512bh {
    // SAFETY: both are 512 bits of anything.
    unsafe { std::mem::transmute(_mm512_setzero_si512()) }
}

/// A minimax fit of `2ˣ - 1` over [0, 1]: the coefficients of `x`, `x²` and so on.
const POWERS: [f32; 4] = [0.693_044_84, 0.241_280_21, 0.052_242_465, 0.013_426_688];
