//! Every instruction set against sums in f64, and every row against itself in other company.

use std::sync::Arc;

use half::bf16;

use super::*;
use crate::{
    DType, HostBytes, HostMatrix,
    linear::product::{Order, Source},
    pages::Block,
    pool, testing,
};

/// A matrix of random numbers in `dtype`.
fn matrix(seed: u64, rows: usize, cols: usize, dtype: DType) -> HostMatrix {
    let values = testing::numbers(seed, rows * cols);
    let bytes: Vec<u8> = match dtype {
        DType::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|&v| v.to_le_bytes()).collect(),
    };
    HostMatrix::new(HostBytes::new(Arc::new(bytes)), dtype, rows, cols).unwrap()
}

fn packed(rows: usize, cols: usize) -> PackedBf16 {
    PackedBf16::pack(&Source::new(&[matrix(2, rows, cols, DType::BF16)], Order::Stacked), "test").unwrap()
}

/// The same numbers in twelve bits; some of the panels' units are kept as they were.
fn squeezed(weight: &PackedBf16) -> PackedBf16 {
    let bytes = weight.bytes().unwrap();
    let panel = weight.padded_cols() * PANEL * 2;
    let fill = |index: usize, pairs: &mut [u32]| {
        bytemuck::cast_slice_mut(pairs).copy_from_slice(&bytes[index * panel..][..panel]);
        Ok(())
    };
    let store = squeeze::Squeezed::new(weight.rows, weight.cols, "test", &fill).unwrap().unwrap();
    PackedBf16 { rows: weight.rows, cols: weight.cols, store: Store::Squeezed(store) }
}

