//! The model that all benches of this crate measure: random weights of the true shape with few layers, so that a bench
//! takes seconds and what it says of a layer holds for the whole model. `ocellus bench` measures whole models, and
//! `results/` keeps what was found, by date and machine. Nothing that ships depends on this crate.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ocellus_bench::model::RandomModel;

/// The folder of a 3B model with two layers and eight blocks, written below `target/` by the first bench that asks.
///
/// # Errors
/// When the files can't be written.
pub fn model() -> Result<PathBuf> {
    let model = RandomModel { preset: "3b".to_owned(), layers: Some(2), blocks: Some(8) };
    model.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/benches"), &|_| {})
}
