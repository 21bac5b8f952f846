//! `config.json` and its companions: what is read from them, and the layouts they are written in.

use std::{fmt, str::FromStr};

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::{StoredType, choice};

/// The configs of all sizes, smallest first. 3b to 72b have the dimensions of the published models.
pub const PRESETS: [(&str, &str); 7] = [
    ("nano", include_str!("../../../../models/nano/config.json")),
    ("tiny", include_str!("../../../../models/tiny/config.json")),
    ("small", include_str!("../../../../models/small/config.json")),
    ("3b", include_str!("../../../../models/3b/config.json")),
    ("7b", include_str!("../../../../models/7b/config.json")),
    ("32b", include_str!("../../../../models/32b/config.json")),
    ("72b", include_str!("../../../../models/72b/config.json")),
];

/// How pictures are prepared, the same for all sizes.
pub(super) const PREPROCESSOR_CONFIG: &str = include_str!("../../../../models/preprocessor_config.json");

/// How answers are generated, with the token ids of the full vocabulary and of the nano one.
const GENERATION_CONFIGS: [&str; 2] = [
    include_str!("../../../../models/generation_config.json"),
    include_str!("../../../../models/nano/generation_config.json"),
];

/// The tokens of the official tokenizers that follow `bos_token_id`: the added ones.
const ADDED_TOKENS: u64 = 22;

/// Where the fields of the text model stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigLayout {
    /// At the top level, as published.
    Flat,
    /// In `text_config`, with `rope_theta` and a `rope_scaling` of type "default", as transformers 4.52 to
    /// 4.57 save.
    Nested,
    /// In `text_config`, with both in `rope_parameters`, as transformers 5 saves.
    RopeParameters,
}

impl ConfigLayout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flat, Self::Nested, Self::RopeParameters];
}

impl fmt::Display for ConfigLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "flat",
            Self::Nested => "nested",
            Self::RopeParameters => "rope-parameters",
        })
    }
}

impl FromStr for ConfigLayout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        choice(name, &Self::ALL)
    }
}

/// The sizes that decide names and shapes of tensors.
#[derive(Clone, Debug)]
pub(super) struct Dimensions {
    pub(super) hidden: u64,
    pub(super) intermediate: u64,
    pub(super) layers: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) vocabulary: u64,
    pub(super) tied: bool,
    /// Ids below this have a token.
    pub(super) used_rows: u64,
    pub(super) vision_hidden: u64,
    pub(super) vision_intermediate: u64,
    pub(super) vision_layers: u64,
    pub(super) vision_out: u64,
    pub(super) channels: u64,
    pub(super) patch: u64,
    pub(super) temporal_patch: u64,
    pub(super) merge: u64,
}

impl Dimensions {
    /// Reads them from a config in any layout.
    pub(super) fn read(config: &Value) -> anyhow::Result<Self> {
        let text = flat(config)?;
        let vision =
            text.get("vision_config").and_then(Value::as_object).context("config.json: no vision_config")?;
        let vocabulary = size(&text, "vocab_size", 1 << 20)?;
        let channels = if vision.contains_key("in_chans") { "in_chans" } else { "in_channels" };
        let dimensions = Self {
            hidden: size(&text, "hidden_size", 1 << 20)?,
            intermediate: size(&text, "intermediate_size", 1 << 20)?,
            layers: size(&text, "num_hidden_layers", 1 << 12)?,
            heads: size(&text, "num_attention_heads", 1 << 12)?,
            kv_heads: size(&text, "num_key_value_heads", 1 << 12)?,
            vocabulary,
            tied: text.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            used_rows: text
                .get("bos_token_id")
                .and_then(Value::as_u64)
                .map_or(vocabulary, |id| id.saturating_add(ADDED_TOKENS)),
            vision_hidden: size(vision, "hidden_size", 1 << 20)?,
            vision_intermediate: size(vision, "intermediate_size", 1 << 20)?,
            vision_layers: size(vision, "depth", 1 << 12)?,
            vision_out: size(vision, "out_hidden_size", 1 << 20)?,
            channels: size(vision, channels, 1 << 8)?,
            patch: size(vision, "patch_size", 1 << 8)?,
            temporal_patch: size(vision, "temporal_patch_size", 1 << 8)?,
            merge: size(vision, "spatial_merge_size", 1 << 8)?,
        };
        let (hidden, heads) = (dimensions.hidden, dimensions.heads);
        ensure!(
            hidden % heads == 0,
            "config.json: hidden_size {hidden}, expected a multiple of its {heads} heads"
        );
        Ok(dimensions)
    }
}

