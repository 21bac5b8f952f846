//! Single operations at the shapes of the published models: their time, what they move and compute in it, and which
//! share of the machine's limits that is.
//!
//! Weights, keys and values are taken in turn from so many copies that none is in a cache when its turn comes, as in a
//! model; activations are warm, as the operation before leaves them.

use anyhow::{Result, ensure};
use ocellus_kernels::{
    Device, Precision, Tensor, add, attention, embedding, gelu, kv_cache,
    linear::{self, Order, Weight},
    peak::Limit,
    rms_norm,
    rotary::{self, Multimodal, Tables},
    silu_mul,
    step::{Parts, Step},
    top_k,
};
use serde_json::{Value, json};

use crate::{
    Column, Limits, Progress, Report, Spread, Table,
    format::{self, WeightFormat},
    model::Sizes,
    random,
    spread::timed_on,
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to compute: `auto`, or a device's name.
    pub device: String,
    /// Names of published sizes, whose shapes are taken.
    pub sizes: Vec<String>,
    /// Operations of [`OPERATIONS`].
    pub operations: Vec<String>,
    /// Linear layers by name, such as `gate_proj` or `vision qkv`; without any, all of them.
    pub layers: Vec<String>,
    /// How the weights of linear layers are held.
    pub weights: Vec<WeightFormat>,
    /// Tokens, or for the vision tower patches, that are computed at once.
    pub tokens: Vec<usize>,
    /// Copies of weights, keys and values fill so many bytes together; by default four times the last-level cache.
    pub copies_bytes: Option<usize>,
    /// How often each is computed; those that take microseconds are computed more often.
    pub repetitions: usize,
}

/// The operations there are.
pub const OPERATIONS: [&str; 10] = [
    "linear",
    "varlen",
    "causal",
    "kv_cache",
    "rms_norm",
    "rotary",
    "silu_mul",
    "gelu",
    "embedding",
    "top_k",
];

const COLUMNS: &[Column] = &[
    Column::new("model", "model"),
    Column::new("operation", "operation"),
    Column::new("type", "type"),
    Column::new("shape", "shape"),
    Column::new("tokens", "tokens"),
    Column::new("time_us", "us"),
    Column::new("p10_us", "p10"),
    Column::new("p90_us", "p90"),
    Column::new("gb_per_s", "GB/s"),
    Column::new("gflop_per_s", "GFLOP/s"),
    Column::new("percent_of_read", "% of read"),
    Column::new("percent_of_limit", "% of limit"),
    Column::new("repetitions", "n"),
];

/// One operation at one shape.
pub struct Case<'a> {
    /// The model's size.
    pub model: &'a str,
    /// Which operation, and which layer where there are several.
    pub operation: String,
    /// How weights are held, or the type of the activations.
    pub stored: String,
    /// The sizes that are fixed by the model.
    pub shape: String,
    /// Tokens or patches.
    pub tokens: usize,
    /// What it moves at least, in bytes.
    pub bytes: f64,
    /// What it computes at least.
    pub operations: f64,
    /// What its operations are held against.
    pub limit: Limit,
    /// Does it once, with the next of the copies.
    pub call: Box<dyn FnMut() -> Result<()> + 'a>,
}

/// Measures everything that `options` name.
///
/// # Errors
/// When there is no such size or operation, or the device has no room.
pub fn run(options: &Options, limits: &Limits, progress: &Progress<'_>) -> Result<Report> {
    let device = Device::open(&options.device)?;
    let mut table = Table::new("single operations", COLUMNS);
    cases(options, &mut |mut case| {
        progress(&format!("{} {} {} x {}", case.model, case.operation, case.tokens, case.shape));
        let spread = time(&mut case.call, &device, options.repetitions)?;
        let (moved, computed) = (spread.rate(case.bytes).median, spread.rate(case.operations).median);
        let [time, p10, p90] = spread.scaled(1e6).cells();
        table.push([
            json!(case.model),
            json!(case.operation),
            json!(case.stored),
            json!(case.shape),
            json!(case.tokens),
            time,
            p10,
            p90,
            json!(moved / 1e9),
            if case.operations > 0.0 { json!(computed / 1e9) } else { Value::Null },
            limits.percent(Limit::Read, moved),
            if case.operations > 0.0 { limits.percent(case.limit, computed) } else { Value::Null },
            json!(spread.n),
        ]);
        Ok(())
    })?;
    let conditions = vec![
        (
            "weights, keys, values",
            json!("cold: in turn from copies that together are four times the device's last-level cache"),
        ),
        ("activations", json!("warm")),
        (
            "% of limit",
            json!("of the multiply-add that the type names; f32 for all that is not a product of weights"),
        ),
    ];
    Ok(Report { bench: "kernels", conditions, limits: Some(limits.clone()), tables: vec![table] })
}

