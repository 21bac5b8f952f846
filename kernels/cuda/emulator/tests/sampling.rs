//! Sampling on the emulated device: the reference's tokens, whatever the order in which blocks and threads run.

#![allow(clippy::unwrap_used)]

use ocellus_cuda_emulator::testing;
use ocellus_kernels::{
    Device, Tensor,
    sampling::{self, Row, Sampler, Sequence, Settings},
};

/// Numbers from 0 to 1, one after another.
fn parts(stream: u64) -> impl FnMut() -> f32 {
    let mut numbers = testing::numbers(stream, 20_000).into_iter().cycle();
    move || (numbers.next().unwrap() + 1.0) / 2.0
}

fn pick<T: Copy>(part: f32, values: &[T]) -> T {
    values[(part * values.len() as f32) as usize % values.len()]
}

fn settings(part: &mut impl FnMut() -> f32) -> Settings {
    let mut choose = |values: &[f32]| pick(part(), values);
    Settings {
        temperature: choose(&[0.0, 0.01, 0.7, 1.0, 3.0, f32::INFINITY]),
        top_k: choose(&[0.0, 0.0, 1.0, 3.0, 50.0, 129.0, 1e9]) as usize,
        top_p: choose(&[1.0, 1.0, 0.0, 0.001, 0.3, 0.813, 0.9991]),
        min_p: choose(&[0.0, 0.0, 0.0503, 0.71, 2.0]),
        repetition_penalty: choose(&[1.0, 1.0, 1.05, 1.7, 0.8]),
        presence_penalty: choose(&[0.0, 0.0, 1.5, -0.7]),
        frequency_penalty: choose(&[0.0, 0.0, 0.4, -1.3]),
    }
}

