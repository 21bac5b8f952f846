//! Every path equals the definition, to the bit.

use super::*;
use crate::testing::numbers;

/// Windows and weights as a resampler makes them, but wilder: any lengths, any signs.
fn weights(input: usize, outputs: usize, longest: usize, seed: u64) -> Weights {
    let random = numbers(seed, outputs * (longest + 2));
    let taps = longest.min(input);
    let (mut windows, mut weights) = (Vec::new(), Vec::new());
    for (output, random) in random.chunks_exact(longest + 2).enumerate() {
        let part = |value: f32, n: usize| ((value + 1.0) / 2.0 * n as f32) as usize;
        let len = 1 + part(random[0], taps).min(taps - 1);
        // In order as a resampler's are, with some freedom.
        let start = (output * input / outputs + part(random[1], 3)).min(input - len);
        windows.push(start..start + len);
        // The sum of sizes stays below two; the first ones are large.
        let values = (0..taps).map(|tap| (random[2 + tap] * (4e6 / (tap + 1) as f32 / 2.0)) as i32);
        weights.extend(values);
    }
    Weights { windows, weights, taps }
}

struct Weights {
    windows: Vec<Range<usize>>,
    weights: Vec<i32>,
    taps: usize,
}

impl Weights {
    fn axis(&self, input: usize) -> Axis<'_> {
        Axis { input, windows: &self.windows, weights: &self.weights, taps: self.taps }
    }
}

struct Case {
    input: (usize, usize),
    output: (usize, usize),
    longest: usize,
    cut: Cut,
    times: Range<usize>,
}

fn check(case: &Case, seed: u64) {
    let &Case { input, output, longest, cut, .. } = case;
    let down = weights(input.0, output.0, longest, seed);
    let across = weights(input.1, output.1, longest, seed + 1);
    let rgb: Vec<u8> = numbers(seed + 2, input.0 * input.1 * 3)
        .iter()
        // Black and white half of the time: edges where clipping shows.
        .map(|&x| if x < 0.0 { 255 * u8::from(x < -0.5) } else { (x * 256.0) as u8 })
        .collect();
    let frame = Resample {
        rgb: &rgb,
        down: down.axis(input.0),
        across: across.axis(input.1),
        scaling: Scaling { scale: 1.0 / 255.0, mean: [0.48, 0.45, 0.40], std: [0.26, 0.27, 0.275] },
        cut,
        times: case.times.clone(),
    };
    let untouched = f32::from_bits(0x7fc0_1234);
    let mut expected = vec![untouched; output.0 * output.1 * 3 * cut.temporal];
    reference::resample(&frame, &mut expected);
    for isa in Isa::available() {
        let mut values = vec![untouched; expected.len()];
        resample_on(isa, &frame, &mut values).unwrap();
        let differs = values.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differs, None, "{isa}: {input:?} to {output:?}, windows to {longest}, {cut:?}");
    }
}

#[test]
fn all_paths_equal_the_definition() {
    let sides = [1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 63, 70];
    let cuts = [
        (14, 2, 2),
        (2, 2, 2),
        (1, 1, 1),
        (3, 1, 3),
        (8, 2, 1),
        (16, 1, 2),
        (17, 1, 1),
        (33, 1, 1),
        (7, 3, 2),
    ];
    for (index, (&height, &width)) in sides.iter().flat_map(|h| sides.iter().map(move |w| (h, w))).enumerate()
    {
        let (patch, merge, temporal) = cuts[index % cuts.len()];
        let side = patch * merge;
        let case = Case {
            input: (height, width),
            output: (side * (1 + index % 3), side * (1 + index / 3 % 4)),
            longest: [1, 4, 5, 9, 22][index % 5],
            cut: Cut { patch, merge, temporal },
            times: (index % temporal)..temporal,
        };
        check(&case, 1000 + index as u64);
    }
}

#[test]
fn a_frame_that_several_tasks_share() {
    let cut = Cut { patch: 2, merge: 2, temporal: 2 };
    for (seed, input) in [(1, (211, 97)), (2, (50, 301)), (3, (128, 128))] {
        check(&Case { input, output: (128, 100), longest: 7, cut, times: 0..1 }, seed);
    }
}

/// The largest sums that are allowed, in both directions.
#[test]
fn sums_at_the_limit() {
    let windows = vec![0..2; 4];
    for weights in [[0x7f_0000, 0], [-0x7f_0000, 0], [0x3f_8000, 0x3f_8000], [0x5f_0000, -0x20_0000]] {
        let axis = Axis { input: 2, windows: &windows, weights: &weights.repeat(4), taps: 2 };
        let frame = Resample {
            rgb: &[255; 12],
            down: axis.clone(),
            across: axis,
            scaling: Scaling { scale: 1.0, mean: [0.0; 3], std: [1.0; 3] },
            cut: Cut { patch: 2, merge: 2, temporal: 1 },
            times: 0..1,
        };
        let mut expected = [f32::NAN; 48];
        reference::resample(&frame, &mut expected);
        for isa in Isa::available() {
            let mut values = [f32::NAN; 48];
            resample_on(isa, &frame, &mut values).unwrap();
            assert_eq!(values, expected, "{isa} {weights:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let windows = vec![0..2, 1..3, 2..4, 3..4];
    let weights = vec![1 << 20; 8];
    let axis = Axis { input: 4, windows: &windows, weights: &weights, taps: 2 };
    let fits = Resample {
        rgb: &[0; 48],
        down: axis.clone(),
        across: axis.clone(),
        scaling: Scaling { scale: 1.0, mean: [0.0; 3], std: [1.0; 3] },
        cut: Cut { patch: 2, merge: 2, temporal: 2 },
        times: 0..2,
    };
    resample(&fits, &mut [0.0; 96]).unwrap();
    let check = |frame: Resample<'_>, values: usize, words: &str| {
        let message = resample(&frame, &mut vec![0.0; values]).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    check(fits.clone(), 95, "values is 95");
    check(Resample { rgb: &[0; 47], ..fits.clone() }, 96, "rgb is 47");
    check(Resample { times: 0..3, ..fits.clone() }, 96, "times is 0..3");
    check(Resample { times: 1..1, ..fits.clone() }, 96, "times is 1..1");
    check(Resample { cut: Cut { patch: 0, ..fits.cut }, ..fits.clone() }, 96, "cut");
    check(Resample { cut: Cut { merge: usize::MAX, ..fits.cut }, ..fits.clone() }, 96, "cut");
    check(Resample { cut: Cut { patch: 3, ..fits.cut }, ..fits.clone() }, 96, "down is 4");
    let with = |axis: Axis<'_>, words: &str| check(Resample { across: axis, ..fits.clone() }, 96, words);
    with(Axis { weights: &weights[1..], ..axis.clone() }, "across is 7");
    with(Axis { input: 3, ..axis.clone() }, "across is 2..4");
    with(Axis { taps: 1, weights: &weights[..4], ..axis.clone() }, "across is 0..2");
    with(Axis { weights: &[1 << 22; 8], ..axis.clone() }, "across is 8388608");
    with(Axis { weights: &[i32::MIN; 8], ..axis.clone() }, "across is 4294967296");
    let empty = vec![0..2, 1..3, 2..2, 3..4];
    with(Axis { windows: &empty, ..axis.clone() }, "across is 2..2");
}
