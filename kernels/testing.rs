//! What the tests of all operations share: numbers, tensors, and a comparison with its tolerance explained.

use crate::{
    DType, Device, HostBytes, HostMatrix, Tensor,
    linear::{Format, Order, Weight},
};

/// Numbers in [-1, 1) that depend on the seed and the position alone (splitmix64).
pub(crate) fn numbers(seed: u64, n: usize) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            let mut z = seed
                .wrapping_mul(0xA076_1D64_78BD_642F)
                .wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A f32 tensor of such numbers.
pub(crate) fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_f32(numbers(seed, shape.iter().product()), shape, &Device::cpu()).unwrap()
}

/// A weight `(rows, cols)` of such numbers, rounded to `dtype`.
pub(crate) fn weight(seed: u64, rows: usize, cols: usize, dtype: DType) -> Weight {
    let values = numbers(seed, rows * cols);
    let bytes: Vec<u8> = match dtype {
        DType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|&v| v.to_le_bytes()).collect(),
    };
    let matrix = HostMatrix::new(HostBytes::new(std::sync::Arc::new(bytes)), dtype, rows, cols).unwrap();
    Weight::new(vec![matrix], Order::Stacked, Format::Exact, &Device::cpu()).unwrap()
}

/// Asserts equal shapes, and elements that differ by at most `tolerance`, which is absolute: the caller says
/// why it is that large.
pub(crate) fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    assert_values(what, &found.to_f32_vec().unwrap(), &expected.to_f32_vec().unwrap(), tolerance);
}

/// The same for plain numbers.
pub(crate) fn assert_values(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}: element {i} is {a}, expected {b} within {tolerance}");
    }
}
