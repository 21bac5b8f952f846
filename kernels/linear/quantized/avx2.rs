//! AVX2: codes are multiplied as nibbles. A nibble times an activation is at most 1905, so that the sums of a whole
//! group fit in 16 bits: nothing saturates, and sums are widened once for each group and row. An eight-bit code is two
//! nibbles, a four-bit code one, so that four bits cost half of the arithmetic and are never unpacked to memory.
//!
//! Per 32 codes and token: one multiplication and one addition (twice for eight bits). Two multiplications start in a
//! cycle, so a processor at 3.4 GHz multiplies four-bit weights at up to 435 billion operations a second and core,
//! eight-bit ones at half of that; its f32 arithmetic reaches 109.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{
    Scheme,
    finish::finish_any,
    format::{FIRST_SCALE, GROUP, HEADER, NARROW_BLOCK, PANEL, WIDE_BLOCK},
    stream::Stream,
    sums::{Sums, Tile},
};
use crate::opaque::opaque;

const INT8: u8 = 0;
const SYMMETRIC: u8 = 1;
const ASYMMETRIC: u8 = 2;

/// How far ahead of the arithmetic weights are asked for, in bytes.
const AHEAD: usize = 4096;
/// Rows to a vector.
const LANES: usize = 8;
/// Vectors of a panel's rows.
const VECTORS: usize = PANEL / LANES;
/// Bytes of the codes of four features of all rows.
const QUAD: usize = 4 * PANEL;

/// What a kernel reads and writes.
#[derive(Clone, Copy)]
struct Pointers {
    blocks: *const u8,
    groups: usize,
    codes: *const i8,
    code_stride: usize,
    scales: *const f32,
    starts: *const i32,
    scale_stride: usize,
    sums: *mut f32,
}

/// See [`super::sums::add`].
///
/// # Safety
/// The processor has the instructions, and lengths have been checked.
pub(super) unsafe fn add(tile: &mut Tile<'_>) {
    if !tile.resumes {
        let origins = &tile.activations.origins[tile.first_token..];
        tile.sums.iter_mut().zip(origins).for_each(|(sums, &origin)| *sums = Sums([origin; PANEL]));
    }
    let a = &tile.activations;
    let first = tile.first_token * a.groups + tile.first_group;
    let codes = &a.codes[tile.first_token * a.code_stride + tile.first_group * GROUP..];
    let p = Pointers {
        blocks: tile.blocks.as_ptr(),
        groups: tile.groups(),
        codes: codes.as_ptr(),
        code_stride: a.code_stride,
        scales: a.scales[first..].as_ptr(),
        starts: a.starts[first..].as_ptr(),
        scale_stride: a.groups,
        sums: tile.sums.as_mut_ptr().cast(),
    };
    // Vectors of rows share what is read of a token, as far as there are registers.
    // SAFETY: the caller's promise.
    unsafe {
        match (tile.scheme, tile.sums.len()) {
            (Scheme::Int8, 1) => kernel::<INT8, 1, 4>(p),
            (Scheme::Int8, 2) => kernel::<INT8, 2, 2>(p),
            (Scheme::Int8, 3) => kernel::<INT8, 3, 1>(p),
            (Scheme::Int8, 4) => kernel::<INT8, 4, 1>(p),
            (Scheme::Int4Symmetric, 1) => kernel::<SYMMETRIC, 1, 4>(p),
            (Scheme::Int4Symmetric, 2) => kernel::<SYMMETRIC, 2, 4>(p),
            (Scheme::Int4Symmetric, 3) => kernel::<SYMMETRIC, 3, 2>(p),
            (Scheme::Int4Symmetric, 4) => kernel::<SYMMETRIC, 4, 2>(p),
            (Scheme::Int4Asymmetric, 1) => kernel::<ASYMMETRIC, 1, 4>(p),
            (Scheme::Int4Asymmetric, 2) => kernel::<ASYMMETRIC, 2, 4>(p),
            (Scheme::Int4Asymmetric, 3) => kernel::<ASYMMETRIC, 3, 2>(p),
            (Scheme::Int4Asymmetric, 4) => kernel::<ASYMMETRIC, 4, 2>(p),
            _ => {}
        }
    }
}

