//! Prompts by their length: `cargo bench -p ocellus-benches --bench prefill`.

use divan::{Bencher, counter::ItemsCount};
use ocellus_bench::{format::WeightFormat, model, text::Batches};

fn main() {
    divan::main();
}

/// One prompt of random tokens; items are tokens.
#[divan::bench(args = [64, 512], sample_count = 5, sample_size = 1)]
fn prefill(bencher: Bencher<'_, '_>, tokens: usize) {
    let folder = ocellus_benches::model().expect("there is room for two layers");
    let loaded = model::decoder(&folder, "auto", WeightFormat::Bf16).expect("it was just written");
    let empty = || Batches::new(&loaded.part, 1, tokens).expect("there is room for one prompt");
    bencher
        .counter(ItemsCount::new(tokens))
        .with_inputs(empty)
        .bench_local_values(|mut batches| batches.append(tokens, 1024));
}