/// Repeats a short call until some milliseconds are over, so that its spread means something. Where calls return before
/// their work is done, as many are waited for together as make the wait itself short.
fn time(call: &mut dyn FnMut() -> Result<()>, device: &Device, repetitions: usize) -> Result<Spread> {
    const LEAST_SECONDS: f64 = 0.02;
    const LEAST_TOGETHER_SECONDS: f64 = 1e-3;
    const MOST: usize = 1000;
    call()?;
    device.synchronize()?;
    let mut together = 1;
    if device.name() != Device::host().name() {
        let (one, ()) = timed_on(device, &mut *call)?;
        together = ((LEAST_TOGETHER_SECONDS / one.max(1e-6)) as usize).clamp(1, MOST);
    }
    let (mut seconds, mut sum) = (Vec::new(), 0.0);
    while seconds.len() < repetitions.max(1) || (sum < LEAST_SECONDS && seconds.len() < MOST) {
        let (time, ()) = timed_on(device, || (0..together).try_for_each(|_| call()))?;
        sum += time;
        seconds.push(time / together as f64);
    }
    Ok(Spread::of(seconds))
}

/// Makes one case after another, so that the memory of one is free before the next.
///
/// # Errors
/// As [`run`], and whatever `visit` gives.
pub fn cases(options: &Options, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
    for operation in &options.operations {
        let known = OPERATIONS.contains(&operation.as_str());
        ensure!(known, "there is no operation {operation:?}, expected one of {}", OPERATIONS.join(", "));
    }
    let device = Device::open(&options.device)?;
    for model in &options.sizes {
        let sizes = Sizes::preset(model)?;
        let shapes = Shapes { model, sizes: &sizes, device: &device, options };
        for operation in &options.operations {
            match operation.as_str() {
                "linear" => shapes.linear(visit)?,
                "varlen" => shapes.varlen(visit)?,
                "causal" => shapes.causal(visit)?,
                "kv_cache" => shapes.kv_cache(visit)?,
                "embedding" => shapes.embedding(visit)?,
                "top_k" => shapes.top_k(visit)?,
                elementwise => shapes.elementwise(elementwise, visit)?,
            }
        }
    }
    Ok(())
}

/// A linear layer of the model.
struct Layer {
    name: &'static str,
    what: Product,
    /// The outputs of each of its parts.
    parts: Vec<usize>,
    features: usize,
}

/// What a linear layer does with its sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Product {
    Plain,
    /// Adds them to the residual.
    Add,
    SwiGlu,
    /// Nothing, but its weights are held as the vocabulary's.
    Head,
}

fn name_of(precision: Precision) -> &'static str {
    match precision {
        Precision::Exact => "f32",
        Precision::Bf16 => "bf16",
    }
}

struct Shapes<'a> {
    model: &'a str,
    sizes: &'a Sizes,
    device: &'a Device,
    options: &'a Options,
}

/// The type of activations.
const ACTIVATIONS: &str = "f32";
/// Its size.
const ACTIVATION_BYTES: f64 = 4.0;
/// Tokens in a block of the cache, as the engine has them.
const BLOCK_SIZE: usize = 16;
/// How far back attention looks in decoding.
const DEPTHS: [usize; 2] = [1024, 8192];

