//! The models that are measured: a checkpoint's folder, or random weights of a published size, written once into a
//! folder of their own and found there by the next run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ocellus_decoder::{Decoder, Formats};
use ocellus_engine::Formats as EngineFormats;
use ocellus_kernels::{Device, settle};
use ocellus_vision_encoder::Tower;
use ocellus_weights::{Checkpoint, Loader, PackedWeights, Source, fields::Fields};
use serde_json::{Value, json};

use crate::{
    Progress,
    checkpoint::{Recipe, Tokenizer},
    format::WeightFormat,
};

/// What is known of a model without its weights.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The language model's.
    pub decoder: ocellus_decoder::Config,
    /// The vision tower's.
    pub vision: ocellus_vision_encoder::Config,
}

impl Sizes {
    /// The published dimensions of `3b`, `7b`, `32b` or `72b`, or of one of the small presets.
    ///
    /// # Errors
    /// When there is no such preset.
    pub fn preset(name: &str) -> Result<Self> {
        Self::from_config(&Recipe::preset(name)?.config)
    }

    fn from_config(text: &str) -> Result<Self> {
        let fields = Fields::parse("config.json", text)?;
        Ok(Self {
            decoder: ocellus_decoder::Config::from_fields(&fields)?,
            vision: ocellus_vision_encoder::Config::from_fields(&fields)?,
        })
    }
}

/// Random weights of a published size, with fewer layers where a quick look is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomModel {
    /// The size's name: `3b`, `7b`, `32b` or `72b`.
    pub preset: String,
    /// Layers of the decoder in place of all.
    pub layers: Option<usize>,
    /// Blocks of the vision tower in place of all.
    pub blocks: Option<usize>,
}

impl RandomModel {
    /// Writes the checkpoint into a folder under `cache`, unless it is there already, and gives that folder. It has the
    /// small tokenizer of the built-in model, so it can be served too.
    ///
    /// # Errors
    /// When there is no such size, or the files can't be written.
    pub fn write(&self, cache: &Path, progress: &Progress<'_>) -> Result<PathBuf> {
        let folder = cache.join(self.name());
        if folder.join(DONE).is_file() {
            return Ok(folder);
        }
        let recipe = self.recipe()?;
        let total = recipe.plan()?.bytes;
        // What an interrupted run has left would stand beside the new files.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let mut written = 0;
        recipe.write(&folder, &mut |bytes| {
            written += bytes;
            let (done, all) = (written as f64 / 1e9, total as f64 / 1e9);
            progress(&format!("writing random weights to {}: {done:.1} of {all:.1} GB", folder.display()));
        })?;
        fs::write(folder.join(DONE), "").with_context(|| folder.display().to_string())?;
        Ok(folder)
    }

    /// How tables call it.
    pub fn name(&self) -> String {
        let part = |what: &str, n: Option<usize>| n.map_or_else(String::new, |n| format!("-{n}-{what}"));
        format!("{}{}{}-random", self.preset, part("layers", self.layers), part("blocks", self.blocks))
    }

    fn recipe(&self) -> Result<Recipe> {
        let nano: Value = serde_json::from_str(&Recipe::preset("nano")?.config)?;
        let ids = nano.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token_id"));
        let mut recipe = Recipe::preset(&self.preset)?.edit_config(|config| {
            // Control tokens are those of the tokenizer.
            for (name, id) in ids {
                config[name] = id.clone();
            }
            if let Some(layers) = self.layers {
                config["num_hidden_layers"] = json!(layers);
            }
            if let Some(blocks) = self.blocks {
                let vision = &mut config["vision_config"];
                vision["depth"] = json!(blocks);
                if let Some(full) = vision["fullatt_block_indexes"].as_array_mut() {
                    full.retain(|index| index.as_u64().is_some_and(|index| index < blocks as u64));
                }
            }
        })?;
        recipe.tokenizer = Tokenizer::Nano;
        Ok(recipe)
    }
}

/// The file that says that a folder of random weights is whole.
const DONE: &str = "written-whole";

/// A part of a model on its device, and what it is.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The part.
    pub part: T,
    /// Where it computes.
    pub device: Device,
    /// How its weights are held.
    pub weights: WeightFormat,
}

