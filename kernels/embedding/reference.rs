//! The embedding by plain copies of rows.

use candle_core::DType;

use crate::{
    Result, Tensor,
    error::argument,
    linear::{Weight, WeightStorage},
};

/// See [`super::forward`]; ids are as checked there.
pub fn forward(table: &Weight, ids: &[u32]) -> Result<Tensor> {
    match &table.storage {
        WeightStorage::Host(_) | WeightStorage::Bf16(_) | WeightStorage::Quantized(_) => {
            let mut rows = vec![0.0; ids.len() * table.cols()];
            for (row, &id) in rows.chunks_exact_mut(table.cols().max(1)).zip(ids) {
                table.read_row(id as usize, row)?;
            }
            let shape = (ids.len(), table.cols());
            Ok(candle_core::Tensor::from_vec(rows, shape, &candle_core::Device::Cpu)?.into())
        }
        WeightStorage::Cuda(_) => Err(argument("embedding", "table", "on a CUDA device", "elsewhere")),
        WeightStorage::Candle(table) => {
            let ids = candle_core::Tensor::from_slice(ids, ids.len(), table.device())?;
            Ok(table.index_select(&ids, 0)?.to_dtype(DType::F32)?.into())
        }
    }
}
