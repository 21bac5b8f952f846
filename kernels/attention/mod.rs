//! Scaled dot-product attention, `softmax(q · kᵀ · scale) · v`, over packed sequences
//! (Vaswani et al., <https://arxiv.org/abs/1706.03762>).
//!
//! - [`varlen`]: the vision tower. Tokens attend to all tokens of their own segment and to none outside;
//!   a segment is a window or a whole picture. Its cost is the sum of the segments' squares: there is no mask.
//! - [`causal`]: the decoder. Keys and values are read from the paged cache, and groups of query heads share
//!   one head of keys and values (Ainslie et al., <https://arxiv.org/abs/2305.13245>).

pub(crate) mod cpu;
pub(crate) mod cuda;
mod reference;

pub use reference::{causal as causal_reference, varlen as varlen_reference, varlen_masked};

use self::cpu::{
    causal::{Causal, causal_bf16},
    varlen::{Varlen, varlen_bf16},
};
use crate::{
    Device, Precision, Result, Tensor,
    error::argument,
    kv_cache,
    processor::Isa,
    rotary::{self, Tables},
    step::Step,
};

const CAUSAL: &str = "attention::causal";
const VARLEN_ROTATED: &str = "attention::varlen_rotated";

/// The part of a packed batch that belongs to one sequence, for [`causal`].
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// How many of the batch's rows are this sequence's: the newest tokens.
    pub queries: usize,
    /// How many of its tokens are in the cache, the newest ones included.
    pub keys: usize,
    /// The blocks that it owns, in the order of its tokens.
    pub blocks: &'a [u32],
}

/// Attention within segments. `q`, `k`, `v`: `(tokens, heads, head_dim)` f32; `lengths`: tokens of each
/// segment, in sum all tokens. Gives `(tokens, heads, head_dim)`.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes or lengths disagree.
pub fn varlen(q: &Tensor, k: &Tensor, v: &Tensor, lengths: &[usize], scale: f32) -> Result<Tensor> {
    const OP: &str = "attention::varlen";
    let [tokens, _, _] = q.dims(OP, "q")?;
    k.expect_shape(OP, "k", q.shape())?;
    v.expect_shape(OP, "v", q.shape())?;
    if lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(tokens) {
        return Err(argument(
            OP,
            "lengths",
            lengths.iter().take(8).collect::<Vec<_>>(),
            format!("{tokens} in sum"),
        ));
    }
    q.alike(OP, reference::varlen(q, k, v, lengths, scale)?)
}

/// Segments that lie one after another and cover all tokens: windows, or whole pictures. On a CUDA device they are put into
/// its memory once and serve all layers.
#[derive(Debug)]
pub struct Segments {
    lengths: Vec<usize>,
    device: Option<cuda::varlen::DeviceSegments>,
}

impl Segments {
    /// Segments of `lengths` tokens each.
    ///
    /// # Errors
    /// When the device has no room, or there are too many tokens to count.
    pub fn new(lengths: &[usize], device: &Device) -> Result<Self> {
        let device = device.gpu().map(|gpu| cuda::varlen::DeviceSegments::new(gpu, lengths)).transpose()?;
        Ok(Self { lengths: lengths.to_vec(), device })
    }
}

/// What [`varlen_rotated`] attends with.
#[derive(Clone, Copy, Debug)]
pub struct Rotated<'a> {
    /// `(tokens, 3 * heads * head_dim)`: queries, keys and values side by side, not yet rotated.
    pub qkv: &'a Tensor,
    /// The angles by which queries and keys are rotated.
    pub tables: &'a Tables,
    /// Heads of queries, and as many of keys and values.
    pub heads: usize,
}

/// Rotates queries and keys and then attends within segments, as [`varlen`]; gives `(tokens, heads * head_dim)`, on a CUDA
/// device as bf16. `precision` is that of the layer that `qkv` comes from.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes or lengths disagree.
pub fn varlen_rotated(
    rotated: Rotated<'_>,
    segments: &Segments,
    scale: f32,
    precision: Precision,
) -> Result<Tensor> {
    let Rotated { qkv, tables, heads } = rotated;
    let (tokens, head_dim, lengths) = (tables.tokens(), tables.head_dim(), &*segments.lengths);
    let width = heads * head_dim;
    qkv.expect_shape(VARLEN_ROTATED, "qkv", &[tokens, 3 * width])?;
    if let (Some(qkv), Some(cos), Some(sin), Some(segments), Some(kernels)) = (
        qkv.as_cuda(),
        tables.cos.as_cuda(),
        tables.sin.as_cuda(),
        &segments.device,
        cuda::varlen::kernels(head_dim),
    ) {
        let rotated = cuda::varlen::Rotated { qkv, cos, sin, heads, head_dim };
        return Ok(cuda::varlen::forward(&rotated, segments, scale, kernels)?.into());
    }
    if let (Precision::Bf16, Some(values), Some(cos), Some(sin)) =
        (precision, qkv.as_host(), tables.cos.as_host(), tables.sin.as_host())
    {
        let mut outcome = Ok(());
        let attended = Tensor::host(&[tokens, width], |out| {
            let arguments = Varlen { qkv: values, cos, sin, heads, head_dim, lengths, scale, out };
            outcome = varlen_bf16(Isa::current(), arguments);
        })?;
        return outcome.map(|()| attended);
    }
    let part = |i| qkv.narrow(1, i * width, width)?.reshape(&[tokens, heads, head_dim]);
    let (q, k) = (rotary::forward(&part(0)?, tables)?, rotary::forward(&part(1)?, tables)?);
    varlen(&q, &k, &part(2)?, lengths, scale)?.reshape(&[tokens, width])
}

