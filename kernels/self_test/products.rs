//! Linear layers: every format of weights, every way to finish, from one token to more than a tile of them.

use half::bf16;

use super::{BF16, Bench, Pair, Tolerance, elements::matrix};
use crate::{
    HostMatrix, Result, Tensor, embedding, gelu,
    linear::{self, Format, Order, Scheme, Weight},
};

pub(super) const WHY: &str =
    "2e-4 + 1e-5 of the number + the rounding: sums of up to 8,264 products in f32, in any order";
pub(super) const QUANTIZED_WHY: &str =
    "the same with the very numbers that the codes stand for; the processor also rounds inputs to 8 bits";
pub(super) const SWIGLU_WHY: &str =
    "2e-3 + three roundings: two sums as above, up to 40, multiplied after the exponential";

/// `(tokens, inputs, outputs)`: each kernel's kind and its ends, and a long row that is summed in slices.
const SHAPES: [(usize, usize, usize); 16] = [
    (0, 40, 20),
    (1, 1, 1),
    (1, 64, 16),
    (1, 8200, 24),
    (2, 328, 33),
    (3, 31, 65),
    (8, 136, 40),
    (16, 200, 24),
    (17, 64, 31),
    (33, 80, 72),
    (64, 136, 64),
    (65, 40, 72),
    (129, 328, 700),
    (130, 8264, 24),
    (257, 72, 500),
    (300, 200, 129),
];

pub(super) fn bf16(bench: &mut Bench) -> Result<()> {
    products(bench, Format::Bf16)
}

pub(super) fn int8(bench: &mut Bench) -> Result<()> {
    products(bench, Format::Quantized(Scheme::Int8))
}

pub(super) fn int4(bench: &mut Bench) -> Result<()> {
    products(bench, Format::Quantized(Scheme::Int4Symmetric))?;
    products(bench, Format::Quantized(Scheme::Int4Asymmetric))
}

fn products(bench: &mut Bench, format: Format) -> Result<()> {
    for (index, (tokens, cols, rows)) in SHAPES.into_iter().enumerate() {
        if !bench.has_time(tokens * cols * rows) {
            continue;
        }
        let case = format!("{tokens} tokens, {cols} to {rows}, {format:?}");
        let x = bench.activations(&[tokens, cols], 1.0)?;
        let values = bench.values(&[rows, cols], 1.0);
        let biased = index % 2 == 0;
        let biases = if biased { bench.values(&[rows], 1.0) } else { vec![0.0; rows] };
        let weight = matrix(&values, cols)?;
        let numbers = numbers(bench, &weight, format)?;
        let sums = sums(bench, &x.host, &numbers, &biases)?;
        let tolerance = tolerance(bench, format, cols);
        let weight = match Weight::new(vec![weight], Order::Stacked, format, &bench.device) {
            Ok(weight) => weight,
            Err(error) => {
                bench.fault(case, error);
                continue;
            }
        };
        let bias = biased.then(|| arranged(bench, &weight, biases)).transpose()?;
        let bias = bias.as_ref();
        let found = linear::forward_f32(&x.device, &weight, bias);
        bench.compare(format_args!("f32, {case}"), found, &sums, tolerance)?;
        let rounded = bench.rounded(tolerance);
        bench.compare(&case, linear::forward(&x.device, &weight, bias), &sums, rounded)?;
        let found = linear::forward_gelu(&x.device, &weight, bias);
        // Its slope is 1.13 at most.
        let steeper = Tolerance { absolute: tolerance.absolute * 1.2, relative: rounded.relative * 1.2 };
        bench.compare(format_args!("gelu, {case}"), found, &gelu::reference(&sums)?, steeper)?;
        let Pair { host, device } = bench.pair(&[tokens, rows], 1.0)?;
        let expected = crate::add::reference(&host, &sums)?;
        let found = linear::forward_add(&x.device, &weight, bias, device);
        // The residual may take most of the sum away.
        let near = Tolerance { absolute: tolerance.absolute + tolerance.relative * 64.0, ..tolerance };
        bench.compare(format_args!("add, {case}"), found, &expected, near)?;
    }
    Ok(())
}

pub(super) fn swiglu(bench: &mut Bench) -> Result<()> {
    for format in [Format::Bf16, Format::Quantized(Scheme::Int8), Format::Quantized(Scheme::Int4Asymmetric)] {
        for (tokens, cols, rows) in
            [(1, 40, 7), (2, 64, 16), (5, 8, 57), (18, 72, 100), (70, 40, 90), (128, 72, 200), (150, 64, 420)]
        {
            if !bench.has_time(2 * tokens * cols * rows) {
                continue;
            }
            let case = format!("{tokens} tokens, {cols} to {rows}, {format:?}");
            let x = bench.activations(&[tokens, cols], 1.0)?;
            let parts = [(); 2].map(|()| bench.values(&[rows, cols], 1.0));
            let parts = parts.iter().map(|values| matrix(values, cols)).collect::<Result<Vec<_>>>()?;
            let biases = bench.values(&[2 * rows], 1.0);
            let mut both = Vec::with_capacity(2);
            for (part, biases) in parts.iter().zip(biases.chunks_exact(rows)) {
                let numbers = numbers(bench, part, format)?;
                both.push(sums(bench, &x.host, &numbers, biases)?);
            }
            let expected = crate::silu_mul::reference(&both[0], &both[1])?;
            let found = Weight::new(parts, Order::Interleaved, format, &bench.device).and_then(|weight| {
                let bias = arranged(bench, &weight, biases)?;
                // Outputs may be filled up.
                linear::swiglu(&x.device, &weight, Some(&bias))?.narrow(1, 0, rows)
            });
            let one = tolerance(bench, format, cols);
            let product =
                Tolerance { absolute: one.absolute * 10.0, relative: 3.0 * BF16 + 20.0 * one.relative };
            // What differs in one factor is multiplied by the other, below 40 here.
            let product = Tolerance { absolute: product.absolute.max(40.0 * one.absolute), ..product };
            bench.compare(case, found, &expected, product)?;
        }
    }
    Ok(())
}

