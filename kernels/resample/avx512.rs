//! AVX-512: sixteen words at a time, four bytes to a word, three dot products (one for each digit of the weights) to a
//! group of four.

use std::arch::x86_64::*;

use super::{
    CHANNELS, HALF, Narrowed, PRECISION_BITS, Square,
    plan::{GROUP, Plan},
};

/// Digits of a weight.
const DIGITS: usize = 3;
/// Words of a vector.
const WORDS: usize = 16;
/// Pixels of a vector while narrowing: each has a quarter with a word for each channel.
const PIXELS: usize = 4;

/// Narrows four rows into `words: (3, plan.stride)`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn narrow(plan: &Plan<'_>, rows: [&[u8]; GROUP], words: &mut [u32]) {
    assert!(plan.block == PIXELS * 4 && plan.digits == DIGITS && words.len() >= CHANNELS * plan.stride);
    assert!(rows.iter().all(|row| row.len() >= plan.reach));
    // Twelve bytes of four pixels: four of each channel, and a word of zeros.
    #[rustfmt::skip]
    let by_channel = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
    // Each pixel's word for all of its quarter.
    let to_quarters = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    // From four channels of four rows each to four rows of each channel.
    #[rustfmt::skip]
    let to_words = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));

    let zero = [_mm512_set1_epi32(HALF), _mm512_setzero_si512(), _mm512_setzero_si512()];
    let parts = plan.starts.as_chunks::<PIXELS>().0;
    let tables = plan.across.chunks_exact(plan.groups_across * DIGITS * PIXELS);
    let mut lanes = [_mm512_setzero_si512(); 4];
    for (index, (starts, table)) in parts.iter().zip(tables).enumerate() {
        // Rows are spelled out, so that all sums stay in registers.
        let (mut a, mut b, mut c, mut d) = (zero, zero, zero, zero);
        for (group, weights) in table.as_chunks::<{ DIGITS * PIXELS }>().0.iter().enumerate() {
            let offsets = starts.map(|start| start + group * GROUP * CHANNELS);
            let digits = [
                _mm512_permutexvar_epi32(to_quarters, quarter(&weights[..PIXELS])),
                _mm512_permutexvar_epi32(to_quarters, quarter(&weights[PIXELS..])),
                _mm512_permutexvar_epi32(to_quarters, quarter(&weights[2 * PIXELS..])),
            ];
            // SAFETY: a start is three bytes for each column before the window, and `reach`, which was checked, counts
            // all groups of any window and the read that is longer than a group.
            let pixels = unsafe { rows.map(|row| read(row, offsets)) };
            a = dot(a, _mm512_shuffle_epi8(pixels[0], by_channel), digits);
            b = dot(b, _mm512_shuffle_epi8(pixels[1], by_channel), digits);
            c = dot(c, _mm512_shuffle_epi8(pixels[2], by_channel), digits);
            d = dot(d, _mm512_shuffle_epi8(pixels[3], by_channel), digits);
        }
        // Packing saturates, which clips.
        let upper = _mm512_packs_epi32(level(a), level(b));
        let packed = _mm512_packus_epi16(upper, _mm512_packs_epi32(level(c), level(d)));
        lanes[index % 4] = _mm512_shuffle_epi8(packed, to_words);

        if index % 4 == 3 {
            // Transposes quarters: vector `j` has pixels `j, 4 + j, 8 + j, 12 + j`.
            let (ab_low, ab_high) =
                (_mm512_unpacklo_epi32(lanes[0], lanes[1]), _mm512_unpackhi_epi32(lanes[0], lanes[1]));
            let (cd_low, cd_high) =
                (_mm512_unpacklo_epi32(lanes[2], lanes[3]), _mm512_unpackhi_epi32(lanes[2], lanes[3]));
            let channels = [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
            ];
            for (channel, values) in channels.into_iter().enumerate() {
                let target = &mut words[channel * plan.stride + index / 4 * WORDS..][..WORDS];
                // SAFETY: `target` has sixteen words.
                unsafe { _mm512_storeu_si512(target.as_mut_ptr().cast(), values) };
            }
        }
    }
}

