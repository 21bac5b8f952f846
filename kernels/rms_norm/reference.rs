//! RMSNorm in plain candle operations, in the order of the reference's `Qwen2RMSNorm.forward`.

use candle_core::D;

use crate::{Result, Tensor};

/// See [`super::forward`].
pub fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let (x, weight) = (&x.to_candle()?, &weight.to_candle()?);
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    let scale = (mean_square + f64::from(eps))?.sqrt()?.recip()?;
    Ok(x.broadcast_mul(&scale)?.broadcast_mul(weight)?.into())
}