/// Loads the vision tower of a checkpoint, with weights as they are asked for the decoder.
///
/// # Errors
/// When the folder holds none.
pub fn tower(folder: &Path, device: &str, weights: WeightFormat) -> Result<Loaded<Tower>> {
    load(folder, device, weights, |loader, sizes, weights, device| {
        let weights = weights.of_tower();
        let scope = loader.scope_any(&["model.visual", "visual"])?.with_format(weights.tower_layers());
        Ok((Tower::load(&scope, &sizes.vision, device)?, weights))
    })
}

/// Loads the decoder of a checkpoint.
///
/// # Errors
/// When the folder holds none.
pub fn decoder(folder: &Path, device: &str, weights: WeightFormat) -> Result<Loaded<Decoder>> {
    load(folder, device, weights, |loader, sizes, weights, device| {
        let formats = Formats { layers: weights.layers(), vocabulary: weights.vocabulary() };
        Ok((Decoder::load(loader, &sizes.decoder, formats, device)?, weights))
    })
}

/// Calls `part` with a loader that takes weights from the file that was packed so, when it lies in the folder.
fn load<T>(
    folder: &Path,
    device: &str,
    weights: WeightFormat,
    part: impl FnOnce(&Loader<'_>, &Sizes, WeightFormat, &Device) -> Result<(T, WeightFormat)>,
) -> Result<Loaded<T>> {
    let source = Source::folder(folder);
    let text = source.read_text("config.json")?;
    let text = text.with_context(|| format!("{}: no config.json", folder.display()))?;
    let (sizes, device) = (Sizes::from_config(&text)?, Device::open(device)?);
    let checkpoint = Checkpoint::open(&source)?;
    let weights = weights.resolve(&checkpoint);
    let file = EngineFormats { decoder: weights, tower: Some(weights.of_tower()) }.file_name();
    let packed = PackedWeights::open(&source, &file, &checkpoint)?;
    let loader = checkpoint.loader(&device).with_packed(packed);
    let (part, weights) = part(&loader, &sizes, weights, &device)?;
    // What is timed afterwards reads weights where they stay.
    settle::wait();
    Ok(Loaded { part, device, weights })
}

/// The size of the file of weights that were packed as `weights` say, `None` when there is none in the folder.
pub(crate) fn packed_bytes(folder: &Path, weights: WeightFormat) -> Option<u64> {
    let start = format!("ocellus-{weights}-");
    let files = fs::read_dir(folder).ok()?.flatten();
    let mut packed = files.filter(|file| file.file_name().to_string_lossy().starts_with(&start));
    Some(packed.next()?.metadata().ok()?.len())
}

/// The size of all weight files of a checkpoint as they are stored, in bytes.
pub(crate) fn weights_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        // Packed weights may lie beside the stored ones.
        let packed = entry.file_name().to_string_lossy().starts_with("ocellus-");
        if !packed && entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            bytes += entry.metadata()?.len();
        }
    }
    ensure!(bytes > 0, "{}: holds no weights", folder.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_every_published_model_are_read() {
        for (name, layers, hidden) in
            [("3b", 36, 2048), ("7b", 28, 3584), ("32b", 64, 5120), ("72b", 80, 8192)]
        {
            let sizes = Sizes::preset(name).unwrap();
            assert_eq!(
                (sizes.decoder.num_hidden_layers, sizes.decoder.hidden_size),
                (layers, hidden),
                "{name}"
            );
            assert_eq!(sizes.vision.out_hidden_size, hidden, "{name}");
        }
        assert!(Sizes::preset("4b").is_err());
    }

    #[test]
    fn random_weights_are_written_once_and_load() {
        let cache = tempfile::tempdir().unwrap();
        let model = RandomModel { preset: "tiny".into(), layers: Some(1), blocks: Some(2) };
        let folder = model.write(cache.path(), &|_| {}).unwrap();
        assert_eq!(folder, cache.path().join("tiny-1-layers-2-blocks-random"));
        let decoder = decoder(&folder, "auto", WeightFormat::F32).unwrap().part;
        assert_eq!(decoder.config().num_hidden_layers, 1);
        assert_eq!(tower(&folder, "auto", WeightFormat::F32).unwrap().part.config().depth, 2);
        assert!(weights_bytes(&folder).unwrap() > 1000);
        let written = || folder.join("config.json").metadata().unwrap().modified().unwrap();
        let before = written();
        model.write(cache.path(), &|_| panic!("it is written again")).unwrap();
        assert_eq!(written(), before);
        // A folder without the last file is one that was left half-written.
        fs::remove_file(folder.join(DONE)).unwrap();
        model.write(cache.path(), &|_| {}).unwrap();
        assert!(folder.join(DONE).is_file());
    }
}
