//! RMSNorm on a CUDA device, see rms_norm.cu: f32 in and bf16 out, as the products after it want it.

use super::OP;
use crate::{
    DType, Result,
    cuda::{Argument, CudaTensor, Launch},
};

/// `x: (tokens, features)` f32, `weight: (features)` f32; gives `(tokens, features)` bf16. Shapes are as checked in
/// [`super::forward`].
pub(super) fn forward(x: &CudaTensor, weight: &CudaTensor, eps: f32) -> Result<CudaTensor> {
    x.expect_dtype(OP, "x", DType::F32)?;
    weight.expect_dtype(OP, "weight", DType::F32)?;
    let out = x.gpu().uninitialised(x.shape(), DType::BF16)?;
    let [rows, features] = [out.shape()[0], out.shape()[1]];
    let arguments = [
        Argument::from(x),
        Argument::from(weight),
        Argument::from(&out),
        Argument::u32(rows as u32),
        Argument::u32(features as u32),
        Argument::f32(eps),
    ];
    let aligned = features % 4 == 0 && x.is_aligned() && weight.is_aligned();
    let (kernel, launch) = geometry(rows, features, aligned);
    x.gpu().launch(kernel, launch, &arguments)?;
    Ok(out)
}

/// The kernel for rows of this width: a warp for each narrow row, eight of them to a block, and a block for each wide
/// one. Nothing for no features.
fn geometry(rows: usize, features: usize, aligned: bool) -> (&'static str, Launch) {
    const WARPS: usize = 8;
    let (kernel, rows_of_block) = match features {
        _ if !aligned => ("rms_norm_any", 1),
        0..=1280 => ("rms_norm_1280", WARPS),
        1281..=4096 => ("rms_norm_4096", 1),
        4097..=8192 => ("rms_norm_8192", 1),
        _ => ("rms_norm_any", 1),
    };
    let blocks = if features == 0 { 0 } else { rows.div_ceil(rows_of_block) };
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    // A float for each warp.
    let launch = Launch { grid: [blocks, 1, 1], block: [256, 1, 1], shared_bytes: 4 * WARPS as u32 };
    (kernel, launch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_the_kernel_of_their_width() {
        let table = [
            ((1, 8, true), ("rms_norm_1280", 1)),
            ((9, 1280, true), ("rms_norm_1280", 2)),
            ((9, 1284, true), ("rms_norm_4096", 9)),
            ((2, 3584, true), ("rms_norm_4096", 2)),
            ((2, 8192, true), ("rms_norm_8192", 2)),
            ((2, 8196, true), ("rms_norm_any", 2)),
            ((2, 1279, false), ("rms_norm_any", 2)),
            ((3, 0, true), ("rms_norm_1280", 0)),
            ((0, 3584, true), ("rms_norm_4096", 0)),
        ];
        for ((rows, features, aligned), (kernel, blocks)) in table {
            let (found, launch) = geometry(rows, features, aligned);
            assert_eq!((found, launch.grid[0]), (kernel, blocks), "{rows}, {features}, {aligned}");
        }
    }
}
