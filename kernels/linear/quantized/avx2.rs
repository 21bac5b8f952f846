//! AVX2: codes are widened to 16 bits, so that no sum of products saturates. Eight rows of the panel and up to four
//! tokens at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{
    Scheme,
    format::{self, GROUP, HEADER, NARROW_BLOCK, PANEL, WIDE_BLOCK},
    portable::word,
    sums::Tile,
};

/// See [`super::sums::add`]. Blocks are eight-bit ones.
///
/// # Safety
/// The processor has the instructions, and lengths have been checked.
pub(super) unsafe fn add(tile: &mut Tile<'_>) {
    assert_eq!(tile.scheme, Scheme::Int8, "four bits are unpacked before");
    // SAFETY: the caller's promise.
    unsafe {
        match tile.sums.len() {
            1 => kernel::<1>(tile),
            2 => kernel::<2>(tile),
            3 => kernel::<3>(tile),
            4 => kernel::<4>(tile),
            _ => {}
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn kernel<const T: usize>(tile: &mut Tile<'_>) {
    let a = &tile.activations;
    for (i, block) in tile.blocks.chunks_exact(WIDE_BLOCK).enumerate() {
        let group = tile.first_group + i;
        for eight in 0..PANEL / 8 {
            let mut dots = [[_mm256_setzero_si256(); 2]; T];
            for quad in 0..GROUP / 4 {
                let w = &block[HEADER + (quad * PANEL + eight * 8) * 4..][..32];
                // SAFETY: 32 bytes, as the slice says.
                let w = unsafe { _mm256_loadu_si256(w.as_ptr().cast()) };
                let w = [
                    _mm256_cvtepu8_epi16(_mm256_castsi256_si128(w)),
                    _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(w)),
                ];
                for (t, dots) in dots.iter_mut().enumerate() {
                    let at = (tile.first_token + t) * a.code_stride + group * GROUP + quad * 4;
                    let x = &a.codes[at..at + 4];
                    let x = i32::from_ne_bytes([x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8]);
                    let x = _mm256_cvtepi8_epi16(_mm_set1_epi32(x));
                    for half in 0..2 {
                        dots[half] = _mm256_add_epi32(dots[half], _mm256_madd_epi16(w[half], x));
                    }
                }
            }
            let scales: [f32; 8] =
                std::array::from_fn(|row| format::entry(Scheme::Int8, word(block, eight * 8 + row)).scale);
            // SAFETY: eight numbers.
            let scales = unsafe { _mm256_loadu_ps(scales.as_ptr()) };
            for (t, dots) in dots.iter().enumerate() {
                let place = (tile.first_token + t) * a.groups + group;
                // Pairs of lanes belong to rows 0 1 4 5 2 3 6 7.
                let dot = _mm256_hadd_epi32(dots[0], dots[1]);
                let dot = _mm256_permute4x64_epi64::<0b11_01_10_00>(dot);
                let dot = _mm256_add_epi32(dot, _mm256_set1_epi32(a.starts[place]));
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(a.scales[place]));
                let sums = &mut tile.sums[t].0[eight * 8..eight * 8 + 8];
                // SAFETY: eight numbers, as the slice says.
                unsafe {
                    let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, _mm256_loadu_ps(sums.as_ptr()));
                    _mm256_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }
        }
    }
}

/// See [`super::sums::unpack`].
///
/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn unpack(scheme: Scheme, narrow: &[u8], wide: &mut [u8]) {
    const HALF: usize = PANEL * GROUP / 2;
    for (narrow, wide) in narrow.chunks_exact(NARROW_BLOCK).zip(wide.chunks_exact_mut(WIDE_BLOCK)) {
        let mut bases = [0u8; 4 * PANEL];
        for row in 0..PANEL {
            let entry = format::entry(scheme, word(narrow, row));
            let scale = (entry.scale.to_bits() >> 16) as u16;
            wide[2 * format::header_word(row)..][..2].copy_from_slice(&scale.to_le_bytes());
            bases[4 * row..4 * row + 4].fill(entry.base);
        }
        let (low, high) = wide[HEADER..].split_at_mut(HALF);
        for (i, &byte) in narrow[HEADER..].iter().enumerate() {
            let base = bases[i % (4 * PANEL)];
            low[i] = (byte << 3 & 0x78) + base;
            high[i] = (byte >> 1 & 0x78) + base;
        }
    }
}
