//! One step of decoding, by the number of sequences: `cargo bench -p ocellus-benches --bench decode`.

use divan::{Bencher, counter::ItemsCount};
use ocellus_bench::{format::WeightFormat, model, text::Batches};

fn main() {
    divan::main();
}

/// The steps of a run follow each other, so that the last of them is the deepest.
const STEPS: u32 = 20;

/// One token of each sequence; items are tokens.
#[divan::bench(args = [1, 4, 16], sample_count = STEPS, sample_size = 1)]
fn step(bencher: Bencher<'_, '_>, sequences: usize) {
    let folder = ocellus_benches::model().expect("there is room for two layers");
    let loaded = model::decoder(&folder, "auto", WeightFormat::Bf16).expect("it was just written");
    let most = 4 * STEPS as usize;
    let mut batches = Batches::new(&loaded.part, sequences, most).expect("there is room");
    bencher.counter(ItemsCount::new(sequences)).bench_local(move || batches.step());
}
