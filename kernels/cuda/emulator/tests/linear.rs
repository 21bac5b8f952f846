//! Matrix products on the emulated device against sums in f64 of the very numbers that the device multiplies.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use half::bf16;
use ocellus_cuda_emulator::{
    Emulator, Options,
    testing::{self, Tolerance},
};
use ocellus_kernels::{
    DType, Device, HostBytes, HostMatrix, Tensor,
    linear::{self, Format, Order, Scheme, Weight},
};

/// Sums of up to a few thousand products below 1 in magnitude, of mixed signs, rounded to f32 every sixteen: some 2^-24 of
/// the largest partial sum, below 64, each time, which adds up like a random walk.
const SUMS: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-5 };
/// The same, rounded to bf16: 2^-8 of a number at most.
const ROUNDED: Tolerance = Tolerance { absolute: 2e-4, relative: 1.0 / 250.0 };

const FORMATS: [Format; 4] = [
    Format::Bf16,
    Format::Quantized(Scheme::Int8),
    Format::Quantized(Scheme::Int4Symmetric),
    Format::Quantized(Scheme::Int4Asymmetric),
];

/// Features from which on a sum into the residual is cut in two.
const LONG: usize = 8192;

fn hopper(seed: u64) -> Arc<Emulator> {
    let seed = testing::seed().wrapping_add(seed);
    Arc::new(Emulator::new(Options { seed, capability: (9, 0), ..Options::default() }))
}

/// A matrix of random numbers as a checkpoint has it.
fn matrix(stream: u64, rows: usize, cols: usize) -> HostMatrix {
    let numbers = testing::numbers(stream, rows * cols);
    let bytes: Vec<u8> = numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    HostMatrix::new(HostBytes::new(Arc::new(bytes)), DType::BF16, rows, cols).unwrap()
}

/// The numbers that the device multiplies with: what the processor's form of the weight says, rounded to bf16. They are in
/// the order of the parts.
fn numbers(parts: &[HostMatrix], format: Format) -> Vec<f32> {
    let widen = |part: &HostMatrix| {
        let weight = Weight::new(vec![part.clone()], Order::Stacked, format, &Device::cpu()).unwrap();
        let ids: Vec<u32> = (0..part.rows() as u32).collect();
        let values = ocellus_kernels::embedding::forward(&weight, &ids).unwrap().to_f32_vec().unwrap();
        values.into_iter().map(|x| bf16::from_f32(x).to_f32()).collect::<Vec<_>>()
    };
    parts.iter().flat_map(widen).collect()
}

/// `x · Wᵀ + b` in f64.
fn product(x: &Tensor, w: &[f32], bias: &[f32]) -> Vec<f64> {
    let (tokens, cols, rows) = (x.dim(0), x.dim(1), bias.len());
    let x = x.to_f32_vec().unwrap();
    let mut y = Vec::with_capacity(tokens * rows);
    for token in 0..tokens {
        for row in 0..rows {
            let terms = x[token * cols..(token + 1) * cols].iter().zip(&w[row * cols..(row + 1) * cols]);
            let sum: f64 = terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            y.push(sum + f64::from(bias[row]));
        }
    }
    y
}