/// Runs some steps of several sequences on both, and compares each token.
fn check(what: &str, device: &Device, seed: u64, vocabulary: usize, mut logit: impl FnMut() -> f32) {
    let mut part = parts(seed);
    let n_rows = pick(part(), &[1, 2, 3]);
    let (mut found, mut expected) = (
        Sampler::new(n_rows + 1, vocabulary, device).unwrap(),
        Sampler::new(n_rows + 1, vocabulary, &Device::cpu()).unwrap(),
    );
    let id = |part: f32| (part * vocabulary as f32) as u32;
    let mut all = Vec::new();
    for slot in 0..=n_rows {
        let settings = settings(&mut part);
        let biases = match pick(part(), &[0, 0, 1]) {
            0 => Vec::new(),
            _ => vec![(id(part()), 3.0), (vocabulary as u32, 9.0), (u32::MAX, f32::NAN)],
        };
        let (prompt, answer) = ([id(part()), id(part()), u32::MAX], [id(part())]);
        let sequence = Sequence { settings, biases: &biases, prompt: &prompt, answer: &answer };
        found.assign(slot, &sequence).unwrap();
        expected.assign(slot, &sequence).unwrap();
        all.push(settings);
    }
    for step in 0..3 {
        let logits: Vec<f32> = (0..n_rows * vocabulary).map(|_| logit()).collect();
        let masks: Vec<Option<Vec<u32>>> = (0..n_rows)
            .map(|_| match pick(part(), &[0, 0, 1, 2]) {
                0 => None,
                // Half of the tokens, or almost none.
                1 => Some((0..vocabulary.div_ceil(32)).map(|_| (part() * 4e9) as u32).collect()),
                _ => Some((0..vocabulary.div_ceil(32)).map(|_| u32::from(part() < 0.02) << 31).collect()),
            })
            .collect();
        // The last place is free in the first step, then the first one is.
        let rows: Vec<Row<'_>> = masks
            .iter()
            .enumerate()
            .map(|(i, mask)| {
                let number = u64::from(part().to_bits()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                Row { slot: if step == 0 { i } else { n_rows - i }, number, allowed: mask.as_deref() }
            })
            .collect();
        let shape = [n_rows, vocabulary];
        let on_host = Tensor::from_f32(logits.clone(), &shape, &Device::cpu()).unwrap();
        let on_device = Tensor::from_f32(logits, &shape, device).unwrap();
        let expected = expected.choose(&on_host, &rows).unwrap();
        let chosen = found.choose(&on_device, &rows).unwrap();
        assert_eq!(
            chosen,
            expected,
            "{what}, step {step}, {vocabulary} tokens, rows {rows:?}, {all:?} (OCELLUS_SEED={})",
            testing::seed()
        );
    }
}

#[test]
fn chooses_the_tokens_of_the_reference() {
    for (i, device) in testing::devices(6).enumerate() {
        let seed = i as u64;
        let vocabulary = [1, 2, 33, 130, 1500, 2049][i];
        let mut next = parts(100 + seed);
        check("spread", &device, seed, vocabulary, || next() * 16.0 - 8.0);
        if vocabulary > 200 {
            continue;
        }
        let mut next = parts(200 + seed);
        check("equals", &device, seed, vocabulary, || (next() * 4.0).round() - 2.0);
    }
}

#[test]
fn chooses_the_same_from_odd_logits() {
    let odd = [f32::NAN, f32::NEG_INFINITY, f32::MIN, f32::MAX, 0.0, -0.0, 1.0, 0.5, f32::MIN_POSITIVE];
    for (i, device) in testing::devices(3).enumerate() {
        let mut next = parts(300 + i as u64);
        check("odd", &device, i as u64, [3, 40, 300][i], || pick(next(), &odd));
        let mut next = parts(400 + i as u64);
        let mut certain = || if next() < 0.02 { f32::INFINITY } else { next() };
        check("certain", &device, i as u64, [3, 40, 300][i], &mut certain);
        check("impossible", &device, i as u64, [3, 40, 300][i], || f32::NEG_INFINITY);
    }
}

/// More tokens in one bin than are collected: the whole row is searched in their stead.
#[test]
fn a_crowded_bin_is_cut_in_the_right_place() {
    let device = testing::devices(1).next().unwrap();
    let vocabulary = 10_000;
    let mut next = parts(500);
    // A few likely ones, then all others within a 32nd, some of them equal.
    let logits: Vec<f32> = (0..vocabulary)
        .map(|i| if i % 1000 == 7 { 2.0 + next() } else { (next() * 500.0).round() / 500.0 / 40.0 })
        .collect();
    let on_host = Tensor::from_f32(logits.clone(), &[1, vocabulary], &Device::cpu()).unwrap();
    let on_device = Tensor::from_f32(logits, &[1, vocabulary], &device).unwrap();
    let warm = Settings { temperature: 1.0, ..Settings::default() };
    for settings in [
        Settings { top_p: 0.4, ..warm },
        Settings { top_k: 5000, ..warm },
        Settings { top_k: 9000, top_p: 0.7, ..warm },
        Settings { top_k: 9000, top_p: 0.002, ..warm },
    ] {
        let sequence = Sequence { settings, ..Sequence::default() };
        let mut tokens = Vec::new();
        for place in [&device, &Device::cpu()] {
            let mut sampler = Sampler::new(1, vocabulary, place).unwrap();
            sampler.assign(0, &sequence).unwrap();
            let logits = if place.name() == "cpu" { &on_host } else { &on_device };
            let numbers = [0x000a_5a5a_5a5a_5a5a];
            let rows = numbers.map(|number| Row { slot: 0, number, allowed: None });
            tokens.push(rows.map(|row| sampler.choose(logits, &[row]).unwrap()[0]));
        }
        assert_eq!(tokens[0], tokens[1], "{settings:?} (OCELLUS_SEED={})", testing::seed());
    }
}

#[test]
fn a_sampler_takes_the_bytes_that_it_says() {
    let device = testing::devices(1).next().unwrap();
    let free = || device.free_memory().unwrap().unwrap();
    for (slots, vocabulary) in [(1, 1), (3, 2049), (8, 4100)] {
        let before = free();
        let sampler = Sampler::new(slots, vocabulary, &device).unwrap();
        assert_eq!(before - free(), Sampler::device_bytes(slots, vocabulary), "{sampler:?}");
    }
}

#[test]
fn log_probabilities_equal_the_reference() {
    for device in testing::devices(2) {
        for (vocabulary, n_top) in [(1, 1), (40, 0), (2049, 20), (5000, 5)] {
            let wide = |x: &f32| x * 10.0;
            let logits: Vec<f32> = testing::numbers(1, 3 * vocabulary).iter().map(wide).collect();
            let of = |device: &Device| {
                let logits = Tensor::from_f32(logits.clone(), &[3, vocabulary], device).unwrap();
                sampling::log_probabilities(&logits, 1, vocabulary as u32 / 2, n_top).unwrap()
            };
            assert_eq!(of(&device), of(&Device::cpu()), "{vocabulary}, {n_top}");
        }
    }
}
