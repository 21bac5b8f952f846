//! Plain Rust in loops that compilers vectorise.

use super::{
    CHANNELS, HALF, Narrowed, PRECISION_BITS, Square,
    plan::{GROUP, Plan},
};

/// Pixels of a line that are summed together.
const LANES: usize = 8;

/// Narrows four rows into `words: (3, plan.stride)`.
pub(super) fn narrow(plan: &Plan<'_>, rows: [&[u8]; GROUP], words: &mut [u32]) {
    let columns = plan.frame.across.windows.len();
    let weights = plan.across.chunks_exact(plan.groups_across * plan.digits);
    for (column, (&start, weights)) in plan.starts.iter().zip(weights).enumerate().take(columns) {
        let mut packed = [0; CHANNELS];
        for (i, row) in rows.iter().enumerate() {
            let mut sums = [HALF; CHANNELS];
            for (pixel, &weight) in row[start..].as_chunks::<CHANNELS>().0.iter().zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (packed, sum) in packed.iter_mut().zip(sums) {
                *packed |= (clip(sum) as u32) << (8 * i);
            }
        }
        for (channel, packed) in packed.into_iter().enumerate() {
            words[channel * plan.stride + column] = packed;
        }
    }
}

/// The values of one square of patches.
pub(super) fn square(plan: &Plan<'_>, narrowed: &Narrowed<'_>, place: Square, values: &mut [f32]) {
    let frame = plan.frame;
    let (cut, scaling) = (frame.cut, frame.scaling);
    let area = cut.patch * cut.patch;
    for y in 0..cut.side() {
        let row = place.row * cut.side() + y;
        let (weights, first) = (plan.down(row), plan.groups_down[row].start - narrowed.groups.start);
        for mx in 0..cut.merge {
            let patch = &mut values[(y / cut.patch * cut.merge + mx) * cut.patch_values()..];
            let left = place.column * cut.side() + mx * cut.patch;
            for channel in 0..CHANNELS {
                let line = (channel * cut.temporal + frame.times.start) * area + y % cut.patch * cut.patch;
                for x in (0..cut.patch).step_by(LANES) {
                    let mut sums = [HALF; LANES];
                    for (group, &[a, b, c, d]) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
                        let place = ((first + group) * CHANNELS + channel) * plan.stride + left + x;
                        for (sum, &word) in sums.iter_mut().zip(&narrowed.words[place..place + LANES]) {
                            let byte = |i: u32| (word >> (8 * i) & 0xff) as i32;
                            *sum += byte(0) * a + byte(1) * b + byte(2) * c + byte(3) * d;
                        }
                    }
                    let (mean, std) = (scaling.mean[channel], scaling.std[channel]);
                    let end = cut.patch.min(x + LANES);
                    for (value, sum) in patch[line..][x..end].iter_mut().zip(sums) {
                        *value = (clip(sum) as f32 * scaling.scale - mean) / std;
                    }
                }
                for time in 1..frame.times.len() {
                    patch.copy_within(line..line + cut.patch, line + time * area);
                }
            }
        }
    }
}

/// The level that a fixed-point sum stands for.
fn clip(sum: i32) -> i32 {
    (sum >> PRECISION_BITS).clamp(0, 255)
}
