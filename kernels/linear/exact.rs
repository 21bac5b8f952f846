//! The exact linear layer on the processor: weights stay in their stored type in memory and are widened to f32
//! only in registers or in a panel that fits the second-level cache, never as a whole; products and sums are f32.
//!
//! The floor: one token reads each weight byte once, so the time is bytes over memory bandwidth; many
//! tokens cost `2 * tokens * in * out` operations at the f32 rate of the processor.

use std::cell::RefCell;

use gemm::Parallelism;
use half::{bf16, f16};

use crate::{
    HostElements, HostMatrix, Result,
    pool::{self, SharedSlice},
    processor::Isa,
};

/// Up to this many tokens, dot products over the stored weight beat widening panels.
const FEW_TOKENS: usize = 4;
/// Rows of the weight that are widened at a time, per thread.
const PANEL_ROWS: usize = 64;

/// `x: (tokens, features)` times each part `(rows, features)` transposed; their outputs lie side by side in
/// `y: (tokens, out)`, whose earlier contents are lost.
///
/// # Errors
/// When a part's dtype is not a floating point one.
pub(super) fn multiply(x: &[f32], parts: &[HostMatrix], bias: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
    let out = parts.iter().map(HostMatrix::rows).sum();
    let features = parts.first().map_or(0, HostMatrix::cols);
    if out == 0 || y.is_empty() {
        return Ok(());
    }
    let tokens = y.len() / out;
    assert!(y.len() == tokens * out && x.len() == tokens * features, "shapes were checked by the caller");
    let mut first = 0;
    for part in parts {
        let columns =
            Columns { y: SharedSlice::new(y), tokens, row_stride: out, first, rows: part.rows(), features };
        match part.elements()? {
            HostElements::Bf16(w) => columns.fill(x, w),
            HostElements::F16(w) => columns.fill(x, w),
            HostElements::F32(w) => columns.fill(x, w),
        }
        first += part.rows();
    }
    if let Some(bias) = bias {
        y.chunks_exact_mut(out).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    }
    Ok(())
}

/// A stored element type that widens to f32 without loss.
trait Widen: Copy + Send + Sync {
    fn widen(self) -> f32;
}

impl Widen for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Widen for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Widen for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

thread_local! {
    /// The widened panel of this thread, kept between calls.
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Columns `first..first + rows` of the output `(tokens, row_stride)`, which different tasks write parts of.
struct Columns<'a> {
    y: SharedSlice<'a, f32>,
    tokens: usize,
    row_stride: usize,
    first: usize,
    rows: usize,
    features: usize,
}

impl Columns<'_> {
    /// `x: (tokens, features)`, `w: (rows, features)`.
    fn fill<W: Widen>(&self, x: &[f32], w: &[W]) {
        assert_eq!(w.len(), self.rows * self.features, "a matrix has as many elements as its shape says");
        pool::run(self.rows.div_ceil(PANEL_ROWS), |panel| {
            let first = panel * PANEL_ROWS;
            let rows = PANEL_ROWS.min(self.rows - first);
            let weights = &w[first * self.features..(first + rows) * self.features];
            if self.tokens <= FEW_TOKENS {
                self.dots(x, weights, first, rows);
            } else {
                PANEL.with_borrow_mut(|wide| {
                    wide.clear();
                    widen_into(weights, wide);
                    self.panel_product(x, wide, first, rows);
                });
            }
        });
    }

    #[allow(unsafe_code)]
    fn dots<W: Widen>(&self, x: &[f32], weights: &[W], first: usize, rows: usize) {
        for row in 0..rows {
            let weights = &weights[row * self.features..(row + 1) * self.features];
            for token in 0..self.tokens {
                let value = dot(&x[token * self.features..(token + 1) * self.features], weights);
                // SAFETY: no other task computes this row of the weight, so none writes this element.
                unsafe { self.y.part(token * self.row_stride + self.first + first + row, 1)[0] = value };
            }
        }
    }

    /// `wide: (rows, features)` are rows `first..` of the weight.
    #[allow(unsafe_code)]
    fn panel_product(&self, x: &[f32], wide: &[f32], first: usize, rows: usize) {
        let first = self.first + first;
        assert!(x.len() == self.tokens * self.features && wide.len() == rows * self.features);
        assert!(first + rows <= self.row_stride);
        // SAFETY: the sizes of both factors and the columns were checked just above; the output has `tokens` rows
        // of `row_stride` elements (`multiply` checked it), and no other task touches columns `first..first + rows`.
        unsafe {
            gemm::gemm(
                self.tokens,
                rows,
                self.features,
                self.y.as_mut_ptr().add(first),
                1,
                self.row_stride as isize,
                false,
                x.as_ptr(),
                1,
                self.features as isize,
                wide.as_ptr(),
                self.features as isize,
                1,
                0.0f32,
                1.0f32,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

/// Sums of many interleaved parts: enough independent chains for the processor's vector units.
#[inline(always)]
fn dot_lanes<W: Widen>(x: &[f32], w: &[W]) -> f32 {
    const LANES: usize = 32;
    let mut sums = [0.0f32; LANES];
    let (x_main, x_rest) = x.as_chunks::<LANES>();
    let (w_main, w_rest) = w.as_chunks::<LANES>();
    for (x, w) in x_main.iter().zip(w_main) {
        for lane in 0..LANES {
            sums[lane] = x[lane].mul_add(w[lane].widen(), sums[lane]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    x_rest.iter().zip(w_rest).fold(sums[0], |sum, (x, w)| x.mul_add(w.widen(), sum))
}

#[inline(always)]
fn widen_all<W: Widen>(w: &[W], wide: &mut Vec<f32>) {
    wide.extend(w.iter().map(|w| w.widen()));
}

/// The same code compiled for what the processor has; the choice is made at run time.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod dispatch {
    use super::{Isa, Widen, dot_lanes, widen_all};

    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot_avx2<W: Widen>(x: &[f32], w: &[W]) -> f32 {
        dot_lanes(x, w)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    fn dot_avx512<W: Widen>(x: &[f32], w: &[W]) -> f32 {
        dot_lanes(x, w)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn widen_avx2<W: Widen>(w: &[W], wide: &mut Vec<f32>) {
        widen_all(w, wide);
    }

    pub(super) fn dot<W: Widen>(x: &[f32], w: &[W]) -> f32 {
        match Isa::current() {
            // SAFETY: the processor has these features.
            Isa::Avx512 => unsafe { dot_avx512(x, w) },
            // SAFETY: the processor has these features.
            Isa::Avx2 => unsafe { dot_avx2(x, w) },
            Isa::Portable => dot_lanes(x, w),
        }
    }

    pub(super) fn widen_into<W: Widen>(w: &[W], wide: &mut Vec<f32>) {
        match Isa::current() {
            // SAFETY: the processor has these features.
            Isa::Avx512 | Isa::Avx2 => unsafe { widen_avx2(w, wide) },
            Isa::Portable => widen_all(w, wide),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod dispatch {
    pub(super) use super::{dot_lanes as dot, widen_all as widen_into};
}

use dispatch::{dot, widen_into};
