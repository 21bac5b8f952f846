//! The decoder's sizes, read from `config.json` in its flat (hub) or nested (`text_config`) form.

use ocellus_weights::fields::{FieldError, Fields};

/// Sizes and constants of the language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Rows of the embedding table; ids past the tokenizer's last one are padding.
    pub vocab_size: usize,
    /// Features of a token between layers.
    pub hidden_size: usize,
    /// Features inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Heads of keys and values, shared by groups of query heads.
    pub num_key_value_heads: usize,
    /// The width of a head.
    pub head_dim: usize,
    /// Added to the mean square before the root.
    pub rms_norm_eps: f32,
    /// The base of the rotary wave lengths.
    pub rope_theta: f32,
    /// How many frequencies follow time, height and width.
    pub mrope_section: [usize; 3],
    /// Whether the output layer is the embedding table.
    pub tie_word_embeddings: bool,
    /// The longest sequence that the model was made for, in tokens.
    pub max_position_embeddings: usize,
}

impl Config {
    /// Reads the whole `config.json`.
    ///
    /// # Errors
    /// [`FieldError`] naming the first field that is missing or nonsense.
    pub fn from_fields(config: &Fields) -> Result<Self, FieldError> {
        if config.text("model_type")?.is_some_and(|name| name != "qwen2_5_vl") {
            return Err(config.error("model_type", "\"qwen2_5_vl\""));
        }
        let nested = config.object("text_config")?;
        let text = nested.as_ref().unwrap_or(config);
        if text.text("hidden_act")?.is_some_and(|act| act != "silu") {
            return Err(text.error("hidden_act", "\"silu\""));
        }
        if text.boolean_or("use_sliding_window", false)? {
            return Err(text.error("use_sliding_window", "false: sliding windows are not supported"));
        }
        let hidden_size = text.integer("hidden_size", 1..=65_536)?;
        let num_attention_heads = text.integer("num_attention_heads", 1..=1024)?;
        if !text.has("head_dim") && !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(text.error("num_attention_heads", &format!("a divisor of hidden_size {hidden_size}")));
        }
        let num_key_value_heads = text.integer_or("num_key_value_heads", num_attention_heads, 1..=1024)?;
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let expected = format!("a divisor of num_attention_heads {num_attention_heads}");
            return Err(text.error("num_key_value_heads", &expected));
        }
        let head_dim = text.integer_or("head_dim", hidden_size / num_attention_heads, 2..=1024)?;
        // Newer files keep all rotary settings together; the nested and the outer object may both have them.
        let rope = match text.object("rope_parameters")? {
            Some(rope) => rope,
            None => text
                .object("rope_scaling")?
                .ok_or_else(|| text.error("rope_scaling", "an object with mrope_section"))?,
        };
        // A stretched table of frequencies would make other numbers: refused rather than ignored.
        let kind_name = if rope.has("rope_type") { "rope_type" } else { "type" };
        if rope.text(kind_name)?.is_some_and(|kind| !matches!(kind, "mrope" | "default")) {
            return Err(
                rope.error(kind_name, "\"mrope\" or \"default\": no other rotary scaling is supported")
            );
        }
        let theta_owner = if rope.has("rope_theta") { &rope } else { text };
        let tie_owner = if config.has("tie_word_embeddings") { config } else { text };
        Ok(Self {
            vocab_size: text.integer("vocab_size", 1..=4_194_304)?,
            hidden_size,
            intermediate_size: text.integer("intermediate_size", 1..=1_048_576)?,
            num_hidden_layers: text.integer("num_hidden_layers", 1..=1024)?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: text.number_or("rms_norm_eps", 1e-6, 1e-12..=1.0)? as f32,
            rope_theta: theta_owner.number_or("rope_theta", 1_000_000.0, 1.0..=1e12)? as f32,
            mrope_section: mrope_section(&rope, head_dim)?,
            tie_word_embeddings: tie_owner.boolean_or("tie_word_embeddings", false)?,
            max_position_embeddings: text.integer_or("max_position_embeddings", 32_768, 2..=16_777_216)?,
        })
    }
}

fn mrope_section(rope: &Fields, head_dim: usize) -> Result<[usize; 3], FieldError> {
    let half = head_dim / 2;
    rope.integers("mrope_section", 0..=half)?
        .and_then(|sections| <[usize; 3]>::try_from(sections).ok())
        .filter(|sections| sections.iter().sum::<usize>() == half && head_dim.is_multiple_of(2))
        .ok_or_else(|| {
            rope.error(
                "mrope_section",
                &format!("three numbers with sum {half}, half of head_dim {head_dim}"),
            )
        })
}
