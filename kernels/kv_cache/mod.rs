//! The paged cache of keys and values of one decoder layer, and the write into it.
//!
//! The cache is an array of slots, each holding one token's keys and values of all heads. Slots come in
//! blocks of [`Layer::block_size`]; a sequence owns a list of blocks, and its token `i` lies in slot
//! `blocks[i / block_size] * block_size + i % block_size`. Who owns which block is not known here.

pub(crate) mod bf16;
pub(crate) mod cuda;
pub(crate) mod group;
mod reference;

use self::{
    bf16::{Bf16Layer, RotateAndCache},
    cuda::CudaLayer,
};
use crate::{
    Device, Error, Precision, Result, Tensor,
    error::argument,
    processor::Isa,
    rotary::{self, Tables},
    step::Step,
};

const OP: &str = "kv_cache";

/// Keys and values of one layer, written in place.
#[derive(Debug)]
pub struct Layer {
    pub(crate) storage: Storage,
    shape: Shape,
    device: Device,
}

/// Where the slots lie.
#[derive(Debug)]
pub(crate) enum Storage {
    /// f32, on any device.
    Exact(Exact),
    /// bf16 in the order of the processor's kernels.
    Bf16(Bf16Layer),
    /// bf16 in a CUDA device's memory.
    Cuda(CudaLayer),
}

/// Keys and values as candle holds them, each `(slots, kv_heads, head_dim)`.
#[derive(Debug)]
pub(crate) struct Exact {
    pub(crate) keys: candle_core::Tensor,
    pub(crate) values: candle_core::Tensor,
}

/// The size of a layer's cache.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many blocks there are.
    pub blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// The width of a head.
    pub head_dim: usize,
    /// The type of the elements: f32, or bf16 on the processor and on CUDA devices.
    pub precision: Precision,
}

impl Shape {
    /// Bytes of keys and values together.
    pub fn size_in_bytes(&self) -> usize {
        if self.precision == Precision::Bf16 {
            return Bf16Layer::size_in_bytes(*self);
        }
        [self.blocks, self.block_size, self.kv_heads, self.head_dim, 2 * size_of::<f32>()]
            .into_iter()
            .fold(1, usize::saturating_mul)
    }
}

