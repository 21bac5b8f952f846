//! Top-k on the emulated device: the reference's entries, bit for bit.

#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::testing;
use ocellus_kernels::{Device, Tensor, top_k};

fn check(what: &str, values: Vec<f32>, columns: usize, k: usize, device: &Device) {
    let shape = [values.len() / columns, columns];
    let host = Tensor::from_f32(values.clone(), &shape, &Device::cpu()).unwrap();
    let x = Tensor::from_f32(values, &shape, device).unwrap();
    let bits = |rows: Vec<Vec<top_k::Entry>>| -> Vec<Vec<(u32, u32)>> {
        rows.iter().map(|row| row.iter().map(|e| (e.index, e.value.to_bits())).collect()).collect()
    };
    let (found, expected) = (top_k::forward(&x, k).unwrap(), top_k::reference(&host, k).unwrap());
    assert_eq!(bits(found), bits(expected), "{what}, {shape:?}, {k} (OCELLUS_SEED={})", testing::seed());
}

#[test]
fn equals_the_reference() {
    for device in testing::devices(2) {
        for (rows, columns, k) in
            [(1, 1, 1), (3, 7, 9), (1, 2048, 3), (2, 2049, 5), (1, 4100, 1), (1, 70, 20), (1, 200, 65)]
        {
            let numbers = testing::numbers(1, rows * columns);
            check("numbers", numbers.clone(), columns, k, &device);
            // Equal ones have to be told apart by their place.
            check("coarse", numbers.iter().map(|x| (x * 3.0).round()).collect(), columns, k, &device);
        }
    }
}

#[test]
fn odd_numbers_have_their_order() {
    let odd =
        [f32::NAN, f32::INFINITY, -0.0, 0.0, f32::NEG_INFINITY, f32::MIN_POSITIVE / 2.0, f32::MIN, f32::MAX];
    for device in testing::devices(2) {
        let numbers = testing::numbers(2, 300).iter().map(|x| odd[((x + 1.0) * 4.0) as usize % 8]).collect();
        check("odd", numbers, 100, 50, &device);
        check("NaN", vec![f32::NAN; 10], 5, 9, &device);
    }
}

#[test]
fn no_rows_and_no_columns_are_nothing() {
    let device = testing::devices(1).next().unwrap();
    assert!(top_k::forward(&testing::tensor(1, &[0, 5], &device), 2).unwrap().is_empty());
    assert_eq!(top_k::forward(&testing::tensor(1, &[2, 0], &device), 2).unwrap(), [vec![], vec![]]);
}
