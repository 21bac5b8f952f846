//! Top-k on a CUDA device, see top_k.cu.

use super::{Entry, OP};
use crate::{
    DType, Result,
    cuda::{Argument, CudaTensor, Launch},
};

/// More of a row than this is looked for on the host: each takes a round.
pub(super) const MOST: usize = 64;

/// Elements of a row that one block looks at.
const CHUNK: usize = 2048;
/// Bytes of `Together` in order.cuh.
const SHARED_BYTES: u32 = 144;

/// `x: (rows, columns)` f32, `k` between 1 and [`MOST`].
pub(super) fn forward(x: &CudaTensor, k: usize) -> Result<Vec<Vec<Entry>>> {
    x.expect_dtype(OP, "x", DType::F32)?;
    let (rows, columns) = (x.shape()[0], x.shape()[1]);
    let found = k.min(columns);
    if found == 0 {
        return Ok(vec![Vec::new(); rows]);
    }
    let gpu = x.gpu();
    let launch = geometry(rows, columns);
    let candidates = gpu.allocate(rows * launch.grid[0] as usize * found * size_of::<u64>())?;
    let arrived = gpu.uninitialised(&[rows], DType::U32)?;
    arrived.clear()?;
    // Columns, and then the bits of their elements: one copy to the host.
    let both = gpu.uninitialised(&[2, rows * found], DType::U32)?;
    let arguments = [
        Argument::from(x),
        Argument::u32(columns as u32),
        Argument::u32(found as u32),
        Argument::address(candidates.address()),
        Argument::from(&arrived),
        Argument::from(&both),
        Argument::from(&both.narrow(0, 1, 1)?),
    ];
    gpu.launch("top_k", launch, &arguments)?;
    let both = both.to_u32_vec()?;
    let (indices, values) = both.split_at(rows * found);
    let rows = indices.chunks_exact(found).zip(values.chunks_exact(found));
    let entry = |(&index, &bits): (&u32, &u32)| Entry { index, value: f32::from_bits(bits) };
    Ok(rows.map(|(indices, values)| indices.iter().zip(values).map(entry).collect()).collect())
}

/// One block for each chunk of each row.
fn geometry(rows: usize, columns: usize) -> Launch {
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    Launch { grid: [columns.div_ceil(CHUNK) as u32, rows, 1], block: [256, 1, 1], shared_bytes: SHARED_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_of_each_row_has_a_block() {
        for ((rows, columns), grid) in
            [((1, 151_936), [75, 1, 1]), ((16, 2048), [1, 16, 1]), ((0, 2049), [2, 0, 1])]
        {
            assert_eq!(geometry(rows, columns).grid, grid, "{rows}, {columns}");
        }
    }
}
