//! Embedding on a CUDA device, see embedding.cu.

use super::OP;
use crate::{
    DType, Result,
    cuda::{Argument, CudaTensor, Launch},
    error::argument,
    linear::{CudaWeight, Kind},
};

/// Rows `ids: (n)` u32 of `table`, which has `rows` rows of `dim` features: `(n, dim)` f32. An id that is outside gives
/// zeros.
pub(super) fn forward(table: &CudaWeight, rows: usize, dim: usize, ids: &CudaTensor) -> Result<CudaTensor> {
    ids.expect_dtype(OP, "ids", DType::U32)?;
    let n = ids.len();
    let out = ids.gpu().uninitialised(&[n, dim], DType::F32)?;
    let (data, kind) = table.data();
    let (kernel, elements) = match kind {
        Kind::Bf16 => ("embedding_bf16", 8),
        Kind::Int8 => ("embedding_int8", 2),
        Kind::Int4 => ("embedding_int4", 2),
        Kind::Int4Zero => ("embedding_int4_zero", 2),
    };
    // Elements of a row, or bytes of sixteen.
    let pitch = data.shape()[1] * if kind == Kind::Bf16 { 1 } else { 4 };
    let arguments = [
        Argument::from(data),
        Argument::from(ids),
        Argument::from(&out),
        Argument::u32(rows as u32),
        Argument::u32(pitch as u32),
        Argument::u32(n as u32),
        Argument::u32(dim as u32),
    ];
    ids.gpu().launch(kernel, geometry(n, dim.div_ceil(elements))?, &arguments)?;
    Ok(out)
}

/// One thread for each of `units` parts of `n` rows.
fn geometry(n: usize, units: usize) -> Result<Launch> {
    const THREADS: usize = 256;
    let all = n.checked_mul(units).filter(|all| u32::try_from(*all).is_ok());
    let all = all.ok_or_else(|| argument(OP, "ids", n, format!("less than 2^32 / {units}")))?;
    Ok(Launch { grid: [all.div_ceil(THREADS) as u32, 1, 1], block: [THREADS as u32, 1, 1], shared_bytes: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_row_has_a_thread() {
        for (n, units, blocks) in [(0, 448, 0), (1, 448, 2), (16, 448, 28), (1276, 1792, 8932)] {
            assert_eq!(geometry(n, units).unwrap().grid, [blocks, 1, 1], "{n}, {units}");
        }
        assert!(geometry(1 << 24, 1 << 9).is_err());
    }
}
