//! The choice against tables; the engine compares it with its own sampler, the emulator's tests with the kernels.

use super::*;
use crate::testing;

fn sampler(vocabulary: usize, sequence: &Sequence<'_>) -> Sampler {
    let mut sampler = Sampler::new(1, vocabulary, &Device::cpu()).unwrap();
    sampler.assign(0, sequence).unwrap();
    sampler
}

fn tensor(logits: &[f32]) -> Tensor {
    Tensor::from_f32(logits.to_vec(), &[1, logits.len()], &Device::cpu()).unwrap()
}

fn row(part: f64) -> Row<'static> {
    Row { slot: 0, number: (part * (1u64 << 53) as f64) as u64, allowed: None }
}

fn choose(settings: Settings, logits: &[f32], part: f64) -> Choice {
    let sequence = Sequence { settings, ..Sequence::default() };
    sampler(logits.len(), &sequence).choose(&tensor(logits), &[row(part)]).unwrap()[0]
}

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

#[test]
fn greedy_takes_the_first_of_the_likeliest() {
    let tables: [(&[f32], u32); 8] = [
        (&[3.0], 0),
        (&[1.0, 2.0, 2.0], 1),
        (&[-0.0, 0.0], 0),
        (&[NAN, -5.0, NAN], 1),
        (&[NAN, NAN], 0),
        (&[-INF, -INF], 0),
        (&[-INF, f32::MIN, NAN], 1),
        (&[1.0, INF, NAN, INF], 1),
    ];
    for (logits, expected) in tables {
        for temperature in [0.0, 0.9e-5, -1.0, NAN] {
            let settings = Settings { temperature, ..Settings::default() };
            let expected = Choice { id: expected, drawn: false };
            assert_eq!(choose(settings, logits, 0.5), expected, "{logits:?}");
        }
    }
    // Certain is certain, and nothing is drawn for it; what is impossible needs no number either.
    let warm = Settings { temperature: 1.0, ..Settings::default() };
    assert_eq!(choose(warm, &[1.0, INF, INF], 0.9), Choice { id: 1, drawn: false });
    assert_eq!(choose(warm, &[NAN, -INF], 0.9), Choice { id: 0, drawn: false });
}

#[test]
fn the_number_falls_on_a_token() {
    let warm = Settings { temperature: 1.0, ..Settings::default() };
    let logits: Vec<f32> = [0.1f32, 0.5, 0.15, 0.25].map(f32::ln).into();
    let check = |settings: Settings, ends: &[(f64, u32)]| {
        let mut start = 0.0;
        for (end, id) in ends {
            for part in [start + 1e-6, (start + end) / 2.0, end - 1e-6] {
                assert_eq!(
                    choose(settings, &logits, part),
                    Choice { id: *id, drawn: true },
                    "{settings:?}, {part}"
                );
            }
            start = *end;
        }
    };
    check(warm, &[(0.1, 0), (0.6, 1), (0.75, 2), (1.0, 3)]);
    // Temperature 0.5 squares: 0.01, 0.25, 0.0225, 0.0625 of 0.345.
    let cold = Settings { temperature: 0.5, ..warm };
    check(cold, &[(0.01 / 0.345, 0), (0.26 / 0.345, 1), (0.2825 / 0.345, 2), (1.0, 3)]);
    check(Settings { temperature: INF, ..warm }, &[(0.25, 0), (0.5, 1), (0.75, 2), (1.0, 3)]);
    let two = [(2.0 / 3.0, 1), (1.0, 3)];
    check(Settings { top_k: 2, ..warm }, &two);
    check(Settings { top_p: 0.74, ..warm }, &two);
    check(Settings { top_p: 0.76, ..warm }, &[(0.5 / 0.9, 1), (0.65 / 0.9, 2), (1.0, 3)]);
    // Top-p counts what top-k left: 0.5 of 0.75 is less than 0.7.
    check(Settings { top_k: 2, top_p: 0.7, ..warm }, &two);
    check(Settings { top_k: 2, top_p: 0.6, ..warm }, &[(1.0, 1)]);
    check(Settings { top_p: 0.0, ..warm }, &[(1.0, 1)]);
    check(Settings { min_p: 0.4, ..warm }, &two);
    check(Settings { min_p: 2.0, ..warm }, &[(1.0, 1)]);
    // Among equals the lower ids stay.
    let settings = Settings { top_k: 2, ..warm };
    assert_eq!(choose(settings, &[0.0, -0.0, 0.0, 0.0], 0.999).id, 1);
}