fn on_host(values: Vec<f64>, shape: &[usize]) -> Tensor {
    let values = values.into_iter().map(|x| x as f32).collect();
    Tensor::from_f32(values, shape, &Device::cpu()).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Case {
    tokens: usize,
    cols: usize,
    rows: usize,
    format: Format,
    bias: bool,
}

/// Every finish of one stacked weight.
fn check(case: Case, device: &Device) {
    let Case { tokens, cols, rows, format, bias } = case;
    let parts = vec![matrix(1, rows, cols)];
    let (host_x, x) = testing::bf16_pair(2, &[tokens, cols], device);
    let biases = if bias { testing::numbers(3, rows) } else { vec![0.0; rows] };
    let expected = product(&host_x, &numbers(&parts, format), &biases);
    let weight = Weight::new(parts, Order::Stacked, format, device).unwrap();
    let bias = bias.then(|| Tensor::from_f32(weight.arrange_bias(biases), &[rows], device).unwrap());
    let bias = bias.as_ref();
    let shape = [tokens, rows];
    let close = |what: &str, found: ocellus_kernels::Result<Tensor>, expected: Vec<f64>, tolerance| {
        let found = found.unwrap();
        testing::assert_close(&format!("{what}, {case:?}"), &found, &on_host(expected, &shape), tolerance);
    };

    let residual = testing::tensor(4, &shape, device);
    let before = residual.to_f32_vec().unwrap();
    let sums = before.iter().zip(&expected).map(|(&r, y)| f64::from(r) + y).collect();
    close("add", linear::forward_add(&x, &weight, bias, residual), sums, SUMS);
    if cols >= LONG {
        // What else there is has nothing to do with slices.
        return;
    }
    close("f32", linear::forward_f32(&x, &weight, bias), expected.clone(), SUMS);
    let rounded = linear::forward(&x, &weight, bias);
    assert_eq!(rounded.as_ref().unwrap().dtype(), DType::BF16);
    close("bf16", rounded, expected.clone(), ROUNDED);
    let gelu = |x: &f64| x * 0.5 * (1.0 + erf(x / 2f64.sqrt()));
    close("gelu", linear::forward_gelu(&x, &weight, bias), expected.iter().map(gelu).collect(), ROUNDED);
}

/// The error function by its series, which converges everywhere.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn few_tokens() {
    for (i, device) in testing::devices(2).enumerate() {
        for format in FORMATS {
            for (tokens, cols, rows) in [(1, 64, 16), (1, 1, 1), (2, 328, 33), (3, 31, 65), (8, 136, 40)] {
                check(Case { tokens, cols, rows, format, bias: i == 0 }, &device);
            }
        }
    }
}

#[test]
fn some_tokens() {
    for (i, device) in testing::devices(2).enumerate() {
        for format in FORMATS {
            for (tokens, cols, rows) in
                [(9, 72, 200), (16, 200, 24), (17, 64, 31), (33, 80, 72), (64, 136, 64)]
            {
                check(Case { tokens, cols, rows, format, bias: i == 0 }, &device);
            }
        }
    }
}

#[test]
fn tiles_of_tokens() {
    for (i, format) in FORMATS.into_iter().enumerate() {
        for device in testing::devices(1) {
            // Small tiles; large ones, of which the emulated device's four multiprocessors have one each.
            for (tokens, cols, rows) in [(65, 40, 72), (130, 136, 33), (200, 72, 250)] {
                check(Case { tokens, cols, rows, format, bias: i % 2 == 0 }, &device);
            }
        }
    }
}

#[test]
fn tiles_that_hopper_copies() {
    for (tokens, cols, rows, kernel) in [
        (128, 328, 512, "linear_wgmma_128"),
        (129, 200, 360, "linear_wgmma_192"),
        (129, 72, 500, "linear_wgmma_256"),
    ] {
        let emulator = hopper(tokens as u64);
        let device = Device::with_driver(emulator.clone());
        check(Case { tokens, cols, rows, format: Format::Bf16, bias: tokens % 2 == 0 }, &device);
        assert!(emulator.launched().contains(kernel), "{:?}", emulator.launched());
    }
}

/// Sums into the residual, whose long rows are cut in two.
#[test]
fn long_rows() {
    let check = |tokens, cols, format, device: &Device| {
        check(Case { tokens, cols, rows: 24, format, bias: true }, device);
    };
    for device in testing::devices(1) {
        check(1, LONG, Format::Bf16, &device);
        check(3, LONG + 8, Format::Quantized(Scheme::Int4Asymmetric), &device);
    }
}