/// `T` tokens, `E` vectors of rows at a time.
#[target_feature(enable = "avx2,fma")]
unsafe fn kernel<const SCHEME: u8, const T: usize, const E: usize>(p: Pointers) {
    let block_bytes = if SCHEME == INT8 { WIDE_BLOCK } else { NARROW_BLOCK };
    // One token's sums stay in registers.
    let mut kept = [_mm256_setzero_ps(); VECTORS];
    if T == 1 {
        // SAFETY: a token has `PANEL` sums.
        kept = unsafe { p.sums.cast::<[__m256; VECTORS]>().read() };
    }
    for group in 0..p.groups {
        // SAFETY: all reads lie within the blocks, the tokens' codes, scales and starts, all writes within the sums,
        // whose lengths the caller has checked.
        unsafe {
            let block = p.blocks.add(group * block_bytes);
            for line in 0..block_bytes / 64 {
                _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD + line * 64).cast());
            }
            let tokens: [Token; T] = std::array::from_fn(|t| {
                let place = t * p.scale_stride + group;
                Token::new::<SCHEME>(*p.scales.add(place), *p.starts.add(place))
            });
            let x = p.codes.add(group * GROUP);
            for first in (0..VECTORS).step_by(E) {
                let dots = dots::<SCHEME, T, E>(block.add(HEADER + first * 4 * LANES), x, p.code_stride);
                for (e, vector) in (first..first + E).enumerate() {
                    // The rows of the upper half of a panel have the upper halves of the same words.
                    let words = _mm256_loadu_si256(block.add(vector % 2 * 4 * LANES).cast());
                    let upper = vector >= VECTORS / 2;
                    let (scale, zero) = (scale::<SCHEME>(words, upper), zero(words, upper));
                    for (t, (dots, token)) in dots.iter().zip(&tokens).enumerate() {
                        let start = match SCHEME {
                            ASYMMETRIC => _mm256_madd_epi16(zero, token.start),
                            _ => token.start,
                        };
                        let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(dots[e], start));
                        let scale = _mm256_mul_ps(scale, token.scale);
                        if T == 1 {
                            kept[vector] = _mm256_fmadd_ps(dot, scale, kept[vector]);
                        } else {
                            let sums = p.sums.add(t * PANEL + vector * LANES);
                            _mm256_storeu_ps(sums, _mm256_fmadd_ps(dot, scale, _mm256_loadu_ps(sums)));
                        }
                    }
                }
            }
        }
    }
    if T == 1 {
        // SAFETY: as above.
        unsafe { p.sums.cast::<[__m256; VECTORS]>().write(kept) };
    }
}

/// See [`super::stream::run`].
///
/// # Safety
/// The processor has the instructions, lengths have been checked, and nobody else has these outputs.
pub(super) unsafe fn stream(stream: &Stream<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match stream.scheme {
            Scheme::Int8 => stream_panels::<INT8>(stream),
            Scheme::Int4Symmetric => stream_panels::<SYMMETRIC>(stream),
            Scheme::Int4Asymmetric => stream_panels::<ASYMMETRIC>(stream),
        }
    }
}

/// One token.
#[target_feature(enable = "avx2,fma")]
unsafe fn stream_panels<const SCHEME: u8>(stream: &Stream<'_>) {
    let a = &stream.activations;
    let mut p = Pointers {
        blocks: stream.blocks.as_ptr(),
        groups: a.groups,
        codes: a.codes.as_ptr(),
        code_stride: a.code_stride,
        scales: a.scales.as_ptr(),
        starts: a.starts.as_ptr(),
        scale_stride: a.groups,
        sums: std::ptr::null_mut(),
    };
    let panel_bytes = a.groups * stream.scheme.block();
    for panel in stream.panels.clone() {
        let mut finished = Sums([a.origins[0]; PANEL]);
        p.sums = finished.0.as_mut_ptr();
        // SAFETY: all reads lie within the panels' blocks and the token's codes, scales and starts, and all outputs are
        // this call's.
        unsafe {
            kernel::<SCHEME, 1, VECTORS>(p);
            let (bias, y) = (stream.bias.of(panel), stream.outputs(panel));
            finish_any(stream.finish, std::slice::from_ref(&finished), bias, &y);
        }
        p.blocks = p.blocks.wrapping_add(panel_bytes);
    }
}

/// What a token has for a group, in all lanes.
struct Token {
    scale: __m256,
    /// Where the sum of the codes' products begins, which are eight times those of nibbles; of asymmetric codes for each
    /// step of their zero points.
    start: __m256i,
}

impl Token {
    /// `start` is -128 times the sum of the token's codes, which fits in 16 bits.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn new<const SCHEME: u8>(scale: f32, start: i32) -> Self {
        let start = match SCHEME {
            INT8 => start,
            SYMMETRIC => start >> 1,
            _ => start >> 7,
        };
        Self { scale: _mm256_set1_ps(scale), start: _mm256_set1_epi32(start) }
    }
}

