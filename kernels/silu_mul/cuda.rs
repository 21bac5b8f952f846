//! SwiGLU's gate on a CUDA device, see silu_mul.cu: both factors and the result are f32, or all bf16.

use super::OP;
use crate::{
    DType, Result,
    cuda::{CudaTensor, elements},
    error::argument,
};

/// Both of one shape and type.
pub(super) fn forward(gate: &CudaTensor, up: &CudaTensor) -> Result<CudaTensor> {
    up.expect_dtype(OP, "up", gate.dtype())?;
    let kernel = match gate.dtype() {
        DType::F32 => "silu_mul_f32",
        DType::BF16 => "silu_mul_bf16",
        other => return Err(argument(OP, "gate", other, "F32 or BF16")),
    };
    let out = gate.gpu().uninitialised(gate.shape(), gate.dtype())?;
    elements::launch(kernel, &[gate, up, &out])?;
    Ok(out)
}
