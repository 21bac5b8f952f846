//! The language model: prompts at once, and tokens one after another, behind prompts of some length and for several
//! sequences together.

use std::path::Path;

use anyhow::{Result, ensure};
use ocellus_decoder::{Batch, Config, Decoder, KvCache, Sequence};
use ocellus_kernels::{Device, peak::Limit};
use serde_json::{Value, json};

use crate::{
    Column, Limits, Progress, Report, Spread, Table,
    format::{self, WeightFormat},
    model, random,
    spread::timed_on,
};

/// What is measured of prompts.
#[derive(Clone, Debug)]
pub struct PrefillOptions {
    /// Where to compute: `auto`, or a device's name.
    pub device: String,
    /// How weights are held.
    pub weights: WeightFormat,
    /// Lengths of prompts, in tokens.
    pub tokens: Vec<usize>,
    /// Tokens that are computed at a time.
    pub chunk: usize,
    /// How often each prompt is computed, after one short one that does not count.
    pub repetitions: usize,
}

/// What is measured of decoding.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// Where to compute: `auto`, or a device's name.
    pub device: String,
    /// How weights are held.
    pub weights: WeightFormat,
    /// Tokens that each sequence has before the first measured one.
    pub depths: Vec<usize>,
    /// How many sequences are decoded at once.
    pub sequences: Vec<usize>,
    /// Steps that are measured, after one that does not count.
    pub steps: usize,
}

const PREFILL_COLUMNS: &[Column] = &[
    Column::new("tokens", "tokens"),
    Column::new("time_ms", "ms"),
    Column::new("p10_ms", "p10"),
    Column::new("p90_ms", "p90"),
    Column::new("tokens_per_s", "tokens/s"),
    Column::new("gflop_per_s", "GFLOP/s"),
    Column::new("percent_of_limit", "% of limit"),
    Column::new("repetitions", "n"),
];

const DECODE_COLUMNS: &[Column] = &[
    Column::new("depth", "depth"),
    Column::new("sequences", "sequences"),
    Column::new("time_ms", "ms/step"),
    Column::new("p10_ms", "p10"),
    Column::new("p90_ms", "p90"),
    Column::new("tokens_per_s", "tokens/s"),
    Column::new("gb_per_s", "GB/s"),
    Column::new("read_gb_per_s", "read GB/s"),
    Column::new("percent_of_read", "% of read"),
    Column::new("steps", "n"),
];

/// Tokens in a block of the cache, as the engine has them.
const BLOCK_SIZE: usize = 16;

/// Computes prompts of random tokens with the decoder in `folder`.
///
/// # Errors
/// When the model can't be loaded or has no room for such a prompt.
pub fn prefill(
    folder: &Path,
    options: &PrefillOptions,
    limits: &Limits,
    progress: &Progress<'_>,
) -> Result<Report> {
    ensure!(options.chunk > 0, "prompts are computed 0 tokens at a time, expected 1 at least");
    progress("loading the decoder");
    let model::Loaded { part: decoder, weights, device } =
        model::decoder(folder, &options.device, options.weights)?;
    let limit = format::limit(weights);
    let mut table = Table::new("prefill of one sequence", PREFILL_COLUMNS);
    for (i, &tokens) in options.tokens.iter().enumerate() {
        let mut seconds = Vec::new();
        if i == 0 {
            // The first pass takes memory that the others find.
            Batches::new(&decoder, 1, tokens)?.append(tokens.min(32), options.chunk)?;
        }
        for repetition in 0..options.repetitions {
            progress(&format!("prefill of {tokens} tokens, {repetition} of {}", options.repetitions));
            let mut batches = Batches::new(&decoder, 1, tokens)?;
            seconds.push(timed_on(&device, || batches.append(tokens, options.chunk))?.0);
        }
        let spread = Spread::of(seconds);
        let per_second = spread.rate(prefill_operations(decoder.config(), tokens)).median;
        let [time, p10, p90] = spread.scaled(1e3).cells();
        table.push([
            json!(tokens),
            time,
            p10,
            p90,
            json!(spread.rate(tokens as f64).median),
            json!(per_second / 1e9),
            limits.percent(limit, per_second),
            json!(spread.n),
        ]);
    }
    let conditions = vec![
        ("weights", json!(weights.to_string())),
        ("chunk", json!(options.chunk)),
        ("caches", json!("as the chunk before has left them; weights are larger than any")),
        (
            "operations",
            json!(format!(
                "linear layers, causal attention, logits of the last token; of the last layer what these and the cache \
                 take; limit {limit}"
            )),
        ),
    ];
    Ok(Report { bench: "prefill", conditions, limits: Some(limits.clone()), tables: vec![table] })
}

