//! AVX2: eight words at a time, four bytes to a word. Weights are split into twelve low bits and the rest, and the
//! bytes of a word into its even and odd ones, so that pairs of sixteen bits are multiplied and added exactly.

use std::arch::x86_64::*;

use super::{
    CHANNELS, HALF, Narrowed, PRECISION_BITS, Square,
    plan::{GROUP, Plan},
};

/// Words of weights for a group: low even, low odd, high even, high odd.
const DIGITS: usize = 4;
/// Words of a vector.
const WORDS: usize = 8;
/// Pixels of a vector while narrowing: each has a half with a word for each channel.
const PIXELS: usize = 2;

/// Narrows four rows into `words: (3, plan.stride)`.
#[target_feature(enable = "avx2,fma")]
pub(super) fn narrow(plan: &Plan<'_>, rows: [&[u8]; GROUP], words: &mut [u32]) {
    assert!(plan.block == PIXELS * 4 && plan.digits == DIGITS && words.len() >= CHANNELS * plan.stride);
    assert!(rows.iter().all(|row| row.len() >= plan.reach));
    // Twelve bytes of four pixels: four of each channel, and a word of zeros.
    #[rustfmt::skip]
    let by_channel = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
    // Each pixel's word for all of its half.
    let to_halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    // From four channels of four rows each to four rows of each channel.
    #[rustfmt::skip]
    let to_words = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));

    let zero = [_mm256_set1_epi32(HALF), _mm256_setzero_si256()];
    let parts = plan.starts.as_chunks::<PIXELS>().0;
    let tables = plan.across.chunks_exact(plan.groups_across * DIGITS * PIXELS);
    let mut lanes = [_mm256_setzero_si256(); 4];
    for (index, (starts, table)) in parts.iter().zip(tables).enumerate() {
        // Rows are spelled out, so that all sums stay in registers.
        let (mut a, mut b, mut c, mut d) = (zero, zero, zero, zero);
        for (group, weights) in table.as_chunks::<{ DIGITS * PIXELS }>().0.iter().enumerate() {
            let offsets = starts.map(|start| start + group * GROUP * CHANNELS);
            let digits = [
                _mm256_permutevar8x32_epi32(half(&weights[..PIXELS]), to_halves),
                _mm256_permutevar8x32_epi32(half(&weights[PIXELS..]), to_halves),
                _mm256_permutevar8x32_epi32(half(&weights[2 * PIXELS..]), to_halves),
                _mm256_permutevar8x32_epi32(half(&weights[3 * PIXELS..]), to_halves),
            ];
            // SAFETY: a start is three bytes for each column before the window, and `reach`, which was checked, counts
            // all groups of any window and the read that is longer than a group.
            let pixels = unsafe { rows.map(|row| read(row, offsets)) };
            a = add(a, _mm256_shuffle_epi8(pixels[0], by_channel), digits);
            b = add(b, _mm256_shuffle_epi8(pixels[1], by_channel), digits);
            c = add(c, _mm256_shuffle_epi8(pixels[2], by_channel), digits);
            d = add(d, _mm256_shuffle_epi8(pixels[3], by_channel), digits);
        }
        // Packing saturates, which clips.
        let upper = _mm256_packs_epi32(level(a), level(b));
        let packed = _mm256_packus_epi16(upper, _mm256_packs_epi32(level(c), level(d)));
        lanes[index % 4] = _mm256_shuffle_epi8(packed, to_words);

        if index % 4 == 3 {
            // Transposes halves: vector `j` has pixels `j` and `4 + j`.
            let (ab_low, ab_high) =
                (_mm256_unpacklo_epi32(lanes[0], lanes[1]), _mm256_unpackhi_epi32(lanes[0], lanes[1]));
            let (cd_low, cd_high) =
                (_mm256_unpacklo_epi32(lanes[2], lanes[3]), _mm256_unpackhi_epi32(lanes[2], lanes[3]));
            let channels = [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
            ];
            for (channel, values) in channels.into_iter().enumerate() {
                let target = &mut words[channel * plan.stride + index / 4 * WORDS..][..WORDS];
                // SAFETY: `target` has eight words.
                unsafe { _mm256_storeu_si256(target.as_mut_ptr().cast(), values) };
            }
        }
    }
}

