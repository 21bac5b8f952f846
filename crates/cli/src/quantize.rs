//! `ocellus quantize`: packs the weights of a checkpoint and writes them beside it.

use std::{cell::RefCell, io::Write, path::PathBuf, time::Duration};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use ocellus_engine::{Formats, Model, Progress, Source, WeightFormat};

use crate::{Failure, find::Meant};

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with a checkpoint in the official layout, or a repository as owner/name, which is fetched if need be.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// How to pack: bf16, int8 or int4. Later starts with the same `--weights` read the file in place of the
    /// checkpoint's weights.
    #[arg(long, value_name = "FORMAT")]
    weights: WeightFormat,
    /// The same for the vision tower [default: bf16].
    #[arg(long, value_name = "FORMAT")]
    vision_weights: Option<WeightFormat>,
    /// Folder to write to [default: the checkpoint's own, where later starts look].
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn apply(self) -> Result<(), Failure> {
        if matches!(self.weights, WeightFormat::Auto | WeightFormat::F32) {
            let message = format!("--weights {}: only bf16, int8 and int4 are packed", self.weights);
            return Err(Failure::Usage(message));
        }
        let model = Meant::new(&self.model)?.folder(None, None)?;
        let folder = self.to.as_deref().unwrap_or(&model);
        let formats = Formats { decoder: self.weights, tower: self.vision_weights };
        let source = Source::folder(&model);
        // A hidden bar, as on a pipe or in a log file, writes nothing.
        let bar = RefCell::new(spinner());
        let show = |progress: Progress| match progress {
            Progress::Writing { written, size } => {
                let mut bar = bar.borrow_mut();
                if bar.length().is_none() {
                    bar.finish_and_clear();
                    *bar = ProgressBar::new(size as u64)
                        .with_style(style("writing {wide_bar} {bytes} of {total_bytes}, {eta} left"));
                }
                bar.set_position(written as u64);
            }
            // Packing is done in the host's memory, which is not planned.
            Progress::Planned { .. } => {}
            Progress::Tokenizer | Progress::Weights => bar.borrow().set_message("reading the checkpoint"),
            Progress::VisionTower => bar.borrow().set_message("packing the vision tower"),
            Progress::Decoder => bar.borrow().set_message("packing the decoder"),
        };
        let packed = Model::pack(&source, formats, folder, &show);
        bar.borrow().finish_and_clear();
        let path = packed.with_context(|| format!("packing {}", source.describe()))?;
        let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        writeln!(std::io::stdout(), "{}: {:.2} GB", path.display(), bytes as f64 / 1e9)?;
        Ok(())
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} ({elapsed})"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
