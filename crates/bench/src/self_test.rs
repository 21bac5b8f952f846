//! A device against the processor's reference: every operation alone, and whole models whose stages are computed once in
//! the device's types and once exactly, from the same inputs.

use anyhow::{Context, Result};
use ocellus_decoder::{Batch, Decoder, Formats, Sequence};
use ocellus_kernels::{
    Device, Tensor,
    self_test::{self, Outcome},
};
use ocellus_vision_encoder::{Config, Tower};
use ocellus_weights::{Checkpoint, Source, fields::Fields};

use crate::{WeightFormat, random, vision};

/// What is tested.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides all inputs.
    pub seed: u64,
    /// How often each operation's cases are repeated.
    pub rounds: usize,
    /// Whether single operations are tested.
    pub operations: bool,
    /// Whether a model is.
    pub model: bool,
    /// Whether what computes much is left out, for devices that are only emulated.
    pub short: bool,
}

/// What came of one subject.
#[derive(Clone, Debug)]
pub struct Line {
    /// An operation, or a stage of a model.
    pub subject: String,
    /// How many cases there were.
    pub cases: usize,
    /// How many numbers were compared.
    pub numbers: usize,
    /// How many kernels were launched, where that is counted.
    pub kernels: Option<usize>,
    /// The largest difference as a part of what is allowed, and that.
    pub difference: Option<(f32, f32)>,
    /// How much may differ and why.
    pub tolerance: String,
    /// What does not hold.
    pub faults: Vec<String>,
}

/// The device that a user names.
///
/// # Errors
/// When it can't be had.
pub fn open(name: &str) -> Result<Device> {
    Ok(Device::open(name)?)
}

/// Tests `device`, with the model in `source`, and tells `done` of each subject.
///
/// # Errors
/// When the processor's side fails, which says nothing of the device, or `source` holds no model.
pub fn run(
    device: &Device,
    source: &Source,
    options: &Options,
    done: &mut dyn FnMut(&Line),
) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    if options.operations {
        let chosen = self_test::Options { seed: options.seed, rounds: options.rounds, short: options.short };
        self_test::run(device, chosen, &mut |outcome| {
            let line = Line::from(outcome);
            done(&line);
            lines.push(line);
        })?;
    }
    if options.model {
        // Twice: on memory that shows mistakes, and on that which is used again from step to step.
        for (device, how) in
            [(self_test::guarded(device), "guarded memory"), (device.clone(), "its own memory")]
        {
            for line in model(&device, source, options.seed, how)? {
                done(&line);
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

/// Tokens of the two sequences that the decoder computes; the rest of each comes one by one.
const PROMPTS: [usize; 2] = [37, 50];
const STEPS: usize = 6;
/// Tokens in a block of the cache, as the engine has them.
const BLOCK: usize = 16;

fn model(device: &Device, source: &Source, seed: u64, how: &str) -> Result<Vec<Line>> {
    let text = source.read_text("config.json")?.context("the model has no config.json")?;
    let fields = Fields::parse("config.json", &text)?;
    let config = ocellus_decoder::Config::from_fields(&fields)?;
    let vision = Config::from_fields(&fields)?;
    let checkpoint = Checkpoint::open(source)?;

    let load = |device: &Device, format: WeightFormat| -> Result<Decoder> {
        let formats = Formats { layers: format.layers(), vocabulary: format.vocabulary() };
        Ok(Decoder::load(&checkpoint.loader(device), &config, formats, device)?)
    };
    let exact = load(&Device::host(), WeightFormat::F32)?;
    let expected = forced(&exact, seed)?;
    let depth = config.num_hidden_layers;
    let decoder = load(device, WeightFormat::Bf16).and_then(|decoder| forced(&decoder, seed));
    let mut lines = vec![compare(&format!("decoder's logits, {how}"), decoder, &expected, depth)];

    let load = |device: &Device, format: WeightFormat| -> Result<Tower> {
        let loader = checkpoint.loader(device);
        let scope = loader.scope_any(&["model.visual", "visual"])?.with_format(format.tower_layers());
        Ok(Tower::load(&scope, &vision, device)?)
    };
    let side = vision.geometry.factor();
    // Windows that are not full on both sides, and two pictures at once.
    let pictures = [vision::draw(9 * side, 5 * side, &vision)?, vision::draw(side, 2 * side, &vision)?];
    let both = [&pictures[0], &pictures[1]];
    let encode = |tower: Tower| Ok(vec![tower.forward(&both)?.to_f32_vec()?]);
    let expected = encode(load(&Device::host(), WeightFormat::F32)?)?;
    let found = load(device, WeightFormat::Bf16).and_then(encode);
    lines.push(compare(&format!("vision tower's embeddings, {how}"), found, &expected, vision.depth));
    Ok(lines)
}

/// The logits of every token of two sequences of random tokens: prompts in two parts, then steps of one token of each,
/// with blocks in disorder.
fn forced(decoder: &Decoder, seed: u64) -> Result<Vec<Vec<f32>>> {
    let vocabulary = decoder.config().vocab_size;
    let lengths = PROMPTS.map(|prompt| prompt + STEPS);
    let tokens = lengths.map(|length| {
        let mut numbers = random::Xorshift::new(seed ^ length as u64);
        (0..length).map(|_| (numbers.next() % vocabulary as u64) as u32).collect::<Vec<_>>()
    });
    let blocks = lengths.map(|length| length.div_ceil(BLOCK) as u32);
    let all = blocks.iter().sum::<u32>();
    // One sequence has the even blocks from the end, the other one what is left.
    let mut free: Vec<u32> =
        (0..all).rev().filter(|i| i % 2 == 0).chain((0..all).filter(|i| i % 2 == 1)).collect();
    let owned = blocks.map(|n| free.split_off(free.len() - n as usize));
    let mut cache = decoder.new_cache(all as usize, BLOCK)?;
    let mut logits = Vec::new();
    let mut step = |starts: [usize; 2], counts: [usize; 2]| -> Result<()> {
        let parts = || starts.into_iter().zip(counts).enumerate();
        let ids: Vec<u32> =
            parts().flat_map(|(i, (start, n))| tokens[i][start..start + n].iter().copied()).collect();
        let positions: Vec<[u32; 3]> =
            parts().flat_map(|(_, (start, n))| (start..start + n).map(|i| [i as u32; 3])).collect();
        let sequences: Vec<Sequence<'_>> = parts()
            .map(|(i, (start, n))| Sequence { queries: n, keys: start + n, blocks: &owned[i] })
            .collect();
        let logits_for: Vec<u32> = (0..ids.len() as u32).collect();
        let embeddings = decoder.embed(&ids)?;
        let batch =
            Batch { embeddings, positions: &positions, sequences: &sequences, logits_for: &logits_for };
        let found: Tensor = decoder.forward(&batch, &mut cache)?;
        logits.extend(found.to_f32_vec()?.chunks_exact(vocabulary).map(<[f32]>::to_vec));
        Ok(())
    };
    let first = PROMPTS.map(|n| n / 3);
    step([0, 0], first)?;
    step(first, [PROMPTS[0] - first[0], PROMPTS[1] - first[1]])?;
    for i in 0..STEPS {
        step(PROMPTS.map(|n| n + i), [1, 1])?;
    }
    Ok(logits)
}

/// Holds vectors against the exact ones by the length of their difference: single numbers of a vector say little, as
/// each is the sum of all of the layer before.
fn compare(subject: &str, found: Result<Vec<Vec<f32>>>, expected: &[Vec<f32>], depth: usize) -> Line {
    let allowed = allowed(depth);
    let mut line = Line {
        subject: subject.to_owned(),
        cases: expected.len(),
        numbers: expected.iter().map(Vec::len).sum(),
        kernels: None,
        difference: None,
        tolerance: format!(
            "length of the difference to that of the vector: 8 times what {depth} layers of 8 roundings to bf16 give at random"
        ),
        faults: Vec::new(),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            line.faults.push(format!("{subject}: {error:#}"));
            return line;
        }
    };
    if found.len() != expected.len() {
        line.faults.push(format!("{subject}: {} vectors, expected {}", found.len(), expected.len()));
    }
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = distance(found, expected);
        // NaN is within nothing.
        if (apart.is_nan() || apart > allowed) && line.faults.len() < 8 {
            line.faults
                .push(format!("{subject}: vector {i} is {apart:.4} apart, expected at most {allowed:.4}"));
        }
        if line.difference.is_none_or(|(worst, _)| apart.is_nan() || apart > worst) {
            line.difference = Some((apart, allowed));
        }
    }
    line
}

/// A rounding to bf16 is off by up to 2⁻⁸ of a number, in the root of the mean square by 2⁻⁹·⁵; errors of layers add up
/// like a random walk. Eight times that, because a vector of which most has cancelled is short, and its error is not: the
/// processor, on the built-in model, had up to five times that with a dozen seeds.
fn allowed(depth: usize) -> f32 {
    8.0 * 2f32.powf(-9.5) * (8.0 * (depth as f32 + 1.0)).sqrt()
}

fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let square =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
    let apart = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let missing = if found.len() == expected.len() { 0.0 } else { f64::INFINITY };
    ((apart + missing) / square(&mut expected.iter().copied()).max(1e-30)).sqrt() as f32
}

