//! The sampler against a slow one that does each step as its definition reads, and against counted
//! probabilities.

use super::*;

/// What the definitions say, in one pass after another over the whole vocabulary.
fn slow_sample(logits: &[f32], settings: &Sampling, history: History<'_>, random: &mut ChaCha8Rng) -> u32 {
    let mut logits = logits.to_vec();
    for id in 0..logits.len() as u32 {
        let in_answer = history.answer.iter().filter(|other| **other == id).count();
        let logit = &mut logits[id as usize];
        if in_answer > 0 || history.prompt.contains(&id) {
            *logit = if *logit > 0.0 {
                *logit / settings.repetition_penalty
            } else {
                *logit * settings.repetition_penalty
            };
        }
        if in_answer > 0 {
            *logit -= settings.frequency_penalty * in_answer as f32 + settings.presence_penalty;
        }
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    // Stable, so equals stay in the order of ids.
    order.sort_by(|a, b| logits[*b as usize].partial_cmp(&logits[*a as usize]).unwrap());
    if settings.temperature < 1e-5 {
        return order[0];
    }
    let max = f64::from(logits[order[0] as usize]);
    let weight = |id: &u32| ((f64::from(logits[*id as usize]) - max) / f64::from(settings.temperature)).exp();
    if settings.top_k > 0 {
        order.truncate(settings.top_k);
    }
    if settings.top_p < 1.0 {
        let total: f64 = order.iter().map(weight).sum();
        let mut kept = 0;
        let mut sum = 0.0;
        while kept < order.len() && (kept == 0 || sum / total < f64::from(settings.top_p)) {
            sum += weight(&order[kept]);
            kept += 1;
        }
        order.truncate(kept);
    }
    order.retain(|id| weight(id) >= f64::from(settings.min_p));
    order.sort();
    let number = (random.next_u64() >> 11) as f64 / 2f64.powi(53);
    let total: f64 = order.iter().map(weight).sum();
    let mut sum = 0.0;
    *order
        .iter()
        .find(|id| {
            sum += weight(id);
            sum > number * total
        })
        .unwrap()
}

#[derive(Clone, Copy)]
struct History<'a> {
    prompt: &'a [u32],
    answer: &'a [u32],
}

/// Numbers between -1 and 1 from a seed.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    move || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

#[test]
fn equals_the_slow_one() {
    for case in 0..400u64 {
        let mut next = noise(case);
        let n_vocabulary = [1, 2, 7, 130, 1500][case as usize % 5];
        // Every third case repeats logits, so that equals have to be told apart.
        let coarse = case % 3 == 0;
        let mut logit = || if coarse { (next() * 4.0).round() } else { next() * 8.0 };
        let steps: Vec<Vec<f32>> = (0..4).map(|_| (0..n_vocabulary).map(|_| logit()).collect()).collect();
        let mut next = noise(case + 1000);
        let mut pick =
            |values: &[f32]| values[((next() + 1.0) / 2.0 * values.len() as f32) as usize % values.len()];
        let settings = Sampling {
            logit_bias: Vec::new(),
            temperature: pick(&[0.0, 0.01, 0.7, 1.0, 3.0]),
            top_k: pick(&[0.0, 1.0, 3.0, 50.0, 129.0, 1e9]) as usize,
            top_p: pick(&[1.0, 0.0, 0.001, 0.3, 0.813, 0.9991]),
            min_p: pick(&[0.0, 0.0, 0.0503, 0.71]),
            repetition_penalty: pick(&[1.0, 1.05, 1.7, 0.8]),
            presence_penalty: pick(&[0.0, 1.5, -0.7]),
            frequency_penalty: pick(&[0.0, 0.4, -1.3]),
            seed: None,
        };
        let prompt = [0, 2, 2, 5, 100_000];
        let mut sampler = Sampler::new(&settings, case, &prompt);
        let mut random = ChaCha8Rng::seed_from_u64(case);
        let mut answer = Vec::new();
        for logits in steps {
            let history = History { prompt: &prompt, answer: &answer };
            let expected = slow_sample(&logits, &settings, history, &mut random);
            let found = sampler.sample(&logits, None).id;
            assert_eq!(found, expected, "case {case}, {settings:?}, after {answer:?}");
            answer.push(found);
        }
    }
}