/// The text of `config.json` in `layout` and with the stored type in it; unchanged where nothing changes.
pub(super) fn rewritten(
    text: &str,
    config: &Value,
    layout: Option<ConfigLayout>,
    stored_type: StoredType,
) -> anyhow::Result<String> {
    let stored_type = stored_type.config_name();
    let named_type = config.get("torch_dtype").or_else(|| config.get("dtype")).and_then(Value::as_str);
    if layout.is_none() && named_type == Some(stored_type) {
        return Ok(text.to_owned());
    }
    let Some(layout) = layout else {
        let mut config = config.clone();
        let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        config[key] = stored_type.into();
        return pretty(&config);
    };
    let mut fields = flat(config)?;
    fields.shift_remove("dtype");
    fields.insert("torch_dtype".into(), stored_type.into());
    match layout {
        ConfigLayout::Flat => pretty(&fields.into()),
        ConfigLayout::Nested => pretty(&nested(fields, false)?),
        ConfigLayout::RopeParameters => pretty(&nested(fields, true)?),
    }
}

/// `generation_config.json` with the token ids of this config.
pub(super) fn generation_config(config: &Value) -> anyhow::Result<String> {
    let fields = flat(config)?;
    let (Some(bos), Some(eos)) = (fields.get("bos_token_id"), fields.get("eos_token_id")) else {
        return Ok(GENERATION_CONFIGS[0].to_owned());
    };
    let ids =
        [("bos_token_id", bos.clone()), ("pad_token_id", bos.clone()), ("eos_token_id", json!([eos, bos]))];
    let mut first = None;
    for text in GENERATION_CONFIGS {
        let known: Value = serde_json::from_str(text).context("generation_config.json")?;
        if ids.iter().all(|(key, id)| known.get(key) == Some(id)) {
            return Ok(text.to_owned());
        }
        first.get_or_insert(known);
    }
    let mut changed = first.context("there is a generation_config.json")?;
    for (key, id) in ids {
        changed[key] = id;
    }
    pretty(&changed)
}

/// JSON as libraries write it to files: indented by two, with a newline at the end.
pub(super) fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// The fields of a config in any layout, in the flat one.
fn flat(config: &Value) -> anyhow::Result<Map<String, Value>> {
    let mut fields = config.as_object().context("config.json: expected an object")?.clone();
    if let Some(Value::Object(text)) = fields.shift_remove("text_config") {
        for (key, value) in text {
            if key != "model_type" {
                fields.insert(key, value);
            }
        }
    }
    if let Some(Value::Object(mut rope)) = fields.shift_remove("rope_parameters") {
        if let Some(theta) = rope.shift_remove("rope_theta") {
            fields.insert("rope_theta".into(), theta);
        }
        rope.shift_remove("rope_type");
        rope.insert("type".into(), "mrope".into());
        fields.insert("rope_scaling".into(), rope.into());
    }
    Ok(fields)
}

/// Moves the fields of the text model from the top level into `text_config`.
fn nested(fields: Map<String, Value>, rope_parameters: bool) -> anyhow::Result<Value> {
    const TOP_LEVEL: [&str; 11] = [
        "architectures",
        "model_type",
        "torch_dtype",
        "transformers_version",
        "tie_word_embeddings",
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "vision_token_id",
        "vision_config",
    ];
    let (mut top, mut text) = (Map::new(), Map::new());
    for (key, value) in fields {
        let part = if TOP_LEVEL.contains(&key.as_str()) { &mut top } else { &mut text };
        part.insert(key, value);
    }
    text.insert("model_type".into(), "qwen2_5_vl_text".into());
    let sections = text.get("rope_scaling").and_then(|rope| rope.get("mrope_section")).cloned();
    let sections = sections.context("config.json: no rope_scaling.mrope_section")?;
    if rope_parameters {
        let theta = text.shift_remove("rope_theta").context("config.json: no rope_theta")?;
        text.shift_remove("rope_scaling");
        text.insert(
            "rope_parameters".into(),
            json!({"mrope_section": sections, "rope_theta": theta, "rope_type": "default", "type": "mrope"}),
        );
        if let Some(stored_type) = top.shift_remove("torch_dtype") {
            text.insert("dtype".into(), stored_type.clone());
            top.insert("dtype".into(), stored_type);
        }
    } else {
        text.insert(
            "rope_scaling".into(),
            json!({"mrope_section": sections, "rope_type": "default", "type": "default"}),
        );
        if let Some(tied) = top.get("tie_word_embeddings") {
            text.insert("tie_word_embeddings".into(), tied.clone());
        }
    }
    if let Some(Value::Object(vision)) = top.get_mut("vision_config") {
        vision.insert("model_type".into(), "qwen2_5_vl".into());
        if let Some(channels) = vision.get("in_chans").cloned() {
            vision.insert("in_channels".into(), channels);
        }
    }
    top.insert("text_config".into(), text.into());
    Ok(top.into())
}

fn size(fields: &Map<String, Value>, key: &str, largest: u64) -> anyhow::Result<u64> {
    let value = fields.get(key).with_context(|| format!("config.json: no {key}"))?;
    let size = value.as_u64().filter(|size| (1..=largest).contains(size));
    size.with_context(|| format!("config.json: {key} {value}, expected a number from 1 to {largest}"))
}