impl From<&Outcome> for Line {
    fn from(outcome: &Outcome) -> Self {
        Self {
            subject: outcome.operation.to_owned(),
            cases: outcome.cases,
            numbers: outcome.numbers,
            kernels: outcome.kernels,
            difference: outcome.worst.as_ref().map(|worst| (worst.difference, worst.allowed)),
            tolerance: outcome.tolerance.to_owned(),
            faults: outcome.faults.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RandomModel;

    #[test]
    fn a_model_on_the_processor_passes() {
        let cache = tempfile::tempdir().unwrap();
        let model = RandomModel { preset: "nano".into(), layers: None, blocks: None };
        let source = Source::folder(model.write(cache.path(), &|_| {}).unwrap());
        let options = Options { seed: 3, rounds: 1, operations: false, model: true, short: true };
        let lines = run(&Device::host(), &source, &options, &mut |_| {}).unwrap();
        assert_eq!(lines.len(), 4);
        for line in lines {
            assert_eq!(line.faults, [""; 0]);
            // It is not exact, and not far from what was foreseen either: a tolerance that nothing comes near to proves
            // nothing.
            let (found, allowed) = line.difference.unwrap();
            assert!(found > 0.02 * allowed && found < allowed, "{}: {found} of {allowed}", line.subject);
        }
    }

    #[test]
    fn vectors_that_differ_are_found() {
        let expected = [vec![3.0, 4.0], vec![1.0, 0.0]];
        let check = |found: Vec<Vec<f32>>| compare("test", Ok(found), &expected, 4).faults.len();
        assert_eq!(check(expected.to_vec()), 0);
        assert_eq!(check(vec![vec![3.0, 4.5], vec![1.0, 0.0]]), 1);
        assert_eq!(check(vec![vec![3.0, f32::NAN], vec![1.0]]), 2);
        assert_eq!(check(vec![vec![3.0, 4.0]]), 1);
        let failed = compare("test", Err(anyhow::anyhow!("no room")), &expected, 4);
        assert_eq!(failed.faults, ["test: no room"]);
        assert!((distance(&[3.0, 4.5], &[3.0, 4.0]) - 0.1).abs() < 1e-6);
    }
}
