//! Choosing and loading a model, for every command that needs one.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use ocellus_engine::{Engine, Formats, Options, Place, Progress, Source, WeightFormat};
use ocellus_pull::BeforeWeights;

use crate::{
    embedded,
    find::{self, Meant, tell},
    memory::available_bytes,
};

/// Which model, and where it computes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArguments {
    /// Folder with a checkpoint in the official layout (config.json, tokenizer.json, *.safetensors), or a repository as
    /// owner/name or owner/name@revision, or a hosted model's name such as qwen2.5-vl-3b-instruct; what is not in the
    /// cache is fetched once. Without it, the tiny built-in model answers: it knows simple shapes and large printed words
    /// alone, but there is nothing to download.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, default_value = "auto")]
    device: String,
    /// How weights are held on the processor: as stored with all arithmetic in f32 (f32), or packed in narrower types,
    /// which is much faster (bf16, int8, int4). `auto` takes bf16 for checkpoints stored so.
    #[arg(long, default_value_t = WeightFormat::Auto, value_name = "FORMAT")]
    weights: WeightFormat,
    /// The same for the vision tower [default: as --weights, but bf16 where that is int8 or int4].
    #[arg(long, value_name = "FORMAT")]
    vision_weights: Option<WeightFormat>,
    /// Tokens that prompts and answers of all running requests may have together [default: what the model was made
    /// for, at most 32768].
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Requests that are answered side by side, as far as the context has room for their prompts and longest answers;
    /// others wait. With weights in f32 it is one.
    #[arg(long, value_name = "REQUESTS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// Load the model even where there seems to be too little memory for it.
    #[arg(long)]
    no_memory_check: bool,
}

impl ModelArguments {
    /// The name of the repository, of the folder, or of the built-in model.
    pub(crate) fn name(&self) -> String {
        if let Some((name, _)) = self.model.as_deref().and_then(find::names) {
            return name;
        }
        let folder = self.model.as_deref().map(|path| {
            // A path such as `.` has no name of its own until it is resolved.
            let resolved = path.canonicalize();
            let name = resolved.as_deref().unwrap_or(path).file_name();
            name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
        });
        folder.unwrap_or_else(|| embedded::NAME.to_owned())
    }

    /// Other names that a repository is known by.
    pub(crate) fn other_names(&self) -> Vec<String> {
        self.model.as_deref().and_then(find::names).map(|(_, others)| others).unwrap_or_default()
    }

    /// Reads everything into place, after fetching it if need be, unless `forbidden` says what forbids that. Progress is
    /// shown on a terminal only.
    pub(crate) fn load(&self, forbidden: Option<&str>) -> anyhow::Result<Engine> {
        // The built-in model fits everywhere.
        let check_memory = self.model.is_some() && !self.no_memory_check;
        let options = Options {
            device: self.device.clone(),
            formats: Formats { decoder: self.weights, tower: self.vision_weights },
            context_tokens: self.context,
            parallel: usize::from(self.parallel),
            host_memory: if check_memory { available_bytes() } else { None },
            ..Options::default()
        };
        let source = match &self.model {
            Some(model) => {
                let before_weights = check_memory.then(|| before_weights(options.clone()));
                Source::folder(Meant::new(model)?.folder(forbidden, before_weights)?)
            }
            None => embedded::demo(),
        };
        // A hidden bar, as on a pipe or in a log file, writes nothing.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        let show = |progress: Progress| {
            bar.set_message(match progress {
                Progress::Tokenizer => "reading the tokenizer",
                Progress::Weights => "reading the checkpoint's headers",
                Progress::Planned { plan, free, place } => {
                    let whose = if place == Place::Device { "device memory" } else { "memory" };
                    let free = free as f64 / f64::from(1 << 30);
                    // Whoever waits for the first answer reads where the memory goes; a pipe is told too.
                    bar.suspend(|| tell(&format!("{whose}: {plan}; {free:.2} GiB are free")));
                    return;
                }
                Progress::VisionTower => "loading the vision tower",
                Progress::Decoder => "loading the decoder",
                Progress::Writing { .. } => "writing packed weights",
            });
        };
        let loaded = Engine::load(&source, &options, &show);
        bar.finish_and_clear();
        loaded.with_context(|| format!("loading {}", source.describe()))
    }
}

/// Says before gigabytes are fetched that there is no room for them in memory.
fn before_weights(options: Options) -> Arc<BeforeWeights> {
    Arc::new(move |folder, stored_bytes| {
        let config =
            std::fs::read_to_string(folder.join("config.json")).map_err(|error| error.to_string())?;
        let stored_bytes = usize::try_from(stored_bytes).unwrap_or(usize::MAX);
        Engine::would_fit(&config, stored_bytes, &options).map_err(|error| error.to_string())
    })
}
