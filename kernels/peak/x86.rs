//! The limits as AVX-512 and AVX2 reach them: loads into registers, and chains of multiply-adds that never touch
//! memory, as many side by side as hide the instruction's latency.

#![allow(unsafe_code)]

use std::{arch::x86_64::*, hint::black_box};

use super::portable;

/// Chains side by side: two instructions a cycle with a latency of up to six need twelve, and the registers hold more.
const CHAINS: usize = 16;
/// AVX2 has sixteen registers, of which two hold the factors.
const CHAINS_AVX2: usize = 12;

pub(super) fn sum_avx512(bytes: &[u8]) -> u64 {
    #[target_feature(enable = "avx512f")]
    fn sum(bytes: &[u8]) -> u64 {
        let (pieces, rest) = bytes.as_chunks::<512>();
        let mut sums = [_mm512_setzero_si512(); 8];
        for piece in pieces {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the eight loads of 64 bytes lie within the piece of 512.
                let words = unsafe { _mm512_loadu_si512(piece.as_ptr().add(64 * i).cast()) };
                *sum = _mm512_add_epi64(*sum, words);
            }
        }
        let total = sums.into_iter().fold(_mm512_setzero_si512(), |total, sum| _mm512_add_epi64(total, sum));
        (_mm512_reduce_add_epi64(total) as u64).wrapping_add(portable::sum(rest))
    }
    assert!(is_x86_feature_detected!("avx512f"));
    // SAFETY: the feature was just checked.
    unsafe { sum(bytes) }
}

pub(super) fn sum_avx2(bytes: &[u8]) -> u64 {
    #[target_feature(enable = "avx2")]
    fn sum(bytes: &[u8]) -> u64 {
        let (pieces, rest) = bytes.as_chunks::<256>();
        let mut sums = [_mm256_setzero_si256(); 8];
        for piece in pieces {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the eight loads of 32 bytes lie within the piece of 256.
                let words = unsafe { _mm256_loadu_si256(piece.as_ptr().add(32 * i).cast()) };
                *sum = _mm256_add_epi64(*sum, words);
            }
        }
        let total = sums.into_iter().fold(_mm256_setzero_si256(), |total, sum| _mm256_add_epi64(total, sum));
        let mut words = [0u64; 4];
        // SAFETY: the four words are 32 bytes.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), total) };
        words.into_iter().fold(portable::sum(rest), u64::wrapping_add)
    }
    assert!(is_x86_feature_detected!("avx2"));
    // SAFETY: the feature was just checked.
    unsafe { sum(bytes) }
}

pub(super) fn f32_avx512(steps: usize) -> f64 {
    #[target_feature(enable = "avx512f")]
    fn run(steps: usize) {
        let (a, b) = (black_box(_mm512_set1_ps(0.999)), black_box(_mm512_set1_ps(0.001)));
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }
    assert!(is_x86_feature_detected!("avx512f"));
    // SAFETY: the feature was just checked.
    unsafe { run(steps) };
    2.0 * 16.0 * (CHAINS * steps) as f64
}

pub(super) fn bf16_avx512(steps: usize) -> f64 {
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn run(steps: usize) {
        let small = _mm512_set1_ps(0.001);
        let (a, b) =
            (black_box(_mm512_cvtne2ps_pbh(small, small)), black_box(_mm512_cvtne2ps_pbh(small, small)));
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }
    assert!(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"));
    // SAFETY: the features were just checked.
    unsafe { run(steps) };
    2.0 * 32.0 * (CHAINS * steps) as f64
}

pub(super) fn int8_avx512(steps: usize) -> f64 {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn run(steps: usize) {
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(-5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }
    assert!(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"));
    // SAFETY: the features were just checked.
    unsafe { run(steps) };
    2.0 * 64.0 * (CHAINS * steps) as f64
}

pub(super) fn f32_avx2(steps: usize) -> f64 {
    #[target_feature(enable = "avx2,fma")]
    fn run(steps: usize) {
        let (a, b) = (black_box(_mm256_set1_ps(0.999)), black_box(_mm256_set1_ps(0.001)));
        let mut sums = [_mm256_setzero_ps(); CHAINS_AVX2];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }
    assert!(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
    // SAFETY: the features were just checked.
    unsafe { run(steps) };
    2.0 * 8.0 * (CHAINS_AVX2 * steps) as f64
}

/// Three instructions stand for the one that AVX2 lacks: products of pairs, sums of pairs, and the addition.
pub(super) fn int8_avx2(steps: usize) -> f64 {
    #[target_feature(enable = "avx2")]
    fn run(steps: usize) {
        let ones = _mm256_set1_epi16(1);
        let b = black_box(_mm256_set1_epi8(-5));
        let mut sums = [_mm256_setzero_si256(); CHAINS_AVX2];
        for _ in 0..steps {
            for sum in &mut sums {
                // The factor depends on the sum, or the products would be computed once before the loop.
                let pairs = _mm256_maddubs_epi16(*sum, b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
    }
    assert!(is_x86_feature_detected!("avx2"));
    // SAFETY: the feature was just checked.
    unsafe { run(steps) };
    2.0 * 32.0 * (CHAINS_AVX2 * steps) as f64
}
