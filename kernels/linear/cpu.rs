//! The linear layer on the processor: weights stay in their stored type in memory and are widened to f32
//! only in registers or in a panel that fits the second-level cache, never as a whole.
//!
//! The floor: one token reads each weight byte once, so the time is bytes over memory bandwidth; many
//! tokens cost `2 * tokens * in * out` operations at the f32 rate of the processor.

use std::cell::RefCell;

use gemm::Parallelism;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::{HostElements, HostMatrix, Result, Tensor};

/// Up to this many tokens, dot products over the stored weight beat widening panels.
const FEW_TOKENS: usize = 4;
/// Rows of the weight that are widened at a time, per thread.
const PANEL_ROWS: usize = 64;

/// See [`super::forward`]; shapes are as checked there.
pub(super) fn forward(x: &candle_core::Tensor, weight: &HostMatrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let (tokens, out) = (x.dims()[0], weight.rows());
    let bias = match bias {
        None => None,
        Some(bias) => Some(bias.to_f32_vec()?),
    };
    let bias = bias.as_deref();
    let x = x.contiguous()?;
    let y = with_f32(&x, |x| {
        Ok::<_, crate::Error>(match weight.elements()? {
            HostElements::Bf16(w) => product(x, w, tokens, out, bias),
            HostElements::F16(w) => product(x, w, tokens, out, bias),
            HostElements::F32(w) => product(x, w, tokens, out, bias),
        })
    })??;
    Ok(candle_core::Tensor::from_vec(y, (tokens, out), &candle_core::Device::Cpu)?.into())
}

/// Calls `f` with the elements of a contiguous f32 tensor on the host.
pub(crate) fn with_f32<R>(x: &candle_core::Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        return Err(crate::error::argument("linear", "x", x.device().location(), "on the host"));
    };
    let all = storage.as_slice::<f32>()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(crate::error::argument("linear", "x", layout, "contiguous"));
    };
    Ok(f(&all[start..end]))
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

/// `x: (tokens, features)`, `w: (out, features)`; gives `(tokens, out)`.
fn product<W: Widen>(x: &[f32], w: &[W], tokens: usize, out: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let mut y = vec![0.0f32; tokens * out];
    if tokens == 0 || out == 0 {
        return y;
    }
    let features = x.len() / tokens;
    let initial = |row: usize| bias.map_or(0.0, |b| b[row]);
    if tokens <= FEW_TOKENS {
        // Computed as (out, tokens), so that each thread owns a contiguous part; turned at the end.
        let mut columns = vec![0.0f32; out * tokens];
        columns.par_chunks_mut(PANEL_ROWS * tokens).enumerate().for_each(|(panel, columns)| {
            for (i, column) in columns.chunks_exact_mut(tokens).enumerate() {
                let row = panel * PANEL_ROWS + i;
                let weights = &w[row * features..(row + 1) * features];
                for (token, value) in column.iter_mut().enumerate() {
                    *value = initial(row) + dot(&x[token * features..(token + 1) * features], weights);
                }
            }
        });
        for (row, column) in columns.chunks_exact(tokens).enumerate() {
            for (token, value) in column.iter().enumerate() {
                y[token * out + row] = *value;
            }
        }
        return y;
    }
    let y_out = Columns { start: y.as_mut_ptr(), row_stride: out };
    (0..out.div_ceil(PANEL_ROWS)).into_par_iter().for_each(|panel| {
        PANEL.with_borrow_mut(|wide| {
            let first = panel * PANEL_ROWS;
            let rows = PANEL_ROWS.min(out - first);
            wide.clear();
            widen_into(&w[first * features..(first + rows) * features], wide);
            y_out.panel_product(Panel { x, wide, tokens, features, first, rows });
        });
    });
    if let Some(bias) = bias {
        y.par_chunks_mut(out).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    }
    y
}

thread_local! {
    /// The widened panel of this thread, kept between calls.
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The output `(tokens, row_stride)` as raw memory, so that threads may write disjoint columns of it.
struct Columns {
    start: *mut f32,
    row_stride: usize,
}

// SAFETY: each panel is taken by one thread, which writes only its own columns.
#[allow(unsafe_code)]
unsafe impl Sync for Columns {}

/// One product: `x: (tokens, features)` times `wide: (rows, features)` transposed, to columns from `first`.
struct Panel<'a> {
    x: &'a [f32],
    wide: &'a [f32],
    tokens: usize,
    features: usize,
    first: usize,
    rows: usize,
}

impl Columns {
    #[allow(unsafe_code)]
    fn panel_product(&self, p: Panel<'_>) {
        assert!(p.x.len() == p.tokens * p.features && p.wide.len() == p.rows * p.features);
        assert!(p.first + p.rows <= self.row_stride);
        // SAFETY: the sizes of both factors and the columns were checked just above; the output has
        // `tokens` rows of `row_stride` elements (it was allocated so by `product`), and no other thread
        // touches columns `first..first + rows`.
        unsafe {
            gemm::gemm(
                p.tokens,
                p.rows,
                p.features,
                self.start.add(p.first),
                1,
                self.row_stride as isize,
                false,
                p.x.as_ptr(),
                1,
                p.features as isize,
                p.wide.as_ptr(),
                p.features as isize,
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

/// Sums of sixteen interleaved parts: enough independent chains for the processor's vector units.
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
    use super::{Widen, dot_lanes, widen_all};

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

    fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
    }

    fn has_avx512() -> bool {
        has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
    }

    pub(super) fn dot<W: Widen>(x: &[f32], w: &[W]) -> f32 {
        if has_avx512() {
            // SAFETY: the features were just detected.
            unsafe { dot_avx512(x, w) }
        } else if has_avx2() {
            // SAFETY: the features were just detected.
            unsafe { dot_avx2(x, w) }
        } else {
            dot_lanes(x, w)
        }
    }

    pub(super) fn widen_into<W: Widen>(w: &[W], wide: &mut Vec<f32>) {
        if has_avx2() {
            // SAFETY: the features were just detected.
            unsafe { widen_avx2(w, wide) }
        } else {
            widen_all(w, wide);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod dispatch {
    pub(super) use super::{dot_lanes as dot, widen_all as widen_into};
}

use dispatch::{dot, widen_into};
