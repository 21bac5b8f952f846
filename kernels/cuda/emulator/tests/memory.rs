//! Memory of a device: used again where that is right, and given back.

use std::sync::Arc;

use ocellus_cuda_emulator::{Emulator, Options, testing};
use ocellus_kernels::{DType, Device, Tensor, cuda::Driver};

#[test]
fn what_is_dropped_is_used_again_and_given_back_in_need() {
    let options = Options { exact_allocations: false, memory: 1 << 20, ..Options::default() };
    let emulator = Arc::new(Emulator::new(options));
    let device = Device::with_driver(emulator.clone());
    let free = || emulator.memory().unwrap().free;
    let zeros = |n: usize| Tensor::zeros(&[n], &device).unwrap();
    drop(zeros(1 << 17));
    let after_first = free();
    // The same size takes nothing new, another does.
    drop(zeros(1 << 17));
    assert_eq!(free(), after_first);
    // There is room only when what waits is given back.
    let large = zeros(3 << 16);
    assert_eq!(large.to_f32_vec().unwrap(), vec![0.0; 3 << 16]);
    assert!(Tensor::zeros(&[1 << 17], &device).is_err());
    drop(large);
    drop(device);
    assert_eq!(free(), 1 << 20);
}

#[test]
fn a_pooled_device_computes_the_same() {
    let options = Options { exact_allocations: false, ..Options::default() };
    let pooled = Device::with_driver(Arc::new(Emulator::new(options)));
    let exact = testing::devices(1).next().unwrap();
    let compute = |device: &Device| {
        let x = testing::tensor(1, &[5, 7, 3], device).to_dtype(DType::BF16).unwrap();
        let part = x.narrow(1, 2, 4).unwrap().to_dtype(DType::F32).unwrap();
        part.narrow(2, 1, 1).unwrap().to_f32_vec().unwrap()
    };
    assert_eq!(compute(&pooled), compute(&exact));
    assert_eq!(compute(&pooled), compute(&exact));
}

#[test]
fn a_device_has_a_cache_of_its_own() {
    assert_eq!(Emulator::device(0).cache_bytes(), Some(40 << 20));
}