/// The sampler that computes where the logits lie, see [`ocellus_kernels::sampling`]. It rounds otherwise, so that about
/// one token in ten million may differ.
#[test]
fn equals_the_one_in_integers() {
    use ocellus_kernels::{Device, Tensor, sampling};
    for case in 0..400u64 {
        let mut next = noise(case + 5000);
        let n_vocabulary = [1, 2, 7, 130, 1500][case as usize % 5];
        let coarse = case % 3 == 0;
        let mut pick =
            |values: &[f32]| values[((next() + 1.0) / 2.0 * values.len() as f32) as usize % values.len()];
        let settings = Sampling {
            logit_bias: vec![(0, pick(&[0.0, 2.0])), (5, -1.0)],
            temperature: pick(&[0.0, 0.01, 0.7, 1.0, 3.0]),
            top_k: pick(&[0.0, 1.0, 3.0, 50.0, 129.0, 1e9]) as usize,
            top_p: pick(&[1.0, 0.0, 0.001, 0.3, 0.813, 0.9991]),
            min_p: pick(&[0.0, 0.0, 0.0503, 0.71]),
            repetition_penalty: pick(&[1.0, 1.05, 1.7, 0.8]),
            presence_penalty: pick(&[0.0, 1.5, -0.7]),
            frequency_penalty: pick(&[0.0, 0.4, -1.3]),
            seed: None,
        };
        let prompt = [0, 2, 2, 5, 100_000];
        let mut sampler = Sampler::new(&settings, case, &prompt);
        // The same stream, from which a number is taken only where it decided.
        let mut settled = Sampler::new(&settings, case, &prompt);
        let mut other = sampling::Sampler::new(1, n_vocabulary, &Device::cpu()).unwrap();
        other.assign(0, &settled.sequence(&prompt, &[])).unwrap();
        for step in 0..4 {
            let mut logit = || if coarse { (next() * 4.0).round() } else { next() * 8.0 };
            let logits: Vec<f32> = (0..n_vocabulary).map(|_| logit()).collect();
            // In the last step, every third token.
            let words: Option<Vec<u32>> =
                (step == 3).then(|| (0..n_vocabulary.div_ceil(32)).map(|_| 0x4924_9249).collect());
            let expected = match &words {
                None => sampler.sample(&logits, None).id,
                Some(words) => {
                    let allowed = |id: u32| words[id as usize / 32] >> (id % 32) & 1 != 0;
                    sampler.sample_allowed(&logits, None, allowed).id
                }
            };
            let number = settled.next_number();
            let row = sampling::Row { slot: 0, number, allowed: words.as_deref() };
            let logits = Tensor::from_f32(logits, &[1, n_vocabulary], &Device::cpu()).unwrap();
            let found = other.choose(&logits, &[row]).unwrap()[0];
            assert_eq!(found.id, expected, "case {case}, step {step}, {settings:?}");
            settled.settle(found);
            assert_eq!(settled.next_number(), sampler.next_number(), "case {case}, step {step}");
            assert_eq!(settled.seen, sampler.seen, "case {case}, step {step}");
        }
    }
}

/// Draws often, starting anew each time, and compares with the probabilities; those that are 0 have to stay
/// 0.
fn check_distribution(settings: Sampling, logits: &[f32], expected: &[f64]) {
    const DRAWS: usize = 20_000;
    let mut sampler = Sampler::new(&settings, 7, &[]);
    let mut counts = vec![0; logits.len()];
    for _ in 0..DRAWS {
        sampler.seen.clear();
        counts[sampler.sample(logits, None).id as usize] += 1;
    }
    for (id, (count, probability)) in counts.iter().zip(expected).enumerate() {
        let mean = probability * DRAWS as f64;
        // Five standard deviations of a binomial count: one honest run in a million fails, and seeds are
        // fixed.
        let tolerance = 5.0 * (mean * (1.0 - probability)).sqrt();
        assert!(
            (*count as f64 - mean).abs() <= tolerance,
            "token {id}: {count} of {DRAWS}, expected {mean}, {settings:?}"
        );
    }
}

