//! The rotation in plain candle operations.

use candle_core::D;

use super::Tables;
use crate::{Result, Storage, Tensor};

/// See [`super::forward`].
pub fn forward(x: &Tensor, tables: &Tables) -> Result<Tensor> {
    let (Storage::Candle(x), Storage::Candle(cos), Storage::Candle(sin)) =
        (x.storage(), tables.cos.storage(), tables.sin.storage());
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let rotated = candle_core::Tensor::cat(&[b.neg()?, a], D::Minus1)?;
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    Ok((x.broadcast_mul(&cos)? + rotated.broadcast_mul(&sin)?)?.into())
}