/// The products of one group, summed over its features, of the stored codes of `E` vectors of rows and `T` tokens; eight
/// times that of nibbles.
///
/// # Safety
/// `codes` and `x` point to a group's, and there are `T` tokens.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn dots<const SCHEME: u8, const T: usize, const E: usize>(
    codes: *const u8,
    x: *const i8,
    code_stride: usize,
) -> [[__m256i; E]; T] {
    let mask = _mm256_set1_epi8(15);
    let mut low_dots = [[_mm256_setzero_si256(); E]; T];
    let mut high_dots = [[_mm256_setzero_si256(); E]; T];
    // SAFETY: the caller's promise: four codes of a token at `x`.
    let four = |x: *const i8| unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) };
    // SAFETY: the caller's promise: 32 bytes of codes.
    let nibbles = |codes: *const u8| unsafe {
        let w = _mm256_loadu_si256(codes.cast());
        (_mm256_and_si256(w, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask))
    };
    let (mut codes, mut x) = (codes, x);
    for _ in 0..if SCHEME == INT8 { GROUP / 4 } else { GROUP / 8 } {
        let mut shared = [(mask, mask); E];
        if T > 1 {
            shared = std::array::from_fn(|e| nibbles(codes.wrapping_add(e * 4 * LANES)));
        }
        for t in 0..T {
            let x_low = four(x.wrapping_add(t * code_stride));
            // The upper nibble belongs to the same feature, or to one of the second half of the group.
            let x_high =
                if SCHEME == INT8 { x_low } else { four(x.wrapping_add(t * code_stride + GROUP / 2)) };
            for e in 0..E {
                let (low, high) = if T > 1 { shared[e] } else { nibbles(codes.wrapping_add(e * 4 * LANES)) };
                let sum = _mm256_add_epi16(low_dots[t][e], _mm256_maddubs_epi16(low, x_low));
                let products = _mm256_maddubs_epi16(high, x_high);
                if SCHEME == INT8 {
                    low_dots[t][e] = pinned(sum);
                    high_dots[t][e] = pinned(_mm256_add_epi16(high_dots[t][e], products));
                } else {
                    low_dots[t][e] = pinned(_mm256_add_epi16(sum, products));
                }
                if T == 1 {
                    codes = opaque(codes);
                }
            }
            x = opaque(x);
        }
        codes = opaque(codes.wrapping_add(QUAD));
        x = opaque(x.wrapping_add(4));
    }
    // Neighbours of 16 bits belong to one row.
    let step = _mm256_set1_epi16(if SCHEME == INT8 { 1 } else { 8 });
    for (low_dots, high_dots) in low_dots.iter_mut().zip(&high_dots) {
        for (low, &high) in low_dots.iter_mut().zip(high_dots) {
            *low = _mm256_madd_epi16(*low, step);
            if SCHEME == INT8 {
                *low = _mm256_add_epi32(*low, _mm256_madd_epi16(high, _mm256_set1_epi16(16)));
            }
        }
    }
    low_dots
}

/// The same value, computed here and nowhere later: the compiler would otherwise read ahead what more registers than
/// there are could hold, and spill it.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pinned(value: __m256i) -> __m256i {
    let mut value = value;
    // SAFETY: no instruction is executed, and the value comes out as it went in.
    unsafe {
        std::arch::asm!("/* {0} */", inout(ymm_reg) value, options(nostack, preserves_flags));
    }
    value
}

/// The scales in the lower or upper halves of a header's words.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scale<const SCHEME: u8>(words: __m256i, upper: bool) -> __m256 {
    if SCHEME == ASYMMETRIC {
        let moved = if upper { _mm256_srli_epi32::<4>(words) } else { _mm256_slli_epi32::<12>(words) };
        let nine_bits = _mm256_and_si256(moved, _mm256_set1_epi32(0x1ff << 19));
        let first = _mm256_set1_epi32((FIRST_SCALE << 19) as i32);
        return _mm256_castsi256_ps(_mm256_add_epi32(nine_bits, first));
    }
    let all = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    _mm256_castsi256_ps(if upper { _mm256_and_si256(words, all) } else { _mm256_slli_epi32::<16>(words) })
}

/// The zero points in the lower or upper halves of an asymmetric header's words, as pairs of 16 bits of which the other
/// is zero.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn zero(words: __m256i, upper: bool) -> __m256i {
    let lower = if upper { _mm256_srli_epi32::<16>(words) } else { words };
    _mm256_and_si256(lower, _mm256_set1_epi32(0x7f))
}
