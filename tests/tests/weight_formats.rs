//! Narrower weights move the logits only a little, and a row's numbers do not depend on its company.

#![allow(clippy::unwrap_used)]

use ocellus_engine::WeightFormat;
use ocellus_tests::golden::{
    Folder,
    formats::{Narrowed, divergence},
};

/// `most` bounds the mean difference of a logit from f32, in the logits' own units: they spread over about ±1 in these
/// checkpoints.
fn check(format: WeightFormat, most: f64) {
    let divergence = divergence(&Folder::own(), Narrowed::Packed(format)).unwrap();
    assert!(divergence.steps() > 100);
    assert!(divergence.mean_difference() < most, "{format}: {divergence}");
    // Not the same numbers: the narrow path was really taken.
    assert!(divergence.mean_difference() > 1e-6, "{format}: {divergence}");
}

#[test]
fn bf16_stays_close() {
    check(WeightFormat::Bf16, 0.1);
}

#[test]
fn int8_stays_close() {
    check(WeightFormat::Int8, 0.1);
}

#[test]
fn int4_stays_near() {
    check(WeightFormat::Int4, 1.0);
}
