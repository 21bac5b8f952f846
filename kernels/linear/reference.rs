//! The linear layer in plain candle operations: widen the whole weight, multiply, add.

use candle_core::{DType, Device};

use super::{Weight, WeightStorage};
use crate::{HostMatrix, Result, Storage, Tensor};

/// See [`super::forward`]; shapes are as checked there.
pub fn forward(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    let Storage::Candle(x) = x.storage();
    let weight = match &weight.storage {
        WeightStorage::Host(matrix) => candle_matrix(matrix, x.device())?,
        WeightStorage::Candle(weight) => weight.clone(),
    };
    let mut y = x.matmul(&weight.to_dtype(DType::F32)?.t()?)?;
    if let Some(bias) = bias {
        let Storage::Candle(bias) = bias.storage();
        y = y.broadcast_add(bias)?;
    }
    Ok(y.into())
}

/// A candle tensor of the matrix in its stored type.
pub(super) fn candle_matrix(matrix: &HostMatrix, device: &Device) -> Result<candle_core::Tensor> {
    use crate::host_bytes::HostElements::{Bf16, F16, F32};
    let shape = (matrix.rows(), matrix.cols());
    Ok(match matrix.elements()? {
        Bf16(x) => candle_core::Tensor::from_slice(x, shape, device)?,
        F16(x) => candle_core::Tensor::from_slice(x, shape, device)?,
        F32(x) => candle_core::Tensor::from_slice(x, shape, device)?,
    })
}
