//! Attention within windows and frames on the emulated device against the reference.

#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::testing::{self, Tolerance};
use ocellus_kernels::{
    DType, Device, Precision, Tensor,
    attention::{self, Rotated, Segments},
    rotary::{self, Tables},
};

/// A result is an average of values below 1. Its weights are rounded to bf16, 2^-8 of each at most, which is an error below
/// 2^-8; then the result is rounded to bf16, 2^-8 of itself at most.
const TOLERANCE: Tolerance = Tolerance { absolute: 1.0 / 256.0, relative: 1.0 / 256.0 };

/// `x` rounded to bf16, on the host.
fn rounded(x: &Tensor, device: &Device) -> Tensor {
    let values = Tensor::from_f32(x.to_f32_vec().unwrap(), x.shape(), device).unwrap();
    let values = values.to_dtype(DType::BF16).unwrap().to_f32_vec().unwrap();
    Tensor::from_f32(values, x.shape(), &Device::cpu()).unwrap()
}

fn tables(tokens: usize, head_dim: usize, device: &Device) -> Tables {
    let positions: Vec<[u32; 2]> = (0..tokens as u32).map(|i| [i / 7 * 3, i % 7 * 11]).collect();
    Tables::spatial(&positions, head_dim, 10_000.0, device).unwrap()
}

fn attend(qkv: &Tensor, (heads, head_dim): (usize, usize), lengths: &[usize], scale: f32) -> Tensor {
    let device = qkv.device();
    let tables = tables(qkv.dim(0), head_dim, &device);
    let segments = Segments::new(lengths, &device).unwrap();
    let rotated = Rotated { qkv, tables: &tables, heads };
    attention::varlen_rotated(rotated, &segments, scale, Precision::Bf16).unwrap()
}

fn check(device: &Device, (heads, head_dim): (usize, usize), lengths: &[usize]) {
    let (tokens, width, scale) = (lengths.iter().sum(), heads * head_dim, 0.7);
    let (on_host, on_device) = testing::bf16_pair(1, &[tokens, 3 * width], device);
    let part = |i| on_host.narrow(1, i * width, width).unwrap().reshape(&[tokens, heads, head_dim]).unwrap();
    let host_tables = tables(tokens, head_dim, &Device::cpu());
    // Rotated queries and keys are bf16 on the device.
    let rotated = |i| rounded(&rotary::reference(&part(i), &host_tables).unwrap(), device);
    let expected = attention::varlen_reference(&rotated(0), &rotated(1), &part(2), lengths, scale).unwrap();
    let found = attend(&on_device, (heads, head_dim), lengths, scale);
    assert_eq!(found.dtype(), DType::BF16);
    let what = format!("{heads} heads of {head_dim}, {lengths:?}");
    testing::assert_close(&what, &found, &expected.reshape(&[tokens, width]).unwrap(), TOLERANCE);
}

#[test]
fn ragged_windows_equal_the_reference() {
    for device in testing::devices(2) {
        for (heads, head_dim) in [(3, 16), (1, 32), (2, 64), (3, 80)] {
            check(&device, (heads, head_dim), &[64, 4, 36, 0, 64, 17, 1]);
        }
        check(&device, (5, 80), &[8, 64, 63, 16, 15]);
        check(&device, (2, 80), &[1]);
    }
}

#[test]
fn frames_equal_the_reference() {
    for device in testing::devices(2) {
        for (heads, head_dim) in [(2, 16), (1, 32), (1, 64), (2, 80)] {
            check(&device, (heads, head_dim), &[65, 129]);
        }
        check(&device, (1, 80), &[127, 128, 257]);
        check(&device, (1, 16), &[700]);
    }
}

#[test]
fn windows_and_frames_lie_side_by_side() {
    let device = testing::devices(1).next().unwrap();
    check(&device, (2, 80), &[64, 100, 4, 0, 65, 64]);
    check(&device, (2, 80), &[]);
    check(&device, (2, 80), &[0, 0]);
}

