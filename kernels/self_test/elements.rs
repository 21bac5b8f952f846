//! Norms, sums, activation functions, rows and embeddings.

use std::sync::Arc;

use half::bf16;

use super::{Bench, Pair, Tolerance};
use crate::{
    DType, HostBytes, HostMatrix, Result, Tensor, add, embedding, gelu,
    linear::{Format, Order, Weight},
    rms_norm, rows, silu_mul,
};

pub(super) const ROUNDED_ALONE: &str =
    "1e-6 + the rounding to bf16: sums of squares in f32 are far more exact, in any order";
pub(super) const GELU_WHY: &str =
    "4e-7 + the rounding: the reference loses the digits of the tail, half a unit of 1 times x / 2";
pub(super) const SILU_WHY: &str =
    "8e-7 of the number + the rounding: exponential, sum, quotient and product in f32";

/// Lengths around a warp, a block's vectors and several blocks.
const LENGTHS: [usize; 9] = [0, 1, 7, 9, 63, 257, 2047, 4099, 40_001];

pub(super) fn conversion(bench: &mut Bench) -> Result<()> {
    for n in LENGTHS {
        if !bench.has_time(100 * n) {
            continue;
        }
        let Pair { host, device } = bench.pair(&[n], 3.0)?;
        if !bench.is_narrow() {
            // Only f32 is known there: it comes back as it went.
            bench.compare(format_args!("{n} there and back"), Ok(device), &host, Tolerance::EXACT)?;
            continue;
        }
        let narrow: Vec<f32> = host.to_f32_vec()?.into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
        let narrow = Tensor::from_f32(narrow, &[n], &bench.host)?;
        let converted = device.to_dtype(DType::BF16).and_then(|x| x.to_dtype(DType::F32));
        bench.compare(format_args!("{n} there and back"), converted, &narrow, Tolerance::EXACT)?;
    }
    // Columns in the middle are copied, rows are not.
    let Pair { host, device } = bench.pair(&[7, 13], 1.0)?;
    for (dim, start, len) in [(0, 2, 3), (1, 5, 8), (1, 12, 1), (0, 6, 1), (1, 0, 0)] {
        let case = format!("narrow {len} from {start} of dimension {dim}");
        bench.compare(
            case,
            device.narrow(dim, start, len),
            &host.narrow(dim, start, len)?,
            Tolerance::EXACT,
        )?;
    }
    Ok(())
}

pub(super) fn rms_norm(bench: &mut Bench) -> Result<()> {
    let tolerance = bench.rounded(Tolerance { absolute: 1e-6, relative: 1e-5 });
    // Each kernel's ends, and the widths of the published models.
    for (tokens, features) in [
        (0, 8),
        (1, 1),
        (3, 31),
        (9, 80),
        (17, 1280),
        (2, 2048),
        (1, 2049),
        (5, 3584),
        (1, 4100),
        (2, 5120),
        (1, 8192),
        (2, 8196),
    ] {
        let x = bench.pair(&[tokens, features], 2.0)?;
        let weight = bench.pair(&[features], 1.0)?;
        let expected = rms_norm::reference(&x.host, &weight.host, 1e-6)?;
        let found = rms_norm::forward(&x.device, &weight.device, 1e-6);
        bench.compare(format_args!("{tokens} x {features}"), found, &expected, tolerance)?;
    }
    Ok(())
}

pub(super) fn add(bench: &mut Bench) -> Result<()> {
    for n in LENGTHS {
        if !bench.has_time(100 * n) {
            continue;
        }
        let (a, b) = (bench.pair(&[n], 1.0)?, bench.pair(&[n], 1.0)?);
        let expected = add::reference(&a.host, &b.host)?;
        bench.compare(n, add::forward(&a.device, &b.device), &expected, Tolerance::EXACT)?;
        bench.compare(
            format_args!("{n} in place"),
            add::into(a.device, &b.device),
            &expected,
            Tolerance::EXACT,
        )?;
    }
    Ok(())
}

