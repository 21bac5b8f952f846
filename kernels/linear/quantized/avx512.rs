//! AVX-512 with VNNI: sixteen rows to a vector, four features to a lane, 64 products per instruction.
//!
//! A tile of six tokens keeps 12 integer and 12 float accumulators in registers. Per group the unit that multiplies
//! is busy with 8 dot products and 2 scalings for each pair of accumulators, so four fifths of the peak are the most
//! that groups of 32 allow; eight ninths where activations are scaled by powers of two, which units that add can do.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{
    Scheme,
    activations::Words,
    finish::finish_any,
    format::{FIRST_SCALE, GROUP, HEADER, NARROW_BLOCK, PANEL, WIDE_BLOCK},
    stream::Stream,
    sums::{Sums, Tile},
};

/// How far ahead of the arithmetic of several tokens a stream of weights is asked for, in bytes.
const AHEAD: usize = 16384;

const INT8: u8 = 0;
const SYMMETRIC: u8 = 1;
const ASYMMETRIC: u8 = 2;
/// Asymmetric codes that were unpacked to eight bits.
const WIDENED: u8 = 3;

/// The bits of the number one: what exponents count from.
const ONE: u32 = 127 << 23;

/// Whether activations are scaled by powers of two, and no weight's scale is zero: then exponents are added.
const fn powers(scheme: u8) -> bool {
    scheme == ASYMMETRIC || scheme == WIDENED
}

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
    origins: *const f32,
    sums: *mut f32,
    resumes: bool,
    /// What is asked for along the way: so many cache lines with each group.
    ahead: *const u8,
    lines: usize,
}

/// See [`super::sums::add`].
///
/// # Safety
/// The processor has the instructions, and lengths have been checked.
pub(super) unsafe fn add(tile: &mut Tile<'_>) {
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
        origins: a.origins[tile.first_token..].as_ptr(),
        sums: tile.sums.as_mut_ptr().cast(),
        resumes: tile.resumes,
        ahead: tile.ahead.as_ptr(),
        lines: tile.ahead.len().div_ceil(64 * tile.groups().max(1)),
    };
    // SAFETY: the caller's promise.
    unsafe {
        match (tile.scheme, a.powers) {
            (Scheme::Int8, false) => add_tokens::<INT8>(tile.sums.len(), p),
            (Scheme::Int8, true) => add_tokens::<WIDENED>(tile.sums.len(), p),
            (Scheme::Int4Symmetric, _) => add_tokens::<SYMMETRIC>(tile.sums.len(), p),
            (Scheme::Int4Asymmetric, _) => add_tokens::<ASYMMETRIC>(tile.sums.len(), p),
        }
    }
}