/// The heads that one block computes, and what else is in the batch, don't change a bit.
#[test]
fn a_segment_does_not_see_the_others() {
    let device = testing::devices(1).next().unwrap();
    let (heads, head_dim) = (4, 80);
    let lengths = [64, 64, 64, 64, 64, 20, 90, 3];
    let (_, qkv) = testing::bf16_pair(3, &[lengths.iter().sum(), 3 * heads * head_dim], &device);
    let all_tables = tables(qkv.dim(0), head_dim, &device);
    let together = attend(&qkv, (heads, head_dim), &lengths, 0.3).to_f32_vec().unwrap();
    let mut start = 0;
    for length in lengths {
        let part = qkv.narrow(0, start, length).unwrap();
        let positions: Vec<[u32; 2]> =
            (start as u32..(start + length) as u32).map(|i| [i / 7 * 3, i % 7 * 11]).collect();
        let tables = Tables::spatial(&positions, head_dim, 10_000.0, &device).unwrap();
        let lengths = [length];
        let segments = Segments::new(&lengths, &device).unwrap();
        let rotated = Rotated { qkv: &part, tables: &tables, heads };
        let alone = attention::varlen_rotated(rotated, &segments, 0.3, Precision::Bf16).unwrap();
        let width = heads * head_dim;
        assert_eq!(
            alone.to_f32_vec().unwrap(),
            together[start * width..(start + length) * width],
            "{length}"
        );
        start += length;
    }
    assert_eq!(all_tables.tokens(), start);
}

/// Scores far apart, and large ones that come late: the correction of what was added up before.
#[test]
fn large_scores_that_come_late_are_right() {
    let device = testing::devices(1).next().unwrap();
    let (heads, head_dim, tokens, scale) = (1, 16, 200, 1.0);
    let width = heads * head_dim;
    let mut values = testing::numbers(5, tokens * 3 * width);
    for (token, row) in values.chunks_exact_mut(3 * width).enumerate() {
        row[width..2 * width].iter_mut().for_each(|k| *k *= token as f32 / 8.0);
    }
    let zeros = vec![[0, 0]; tokens];
    let x = Tensor::from_f32(values, &[tokens, 3 * width], &device).unwrap().to_dtype(DType::BF16).unwrap();
    let host = rounded(&x, &device);
    let part = |i| host.narrow(1, i * width, width).unwrap().reshape(&[tokens, heads, head_dim]).unwrap();
    let expected = attention::varlen_reference(&part(0), &part(1), &part(2), &[tokens], scale).unwrap();
    let lengths = [tokens];
    let tables = Tables::spatial(&zeros, head_dim, 10_000.0, &device).unwrap();
    let rotated = Rotated { qkv: &x, tables: &tables, heads };
    let segments = Segments::new(&lengths, &device).unwrap();
    let found = attention::varlen_rotated(rotated, &segments, scale, Precision::Bf16).unwrap();
    testing::assert_close("late", &found, &expected.reshape(&[tokens, width]).unwrap(), TOLERANCE);
}

#[test]
fn what_has_no_kernel_is_computed_all_the_same() {
    let device = testing::devices(1).next().unwrap();
    check(&device, (2, 48), &[5, 70]);
}

#[test]
fn wrong_arguments_are_named() {
    let device = testing::devices(1).next().unwrap();
    let (_, qkv) = testing::bf16_pair(1, &[5, 3 * 32], &device);
    let tables = tables(5, 16, &device);
    let attend = |lengths: &[usize], scale| {
        let segments = Segments::new(lengths, &device).unwrap();
        let rotated = Rotated { qkv: &qkv, tables: &tables, heads: 2 };
        attention::varlen_rotated(rotated, &segments, scale, Precision::Bf16)
    };
    assert!(attend(&[2, 3], 1.0).is_ok());
    let error = attend(&[2, 2], 1.0).unwrap_err().to_string();
    assert_eq!(error, "attention::varlen_rotated: lengths is 4, expected 5 in sum");
    assert!(attend(&[5], 0.0).is_err());
    assert!(Segments::new(&[usize::MAX], &device).is_err());
}
