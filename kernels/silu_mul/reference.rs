//! SwiGLU's gate by candle.

use crate::{Result, Storage, Tensor};

/// See [`super::forward`].
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (Storage::Candle(gate), Storage::Candle(up)) = (gate.storage(), up.storage());
    Ok((gate.silu()? * up)?.into())
}