unsafe fn add_tokens<const SCHEME: u8>(tokens: usize, p: Pointers) {
    // SAFETY: the caller's promise.
    unsafe {
        match tokens {
            1 => kernel::<SCHEME, 1>(p),
            2 => kernel::<SCHEME, 2>(p),
            3 => kernel::<SCHEME, 3>(p),
            4 => kernel::<SCHEME, 4>(p),
            5 => kernel::<SCHEME, 5>(p),
            6 => kernel::<SCHEME, 6>(p),
            _ => {}
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn kernel<const SCHEME: u8, const T: usize>(p: Pointers) {
    let wide = SCHEME == INT8 || SCHEME == WIDENED;
    let block_bytes = if wide { WIDE_BLOCK } else { NARROW_BLOCK };
    // SAFETY: all reads lie within the blocks, the tokens' codes, scales and starts, all writes within the sums, whose
    // lengths the caller has checked.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; T];
        for (t, sums) in sums.iter_mut().enumerate() {
            *sums = if p.resumes {
                [_mm512_loadu_ps(p.sums.add(t * PANEL)), _mm512_loadu_ps(p.sums.add(t * PANEL + 16))]
            } else {
                [_mm512_set1_ps(*p.origins.add(t)); 2]
            };
        }
        for group in 0..p.groups {
            let block = p.blocks.add(group * block_bytes);
            for line in 0..p.lines {
                let line = p.ahead.wrapping_add((group * p.lines + line) * 64);
                _mm_prefetch::<_MM_HINT_T1>(line.cast());
            }
            let header = _mm512_loadu_si512(block.cast());
            let mut scales = match SCHEME {
                // Less what both exponents count from.
                ASYMMETRIC => nine_bits(header, (FIRST_SCALE << 19).wrapping_sub(ONE)),
                _ => scales::<SCHEME>(header),
            };
            let mut dots = [[_mm512_setzero_si512(); 2]; T];
            for (t, dots) in dots.iter_mut().enumerate() {
                *dots = [_mm512_set1_epi32(*p.starts.add(t * p.scale_stride + group)); 2];
            }
            let x = p.codes.add(group * GROUP);
            if SCHEME == SYMMETRIC {
                // Codes are unpacked to `16 q`, all products to twice what they are elsewhere.
                scales = scales.map(|scale| _mm512_mul_ps(scale, _mm512_set1_ps(0.5)));
                let mask = _mm512_set1_epi8(0xf0_u8 as i8);
                for quad in 0..GROUP / 8 {
                    let w = block.add(HEADER + quad * 4 * PANEL);
                    let w = [_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast())];
                    let low = |w| _mm512_and_si512(_mm512_slli_epi16::<4>(w), mask);
                    multiply([low(w[0]), low(w[1])], x.add(quad * 4), p.code_stride, &mut dots);
                    let high = |w| _mm512_and_si512(w, mask);
                    let x = x.add(GROUP / 2 + quad * 4);
                    multiply([high(w[0]), high(w[1])], x, p.code_stride, &mut dots);
                }
            } else if wide {
                for quad in 0..GROUP / 4 {
                    let w = block.add(HEADER + quad * 4 * PANEL);
                    let w = [_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast())];
                    multiply(w, x.add(quad * 4), p.code_stride, &mut dots);
                }
            } else {
                let bases = bases::<SCHEME>(header);
                for quad in 0..GROUP / 8 {
                    let w = block.add(HEADER + quad * 4 * PANEL);
                    let w = [_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast())];
                    let (low, high) = widen(w, bases);
                    multiply(low, x.add(quad * 4), p.code_stride, &mut dots);
                    multiply(high, x.add(GROUP / 2 + quad * 4), p.code_stride, &mut dots);
                }
            }
            if SCHEME == WIDENED {
                let less =
                    |scale| _mm512_sub_epi32(_mm512_castps_si512(scale), _mm512_set1_epi32(ONE as i32));
                scales = scales.map(|scale| _mm512_castsi512_ps(less(scale)));
            }
            for (t, (sums, dots)) in sums.iter_mut().zip(&dots).enumerate() {
                let x_scale = _mm512_set1_ps(*p.scales.add(t * p.scale_stride + group));
                for half in 0..2 {
                    let scale = if powers(SCHEME) {
                        let [w, x] = [scales[half], x_scale].map(|scale| _mm512_castps_si512(scale));
                        _mm512_castsi512_ps(_mm512_add_epi32(w, x))
                    } else {
                        _mm512_mul_ps(scales[half], x_scale)
                    };
                    sums[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[half]), scale, sums[half]);
                }
            }
        }
        for (t, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(p.sums.add(t * PANEL), sums[0]);
            _mm512_storeu_ps(p.sums.add(t * PANEL + 16), sums[1]);
        }
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
            Scheme::Int8 => stream_tokens::<INT8>(stream),
            Scheme::Int4Symmetric => stream_tokens::<SYMMETRIC>(stream),
            Scheme::Int4Asymmetric => stream_tokens::<ASYMMETRIC>(stream),
        }
    }
}

