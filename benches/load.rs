//! From the folder to a model that is ready, with its files in memory: `cargo bench -p ocellus-benches --bench load`.

use divan::Bencher;
use ocellus_engine::{Engine, Formats, Options, Source, WeightFormat};

fn main() {
    divan::main();
}

/// Two layers and eight blocks.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn ready(bencher: Bencher<'_, '_>) {
    let folder = ocellus_benches::model().expect("there is room for two layers");
    let formats = Formats { decoder: WeightFormat::Bf16, tower: None };
    let options = Options { formats, context_tokens: Some(512), ..Options::default() };
    bencher.bench_local(|| Engine::load(&Source::folder(&folder), &options, &|_| {}));
}