fn check_swiglu(case: Case, device: &Device) {
    let Case { tokens, cols, rows, format, .. } = case;
    let parts = vec![matrix(1, rows, cols), matrix(2, rows, cols)];
    let (host_x, x) = testing::bf16_pair(3, &[tokens, cols], device);
    let biases = testing::numbers(4, 2 * rows);
    let both = product(&host_x, &numbers(&parts, format), &biases);
    let weight = Weight::new(parts, Order::Interleaved, format, device).unwrap();
    let biases = weight.arrange_bias(biases);
    let bias = Tensor::from_f32(biases.clone(), &[biases.len()], device).unwrap();
    let found = linear::swiglu(&x, &weight, Some(&bias)).unwrap();

    let filled = rows.next_multiple_of(8);
    let mut expected = vec![0.0; tokens * filled];
    for (both, expected) in both.chunks_exact(2 * rows).zip(expected.chunks_exact_mut(filled)) {
        for i in 0..rows {
            expected[i] = both[i] / (1.0 + (-both[i]).exp()) * both[rows + i];
        }
    }
    testing::assert_close(&format!("{case:?}"), &found, &on_host(expected, &[tokens, filled]), ROUNDED);

    // What fills its rows up is nothing to the next product.
    let (next, w) = (matrix(5, 20, rows), numbers(&[matrix(5, 20, rows)], format));
    let next = Weight::new(vec![next], Order::Stacked, format, device).unwrap();
    let host = found.narrow(1, 0, rows).unwrap().to_f32_vec().unwrap();
    let host = Tensor::from_f32(host, &[tokens, rows], &Device::cpu()).unwrap();
    let expected = on_host(product(&host, &w, &[0.0; 20]), &[tokens, 20]);
    let found = linear::forward_f32(&found, &next, None).unwrap();
    // The factors are as large as a product of two sums.
    let tolerance = Tolerance { absolute: 1e-2, relative: 1e-4 };
    testing::assert_close(&format!("after {case:?}"), &found, &expected, tolerance);
}

#[test]
fn swiglu_of_alternating_rows() {
    for device in testing::devices(1) {
        for format in FORMATS {
            for (tokens, cols, rows) in [(1, 40, 7), (2, 64, 16), (5, 8, 57), (18, 72, 100), (70, 40, 90)] {
                check_swiglu(Case { tokens, cols, rows, format, bias: true }, &device);
            }
        }
    }
    for (tokens, cols, rows) in [(128, 72, 200), (150, 64, 420)] {
        check_swiglu(
            Case { tokens, cols, rows, format: Format::Bf16, bias: true },
            &Device::with_driver(hopper(2)),
        );
    }
}

/// One token's outputs have the same bits alone and in any company, whichever kernel computes them.
fn check_company(
    emulator: &Arc<Emulator>,
    formats: &[Format],
    cols: usize,
    rows: usize,
    companies: &[usize],
) {
    let device = Device::with_driver(emulator.clone());
    for &format in formats {
        let weight = Weight::new(vec![matrix(1, rows, cols)], Order::Stacked, format, &device).unwrap();
        let most = companies.iter().max().unwrap() + 7;
        let x = testing::tensor(2, &[most, cols], &device).to_dtype(DType::BF16).unwrap();
        let residual = testing::tensor(3, &[most, rows], &device);
        let compute = |tokens: usize| {
            let x = x.narrow(0, 7, tokens).unwrap();
            let residual = residual.narrow(0, 7, tokens).unwrap();
            let y = linear::forward_add(&x, &weight, None, residual).unwrap();
            y.narrow(0, 0, 1).unwrap().to_f32_vec().unwrap()
        };
        let alone = compute(1);
        for &tokens in companies {
            assert_eq!(compute(tokens), alone, "{tokens} tokens, {format:?}, {cols} features");
        }
    }
}