fn bits(weight: &PackedBf16) -> Vec<u32> {
    let mut values = vec![0.0; weight.cols];
    let rows = 0..weight.rows;
    rows.flat_map(|row| {
        weight.read_row(row, &mut values).unwrap();
        values.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn twelve_bits_give_the_same_bits() {
    for (rows, cols) in [(1, 1), (33, 31), (65, 98), (130, 63), (40, 1025), (140, 2600)] {
        // Mostly small numbers, and now and then what no sixteen upper bytes cover.
        let rare = [0.0f32, -0.0, 1e-38, -3e38, f32::INFINITY, f32::NAN, 1e-20, -7e9];
        let mut values = testing::numbers(21, rows * cols);
        let every = 997;
        for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| i % every == every - 1) {
            *value = rare[i / every % rare.len()];
        }
        let bytes: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        let matrix = HostMatrix::new(HostBytes::new(Arc::new(bytes)), DType::BF16, rows, cols).unwrap();
        let plain = PackedBf16::pack(&Source::new(&[matrix], Order::Stacked), "test").unwrap();
        let squeezed = squeezed(&plain);
        assert_eq!(bits(&plain), bits(&squeezed), "{rows} x {cols}");
        for (i, tokens) in [1, 2, 3, 6, 7, 11, 12, 13, 24, 63, 800].into_iter().enumerate() {
            let x = testing::numbers(tokens as u64, tokens * cols);
            let finish = [Finish::Store, Finish::Add][i % 2];
            let bias = (i % 3 == 0).then(|| testing::numbers(5, rows));
            for isa in Isa::available() {
                let run = |weight| {
                    let case = Case { weight, x: &x, tokens, bias: bias.as_deref(), finish };
                    let y = case.run(isa, &testing::numbers(6, case.y_len()));
                    y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                assert!(run(&plain) == run(&squeezed), "{isa}, {rows} x {cols}, {tokens} tokens");
            }
        }
    }
}

#[test]
fn weights_without_a_pattern_stay_as_they_are() {
    let bytes: Vec<u8> = (0..64 * 64 * 2u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let matrix = HostMatrix::new(HostBytes::new(Arc::new(bytes)), DType::BF16, 64, 64).unwrap();
    let packed = PackedBf16::pack_squeezed(&Source::new(&[matrix], Order::Stacked), "test").unwrap();
    assert!(packed.bytes().is_some());
}

#[test]
fn squeezed_weights_take_three_quarters() {
    let plain = packed(96, 2048);
    let bytes = HostBytes::new(Arc::new(plain.bytes().unwrap().to_vec()));
    let squeezed = squeezed(&plain);
    let share = squeezed.size_in_bytes() as f64 / plain.size_in_bytes() as f64;
    assert!((0.75..0.77).contains(&share), "{share}");
    let again = PackedBf16::squeeze_bytes(96, 2048, &bytes, "test").unwrap();
    assert_eq!(bits(&again), bits(&plain));
    assert!(PackedBf16::squeeze_bytes(96, 2047, &bytes, "test").is_ok());
    assert!(PackedBf16::squeeze_bytes(128, 2048, &bytes, "test").is_err());
}

fn interleaved(rows: usize, cols: usize) -> PackedBf16 {
    let parts = [matrix(2, rows, cols, DType::BF16), matrix(3, rows, cols, DType::BF16)];
    PackedBf16::pack(&Source::new(&parts, Order::Interleaved), "test").unwrap()
}

/// One product into a `y` that holds `before`.
struct Case<'a> {
    weight: &'a PackedBf16,
    x: &'a [f32],
    tokens: usize,
    bias: Option<&'a [f32]>,
    finish: Finish,
}

impl Case<'_> {
    fn y_len(&self) -> usize {
        self.tokens * self.weight.outputs(self.finish)
    }

    fn run(&self, isa: Isa, before: &[f32]) -> Vec<f32> {
        product::poison();
        let mut y = before.to_vec();
        let p = Product {
            x: self.x,
            tokens: self.tokens,
            features: self.weight.cols,
            bias: self.bias,
            finish: self.finish,
            y: &mut y,
        };
        self.weight.multiply_on(isa, p).unwrap();
        y
    }

    /// In f64, with `x` rounded as the kernels do; beside each element the error that it may have.
    fn expected(&self, before: &[f32]) -> Vec<(f64, f64)> {
        let (rows, cols) = (self.weight.rows, self.weight.cols);
        let mut w = vec![0.0; rows * cols];
        for row in 0..rows {
            self.weight.read_row(row, &mut w[row * cols..][..cols]).unwrap();
        }
        let sum = |token: usize, row: usize| {
            let x = &self.x[token * cols..][..cols];
            let bias = self.bias.map_or(0.0, |bias| f64::from(bias[row]));
            let products = x.iter().zip(&w[row * cols..][..cols]);
            let terms = products.map(|(&x, &w)| f64::from(bf16::from_f32(x).to_f32()) * f64::from(w));
            let (sum, size) = terms.fold((bias, bias.abs()), |(sum, size), t| (sum + t, size + t.abs()));
            // Each addition rounds by half a unit in the last place at most, in either direction: the errors of n
            // of them grow with the root of n. Twice that, and some for short sums.
            (sum, size * f64::from(f32::EPSILON) * (2.0 + (cols as f64).sqrt()))
        };
        let outputs = self.weight.outputs(self.finish);
        (0..self.tokens * outputs)
            .map(|i| {
                let (token, output) = (i / outputs, i % outputs);
                if self.finish == Finish::SwiGlu {
                    let row = output / 16 * 32 + output % 16;
                    let ((gate, gate_error), (up, up_error)) = (sum(token, row), sum(token, row + 16));
                    let silu = gate / (1.0 + (-gate).exp());
                    // The slope of SiLU is at most 1.1.
                    let error = 1.1 * gate_error * up.abs() + silu.abs() * up_error;
                    return (silu * up, error + (silu * up).abs() * 1e-6);
                }
                let (sum, error) = sum(token, output);
                let before = if self.finish == Finish::Add { f64::from(before[i]) } else { 0.0 };
                (before + sum, error + f64::from(f32::EPSILON) * before.abs())
            })
            .collect()
    }
}

fn check(weight: &PackedBf16, tokens: usize, bias: bool, finish: Finish) {
    let x = testing::numbers(tokens as u64, tokens * weight.cols);
    let bias = bias.then(|| testing::numbers(5, weight.rows));
    let case = Case { weight, x: &x, tokens, bias: bias.as_deref(), finish };
    // What is stored over is poison, what is added to is not.
    let before =
        if finish == Finish::Add { testing::numbers(6, case.y_len()) } else { vec![f32::NAN; case.y_len()] };
    let expected = case.expected(&before);
    for isa in Isa::available() {
        let found = case.run(isa, &before);
        for (i, (&found, &(expected, tolerance))) in found.iter().zip(&expected).enumerate() {
            let error = (f64::from(found) - expected).abs();
            assert!(
                error <= tolerance,
                "{isa}, {} x {}, {tokens} tokens, {finish:?}: element {i} is {found}, expected {expected} +- {tolerance:e}",
                weight.rows,
                weight.cols,
            );
        }
    }
}

#[test]
fn awkward_shapes_equal_the_reference() {
    for (rows, cols) in [(1, 1), (31, 3), (32, 32), (33, 31), (65, 98), (130, 63), (16, 1176), (40, 1025)] {
        let weight = packed(rows, cols);
        for (i, tokens) in [0, 1, 2, 3, 5, 6, 7, 12, 13, 15, 17, 31, 63].into_iter().enumerate() {
            check(&weight, tokens, i % 2 == 0, [Finish::Store, Finish::Add][i / 2 % 2]);
        }
    }
}

#[test]
fn gates_equal_the_reference() {
    for (rows, cols) in [(1, 4), (16, 33), (24, 130), (35, 1040)] {
        let weight = interleaved(rows, cols);
        for (i, tokens) in [1, 4, 12, 13, 31].into_iter().enumerate() {
            check(&weight, tokens, i % 2 == 0, Finish::SwiGlu);
        }
    }
}

#[test]
fn wide_rows_equal_the_reference() {
    for (cols, tokens) in [(3420, 1), (3420, 19), (2048, 13), (11_008, 2), (5120, 14)] {
        check(&packed(33, cols), tokens, true, Finish::Add);
    }
}

#[test]
fn many_rows_equal_the_reference() {
    // More than one strip.
    check(&packed(37, 40), 1600, true, Finish::Store);
    // More panels than a group, more groups than threads.
    check(&packed(1500, 34), 26, true, Finish::Add);
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    const MOST: usize = 801;
    for (cols, finish) in [(1176, Finish::Store), (2050, Finish::Add), (72, Finish::SwiGlu)] {
        let weight = if finish == Finish::SwiGlu { interleaved(30, cols) } else { packed(70, cols) };
        let x = testing::numbers(1, MOST * cols);
        let bias = testing::numbers(5, weight.rows);
        let outputs = weight.outputs(finish);
        let before = testing::numbers(6, MOST * outputs);
        for isa in Isa::available() {
            let rows = |start: usize, tokens: usize| {
                let x = &x[start * cols..][..tokens * cols];
                let case = Case { weight: &weight, x, tokens, bias: Some(&bias), finish };
                case.run(isa, &before[start * outputs..][..tokens * outputs])
            };
            let all = rows(0, MOST);
            let compare = |start: usize, tokens: usize, found: &[f32]| {
                let expected = &all[start * outputs..][..tokens * outputs];
                let same = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{isa}, {cols} features, {finish:?}: {tokens} tokens from {start}");
            };
            for tokens in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 25, 64, 100] {
                for start in [0, 17, MOST - tokens] {
                    compare(start, tokens, &rows(start, tokens));
                }
            }
            // A product inside of a task runs on one thread.
            let alone = std::sync::Mutex::new(Vec::new());
            pool::run(2, |task| {
                if task == 0 {
                    *alone.lock().unwrap() = rows(0, MOST);
                }
            });
            compare(0, MOST, &alone.into_inner().unwrap());
        }
    }
}

#[test]
fn a_bad_row_spoils_no_other() {
    let (weight, cols, tokens) = (packed(40, 50), 50, 30);
    for isa in Isa::available() {
        let mut x = testing::numbers(1, tokens * cols);
        let run = |x: &[f32]| {
            let case = Case { weight: &weight, x, tokens, bias: None, finish: Finish::Store };
            case.run(isa, &vec![0.0; case.y_len()])
        };
        let good = run(&x);
        x[7 * cols] = f32::NAN;
        x[8 * cols] = f32::INFINITY;
        let found = run(&x);
        for row in 0..tokens {
            let range = row * 40..(row + 1) * 40;
            match row {
                7 => assert!(found[range].iter().all(|y| y.is_nan()), "{isa}"),
                8 => assert!(found[range].iter().all(|y| !y.is_finite()), "{isa}"),
                _ => assert_eq!(found[range.clone()], good[range], "{isa}, row {row}"),
            }
        }
    }
}

#[test]
fn what_fills_up_rows_of_x_is_not_read() {
    let (weight, tokens) = (packed(20, 3420), 3);
    for isa in Isa::available() {
        let x = testing::numbers(1, tokens * 3420);
        let mut filled = vec![f32::NAN; tokens * 3424];
        for (filled, x) in filled.chunks_mut(3424).zip(x.chunks(3420)) {
            filled[..3420].copy_from_slice(x);
        }
        let case = Case { weight: &weight, x: &x, tokens, bias: None, finish: Finish::Store };
        let expected = case.run(isa, &vec![0.0; case.y_len()]);
        let mut y = vec![0.0; case.y_len()];
        let p = Product { x: &filled, tokens, features: 3424, bias: None, finish: Finish::Store, y: &mut y };
        weight.multiply_on(isa, p).unwrap();
        assert_eq!(y, expected);
    }
}

#[test]
fn packing_keeps_bits_and_rounds_to_nearest() {
    for (rows, cols) in [(1, 1), (33, 31), (70, 100), (64, 32)] {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            let parts = [matrix(1, rows, cols, dtype), matrix(2, rows, cols, dtype)];
            for order in [Order::Stacked, Order::Interleaved] {
                let source = Source::new(&parts, order);
                let weight = PackedBf16::pack(&source, "test").unwrap();
                assert_eq!(Some(weight.size_in_bytes()), PackedBf16::packed_size(weight.rows(), cols));
                let (mut stored, mut found) = (vec![0.0; cols], vec![0.0; cols]);
                for row in 0..weight.rows() {
                    source.read(row, &mut stored).unwrap();
                    stored.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32());
                    weight.read_row(row, &mut found).unwrap();
                    assert_eq!(found, stored, "{dtype:?}, {order:?}, row {row} of {rows} x {cols}");
                }
            }
        }
    }
}