unsafe fn stream_tokens<const SCHEME: u8>(stream: &Stream<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match stream.activations.origins.len() {
            1 => stream_panels::<SCHEME, 1>(stream),
            3 => stream_panels::<SCHEME, 3>(stream),
            4 => stream_panels::<SCHEME, 4>(stream),
            5 => stream_panels::<SCHEME, 5>(stream),
            6 => stream_panels::<SCHEME, 6>(stream),
            _ => {}
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn stream_panels<const SCHEME: u8, const T: usize>(stream: &Stream<'_>) {
    let a = &stream.activations;
    let mut p = Pointers {
        blocks: stream.blocks.as_ptr(),
        groups: a.groups,
        codes: a.codes.as_ptr(),
        code_stride: a.code_stride,
        scales: a.scales.as_ptr(),
        starts: a.starts.as_ptr(),
        scale_stride: a.groups,
        origins: a.origins.as_ptr(),
        sums: std::ptr::null_mut(),
        resumes: false,
        ahead: std::ptr::null(),
        // Where there is much to compute for each byte, the processor reads ahead too little by itself.
        lines: if T > 1 && SCHEME != INT8 { NARROW_BLOCK / 64 } else { 0 },
    };
    let panel_bytes = a.groups * stream.scheme.block();
    for panel in stream.panels.clone() {
        let mut finished = [Sums([0.0; PANEL]); T];
        // SAFETY: all reads lie within the panels' blocks and the tokens' codes, scales, starts and words, and all outputs
        // are this call's.
        unsafe {
            p.ahead = p.blocks.wrapping_add(AHEAD);
            p.sums = finished.as_mut_ptr().cast();
            if SCHEME == ASYMMETRIC && T == 1 {
                narrow_kernel(p, a.words.as_ptr());
            } else {
                kernel::<SCHEME, T>(p);
            }
            finish_any(stream.finish, &finished, stream.bias.of(panel), &stream.outputs(panel));
        }
        p.blocks = p.blocks.wrapping_add(panel_bytes);
    }
}

/// Asymmetric codes times one token: what [`kernel`] does, with the fewest instructions. Lower halves of bytes are
/// taken as they are, upper ones as sixteen times their codes, in sums of their own, so that neither is shifted. All
/// products are twice what they are elsewhere.
///
/// # Safety
/// As [`stream_panels`], and there are as many `words` as groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn narrow_kernel(p: Pointers, words: *const Words) {
    // SAFETY: the caller's promise.
    let mut sums = [_mm512_set1_ps(unsafe { *p.origins }); 2];
    let (lower, upper) = (_mm512_set1_epi8(0x0f), _mm512_set1_epi8(0xf0_u8 as i8));
    let zero_mask = _mm512_set1_epi32(0x007f_007f);
    let scale_mask = _mm512_set1_epi32(0x0ff8_0000);
    let sixteen = _mm512_set1_epi32(16);
    for group in 0..p.groups {
        // SAFETY: the caller's promise.
        unsafe {
            let block = p.blocks.add(group * NARROW_BLOCK);
            let header = _mm512_loadu_si512(block.cast());
            let Words { sums: less, exponent } = *words.add(group);
            let zeros = _mm512_and_si512(header, zero_mask);
            let none = _mm512_setzero_si512();
            let mut lows = [[none; 2]];
            let mut highs = [less.map(|less| _mm512_dpwssd_epi32(none, zeros, _mm512_set1_epi32(less)))];
            let x = p.codes.add(group * GROUP);
            for quad in 0..GROUP / 8 {
                let w = block.add(HEADER + quad * 4 * PANEL);
                let w = [_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast())];
                let x = x.add(quad * 4);
                multiply(w.map(|w| _mm512_and_si512(w, lower)), x, p.code_stride, &mut lows);
                let x = x.add(GROUP / 2);
                multiply(w.map(|w| _mm512_and_si512(w, upper)), x, p.code_stride, &mut highs);
            }
            let ([lows], [highs]) = (lows, highs);
            let exponent = _mm512_set1_epi32(exponent);
            let scales = [_mm512_slli_epi32::<12>(header), _mm512_srli_epi32::<4>(header)];
            for half in 0..2 {
                // Sixteen codes of up to 15 times up to 127 fit in 16 bits.
                let dot = _mm512_dpwssd_epi32(highs[half], lows[half], sixteen);
                let scale = _mm512_add_epi32(_mm512_and_si512(scales[half], scale_mask), exponent);
                sums[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_castsi512_ps(scale), sums[half]);
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        _mm512_storeu_ps(p.sums, sums[0]);
        _mm512_storeu_ps(p.sums.add(16), sums[1]);
    }
}

/// Four features of 32 rows times `T` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply<const T: usize>(
    w: [__m512i; 2],
    x: *const i8,
    code_stride: usize,
    dots: &mut [[__m512i; 2]; T],
) {
    for (t, dots) in dots.iter_mut().enumerate() {
        // SAFETY: the caller's promise: four codes of each token.
        let x = unsafe { _mm512_set1_epi32(x.add(t * code_stride).cast::<i32>().read_unaligned()) };
        *dots = [_mm512_dpbusd_epi32(dots[0], w[0], x), _mm512_dpbusd_epi32(dots[1], w[1], x)];
    }
}

/// The scales of both halves of a panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn scales<const SCHEME: u8>(header: __m512i) -> [__m512; 2] {
    if SCHEME == ASYMMETRIC {
        return nine_bits(header, FIRST_SCALE << 19);
    }
    let low = _mm512_slli_epi32::<16>(header);
    let high = _mm512_and_si512(header, _mm512_set1_epi32(0xffff_0000_u32 as i32));
    [_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)]
}

