//! The exact GELU on a CUDA device, see gelu.cu: f32 gives f32, bf16 gives bf16.

use super::OP;
use crate::{
    DType, Result,
    cuda::{CudaTensor, elements},
    error::argument,
};

/// `x` of any shape.
pub(super) fn forward(x: &CudaTensor) -> Result<CudaTensor> {
    let kernel = match x.dtype() {
        DType::F32 => "gelu_f32",
        DType::BF16 => "gelu_bf16",
        other => return Err(argument(OP, "x", other, "F32 or BF16")),
    };
    let out = x.gpu().uninitialised(x.shape(), x.dtype())?;
    elements::launch(kernel, &[x, &out])?;
    Ok(out)
}