#[test]
fn draws_with_the_right_probabilities() {
    let warm = Sampling { temperature: 1.0, ..Sampling::default() };
    let logits: Vec<f32> = [0.5f32, 0.25, 0.15, 0.1].map(f32::ln).into();
    check_distribution(warm.clone(), &logits, &[0.5, 0.25, 0.15, 0.1]);
    // Temperature 0.5 squares the probabilities: 0.25, 0.0625, 0.0225, 0.01 of 0.345.
    check_distribution(
        Sampling { temperature: 0.5, ..warm.clone() },
        &logits,
        &[0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345],
    );
    check_distribution(Sampling { temperature: f32::INFINITY, ..warm.clone() }, &logits, &[0.25; 4]);
    check_distribution(Sampling { top_k: 2, ..warm.clone() }, &logits, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
    // 0.5 + 0.25 + 0.15 reaches 0.76, 0.5 + 0.25 doesn't.
    check_distribution(
        Sampling { top_p: 0.76, ..warm.clone() },
        &logits,
        &[0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0],
    );
    // Top-p counts what top-k left: 0.5 of 0.75 is less than 0.7.
    check_distribution(
        Sampling { top_k: 2, top_p: 0.7, ..warm.clone() },
        &logits,
        &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0],
    );
    check_distribution(Sampling { min_p: 0.4, ..warm.clone() }, &logits, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
    check_distribution(Sampling { min_p: 2.0, ..warm.clone() }, &logits, &[1.0, 0.0, 0.0, 0.0]);
    // Among equals the lower ids stay.
    check_distribution(Sampling { top_k: 2, ..warm }, &[0.0; 4], &[0.5, 0.5, 0.0, 0.0]);
}

fn greedy(logits: &[f32]) -> u32 {
    Sampler::new(&Sampling::default(), 0, &[]).sample(logits, None).id
}

#[test]
fn greedy_takes_the_first_of_the_likeliest() {
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    let tables: [(&[f32], u32); 9] = [
        (&[], 0),
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
        assert_eq!(greedy(logits), expected, "{logits:?}");
        for temperature in [0.9e-5, -1.0, NAN] {
            let settings = Sampling { temperature, ..Sampling::default() };
            assert_eq!(Sampler::new(&settings, 0, &[]).sample(logits, None).id, expected, "{logits:?}");
        }
    }
}

#[test]
fn survives_any_logits_and_settings() {
    let odd = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        0.0,
        -1.0,
        0.5,
        1.0,
        f32::MIN_POSITIVE,
    ];
    use proptest::sample::Index;
    proptest::proptest!(|(picks: Vec<Index>, settings: [Index; 6], top_k in 0..20usize)| {
        let logits: Vec<f32> = picks.iter().map(|pick| *pick.get(&odd)).collect();
        let [temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty] =
            settings.map(|pick| *pick.get(&odd));
        let settings = Sampling {
            logit_bias: Vec::new(),
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            seed: None,
        };
        let mut sampler = Sampler::new(&settings, 1, &[0, 3, u32::MAX]);
        for _ in 0..3 {
            let choice = sampler.sample(&logits, Some(top_k));
            assert!((choice.id as usize) < logits.len().max(1));
            let logprobs = choice.logprobs.unwrap();
            assert!(!logprobs.chosen.is_nan() && logprobs.top.iter().all(|(_, logprob)| !logprob.is_nan()));
        }
    });
}

