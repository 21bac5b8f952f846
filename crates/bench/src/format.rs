//! What the ways to hold weights mean for a measurement: the arithmetic they are held against, and what a token reads.

use std::sync::Arc;

use anyhow::Result;
pub use ocellus_engine::WeightFormat;
use ocellus_kernels::{
    DType, Device, HostBytes, HostMatrix, Precision,
    linear::{Format, Order, Weight},
    peak::Limit,
};

use crate::random;

/// All formats that are not another one by another name.
pub const FORMATS: [WeightFormat; 4] =
    [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4];

/// What products with such weights are held against.
pub(crate) fn limit(weights: WeightFormat) -> Limit {
    match weights {
        WeightFormat::F32 => Limit::F32,
        // What is not told otherwise is stored in bf16.
        WeightFormat::Auto | WeightFormat::Bf16 => Limit::Bf16,
        WeightFormat::Int8 | WeightFormat::Int4 => Limit::Int8,
    }
}

/// The arithmetic between such weights, and the type of keys and values.
pub(crate) fn precision(weights: WeightFormat) -> Precision {
    if weights == WeightFormat::F32 { Precision::Exact } else { Precision::Bf16 }
}

/// Bytes of an element of the cache of keys and values.
pub(crate) fn cache_element_bytes(precision: Precision) -> f64 {
    match precision {
        Precision::Exact => 4.0,
        Precision::Bf16 => 2.0,
    }
}

/// The limit of products of activations.
pub(crate) fn precision_limit(precision: Precision) -> Limit {
    match precision {
        Precision::Exact => Limit::F32,
        Precision::Bf16 => Limit::Bf16,
    }
}

/// What a product reads for each weight, scales included: that of a weight whose shape needs no padding. Weights that
/// stay as they are stored are taken for bf16.
pub(crate) fn bytes_per_weight(format: Format, device: &Device) -> Result<f64> {
    const ROWS: usize = 32;
    const COLS: usize = 2048;
    let weight = random_weight(&[ROWS], COLS, Order::Stacked, format, device)?;
    Ok(weight.size_in_bytes() as f64 / (ROWS * COLS) as f64)
}

/// A weight of random bf16 numbers with so many outputs in each part.
pub(crate) fn random_weight(
    parts: &[usize],
    cols: usize,
    order: Order,
    format: Format,
    device: &Device,
) -> Result<Weight> {
    let part = |&rows: &usize| {
        let bytes = HostBytes::new(Arc::new(random::weight_bytes(rows * cols, 2)));
        HostMatrix::new(bytes, DType::BF16, rows, cols)
    };
    let parts = parts.iter().map(part).collect::<Result<_, _>>()?;
    Ok(Weight::new(parts, order, format, device)?)
}
