//! The linear layer in plain candle operations: widen the whole weight, multiply, add.

use candle_core::{DType, Device};

use super::{Weight, WeightStorage};
use crate::{HostMatrix, Result, Tensor, error::argument};

/// See [`super::forward`]; shapes are as checked there.
pub fn forward(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = x.to_candle()?;
    let weight = match &weight.storage {
        WeightStorage::Host(parts) => {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| candle_matrix(part, x.device())?.to_dtype(DType::F32).map_err(Into::into))
                .collect::<Result<_>>()?;
            candle_core::Tensor::cat(&parts, 0)?
        }
        WeightStorage::Candle(weight) => weight.clone(),
        WeightStorage::Bf16(_) | WeightStorage::Quantized(_) => packed(weight)?,
        WeightStorage::Cuda(_) => return Err(argument("linear", "weight", "on a CUDA device", "elsewhere")),
    };
    let mut y = x.matmul(&weight.to_dtype(DType::F32)?.t()?)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.to_candle()?)?;
    }
    Ok(y.into())
}

/// A candle tensor of the matrix in its stored type.
/// A packed weight of which each packed row is one output, widened as a whole.
fn packed(weight: &Weight) -> Result<candle_core::Tensor> {
    let (rows, cols) = (weight.rows(), weight.cols());
    let mut values = vec![0.0; rows * cols];
    for (row, values) in values.chunks_exact_mut(cols.max(1)).enumerate() {
        weight.read_row(row, values)?;
    }
    Ok(candle_core::Tensor::from_vec(values, (rows, cols), &Device::Cpu)?)
}

pub(super) fn candle_matrix(matrix: &HostMatrix, device: &Device) -> Result<candle_core::Tensor> {
    use crate::host_bytes::HostElements::{Bf16, F16, F32};
    let shape = (matrix.rows(), matrix.cols());
    Ok(match matrix.elements()? {
        Bf16(x) => candle_core::Tensor::from_slice(x, shape, device)?,
        F16(x) => candle_core::Tensor::from_slice(x, shape, device)?,
        F32(x) => candle_core::Tensor::from_slice(x, shape, device)?,
    })
}
