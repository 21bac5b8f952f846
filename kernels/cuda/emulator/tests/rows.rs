//! Rows moved on the emulated device: nothing is computed, so all is exact.

#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::testing;
use ocellus_kernels::{DType, Device, Tensor, rows};

/// The same numbers on the host and on the device, in `dtype`.
fn pair(stream: u64, shape: &[usize], dtype: DType, device: &Device) -> (Tensor, Tensor) {
    match dtype {
        DType::BF16 => testing::bf16_pair(stream, shape, device),
        _ => (testing::tensor(stream, shape, &Device::cpu()), testing::tensor(stream, shape, device)),
    }
}

fn assert_same(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    assert_eq!(found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap(), "{what}");
}

#[test]
fn gather_and_scatter_equal_the_reference() {
    for device in testing::devices(2) {
        for (rows, width, n) in
            [(1, 1, 1), (7, 3, 7), (5, 8, 0), (40, 513, 33), (3, 64, 9), (9, 20, 4), (4, 0, 2)]
        {
            for dtype in [DType::F32, DType::BF16] {
                let what = format!("{n} of {rows} x {width}, {dtype:?}");
                let (host, x) = pair(1, &[rows, width], dtype, &device);
                let indices: Vec<u32> = (0..n).map(|i| (i * 5 + 1) as u32 % rows as u32).collect();
                let found = rows::gather(&x, &indices).unwrap();
                assert_eq!(found.dtype(), dtype);
                assert_same(&what, &found, &rows::gather_reference(&host, &indices).unwrap());
                if n > rows {
                    continue;
                }
                let (new, values) = pair(2, &[n, width], dtype, &device);
                // Each row at most once, the last ones first.
                let indices: Vec<u32> = (0..n).map(|i| (rows - 1 - i) as u32).collect();
                let found = rows::scatter(&x, &indices, &values).unwrap();
                assert_same(&what, &found, &rows::scatter_reference(&host, &indices, &new).unwrap());
                assert_same(&what, &x, &host);
            }
        }
    }
}

#[test]
fn rows_that_begin_anywhere_are_moved() {
    let device = testing::devices(1).next().unwrap();
    // Rows of 6 bytes from the second on: no address is a multiple of four.
    let (host, x) = testing::bf16_pair(1, &[9, 3], &device);
    let (host, x) = (host.narrow(0, 1, 8).unwrap(), x.narrow(0, 1, 8).unwrap());
    let indices = [7, 0, 3];
    let found = rows::gather(&x, &indices).unwrap();
    assert_same("gather", &found, &rows::gather_reference(&host, &indices).unwrap());
}

#[test]
fn more_dimensions_and_all_rows_in_order() {
    let device = testing::devices(1).next().unwrap();
    let x = testing::tensor(1, &[4, 3, 5], &device);
    let found = rows::gather(&x, &[2, 2]).unwrap();
    assert_eq!(found.shape(), [2, 3, 5]);
    assert_same("all", &rows::gather(&x, &[0, 1, 2, 3]).unwrap(), &x);
    assert_same("some", &rows::gather(&x, &[0, 1]).unwrap(), &x.narrow(0, 0, 2).unwrap());
    assert!(rows::gather(&x, &[4]).is_err());
}

#[test]
fn parts_come_one_below_the_other() {
    for device in testing::devices(2) {
        for dtype in [DType::F32, DType::BF16] {
            let parts = [3, 0, 1, 17].map(|rows| pair(rows as u64, &[rows, 5], dtype, &device));
            let hosts = parts.clone().map(|(host, _)| host);
            let tensors = parts.map(|(_, tensor)| tensor);
            let found = rows::concat(&tensors).unwrap();
            assert_eq!(found.dtype(), dtype);
            assert_same("concat", &found, &rows::concat(&hosts).unwrap());
            // Of parts that are themselves parts.
            let tails = tensors.clone().map(|t| t.narrow(0, t.dim(0) / 2, t.dim(0) - t.dim(0) / 2).unwrap());
            let expected = hosts.map(|t| t.narrow(0, t.dim(0) / 2, t.dim(0) - t.dim(0) / 2).unwrap());
            assert_same("tails", &rows::concat(&tails).unwrap(), &rows::concat(&expected).unwrap());
        }
    }
}

#[test]
fn types_are_not_mixed() {
    let device = testing::devices(1).next().unwrap();
    let wide = testing::tensor(1, &[2, 4], &device);
    let narrow = wide.to_dtype(DType::BF16).unwrap();
    let error = rows::concat(&[wide.clone(), narrow.clone()]).unwrap_err();
    assert_eq!(error.to_string(), "rows::concat: parts is BF16, expected F32");
    let error = rows::scatter(&wide, &[0, 1], &narrow).unwrap_err();
    assert_eq!(error.to_string(), "rows::scatter: values is BF16, expected F32");
}
