//! A decode step in a packed format asks the allocator for nothing: activations lie in buffers of the steps before.
#![allow(clippy::unwrap_used)]

use ocellus_decoder::{Batch, KvCache, Sequence};
use ocellus_engine::{Formats, Model, WeightFormat};
use ocellus_tests::house::{BLOCK_SIZE, nano_as};

/// One token of one sequence; gives how often memory was asked for on this thread.
fn step(model: &Model, cache: &mut KvCache, blocks: &[u32], token: usize) -> u64 {
    let counted = allocation_counter::measure(|| {
        let batch = Batch {
            embeddings: model.decoder.embed(&[token as u32 % 2048]).unwrap(),
            positions: &[[token as u32; 3]],
            sequences: &[Sequence { queries: 1, keys: token + 1, blocks }],
            logits_for: &[0],
        };
        drop(model.decoder.forward(&batch, cache).unwrap());
    });
    counted.count_total
}

fn check(format: WeightFormat) {
    let model = nano_as(Formats { decoder: format, tower: None }).unwrap();
    let blocks: Vec<u32> = (0..16).collect();
    let mut cache = model.decoder.new_cache(blocks.len(), BLOCK_SIZE).unwrap();
    // The first steps make the buffers.
    let counts: Vec<u64> = (0..40).map(|token| step(&model, &mut cache, &blocks, token)).collect();
    assert!(counts[0] > 0, "the allocator is watched");
    assert_eq!(counts[8..], [0; 32], "{format}");
}

#[test]
fn a_decode_step_allocates_nothing() {
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        check(format);
    }
}
