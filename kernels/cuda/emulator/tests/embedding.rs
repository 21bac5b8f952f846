//! Rows of tables in every format on the emulated device: the numbers of the host's table, bit for bit.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ocellus_cuda_emulator::testing;
use ocellus_kernels::{
    DType, Device, HostBytes, HostMatrix, Tensor, embedding,
    linear::{Format, Order, Scheme, Weight},
    sampling::{Row, Sampler, Sequence},
};

/// The same table on the host and on `device`.
fn tables(rows: usize, cols: usize, format: Format, device: &Device) -> [Weight; 2] {
    let values = testing::numbers(1, rows * cols);
    let bytes: Vec<u8> = values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
    let bytes = HostBytes::new(Arc::new(bytes));
    [&Device::cpu(), device].map(|device| {
        let matrix = HostMatrix::new(bytes.clone(), DType::BF16, rows, cols).unwrap();
        Weight::new(vec![matrix], Order::Stacked, format, device).unwrap()
    })
}

#[test]
fn rows_are_those_of_the_host() {
    let formats = [
        Format::Exact,
        Format::Bf16,
        Format::Quantized(Scheme::Int8),
        Format::Quantized(Scheme::Int4Symmetric),
        Format::Quantized(Scheme::Int4Asymmetric),
    ];
    for device in testing::devices(2) {
        for (rows, cols) in [(1, 1), (7, 5), (16, 32), (33, 72), (40, 129), (17, 256)] {
            for format in formats {
                let [host, table] = tables(rows, cols, format, &device);
                let all: Vec<u32> = (0..rows as u32).rev().collect();
                for ids in [&all[..], &[], &[rows as u32 - 1, 0, 0]] {
                    let expected = embedding::forward(&host, ids).unwrap();
                    let found = embedding::forward(&table, ids).unwrap();
                    assert_eq!(found.shape(), expected.shape());
                    assert_eq!(
                        found.to_f32_vec().unwrap(),
                        expected.to_f32_vec().unwrap(),
                        "{rows} x {cols}, {format:?} (OCELLUS_SEED={})",
                        testing::seed()
                    );
                }
                assert!(embedding::forward(&table, &[rows as u32]).is_err());
            }
        }
    }
}

/// What was chosen is looked up without the host.
#[test]
fn chosen_tokens_are_looked_up_where_they_lie() {
    let device = testing::devices(1).next().unwrap();
    let [_, table] = tables(50, 8, Format::Bf16, &device);
    let logits = testing::tensor(2, &[3, 50], &device);
    let mut sampler = Sampler::new(4, 50, &device).unwrap();
    let rows = [2, 0, 3].map(|slot| Row { slot, number: 0, allowed: None });
    rows.iter().for_each(|row| sampler.assign(row.slot, &Sequence::default()).unwrap());
    let ids: Vec<u32> = sampler.choose(&logits, &rows).unwrap().iter().map(|choice| choice.id).collect();
    let found = embedding::forward_ids(&table, &sampler.chosen().unwrap()).unwrap();
    let expected = embedding::forward(&table, &ids).unwrap();
    assert_eq!(found.shape(), [4, 8]);
    assert_eq!(found.narrow(0, 0, 3).unwrap().to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    // Ids of nothing give zeros.
    let [_, small] = tables(1, 8, Format::Bf16, &device);
    let wrong: Tensor = sampler.chosen().unwrap();
    let found = embedding::forward_ids(&small, &wrong).unwrap().to_f32_vec().unwrap();
    for (row, id) in found.chunks(8).zip(&ids) {
        assert!(*id == 0 || row.iter().all(|x| *x == 0.0), "{id}: {row:?}");
    }
}
