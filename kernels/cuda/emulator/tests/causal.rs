//! The paged cache and causal attention over it on the emulated device against the reference.

#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::testing::{self, Tolerance};
use ocellus_kernels::{
    DType, Device, Precision, Tensor,
    attention::{self, Sequence},
    kv_cache::{self, Layer, Shape},
    rotary::{self, Multimodal, Tables},
    step::{Bucket, Limits, Parts, Step},
};

/// A result is an average of values below 1. Its weights are rounded to bf16, 2^-8 of each at most, which is an error below
/// 2^-8; then the result is rounded to bf16, 2^-8 of itself at most.
const TOLERANCE: Tolerance = Tolerance { absolute: 1.0 / 256.0, relative: 1.0 / 256.0 };
const BLOCK: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// A device's cache with sequences in it, and the same on the host for the reference.
struct Caches {
    sizes: Heads,
    device: Device,
    on_device: Layer,
    on_host: Layer,
    /// Queries and keys of each sequence, and its blocks.
    sequences: Vec<(usize, usize, Vec<u32>)>,
}

impl Caches {
    /// Blocks in disorder, keys and values written.
    fn new(sizes: Heads, sequences: &[(usize, usize)], device: &Device) -> Self {
        let Heads { kv_heads, head_dim, .. } = sizes;
        let each: Vec<usize> = sequences.iter().map(|(_, keys)| keys.div_ceil(BLOCK)).collect();
        let all = each.iter().sum::<usize>() + 3;
        let mut free: Vec<u32> = (0..all as u32).rev().collect();
        free.sort_by_key(|block| block.wrapping_mul(0x9E37_79B9) >> 7);
        let sequences: Vec<_> = sequences
            .iter()
            .zip(each)
            .map(|(&(queries, keys), n)| (queries, keys, free.split_off(free.len() - n)))
            .collect();
        let shape = |precision| Shape { blocks: all, block_size: BLOCK, kv_heads, head_dim, precision };
        let mut caches = Self {
            sizes,
            device: device.clone(),
            on_device: Layer::new(shape(Precision::Bf16), device).unwrap(),
            on_host: Layer::new(shape(Precision::Exact), &Device::cpu()).unwrap(),
            sequences,
        };
        for (i, (_, keys, blocks)) in caches.sequences.iter().enumerate() {
            let [k, v] = [0, 1]
                .map(|j| testing::bf16_pair(10 + 2 * i as u64 + j, &[*keys, kv_heads, head_dim], device));
            let slots = caches.on_host.slots_of(blocks, 0..*keys).unwrap();
            kv_cache::write(&mut caches.on_host, &k.0, &v.0, &slots).unwrap();
            kv_cache::write(&mut caches.on_device, &k.1, &v.1, &slots).unwrap();
        }
        caches
    }

    fn sequences(&self) -> Vec<Sequence<'_>> {
        self.sequences
            .iter()
            .map(|(queries, keys, blocks)| Sequence { queries: *queries, keys: *keys, blocks })
            .collect()
    }

    /// Queries for all sequences, on the host and on the device.
    fn queries(&self) -> (Tensor, Tensor) {
        let tokens = self.sequences.iter().map(|s| s.0).sum();
        testing::bf16_pair(1, &[tokens, self.sizes.heads, self.sizes.head_dim], &self.device)
    }

    fn with_parts<T>(&self, sequences: &[Sequence<'_>], compute: impl FnOnce(Parts<'_>) -> T) -> T {
        let mut slots = Vec::new();
        for s in sequences {
            self.on_device.append_slots(s.blocks, s.keys - s.queries..s.keys, &mut slots).unwrap();
        }
        let positions = vec![[0; 3]; slots.len()];
        let sections = [self.sizes.head_dim / 2, 0, 0];
        let rope = Multimodal { head_dim: self.sizes.head_dim, theta: 1e4, sections: &sections };
        compute(Parts { sequences, slots: &slots, positions: &positions, rope, heads: self.sizes.heads })
    }

    /// Attention on the device of some of the sequences, whose queries are `q`.
    fn attend(&self, q: &Tensor, sequences: &[Sequence<'_>]) -> Vec<f32> {
        self.with_parts(sequences, |parts| {
            let step = Step::new(parts, &self.on_device).unwrap();
            let found = attention::causal(q, &self.on_device, &step, SCALE).unwrap();
            assert_eq!(found.dtype(), DType::BF16);
            found.to_f32_vec().unwrap()
        })
    }
}

const SCALE: f32 = 0.4;

fn check(sizes: Heads, sequences: &[(usize, usize)], device: &Device) {
    let caches = Caches::new(sizes, sequences, device);
    let (on_host, on_device) = caches.queries();
    let expected =
        attention::causal_reference(&on_host, &caches.on_host, &caches.sequences(), SCALE).unwrap();
    let found = caches.attend(&on_device, &caches.sequences());
    let found = Tensor::from_f32(found, expected.shape(), &Device::cpu()).unwrap();
    testing::assert_close(&format!("{sizes:?}, {sequences:?}"), &found, &expected, TOLERANCE);
}