#[test]
fn a_token_does_not_see_the_others() {
    let emulator = Arc::new(Emulator::new(Options { seed: testing::seed(), ..Options::default() }));
    check_company(&emulator, &FORMATS, 136, 200, &[2, 5, 9, 17, 33, 65, 200]);
    for format in ["bf16", "int8", "int4", "int4_zero"] {
        for shape in ["skinny_8", "skinny_16", "skinny_32", "skinny_64", "small", "large"] {
            let kernel = format!("linear_{shape}_{format}");
            assert!(emulator.launched().contains(&kernel), "{kernel} was not needed");
        }
    }
    let emulator = hopper(3);
    check_company(&emulator, &FORMATS[..1], 136, 512, &[3, 65, 128]);
    assert!(emulator.launched().contains("linear_wgmma_128"));
}

/// The same where long rows are summed in two parts.
#[test]
fn a_token_with_long_rows_does_not_see_the_others() {
    let emulator = Arc::new(Emulator::new(Options { seed: testing::seed(), ..Options::default() }));
    check_company(&emulator, &FORMATS[..1], LONG + 8, 24, &[12, 65]);
    let options =
        Options { seed: testing::seed(), capability: (9, 0), multiprocessors: 1, ..Options::default() };
    let emulator = Arc::new(Emulator::new(options));
    check_company(&emulator, &FORMATS[..1], LONG + 1, 70, &[65]);
    assert!(emulator.launched().contains("linear_wgmma_128"));
}

#[test]
fn nothing_gives_nothing() {
    let device = testing::devices(1).next().unwrap();
    for format in FORMATS {
        let weight = Weight::new(vec![matrix(1, 20, 40)], Order::Stacked, format, &device).unwrap();
        let x = Tensor::from_f32(Vec::new(), &[0, 40], &device).unwrap();
        assert_eq!(linear::forward(&x, &weight, None).unwrap().shape(), [0, 20]);
    }
}

/// A weight that the processor has packed is the same as one that is made for the device.
#[test]
fn packed_weights_move_to_the_device() {
    let device = testing::devices(1).next().unwrap();
    let x = testing::tensor(1, &[3, 72], &device);
    for format in FORMATS {
        let parts = || vec![matrix(2, 41, 72), matrix(3, 41, 72)];
        let compute = |weight: &Weight| linear::swiglu(&x, weight, None).unwrap().to_f32_vec().unwrap();
        let made = Weight::new(parts(), Order::Interleaved, format, &device).unwrap();
        let packed = Weight::new(parts(), Order::Interleaved, format, &Device::cpu()).unwrap();
        let moved = packed.on(&device).unwrap();
        assert_eq!(compute(&made), compute(&moved), "{format:?}");
        assert_eq!(made.size_in_bytes(), moved.size_in_bytes());
        // Of either kind: rows are filled up to 48 and features to 128.
        let bits = match format {
            Format::Quantized(scheme) => scheme.bits_per_weight() as usize * 128 * 96 / 8 + 128 * 96 / 16,
            _ => 2 * 128 * 96,
        };
        assert_eq!(made.size_in_bytes(), bits, "{format:?}");
        assert_eq!(linear::device_bytes(96, 72, format), bits, "{format:?}");
    }
}

#[test]
fn what_can_not_be_multiplied_is_named() {
    let device = testing::devices(1).next().unwrap();
    let weight = Weight::new(vec![matrix(1, 20, 40)], Order::Stacked, Format::Exact, &device).unwrap();
    let x = testing::tensor(1, &[2, 40], &Device::cpu());
    let error = linear::forward(&x, &weight, None).unwrap_err().to_string();
    assert_eq!(error, "linear: x is \"cpu\", expected where the weight is");
    let bytes = HostBytes::new(Arc::new(vec![0; 4 * 8]));
    let wide = HostMatrix::new(bytes, DType::F32, 1, 8).unwrap();
    let error = Weight::new(vec![wide], Order::Stacked, Format::Exact, &device).unwrap_err().to_string();
    assert!(error.starts_with("linear: dtype is F32, expected BF16"), "{error}");
}
