//! Tensors on the emulated device: they hold what was put in, in any type and any part.

use ocellus_cuda_emulator::{Emulator, Options, testing};
use ocellus_kernels::{DType, Device, Tensor};
use std::sync::Arc;

#[test]
fn numbers_come_back() {
    let device = testing::devices(1).next().unwrap();
    assert_eq!(device.name(), "cuda");
    for shape in [&[0][..], &[1], &[3, 5], &[2, 3, 4, 5], &[7, 0]] {
        let values = testing::numbers(1, shape.iter().product());
        let x = Tensor::from_f32(values.clone(), shape, &device).unwrap();
        assert_eq!((x.shape(), x.dtype()), (shape, DType::F32));
        assert_eq!(x.to_f32_vec().unwrap(), values);
        let zeros = Tensor::zeros(shape, &device).unwrap();
        assert!(zeros.to_f32_vec().unwrap().iter().all(|&x| x == 0.0));
    }
    assert!(Tensor::from_f32(vec![1.0], &[2], &device).is_err());
}

#[test]
fn parts_equal_those_of_the_host() {
    let device = testing::devices(1).next().unwrap();
    for dtype in [DType::F32, DType::BF16] {
        let x = testing::tensor(1, &[3, 4, 5], &device).to_dtype(dtype).unwrap();
        let host = Tensor::from_f32(x.to_f32_vec().unwrap(), &[3, 4, 5], &Device::cpu()).unwrap();
        for (dim, start, len) in [(0, 1, 2), (1, 0, 4), (1, 1, 2), (2, 4, 1), (2, 2, 0), (0, 3, 0)] {
            let (found, expected) =
                (x.narrow(dim, start, len).unwrap(), host.narrow(dim, start, len).unwrap());
            assert_eq!(found.shape(), expected.shape());
            assert_eq!(found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap(), "{dim}, {start}, {len}");
        }
        let part = x.narrow(0, 1, 2).unwrap().reshape(&[8, 5]).unwrap();
        assert_eq!(part.to_f32_vec().unwrap(), host.to_f32_vec().unwrap()[20..]);
    }
}

#[test]
fn bf16_is_rounded_to_nearest_even() {
    let device = testing::devices(1).next().unwrap();
    let mut values = testing::numbers(3, 1000);
    values.extend([0.0, -0.0, 1.003_906_2, 1.011_718_8, f32::MAX, f32::INFINITY, 1e-40, f32::NAN]);
    let x = Tensor::from_f32(values.clone(), &[values.len()], &device).unwrap();
    let found = x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap().to_f32_vec().unwrap();
    for (x, found) in values.iter().zip(found) {
        let expected = half::bf16::from_f32(*x).to_f32();
        assert!(found == expected || found.is_nan() && expected.is_nan(), "{x}: {found}, {expected}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let emulator = Emulator::new(Options { memory: 1 << 20, ..Options::default() });
    let device = Device::with_driver(Arc::new(emulator));
    let _half = Tensor::zeros(&[1 << 17], &device).unwrap();
    let message = Tensor::zeros(&[3 << 16], &device).unwrap_err().to_string();
    assert_eq!(
        message,
        "786432 bytes do not fit in the CUDA device's memory: 524288 of 1048576 bytes are free"
    );
    assert!(Tensor::zeros(&[usize::MAX, 2], &device).is_err());
}
