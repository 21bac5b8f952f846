//! Writes checkpoints with random weights, of every size, in the official layout.
//!
//! A [`Recipe`] says which config, how tensors are named and stored, and from which seed the values come.
//! The values are a pure function of the seed, the name and the position, so the very same checkpoint can be
//! made on any machine, without a network and without another language, by anyone who reads
//! [`generator`]; the goldens were computed from checkpoints made by such a twin.
//!
//! A random model says nothing sensible, but every layer of it matters to each number it gives: scales are
//! chosen so that attention is far from uniform and no activation dies or explodes.

pub mod config;
pub mod generator;
mod tensors;
mod tokenizer;
mod writer;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub use config::{ConfigLayout, PRESETS};
pub use tensors::{Naming, StoredType, TensorSpec};
pub use tokenizer::Tokenizer;

/// The seed of the checkpoints that belong to the goldens.
pub const DEFAULT_SEED: u64 = 20250726;

/// What to write. Take one from [`Recipe::preset`] or [`Recipe::from_config`] and change its fields.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The text of `config.json`, in either layout.
    pub config: String,
    /// The layout to write the config in; `None` keeps the text as it is.
    pub config_layout: Option<ConfigLayout>,
    /// The names of the tensors. They do not change the values.
    pub naming: Naming,
    /// The type that elements are stored in. Values are those of bf16, widened where the type is wider.
    pub stored_type: StoredType,
    /// Where the values come from.
    pub seed: u64,
    /// How weights are split into files.
    pub files: Files,
    /// The tokenizer that is put beside the weights.
    pub tokenizer: Tokenizer,
}

/// How weights are split into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Files of 4 GB, or of 60 % of the whole when that has less than 1 GB, so that there are always several.
    Several,
    /// Files of at most so many bytes, or of one tensor if that is larger.
    OfBytes(u64),
    /// One `model.safetensors`, without an index.
    One,
}

/// What a recipe amounts to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The files in order, each with its tensors in the order of their bytes.
    pub files: Vec<PlannedFile>,
    /// The number of weights.
    pub parameters: u64,
    /// The size of all weights, in bytes.
    pub bytes: u64,
}

/// One file of weights.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// Its name.
    pub name: String,
    /// Its tensors in the order of their bytes.
    pub tensors: Vec<TensorSpec>,
}

impl Recipe {
    /// The recipe for one of [`PRESETS`].
    ///
    /// # Errors
    /// When there is no such preset; the message lists them.
    pub fn preset(name: &str) -> Result<Self> {
        let known = || PRESETS.map(|(name, _)| name).join(", ");
        let preset = PRESETS.into_iter().find(|(preset, _)| *preset == name);
        let (_, config) =
            preset.with_context(|| format!("no preset is called {name:?}; there are {}", known()))?;
        let tokenizer = if name == "nano" { Tokenizer::Nano } else { Tokenizer::Absent };
        Ok(Self { tokenizer, ..Self::from_config(config) })
    }

    /// The recipe for any `config.json`, with the official tensor names in bf16 and no tokenizer.
    pub fn from_config(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            config_layout: None,
            naming: Naming::Hub,
            stored_type: StoredType::Bf16,
            seed: DEFAULT_SEED,
            files: Files::Several,
            tokenizer: Tokenizer::Absent,
        }
    }

    /// The same recipe with a changed config.
    ///
    /// # Errors
    /// When the config is not JSON.
    pub fn edit_config(mut self, edit: impl FnOnce(&mut Value)) -> Result<Self> {
        let mut config = serde_json::from_str(&self.config).context("config.json")?;
        edit(&mut config);
        self.config = config::pretty(&config)?;
        Ok(self)
    }

    /// Which tensors go into which file.
    ///
    /// # Errors
    /// When the config is not JSON, lacks a size, or has one that can't be.
    pub fn plan(&self) -> Result<Plan> {
        let config = serde_json::from_str(&self.config).context("config.json")?;
        let dimensions = config::Dimensions::read(&config)?;
        let tensors = tensors::all(&dimensions, self.naming)?;
        let element_bytes = self.stored_type.size_in_bytes() as u64;
        let parameters = tensors.iter().map(|tensor| tensor.elements).sum::<u64>();
        let bytes =
            parameters.checked_mul(element_bytes).context("the config describes too large a model")?;
        let limit = match self.files {
            Files::Several if bytes > 1_000_000_000 => 4_000_000_000,
            Files::Several => bytes * 6 / 10,
            Files::OfBytes(limit) => limit,
            Files::One => u64::MAX,
        };
        let mut shards: Vec<Vec<TensorSpec>> = vec![Vec::new()];
        let mut size = 0;
        for tensor in tensors {
            let tensor_bytes = tensor.elements * element_bytes;
            if shards.last().is_some_and(|shard| !shard.is_empty()) && size + tensor_bytes > limit {
                shards.push(Vec::new());
                size = 0;
            }
            size += tensor_bytes;
            shards.last_mut().expect("there is always a shard").push(tensor);
        }
        let count = shards.len();
        let file_name = |position: usize| match self.files {
            Files::One => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", position + 1),
        };
        let files = shards.into_iter().enumerate();
        let files = files.map(|(i, tensors)| PlannedFile { name: file_name(i), tensors }).collect();
        Ok(Plan { files, parameters, bytes })
    }

    /// Writes the checkpoint into `folder`, which is made if need be, and calls `on_bytes` with the number
    /// of bytes of weights after each piece. Files of the same names are replaced.
    ///
    /// # Errors
    /// As [`Recipe::plan`]; when `folder` holds weights that would stay beside the new ones; or when a file
    /// can't be read or written.
    pub fn write(&self, folder: &Path, on_bytes: &mut dyn FnMut(u64)) -> Result<Plan> {
        let plan = self.plan()?;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        refuse_leftovers(folder, &plan)?;
        let config: Value = serde_json::from_str(&self.config).context("config.json")?;
        let config_text = config::rewritten(&self.config, &config, self.config_layout, self.stored_type)?;
        writer::write_text(folder, "config.json", &config_text)?;
        writer::write_text(folder, "generation_config.json", &config::generation_config(&config)?)?;
        writer::write_text(folder, "preprocessor_config.json", config::PREPROCESSOR_CONFIG)?;
        self.tokenizer.write(folder)?;
        for file in &plan.files {
            writer::write_weights(&folder.join(&file.name), file, self, on_bytes)?;
        }
        if self.files != Files::One {
            writer::write_text(folder, writer::INDEX, &writer::index_text(&plan)?)?;
        }
        Ok(plan)
    }
}

/// A file of weights that is not replaced would make the folder hold two models.
fn refuse_leftovers(folder: &Path, plan: &Plan) -> Result<()> {
    let has_index = plan.files.iter().all(|file| file.name != "model.safetensors");
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_weights = name.ends_with(".safetensors") || name == writer::INDEX;
        let is_replaced =
            plan.files.iter().any(|file| file.name == name) || (has_index && name == writer::INDEX);
        ensure!(
            !is_weights || is_replaced,
            "{}: holds {name}, which would stay; give an empty folder",
            folder.display()
        );
    }
    Ok(())
}

/// The one of `all` that is called `name`.
fn choice<T: Copy + std::fmt::Display>(name: &str, all: &[T]) -> Result<T, String> {
    all.iter().copied().find(|one| one.to_string() == name).ok_or_else(|| {
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        format!("expected one of {}", names.join(", "))
    })
}