/// Scales of nine bits, the first of which is `first`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn nine_bits(header: __m512i, first: u32) -> [__m512; 2] {
    let mask = _mm512_set1_epi32(0xff80_0000_u32 as i32);
    let first = _mm512_set1_epi32(first as i32);
    let wide = |x| _mm512_add_epi32(_mm512_srli_epi32::<4>(_mm512_and_si512(x, mask)), first);
    [_mm512_slli_epi32::<16>(header), header].map(|x| _mm512_castsi512_ps(wide(x)))
}

/// What is added to eight times a four-bit code, four times for each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn bases<const SCHEME: u8>(header: __m512i) -> [__m512i; 2] {
    if SCHEME == SYMMETRIC {
        return [_mm512_set1_epi8(64); 2];
    }
    let zero = _mm512_and_si512(header, _mm512_set1_epi32(0x007f_007f));
    let base = _mm512_sub_epi8(_mm512_set1_epi8(-128), zero);
    let low = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0));
    let high = _mm512_add_epi8(low, _mm512_set1_epi8(2));
    [_mm512_shuffle_epi8(base, low), _mm512_shuffle_epi8(base, high)]
}

/// The codes in the lower and in the upper halves of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn widen(w: [__m512i; 2], bases: [__m512i; 2]) -> ([__m512i; 2], [__m512i; 2]) {
    let mask = _mm512_set1_epi8(0x78);
    let low = |i: usize| _mm512_add_epi8(_mm512_and_si512(_mm512_slli_epi16::<3>(w[i]), mask), bases[i]);
    let high = |i: usize| _mm512_add_epi8(_mm512_and_si512(_mm512_srli_epi16::<1>(w[i]), mask), bases[i]);
    ([low(0), low(1)], [high(0), high(1)])
}

/// See [`super::sums::unpack`].
///
/// # Safety
/// The processor has the instructions, and lengths have been checked.
pub(super) unsafe fn unpack(scheme: Scheme, narrow: &[u8], wide: &mut [u8]) {
    let blocks = narrow.len() / NARROW_BLOCK;
    // SAFETY: the caller's promise.
    unsafe {
        match scheme {
            Scheme::Int8 => {}
            Scheme::Int4Symmetric => unpack_blocks::<SYMMETRIC>(narrow.as_ptr(), wide.as_mut_ptr(), blocks),
            Scheme::Int4Asymmetric => unpack_blocks::<ASYMMETRIC>(narrow.as_ptr(), wide.as_mut_ptr(), blocks),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn unpack_blocks<const SCHEME: u8>(narrow: *const u8, wide: *mut u8, blocks: usize) {
    for block in 0..blocks {
        // SAFETY: there are as many blocks on both sides, which the caller has checked.
        unsafe {
            let (narrow, wide) = (narrow.add(block * NARROW_BLOCK), wide.add(block * WIDE_BLOCK));
            let header = _mm512_loadu_si512(narrow.cast());
            let [low, high] = scales::<SCHEME>(header);
            let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
            _mm512_storeu_si512(wide.cast(), _mm512_or_si512(low, _mm512_castps_si512(high)));
            let bases = bases::<SCHEME>(header);
            let (narrow, wide) = (narrow.add(HEADER), wide.add(HEADER));
            for quad in 0..GROUP / 8 {
                let w = narrow.add(quad * 128);
                let w = [_mm512_loadu_si512(w.cast()), _mm512_loadu_si512(w.add(64).cast())];
                let (low, high) = widen(w, bases);
                _mm512_storeu_si512(wide.add(quad * 128).cast(), low[0]);
                _mm512_storeu_si512(wide.add(quad * 128 + 64).cast(), low[1]);
                _mm512_storeu_si512(wide.add(512 + quad * 128).cast(), high[0]);
                _mm512_storeu_si512(wide.add(512 + quad * 128 + 64).cast(), high[1]);
            }
        }
    }
}
