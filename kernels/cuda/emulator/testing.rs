//! What the tests of all kernels share: fresh random numbers, devices under several schedules, and a comparison.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

use ocellus_kernels::{DType, Device, Tensor};

use crate::Emulator;

/// This run's seed: another one each time, printed so that a failure can be had again with `OCELLUS_SEED`.
///
/// # Panics
/// When `OCELLUS_SEED` is no number.
#[allow(clippy::print_stderr, clippy::unwrap_used)]
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = match env::var("OCELLUS_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => RandomState::new().hash_one(0u8) >> 32,
        };
        eprintln!("OCELLUS_SEED={seed}");
        seed
    })
}

/// Emulated devices of this run, each with another schedule.
pub fn devices(n: u64) -> impl Iterator<Item = Device> {
    (0..n).map(|i| Emulator::device(seed().wrapping_mul(31).wrapping_add(i)))
}

/// Numbers in [-1, 1) that depend on this run's seed, `stream` and the position alone (splitmix64).
pub fn numbers(stream: u64, n: usize) -> Vec<f32> {
    let start = seed().wrapping_add(stream).wrapping_mul(0xA076_1D64_78BD_642F);
    (0..n as u64)
        .map(|i| {
            let mut z = start.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A tensor of such numbers in f32.
///
/// # Panics
/// When the device has no room.
#[allow(clippy::unwrap_used)]
pub fn tensor(stream: u64, shape: &[usize], device: &Device) -> Tensor {
    Tensor::from_f32(numbers(stream, shape.iter().product()), shape, device).unwrap()
}

/// `x`, and the same numbers on `device` in bf16: `x` on the host is rounded to bf16 first, so that both are equal.
///
/// # Panics
/// When the device has no room.
#[allow(clippy::unwrap_used)]
pub fn bf16_pair(stream: u64, shape: &[usize], device: &Device) -> (Tensor, Tensor) {
    let on_device = tensor(stream, shape, device).to_dtype(DType::BF16).unwrap();
    let on_host = Tensor::from_f32(on_device.to_f32_vec().unwrap(), shape, &Device::cpu()).unwrap();
    (on_host, on_device)
}

/// How far a found number may be from the expected one: `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// For numbers near zero, which come of larger ones that cancel.
    pub absolute: f32,
    /// For the rounding of the result itself. Half a unit in the last place of bf16 is 2^-8 of a number at most.
    pub relative: f32,
}

/// Asserts equal shapes, and elements within `tolerance`, of which the caller says why it is that large. NaN is never
/// within.
///
/// # Panics
/// When they differ.
#[allow(clippy::unwrap_used)]
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let (found, expected) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    for (i, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        let within = tolerance.absolute + tolerance.relative * expected.abs();
        assert!(
            (found - expected).abs() <= within,
            "{what}: element {i} is {found}, expected {expected} within {within} (OCELLUS_SEED={})",
            seed()
        );
    }
}
