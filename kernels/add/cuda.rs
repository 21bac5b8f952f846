//! Addition on a CUDA device, see add.cu: f32 and f32 or bf16 give f32.

use crate::{
    DType, Result,
    cuda::{CudaTensor, elements},
    error::argument,
};

const OP: &str = "add";

/// `a`: f32, `b` of the same shape: f32 or bf16.
pub(super) fn forward(a: &CudaTensor, b: &CudaTensor) -> Result<CudaTensor> {
    let sum = a.gpu().uninitialised(a.shape(), DType::F32)?;
    add(a, b, &sum)?;
    Ok(sum)
}

/// The same, written over `a` when nobody else has it.
pub(super) fn into(a: CudaTensor, b: &CudaTensor) -> Result<CudaTensor> {
    let sum = a.into_sole()?;
    add(&sum, b, &sum)?;
    Ok(sum)
}

fn add(a: &CudaTensor, b: &CudaTensor, sum: &CudaTensor) -> Result<()> {
    a.expect_dtype(OP, "a", DType::F32)?;
    let kernel = match b.dtype() {
        DType::F32 => "add_f32",
        DType::BF16 => "add_bf16",
        other => return Err(argument(OP, "b", other, "F32 or BF16")),
    };
    elements::launch(kernel, &[a, b, sum])
}
