//! RMSNorm on a CUDA device: a block of threads for each row, f32 in and bf16 out, as the products after it want it.

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
    let [tokens, features] = [out.shape()[0], out.shape()[1]];
    let arguments = [
        Argument::from(x),
        Argument::from(weight),
        Argument::from(&out),
        Argument::u32(features as u32),
        Argument::f32(eps),
    ];
    x.gpu().launch("rms_norm_bf16", geometry(tokens, features), &arguments)?;
    Ok(out)
}

/// One block for each row; no more threads than quads of features, as far as whole warps allow. Nothing for no features.
fn geometry(tokens: usize, features: usize) -> Launch {
    let threads = features.div_ceil(4).next_multiple_of(32).min(256) as u32;
    let rows = if features == 0 { 0 } else { tokens as u32 };
    Launch {
        grid: [rows, 1, 1],
        block: [threads, 1, 1],
        shared_bytes: threads / 32 * size_of::<f32>() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_wide_as_rows_need() {
        let table =
            [((1, 1), (1, 32, 4)), ((7, 129), (7, 64, 8)), ((2, 3584), (2, 256, 32)), ((3, 0), (0, 0, 0))];
        for ((tokens, features), (rows, threads, shared_bytes)) in table {
            let launch = Launch { grid: [rows, 1, 1], block: [threads, 1, 1], shared_bytes };
            assert_eq!(geometry(tokens, features), launch, "{tokens}, {features}");
        }
    }
}
