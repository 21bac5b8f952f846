//! RMSNorm on the emulated device against the reference.

use ocellus_cuda_emulator::testing::{self, Tolerance};
use ocellus_kernels::{DType, Device, rms_norm};

/// The result is rounded to bf16, 2^-8 of a number at most; sums of squares in another order are far below that.
const TOLERANCE: Tolerance = Tolerance { absolute: 1e-6, relative: 1.0 / 250.0 };

#[test]
fn equals_the_reference() {
    for device in testing::devices(2) {
        for (tokens, features) in [(0, 8), (1, 1), (3, 31), (5, 80), (2, 1280), (3, 2049), (2, 3584)] {
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
    let (x, weight) = (testing::tensor(1, &[4, 129], &device), testing::tensor(2, &[129], &device));
    let all = rms_norm::forward(&x, &weight, 1e-6).unwrap().to_f32_vec().unwrap();
    for row in 0..4 {
        let alone = rms_norm::forward(&x.narrow(0, row, 1).unwrap(), &weight, 1e-6).unwrap();
        assert_eq!(alone.to_f32_vec().unwrap(), all[row * 129..(row + 1) * 129]);
    }
}
