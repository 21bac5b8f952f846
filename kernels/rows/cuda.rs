//! Rows moved on a CUDA device, see rows.cu. Elements are never looked at: all types are moved alike.

use crate::{
    Result,
    cuda::{Argument, CudaTensor, Launch},
    error::argument,
};

/// Row `indices[i]` of `x: (rows, …)` becomes row `i`; `indices: (n)` u32. Indices are as checked in
/// [`super::gather`]; on the device, one that is outside gives zeros.
pub(super) fn gather(x: &CudaTensor, indices: &CudaTensor) -> Result<CudaTensor> {
    let mut shape = x.shape().to_vec();
    let rows = std::mem::replace(&mut shape[0], indices.len());
    let out = x.gpu().uninitialised(&shape, x.dtype())?;
    launch(["gather_16", "gather_4", "gather_2"], x, indices, &out, rows)?;
    Ok(out)
}

/// A copy of `x: (rows, features)` whose row `indices[i]` is row `i` of `values`, of the same type; `indices: (n)` u32,
/// as checked in [`super::scatter`].
pub(super) fn scatter(x: &CudaTensor, indices: &CudaTensor, values: &CudaTensor) -> Result<CudaTensor> {
    values.expect_dtype("rows::scatter", "values", x.dtype())?;
    let out = x.copy()?;
    let rows = x.shape()[0];
    launch(["scatter_16", "scatter_4", "scatter_2"], values, indices, &out, rows)?;
    Ok(out)
}

/// `parts`, whose rows are alike, one below the other.
pub(super) fn concat(parts: &[&CudaTensor]) -> Result<CudaTensor> {
    let [first, ..] = parts else {
        return Err(argument("rows::concat", "parts", parts.len(), "at least one"));
    };
    let mut shape = first.shape().to_vec();
    shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
    let out = first.gpu().uninitialised(&shape, first.dtype())?;
    let mut row = 0;
    for part in parts {
        part.expect_dtype("rows::concat", "parts", first.dtype())?;
        out.set_rows(row, part)?;
        row += part.shape()[0];
    }
    Ok(out)
}

/// Starts one of the kernels for units of 16, 4 and 2 bytes. `from` and `to` have rows of the same length; `rows` are
/// those that the indices count.
fn launch(
    kernels: [&'static str; 3],
    from: &CudaTensor,
    indices: &CudaTensor,
    to: &CudaTensor,
    rows: usize,
) -> Result<()> {
    let row_bytes = from.shape()[1..].iter().product::<usize>() * from.dtype().size_in_bytes();
    let unit = unit_bytes(row_bytes as u64, from.address() | to.address());
    let units = row_bytes / unit;
    let n = indices.len();
    let arguments = [
        Argument::from(from),
        Argument::from(indices),
        Argument::from(to),
        Argument::u32(rows as u32),
        Argument::u32(n as u32),
        Argument::u32(units as u32),
    ];
    let kernel = match unit {
        16 => kernels[0],
        4 => kernels[1],
        _ => kernels[2],
    };
    from.gpu().launch(kernel, geometry(n, units)?, &arguments)
}

/// The widest unit that divides rows and addresses.
fn unit_bytes(row_bytes: u64, addresses: u64) -> usize {
    match (row_bytes | addresses).trailing_zeros() {
        4.. => 16,
        2 | 3 => 4,
        _ => 2,
    }
}

/// One thread for each unit of `n` rows.
fn geometry(n: usize, units: usize) -> Result<Launch> {
    const THREADS: usize = 256;
    let all = n.checked_mul(units).filter(|all| u32::try_from(*all).is_ok());
    let all = all.ok_or_else(|| argument("rows", "rows", (n, units), "less than 2^32 units in all"))?;
    Ok(Launch { grid: [all.div_ceil(THREADS) as u32, 1, 1], block: [THREADS as u32, 1, 1], shared_bytes: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_as_wide_as_rows_and_addresses_allow() {
        for (row_bytes, addresses, unit) in [
            (64, 0, 16),
            (0, 4096, 16),
            (64, 8, 4),
            (24, 0, 4),
            (20, 16, 4),
            (20, 2, 2),
            (6, 0, 2),
            (1 << 20, 4096 | 4, 4),
        ] {
            assert_eq!(unit_bytes(row_bytes, addresses), unit, "{row_bytes}, {addresses}");
        }
    }

    #[test]
    fn each_unit_has_a_thread() {
        let blocks = |n, units| geometry(n, units).map(|launch| launch.grid[0]);
        for (n, units, expected) in
            [(0, 9, 0), (9, 0, 0), (1, 1, 1), (16, 16, 1), (3, 86, 2), (16_384, 320, 20_480)]
        {
            assert_eq!(blocks(n, units).unwrap(), expected, "{n} x {units}");
        }
        assert!(blocks(1 << 20, 1 << 12).is_err() && blocks(usize::MAX, 2).is_err());
    }
}