impl Shapes<'_> {
    /// The linear layers, those that share their input as one.
    fn layers(&self) -> Vec<Layer> {
        let Sizes { decoder: d, vision: v } = self.sizes;
        let merged = v.hidden_size * v.geometry.merge_size.pow(2);
        let q = d.num_attention_heads * d.head_dim;
        let kv = d.num_key_value_heads * d.head_dim;
        let layer =
            |name, what, parts: &[usize], features| Layer { name, what, parts: parts.to_vec(), features };
        vec![
            layer("qkv_proj", Product::Plain, &[q, kv, kv], d.hidden_size),
            layer("o_proj", Product::Add, &[d.hidden_size], q),
            layer("gate_up_proj", Product::SwiGlu, &[d.intermediate_size; 2], d.hidden_size),
            layer("down_proj", Product::Add, &[d.hidden_size], d.intermediate_size),
            layer("lm_head", Product::Head, &[d.vocab_size], d.hidden_size),
            layer("vision patch_embed", Product::Plain, &[v.hidden_size], v.geometry.patch_values()),
            layer("vision qkv", Product::Plain, &[3 * v.hidden_size], v.hidden_size),
            layer("vision proj", Product::Add, &[v.hidden_size], v.hidden_size),
            layer("vision gate_up_proj", Product::SwiGlu, &[v.intermediate_size; 2], v.hidden_size),
            layer("vision down_proj", Product::Add, &[v.hidden_size], v.intermediate_size),
            layer("vision merger 0", Product::Plain, &[merged], merged),
            layer("vision merger 2", Product::Plain, &[v.out_hidden_size], merged),
        ]
    }

    fn linear(&self, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
        let wanted = |layer: &Layer| {
            self.options.layers.is_empty() || self.options.layers.iter().any(|l| l == layer.name)
        };
        for layer in self.layers().into_iter().filter(wanted) {
            let Layer { name, what, ref parts, features } = layer;
            let out: usize = parts.iter().sum();
            for &weights in &self.options.weights {
                let format = match what {
                    Product::Head => weights.vocabulary(),
                    _ if name.starts_with("vision") => weights.tower_layers(),
                    _ => weights.layers(),
                };
                let bytes = format::bytes_per_weight(format, self.device)? * (out * features) as f64;
                let order = if what == Product::SwiGlu { Order::Interleaved } else { Order::Stacked };
                let copies: Vec<Weight> = (0..self.copies(bytes))
                    .map(|_| format::random_weight(parts, features, order, format, self.device))
                    .collect::<Result<_>>()?;
                for &tokens in &self.options.tokens {
                    let x = random::tensor(&[tokens, features], self.device)?;
                    let mut residual = Some(Tensor::zeros(&[tokens, out], self.device)?);
                    let mut copies = copies.iter().cycle();
                    let written = if what == Product::SwiGlu { out / 2 } else { out };
                    visit(Case {
                        model: self.model,
                        operation: format!("linear {name}"),
                        stored: weights.to_string(),
                        shape: format!("{out}x{features}"),
                        tokens,
                        bytes: bytes + ACTIVATION_BYTES * (tokens * (features + written)) as f64,
                        operations: 2.0 * (tokens * out * features) as f64,
                        limit: format::limit(weights),
                        call: Box::new(move || {
                            let Some(weight) = copies.next() else { return Ok(()) };
                            match (what, residual.take()) {
                                (Product::SwiGlu, _) => {
                                    linear::swiglu(&x, weight, None)?;
                                }
                                (Product::Add, Some(sum)) => {
                                    residual = Some(linear::forward_add(&x, weight, None, sum)?);
                                }
                                _ => {
                                    linear::forward(&x, weight, None)?;
                                }
                            }
                            Ok(())
                        }),
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The arithmetics between weights of the formats that are wanted, each once.
    fn precisions(&self) -> Vec<Precision> {
        let mut precisions: Vec<Precision> =
            self.options.weights.iter().map(|&w| format::precision(w)).collect();
        precisions.dedup();
        precisions
    }

    /// Attention of the vision tower, rotation included: within windows of 64 patches, and within the whole picture.
    fn varlen(&self, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
        const WINDOW: usize = 64;
        let (heads, head_dim) = (self.sizes.vision.num_heads, self.sizes.vision.head_dim());
        let scale = (head_dim as f32).sqrt().recip();
        for precision in self.precisions() {
            for &patches in &self.options.tokens {
                for length in [WINDOW.min(patches), patches] {
                    let mut lengths = vec![length; patches / length.max(1)];
                    lengths.extend((!patches.is_multiple_of(length.max(1))).then(|| patches % length));
                    let qkv = random::tensor(&[patches, 3 * heads * head_dim], self.device)?;
                    let tables = self.tables(false, patches)?;
                    let pairs = lengths.iter().map(|n| n * n).sum::<usize>();
                    let segments = attention::Segments::new(&lengths, self.device)?;
                    visit(Case {
                        operation: format!("attention in segments of {length}"),
                        stored: name_of(precision).into(),
                        operations: (4 * pairs * heads * head_dim) as f64,
                        limit: format::precision_limit(precision),
                        call: Box::new(move || {
                            let rotated = attention::Rotated { qkv: &qkv, tables: &tables, heads };
                            attention::varlen_rotated(rotated, &segments, scale, precision)?;
                            Ok(())
                        }),
                        ..self.plain(patches, format!("{heads}x{head_dim}"), 4 * heads * head_dim)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Attention of the decoder: a prompt over itself, and one token over all that came before.
    fn causal(&self, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
        for precision in self.precisions() {
            for &tokens in self.options.tokens.iter().filter(|&&tokens| tokens > 1) {
                let mut paged = Paged::new(self, tokens, 1, precision)?;
                let q = random::tensor(&[tokens, paged.heads, paged.head_dim], self.device)?;
                let pairs = tokens * (tokens + 1) / 2;
                visit(Case {
                    operation: "attention of a prompt".into(),
                    operations: (4 * pairs * paged.heads * paged.head_dim) as f64,
                    call: Box::new(move || paged.attend(&q, tokens)),
                    ..self.causal_case(tokens, tokens, precision)
                })?;
            }
            for keys in DEPTHS {
                let copies = self.copies(self.cache_row(precision) * keys as f64);
                let mut paged = Paged::new(self, keys, copies, precision)?;
                let q = random::tensor(&[1, paged.heads, paged.head_dim], self.device)?;
                visit(Case {
                    operation: format!("attention of one token at {keys}"),
                    operations: (4 * keys * paged.heads * paged.head_dim) as f64,
                    call: Box::new(move || paged.attend(&q, 1)),
                    ..self.causal_case(1, keys, precision)
                })?;
            }
        }
        Ok(())
    }

    fn causal_case(&self, tokens: usize, keys: usize, precision: Precision) -> Case<'_> {
        let d = &self.sizes.decoder;
        let shape = format!("{}/{}x{}", d.num_attention_heads, d.num_key_value_heads, d.head_dim);
        let case = self.plain(tokens, shape, 2 * d.num_attention_heads * d.head_dim);
        let bytes = case.bytes + self.cache_row(precision) * keys as f64;
        Case { bytes, stored: name_of(precision).into(), limit: format::precision_limit(precision), ..case }
    }

    /// Bytes of one token's keys and values.
    fn cache_row(&self, precision: Precision) -> f64 {
        let d = &self.sizes.decoder;
        2.0 * format::cache_element_bytes(precision) * (d.num_key_value_heads * d.head_dim) as f64
    }

    /// Queries and keys rotated, keys and values written.
    fn kv_cache(&self, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
        let d = &self.sizes.decoder;
        let (heads, kv_heads, head_dim) = (d.num_attention_heads, d.num_key_value_heads, d.head_dim);
        for precision in self.precisions() {
            for &tokens in &self.options.tokens {
                let mut paged = Paged::new(self, tokens, 1, precision)?;
                let qkv = random::tensor(&[tokens, (heads + 2 * kv_heads) * head_dim], self.device)?;
                let tables = self.tables(true, tokens)?;
                let case = self.plain(
                    tokens,
                    format!("{heads}/{kv_heads}x{head_dim}"),
                    2 * (heads + kv_heads) * head_dim,
                );
                visit(Case {
                    operation: "rotary, kv_cache write".into(),
                    stored: name_of(precision).into(),
                    bytes: case.bytes + self.cache_row(precision) * tokens as f64,
                    call: Box::new(move || paged.rotate_and_write(&qkv, &tables)),
                    ..case
                })?;
            }
        }
        Ok(())
    }

    fn embedding(&self, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
        let (rows, dim) = (self.sizes.decoder.vocab_size, self.sizes.decoder.hidden_size);
        for &weights in &self.options.weights {
            let format = weights.vocabulary();
            let table = format::random_weight(&[rows], dim, Order::Stacked, format, self.device)?;
            let row_bytes = (format::bytes_per_weight(format, self.device)? + ACTIVATION_BYTES) * dim as f64;
            for &tokens in &self.options.tokens {
                let table = &table;
                visit(Case {
                    operation: "embedding".into(),
                    stored: weights.to_string(),
                    bytes: row_bytes * tokens as f64,
                    operations: 0.0,
                    call: Box::new(move || {
                        // Other rows each time: the table is far larger than the caches.
                        embedding::forward(table, &random::ids(tokens, rows))?;
                        Ok(())
                    }),
                    ..self.plain(tokens, format!("{rows}x{dim}"), dim)
                })?;
            }
        }
        Ok(())
    }

    fn top_k(&self, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
        let columns = self.sizes.decoder.vocab_size;
        for k in [1, 20] {
            let x = random::tensor(&[1, columns], self.device)?;
            visit(Case {
                operation: format!("top_k {k}"),
                operations: 0.0,
                call: Box::new(move || {
                    top_k::forward(&x, k)?;
                    Ok(())
                }),
                ..self.plain(1, columns.to_string(), columns)
            })?;
        }
        Ok(())
    }

    /// Operations on each element or row of activations, in the decoder and in the tower.
    fn elementwise(&self, operation: &str, visit: &mut dyn FnMut(Case<'_>) -> Result<()>) -> Result<()> {
        let Sizes { decoder: d, vision: v } = self.sizes;
        for &tokens in &self.options.tokens {
            for (part, hidden, inner) in
                [("", d.hidden_size, d.intermediate_size), ("vision ", v.hidden_size, v.intermediate_size)]
            {
                let wide = part.is_empty();
                let name = format!("{part}{operation}");
                let case = |width: usize, moved: usize| Case {
                    operation: name.clone(),
                    ..self.plain(tokens, width.to_string(), moved * width)
                };
                match operation {
                    "rms_norm" => {
                        let [x, y, _] = self.tensors(&[tokens, hidden])?;
                        let [weight, ..] = self.tensors(&[hidden])?;
                        let call = move || {
                            // The residual is added just before.
                            rms_norm::forward(&add::forward(&x, &y)?, &weight, 1e-6)?;
                            Ok(())
                        };
                        let name = format!("{part}add, rms_norm");
                        visit(Case { operation: name, call: Box::new(call), ..case(hidden, 3) })?;
                    }
                    "rotary" => {
                        let (heads, head_dim) = if wide {
                            (d.num_attention_heads, d.head_dim)
                        } else {
                            (v.num_heads, v.head_dim())
                        };
                        let tables = self.tables(wide, tokens)?;
                        let x = random::tensor(&[tokens, heads, head_dim], self.device)?;
                        let call = move || {
                            rotary::forward(&x, &tables)?;
                            Ok(())
                        };
                        visit(Case { call: Box::new(call), ..case(heads * head_dim, 2) })?;
                    }
                    "silu_mul" => {
                        let [gate, up, _] = self.tensors(&[tokens, inner])?;
                        let call = move || {
                            silu_mul::forward(&gate, &up)?;
                            Ok(())
                        };
                        visit(Case { call: Box::new(call), ..case(inner, 3) })?;
                    }
                    // Only the tower's merger has it.
                    "gelu" if !wide => {
                        let width = hidden * v.geometry.merge_size.pow(2);
                        let x = random::tensor(&[tokens, width], self.device)?;
                        let call = move || {
                            gelu::forward(&x)?;
                            Ok(())
                        };
                        visit(Case { call: Box::new(call), ..case(width, 2) })?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn tables(&self, of_decoder: bool, tokens: usize) -> Result<Tables> {
        let Sizes { decoder: d, vision: v } = self.sizes;
        if of_decoder {
            let positions: Vec<[u32; 3]> = (0..tokens as u32).map(|i| [i; 3]).collect();
            let rope = Multimodal { head_dim: d.head_dim, theta: d.rope_theta, sections: &d.mrope_section };
            return Ok(Tables::multimodal(&positions, rope, self.device)?);
        }
        let positions: Vec<[u32; 2]> = (0..tokens as u32).map(|i| [i / 32, i % 32]).collect();
        Ok(Tables::spatial(&positions, v.head_dim(), 10_000.0, self.device)?)
    }

    /// How many copies of something of `bytes` bytes it takes so that none is in a cache when its turn comes again.
    fn copies(&self, bytes: f64) -> usize {
        const CACHE_BYTES: usize = 32 << 20;
        let four_caches = || 4 * self.device.cache_bytes().unwrap_or(CACHE_BYTES);
        let together = self.options.copies_bytes.unwrap_or_else(four_caches);
        (together as f64 / bytes.max(1.0)).ceil().clamp(1.0, 4096.0) as usize
    }

    fn tensors(&self, shape: &[usize]) -> Result<[Tensor; 3]> {
        let tensor = || random::tensor(shape, self.device);
        Ok([tensor()?, tensor()?, tensor()?])
    }

    /// A case that reads and writes `elements` activations for each token, and does nothing yet.
    fn plain(&self, tokens: usize, shape: String, elements: usize) -> Case<'_> {
        Case {
            model: self.model,
            operation: String::new(),
            stored: ACTIVATIONS.into(),
            shape,
            tokens,
            bytes: ACTIVATION_BYTES * (tokens * elements) as f64,
            operations: 0.0,
            limit: Limit::F32,
            call: Box::new(|| Ok(())),
        }
    }
}

/// Sequences of keys and values that are taken in turn.
struct Paged {
    layer: kv_cache::Layer,
    /// The blocks of each sequence.
    sequences: Vec<Vec<u32>>,
    turn: usize,
    keys: usize,
    heads: usize,
    head_dim: usize,
}

impl Paged {
    fn new(shapes: &Shapes<'_>, keys: usize, sequences: usize, precision: Precision) -> Result<Self> {
        let d = &shapes.sizes.decoder;
        let each = keys.div_ceil(BLOCK_SIZE).max(1);
        let shape = kv_cache::Shape {
            blocks: each * sequences,
            block_size: BLOCK_SIZE,
            kv_heads: d.num_key_value_heads,
            head_dim: d.head_dim,
            precision,
        };
        let blocks = |i: usize| (0..each).map(|block| (i * each + block) as u32).collect();
        let mut paged = Self {
            layer: kv_cache::Layer::new(shape, shapes.device)?,
            sequences: (0..sequences).map(blocks).collect(),
            turn: 0,
            keys,
            heads: d.num_attention_heads,
            head_dim: d.head_dim,
        };
        let [k, v, _] = shapes.tensors(&[keys, d.num_key_value_heads, d.head_dim])?;
        for _ in 0..sequences {
            paged.write(&k, &v)?;
        }
        Ok(paged)
    }

    fn next(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.sequences.len().max(1);
        self.turn
    }

    fn write(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        let turn = self.next();
        let slots = self.layer.slots_of(&self.sequences[turn], 0..self.keys)?;
        Ok(kv_cache::write(&mut self.layer, k, v, &slots)?)
    }

    fn rotate_and_write(&mut self, qkv: &Tensor, tables: &Tables) -> Result<()> {
        let turn = self.next();
        self.with_step(turn, self.keys, |layer, step| {
            kv_cache::rotate_and_write(layer, qkv, tables, step)?;
            Ok(())
        })
    }

    fn attend(&mut self, q: &Tensor, queries: usize) -> Result<()> {
        let (turn, scale) = (self.next(), (self.head_dim as f32).sqrt().recip());
        self.with_step(turn, queries, |layer, step| {
            attention::causal(q, layer, step, scale)?;
            Ok(())
        })
    }

    /// Calls `compute` with the step of the newest `queries` tokens of a sequence.
    fn with_step(
        &mut self,
        sequence: usize,
        queries: usize,
        compute: impl FnOnce(&mut kv_cache::Layer, &Step<'_>) -> Result<()>,
    ) -> Result<()> {
        let blocks = &self.sequences[sequence];
        let slots = self.layer.slots_of(blocks, self.keys - queries..self.keys)?;
        let sections = [self.head_dim / 2, 0, 0];
        let parts = Parts {
            sequences: &[attention::Sequence { queries, keys: self.keys, blocks }],
            slots: &slots,
            positions: &vec![[0; 3]; queries],
            rope: Multimodal { head_dim: self.head_dim, theta: 1e6, sections: &sections },
            heads: self.heads,
        };
        let step = Step::new(parts, &self.layer)?;
        compute(&mut self.layer, &step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_rows() {
        for operation in OPERATIONS {
            let options = Options {
                device: "auto".into(),
                sizes: vec!["nano".into()],
                operations: vec![operation.into()],
                layers: Vec::new(),
                weights: format::FORMATS.to_vec(),
                tokens: vec![1, 70],
                copies_bytes: Some(1 << 16),
                repetitions: 1,
            };
            let mut n = 0;
            cases(&options, &mut |mut case| {
                n += 1;
                assert!(case.bytes > 0.0, "{}", case.operation);
                (case.call)()
            })
            .unwrap();
            assert!(n >= 2, "{operation}: {n}");
        }
    }

    #[test]
    fn unknown_operations_are_refused() {
        let options = Options {
            device: "auto".into(),
            sizes: vec!["nano".into()],
            operations: vec!["linear".into(), "magic".into()],
            layers: Vec::new(),
            weights: Vec::new(),
            tokens: vec![1],
            copies_bytes: None,
            repetitions: 1,
        };
        let error = run(&options, &Limits::unknown(), &|_| {}).unwrap_err().to_string();
        assert!(error.starts_with("there is no operation \"magic\", expected one of linear, "), "{error}");
    }
}