pub(super) fn gelu(bench: &mut Bench) -> Result<()> {
    let tolerance = bench.rounded(Tolerance { absolute: 4e-7, relative: 4e-7 });
    for n in LENGTHS {
        if !bench.has_time(100 * n) {
            continue;
        }
        let x = bench.activations(&[n], 12.0)?;
        bench.compare(n, gelu::forward(&x.device), &gelu::reference(&x.host)?, tolerance)?;
    }
    Ok(())
}

pub(super) fn silu_mul(bench: &mut Bench) -> Result<()> {
    let tolerance = bench.rounded(Tolerance { absolute: 1e-30, relative: 8e-7 });
    for n in LENGTHS {
        if !bench.has_time(100 * n) {
            continue;
        }
        let (gate, up) = (bench.activations(&[n], 12.0)?, bench.activations(&[n], 12.0)?);
        let expected = silu_mul::reference(&gate.host, &up.host)?;
        bench.compare(n, silu_mul::forward(&gate.device, &up.device), &expected, tolerance)?;
    }
    Ok(())
}

pub(super) fn rows(bench: &mut Bench) -> Result<()> {
    for (n_rows, width, taken) in
        [(1, 1, 1), (7, 3, 7), (5, 8, 0), (40, 513, 33), (3, 64, 9), (200, 1280, 199), (4, 0, 2)]
    {
        if !bench.has_time(10 * n_rows * width) {
            continue;
        }
        let case = format!("{taken} of {n_rows} x {width}");
        for narrow in [false, true] {
            let shape = [n_rows, width];
            let x = if narrow { bench.activations(&shape, 1.0)? } else { bench.pair(&shape, 1.0)? };
            let indices: Vec<u32> = (0..taken).map(|_| bench.numbers.below(n_rows) as u32).collect();
            let expected = rows::gather_reference(&x.host, &indices)?;
            bench.compare(
                format_args!("gather {case}"),
                rows::gather(&x.device, &indices),
                &expected,
                Tolerance::EXACT,
            )?;
            if taken > n_rows {
                continue;
            }
            let mut places = bench.numbers.shuffled(n_rows);
            places.truncate(taken);
            let shape = [taken, width];
            let values = if narrow { bench.activations(&shape, 1.0)? } else { bench.pair(&shape, 1.0)? };
            let expected = rows::scatter_reference(&x.host, &places, &values.host)?;
            let found = rows::scatter(&x.device, &places, &values.device);
            bench.compare(format_args!("scatter {case}"), found, &expected, Tolerance::EXACT)?;
            let expected = rows::concat(&[x.host.clone(), values.host, x.host])?;
            let found = rows::concat(&[x.device.clone(), values.device, x.device]);
            bench.compare(format_args!("concat {case}"), found, &expected, Tolerance::EXACT)?;
        }
    }
    Ok(())
}

pub(super) fn embedding(bench: &mut Bench) -> Result<()> {
    for (vocabulary, width, n) in [(1, 8, 3), (300, 136, 70), (1000, 2048, 17), (50, 24, 0)] {
        if !bench.has_time(vocabulary * width) {
            continue;
        }
        let values = bench.values(&[vocabulary, width], 1.0);
        let table = |device| Weight::new(vec![matrix(&values, width)?], Order::Stacked, Format::Bf16, device);
        let ids: Vec<u32> = (0..n).map(|_| bench.numbers.below(vocabulary) as u32).collect();
        let expected = embedding::forward(&table(&bench.host)?, &ids)?;
        let found = table(&bench.device).and_then(|table| embedding::forward(&table, &ids));
        bench.compare(format_args!("{n} of {vocabulary} x {width}"), found, &expected, Tolerance::EXACT)?;
    }
    Ok(())
}

/// A matrix of numbers as a checkpoint has it, in bf16.
pub(super) fn matrix(values: &[f32], cols: usize) -> Result<HostMatrix> {
    let bytes: Vec<u8> = values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    HostMatrix::new(HostBytes::new(Arc::new(bytes)), DType::BF16, values.len() / cols.max(1), cols)
}