/// The values of one square of patches.
#[target_feature(enable = "avx2,fma")]
pub(super) fn square(plan: &Plan<'_>, narrowed: &Narrowed<'_>, place: Square, values: &mut [f32]) {
    let frame = plan.frame;
    let (cut, scaling) = (frame.cut, frame.scaling);
    assert!(plan.digits == DIGITS && values.len() == cut.square_values());
    let area = cut.patch * cut.patch;
    let scale = _mm256_set1_ps(scaling.scale);
    let (mean, std) =
        (scaling.mean.map(|mean| _mm256_set1_ps(mean)), scaling.std.map(|std| _mm256_set1_ps(std)));
    let zero = [_mm256_set1_epi32(HALF), _mm256_setzero_si256()];
    let (black, white) = (_mm256_setzero_si256(), _mm256_set1_epi32(255));
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
            for start in (0..cut.patch).step_by(WORDS) {
                // The last vector of a line ends with it, and computes some values once more.
                let x = start.min(cut.patch.saturating_sub(WORDS));
                let (mut red, mut green, mut blue) = (zero, zero, zero);
                for (group, digits) in weights.as_chunks::<DIGITS>().0.iter().enumerate() {
                    let digits = digits.map(|digit| _mm256_set1_epi32(digit));
                    let start = group * CHANNELS * plan.stride + left + x;
                    // SAFETY: `left + x` is a column, behind which a stride has eight words at least, and there are as
                    // many groups as was checked above.
                    let words = unsafe {
                        let words = groups.as_ptr().add(start);
                        [0, plan.stride, 2 * plan.stride]
                            .map(|place| _mm256_loadu_si256(words.add(place).cast()))
                    };
                    red = add(red, words[0], digits);
                    green = add(green, words[1], digits);
                    blue = add(blue, words[2], digits);
                }
                for (channel, sums) in [red, green, blue].into_iter().enumerate() {
                    let level = _mm256_min_epi32(_mm256_max_epi32(level(sums), black), white);
                    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(level), scale);
                    let value = _mm256_div_ps(_mm256_sub_ps(scaled, mean[channel]), std[channel]);
                    for time in frame.times.clone() {
                        let line = (channel * cut.temporal + time) * area + y % cut.patch * cut.patch;
                        let line = &mut patch[line..][..cut.patch];
                        if let Some(target) = line.get_mut(x..x + WORDS) {
                            // SAFETY: `target` has eight values.
                            unsafe { _mm256_storeu_ps(target.as_mut_ptr(), value) };
                        } else {
                            let mut all = [0.0; WORDS];
                            // SAFETY: `all` has eight values.
                            unsafe { _mm256_storeu_ps(all.as_mut_ptr(), value) };
                            line.iter_mut().zip(all).for_each(|(target, value)| *target = value);
                        }
                    }
                }
            }
        }
    }
}

/// Two words, with anything behind them.
#[target_feature(enable = "avx2")]
fn half(words: &[i32]) -> __m256i {
    let words = &words[..2];
    // SAFETY: there are two words.
    _mm256_castsi128_si256(unsafe { _mm_loadl_epi64(words.as_ptr().cast()) })
}

/// Sixteen bytes of a row for each of two pixels.
///
/// # Safety
/// All of them lie within the row.
#[target_feature(enable = "avx2")]
unsafe fn read(row: &[u8], offsets: [usize; PIXELS]) -> __m256i {
    // SAFETY: the caller promises it.
    let [a, b] = offsets.map(|offset| unsafe { _mm_loadu_si128(row.as_ptr().add(offset).cast()) });
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b)
}

/// Adds a group's products with the low and the high parts of its weights.
#[target_feature(enable = "avx2")]
fn add([low, high]: [__m256i; 2], bytes: __m256i, digits: [__m256i; DIGITS]) -> [__m256i; 2] {
    let even = _mm256_and_si256(bytes, _mm256_set1_epi16(0xff));
    let odd = _mm256_srli_epi16::<8>(bytes);
    let products =
        |first, second| _mm256_add_epi32(_mm256_madd_epi16(even, first), _mm256_madd_epi16(odd, second));
    let [low_even, low_odd, high_even, high_odd] = digits;
    [
        _mm256_add_epi32(low, products(low_even, low_odd)),
        _mm256_add_epi32(high, products(high_even, high_odd)),
    ]
}

/// The level, not yet clipped, that the sums of low and high parts stand for.
#[target_feature(enable = "avx2")]
fn level([low, high]: [__m256i; 2]) -> __m256i {
    _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(_mm256_add_epi32(_mm256_slli_epi32::<12>(high), low))
}