/// One token has the same bits alone and among others, whichever kernel multiplies: those for few tokens, those for many,
/// and on Hopper those of its own matrix unit, whose sums are assumed to be rounded as the others are.
pub(super) fn company(bench: &mut Bench) -> Result<()> {
    const MOST: usize = 1024;
    for format in [Format::Bf16, Format::Quantized(Scheme::Int8), Format::Quantized(Scheme::Int4Asymmetric)] {
        // The last is so long that a sum into the residual is cut in two.
        for (cols, rows) in [(72, 40), (328, 272), (8264, 136)] {
            if !bench.has_time(17 * cols * rows) {
                continue;
            }
            let tokens = [2, 16, 17, 64, 65, 129, MOST].into_iter();
            let tokens: Vec<usize> = tokens.filter(|tokens| bench.has_time(tokens * cols * rows)).collect();
            let all = tokens.iter().copied().max().unwrap_or(1);
            let x = bench.activations(&[all, cols], 1.0)?.device;
            let residual = bench.pair(&[all, rows], 1.0)?.device;
            let weight = matrix(&bench.values(&[rows, cols], 1.0), cols)?;
            let weight = match Weight::new(vec![weight], Order::Stacked, format, &bench.device) {
                Ok(weight) => weight,
                Err(error) => {
                    bench.fault(format_args!("{cols} to {rows}, {format:?}"), error);
                    continue;
                }
            };
            let product = |tokens: usize, add: bool| -> Result<Tensor> {
                let x = x.narrow(0, 0, tokens)?;
                let y = match add {
                    true => linear::forward_add(&x, &weight, None, residual.narrow(0, 0, tokens)?)?,
                    false => linear::forward_f32(&x, &weight, None)?,
                };
                y.narrow(0, 0, 1)
            };
            for add in [false, true] {
                let alone = match product(1, add).and_then(|alone| alone.to_f32_vec()) {
                    Ok(alone) => Tensor::from_f32(alone, &[1, rows], &bench.host)?,
                    Err(error) => {
                        bench.fault(format_args!("alone, {cols} to {rows}, {format:?}"), error);
                        continue;
                    }
                };
                for &tokens in &tokens {
                    let case = format!("the first of {tokens}, {cols} to {rows}, {format:?}, added: {add}");
                    bench.compare(case, product(tokens, add), &alone, Tolerance::EXACT)?;
                }
            }
        }
    }
    Ok(())
}

/// The numbers that a product multiplies with, in the order of the rows: what the processor's form of the weight says,
/// in bf16 on devices that compute so.
fn numbers(bench: &Bench, part: &HostMatrix, format: Format) -> Result<Vec<f32>> {
    let weight = Weight::new(vec![part.clone()], Order::Stacked, format, &bench.host)?;
    let ids: Vec<u32> = (0..part.rows() as u32).collect();
    let values = embedding::forward(&weight, &ids)?.to_f32_vec()?;
    let narrow = |x: f32| if bench.is_narrow() { bf16::from_f32(x).to_f32() } else { x };
    Ok(values.into_iter().map(narrow).collect())
}

/// `x · Wᵀ + b`, summed in f64.
fn sums(bench: &Bench, x: &Tensor, weight: &[f32], biases: &[f32]) -> Result<Tensor> {
    let (tokens, cols, rows) = (x.dim(0), x.dim(1), biases.len());
    let x = x.to_f32_vec()?;
    let mut y = vec![0.0; tokens * rows];
    for (x, y) in x.chunks_exact(cols.max(1)).zip(y.chunks_exact_mut(rows.max(1))) {
        for ((y, row), &bias) in y.iter_mut().zip(weight.chunks_exact(cols.max(1))).zip(biases) {
            let sum: f64 = x.iter().zip(row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            *y = (sum + f64::from(bias)) as f32;
        }
    }
    Tensor::from_f32(y, &[tokens, rows], &bench.host)
}

fn arranged(bench: &Bench, weight: &Weight, biases: Vec<f32>) -> Result<Tensor> {
    let biases = weight.arrange_bias(biases);
    let n = biases.len();
    Tensor::from_f32(biases, &[n], &bench.device)
}

/// What sums of `cols` products of numbers below 1 may differ by before they are rounded.
fn tolerance(bench: &Bench, format: Format, cols: usize) -> Tolerance {
    let quantizes_inputs = !bench.is_narrow() && matches!(format, Format::Quantized(_));
    // An input is off by a third of a 127th at most in the mean square, and so is a sum by that times the root of its
    // length; six times that happens to nobody.
    let inputs = if quantizes_inputs { 6.0 * (cols as f32).sqrt() / 127.0 / 3.0 } else { 0.0 };
    Tolerance { absolute: 2e-4 + inputs, relative: 1e-5 }
}
