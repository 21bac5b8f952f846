//! The rotation in plain candle operations.

use candle_core::D;

use super::Tables;
use crate::{Result, Tensor};

/// See [`super::forward`].
pub fn forward(x: &Tensor, tables: &Tables) -> Result<Tensor> {
    let (x, cos, sin) = (x.to_candle()?, tables.cos.to_candle()?, tables.sin.to_candle()?);
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let rotated = candle_core::Tensor::cat(&[b.neg()?, a], D::Minus1)?;
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    Ok((x.broadcast_mul(&cos)? + rotated.broadcast_mul(&sin)?)?.into())
}
