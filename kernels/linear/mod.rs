//! Linear layer: `y = x · Wᵀ + b`.
//!
//! `x: (tokens, in)` f32, `W: (out, in)` in the type it was stored in (bf16, f16 or f32), `b: (out)` f32,
//! `y: (tokens, out)` f32. Products and sums are f32 on every path; narrow weights are widened exactly.

mod cpu;
mod reference;

pub use reference::forward as reference;

use crate::{Device, HostMatrix, Result, Storage, Tensor, error::argument};

const OP: &str = "linear";

/// The weight of a linear layer or of an embedding, `(out, in)`, prepared for a device.
#[derive(Clone, Debug)]
pub struct Weight {
    pub(crate) storage: WeightStorage,
    rows: usize,
    cols: usize,
    size_in_bytes: usize,
}

/// Where the weight lies.
#[derive(Clone, Debug)]
pub(crate) enum WeightStorage {
    /// Host memory, often a mapped file; nothing is copied.
    Host(HostMatrix),
    /// A tensor on candle's device, in the stored type.
    Candle(candle_core::Tensor),
}

impl Weight {
    /// Prepares `matrix: (out, in)` for `device`. On the processor this keeps the given bytes as they are.
    ///
    /// # Errors
    /// When the type is not a floating point one, or the device has no room.
    pub fn new(matrix: HostMatrix, device: &Device) -> Result<Self> {
        matrix.elements()?;
        let (rows, cols, size_in_bytes) = (matrix.rows(), matrix.cols(), matrix.size_in_bytes());
        let storage = if device.is_host() {
            WeightStorage::Host(matrix)
        } else {
            WeightStorage::Candle(reference::candle_matrix(&matrix, &device.candle)?)
        };
        Ok(Self { storage, rows, cols, size_in_bytes })
    }

    /// The number of output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The size of the weight, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.size_in_bytes
    }
}

/// `x · Wᵀ + b`. `x: (tokens, in)`, `bias: (out)`; gives `(tokens, out)`.
///
/// # Errors
/// [`crate::Error::Argument`] when shapes disagree.
pub fn forward(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    let [_, features] = x.dims(OP, "x")?;
    if features != weight.cols {
        return Err(argument(OP, "x", x.shape(), format!("(tokens, {})", weight.cols)));
    }
    if let Some(bias) = bias {
        bias.expect_shape(OP, "bias", &[weight.rows])?;
    }
    match (x.storage(), &weight.storage) {
        (Storage::Candle(x), WeightStorage::Host(matrix)) => cpu::forward(x, matrix, bias),
        (Storage::Candle(_), WeightStorage::Candle(_)) => reference::forward(x, weight, bias),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, HostBytes, testing};

    /// Both paths sum `features` products of numbers below 1 in f32, in different orders: the rounding error is
    /// at most `features` half units in the last place of a sum below `features`, in practice its root.
    fn tolerance(features: usize) -> f32 {
        f32::EPSILON * (features as f32).max(1.0) * 2.0
    }

    fn check(tokens: usize, features: usize, out: usize, dtype: DType, bias: bool) {
        let x = testing::tensor(1, &[tokens, features]);
        let weight = testing::weight(2, out, features, dtype);
        let bias = bias.then(|| testing::tensor(3, &[out]));
        let found = forward(&x, &weight, bias.as_ref()).unwrap();
        let expected = reference(&x, &weight, bias.as_ref()).unwrap();
        let what = format!("{tokens} tokens, {features} features, {out} outputs, {dtype:?}");
        testing::assert_close(&what, &found, &expected, tolerance(features));
    }

    #[test]
    fn equals_the_reference_on_awkward_sizes() {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            for tokens in [1, 2, 4, 5, 63, 64, 65] {
                for (features, out) in [(1, 1), (31, 65), (32, 64), (33, 63), (342, 130), (1176, 48)] {
                    check(tokens, features, out, dtype, tokens % 2 == 0);
                }
            }
        }
    }

    #[test]
    fn a_long_row_keeps_its_precision() {
        check(1, 18_944, 3, DType::BF16, true);
        check(7, 18_944, 3, DType::BF16, true);
    }

    #[test]
    fn no_tokens_give_no_rows() {
        let y = forward(&testing::tensor(1, &[0, 8]), &testing::weight(2, 5, 8, DType::BF16), None).unwrap();
        assert_eq!(y.shape(), [0, 5]);
    }

    #[test]
    fn a_view_of_a_larger_tensor_is_read_rightly() {
        let wide = testing::tensor(1, &[6, 24]);
        let x = wide.narrow(1, 8, 8).unwrap();
        let weight = testing::weight(2, 5, 8, DType::BF16);
        let found = forward(&x, &weight, None).unwrap();
        testing::assert_close("view", &found, &reference(&x, &weight, None).unwrap(), tolerance(8));
    }

    #[test]
    fn misaligned_bytes_are_read_rightly() {
        let bytes: Vec<u8> = std::iter::once(0).chain((0..12u8).flat_map(|i| [0, 0x3f + i % 2])).collect();
        let all = HostBytes::new(std::sync::Arc::new(bytes));
        let matrix = HostMatrix::new(all.slice(1..25).unwrap(), DType::BF16, 3, 4).unwrap();
        let values = matrix.rows_f32(0..3).unwrap();
        assert_eq!(values[..4], [0.5, 2.0, 0.5, 2.0]);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let weight = testing::weight(2, 5, 8, DType::BF16);
        let error = forward(&testing::tensor(1, &[2, 7]), &weight, None).unwrap_err();
        assert_eq!(error.to_string(), "linear: x is [2, 7], expected (tokens, 8)");
        let bias = testing::tensor(1, &[4]);
        let error = forward(&testing::tensor(1, &[2, 8]), &weight, Some(&bias)).unwrap_err();
        assert_eq!(error.to_string(), "linear: bias is [4], expected [5]");
    }
}
