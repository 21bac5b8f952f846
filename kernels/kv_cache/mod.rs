//! The paged cache of keys and values of one decoder layer, and the write into it.
//!
//! The cache is an array of slots, each holding one token's keys and values of all heads. Slots come in
//! blocks of [`Layer::block_size`]; a sequence owns a list of blocks, and its token `i` lies in slot
//! `blocks[i / block_size] * block_size + i % block_size`. Who owns which block is not known here.

mod reference;

pub use reference::write as write_reference;

use crate::{Device, Error, Result, Tensor, error::argument};

const OP: &str = "kv_cache";

/// Keys and values of one layer, f32, written in place.
#[derive(Debug)]
pub struct Layer {
    /// `(slots, kv_heads, head_dim)`.
    pub(crate) keys: Tensor,
    /// `(slots, kv_heads, head_dim)`.
    pub(crate) values: Tensor,
    block_size: usize,
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
}

impl Shape {
    /// Bytes of keys and values together.
    pub fn size_in_bytes(&self) -> usize {
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
        let dims = [shape.blocks * shape.block_size, shape.kv_heads, shape.head_dim];
        let zeros = || {
            Tensor::zeros(&dims, device).map_err(|error| match error {
                Error::Memory { .. } => no_room(),
                other => other,
            })
        };
        Ok(Self { keys: zeros()?, values: zeros()?, block_size: shape.block_size })
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// How many tokens fit in all blocks.
    pub fn slots(&self) -> usize {
        self.keys.dim(0)
    }

    /// The slots of tokens `range` of a sequence that owns `blocks`.
    ///
    /// # Errors
    /// [`Error::Index`] when the sequence has too few blocks or owns one that does not exist.
    pub fn slots_of(&self, blocks: &[u32], range: std::ops::Range<usize>) -> Result<Vec<u32>> {
        range
            .map(|token| {
                let block = *blocks.get(token / self.block_size).ok_or(Error::Index {
                    op: OP,
                    index: token / self.block_size,
                    len: blocks.len(),
                })? as usize;
                let slot = block * self.block_size + token % self.block_size;
                if slot >= self.slots() {
                    return Err(Error::Index { op: OP, index: slot, len: self.slots() });
                }
                Ok(slot as u32)
            })
            .collect()
    }
}

/// Writes `keys` and `values`, both `(tokens, kv_heads, head_dim)`, to `slots` of the cache.
///
/// # Errors
/// [`Error::Index`] when a slot does not exist, [`Error::Argument`] when shapes disagree.
pub fn write(cache: &mut Layer, keys: &Tensor, values: &Tensor, slots: &[u32]) -> Result<()> {
    let [n_slots, kv_heads, head_dim] = cache.keys.dims(OP, "cache")?;
    keys.expect_shape(OP, "keys", &[slots.len(), kv_heads, head_dim])?;
    values.expect_shape(OP, "values", &[slots.len(), kv_heads, head_dim])?;
    if keys.device().name() != cache.keys.device().name() {
        return Err(argument(OP, "keys", keys.device().name(), cache.keys.device().name()));
    }
    if let Some(&slot) = slots.iter().find(|&&slot| slot as usize >= n_slots) {
        return Err(Error::Index { op: OP, index: slot as usize, len: n_slots });
    }
    reference::write(cache, keys, values, slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn cache(blocks: usize, block_size: usize) -> Layer {
        Layer::new(Shape { blocks, block_size, kv_heads: 2, head_dim: 3 }, &Device::cpu()).unwrap()
    }

    #[test]
    fn tokens_land_in_their_blocks() {
        let mut cache = cache(4, 4);
        let slots = cache.slots_of(&[3, 0], 2..7).unwrap();
        assert_eq!(slots, [14, 15, 0, 1, 2]);
        let (k, v) = (testing::tensor(1, &[5, 2, 3]), testing::tensor(2, &[5, 2, 3]));
        write(&mut cache, &k, &v, &slots).unwrap();
        for (cached, new) in [(&cache.keys, &k), (&cache.values, &v)] {
            let (cached, new) = (cached.to_f32_vec().unwrap(), new.to_f32_vec().unwrap());
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
            let shape = Shape { blocks, block_size: 16, kv_heads: 2, head_dim: 128 };
            let message = Layer::new(shape, &Device::cpu()).unwrap_err().to_string();
            assert_eq!(message, format!("KV cache: {bytes} bytes of memory could not be allocated"));
        }
    }
}
