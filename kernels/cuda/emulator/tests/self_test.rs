//! The self-test on the emulated device: what a user's machine runs, and that it finds what is wrong.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ocellus_cuda_emulator::{Emulator, Options, testing};
use ocellus_kernels::{
    Device,
    self_test::{self, Outcome},
};

fn outcomes(device: &Device, only: &[&str]) -> Vec<Outcome> {
    let options = self_test::Options { seed: testing::seed(), rounds: 1, short: true };
    self_test::run_some(device, options, &|name| only.is_empty() || only.contains(&name), &mut |_| {})
        .unwrap()
}

#[test]
fn every_operation_passes() {
    let device = testing::devices(1).next().unwrap();
    for outcome in outcomes(&device, &[]) {
        assert_eq!(outcome.faults, [""; 0], "{} (OCELLUS_SEED={})", outcome.operation, testing::seed());
        assert!(outcome.kernels > Some(0), "{} ran no kernel", outcome.operation);
        assert!(outcome.cases > 0 && outcome.worst.is_some() || outcome.numbers > 0, "{outcome:?}");
    }
}

#[test]
fn hopper_passes() {
    let options = Options { seed: testing::seed(), capability: (9, 0), ..Options::default() };
    let device = Device::with_driver(Arc::new(Emulator::new(options)));
    for outcome in outcomes(&device, &["linear bf16", "linear swiglu", "linear company"]) {
        assert_eq!(outcome.faults, [""; 0], "{} (OCELLUS_SEED={})", outcome.operation, testing::seed());
    }
}
