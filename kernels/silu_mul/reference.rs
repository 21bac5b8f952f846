//! SwiGLU's gate by candle.

use crate::{Result, Tensor};

/// See [`super::forward`].
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok((gate.to_candle()?.silu()? * up.to_candle()?)?.into())
}
