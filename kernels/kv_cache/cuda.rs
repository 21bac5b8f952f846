//! The paged cache in a CUDA device's memory: bf16, a slot's heads side by side.

use std::sync::Arc;

use super::{OP, Shape};
use crate::{
    DType, Result,
    cuda::{Argument, CudaTensor, Gpu},
    error::argument,
    rotary::cuda::row_geometry,
    step::cuda::{BLOCK, DeviceStep},
};

/// The widths of heads that kernels are made for.
const HEAD_DIMS: [usize; 4] = [16, 32, 64, 128];

/// Keys and values of a layer.
#[derive(Debug)]
pub(crate) struct CudaLayer {
    /// `(slots, kv_heads, head_dim)` bf16.
    pub(crate) keys: CudaTensor,
    /// The same.
    pub(crate) values: CudaTensor,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl CudaLayer {
    /// Whether there are kernels for a cache of this shape.
    pub(super) fn can_hold(shape: Shape) -> bool {
        shape.block_size == BLOCK && HEAD_DIMS.contains(&shape.head_dim)
    }

    /// A cache whose slots hold nothing yet: what is not written is not read.
    pub(super) fn new(gpu: &Arc<Gpu>, shape: Shape) -> Result<Self> {
        let Shape { blocks, block_size, kv_heads, head_dim, .. } = shape;
        let slots = || gpu.lasting(&[blocks * block_size, kv_heads, head_dim], DType::BF16);
        Ok(Self { keys: slots()?, values: slots()?, kv_heads, head_dim })
    }

    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        self.keys.gpu()
    }

    /// Rotates queries and keys of `qkv: (tokens, (heads + 2 * kv_heads) * head_dim)` and writes keys and values to the
    /// step's slots. `cos`, `sin`: `(tokens, head_dim)` f32. Gives the queries, `(tokens, heads, head_dim)` bf16.
    pub(super) fn rotate_and_write(
        &self,
        qkv: &CudaTensor,
        (cos, sin): (&CudaTensor, &CudaTensor),
        step: &DeviceStep,
    ) -> Result<CudaTensor> {
        let qkv = &qkv.to_dtype(DType::BF16)?;
        let &Self { kv_heads, head_dim, .. } = self;
        let (tokens, all_heads) = (qkv.shape()[0], qkv.shape()[1] / head_dim);
        let heads = all_heads - 2 * kv_heads;
        for table in [cos, sin] {
            if table.shape() != [tokens, head_dim] || step.tokens() != tokens {
                return Err(argument(
                    OP,
                    "tables",
                    table.shape(),
                    format!("[{}, {head_dim}]", step.tokens()),
                ));
            }
        }
        let queries = self.gpu().uninitialised(&[tokens, heads, head_dim], DType::BF16)?;
        let arguments = [
            Argument::from(qkv),
            Argument::from(cos),
            Argument::from(sin),
            Argument::from(&step.slots),
            Argument::from(&queries),
            Argument::from(&self.keys),
            Argument::from(&self.values),
            Argument::u32(heads as u32),
            Argument::u32(kv_heads as u32),
            Argument::u32(head_dim as u32),
        ];
        // Each thread has sixteen elements of a row.
        let launch = row_geometry(tokens, all_heads * head_dim / 16);
        self.gpu().launch("rotate_and_write", launch, &arguments)?;
        Ok(queries)
    }

    /// Writes `keys` and `values`, both `(tokens, kv_heads, head_dim)`, to `slots`, which exist.
    pub(super) fn write(&self, keys: &CudaTensor, values: &CudaTensor, slots: &[u32]) -> Result<()> {
        let width = self.kv_heads * self.head_dim;
        let slots = self.gpu().integers(slots)?;
        for (from, to) in [(keys, &self.keys), (values, &self.values)] {
            let from = from.to_dtype(DType::BF16)?;
            let arguments = [
                Argument::from(&from),
                Argument::from(&slots),
                Argument::from(to),
                Argument::u32(width as u32),
            ];
            // Each thread has eight elements of a row.
            let launch = row_geometry(slots.len(), width / 8);
            self.gpu().launch("write_to_slots", launch, &arguments)?;
        }
        Ok(())
    }
}