impl Layer {
    /// An empty cache. On the host its pages are taken only when they are first written.
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Argument`] when the size can't be had or is nonsense.
    pub fn new(shape: Shape, device: &Device) -> Result<Self> {
        let bytes = shape.size_in_bytes();
        let no_room = || Error::Memory { what: "KV cache", bytes };
        if bytes == 0 || bytes > isize::MAX as usize {
            return Err(no_room());
        }
        if shape.precision == Precision::Bf16 && device.is_host() && Bf16Layer::can_hold(shape.head_dim) {
            return Ok(Self {
                storage: Storage::Bf16(Bf16Layer::new(shape)?),
                shape,
                device: device.clone(),
            });
        }
        if let Some(gpu) = device.gpu()
            && shape.precision == Precision::Bf16
            && CudaLayer::can_hold(shape)
        {
            return Ok(Self {
                storage: Storage::Cuda(CudaLayer::new(gpu, shape)?),
                shape,
                device: device.clone(),
            });
        }
        let dims = [shape.blocks * shape.block_size, shape.kv_heads, shape.head_dim];
        let zeros = || -> Result<candle_core::Tensor> {
            if !device.is_host() && device.gpu().is_none() {
                return Ok(candle_core::Tensor::zeros(&dims, crate::DType::F32, &device.candle())?);
            }
            // Pages of zeros are taken lazily; an allocation that fails must not end the process.
            let zeros: Vec<f32> =
                bytemuck::allocation::try_zeroed_vec(dims.iter().product()).map_err(|_| no_room())?;
            Ok(candle_core::Tensor::from_vec(zeros, &dims, &device.candle())?)
        };
        let exact = Exact { keys: zeros()?, values: zeros()? };
        Ok(Self { storage: Storage::Exact(exact), shape, device: device.clone() })
    }

    /// Where it belongs. What kernels of a device can't hold lies on the host all the same.
    pub(crate) fn device(&self) -> Device {
        self.device.clone()
    }

    /// The cache when it lies in a CUDA device's memory.
    pub(crate) fn cuda(&self) -> Option<&CudaLayer> {
        match &self.storage {
            Storage::Cuda(layer) => Some(layer),
            Storage::Exact(_) | Storage::Bf16(_) => None,
        }
    }

    /// Bytes of keys and values together.
    pub fn size_in_bytes(&self) -> usize {
        self.shape.size_in_bytes()
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.shape.block_size
    }

    /// The number of heads of keys and values, and their width.
    pub(crate) fn heads(&self) -> (usize, usize) {
        (self.shape.kv_heads, self.shape.head_dim)
    }

    /// How many tokens fit in all blocks.
    pub fn slots(&self) -> usize {
        self.shape.blocks * self.shape.block_size
    }

    /// The slots of tokens `range` of a sequence that owns `blocks`.
    ///
    /// # Errors
    /// [`Error::Index`] when the sequence has too few blocks or owns one that does not exist.
    pub fn slots_of(&self, blocks: &[u32], range: std::ops::Range<usize>) -> Result<Vec<u32>> {
        let mut slots = Vec::with_capacity(range.len());
        self.append_slots(blocks, range, &mut slots)?;
        Ok(slots)
    }

    /// The same, appended to `slots`.
    ///
    /// # Errors
    /// As [`Layer::slots_of`].
    pub fn append_slots(
        &self,
        blocks: &[u32],
        range: std::ops::Range<usize>,
        slots: &mut Vec<u32>,
    ) -> Result<()> {
        let block_size = self.shape.block_size;
        for token in range {
            let index = token / block_size;
            let block = *blocks.get(index).ok_or(Error::Index { op: OP, index, len: blocks.len() })? as usize;
            let slot = block * block_size + token % block_size;
            if slot >= self.slots() {
                return Err(Error::Index { op: OP, index: slot, len: self.slots() });
            }
            slots.push(slot as u32);
        }
        Ok(())
    }
}

/// Takes a fused projection apart, `qkv: (tokens, (heads + 2 * kv_heads) * head_dim)`, rotates queries and keys by
/// `tables`, and writes keys and values to the step's slots of the cache. Gives the queries, `(tokens, heads, head_dim)`,
/// on a CUDA device as bf16.
///
/// # Errors
/// As [`write`], and [`Error::Argument`] when `qkv` does not fit the cache.
pub fn rotate_and_write(cache: &mut Layer, qkv: &Tensor, tables: &Tables, step: &Step<'_>) -> Result<Tensor> {
    let (kv_heads, head_dim) = cache.heads();
    let [tokens, width] = qkv.dims(OP, "qkv")?;
    let heads = (width / head_dim).saturating_sub(2 * kv_heads);
    if heads == 0 || width != (heads + 2 * kv_heads) * head_dim {
        let expected = format!("(tokens, ({kv_heads} heads twice and those of queries) * {head_dim})");
        return Err(argument(OP, "qkv", qkv.shape(), expected));
    }
    let slots = step.parts.slots;
    if let (Storage::Cuda(layer), Some(step), Some(values), Some(cos), Some(sin)) =
        (&cache.storage, &step.device, qkv.as_cuda(), tables.cos.as_cuda(), tables.sin.as_cuda())
    {
        return Ok(layer.rotate_and_write(values, (cos, sin), step)?.into());
    }
    if let (Storage::Bf16(layer), Some(values), Some(cos), Some(sin)) =
        (&mut cache.storage, qkv.as_host(), tables.cos.as_host(), tables.sin.as_host())
    {
        let mut outcome = Ok(());
        let queries = Tensor::host(&[tokens, heads, head_dim], |queries| {
            let arguments = RotateAndCache { qkv: values, cos, sin, slots, heads, queries };
            outcome = layer.rotate_and_cache(Isa::current(), arguments);
        })?;
        return outcome.map(|()| queries);
    }
    let part = |first: usize, n: usize| {
        qkv.narrow(1, first * head_dim, n * head_dim)?.reshape(&[tokens, n, head_dim])
    };
    let q = rotary::forward(&part(0, heads)?, tables)?;
    let k = rotary::forward(&part(heads, kv_heads)?, tables)?;
    write(cache, &k, &part(heads + kv_heads, kv_heads)?, slots)?;
    Ok(q)
}

/// Writes `keys` and `values`, both `(tokens, kv_heads, head_dim)`, to `slots` of the cache.
///
/// # Errors
/// [`Error::Index`] when a slot does not exist, [`Error::Argument`] when shapes disagree.
pub fn write(cache: &mut Layer, keys: &Tensor, values: &Tensor, slots: &[u32]) -> Result<()> {
    let (n_slots, (kv_heads, head_dim)) = (cache.slots(), cache.heads());
    keys.expect_shape(OP, "keys", &[slots.len(), kv_heads, head_dim])?;
    values.expect_shape(OP, "values", &[slots.len(), kv_heads, head_dim])?;
    if let Some(&slot) = slots.iter().find(|&&slot| slot as usize >= n_slots) {
        return Err(Error::Index { op: OP, index: slot as usize, len: n_slots });
    }
    match &mut cache.storage {
        Storage::Exact(exact) => {
            let device = Device::from_candle(exact.keys.device().clone());
            if Device::from_candle(keys.device().candle()).name() != device.name() {
                return Err(argument(OP, "keys", keys.device().name(), device.name()));
            }
            reference::write(exact, keys, values, slots)
        }
        Storage::Bf16(layer) => match (keys.as_host(), values.as_host()) {
            (Some(keys), Some(values)) => layer.write(Isa::current(), keys, values, slots),
            _ => Err(argument(OP, "keys", keys.device().name(), "cpu")),
        },
        Storage::Cuda(layer) => match (keys.as_cuda(), values.as_cuda()) {
            (Some(keys), Some(values)) => layer.write(keys, values, slots),
            _ => Err(argument(OP, "keys", keys.device().name(), cache.device.name())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn cache(blocks: usize, block_size: usize) -> Layer {
        Layer::new(
            Shape { blocks, block_size, kv_heads: 2, head_dim: 3, precision: Precision::Exact },
            &Device::cpu(),
        )
        .unwrap()
    }

    #[test]
    fn tokens_land_in_their_blocks() {
        let mut cache = cache(4, 4);
        let slots = cache.slots_of(&[3, 0], 2..7).unwrap();
        assert_eq!(slots, [14, 15, 0, 1, 2]);
        let (k, v) = (testing::tensor(1, &[5, 2, 3]), testing::tensor(2, &[5, 2, 3]));
        write(&mut cache, &k, &v, &slots).unwrap();
        let Storage::Exact(exact) = &cache.storage else { panic!("it was asked for") };
        for (cached, new) in [(&exact.keys, &k), (&exact.values, &v)] {
            let cached = cached.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let new = new.to_f32_vec().unwrap();
            for slot in 0..16 {
                let expected = match slots.iter().position(|&s| s == slot) {
                    Some(token) => new[token * 6..token * 6 + 6].to_vec(),
                    None => vec![0.0; 6],
                };
                assert_eq!(cached[slot as usize * 6..slot as usize * 6 + 6], expected, "slot {slot}");
            }
        }
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let mut cache = cache(2, 4);
        assert_eq!(
            cache.slots_of(&[0], 3..5).unwrap_err().to_string(),
            "kv_cache: index 1 is outside of 1 rows"
        );
        assert_eq!(
            cache.slots_of(&[2], 0..1).unwrap_err().to_string(),
            "kv_cache: index 8 is outside of 8 rows"
        );
        let k = testing::tensor(1, &[1, 2, 3]);
        assert!(write(&mut cache, &k, &k, &[8]).is_err());
        assert!(write(&mut cache, &k, &testing::tensor(1, &[1, 3, 2]), &[0]).is_err());
    }

    #[test]
    fn absurd_sizes_are_refused_before_memory_is_taken() {
        // The first overflows, the second only has no room.
        for (blocks, bytes) in [(usize::MAX, usize::MAX), (1 << 45, 1 << 60)] {
            let shape =
                Shape { blocks, block_size: 16, kv_heads: 2, head_dim: 128, precision: Precision::Exact };
            let message = Layer::new(shape, &Device::cpu()).unwrap_err().to_string();
            assert_eq!(message, format!("KV cache: {bytes} bytes of memory could not be allocated"));
        }
    }
}
