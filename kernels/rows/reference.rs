//! Gather and scatter of rows by candle.

use crate::{Result, Tensor};

/// See [`super::gather`].
pub fn gather(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let x = x.to_candle()?;
    let indices = candle_core::Tensor::from_slice(indices, indices.len(), x.device())?;
    Ok(x.contiguous()?.index_select(&indices, 0)?.into())
}

/// See [`super::scatter`].
pub fn scatter(x: &Tensor, indices: &[u32], values: &Tensor) -> Result<Tensor> {
    let (x, values) = (&x.to_candle()?, &values.to_candle()?);
    if indices.is_empty() {
        return Ok(x.clone().into());
    }
    // Old and new rows one below the other, then each row from where it now comes from.
    let rows = x.dims()[0];
    let mut sources: Vec<u32> = (0..rows as u32).collect();
    for (i, &index) in indices.iter().enumerate() {
        sources[index as usize] = (rows + i) as u32;
    }
    let both = candle_core::Tensor::cat(&[x, values], 0)?;
    let sources = candle_core::Tensor::from_vec(sources, rows, x.device())?;
    Ok(both.index_select(&sources, 0)?.into())
}
