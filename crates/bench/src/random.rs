//! Numbers that nobody has seen before, made quickly.

use ocellus_kernels::{Device, Tensor, pool};
use std::sync::atomic::{AtomicU64, Ordering};

/// Each use of the generator goes on where the last one stopped, so nothing is ever made twice in a process.
static SEED: AtomicU64 = AtomicU64::new(0);

/// A seed that was not given before.
pub(crate) fn fresh_seed() -> u64 {
    SEED.fetch_add(1, Ordering::Relaxed)
}

/// Uniform numbers in -1..1.
pub(crate) fn numbers(n: usize) -> Vec<f32> {
    let mut state = Xorshift::new(fresh_seed());
    (0..n).map(|_| state.next_f32()).collect()
}

/// A tensor of uniform numbers in -1..1.
pub(crate) fn tensor(shape: &[usize], device: &Device) -> ocellus_kernels::Result<Tensor> {
    Tensor::from_f32(numbers(shape.iter().product()), shape, device)
}

/// Token ids below `vocabulary`.
pub(crate) fn ids(n: usize, vocabulary: usize) -> Vec<u32> {
    let mut state = Xorshift::new(fresh_seed());
    (0..n).map(|_| (state.next() % vocabulary.max(1) as u64) as u32).collect()
}

/// `rows * cols` numbers in about -0.05..0.05 as little-endian bf16 or f32, made on all threads.
pub(crate) fn weight_bytes(elements: usize, element_bytes: usize) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let seed = fresh_seed();
    let pieces: Vec<std::sync::Mutex<Vec<u8>>> =
        (0..elements.div_ceil(PIECE)).map(|_| Default::default()).collect();
    pool::run(pieces.len(), |piece| {
        let mut state = Xorshift::new((seed << 32) ^ piece as u64);
        let n = PIECE.min(elements - piece * PIECE);
        let mut bytes = Vec::with_capacity(n * element_bytes);
        for _ in 0..n {
            let number = state.next_f32() * 0.05;
            // The upper half of a f32 is a bf16.
            bytes.extend_from_slice(&number.to_bits().to_le_bytes()[4 - element_bytes..]);
        }
        if let Ok(mut place) = pieces[piece].lock() {
            *place = bytes;
        }
    });
    let mut bytes = Vec::with_capacity(elements * element_bytes);
    for piece in pieces {
        bytes.extend_from_slice(&piece.into_inner().unwrap_or_default());
    }
    bytes
}

/// Marsaglia's generator: nothing depends on the quality of these numbers.
pub(crate) struct Xorshift(u64);

impl Xorshift {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn next_f32(&mut self) -> f32 {
        (self.next() >> 40) as f32 * (2.0 / 16_777_216.0) - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_range_and_are_never_the_same() {
        let (a, b) = (numbers(1000), numbers(1000));
        assert_ne!(a, b);
        assert!(a.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean = a.iter().sum::<f32>() / 1000.0;
        assert!(mean.abs() < 0.1, "{mean}");
        let bytes = weight_bytes(3, 2);
        assert_eq!(bytes.len(), 6);
        for pair in bytes.as_chunks::<2>().0 {
            let number = half::bf16::from_le_bytes(*pair).to_f32();
            assert!(number.abs() <= 0.05, "{number}");
        }
        assert!(ids(100, 7).iter().all(|&id| id < 7));
    }
}
