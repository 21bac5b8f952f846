//! The tower's sizes and the preprocessing constants, read from the checkpoint's own files.

use ocellus_weights::fields::{FieldError, Fields};

use crate::{Geometry, geometry::CHANNELS, patches::Normalization};

/// Sizes of the vision tower, from `vision_config` in `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Blocks.
    pub depth: usize,
    /// Features of a patch between blocks.
    pub hidden_size: usize,
    /// Features inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Features of an image embedding: the decoder's hidden size.
    pub out_hidden_size: usize,
    /// The side of a window, in pixels.
    pub window_size: usize,
    /// Blocks that attend to the whole picture; all others attend within windows.
    pub full_attention_blocks: Vec<usize>,
    /// Steps of the time position per second of a clip.
    pub tokens_per_second: usize,
    /// Patches: side, frames, and how many are merged into a token.
    pub geometry: Geometry,
}

impl Config {
    /// Reads the whole `config.json`.
    ///
    /// # Errors
    /// [`FieldError`] naming the first field that is missing or nonsense.
    pub fn from_fields(config: &Fields) -> Result<Self, FieldError> {
        let vision =
            config.object("vision_config")?.ok_or_else(|| config.error("vision_config", "an object"))?;
        let channels_name = if vision.has("in_chans") { "in_chans" } else { "in_channels" };
        vision.integer_or(channels_name, CHANNELS, CHANNELS..=CHANNELS)?;
        if vision.text("hidden_act")?.is_some_and(|act| act != "silu") {
            return Err(vision.error("hidden_act", "\"silu\""));
        }
        let depth = vision.integer("depth", 1..=1024)?;
        let hidden_size = vision.integer("hidden_size", 4..=65_536)?;
        let num_heads = vision.integer("num_heads", 1..=1024)?;
        if !hidden_size.is_multiple_of(num_heads) || !(hidden_size / num_heads).is_multiple_of(4) {
            return Err(vision.error(
                "num_heads",
                &format!("to divide hidden_size {hidden_size} into heads of a multiple of 4"),
            ));
        }
        let geometry = Geometry {
            patch_size: vision.integer_or("patch_size", 14, 1..=256)?,
            merge_size: vision.integer_or("spatial_merge_size", 2, 1..=16)?,
            temporal_patch_size: vision.integer_or("temporal_patch_size", 2, 1..=16)?,
        };
        let window_size = vision.integer_or("window_size", 112, 1..=65_536)?;
        if window_size / geometry.merge_size / geometry.patch_size == 0 {
            return Err(vision.error("window_size", &format!("at least {} pixels", geometry.factor())));
        }
        let full_attention_blocks = vision
            .integers("fullatt_block_indexes", 0..=depth - 1)?
            .ok_or_else(|| vision.error("fullatt_block_indexes", "a list of block numbers"))?;
        Ok(Self {
            depth,
            hidden_size,
            intermediate_size: vision.integer("intermediate_size", 1..=262_144)?,
            num_heads,
            out_hidden_size: vision.integer("out_hidden_size", 1..=65_536)?,
            window_size,
            full_attention_blocks,
            // The library's own default for configs that do not say.
            tokens_per_second: vision.integer_or("tokens_per_second", 4, 1..=1000)?,
            geometry,
        })
    }

    /// The width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }
}

/// Reads mean and deviation of the colours from `preprocessor_config.json`, and checks that its patch sizes
/// are those of the tower.
///
/// # Errors
/// [`FieldError`] naming the first field that is missing or nonsense.
pub fn normalization(preprocessor: &Fields, geometry: &Geometry) -> Result<Normalization, FieldError> {
    for (name, size) in [
        ("patch_size", geometry.patch_size),
        ("merge_size", geometry.merge_size),
        ("temporal_patch_size", geometry.temporal_patch_size),
    ] {
        if preprocessor.integer_or(name, size, 1..=256)? != size {
            return Err(preprocessor.error(name, &format!("{size} as vision_config in config.json says")));
        }
    }
    let constants = |name, smallest, default: [f64; 3]| {
        preprocessor
            .three_numbers(name, smallest..=1e3)
            .map(|values| values.unwrap_or(default).map(|value| value as f32))
    };
    Ok(Normalization {
        mean: constants("image_mean", -1e3, [0.481_454_66, 0.457_827_5, 0.408_210_73])?,
        std: constants("image_std", 1e-6, [0.268_629_54, 0.261_302_58, 0.275_777_11])?,
    })
}