/// Decodes random tokens with the decoder in `folder`: one step computes one token of each sequence, with its logits.
///
/// # Errors
/// When the model can't be loaded or has no room for such sequences.
pub fn decode(
    folder: &Path,
    options: &DecodeOptions,
    limits: &Limits,
    progress: &Progress<'_>,
) -> Result<Report> {
    const CHUNK: usize = 512;
    progress("loading the decoder");
    let model::Loaded { part: decoder, device, weights } =
        model::decoder(folder, &options.device, options.weights)?;
    let config = decoder.config();
    let between = limits.reads_between()?;
    let mut table = Table::new("decoding, one token of each sequence a step", DECODE_COLUMNS);
    let mut rows = Vec::new();
    for (i, &sequences) in options.sequences.iter().enumerate() {
        ensure!(sequences > 0, "0 sequences are decoded at once, expected 1 at least");
        let mut all = Vec::new();
        for &depth in &options.depths {
            progress(&format!("prefill of {sequences} x {depth} tokens"));
            let mut batches = Batches::new(&decoder, sequences, depth + options.steps + 1)?;
            batches.append(depth, CHUNK)?;
            all.push((depth, batches, Steps::default()));
        }
        device.synchronize()?;
        // Depths take turns, so that what comes and goes on the machine meets them alike.
        let mut before = between.read();
        for step in 0..=options.steps {
            for (depth, batches, steps) in &mut all {
                progress(&format!("decoding {sequences} at depth {depth}, {step} of {}", options.steps));
                let (time, ()) = timed_on(&device, || batches.step())?;
                let after = between.read();
                if step > 0 {
                    steps.seconds.push(time);
                    steps.reads.extend(before.zip(after).map(|(before, after)| (before + after) / 2.0));
                }
                before = after;
            }
        }
        for (j, (depth, _, steps)) in all.into_iter().enumerate() {
            let keys = depth as f64 + 1.0 + options.steps as f64 / 2.0;
            let bytes = decode_bytes(config, weights, &device, keys * sequences as f64)?;
            let share = steps.share_of_reads(bytes);
            let spread = Spread::of(steps.seconds);
            let per_second = spread.rate(bytes).median;
            let [time, p10, p90] = spread.scaled(1e3).cells();
            let row = [
                json!(depth),
                json!(sequences),
                time,
                p10,
                p90,
                json!(spread.rate(sequences as f64).median),
                json!(per_second / 1e9),
                (!steps.reads.is_empty()).then(|| Spread::of(steps.reads).median / 1e9).into(),
                share.map_or_else(|| limits.percent(Limit::Read, per_second), |share| json!(100.0 * share)),
                json!(spread.n),
            ];
            rows.push(((j, i), row));
        }
    }
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().for_each(|(_, row)| table.push(row));
    let conditions: Vec<(&'static str, Value)> = vec![
        ("weights", json!(weights.to_string())),
        ("tokens", json!("random; sampling is not counted")),
        (
            "caches",
            json!(
                "as the step before, or what was read after it, has left them; weights are larger than any"
            ),
        ),
        (
            "% of read",
            json!("on the processor the median of each step's share of what was read before and after it"),
        ),
        ("bytes", json!("all weights of the linear layers once, keys and values of all sequences once")),
    ];
    Ok(Report { bench: "decode", conditions, limits: Some(limits.clone()), tables: vec![table] })
}

/// Steps of one kind.
#[derive(Default)]
struct Steps {
    seconds: Vec<f64>,
    /// For each step what memory gave on both sides of it, in bytes a second; none when nothing was read.
    reads: Vec<f64>,
}

