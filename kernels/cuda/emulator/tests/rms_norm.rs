//! RMSNorm on the emulated device against the reference.

use ocellus_cuda_emulator::testing::{self, Tolerance};
use ocellus_kernels::{DType, Device, Tensor, rms_norm};

/// The result is rounded to bf16, 2^-8 of a number at most; sums of squares in another order are far below that.
const TOLERANCE: Tolerance = Tolerance { absolute: 1e-6, relative: 1.0 / 250.0 };

/// Each kernel at its ends, and what none of the fast ones takes.
const SHAPES: [(usize, usize); 15] = [
    (0, 8),
    (1, 1),
    (3, 4),
    (3, 31),
    (9, 80),
    (17, 1280),
    (2, 1284),
    (3, 2049),
    (2, 3584),
    (1, 4096),
    (1, 4100),
    (2, 5120),
    (1, 8192),
    (1, 8196),
    (2, 0),
];

#[test]
fn equals_the_reference() {
    for device in testing::devices(2) {
        for (tokens, features) in SHAPES {
            let host = testing::tensor(1, &[tokens, features], &Device::cpu());
            let weight = testing::tensor(2, &[features], &Device::cpu());
            let expected = rms_norm::reference(&host, &weight, 1e-6).unwrap();
            let x = testing::tensor(1, &[tokens, features], &device);
            let weight = testing::tensor(2, &[features], &device);
            let found = rms_norm::forward(&x, &weight, 1e-6).unwrap();
            assert_eq!(found.dtype(), DType::BF16);
            testing::assert_close(&format!("{tokens} x {features}"), &found, &expected, TOLERANCE);
        }
    }
}

#[test]
fn a_row_does_not_see_the_others() {
    let device = testing::devices(1).next().unwrap();
    for features in [129, 256, 2048] {
        let (x, weight) =
            (testing::tensor(1, &[4, features], &device), testing::tensor(2, &[features], &device));
        let all = rms_norm::forward(&x, &weight, 1e-6).unwrap().to_f32_vec().unwrap();
        for row in 0..4 {
            let alone = rms_norm::forward(&x.narrow(0, row, 1).unwrap(), &weight, 1e-6).unwrap();
            assert_eq!(alone.to_f32_vec().unwrap(), all[row * features..(row + 1) * features]);
        }
    }
}

#[test]
fn weights_that_begin_anywhere_are_read_rightly() {
    let device = testing::devices(1).next().unwrap();
    let x = testing::tensor(1, &[3, 8], &device);
    let weights = testing::tensor(2, &[9], &device);
    let part = weights.narrow(0, 1, 8).unwrap();
    let whole = Tensor::from_f32(part.to_f32_vec().unwrap(), &[8], &device).unwrap();
    let found = rms_norm::forward(&x, &part, 1e-6).unwrap().to_f32_vec().unwrap();
    assert_eq!(found, rms_norm::forward(&x, &whole, 1e-6).unwrap().to_f32_vec().unwrap());
}