/// The values of one square of patches.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn square(plan: &Plan<'_>, narrowed: &Narrowed<'_>, place: Square, values: &mut [f32]) {
    let frame = plan.frame;
    let (cut, scaling) = (frame.cut, frame.scaling);
    assert!(plan.digits == DIGITS && values.len() == cut.square_values());
    let area = cut.patch * cut.patch;
    let scale = _mm512_set1_ps(scaling.scale);
    let (mean, std) =
        (scaling.mean.map(|mean| _mm512_set1_ps(mean)), scaling.std.map(|std| _mm512_set1_ps(std)));
    let zero = [_mm512_set1_epi32(HALF), _mm512_setzero_si512(), _mm512_setzero_si512()];
    let (black, white) = (_mm512_setzero_si512(), _mm512_set1_epi32(255));
    for y in 0..cut.side() {
        let row = place.row * cut.side() + y;
        let weights = plan.down(row);
        let first = plan.groups_down[row].start - narrowed.groups.start;
        let groups = &narrowed.words[first * CHANNELS * plan.stride..];
        assert!(groups.len() >= weights.len() / DIGITS * CHANNELS * plan.stride);
        for mx in 0..cut.merge {
            let patch =
                &mut values[(y / cut.patch * cut.merge + mx) * cut.patch_values()..][..cut.patch_values()];
            let left = place.column * cut.side() + mx * cut.patch;
            for x in (0..cut.patch).step_by(WORDS) {
                let (mut red, mut green, mut blue) = (zero, zero, zero);
                for (group, digits) in weights.as_chunks::<DIGITS>().0.iter().enumerate() {
                    let digits = digits.map(|digit| _mm512_set1_epi32(digit));
                    let start = group * CHANNELS * plan.stride + left + x;
                    // SAFETY: `left + x` is a column, behind which a stride has sixteen words at least, and there are
                    // as many groups as was checked above.
                    let words = unsafe {
                        let words = groups.as_ptr().add(start);
                        [0, plan.stride, 2 * plan.stride]
                            .map(|place| _mm512_loadu_si512(words.add(place).cast()))
                    };
                    red = dot(red, words[0], digits);
                    green = dot(green, words[1], digits);
                    blue = dot(blue, words[2], digits);
                }
                let mask = if cut.patch - x < WORDS { (1 << (cut.patch - x)) - 1 } else { !0 };
                for (channel, sums) in [red, green, blue].into_iter().enumerate() {
                    let level = _mm512_min_epi32(_mm512_max_epi32(level(sums), black), white);
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(level), scale);
                    let value = _mm512_div_ps(_mm512_sub_ps(scaled, mean[channel]), std[channel]);
                    for time in frame.times.clone() {
                        let start = (channel * cut.temporal + time) * area + y % cut.patch * cut.patch + x;
                        debug_assert!(start + (cut.patch - x).min(WORDS) <= patch.len());
                        // SAFETY: the mask ends with the line, which lies within the patch: channel, time and row
                        // are below the factors of `patch_values`.
                        unsafe { _mm512_mask_storeu_ps(patch.as_mut_ptr().add(start), mask, value) };
                    }
                }
            }
        }
    }
}

/// Four words, with anything behind them.
#[target_feature(enable = "avx512f")]
fn quarter(words: &[i32]) -> __m512i {
    let words = &words[..4];
    // SAFETY: there are four words.
    _mm512_castsi128_si512(unsafe { _mm_loadu_si128(words.as_ptr().cast()) })
}

/// Sixteen bytes of a row for each of four pixels.
///
/// # Safety
/// All of them lie within the row.
#[target_feature(enable = "avx512f")]
unsafe fn read(row: &[u8], offsets: [usize; PIXELS]) -> __m512i {
    // SAFETY: the caller promises it.
    let [a, b, c, d] = offsets.map(|offset| unsafe { _mm_loadu_si128(row.as_ptr().add(offset).cast()) });
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Adds the products of four bytes in each word with three digits of their weights.
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(
    [low, middle, high]: [__m512i; DIGITS],
    bytes: __m512i,
    digits: [__m512i; DIGITS],
) -> [__m512i; DIGITS] {
    [
        _mm512_dpbusd_epi32(low, bytes, digits[0]),
        _mm512_dpbusd_epi32(middle, bytes, digits[1]),
        _mm512_dpbusd_epi32(high, bytes, digits[2]),
    ]
}

/// The level, not yet clipped, that the sums of three digits stand for.
#[target_feature(enable = "avx512f")]
fn level([low, middle, high]: [__m512i; DIGITS]) -> __m512i {
    let upper = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), middle);
    _mm512_srai_epi32::<PRECISION_BITS>(_mm512_add_epi32(_mm512_slli_epi32::<8>(upper), low))
}
