//! Addition by candle.

use crate::{Result, Storage, Tensor};

/// See [`super::forward`].
pub fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (Storage::Candle(a), Storage::Candle(b)) = (a.storage(), b.storage());
    Ok((a + b)?.into())
}