#[test]
fn packed_bytes_are_taken_back() {
    let weight = packed(70, 100);
    let copy = |len: usize| {
        let mut block = Block::zeros(len, "test").unwrap();
        let len = len.min(weight.size_in_bytes());
        block.as_mut_slice()[..len].copy_from_slice(&weight.bytes().unwrap()[..len]);
        block.freeze()
    };
    let again = PackedBf16::from_bytes(70, 100, copy(weight.size_in_bytes())).unwrap();
    assert_eq!(again.bytes(), weight.bytes());
    assert!(PackedBf16::from_bytes(70, 100, copy(weight.size_in_bytes() - 64)).is_err());
    assert!(PackedBf16::from_bytes(usize::MAX, 100, copy(64)).is_err());
}

#[test]
fn rounding_equals_the_processors() {
    let mut x: Vec<f32> = (0..u32::MAX).step_by(65_521).map(f32::from_bits).collect();
    x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0x7f80_0001), f32::MAX, 0.0, -0.0]);
    // The dot product of bf16 takes numbers below the smallest normal one for zero.
    x.retain(|x| !x.is_subnormal());
    let mut portable = vec![0.0; x.len()];
    <portable::Portable as tile::Path>::round(&x, &mut portable);
    for (x, found) in x.iter().zip(&portable) {
        let expected = bf16::from_f32(*x).to_f32();
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{x}: {found}");
    }
    #[cfg(target_arch = "x86_64")]
    if Isa::detect() == Isa::Avx512 {
        let mut bits = vec![0; x.len()];
        <avx512::Avx512 as tile::Path>::round(&x, &mut bits);
        for (x, found) in portable.iter().zip(bits.iter().map(|&bits| bf16::from_bits(bits).to_f32())) {
            assert!(found.to_bits() == x.to_bits() || found.is_nan() && x.is_nan(), "{x}: {found}");
        }
    }
}

