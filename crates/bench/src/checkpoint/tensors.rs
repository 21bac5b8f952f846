//! The tensors of a checkpoint: their names, shapes and the spread of their values.

use std::{fmt, str::FromStr};

use anyhow::Context;

use super::{choice, config::Dimensions, generator::Spread};

/// How tensors are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As published: `visual.*`, `model.*`, `lm_head.weight`.
    Hub,
    /// As newer libraries save: `model.visual.*`, `model.language_model.*`, `lm_head.weight`.
    New,
}

/// The type that elements are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// Brain floating point, as published.
    Bf16,
    /// IEEE half precision. Values below 6e-5 lose bits.
    F16,
    /// IEEE single precision.
    F32,
}

impl Naming {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Hub, Self::New];
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hub => "hub",
            Self::New => "new",
        })
    }
}

impl FromStr for Naming {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        choice(name, &Self::ALL)
    }
}

impl StoredType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bf16, Self::F16, Self::F32];
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

impl FromStr for StoredType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        choice(name, &Self::ALL)
    }
}

/// One tensor to write.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// The name it is written under.
    pub name: String,
    /// The name that the hub uses: the values depend on it.
    pub hub_name: String,
    /// Its dimensions, row-major.
    pub shape: Vec<u64>,
    /// The product of its dimensions.
    pub elements: u64,
    /// How many elements come from the generator; the rest is zero.
    pub live_elements: u64,
    /// The spread of the values.
    pub spread: Spread,
}

