//! Causal attention over the paged cache on a CUDA device: sequences with few queries by splitting their keys, the others
//! in tiles.

use super::{THREADS, check_scale, stride, tiled_bytes};
use crate::{
    DType, Result,
    attention::CAUSAL as OP,
    cuda::{Argument, CudaTensor, Launch},
    error::argument,
    kv_cache::cuda::CudaLayer,
    step::cuda::{BLOCK, DeviceStep, Few},
};

/// Warps of a block, and blocks of keys that each has on their way.
const WARPS: usize = 4;
const STAGES: usize = 2;

/// The kernels for heads of one width.
struct Kernels {
    tiled: &'static str,
    /// For at most 16 and 32 rows of a sequence.
    split: [&'static str; 2],
    combine: &'static str,
}

impl Kernels {
    fn of(head_dim: usize) -> Option<Self> {
        Some(match head_dim {
            16 => Self {
                tiled: "attention_causal_16",
                split: ["attention_split_16_16", "attention_split_16_32"],
                combine: "attention_combine_16",
            },
            32 => Self {
                tiled: "attention_causal_32",
                split: ["attention_split_32_16", "attention_split_32_32"],
                combine: "attention_combine_32",
            },
            64 => Self {
                tiled: "attention_causal_64",
                split: ["attention_split_64_16", "attention_split_64_32"],
                combine: "attention_combine_64",
            },
            128 => Self {
                tiled: "attention_causal_128",
                split: ["attention_split_128_16", "attention_split_128_32"],
                combine: "attention_combine_128",
            },
            _ => return None,
        })
    }
}

/// `q: (tokens, heads, head_dim)`; gives the same shape in bf16. Shapes are as checked in [`crate::attention::causal`].
pub(crate) fn forward(
    q: &CudaTensor,
    layer: &CudaLayer,
    step: &DeviceStep,
    scale: f32,
) -> Result<CudaTensor> {
    check_scale(OP, scale)?;
    let q = &q.to_dtype(DType::BF16)?;
    let (heads, head_dim) = (q.shape()[1], q.shape()[2]);
    let kernels =
        Kernels::of(head_dim).ok_or_else(|| argument(OP, "head_dim", head_dim, "16, 32, 64 or 128"))?;
    if heads != step.group() * layer.kv_heads || q.shape()[0] != step.tokens() {
        let expected = format!("{} tokens of {} heads", step.tokens(), step.group() * layer.kv_heads);
        return Err(argument(OP, "q", q.shape(), expected));
    }
    let call = Call { q, layer, step, scale, out: &q.gpu().uninitialised(q.shape(), DType::BF16)? };
    for ((few, sequences), (split, rows)) in
        step.few().into_iter().zip(kernels.split.into_iter().zip([16, 32]))
    {
        if few.sequences > 0 {
            call.split(few, sequences, rows, [split, kernels.combine])?;
        }
    }
    let (tiles, sequences) = step.many();
    if tiles > 0 {
        call.tiled(tiles, sequences, kernels.tiled)?;
    }
    Ok(call.out.clone())
}

/// What all launches share.
struct Call<'a> {
    q: &'a CudaTensor,
    layer: &'a CudaLayer,
    step: &'a DeviceStep,
    scale: f32,
    out: &'a CudaTensor,
}

impl Call<'_> {
    fn heads(&self) -> [Argument; 2] {
        let kv_heads = self.layer.kv_heads;
        [self.step.group() * kv_heads, kv_heads].map(|n| Argument::u32(n as u32))
    }

    fn tiled(&self, tiles: usize, sequences: &CudaTensor, kernel: &'static str) -> Result<()> {
        let [heads, kv_heads] = self.heads();
        let arguments = [
            Argument::from(self.q),
            Argument::from(&self.layer.keys),
            Argument::from(&self.layer.values),
            Argument::from(&self.step.tables),
            Argument::from(sequences),
            Argument::from(&self.step.tiles),
            Argument::from(self.out),
            Argument::u32(self.step.table_width() as u32),
            heads,
            kv_heads,
            Argument::f32(self.scale),
        ];
        let launch = Launch {
            grid: [tiles as u32, self.layer.kv_heads as u32, 1],
            block: [THREADS, 1, 1],
            shared_bytes: tiled_bytes(self.layer.head_dim),
        };
        self.q.gpu().launch(kernel, launch, &arguments)
    }

    fn split(
        &self,
        few: Few,
        sequences: &CudaTensor,
        rows: usize,
        [split, combine]: [&'static str; 2],
    ) -> Result<()> {
        let CudaLayer { kv_heads, head_dim, .. } = *self.layer;
        let gpu = self.q.gpu();
        // Sums of every split before the division, and of each row the largest score and the sum of weights.
        let all_rows = few.sequences * kv_heads * few.splits * rows;
        let partial = gpu.uninitialised(&[all_rows, head_dim], DType::F32)?;
        let weights = gpu.uninitialised(&[all_rows, 2], DType::F32)?;
        let [heads, n_kv_heads] = self.heads();
        let n_splits = Argument::u32(few.splits as u32);
        let arguments = [
            Argument::from(self.q),
            Argument::from(&self.layer.keys),
            Argument::from(&self.layer.values),
            Argument::from(&self.step.tables),
            Argument::from(sequences),
            Argument::from(&partial),
            Argument::from(&weights),
            Argument::u32(self.step.table_width() as u32),
            n_splits,
            heads,
            n_kv_heads,
            Argument::f32(self.scale),
        ];
        gpu.launch(split, split_geometry(few, kv_heads, head_dim, rows), &arguments)?;
        let arguments = [
            Argument::from(&partial),
            Argument::from(&weights),
            Argument::from(sequences),
            Argument::from(self.out),
            n_splits,
            Argument::u32(rows as u32),
            heads,
            n_kv_heads,
        ];
        gpu.launch(combine, combine_geometry(few, kv_heads, head_dim), &arguments)
    }
}

/// A block for each split, head of keys and sequence.
fn split_geometry(few: Few, kv_heads: usize, head_dim: usize, rows: usize) -> Launch {
    let stages = WARPS * STAGES * 2 * BLOCK * stride(head_dim);
    Launch {
        grid: [few.splits as u32, kv_heads as u32, few.sequences as u32],
        block: [THREADS, 1, 1],
        shared_bytes: (stages + rows * stride(head_dim)) as u32,
    }
}

/// A block for each row, a thread for each column.
fn combine_geometry(few: Few, kv_heads: usize, head_dim: usize) -> Launch {
    Launch {
        grid: [few.rows as u32, kv_heads as u32, few.sequences as u32],
        block: [head_dim.max(32) as u32, 1, 1],
        shared_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_rows_have_their_blocks() {
        let few = Few { sequences: 3, splits: 11, rows: 7 };
        let launch = split_geometry(few, 4, 128, 16);
        assert_eq!((launch.grid, launch.shared_bytes), ([11, 4, 3], 73_984));
        assert_eq!(split_geometry(few, 4, 128, 32).shared_bytes, 78_336);
        // Devices of compute capability 8.6 and 8.9 have the least: 99 KiB for a block.
        assert!(split_geometry(few, 4, 128, 32).shared_bytes <= 99 << 10);
        assert_eq!(
            combine_geometry(few, 4, 128),
            Launch { grid: [7, 4, 3], block: [128, 1, 1], shared_bytes: 0 }
        );
        assert_eq!(combine_geometry(few, 2, 16).block, [32, 1, 1]);
    }
}