impl Steps {
    /// The median of each step's rate as a share of what memory gave beside it. `None` when nothing was read.
    fn share_of_reads(&self, bytes: f64) -> Option<f64> {
        let share = |(seconds, read): (&f64, &f64)| bytes / seconds / read;
        let shares: Vec<f64> = self.seconds.iter().zip(&self.reads).map(share).collect();
        (!shares.is_empty()).then(|| Spread::of(shares).median)
    }
}

/// Sequences of equal length that grow together.
pub struct Batches<'d> {
    decoder: &'d Decoder,
    cache: KvCache,
    blocks: Vec<Vec<u32>>,
    tokens: usize,
}

impl<'d> Batches<'d> {
    /// Empty sequences that may become `most` tokens long.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn new(decoder: &'d Decoder, sequences: usize, most: usize) -> Result<Self> {
        let each = most.div_ceil(BLOCK_SIZE).max(1);
        let cache = decoder.new_cache(each * sequences, BLOCK_SIZE)?;
        let blocks =
            (0..sequences).map(|i| (0..each).map(|block| (i * each + block) as u32).collect()).collect();
        Ok(Self { decoder, cache, blocks, tokens: 0 })
    }

    /// Makes each sequence longer by `tokens` random ones, `chunk` at a time, one sequence after another. Logits are
    /// computed for the last token of each.
    ///
    /// # Errors
    /// When they become longer than they may.
    pub fn append(&mut self, tokens: usize, chunk: usize) -> Result<()> {
        for sequence in 0..self.blocks.len() {
            let mut done = 0;
            while done < tokens {
                let queries = chunk.min(tokens - done);
                done += queries;
                let last = (done == tokens).then_some(queries as u32 - 1);
                let start = self.tokens + done - queries;
                self.forward(sequence..sequence + 1, start, queries, last.as_slice())?;
            }
        }
        self.tokens += tokens;
        Ok(())
    }

    /// One more token of every sequence, and its logits.
    ///
    /// # Errors
    /// When they become longer than they may.
    pub fn step(&mut self) -> Result<()> {
        let all: Vec<u32> = (0..self.blocks.len() as u32).collect();
        self.forward(0..self.blocks.len(), self.tokens, 1, &all)?;
        self.tokens += 1;
        Ok(())
    }

    fn forward(
        &mut self,
        sequences: std::ops::Range<usize>,
        start: usize,
        queries: usize,
        logits_for: &[u32],
    ) -> Result<()> {
        let ids = random::ids(queries * sequences.len(), self.decoder.config().vocab_size);
        let positions: Vec<[u32; 3]> =
            sequences.clone().flat_map(|_| (start..start + queries).map(|i| [i as u32; 3])).collect();
        let keys = start + queries;
        let sequences: Vec<Sequence<'_>> =
            self.blocks[sequences].iter().map(|blocks| Sequence { queries, keys, blocks }).collect();
        let embeddings = self.decoder.embed(&ids)?;
        let batch = Batch { embeddings, positions: &positions, sequences: &sequences, logits_for };
        self.decoder.forward(&batch, &mut self.cache)?;
        Ok(())
    }
}

/// Weights of all linear layers but the one that gives the logits.
fn layer_weights(config: &Config) -> f64 {
    let (hidden, inner) = (config.hidden_size as f64, config.intermediate_size as f64);
    let q = (config.num_attention_heads * config.head_dim) as f64;
    config.num_hidden_layers as f64 * (2.0 * hidden * q + key_value_weights(config) + 3.0 * hidden * inner)
}

/// Weights of one layer that make keys and values.
fn key_value_weights(config: &Config) -> f64 {
    2.0 * (config.hidden_size * config.num_key_value_heads * config.head_dim) as f64
}

/// Weights of the layer that gives the logits.
fn head_weights(config: &Config) -> f64 {
    config.hidden_size as f64 * config.vocab_size as f64
}