/// Groups of 1 to 8 heads, narrow and wide.
const SIZES: [Heads; 6] = [
    Heads { heads: 7, kv_heads: 1, head_dim: 128 },
    Heads { heads: 16, kv_heads: 2, head_dim: 16 },
    Heads { heads: 3, kv_heads: 3, head_dim: 32 },
    Heads { heads: 5, kv_heads: 1, head_dim: 16 },
    Heads { heads: 4, kv_heads: 2, head_dim: 64 },
    Heads { heads: 8, kv_heads: 1, head_dim: 128 },
];

#[test]
fn prompts_equal_the_reference() {
    for device in testing::devices(2) {
        for sizes in SIZES {
            check(sizes, &[(5, 5), (0, 3), (20, 77)], &device);
        }
        // One beyond a tile of keys, and rows of queries just at, below and beyond a tile.
        check(SIZES[1], &[(65, 65), (16, 64), (17, 128)], &device);
        check(SIZES[2], &[(128, 128), (127, 200), (129, 129)], &device);
        check(SIZES[0], &[(19, 300)], &device);
    }
}

#[test]
fn steps_of_few_queries_equal_the_reference() {
    for device in testing::devices(2) {
        for sizes in SIZES {
            check(sizes, &[(1, 1), (1, 129), (1, 16), (1, 300)], &device);
            check(sizes, &[(4, 4), (2, 130), (3, 17), (1, 15)], &device);
        }
    }
}

#[test]
fn splits_of_long_sequences_equal_the_reference() {
    let device = testing::devices(1).next().unwrap();
    check(SIZES[3], &[(1, 8193)], &device);
}

#[test]
fn prompts_and_steps_share_a_batch() {
    let device = testing::devices(1).next().unwrap();
    check(SIZES[0], &[(1, 40), (30, 30), (3, 200), (1, 1), (0, 20), (6, 129)], &device);
    check(SIZES[1], &[(9, 9), (1, 33)], &device);
    check(SIZES[4], &[], &device);
    check(SIZES[4], &[(0, 4)], &device);
}

/// What else is in the batch does not change a bit.
#[test]
fn a_sequence_does_not_see_the_others() {
    let device = testing::devices(1).next().unwrap();
    let all = [(1, 40), (30, 90), (1, 300), (3, 77), (1, 1)];
    for sizes in [SIZES[0], SIZES[1]] {
        let caches = Caches::new(sizes, &all, &device);
        let (_, q) = caches.queries();
        let together = caches.attend(&q, &caches.sequences());
        let (mut start, row) = (0, sizes.heads * sizes.head_dim);
        for s in caches.sequences() {
            let alone = caches.attend(&q.narrow(0, start, s.queries).unwrap(), &[s]);
            assert_eq!(alone, together[start * row..(start + s.queries) * row], "{s:?}");
            start += s.queries;
        }
    }
}

/// A prompt computed in parts equals the whole: to the bit where both go in tiles of keys.
#[test]
fn chunks_equal_the_whole() {
    let device = testing::devices(1).next().unwrap();
    let sizes = SIZES[0];
    let caches = Caches::new(sizes, &[(100, 100)], &device);
    let (_, q) = caches.queries();
    let [whole] = caches.sequences()[..] else { panic!("there is one") };
    let expected = caches.attend(&q, &[whole]);
    let row = sizes.heads * sizes.head_dim;
    for (start, n) in [(0, 33), (33, 7), (40, 60)] {
        let part = Sequence { queries: n, keys: start + n, ..whole };
        let found = caches.attend(&q.narrow(0, start, n).unwrap(), &[part]);
        assert_eq!(found, expected[start * row..(start + n) * row], "{n} from {start}");
    }
    for start in [5, 99] {
        let part = Sequence { queries: 1, keys: start + 1, ..whole };
        let found = caches.attend(&q.narrow(0, start, 1).unwrap(), &[part]);
        let whole = expected[start * row..(start + 1) * row].to_vec();
        let [found, whole] = [found, whole].map(|x| Tensor::from_f32(x, &[row], &Device::cpu()).unwrap());
        testing::assert_close("one token", &found, &whole, TOLERANCE);
    }
}