/// Causal attention of the newest tokens of each sequence of `step` over all its tokens in the cache, which the new
/// ones have been written to already. `q: (tokens, heads, head_dim)`, f32 or on a CUDA device bf16, with the sequences'
/// queries side by side; `heads` is a multiple of the cache's. Gives `(tokens, heads, head_dim)`.
///
/// # Errors
/// [`crate::Error::Argument`] or [`crate::Error::Index`] when shapes, lengths or blocks disagree.
pub fn causal(q: &Tensor, cache: &kv_cache::Layer, step: &Step<'_>, scale: f32) -> Result<Tensor> {
    const OP: &str = CAUSAL;
    let sequences = step.parts.sequences;
    let [tokens, heads, head_dim] = q.dims(OP, "q")?;
    let (kv_heads, cached_dim) = cache.heads();
    if head_dim != cached_dim || !heads.is_multiple_of(kv_heads) {
        return Err(argument(OP, "q", q.shape(), format!("a multiple of {kv_heads} heads of {cached_dim}")));
    }
    if step.tokens() != tokens {
        return Err(argument(OP, "sequences", sequences.len(), format!("{tokens} queries in sum")));
    }
    if let (Some(q), Some(layer), Some(step)) = (q.as_cuda(), cache.cuda(), &step.device) {
        return Ok(cuda::causal::forward(q, layer, step, scale)?.into());
    }
    match (&cache.storage, q.as_host()) {
        (kv_cache::Storage::Bf16(layer), Some(values)) => {
            let mut outcome = Ok(());
            let attended = Tensor::host(q.shape(), |out| {
                let arguments = Causal { q: values, heads, cache: layer, sequences, scale, out };
                outcome = causal_bf16(Isa::current(), arguments);
            })?;
            outcome.map(|()| attended)
        }
        _ => q.alike(OP, reference::causal(q, cache, sequences, scale)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Device,
        rotary::Multimodal,
        step::{Parts, Step},
        testing,
    };

    /// Softmax weights sum to 1 and values are below 1, so an output is off by a few f32 roundings.
    const TOLERANCE: f32 = 2e-6;

    fn qkv(tokens: usize, heads: usize, head_dim: usize) -> [Tensor; 3] {
        [1, 2, 3].map(|seed| testing::tensor(seed, &[tokens, heads, head_dim]))
    }

    #[test]
    fn segments_equal_masked_full_attention() {
        for (heads, head_dim) in [(1, 4), (3, 16), (2, 80)] {
            for lengths in [&[1][..], &[4, 4], &[64, 64, 16, 48], &[1, 0, 63, 65], &[28, 2, 7]] {
                let [q, k, v] = qkv(lengths.iter().sum(), heads, head_dim);
                let found = varlen(&q, &k, &v, lengths, 0.3).unwrap();
                let expected = varlen_masked(&q, &k, &v, lengths, 0.3).unwrap();
                testing::assert_close(&format!("{lengths:?}"), &found, &expected, TOLERANCE);
            }
        }
    }

    #[test]
    fn lengths_must_cover_all_tokens() {
        let [q, k, v] = qkv(5, 1, 4);
        let error = varlen(&q, &k, &v, &[2, 2], 1.0).unwrap_err();
        assert_eq!(error.to_string(), "attention::varlen: lengths is [2, 2], expected 5 in sum");
        assert!(varlen(&q, &k, &v, &[usize::MAX, 6], 1.0).is_err());
    }

    /// Attention by the formula, one query and one key after another, in f64.
    fn plain_causal(q: &[f32], k: &[f32], v: &[f32], sizes: Sizes) -> Vec<f32> {
        let Sizes { queries, keys, heads, kv_heads, head_dim, scale } = sizes;
        let mut out = Vec::new();
        for query in 0..queries {
            for head in 0..heads {
                let q = &q[(query * heads + head) * head_dim..][..head_dim];
                let kv_head = head / (heads / kv_heads);
                let row = |x: &'_ [f32], key: usize| {
                    x[(key * kv_heads + kv_head) * head_dim..][..head_dim].to_vec()
                };
                let visible = keys - queries + query + 1;
                let scores: Vec<f64> = (0..visible)
                    .map(|key| {
                        q.iter().zip(row(k, key)).map(|(&a, b)| f64::from(a) * f64::from(b)).sum::<f64>()
                    })
                    .map(|score| (score * f64::from(scale)).exp())
                    .collect();
                let sum: f64 = scores.iter().sum();
                for i in 0..head_dim {
                    let value: f64 =
                        scores.iter().enumerate().map(|(key, s)| s * f64::from(row(v, key)[i])).sum();
                    out.push((value / sum) as f32);
                }
            }
        }
        out
    }

    #[derive(Clone, Copy)]
    struct Sizes {
        queries: usize,
        keys: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        scale: f32,
    }

    /// A step of which only the sequences matter.
    fn step<'a>(sequences: &'a [Sequence<'a>], heads: usize, cache: &kv_cache::Layer) -> Result<Step<'a>> {
        const ROPE: Multimodal<'static> = Multimodal { head_dim: 4, theta: 1e4, sections: &[1, 1, 0] };
        const SLOTS: &[u32] = &[0; 64];
        const POSITIONS: &[[u32; 3]] = &[[0; 3]; 64];
        let tokens = sequences.iter().map(|s| s.queries).sum();
        let (slots, positions) = (&SLOTS[..tokens], &POSITIONS[..tokens]);
        Step::new(Parts { sequences, slots, positions, rope: ROPE, heads }, cache)
    }

    /// Two sequences side by side over blocks in disorder equal the formula on each.
    fn check_causal(sizes: [Sizes; 2], block_size: usize) {
        let Sizes { heads, kv_heads, head_dim, scale, .. } = sizes[0];
        let shape =
            kv_cache::Shape { blocks: 64, block_size, kv_heads, head_dim, precision: Precision::Exact };
        let mut cache = kv_cache::Layer::new(shape, &Device::cpu()).unwrap();
        let blocks: [Vec<u32>; 2] = [(0..32).rev().collect(), (32..64).map(|b| b ^ 1).collect()];
        let (mut queries, mut expected) = (Vec::new(), Vec::new());
        for (i, sizes) in sizes.iter().enumerate() {
            let seed = 10 * i as u64;
            let (k, v) = (seed + 1, seed + 2);
            let [k, v] = [k, v].map(|seed| testing::tensor(seed, &[sizes.keys, kv_heads, head_dim]));
            let slots = cache.slots_of(&blocks[i], 0..sizes.keys).unwrap();
            kv_cache::write(&mut cache, &k, &v, &slots).unwrap();
            let q = testing::numbers(seed + 3, sizes.queries * heads * head_dim);
            expected.extend(plain_causal(&q, &k.to_f32_vec().unwrap(), &v.to_f32_vec().unwrap(), *sizes));
            queries.extend(q);
        }
        let tokens = sizes.iter().map(|s| s.queries).sum();
        let q = Tensor::from_f32(queries, &[tokens, heads, head_dim], &Device::cpu()).unwrap();
        let sequences: Vec<_> = sizes
            .iter()
            .zip(&blocks)
            .map(|(s, blocks)| Sequence { queries: s.queries, keys: s.keys, blocks })
            .collect();
        let step = step(&sequences, heads, &cache).unwrap();
        let found = causal(&q, &cache, &step, scale).unwrap().to_f32_vec().unwrap();
        testing::assert_values("causal", &found, &expected, TOLERANCE);
    }

    #[test]
    fn groups_of_heads_share_keys_and_nobody_sees_the_future() {
        for (heads, kv_heads, head_dim) in [(1, 1, 4), (4, 2, 16), (7, 1, 8), (16, 2, 128)] {
            for block_size in [1, 4, 16] {
                let sizes = |queries, keys| Sizes { queries, keys, heads, kv_heads, head_dim, scale: 0.25 };
                check_causal([sizes(1, 1), sizes(1, 17)], block_size);
                check_causal([sizes(16, 16), sizes(3, 20)], block_size);
                check_causal([sizes(0, 5), sizes(31, 32)], block_size);
            }
        }
    }

    #[test]
    fn more_queries_than_keys_are_refused() {
        let shape = kv_cache::Shape {
            blocks: 2,
            block_size: 4,
            kv_heads: 2,
            head_dim: 4,
            precision: Precision::Exact,
        };
        let cache = kv_cache::Layer::new(shape, &Device::cpu()).unwrap();
        let [q, ..] = qkv(3, 4, 4);
        let sequence = |queries, keys| [Sequence { queries, keys, blocks: &[0] }];
        assert!(step(&sequence(3, 2), 4, &cache).is_err());
        assert!(step(&sequence(3, 5), 4, &cache).is_err());
        assert!(causal(&q, &cache, &step(&sequence(2, 2), 4, &cache).unwrap(), 1.0).is_err());
        let [three_heads, ..] = qkv(3, 3, 4);
        assert!(step(&sequence(3, 3), 3, &cache).is_err());
        assert!(causal(&three_heads, &cache, &step(&sequence(3, 3), 4, &cache).unwrap(), 1.0).is_err());
    }
}