/// Operations of a prompt: each token in all layers but the last, with each token before it and itself; in the last layer
/// the keys and values of each, and all that the last token's logits take.
pub fn prefill_operations(config: &Config, tokens: usize) -> f64 {
    let tokens = tokens as f64;
    let width = (config.num_attention_heads * config.head_dim) as f64;
    let pairs = tokens * (tokens + 1.0) / 2.0;
    let layers = config.num_hidden_layers as f64;
    let layer = layer_weights(config) / layers;
    let last = tokens * key_value_weights(config) + layer - key_value_weights(config);
    2.0 * (tokens * layer * (layers - 1.0) + last)
        + 4.0 * width * (pairs * (layers - 1.0) + tokens)
        + 2.0 * head_weights(config)
}

/// Bytes that one step reads: every weight once, and `keys` keys and values.
///
/// # Errors
/// When the device has no room for a small weight.
pub fn decode_bytes(config: &Config, weights: WeightFormat, device: &Device, keys: f64) -> Result<f64> {
    let row = (config.num_key_value_heads * config.head_dim * config.num_hidden_layers) as f64;
    let layers = format::bytes_per_weight(weights.layers(), device)? * layer_weights(config);
    let head = format::bytes_per_weight(weights.vocabulary(), device)? * head_weights(config);
    Ok(layers + head + keys * row * 2.0 * format::cache_element_bytes(format::precision(weights)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RandomModel, Sizes};

    /// The published 3B model has 5.55 GFLOP a token in its layers and 6.17 GB of weights in bf16, three quarters of that
    /// where they are squeezed.
    #[test]
    fn operations_and_bytes_are_those_of_the_model() {
        let config = Sizes::preset("3b").unwrap().decoder;
        let device = Device::open("auto").unwrap();
        let bytes = |weights| decode_bytes(&config, weights, &device, 0.0).unwrap();
        assert!(bytes(WeightFormat::Int4) < bytes(WeightFormat::Int8));
        assert!((2.0 * layer_weights(&config) / 1e9 - 5.55).abs() < 0.01);
        let bf16 = bytes(WeightFormat::Bf16) / 1e9;
        assert!((bf16 - 6.17).abs() < 0.01 || (4.63..4.70).contains(&bf16), "{bf16}");
        let one = prefill_operations(&config, 1);
        assert!((one / (2.0 * (layer_weights(&config) + head_weights(&config))) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn each_step_is_held_against_the_reads_beside_it() {
        // Memory slows down by half in the middle, and the steps with it.
        let steps = Steps { seconds: vec![1.0, 4.0 / 3.0, 2.0], reads: vec![20.0, 15.0, 10.0] };
        assert_eq!(steps.share_of_reads(10.0), Some(0.5));
        assert_eq!(Steps { seconds: vec![1.0], reads: Vec::new() }.share_of_reads(10.0), None);
    }

    #[test]
    fn prompts_and_depths_get_their_rows() {
        let cache = tempfile::tempdir().unwrap();
        let model = RandomModel { preset: "tiny".into(), layers: Some(2), blocks: Some(1) };
        let folder = model.write(cache.path(), &|_| {}).unwrap();
        let mut options = PrefillOptions {
            device: "auto".into(),
            weights: WeightFormat::F32,
            tokens: vec![1, 40],
            chunk: 16,
            repetitions: 2,
        };
        let report = prefill(&folder, &options, &Limits::unknown(), &|_| {}).unwrap();
        assert_eq!(report.tables[0].number(1, "tokens"), Some(40.0));
        assert!(report.tables[0].number(1, "tokens_per_s") > Some(0.0));
        options.chunk = 0;
        assert!(prefill(&folder, &options, &Limits::unknown(), &|_| {}).is_err());

        let options = DecodeOptions {
            device: "auto".into(),
            weights: WeightFormat::F32,
            depths: vec![0, 17],
            sequences: vec![1, 3],
            steps: 2,
        };
        let report = decode(&folder, &options, &Limits::unknown(), &|_| {}).unwrap();
        let rows: Vec<_> = (0..4)
            .map(|row| ["depth", "sequences"].map(|key| report.tables[0].number(row, key).unwrap() as usize))
            .collect();
        assert_eq!(rows, [[0, 1], [0, 3], [17, 1], [17, 3]]);
        let none = DecodeOptions { sequences: vec![0], ..options };
        assert!(decode(&folder, &none, &Limits::unknown(), &|_| {}).is_err());
    }
}