/// A bucket's launches serve steps of fewer sequences and other lengths, to the same bits, and fill up with zeros.
#[test]
fn a_bucket_serves_many_steps() {
    let device = testing::devices(1).next().unwrap();
    for sizes in [SIZES[0], SIZES[4]] {
        let caches = Caches::new(sizes, &[(1, 40), (1, 300), (1, 128)], &device);
        let (_, q) = caches.queries();
        let (all, row) = (caches.sequences(), sizes.heads * sizes.head_dim);
        let sections = [sizes.head_dim / 2, 0, 0];
        let rope = Multimodal { head_dim: sizes.head_dim, theta: 1e4, sections: &sections };
        for keys in [300, 1024] {
            let limits = Limits { sequences: 4, keys };
            let bucket = Bucket::new(limits, rope, sizes.heads, &caches.on_device).unwrap();
            for n in [3, 1, 2, 0] {
                let some = q.narrow(0, 0, n).unwrap();
                let expected = if n == 0 { Vec::new() } else { caches.attend(&some, &all[..n]) };
                caches.with_parts(&all[..n], |parts| {
                    let step = bucket.fill(parts, &caches.on_device).unwrap();
                    assert_eq!(step.tokens(), 4);
                    let filled = testing::tensor(8, &[4, sizes.heads, sizes.head_dim], &device);
                    let mut values = filled.to_f32_vec().unwrap();
                    values[..n * row].copy_from_slice(&some.to_f32_vec().unwrap());
                    let q = Tensor::from_f32(values, filled.shape(), &device).unwrap();
                    let found = attention::causal(&q, &caches.on_device, &step, SCALE).unwrap();
                    let found = found.to_f32_vec().unwrap();
                    assert_eq!(found[..n * row], expected);
                    assert!(found[n * row..].iter().all(|&x| x == 0.0));
                    assert_eq!(step.tables(&caches.on_device).unwrap().tokens(), 4);
                });
            }
            let too_long = Sequence { keys: keys + 1, ..all[1] };
            caches.with_parts(&[Sequence { queries: 0, ..too_long }], |parts| {
                assert!(bucket.fill(parts, &caches.on_device).is_err());
            });
        }
    }
}

/// The projection is taken apart, rotated and written as on the host; tokens of a bucket that are nobody's are not
/// written.
#[test]
fn queries_are_rotated_and_keys_and_values_written() {
    for device in testing::devices(2) {
        for sizes in SIZES {
            let Heads { heads, kv_heads, head_dim } = sizes;
            let caches = Caches::new(sizes, &[(3, 20), (1, 33)], &device);
            let Caches { mut on_device, mut on_host, .. } = caches;
            let n = 4;
            let (host, qkv) = testing::bf16_pair(7, &[n, (heads + 2 * kv_heads) * head_dim], &device);
            let sections = [head_dim / 2 - 5, 2, 3];
            let rope = Multimodal { head_dim, theta: 1e4, sections: &sections };
            let positions = [[17, 3, 4], [18, 5, 6], [19, 0, 1000], [32, 32, 32]];
            let sequences: Vec<_> = caches
                .sequences
                .iter()
                .map(|(queries, keys, blocks)| Sequence { queries: *queries, keys: *keys, blocks })
                .collect();
            let mut slots = on_host.slots_of(sequences[0].blocks, 17..20).unwrap();
            on_host.append_slots(sequences[1].blocks, 32..33, &mut slots).unwrap();
            let parts = Parts { sequences: &sequences, slots: &slots, positions: &positions, rope, heads };
            let step = Step::new(parts, &on_device).unwrap();
            let tables = step.tables(&on_device).unwrap();
            let found = kv_cache::rotate_and_write(&mut on_device, &qkv, &tables, &step).unwrap();

            let host_tables = Tables::multimodal(&positions, rope, &Device::cpu()).unwrap();
            let part = |first: usize, n_heads: usize| {
                let columns = host.narrow(1, first * head_dim, n_heads * head_dim).unwrap();
                columns.reshape(&[n, n_heads, head_dim]).unwrap()
            };
            let q = rotary::reference(&part(0, heads), &host_tables).unwrap();
            // A rounding to bf16; near zero two products below 1 cancel.
            let rounding = Tolerance { absolute: 1e-6, relative: 1.0 / 256.0 };
            testing::assert_close(&format!("{sizes:?}"), &found, &q, rounding);

            // What was written shows in what is attended to.
            let k = rotary::reference(&part(heads, kv_heads), &host_tables).unwrap();
            let k = Tensor::from_f32(k.to_f32_vec().unwrap(), k.shape(), &device).unwrap();
            let k = k.to_dtype(DType::BF16).unwrap().to_f32_vec().unwrap();
            let k = Tensor::from_f32(k, &[n, kv_heads, head_dim], &Device::cpu()).unwrap();
            kv_cache::write(&mut on_host, &k, &part(heads + kv_heads, kv_heads), &slots).unwrap();
            let q = Tensor::from_f32(found.to_f32_vec().unwrap(), found.shape(), &Device::cpu()).unwrap();
            let expected = attention::causal_reference(&q, &on_host, &sequences, SCALE).unwrap();
            let found = attention::causal(&found, &on_device, &step, SCALE).unwrap();
            testing::assert_close(&format!("{sizes:?}"), &found, &expected, TOLERANCE);
        }
    }
}

/// Heads of a width that has no kernel, and blocks of another size, are computed on the host.
#[test]
fn what_has_no_kernel_is_computed_all_the_same() {
    let device = testing::devices(1).next().unwrap();
    check(Heads { heads: 2, kv_heads: 1, head_dim: 48 }, &[(3, 20), (1, 5)], &device);
}
