//! Moving whole rows: gather by index, scatter by index, concatenation.

pub(crate) mod cpu;
mod cuda;
mod reference;

pub use reference::{gather as gather_reference, scatter as scatter_reference};

use crate::{Error, Result, Storage, Tensor, error::argument};

/// Row `indices[i]` of `x` becomes row `i`. `x: (rows, …)`; gives `(indices, …)`.
///
/// # Errors
/// [`Error::Index`] when an index is outside.
pub fn gather(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    check("rows::gather", indices, x.dim(0))?;
    let Some((rows, rest)) = x.shape().split_first() else {
        return Err(argument("rows::gather", "x", x.shape(), "at least one dimension"));
    };
    let values = match x.storage() {
        Storage::Host(values) => values.as_slice(),
        // A step of decoding wants all of its rows as they are.
        Storage::Cuda(_) if indices.iter().copied().eq(0..*rows as u32) => return Ok(x.clone()),
        Storage::Cuda(x) => return Ok(cuda::gather(x, &x.gpu().integers(indices)?)?.into()),
        Storage::Candle(_) => return x.alike("rows::gather", reference::gather(x, indices)?),
    };
    let width = rest.iter().product();
    let mut outcome = Ok(());
    let gathered =
        Tensor::host(&[indices.len(), width], |out| outcome = cpu::gather(values, width, indices, out))?;
    outcome?;
    match rest {
        [_] => Ok(gathered),
        _ => gathered.reshape(&[&[indices.len()], rest].concat()),
    }
}

/// A copy of `x: (rows, features)` whose row `indices[i]` is row `i` of `values: (indices, features)`.
/// The indices must differ from each other.
///
/// # Errors
/// [`Error::Index`] when an index is outside, [`Error::Argument`] when shapes disagree.
pub fn scatter(x: &Tensor, indices: &[u32], values: &Tensor) -> Result<Tensor> {
    const OP: &str = "rows::scatter";
    let [rows, features] = x.dims(OP, "x")?;
    values.expect_shape(OP, "values", &[indices.len(), features])?;
    check(OP, indices, rows)?;
    let (old, new) = match (x.storage(), values.storage()) {
        (Storage::Host(old), Storage::Host(new)) => (old.as_slice(), new.as_slice()),
        (Storage::Cuda(x), Storage::Cuda(values)) => {
            return Ok(cuda::scatter(x, &x.gpu().integers(indices)?, values)?.into());
        }
        _ => return x.alike(OP, reference::scatter(x, indices, values)?),
    };
    let mut outcome = Ok(());
    let scattered = Tensor::host(x.shape(), |out| {
        out.copy_from_slice(old);
        outcome = cpu::scatter(new, features, indices, out);
    })?;
    outcome.map(|()| scattered)
}

/// The tensors one below the other, along the first dimension.
///
/// # Errors
/// [`Error::Argument`] when there is none, or their other dimensions differ.
pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
    let [first, ..] = parts else {
        return Err(argument("rows::concat", "parts", parts.len(), "at least one"));
    };
    if let Some(other) = parts.iter().find(|p| p.shape().get(1..) != first.shape().get(1..)) {
        return Err(argument(
            "rows::concat",
            "parts",
            other.shape(),
            format!("rows as in {:?}", first.shape()),
        ));
    }
    if parts.iter().all(|part| part.as_host().is_some()) {
        let mut shape = first.shape().to_vec();
        shape[0] = parts.iter().map(|part| part.dim(0)).sum();
        return Tensor::host(&shape, |mut to| {
            for part in parts.iter().filter_map(Tensor::as_host) {
                let (rows, rest) = to.split_at_mut(part.len());
                rows.copy_from_slice(part);
                to = rest;
            }
        });
    }
    let on_device: Option<Vec<_>> = parts.iter().map(Tensor::as_cuda).collect();
    if let Some(parts) = on_device {
        return Ok(cuda::concat(&parts)?.into());
    }
    let candle = parts.iter().map(Tensor::to_candle).collect::<Result<Vec<_>>>()?;
    first.alike("rows::concat", candle_core::Tensor::cat(&candle, 0)?.into())
}

fn check(op: &'static str, indices: &[u32], len: usize) -> Result<()> {
    match indices.iter().find(|&&i| i as usize >= len) {
        Some(&index) => Err(Error::Index { op, index: index as usize, len }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn scatter_undoes_gather() {
        let x = testing::tensor(1, &[6, 3]);
        let order = [4, 1, 5, 0, 3, 2];
        let gathered = gather(&x, &order).unwrap();
        let zeros = Tensor::zeros(&[6, 3], &crate::Device::cpu()).unwrap();
        let back = scatter(&zeros, &order, &gathered).unwrap();
        assert_eq!(back.to_f32_vec().unwrap(), x.to_f32_vec().unwrap());
    }

    #[test]
    fn scatter_leaves_other_rows_alone() {
        let x = testing::tensor(1, &[4, 2]);
        let values = testing::tensor(2, &[1, 2]);
        let found = scatter(&x, &[2], &values).unwrap().to_f32_vec().unwrap();
        let (x, values) = (x.to_f32_vec().unwrap(), values.to_f32_vec().unwrap());
        assert_eq!(found, [&x[..4], &values[..], &x[6..]].concat());
    }

    #[test]
    fn nothing_is_fine() {
        let x = testing::tensor(1, &[4, 2]);
        assert_eq!(gather(&x, &[]).unwrap().shape(), [0, 2]);
        let none = gather(&x, &[]).unwrap();
        assert_eq!(scatter(&x, &[], &none).unwrap().shape(), [4, 2]);
    }

    #[test]
    fn concat_needs_rows_of_one_width() {
        let (a, b) = (testing::tensor(1, &[4, 2]), testing::tensor(2, &[1, 3]));
        assert_eq!(concat(&[a.clone(), a.clone()]).unwrap().shape(), [8, 2]);
        assert!(concat(&[a, b]).is_err());
        assert!(concat(&[]).is_err());
    }

    #[test]
    fn an_index_outside_is_named() {
        let error = gather(&testing::tensor(1, &[4, 2]), &[0, 4]).unwrap_err();
        assert_eq!(error.to_string(), "rows::gather: index 4 is outside of 4 rows");
    }
}
