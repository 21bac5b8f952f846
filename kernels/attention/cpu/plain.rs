//! The step in plain Rust, for processors without a bf16 dot product: pairs are widened in registers, and the
//! compiler vectorises the sixteen lanes.

use super::step::{BLOCK, QUERY_STRIDE, Step};
use crate::{
    kv_cache::group,
    processor::Isa,
    vectorised::{for_each_isa, multiply_add, power_of_two_below_one},
};

/// Rows whose accumulators fit the registers.
const ROWS: usize = 4;

pub(super) fn for_isa(isa: Isa) -> fn(&mut Step<'_>) {
    match isa {
        Isa::Portable => |step| run(Isa::Portable, step),
        Isa::Avx2 | Isa::Avx512 => |step| run(Isa::Avx2, step),
    }
}

for_each_isa!(fn run = whole(step: &mut Step<'_>));

#[inline(always)]
fn whole<const FUSED: bool>(step: &mut Step<'_>) {
    step.check();
    let rows = step.rows();
    let mut first = 0;
    while first < rows {
        match rows - first {
            1 => scores::<FUSED, 1>(step, first),
            2 | 3 => scores::<FUSED, 2>(step, first),
            _ => scores::<FUSED, ROWS>(step, first),
        }
        first += match rows - first {
            1 => 1,
            2 | 3 => 2,
            _ => ROWS,
        };
    }
    for row in 0..rows {
        softmax::<FUSED>(step, row);
    }
    let mut first = 0;
    while first < rows {
        match rows - first {
            1 => values::<FUSED, 1>(step, first),
            2 | 3 => values::<FUSED, 2>(step, first),
            _ => values::<FUSED, ROWS>(step, first),
        }
        first += match rows - first {
            1 => 1,
            2 | 3 => 2,
            _ => ROWS,
        };
    }
}

#[inline(always)]
fn halves(words: &[u32; 16]) -> ([f32; 16], [f32; 16]) {
    let (mut low, mut high) = ([0.0; 16], [0.0; 16]);
    for lane in 0..16 {
        (low[lane], high[lane]) = group::widen(words[lane]);
    }
    (low, high)
}

#[inline(always)]
fn add_pair<const FUSED: bool>(sums: &mut [f32; 16], pair: u32, low: &[f32; 16], high: &[f32; 16]) {
    let (first, second) = group::widen(pair);
    for lane in 0..16 {
        sums[lane] =
            multiply_add::<FUSED>(second, high[lane], multiply_add::<FUSED>(first, low[lane], sums[lane]));
    }
}

#[inline(always)]
fn scores<const FUSED: bool, const ROWS: usize>(step: &mut Step<'_>, first: usize) {
    let pairs = step.head_dim.div_ceil(2);
    for (g, keys) in step.keys.iter().enumerate() {
        let mut sums = [[0.0f32; 16]; ROWS];
        for (i, words) in keys.as_chunks::<16>().0.iter().take(pairs).enumerate() {
            let (low, high) = halves(words);
            for (row, sums) in sums.iter_mut().enumerate() {
                add_pair::<FUSED>(sums, step.queries[(first + row) * QUERY_STRIDE + i], &low, &high);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            step.tile.scores[(first + row) * BLOCK + g * 16..][..16].copy_from_slice(sums);
        }
    }
}

#[inline(always)]
fn softmax<const FUSED: bool>(step: &mut Step<'_>, row: usize) {
    let (visible, groups) = (step.visible[row], step.keys.len());
    let scores = &mut step.tile.scores[row * BLOCK..][..groups * 16];
    for score in scores.iter_mut().skip(visible) {
        *score = f32::NEG_INFINITY;
    }
    let (before, mut lanes) = (step.largest[row], [f32::MIN; 16]);
    for scores in scores.as_chunks::<16>().0 {
        for lane in 0..16 {
            lanes[lane] = if scores[lane] > lanes[lane] { scores[lane] } else { lanes[lane] };
        }
    }
    let largest = lanes.iter().fold(before, |a, &b| a.max(b));
    let scale = power_of_two_below_one::<FUSED>(before - largest);
    step.largest[row] = largest;
    step.tile.scales[row] = scale;
    let sums = &mut step.sums[row];
    sums.iter_mut().for_each(|sum| *sum *= scale);
    for scores in scores.as_chunks_mut::<16>().0 {
        for lane in 0..16 {
            scores[lane] = power_of_two_below_one::<FUSED>(scores[lane] - largest);
            sums[lane] += scores[lane];
        }
    }
    let weights = &mut step.tile.weights[row * (BLOCK / 2)..][..groups * 8];
    for (weight, scores) in weights.iter_mut().zip(scores.as_chunks::<2>().0) {
        *weight = group::pair(scores[0], scores[1]);
    }
}

#[inline(always)]
fn values<const FUSED: bool, const ROWS: usize>(step: &mut Step<'_>, first: usize) {
    let padded = group::padded(step.head_dim);
    let pairs = step.most_visible().div_ceil(2);
    for column in (0..padded).step_by(16) {
        let mut sums = [[0.0f32; 16]; ROWS];
        if !step.fresh {
            for (row, sums) in sums.iter_mut().enumerate() {
                let out = &step.out[(first + row) * padded + column..][..16];
                for lane in 0..16 {
                    sums[lane] = out[lane] * step.tile.scales[first + row];
                }
            }
        }
        for pair in 0..pairs {
            let words = &step.values[pair / 8][pair % 8 * padded + column..];
            let Some(words) = words.first_chunk::<16>() else { continue };
            let (low, high) = halves(words);
            for (row, sums) in sums.iter_mut().enumerate() {
                add_pair::<FUSED>(sums, step.tile.weights[(first + row) * (BLOCK / 2) + pair], &low, &high);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            step.out[(first + row) * padded + column..][..16].copy_from_slice(sums);
        }
    }
}
