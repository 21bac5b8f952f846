//! Single operations at the shapes of the 3B model: `cargo bench -p ocellus-benches --bench kernels`.

use divan::{Bencher, counter::BytesCount};
use ocellus_bench::{
    format::WeightFormat,
    kernels::{Options, cases},
};

fn main() {
    divan::main();
}

/// One linear layer; the bytes are those of its weights and activations.
#[divan::bench(args = ["qkv_proj", "gate_up_proj", "down_proj", "lm_head", "vision qkv", "vision down_proj"], consts = [1, 4, 256])]
fn linear<const TOKENS: usize>(bencher: Bencher<'_, '_>, layer: &str) {
    first_case(bencher, options("linear", vec![layer.to_owned()], TOKENS));
}

/// Everything else, the first of its cases.
#[divan::bench(args = ["varlen", "causal", "kv_cache", "rms_norm", "rotary", "silu_mul", "gelu", "embedding", "top_k"])]
fn other(bencher: Bencher<'_, '_>, operation: &str) {
    first_case(bencher, options(operation, Vec::new(), 256));
}

fn options(operation: &str, layers: Vec<String>, tokens: usize) -> Options {
    Options {
        device: "auto".to_owned(),
        sizes: vec!["3b".to_owned()],
        operations: vec![operation.to_owned()],
        layers,
        weights: vec![WeightFormat::Bf16],
        tokens: vec![tokens],
        copies_bytes: None,
        repetitions: 1,
    }
}

fn first_case(bencher: Bencher<'_, '_>, options: Options) {
    let mut bencher = Some(bencher);
    let visited = cases(&options, &mut |mut case| {
        if let Some(bencher) = bencher.take() {
            bencher.counter(BytesCount::new(case.bytes as u64)).bench_local(|| (case.call)());
        }
        Ok(())
    });
    visited.expect("the 3B model has every operation");
}
