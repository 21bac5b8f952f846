//! Operations on single elements, on the emulated device against the reference.

#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::testing::{self, Tolerance};
use ocellus_kernels::{DType, Device, Result, Tensor, add, gelu, silu_mul};

/// Lengths around a thread's eight elements and a block's 2,048.
const LENGTHS: [usize; 9] = [0, 1, 7, 8, 9, 63, 2047, 2049, 5000];

/// The rounding of a result to bf16, at most 2^-8 of it.
const BF16: Tolerance = Tolerance { absolute: 1e-30, relative: 1.0 / 250.0 };

/// Pairs of the same numbers on the host and on the device: whole tensors, and such as begin in the middle of another,
/// not aligned to 16 bytes.
fn pairs(stream: u64, n: usize, dtype: DType, device: &Device) -> Vec<(Tensor, Tensor)> {
    // Wide enough for the tails of both functions.
    let all: Vec<f32> = testing::numbers(stream, n + 3).iter().map(|x| x * 12.0).collect();
    let all = Tensor::from_f32(all, &[n + 3], device).unwrap().to_dtype(dtype).unwrap();
    let on_host = |x: &Tensor| Tensor::from_f32(x.to_f32_vec().unwrap(), x.shape(), &Device::cpu()).unwrap();
    let inside = all.narrow(0, 3, n).unwrap();
    let whole =
        Tensor::from_f32(inside.to_f32_vec().unwrap(), &[n], device).unwrap().to_dtype(dtype).unwrap();
    vec![(on_host(&whole), whole), (on_host(&inside), inside)]
}

#[test]
fn sums_are_exact() {
    for device in testing::devices(2) {
        for n in LENGTHS {
            for dtype in [DType::F32, DType::BF16] {
                for ((a, on_a), (b, on_b)) in
                    pairs(1, n, DType::F32, &device).into_iter().zip(pairs(2, n, dtype, &device))
                {
                    let expected = add::reference(&a, &b).unwrap().to_f32_vec().unwrap();
                    let what = format!("{n}, {dtype:?}");
                    assert_eq!(add::forward(&on_a, &on_b).unwrap().to_f32_vec().unwrap(), expected, "{what}");
                    // Others who have it keep it, and without others it is written over.
                    let sum = add::into(on_a.clone(), &on_b).unwrap();
                    assert_eq!(sum.to_f32_vec().unwrap(), expected, "{what}");
                    assert_eq!(on_a.to_f32_vec().unwrap(), a.to_f32_vec().unwrap(), "{what}");
                    assert_eq!(add::into(on_a, &on_b).unwrap().to_f32_vec().unwrap(), expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_sum_is_f32() {
    let device = testing::devices(1).next().unwrap();
    let (a, b) = (testing::tensor(1, &[2, 3], &device), testing::tensor(2, &[2, 3], &device));
    let narrow = a.to_dtype(DType::BF16).unwrap();
    assert_eq!(add::forward(&b, &narrow).unwrap().dtype(), DType::F32);
    let error = add::forward(&narrow, &b).unwrap_err();
    assert_eq!(error.to_string(), "add: a is BF16, expected F32");
}

fn check_map(
    what: &str,
    reference: fn(&Tensor) -> Result<Tensor>,
    forward: fn(&Tensor) -> Result<Tensor>,
    tolerances: [Tolerance; 2],
) {
    for device in testing::devices(2) {
        for n in LENGTHS {
            for (dtype, tolerance) in [DType::F32, DType::BF16].into_iter().zip(tolerances) {
                for (host, on_device) in pairs(3, n, dtype, &device) {
                    let found = forward(&on_device).unwrap();
                    assert_eq!(found.dtype(), dtype);
                    let expected = reference(&host).unwrap();
                    testing::assert_close(&format!("{what} {n}, {dtype:?}"), &found, &expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn gelu_equals_the_reference() {
    // The reference loses the digits of its tail: half a unit of 1, times x / 2. The next test's numbers are exact.
    let lost = Tolerance { absolute: 4e-7, relative: 4e-7 };
    check_map("gelu", gelu::reference, gelu::forward, [lost, Tolerance { absolute: 4e-7, ..BF16 }]);
}

#[test]
fn gelu_keeps_its_tail() {
    let device = testing::devices(1).next().unwrap();
    let x = [-6.0, -2.0, 0.0, 2.5, f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
    let found =
        gelu::forward(&Tensor::from_f32(x.to_vec(), &[7], &device).unwrap()).unwrap().to_f32_vec().unwrap();
    for (found, expected) in found.iter().zip([-5.919_526e-9, -0.045_500_26, 0.0, 2.484_475_8f32]) {
        // Half a unit of 18, which the exponential multiplies, and some.
        assert!((found - expected).abs() <= 2e-6 * expected.abs(), "{found}, {expected}");
    }
    // Minus infinity times zero is NaN, as in the reference.
    assert!(found[4].is_nan() && found[5] == f32::INFINITY && found[6].is_nan(), "{found:?}");
}

#[test]
fn silu_mul_equals_the_reference() {
    for device in testing::devices(2) {
        for n in LENGTHS {
            for (dtype, tolerance) in [
                // Some units in the last place: the exponential, the sum, the quotient, the product.
                (DType::F32, Tolerance { absolute: 1e-30, relative: 8e-7 }),
                (DType::BF16, BF16),
            ] {
                for ((gate, on_gate), (up, on_up)) in
                    pairs(4, n, dtype, &device).into_iter().zip(pairs(5, n, dtype, &device))
                {
                    let found = silu_mul::forward(&on_gate, &on_up).unwrap();
                    assert_eq!(found.dtype(), dtype);
                    let expected = silu_mul::reference(&gate, &up).unwrap();
                    testing::assert_close(&format!("{n}, {dtype:?}"), &found, &expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn silu_of_far_numbers_is_zero_or_they_themselves() {
    let device = testing::devices(1).next().unwrap();
    let gate = [-1000.0, -100.0, 100.0, 1000.0, 0.0, f32::NAN];
    for dtype in [DType::F32, DType::BF16] {
        let tensor =
            |x: &[f32]| Tensor::from_f32(x.to_vec(), &[6], &device).unwrap().to_dtype(dtype).unwrap();
        let found = silu_mul::forward(&tensor(&gate), &tensor(&[1.0; 6])).unwrap().to_f32_vec().unwrap();
        assert!(found[0].abs() < 1e-30 && found[1].abs() < 1e-30, "{found:?}");
        assert!(found[2] == 100.0 && found[3] == 1000.0 && found[4] == 0.0 && found[5].is_nan(), "{found:?}");
    }
}
