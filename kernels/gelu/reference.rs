//! The exact GELU by candle.

use crate::{Result, Tensor};

/// See [`super::forward`].
pub fn forward(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_candle()?.gelu_erf()?.into())
}
