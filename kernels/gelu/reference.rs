//! The exact GELU by candle.

use crate::{Result, Storage, Tensor};

/// See [`super::forward`].
pub fn forward(x: &Tensor) -> Result<Tensor> {
    let Storage::Candle(x) = x.storage();
    Ok(x.gelu_erf()?.into())
}
