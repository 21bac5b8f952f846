//! Rotary tables and the rotation on the emulated device against the reference.

#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::testing::{self, Tolerance};
use ocellus_kernels::{
    DType, Device, Tensor,
    rotary::{self, Multimodal, Tables},
};

/// The rotated numbers are rounded to bf16, 2^-8 of each at most; near zero, two products below 1 cancel, each an f32
/// rounding off.
const TOLERANCE: Tolerance = Tolerance { absolute: 1e-6, relative: 1.0 / 256.0 };

/// Rotates the same numbers with tables made on the device and on the host.
fn check(device: &Device, tables: &Tables, host: &Tables) {
    let (tokens, head_dim) = (host.tokens(), host.head_dim());
    assert_eq!((tables.tokens(), tables.head_dim()), (tokens, head_dim));
    for heads in [1, 3, 20] {
        let (on_host, on_device) = testing::bf16_pair(heads as u64, &[tokens, heads, head_dim], device);
        let expected = rotary::reference(&on_host, host).unwrap();
        let found = rotary::forward(&on_device, tables).unwrap();
        assert_eq!(found.dtype(), DType::BF16);
        testing::assert_close(&format!("{heads} heads of {head_dim}"), &found, &expected, TOLERANCE);
    }
}

#[test]
fn spatial_tables_and_rotation_equal_the_reference() {
    let positions = [[0, 0], [1, 0], [0, 1], [500, 23], [255, 255]];
    for device in testing::devices(2) {
        for head_dim in [16, 32, 80, 128] {
            let make = |device| Tables::spatial(&positions, head_dim, 10_000.0, device).unwrap();
            check(&device, &make(&device), &make(&Device::cpu()));
        }
    }
}

#[test]
fn multimodal_tables_and_rotation_equal_the_reference() {
    let positions = [[0, 0, 0], [7, 8, 9], [130_000, 1, 2], [1, 500, 2], [1, 2, 32_000]];
    for device in testing::devices(2) {
        for (head_dim, sections) in [(16, [2, 3, 3]), (128, [16, 24, 24])] {
            let rope = Multimodal { head_dim, theta: 1e6, sections: &sections };
            let make = |device| Tables::multimodal(&positions, rope, device).unwrap();
            check(&device, &make(&device), &make(&Device::cpu()));
        }
    }
}

#[test]
fn no_tokens_have_no_angles() {
    let device = testing::devices(1).next().unwrap();
    let tables = Tables::spatial(&[], 80, 10_000.0, &device).unwrap();
    let x = Tensor::zeros(&[0, 2, 80], &device).unwrap().to_dtype(DType::BF16).unwrap();
    assert_eq!(rotary::forward(&x, &tables).unwrap().shape(), [0, 2, 80]);
}

/// Heads that are no multiple of 16 wide, and f32, go through the host.
#[test]
fn what_has_no_kernel_is_computed_all_the_same() {
    let device = testing::devices(1).next().unwrap();
    let make = |device| Tables::spatial(&[[3, 4], [5, 6]], 12, 10_000.0, device).unwrap();
    check(&device, &make(&device), &make(&Device::cpu()));
}