#[test]
fn never_draws_the_impossible() {
    let logits = [f32::NEG_INFINITY, 0.0, f32::NAN, -1000.0, f32::NEG_INFINITY];
    let warm = Sampling { temperature: 2.0, ..Sampling::default() };
    for settings in [warm.clone(), Sampling { top_p: 0.999, ..warm.clone() }, Sampling { top_k: 4, ..warm }] {
        check_distribution(settings, &logits, &[0.0, 1.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn penalties_bend_the_greedy_choice() {
    let logits = [3.0, 2.5, -1.0];
    let check = |settings: Sampling, prompt: &[u32], expected: [u32; 4]| {
        let mut sampler = Sampler::new(&settings, 0, prompt);
        assert_eq!([(); 4].map(|()| sampler.sample(&logits, None).id), expected, "{settings:?}");
    };
    let neutral = Sampling::default();
    check(neutral.clone(), &[0], [0, 0, 0, 0]);
    // The repetition penalty counts the prompt and doesn't grow: 3 / 1.5 = 2, then 2.5 / 1.5.
    check(Sampling { repetition_penalty: 1.5, ..neutral.clone() }, &[0], [1, 0, 0, 0]);
    check(Sampling { repetition_penalty: 1.5, ..neutral.clone() }, &[], [0, 1, 0, 0]);
    // Negative logits are multiplied: -1 stays the smallest.
    check(Sampling { repetition_penalty: 100.0, ..neutral.clone() }, &[], [0, 1, 0, 0]);
    // Presence counts the answer alone and once, frequency each time.
    check(Sampling { presence_penalty: 1.0, ..neutral.clone() }, &[0], [0, 1, 0, 0]);
    check(Sampling { frequency_penalty: 0.6, ..neutral.clone() }, &[0], [0, 1, 0, 1]);
    check(Sampling { frequency_penalty: -5.0, ..neutral }, &[1], [0, 0, 0, 0]);
}

#[test]
fn penalties_change_logits_as_defined() {
    let settings = Sampling {
        logit_bias: Vec::new(),
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(&settings, 0, &[0, 1, 2]);
    sampler.seen.extend([(2, 1), (3, 2), (9, 1)]);
    let mut logits = [0.25, -0.25, 4.0, -1.0, 8.0];
    sampler.penalize(&mut logits);
    // In the prompt: halved or doubled. In the answer also less 0.5 and 0.25 for each time.
    assert_eq!(logits, [0.125, -0.5, 2.0 - 0.75, -2.0 - 1.0, 8.0]);
}

#[test]
fn the_seed_decides() {
    let settings = Sampling { temperature: 1.0, ..Sampling::default() };
    let draw = |seed: u64| {
        let mut sampler = Sampler::new(&settings, seed, &[]);
        [(); 6].map(|()| sampler.sample(&[0.0; 1000], None).id)
    };
    assert_eq!(draw(1234), draw(1234));
    assert_ne!(draw(1234), draw(1235));
    // These must not change with a release: a seed is a promise to the user.
    assert_eq!(draw(1234), [386, 996, 596, 316, 150, 345]);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let logits: Vec<f32> = [0.1f32, 0.6, 0.3].map(|probability| probability.ln() + 5.0).into();
    // Penalties, temperature and cuts change the choice, not what is told about it.
    let settings = Sampling {
        logit_bias: Vec::new(),
        temperature: 0.3,
        top_k: 1,
        presence_penalty: 2.0,
        repetition_penalty: 3.0,
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(&settings, 0, &[1]);
    let choice = sampler.sample(&logits, Some(2));
    assert_eq!(choice.id, 2);
    let logprobs = choice.logprobs.unwrap();
    let close = |found: f32, expected: f32| (found - expected.ln()).abs() < 1e-6;
    assert!(close(logprobs.chosen, 0.3), "{logprobs:?}");
    let [first, second] = logprobs.top[..] else { panic!("{logprobs:?}") };
    assert!(first.0 == 1 && close(first.1, 0.6) && second.0 == 2 && close(second.1, 0.3), "{logprobs:?}");
    assert_eq!(sampler.sample(&logits, Some(0)).logprobs.unwrap().top, []);
    assert_eq!(sampler.sample(&logits, None).logprobs, None);
    assert_eq!(sampler.sample(&logits, Some(99)).logprobs.unwrap().top.len(), 3);
}

#[test]
fn biases_come_first() {
    let sampled = |logit_bias: &[(u32, f32)], logits: &[f32], sampling: Sampling| {
        let sampling = Sampling { logit_bias: logit_bias.to_vec(), ..sampling };
        Sampler::new(&sampling, 0, &[1]).sample(logits, Some(1))
    };
    let greedy = Sampling::default;
    assert_eq!(sampled(&[], &[1.0, 2.0, 3.0], greedy()).id, 2);
    assert_eq!(sampled(&[(0, 2.5)], &[1.0, 2.0, 3.0], greedy()).id, 0);
    assert_eq!(sampled(&[(2, -100.0), (7, 100.0)], &[1.0, 2.0, 3.0], greedy()).id, 1);
    // A positive sum is divided, although the logit alone is negative and would be multiplied.
    let penalized = Sampling { repetition_penalty: 10.0, ..greedy() };
    assert_eq!(sampled(&[(1, 9.0)], &[0.7, -1.0, 0.5], penalized.clone()).id, 1);
    assert_eq!(sampled(&[(1, 6.0)], &[0.7, -1.0, 0.5], penalized).id, 0);
    // Top-k is looked for after the bias, and log-probabilities are the model's own.
    let top = Sampling { temperature: 1.0, top_k: 1, ..greedy() };
    let choice = sampled(&[(0, 50.0)], &[0.0, 0.0, 9.0], top);
    assert_eq!(choice.id, 0);
    assert_eq!(choice.logprobs.unwrap().top[0].0, 2);
}

#[test]
fn what_is_not_allowed_never_comes() {
    let settings = [
        Sampling::default(),
        Sampling { temperature: 1.5, ..Sampling::default() },
        Sampling { temperature: 1.0, top_k: 2, top_p: 0.5, min_p: 0.9, ..Sampling::default() },
        Sampling { repetition_penalty: 1.3, logit_bias: vec![(3, 100.0)], ..Sampling::default() },
    ];
    let allowed = |id: u32| id == 1 || id == 4;
    for sampling in settings {
        let mut sampler = Sampler::new(&sampling, 3, &[]);
        for _ in 0..20 {
            let choice = sampler.sample_allowed(&[9.0, 0.5, 9.0, 8.0, 0.4], None, allowed);
            assert!(allowed(choice.id), "{sampling:?} chose {}", choice.id);
        }
        // Also when the model finds everything that is allowed impossible.
        let logits = [1.0, f32::NEG_INFINITY, 1.0, f32::NAN, f32::NAN];
        assert_eq!(sampler.sample_allowed(&logits, None, allowed).id, 1, "{sampling:?}");
    }
}
