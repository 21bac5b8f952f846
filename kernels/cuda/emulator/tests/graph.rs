//! A recorded computation gives the bits of a direct one, with new numbers at each replay.

use std::sync::Arc;

use ocellus_cuda_emulator::{Emulator, Options, testing};
use ocellus_kernels::{
    DType, Device, Error, Tensor,
    graph::{self, Graph, Input},
    rms_norm,
};

fn compute(x: &Tensor, weight: &Tensor) -> Result<Tensor, Error> {
    let once = rms_norm::forward(x, weight, 1e-6)?.to_dtype(DType::F32)?;
    rms_norm::forward(&once, weight, 1e-6)?.narrow(1, 3, 5)?.to_dtype(DType::F32)
}

#[test]
fn replays_give_the_bits_of_direct_launches() {
    for exact_allocations in [true, false] {
        let options = Options { exact_allocations, seed: testing::seed(), ..Options::default() };
        let device = Device::with_driver(Arc::new(Emulator::new(options)));
        let (x, weight) = (testing::tensor(1, &[3, 40], &device), testing::tensor(2, &[40], &device));
        let expected = compute(&x, &weight).unwrap().to_f32_vec().unwrap();
        let mut graph = Graph::new(&device);
        for call in 0..5 {
            let found = graph.run(&device, || compute(&x, &weight)).unwrap().to_f32_vec().unwrap();
            assert_eq!(found, expected, "call {call}");
            assert_eq!(graph.is_recorded(), call > 0);
            // Others' tensors come and go in between and must not get the recording's memory.
            let other = Tensor::zeros(&[3, 40], &device).unwrap();
            assert!(compute(&other, &weight).is_ok());
        }
        // The result stays when the recording is gone.
        let last = graph.run(&device, || compute(&x, &weight)).unwrap();
        drop(graph);
        assert_eq!(last.to_f32_vec().unwrap(), expected);
    }
}

#[test]
fn what_can_not_be_recorded_is_computed_all_the_same() {
    let device = testing::devices(1).next().unwrap();
    let x = testing::tensor(1, &[2, 8], &device);
    let mut graph = Graph::new(&device);
    for _ in 0..4 {
        // To read back is no launch.
        let sum = graph.run(&device, || Ok::<f32, Error>(x.to_f32_vec()?.iter().sum())).unwrap();
        assert!(sum.is_finite() && !graph.is_recorded());
    }
    let mut failing = Graph::<Tensor>::new(&device);
    let weight = testing::tensor(2, &[9], &device);
    for _ in 0..3 {
        assert!(failing.run(&device, || rms_norm::forward(&x, &weight, 1e-6)).is_err());
    }
    // The device records and computes after that.
    assert!(rms_norm::forward(&x, &testing::tensor(2, &[8], &device), 1e-6).is_ok());
}

#[test]
fn the_host_computes_anew() {
    let device = Device::cpu();
    let mut graph = Graph::new(&device);
    for n in 1..4 {
        let found = graph.run(&device, || Tensor::zeros(&[n], &device)).unwrap();
        assert_eq!((found.shape(), graph.is_recorded()), (&[n][..], false));
    }
}

#[test]
fn inputs_are_read_at_each_replay() {
    for device in testing::devices(1).chain([Device::cpu()]) {
        let weight = testing::tensor(2, &[40], &device);
        let mut input = Input::zeros(&[3, 40], &device).unwrap();
        let mut graph = Graph::new(&device);
        for call in 0..4 {
            let rows = testing::tensor(10 + call, &[2, 40], &device);
            input.set(&rows).unwrap();
            let found = graph.run(&device, || rms_norm::forward(input.tensor(), &weight, 1e-6)).unwrap();
            let found = graph::copied(&found.narrow(0, 0, 2).unwrap()).unwrap();
            let expected = rms_norm::forward(&rows, &weight, 1e-6).unwrap();
            assert_eq!(found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap(), "call {call}");
        }
        assert!(input.set(&testing::tensor(1, &[4, 40], &device)).is_err());
        assert!(input.set(&testing::tensor(1, &[2, 41], &device)).is_err());
    }
}
