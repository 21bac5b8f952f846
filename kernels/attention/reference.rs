//! Attention in plain candle operations: products, softmax, products, one segment after another.

use candle_core::{D, Device, Tensor as Candle};

use super::Sequence;
use crate::{
    Result, Tensor,
    error::argument,
    kv_cache::{self, Exact, Storage},
};

/// Scores are made for so many elements at a time (256 MiB of f32), whatever the length of a segment.
const MAX_SCORES: usize = 1 << 26;

/// See [`super::varlen`].
pub fn varlen(q: &Tensor, k: &Tensor, v: &Tensor, lengths: &[usize], scale: f32) -> Result<Tensor> {
    let (q, k, v) = (&q.to_candle()?, &k.to_candle()?, &v.to_candle()?);
    let (q, k, v) = (heads_first(q)?, heads_first(k)?, heads_first(v)?);
    let heads = q.dim(0)?;
    let (mut outputs, mut start) = (Vec::with_capacity(lengths.len()), 0);
    for &length in lengths.iter().filter(|&&n| n > 0) {
        let keys = k.narrow(1, start, length)?.transpose(1, 2)?;
        let values = v.narrow(1, start, length)?.contiguous()?;
        let rows = (MAX_SCORES / (heads * length).max(1)).clamp(1, length);
        for first in (0..length).step_by(rows) {
            let queries = q.narrow(1, start + first, rows.min(length - first))?;
            let scores = (queries.matmul(&keys)? * f64::from(scale))?;
            outputs.push(softmax(&scores)?.matmul(&values)?);
        }
        start += length;
    }
    if outputs.is_empty() {
        return Ok(q.transpose(0, 1)?.contiguous()?.into());
    }
    Ok(Candle::cat(&outputs, 1)?.transpose(0, 1)?.contiguous()?.into())
}

/// The same as [`super::varlen`] by attending to everything under a mask: the witness that windows attended
/// as windows are right. Its cost grows with the square of all tokens.
///
/// # Errors
/// When candle refuses.
pub fn varlen_masked(q: &Tensor, k: &Tensor, v: &Tensor, lengths: &[usize], scale: f32) -> Result<Tensor> {
    let (q, k, v) = (&q.to_candle()?, &k.to_candle()?, &v.to_candle()?);
    let segments: Vec<usize> =
        lengths.iter().enumerate().flat_map(|(segment, &n)| std::iter::repeat_n(segment, n)).collect();
    let mask: Vec<f32> = segments
        .iter()
        .flat_map(|a| segments.iter().map(move |b| if a == b { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    let mask = Candle::from_vec(mask, (segments.len(), segments.len()), q.device())?;
    let (q, k, v) = (heads_first(q)?, heads_first(k)?, heads_first(v)?);
    let scores = (q.matmul(&k.transpose(1, 2)?)? * f64::from(scale))?.broadcast_add(&mask)?;
    Ok(softmax(&scores)?.matmul(&v)?.transpose(0, 1)?.contiguous()?.into())
}

/// See [`super::causal`].
pub fn causal(q: &Tensor, cache: &kv_cache::Layer, sequences: &[Sequence<'_>], scale: f32) -> Result<Tensor> {
    let Storage::Exact(Exact { keys, values }) = &cache.storage else {
        return Err(argument("attention::causal", "cache", "bf16", "f32"));
    };
    let q = &q.to_candle()?;
    let (_, heads, head_dim) = q.dims3()?;
    let kv_heads = keys.dim(1)?;
    let group = heads / kv_heads;
    let (mut outputs, mut start) = (Vec::new(), 0);
    for s in sequences.iter().filter(|s| s.queries > 0) {
        let slots = cache.slots_of(s.blocks, 0..s.keys)?;
        let slots = Candle::from_vec(slots, s.keys, q.device())?;
        // (kv_heads, keys, head_dim) each.
        let k = heads_first(&keys.index_select(&slots, 0)?)?.transpose(1, 2)?;
        let v = heads_first(&values.index_select(&slots, 0)?)?;
        let rows = (MAX_SCORES / (heads * s.keys).max(1)).clamp(1, s.queries);
        for first in (0..s.queries).step_by(rows) {
            let n = rows.min(s.queries - first);
            // The query heads of a group become rows of one product: (kv_heads, group * n, head_dim).
            let queries = q
                .narrow(0, start + first, n)?
                .reshape((n, kv_heads, group, head_dim))?
                .permute((1, 2, 0, 3))?
                .contiguous()?
                .reshape((kv_heads, group * n, head_dim))?;
            let mut scores = (queries.matmul(&k)? * f64::from(scale))?;
            let visible = s.keys - s.queries + first;
            if visible + 1 < s.keys {
                let mask = causal_mask(n, s.keys, visible, q.device())?;
                scores = scores.reshape((kv_heads, group, n, s.keys))?.broadcast_add(&mask)?.reshape((
                    kv_heads,
                    group * n,
                    s.keys,
                ))?;
            }
            let out = softmax(&scores)?.matmul(&v)?.reshape((kv_heads, group, n, head_dim))?;
            outputs.push(out.permute((2, 0, 1, 3))?.contiguous()?.reshape((n, heads, head_dim))?);
        }
        start += s.queries;
    }
    if outputs.is_empty() {
        return Ok(q.clone().into());
    }
    Ok(Candle::cat(&outputs, 0)?.into())
}

/// `(rows, keys)`: 0 where row `i` may see the key (`key <= visible + i`), minus infinity elsewhere.
fn causal_mask(rows: usize, keys: usize, visible: usize, device: &Device) -> Result<Candle> {
    let mask: Vec<f32> = (0..rows)
        .flat_map(|i| (0..keys).map(move |key| if key <= visible + i { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    Ok(Candle::from_vec(mask, (rows, keys), device)?)
}

/// `(tokens, heads, head_dim)` to `(heads, tokens, head_dim)`.
fn heads_first(x: &Candle) -> Result<Candle> {
    Ok(x.transpose(0, 1)?.contiguous()?)
}

/// Softmax over the last dimension, in f32.
fn softmax(scores: &Candle) -> Result<Candle> {
    let largest = scores.max_keepdim(D::Minus1)?;
    let exponentials = scores.broadcast_sub(&largest)?.exp()?;
    let sums = exponentials.sum_keepdim(D::Minus1)?;
    Ok(exponentials.broadcast_div(&sums)?)
}
