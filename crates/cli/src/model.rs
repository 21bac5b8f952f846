//! Choosing and loading a model, for every command that needs one.

use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use ocellus_engine::{Engine, Options, Progress, Source};

use crate::embedded;

/// Which model, and where it computes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArguments {
    /// Folder with a checkpoint in the official layout (config.json, tokenizer.json, *.safetensors). Without it, the
    /// tiny built-in model answers: random weights, meaningless text, but nothing to download.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Tokens that prompts and answers of all running requests may have together [default: what the model was made
    /// for, at most 32768].
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
}

impl ModelArguments {
    /// The name of the folder, or of the built-in model.
    pub(crate) fn name(&self) -> String {
        let folder = self.model.as_deref().map(|path| {
            // A path such as `.` has no name of its own until it is resolved.
            let resolved = path.canonicalize();
            let name = resolved.as_deref().unwrap_or(path).file_name();
            name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
        });
        folder.unwrap_or_else(|| embedded::NAME.to_owned())
    }

    /// Reads everything into place. Progress is shown on a terminal only.
    pub(crate) fn load(&self) -> anyhow::Result<Engine> {
        let source =
            self.model.as_deref().map_or_else(embedded::source, |folder: &Path| Source::folder(folder));
        let options =
            Options { device: self.device.clone(), context_tokens: self.context, ..Options::default() };
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
                Progress::VisionTower => "loading the vision tower",
                Progress::Decoder => "loading the decoder",
            });
        };
        let loaded = Engine::load(&source, &options, &show);
        bar.finish_and_clear();
        loaded.with_context(|| format!("loading {}", source.describe()))
    }
}
