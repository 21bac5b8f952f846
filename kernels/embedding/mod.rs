//! Embedding: row `ids[i]` of the table becomes row `i` of the output.
//!
//! `table: (vocabulary, dim)` in its stored type, `ids: (tokens)`, output `(tokens, dim)` f32.

mod cuda;
mod reference;

pub use reference::forward as reference;

use crate::{
    Error, Result, Tensor,
    error::argument,
    linear::{Weight, WeightStorage},
};

const OP: &str = "embedding";

/// The rows of `table` that `ids` name, widened to f32: `(tokens, dim)`.
///
/// # Errors
/// [`Error::Index`] when an id is outside of the table.
pub fn forward(table: &Weight, ids: &[u32]) -> Result<Tensor> {
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= table.rows()) {
        return Err(Error::Index { op: OP, index: id as usize, len: table.rows() });
    }
    match &table.storage {
        WeightStorage::Candle(_) => reference::forward(table, ids),
        WeightStorage::Cuda(weight) => {
            let ids = weight.data().0.gpu().integers(ids)?;
            Ok(cuda::forward(weight, table.rows(), table.cols(), &ids)?.into())
        }
        _ => host(table, ids),
    }
}

/// The same for ids that lie in the memory of the table's CUDA device, u32 of any shape, where the host does not see
/// them: one that is outside of the table gives zeros.
///
/// # Errors
/// [`Error::Argument`] when either lies elsewhere.
pub fn forward_ids(table: &Weight, ids: &Tensor) -> Result<Tensor> {
    match (&table.storage, ids.as_cuda()) {
        (WeightStorage::Cuda(weight), Some(ids)) => {
            Ok(cuda::forward(weight, table.rows(), table.cols(), ids)?.into())
        }
        _ => Err(argument(OP, "ids", "on the host", "on the CUDA device of the table")),
    }
}

fn host(table: &Weight, ids: &[u32]) -> Result<Tensor> {
    let mut outcome = Ok(());
    let rows = Tensor::host(&[ids.len(), table.cols()], |rows| {
        let mut rows = rows.chunks_exact_mut(table.cols().max(1)).zip(ids);
        outcome = rows.try_for_each(|(row, &id)| table.read_row(id as usize, row));
    })?;
    outcome.map(|()| rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, testing};

    #[test]
    fn rows_come_in_the_order_of_ids() {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            let table = testing::weight(1, 7, 5, dtype);
            let all = forward(&table, &[0, 1, 2, 3, 4, 5, 6]).unwrap().to_f32_vec().unwrap();
            let some = forward(&table, &[6, 0, 6]).unwrap();
            assert_eq!(some.shape(), [3, 5]);
            assert_eq!(some.to_f32_vec().unwrap(), [&all[30..35], &all[0..5], &all[30..35]].concat());
        }
    }

    #[test]
    fn an_id_outside_is_named() {
        let error = forward(&testing::weight(1, 7, 5, DType::BF16), &[3, 7]).unwrap_err();
        assert_eq!(error.to_string(), "embedding: index 7 is outside of 7 rows");
    }
}