#[test]
fn penalties_bend_the_greedy_choice() {
    let check = |settings: Settings, prompt: &[u32], expected: [u32; 4]| {
        let sequence = Sequence { settings, prompt, ..Sequence::default() };
        let mut sampler = sampler(3, &sequence);
        let logits = tensor(&[3.0, 2.5, -1.0]);
        let found = [(); 4].map(|()| sampler.choose(&logits, &[row(0.0)]).unwrap()[0].id);
        assert_eq!(found, expected, "{settings:?}");
        // The same where the answer is known from the beginning.
        for i in 0..4 {
            let mut sampler = self::sampler(3, &Sequence { answer: &expected[..i], ..sequence });
            assert_eq!(sampler.choose(&logits, &[row(0.0)]).unwrap()[0].id, expected[i], "{settings:?}");
        }
    };
    let neutral = Settings::default();
    check(neutral, &[0], [0, 0, 0, 0]);
    // The repetition penalty counts the prompt and doesn't grow: 3 / 1.5 = 2, then 2.5 / 1.5.
    check(Settings { repetition_penalty: 1.5, ..neutral }, &[0, 9], [1, 0, 0, 0]);
    check(Settings { repetition_penalty: 1.5, ..neutral }, &[], [0, 1, 0, 0]);
    // Negative logits are multiplied: -1 stays the smallest.
    check(Settings { repetition_penalty: 100.0, ..neutral }, &[], [0, 1, 0, 0]);
    // Presence counts the answer alone and once, frequency each time.
    check(Settings { presence_penalty: 1.0, ..neutral }, &[0], [0, 1, 0, 0]);
    check(Settings { frequency_penalty: 0.6, ..neutral }, &[0], [0, 1, 0, 1]);
    check(Settings { frequency_penalty: -5.0, ..neutral }, &[1], [0, 0, 0, 0]);
}

#[test]
fn biases_come_first_and_masks_last() {
    let check = |biases: &[(u32, f32)], allowed: u32, expected: u32| {
        let settings = Settings { repetition_penalty: 10.0, ..Settings::default() };
        let sequence = Sequence { settings, biases, prompt: &[1], answer: &[] };
        let row = Row { allowed: Some(&[allowed]), ..row(0.0) };
        let mut sampler = sampler(3, &sequence);
        let found = sampler.choose(&tensor(&[0.7, -1.0, 0.5]), &[row]).unwrap();
        assert_eq!(found[0].id, expected, "{biases:?}, {allowed:b}");
    };
    // A positive sum is divided, although the logit alone is negative and would be multiplied.
    check(&[(1, 9.0)], 7, 1);
    check(&[(1, 6.0)], 7, 0);
    check(&[(1, 9.0), (7, 1e9)], 5, 0);
    check(&[], 2, 1);
    // When all that is allowed is impossible, the first of it; when nothing is allowed, the first of all.
    check(&[(1, -INF), (2, -INF)], 6, 1);
    check(&[], 0, 0);
    check(&[], 1 << 3, 0);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let logits: Vec<f32> = [0.1f32, 0.6, 0.3].map(|probability| probability.ln() + 5.0).into();
    let found = log_probabilities(&tensor(&logits), 0, 2, 2).unwrap();
    let close = |found: f32, expected: f32| (found - expected.ln()).abs() < 1e-6;
    assert!(close(found.chosen, 0.3), "{found:?}");
    let [first, second] = found.top[..] else { panic!("{found:?}") };
    assert!(first.0 == 1 && close(first.1, 0.6) && second.0 == 2 && close(second.1, 0.3), "{found:?}");
    assert_eq!(log_probabilities(&tensor(&logits), 0, 0, 0).unwrap().top, []);
    assert_eq!(log_probabilities(&tensor(&logits), 0, 0, 9).unwrap().top.len(), 3);
    assert!(log_probabilities(&tensor(&logits), 1, 0, 0).is_err());
    assert!(log_probabilities(&tensor(&logits), 0, 3, 0).is_err());
    let odd = log_probabilities(&tensor(&[NAN, 1.0, -INF]), 0, 0, 3).unwrap();
    assert_eq!((odd.chosen, odd.top), (-INF, vec![(1, 0.0), (2, -INF), (0, -INF)]));
    let none = log_probabilities(&tensor(&[NAN, -INF]), 0, 1, 1).unwrap();
    assert_eq!((none.chosen, none.top), (-INF, vec![(1, -INF)]));
    let certain = log_probabilities(&tensor(&[0.0, INF]), 0, 1, 2).unwrap();
    assert_eq!((certain.chosen, certain.top), (0.0, vec![(1, 0.0), (0, -INF)]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let check = |error: Error, expected: &str| assert_eq!(error.to_string(), expected);
    let cpu = Device::cpu();
    check(Sampler::new(0, 5, &cpu).unwrap_err(), "sampling: slots is 0, expected 1 to 65535");
    check(Sampler::new(1, 0, &cpu).unwrap_err(), "sampling: vocabulary is 0, expected 1 to 16777216");
    let mut sampler = Sampler::new(2, 40, &cpu).unwrap();
    check(sampler.assign(2, &Sequence::default()).unwrap_err(), "sampling: index 2 is outside of 2 rows");
    let slot = |slot| Row { slot, number: 0, allowed: None };
    check(sampler.upload(&[slot(0), slot(2)]).unwrap_err(), "sampling: index 2 is outside of 2 rows");
    check(sampler.upload(&[slot(0); 3]).unwrap_err(), "sampling: rows is 3, expected at most 2");
    let narrow = Row { allowed: Some(&[1]), ..slot(0) };
    check(sampler.upload(&[narrow]).unwrap_err(), "sampling: allowed is 1, expected 2 words");
    sampler.upload(&[slot(0), slot(1)]).unwrap();
    check(
        sampler.launch(&testing::tensor(1, &[1, 40])).unwrap_err(),
        "sampling: logits is [1, 40], expected (2 to 2, 40)",
    );
    sampler.launch(&testing::tensor(1, &[2, 40])).unwrap();
    assert_eq!(sampler.read().unwrap().len(), 2);
}
