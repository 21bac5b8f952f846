//! Products against sums in f64 over the same quantized numbers, bits that don't depend on company, and quantizers
//! against those of the field's block formats.

use std::sync::Arc;

use super::{
    PackedInt, Scheme,
    format::{GROUP, PANEL},
    multiply, rivals,
};
use crate::{
    DType, HostBytes, HostMatrix,
    linear::product::{Finish, Order, Product, Source},
    pages::Block,
    pool,
    processor::Isa,
    testing::numbers,
};

const SCHEMES: [Scheme; 3] = [Scheme::Int8, Scheme::Int4Symmetric, Scheme::Int4Asymmetric];

fn matrix(values: &[f32], rows: usize, cols: usize) -> HostMatrix {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    HostMatrix::new(HostBytes::new(Arc::new(bytes)), DType::F32, rows, cols).unwrap()
}

fn packed(seed: u64, scheme: Scheme, rows: usize, cols: usize) -> PackedInt {
    let parts = [matrix(&numbers(seed, rows * cols), rows, cols)];
    PackedInt::pack(&Source::new(&parts, Order::Stacked), scheme, "test").unwrap()
}

/// `x` as a product with weights of `scheme` sees it: codes and steps of groups, in f64.
fn seen(scheme: Scheme, x: &[f32], features: usize) -> Vec<f64> {
    x.chunks(features.max(1))
        .flat_map(|row| row.chunks(GROUP))
        .flat_map(|group| {
            let greatest = group.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let (inverse, step) = match scheme {
                _ if greatest == 0.0 => (0.0, 0.0),
                Scheme::Int4Asymmetric => {
                    let power = (greatest / 127.0).log2().ceil();
                    ((-power).exp2(), power.exp2())
                }
                _ => (127.0 / greatest, greatest / 127.0),
            };
            group.iter().map(move |x| f64::from((x * inverse).round_ties_even()) * f64::from(step))
        })
        .collect()
}

/// One product, and what it should be.
struct Case {
    tokens: usize,
    finish: Finish,
    bias: bool,
}

fn check(isa: Isa, weight: &PackedInt, case: &Case) {
    let (rows, cols, tokens) = (weight.rows(), weight.cols, case.tokens);
    let x = numbers(7, tokens * cols);
    let bias = case.bias.then(|| numbers(8, rows));
    let width = if case.finish == Finish::SwiGlu { rows / 2 } else { rows };
    let residual = match case.finish {
        Finish::Add => numbers(9, tokens * width),
        // What is there before must not be read.
        _ => vec![f32::NAN; tokens * width],
    };
    let mut y = residual.clone();
    let p = Product { x: &x, tokens, features: cols, bias: bias.as_deref(), finish: case.finish, y: &mut y };
    multiply::poison();
    weight.multiply_on(isa, p);

    let x = seen(weight.scheme(), &x, cols);
    let mut expected = vec![0.0f64; tokens * rows];
    let mut size = vec![0.0f64; tokens * rows];
    let mut row_values = vec![0.0f32; cols];
    for row in 0..rows {
        weight.read_row(row, &mut row_values);
        for token in 0..tokens {
            let at = token * rows + row;
            for (w, x) in row_values.iter().zip(&x[token * cols..]) {
                expected[at] += f64::from(*w) * x;
                size[at] += (f64::from(*w) * x).abs();
            }
            expected[at] += bias.as_ref().map_or(0.0, |b| f64::from(b[row]));
        }
    }
    for token in 0..tokens {
        for i in 0..width {
            let at = |row: usize| (expected[token * rows + row], size[token * rows + row]);
            let (value, size) = match case.finish {
                Finish::Store => at(i),
                Finish::Add => {
                    let (value, size) = at(i);
                    (value + f64::from(residual[token * width + i]), size)
                }
                Finish::SwiGlu => {
                    let ((gate, g), (up, u)) = (at(i / 16 * 32 + i % 16), at(i / 16 * 32 + 16 + i % 16));
                    (gate / (1.0 + (-gate).exp()) * up, g * (1.0 + up.abs()) + u * (1.0 + gate.abs()))
                }
            };
            // One rounding for each group and a few for its factors, of sums that are at most `size`.
            let tolerance = (size + 1.0) * f64::from(f32::EPSILON) * (4.0 + (cols / GROUP) as f64);
            let found = f64::from(y[token * width + i]);
            let what =
                format!("{isa}, {:?}, {rows} x {cols}, {tokens} tokens, {:?}", weight.scheme(), case.finish);
            assert!(
                (found - value).abs() <= tolerance,
                "{what}: {found}, expected {value} within {tolerance}"
            );
        }
    }
}

