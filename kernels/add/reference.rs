//! Addition by candle.

use crate::{Result, Tensor};

/// See [`super::forward`].
pub fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((a.to_candle()? + b.to_candle()?)?.into())
}
