//! The project's own golden numbers, one test for each family. `scripts/check golden DIR` compares other folders.

#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use ocellus_tests::golden::{
    Folder, Gauge, images::Images, indices, model, positions, tables::Tables, text::Texts,
};

fn check(gauge: &Gauge) {
    assert!(gauge.holds(), "{}: {gauge}", gauge.family());
}

#[test]
fn sizes() {
    check(&Tables::read(&Folder::own()).unwrap().unwrap().sizes());
}

#[test]
fn frames() {
    check(&Tables::read(&Folder::own()).unwrap().unwrap().frames());
}

#[test]
fn resized_pixels() {
    check(&Images::read(&Folder::own()).unwrap().unwrap().resized().unwrap());
}

#[test]
fn pixel_values() {
    check(&Images::read(&Folder::own()).unwrap().unwrap().pixel_values().unwrap());
}

#[test]
fn window_and_sequence_indices() {
    check(&indices::compare(&Folder::own()).unwrap().unwrap());
}

#[test]
fn mrope_positions() {
    check(&positions::compare(&Folder::own()).unwrap().unwrap());
}

#[test]
fn templates() {
    check(&Texts::read(&Folder::own()).unwrap().unwrap().templates().unwrap());
}

#[test]
fn tokenizer_samples() {
    check(&Texts::read(&Folder::own()).unwrap().unwrap().samples().unwrap());
}

/// All conversations of all checkpoints are computed once for the tests below.
fn model_gauge(index: usize) -> &'static Gauge {
    static GAUGES: OnceLock<Vec<Gauge>> = OnceLock::new();
    &GAUGES.get_or_init(|| model::compare_all(&Folder::own()).unwrap().unwrap())[index]
}

#[test]
fn conversations() {
    check(model_gauge(0));
}

#[test]
fn vision_tower() {
    check(model_gauge(1));
}

#[test]
fn decoder_layers() {
    check(model_gauge(2));
}

#[test]
fn logits() {
    check(model_gauge(3));
}

#[test]
fn generated_ids() {
    check(model_gauge(4));
}