#[test]
fn products_are_those_of_the_quantized_numbers() {
    for isa in Isa::available() {
        for scheme in SCHEMES {
            for (rows, cols) in [(1, 1), (31, 33), (32, 32), (33, 31), (65, 342), (40, 1176), (96, 640)] {
                let weight = packed(1, scheme, rows, cols);
                for tokens in [0, 1, 2, 3, 4, 5, 6, 7, 15, 17] {
                    let finish = if tokens % 2 == 0 { Finish::Store } else { Finish::Add };
                    check(isa, &weight, &Case { tokens, finish, bias: tokens % 3 != 2 });
                }
            }
        }
    }
}

#[test]
fn many_tokens_pass_over_long_rows() {
    for isa in Isa::available() {
        for scheme in SCHEMES {
            let weight = packed(2, scheme, 33, 3420);
            for tokens in [1, 8, 37, 63] {
                check(isa, &weight, &Case { tokens, finish: Finish::Store, bias: true });
            }
        }
    }
}

#[test]
fn swiglu_multiplies_interleaved_halves() {
    for isa in Isa::available() {
        for scheme in SCHEMES {
            for (rows, cols) in [(1, 40), (16, 33), (50, 100)] {
                let parts = [3, 4].map(|seed| matrix(&numbers(seed, rows * cols), rows, cols));
                let source = Source::new(&parts, Order::Interleaved);
                let weight = PackedInt::pack(&source, scheme, "test").unwrap();
                for tokens in [1, 4, 9, 31] {
                    check(isa, &weight, &Case { tokens, finish: Finish::SwiGlu, bias: tokens % 2 == 0 });
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let (rows, cols, tokens) = (65, 1100, 300);
    let x = numbers(5, tokens * cols);
    for isa in Isa::available() {
        for scheme in SCHEMES {
            let weight = packed(6, scheme, rows, cols);
            // A token of tiny numbers, and one of large ones.
            let mut x = x.clone();
            x[..cols].iter_mut().for_each(|x| *x *= 3e-12);
            x[cols..2 * cols].iter_mut().for_each(|x| *x *= 1e20);
            let product = |first: usize, tokens: usize| {
                let mut y = vec![0.0; tokens * rows];
                let x = &x[first * cols..(first + tokens) * cols];
                let finish = Finish::Store;
                weight.multiply_on(isa, Product { x, tokens, features: cols, bias: None, finish, y: &mut y });
                y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let all = product(0, tokens);
            for (first, count) in [
                (0, 1),
                (299, 1),
                (3, 2),
                (17, 3),
                (100, 4),
                (1, 5),
                (9, 6),
                (50, 7),
                (2, 16),
                (11, 38),
                (7, 43),
                (40, 259),
            ] {
                let expected = &all[first * rows..(first + count) * rows];
                assert!(product(first, count) == expected, "{isa}, {scheme:?}: {count} from {first}");
                // Inside of a task there is one thread.
                pool::run(2, |_| {
                    assert!(product(first, count.min(9)) == expected[..count.min(9) * rows], "one thread")
                });
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    let (rows, cols) = (40, 70);
    for isa in Isa::available() {
        for scheme in SCHEMES {
            let weight = packed(1, scheme, rows, cols);
            let mut x = numbers(2, 5 * cols);
            x[cols + 69] = f32::NAN;
            x[2 * cols + 3] = f32::NEG_INFINITY;
            x[3 * cols..4 * cols].fill(0.0);
            x[4 * cols..5 * cols].fill(f32::MIN_POSITIVE / 4.0);
            let mut y = vec![7.0; 5 * rows];
            let finish = Finish::Store;
            weight.multiply_on(
                isa,
                Product { x: &x, tokens: 5, features: cols, bias: None, finish, y: &mut y },
            );
            let rows: Vec<&[f32]> = y.chunks(rows).collect();
            assert!(rows[0].iter().all(|y| y.is_finite()), "{isa}, {scheme:?}");
            assert!(rows[1].iter().all(|y| y.is_nan()), "{isa}, {scheme:?}");
            assert!(rows[2].iter().all(|y| !y.is_finite()), "{isa}, {scheme:?}");
            assert!(rows[3..].iter().all(|row| row.iter().all(|&y| y == 0.0)), "{isa}, {scheme:?}");
        }
    }
}

#[test]
fn every_processor_packs_the_same_bytes() {
    let (rows, cols) = (70, 100);
    let mut values = numbers(3, rows * cols);
    // Zeros, one number only, nothing below zero, tiny and large ones.
    values[..40].fill(0.0);
    values[100..140].fill(0.25);
    values[200..300].iter_mut().for_each(|v| *v = v.abs());
    values[300..400].iter_mut().for_each(|v| *v *= 1e-12);
    values[400..500].iter_mut().for_each(|v| *v *= 3600.0);
    let parts = [matrix(&values, rows, cols)];
    let source = Source::new(&parts, Order::Stacked);
    for scheme in SCHEMES {
        let expected = PackedInt::pack_on(Isa::Portable, &source, scheme, "test").unwrap();
        assert_eq!(Some(expected.size_in_bytes()), PackedInt::packed_size(scheme, rows, cols));
        for isa in Isa::available() {
            let found = PackedInt::pack_on(isa, &source, scheme, "test").unwrap();
            assert!(found.bytes() == expected.bytes(), "{isa}, {scheme:?}");
        }
        // Half a step for each weight, where the search has not cut more off for the sake of the rest.
        let steps = if scheme == Scheme::Int8 { 255.0 } else { 15.0 };
        let mut row = vec![0.0; cols];
        for (i, values) in values.chunks(cols).enumerate() {
            expected.read_row(i, &mut row);
            for (found, expected) in row.chunks(GROUP).zip(values.chunks(GROUP)) {
                let greatest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    // The least four-bit step is 2^-23.
                    let tolerance = 2.0 * greatest * 2.0 / steps + 1e-7;
                    assert!(
                        (found - expected).abs() <= tolerance,
                        "{scheme:?}, row {i}: {found}, {expected}"
                    );
                }
            }
        }
        expected.read_row(0, &mut row);
        assert!(row[..GROUP].iter().all(|&v| v == 0.0), "{scheme:?}");
    }
}

#[test]
fn packed_bytes_are_taken_back() {
    for scheme in SCHEMES {
        let weight = packed(4, scheme, 33, 65);
        let mut block = Block::zeros(weight.size_in_bytes(), "test").unwrap();
        block.as_mut_slice().copy_from_slice(weight.bytes());
        let again = PackedInt::from_bytes(scheme, 33, 65, block.freeze()).unwrap();
        check(Isa::current(), &again, &Case { tokens: 3, finish: Finish::Store, bias: false });
        let short = Block::zeros(weight.size_in_bytes() - 1, "test").unwrap().freeze();
        let error = PackedInt::from_bytes(scheme, 33, 65, short).unwrap_err().to_string();
        assert!(error.starts_with("quantize: packed bytes is "), "{error}");
        assert_eq!(PackedInt::packed_size(scheme, usize::MAX, usize::MAX), None);
        assert_eq!(PackedInt::packed_size(scheme, 0, 5), Some(0));
    }
}

#[test]
fn weights_that_no_scale_reaches_are_refused() {
    for wrong in [f32::NAN, f32::INFINITY, -1e9] {
        let mut values = numbers(1, 40 * 8);
        values[35 * 8 + 2] = wrong;
        let parts = [matrix(&values, 40, 8)];
        let error = PackedInt::pack(&Source::new(&parts, Order::Stacked), Scheme::Int8, "test").unwrap_err();
        assert!(error.to_string().contains("a weight of row is (35, "), "{error}");
    }
}

/// The root of the mean squared error of a quantized matrix, relative to its own.
fn relative_error(values: &[f32], found: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let missed: f64 = values.iter().zip(found).map(|(v, f)| square(f64::from(*v) - f64::from(*f))).sum();
    (missed / values.iter().map(|v| square(f64::from(*v))).sum::<f64>()).sqrt()
}

fn dequantized(weight: &PackedInt) -> Vec<f32> {
    let mut values = vec![0.0; weight.rows() * weight.cols];
    for (row, values) in values.chunks_mut(weight.cols).enumerate() {
        weight.read_row(row, values);
    }
    values
}

/// The field's formats with as many bits per weight, and the groups in which their products quantize activations.
fn rivals_of(scheme: Scheme) -> &'static [(&'static str, rivals::Quantizer, usize)] {
    match scheme {
        Scheme::Int8 => &[("Q8_0", rivals::q8_0, 32)],
        Scheme::Int4Symmetric => &[("Q4_0", rivals::q4_0, 32)],
        Scheme::Int4Asymmetric => &[("Q4_0", rivals::q4_0, 32), ("Q4_K", rivals::q4_k, 256)],
    }
}

/// `x: (tokens, cols)` times the transpose of `w: (rows, cols)`, in f64.
fn exact(x: &[f32], w: &[f32], cols: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
    x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(x, w) as f32)).collect()
}

/// Errors are lower at equal bits, those of weights and those of products. With `--nocapture` this prints the table.
#[test]
#[allow(clippy::print_stdout)]
fn errors_are_below_those_of_formats_with_as_many_bits() {
    let (rows, cols, tokens) = (8 * PANEL, 1024, 8);
    println!("weights, bits per weight: relative RMS error of weights, of products with normal activations");
    for (what, values) in rivals::samples(11, rows * cols) {
        let parts = [matrix(&values, rows, cols)];
        let x = &rivals::samples(500, tokens * cols)[0].1;
        let expected = exact(x, &values, cols);
        for scheme in SCHEMES {
            let weight = PackedInt::pack(&Source::new(&parts, Order::Stacked), scheme, "test").unwrap();
            let mut y = vec![0.0; tokens * rows];
            let finish = Finish::Store;
            weight.multiply(Product { x, tokens, features: cols, bias: None, finish, y: &mut y });
            let ours = (relative_error(&values, &dequantized(&weight)), relative_error(&expected, &y));
            let bits = scheme.bits_per_weight();
            println!("{what}, {bits}: {scheme:?} {:.5}, {:.5}", ours.0, ours.1);
            for (name, quantizer, group) in rivals_of(scheme) {
                let w = quantizer(&values);
                let y = exact(&rivals::eight_bits(x, *group), &w, cols);
                let theirs = (relative_error(&values, &w), relative_error(&expected, &y));
                println!("    {name} {:.5}, {:.5}", theirs.0, theirs.1);
                assert!(ours.0 < theirs.0, "{what}: weights, {scheme:?} {}, {name} {}", ours.0, theirs.0);
                assert!(ours.1 < theirs.1, "{what}: products, {scheme:?} {}, {name} {}", ours.1, theirs.1);
            }
        }
    }
}