impl StoredType {
    /// How safetensors headers call it.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    /// How `torch_dtype` in a config calls it.
    pub fn config_name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    /// The size of one element.
    pub fn size_in_bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Every tensor of a checkpoint of these dimensions, in the order of writing.
pub(super) fn all(d: &Dimensions, naming: Naming) -> anyhow::Result<Vec<TensorSpec>> {
    let mut tensors = Vec::new();
    let mut add = |hub_name: String, shape: &[u64]| {
        tensors.push((hub_name, shape.to_vec()));
    };
    add(
        "visual.patch_embed.proj.weight".into(),
        &[d.vision_hidden, d.channels, d.temporal_patch, d.patch, d.patch],
    );
    for layer in 0..d.vision_layers {
        let block = |name: &str| format!("visual.blocks.{layer}.{name}");
        add(block("norm1.weight"), &[d.vision_hidden]);
        add(block("norm2.weight"), &[d.vision_hidden]);
        add(block("attn.qkv.weight"), &[3 * d.vision_hidden, d.vision_hidden]);
        add(block("attn.qkv.bias"), &[3 * d.vision_hidden]);
        add(block("attn.proj.weight"), &[d.vision_hidden, d.vision_hidden]);
        add(block("attn.proj.bias"), &[d.vision_hidden]);
        for name in ["gate_proj", "up_proj"] {
            add(block(&format!("mlp.{name}.weight")), &[d.vision_intermediate, d.vision_hidden]);
            add(block(&format!("mlp.{name}.bias")), &[d.vision_intermediate]);
        }
        add(block("mlp.down_proj.weight"), &[d.vision_hidden, d.vision_intermediate]);
        add(block("mlp.down_proj.bias"), &[d.vision_hidden]);
    }
    let merged = d.vision_hidden * d.merge * d.merge;
    add("visual.merger.ln_q.weight".into(), &[d.vision_hidden]);
    add("visual.merger.mlp.0.weight".into(), &[merged, merged]);
    add("visual.merger.mlp.0.bias".into(), &[merged]);
    add("visual.merger.mlp.2.weight".into(), &[d.vision_out, merged]);
    add("visual.merger.mlp.2.bias".into(), &[d.vision_out]);

    let kv = d.kv_heads * (d.hidden / d.heads);
    add(EMBEDDING.into(), &[d.vocabulary, d.hidden]);
    for layer in 0..d.layers {
        let block = |name: &str| format!("model.layers.{layer}.{name}");
        add(block("input_layernorm.weight"), &[d.hidden]);
        add(block("post_attention_layernorm.weight"), &[d.hidden]);
        for (name, rows) in [("q_proj", d.hidden), ("k_proj", kv), ("v_proj", kv)] {
            add(block(&format!("self_attn.{name}.weight")), &[rows, d.hidden]);
            add(block(&format!("self_attn.{name}.bias")), &[rows]);
        }
        add(block("self_attn.o_proj.weight"), &[d.hidden, d.hidden]);
        add(block("mlp.gate_proj.weight"), &[d.intermediate, d.hidden]);
        add(block("mlp.up_proj.weight"), &[d.intermediate, d.hidden]);
        add(block("mlp.down_proj.weight"), &[d.hidden, d.intermediate]);
    }
    add("model.norm.weight".into(), &[d.hidden]);
    if !d.tied {
        add(HEAD.into(), &[d.vocabulary, d.hidden]);
    }
    tensors.into_iter().map(|(hub_name, shape)| spec(d, naming, hub_name, shape)).collect()
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn spec(d: &Dimensions, naming: Naming, hub_name: String, shape: Vec<u64>) -> anyhow::Result<TensorSpec> {
    let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    // Half of the limit, so that sums and products with the size of an element stay far from overflowing.
    let elements =
        elements.filter(|&n| n < 1 << 40).with_context(|| format!("{hub_name}: {shape:?} is too large"))?;
    let live_elements = match hub_name.as_str() {
        // Ids without a token get no logit: greedy decoding then never picks one.
        EMBEDDING | HEAD => d.used_rows.min(d.vocabulary) * d.hidden,
        _ => elements,
    };
    Ok(TensorSpec {
        name: match naming {
            Naming::Hub => hub_name.clone(),
            Naming::New => new_name(&hub_name),
        },
        spread: spread(&hub_name, &shape, d.hidden),
        hub_name,
        shape,
        elements,
        live_elements,
    })
}

fn new_name(hub_name: &str) -> String {
    match hub_name.split_once('.') {
        Some(("visual", rest)) => format!("model.visual.{rest}"),
        Some(("model", rest)) => format!("model.language_model.{rest}"),
        _ => hub_name.to_owned(),
    }
}

/// The standard deviation of a layer's output for inputs of unit variance. Attention is far from uniform,
/// layers outweigh the embedding in the residual stream (a tied random model would else repeat its input),
/// and nothing overflows.
const GAINS: [(&str, f64); 12] = [
    ("patch_embed.proj", 1.0),
    ("attn.qkv", 1.5),
    ("attn.proj", 1.5),
    ("q_proj", 1.6),
    ("k_proj", 1.6),
    ("v_proj", 1.2),
    ("o_proj", 1.5),
    ("gate_proj", 1.5),
    ("up_proj", 1.2),
    ("down_proj", 1.2),
    ("merger.mlp.0", 1.5),
    ("merger.mlp.2", 1.0),
];

/// The standard deviation of biases, where it is not [`OTHER_BIAS_STD`].
const BIAS_STD: [(&str, f64); 4] = [("q_proj", 0.4), ("k_proj", 0.8), ("v_proj", 0.2), ("attn.qkv", 0.4)];
const OTHER_BIAS_STD: f64 = 0.1;

/// How far the weights of norms lie from 1 at most.
const NORM_SCALE: f32 = 0.3;

/// The standard deviation of the logits.
const LOGIT_STD: f64 = 3.0;

fn spread(hub_name: &str, shape: &[u64], text_hidden: u64) -> Spread {
    if hub_name.contains("norm") || hub_name.contains("ln_q") {
        return Spread { scale: NORM_SCALE, offset: 1.0 };
    }
    let (layer, kind) = hub_name.rsplit_once('.').unwrap_or((hub_name, ""));
    let lookup =
        |table: &[(&str, f64)]| table.iter().find(|(end, _)| layer.ends_with(end)).map(|(_, value)| *value);
    let embedding_std = LOGIT_STD / (text_hidden as f64).sqrt();
    let std = match kind {
        "bias" => lookup(&BIAS_STD).unwrap_or(OTHER_BIAS_STD),
        _ if hub_name == EMBEDDING || hub_name == HEAD => embedding_std,
        _ => {
            let inputs = shape.iter().skip(1).product::<u64>();
            let std = lookup(&GAINS).expect("each linear layer has a gain") / (inputs as f64).sqrt();
            // The embeddings of pictures are as large as those of tokens.
            if layer.ends_with("merger.mlp.2") { std * embedding_std } else { std }
        }
    };
    // A uniform distribution on [-s, s) has the standard deviation s / √3.
    Spread { scale: (3f64.sqrt() * std) as f32, offset: 0.0 }
}
