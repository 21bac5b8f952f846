//! The largest elements of each row: `k = 1` is the arg-max of greedy decoding.

mod cuda;
mod reference;

pub use reference::forward as reference;

use crate::{DType, Result, Tensor, error::argument};

const OP: &str = "top_k";

/// An element of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Its column.
    pub index: u32,
    /// Its value.
    pub value: f32,
}

/// The `k` largest elements of each row of `x: (rows, columns)`, largest first; equal ones by index, NaN
/// counts as the smallest. Rows shorter than `k` give all their elements.
///
/// # Errors
/// [`crate::Error::Argument`] when `k` is 0.
pub fn forward(x: &Tensor, k: usize) -> Result<Vec<Vec<Entry>>> {
    let [_, _] = x.dims(OP, "x")?;
    if k == 0 {
        return Err(argument(OP, "k", k, "at least 1"));
    }
    match x.as_cuda() {
        Some(x) if k <= cuda::MOST && x.dtype() == DType::F32 => cuda::forward(x, k),
        _ => reference::forward(x, k),
    }
}

/// The column of the largest element of each row of `x: (rows, columns)`, the first one among equals.
///
/// # Errors
/// [`crate::Error::Argument`] when a row has no element.
pub fn argmax(x: &Tensor) -> Result<Vec<u32>> {
    forward(x, 1)?
        .into_iter()
        .map(|row| row.first().map(|e| e.index))
        .collect::<Option<_>>()
        .ok_or_else(|| argument(OP, "x", x.shape(), "at least one column"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, testing};

    fn rows(values: &[f32], columns: usize) -> Tensor {
        Tensor::from_f32(values.to_vec(), &[values.len() / columns, columns], &Device::cpu()).unwrap()
    }

    #[test]
    fn equals_a_full_sort() {
        for (n_rows, columns, k) in [(1, 1, 1), (3, 7, 3), (2, 1000, 50), (2, 5, 9)] {
            let x = testing::tensor(columns as u64, &[n_rows, columns]);
            for (row, values) in forward(&x, k).unwrap().iter().zip(x.to_f32_vec().unwrap().chunks(columns)) {
                let mut sorted: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
                sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                let expected: Vec<Entry> =
                    sorted.iter().take(k).map(|&(i, value)| Entry { index: i as u32, value }).collect();
                assert_eq!(*row, expected);
            }
        }
    }

    #[test]
    fn the_first_of_equals_wins_and_nan_loses() {
        assert_eq!(argmax(&rows(&[1.0, 3.0, 3.0, f32::NAN], 4)).unwrap(), [1]);
        assert_eq!(argmax(&rows(&[f32::NAN, f32::NEG_INFINITY], 2)).unwrap(), [1]);
        assert_eq!(argmax(&rows(&[f32::NAN, f32::NAN], 2)).unwrap(), [0]);
        let order: Vec<u32> =
            forward(&rows(&[f32::NAN, 1.0, 2.0, 1.0], 4), 4).unwrap()[0].iter().map(|e| e.index).collect();
        assert_eq!(order, [2, 1, 3, 0]);
    }

    #[test]
    fn k_of_nothing_is_refused() {
        assert!(forward(&rows(&[1.0], 1), 0).is_err());
    }
}
