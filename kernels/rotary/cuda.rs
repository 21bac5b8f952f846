//! Rotary tables and the rotation on a CUDA device. Angles are computed there from integer positions: those of a large
//! picture are millions of cosines.

use std::sync::Arc;

use super::{OP, Tables};
use crate::{
    DType, Result,
    cuda::{Argument, CudaTensor, Gpu, Launch},
    error::argument,
};

/// Threads of a block that rotates; each has sixteen elements.
pub(crate) const THREADS: usize = 128;

/// Which angle each column turns by: column `i` of the first half of a head by position `axes[i]` times
/// `frequencies[i]`.
pub(crate) struct Angles<'a> {
    pub(crate) frequencies: &'a [f32],
    pub(crate) axes: &'a [u32],
    /// How many numbers a position has.
    pub(crate) n_axes: usize,
}

/// The same in the device's memory.
#[derive(Clone, Debug)]
pub(crate) struct DeviceAngles {
    /// `(tokens * n_axes)` u32.
    pub(crate) positions: CudaTensor,
    /// `(half)`: the bits of f32, in a tensor of u32.
    pub(crate) frequencies: CudaTensor,
    /// `(half)` u32.
    pub(crate) axes: CudaTensor,
    pub(crate) n_axes: usize,
}

impl Angles<'_> {
    /// `positions`, of `n_axes` numbers each, and the angles' columns, in one copy to the device.
    pub(super) fn upload(&self, gpu: &Arc<Gpu>, positions: &[u32]) -> Result<DeviceAngles> {
        let (half, n) = (self.frequencies.len(), positions.len());
        let mut integers = Vec::with_capacity(2 * half + n);
        integers.extend(self.frequencies.iter().map(|frequency| frequency.to_bits()));
        integers.extend(self.axes);
        integers.extend(positions);
        let integers = gpu.integers(&integers)?;
        Ok(DeviceAngles {
            frequencies: integers.narrow(0, 0, half)?,
            axes: integers.narrow(0, half, half)?,
            positions: integers.narrow(0, 2 * half, n)?,
            n_axes: self.n_axes,
        })
    }
}

impl DeviceAngles {
    /// The cosines and sines, each `(tokens, 2 * half)` f32.
    pub(crate) fn tables(&self) -> Result<Tables> {
        let (half, n_axes) = (self.axes.len(), self.n_axes);
        let tokens = self.positions.len() / n_axes;
        let gpu = self.positions.gpu();
        let table = || gpu.uninitialised(&[tokens, 2 * half], DType::F32);
        let (cos, sin) = (table()?, table()?);
        let arguments = [
            Argument::from(&self.positions),
            Argument::from(&self.frequencies),
            Argument::from(&self.axes),
            Argument::from(&cos),
            Argument::from(&sin),
            Argument::u32(tokens as u32),
            Argument::u32(n_axes as u32),
            Argument::u32(half as u32),
        ];
        gpu.launch("rotary_tables", tables_geometry(tokens, half), &arguments)?;
        Ok(Tables { cos: cos.into(), sin: sin.into() })
    }
}

/// Whether heads of this width are rotated by the kernel.
pub(crate) fn can_rotate(head_dim: usize) -> bool {
    head_dim > 0 && head_dim.is_multiple_of(16)
}

/// Where rows of heads lie side by side that are to be rotated.
pub(crate) struct Heads<'a> {
    /// `(tokens, any)` bf16; the heads are the first columns of a row.
    pub(crate) x: &'a CudaTensor,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

/// The rotated heads, `(tokens, heads * head_dim)` bf16. `cos`, `sin`: `(tokens, head_dim)` f32. Shapes are as checked in
/// [`super::forward`].
pub(crate) fn rotate(heads: &Heads<'_>, cos: &CudaTensor, sin: &CudaTensor) -> Result<CudaTensor> {
    let &Heads { x, heads, head_dim } = heads;
    x.expect_dtype(OP, "x", DType::BF16)?;
    let (tokens, width) = (cos.shape()[0], heads * head_dim);
    let stride = x.len().checked_div(tokens).unwrap_or(width);
    if !can_rotate(head_dim) || stride < width {
        return Err(argument(OP, "x", x.shape(), format!("rows of {heads} heads of a multiple of 16")));
    }
    let y = x.gpu().uninitialised(&[tokens, width], DType::BF16)?;
    let arguments = [
        Argument::from(x),
        Argument::from(cos),
        Argument::from(sin),
        Argument::from(&y),
        Argument::u32(stride as u32),
        Argument::u32(width as u32),
        Argument::u32(heads as u32),
        Argument::u32(head_dim as u32),
    ];
    x.gpu().launch("rotary_rotate", row_geometry(tokens, width / 16), &arguments)?;
    Ok(y)
}

/// A thread for each of `pieces` pieces of each of `tokens` rows.
pub(crate) fn row_geometry(tokens: usize, pieces: usize) -> Launch {
    let grid = [tokens as u32, pieces.div_ceil(THREADS) as u32, 1];
    Launch { grid, block: [THREADS as u32, 1, 1], shared_bytes: 0 }
}

/// A thread for each angle.
fn tables_geometry(tokens: usize, half: usize) -> Launch {
    Launch { grid: [(tokens * half).div_ceil(256) as u32, 1, 1], block: [256, 1, 1], shared_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_has_a_thread() {
        for ((tokens, pieces), (x, y)) in
            [((3, 10), (3, 1)), ((1, 128), (1, 1)), ((7, 288), (7, 3)), ((0, 9), (0, 1))]
        {
            assert_eq!(row_geometry(tokens, pieces).grid, [x, y, 1], "{tokens}, {pieces}");
        }
        for ((tokens, half), blocks) in [((1, 8), 1), ((32, 8), 1), ((65_536, 40), 10_240), ((0, 40), 0)] {
            assert_eq!(tables_geometry(tokens, half).grid, [blocks, 1, 1], "{tokens}, {half}");
        }
    }
}