#[test]
fn wrong_lengths_are_named() {
    let weight = packed(40, 50);
    let product = |x: usize, features: usize, bias: usize, y: usize, finish: Finish| {
        let (x, bias, mut y) = (vec![0.0; x], vec![0.0; bias], vec![0.0; y]);
        let p = Product { x: &x, tokens: 2, features, bias: Some(&bias), finish, y: &mut y };
        weight.multiply(p).map_err(|e| e.to_string())
    };
    assert_eq!(product(100, 50, 40, 80, Finish::Store), Ok(()));
    for (x, features, bias, y, finish, message) in [
        (98, 49, 40, 80, Finish::Store, "features is 49, expected 50"),
        (130, 65, 40, 80, Finish::Store, "features is 65, expected 50"),
        (99, 50, 40, 80, Finish::Store, "elements of x is 99, expected 2 tokens of 50 features"),
        (100, 50, 41, 80, Finish::Store, "elements of the bias is 41, expected 40"),
        (100, 50, 40, 81, Finish::Add, "elements of y is 81, expected 2 tokens of 40 outputs"),
        (
            100,
            50,
            40,
            40,
            Finish::SwiGlu,
            "rows of an interleaved weight is 40, expected \"a multiple of 32\"",
        ),
    ] {
        let error = product(x, features, bias, y, finish).unwrap_err();
        assert_eq!(error.replace('"', ""), format!("linear_bf16: {message}").replace('"', ""));
    }
}
