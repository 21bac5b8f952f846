//! The vision tower by the size of the picture, each one new: `cargo bench -p ocellus-benches --bench vision`.

use divan::{Bencher, counter::ItemsCount};
use ocellus_bench::{format::WeightFormat, model, vision};

fn main() {
    divan::main();
}

/// A square picture; items are tokens.
#[divan::bench(args = [224, 448], sample_count = 5, sample_size = 1)]
fn encode(bencher: Bencher<'_, '_>, side: usize) {
    let folder = ocellus_benches::model().expect("there is room for two layers");
    let tower = model::tower(&folder, "auto", WeightFormat::Bf16).expect("it was just written").part;
    let picture = || vision::draw(side, side, tower.config()).expect("sides are multiples of a token's");
    let tokens = (side / tower.config().geometry.factor()).pow(2);
    bencher
        .counter(ItemsCount::new(tokens))
        .with_inputs(picture)
        .bench_local_values(|patches| tower.forward(&[&patches]));
}
