//! `ocellus bench`: what this machine can do at best, and what single operations and whole models reach of it.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};
use ocellus_bench::{
    Limits, Progress, Report,
    format::{FORMATS, WeightFormat},
    kernels, load,
    model::RandomModel,
    preprocess, text, vision,
};
use serde_json::json;

use crate::{Failure, find::Meant, memory::peak_resident_bytes};

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write one JSON object in place of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The machine's limits alone: reading memory, and multiply-adds in f32, bf16 and 8 bits.
    Limits(LimitsArguments),
    /// Each operation at the shapes of the published models.
    Kernels(KernelsArguments),
    /// The vision tower, by the size of the picture.
    Vision(VisionArguments),
    /// Prompts, by their length.
    Prefill(PrefillArguments),
    /// Tokens one after another, behind prompts of some length and for several sequences at once.
    Decode(DecodeArguments),
    /// From the folder to the first token.
    Load(LoadArguments),
    /// Pictures from a file's bytes to patches.
    Preprocess(PreprocessArguments),
}

#[derive(Debug, clap::Args)]
struct LimitsArguments {
    /// Where to measure.
    #[arg(long, default_value = "auto")]
    device: String,
}

#[derive(Debug, clap::Args)]
struct KernelsArguments {
    /// Whose shapes: 3b, 7b, 32b or 72b.
    #[arg(long = "size", value_name = "SIZE", value_delimiter = ',', default_values_t = ["3b".to_owned(), "7b".into(), "32b".into(), "72b".into()])]
    sizes: Vec<String>,
    /// Which operations.
    #[arg(long = "operation", value_name = "NAME", value_delimiter = ',', default_values_t = kernels::OPERATIONS.map(str::to_owned))]
    operations: Vec<String>,
    /// Linear layers by name, such as gate_proj or "vision qkv" [default: all].
    #[arg(long = "layer", value_name = "NAME", value_delimiter = ',')]
    layers: Vec<String>,
    /// How weights are held.
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_values_t = FORMATS)]
    weights: Vec<WeightFormat>,
    /// Tokens at once, for the vision tower patches.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 4, 1024], value_parser = positive)]
    tokens: Vec<usize>,
    /// How often each is computed; those that take microseconds are computed more often.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    repetitions: usize,
    /// Where to compute.
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Which model, and how its weights are held.
#[derive(Debug, clap::Args)]
struct ModelArguments {
    /// Folder with a checkpoint in the official layout, or a repository as owner/name, which is fetched if need be.
    #[arg(long, value_name = "MODEL", conflicts_with = "random", required_unless_present = "random")]
    model: Option<PathBuf>,
    /// Random weights of a published size (3b, 7b, 32b, 72b), which are written to --cache once.
    #[arg(long, value_name = "SIZE")]
    random: Option<String>,
    /// Of the random model's decoder, only so many layers.
    #[arg(long, value_name = "N", requires = "random", value_parser = positive)]
    layers: Option<usize>,
    /// Of the random model's vision tower, only so many blocks.
    #[arg(long, value_name = "N", requires = "random", value_parser = positive)]
    blocks: Option<usize>,
    /// Where random models are kept [default: ocellus/bench in the user's cache].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How weights are held: f32, bf16, int8 or int4.
    #[arg(long, value_name = "FORMAT", default_value_t = WeightFormat::Bf16)]
    weights: WeightFormat,
    /// Where to compute.
    #[arg(long, default_value = "auto")]
    device: String,
}

#[derive(Debug, clap::Args)]
struct VisionArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Sizes of pictures, width x height in pixels, multiples of 28.
    #[arg(long = "size", value_name = "WxH", value_delimiter = ',', default_values = ["448x448", "1120x896"], value_parser = size)]
    sizes: Vec<(usize, usize)>,
    /// How often each is encoded, after one time that does not count.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    repetitions: usize,
}

#[derive(Debug, clap::Args)]
struct PrefillArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Lengths of prompts.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [512, 1276], value_parser = positive)]
    tokens: Vec<usize>,
    /// Tokens that are computed at a time.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = positive)]
    chunk: usize,
    /// How often each is computed.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    repetitions: usize,
}

#[derive(Debug, clap::Args)]
struct DecodeArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Tokens before the first measured one.
    #[arg(long = "depth", value_name = "N", value_delimiter = ',', default_values_t = [0, 1024])]
    depths: Vec<usize>,
    /// Sequences at once.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 4], value_parser = positive)]
    sequences: Vec<usize>,
    /// Steps that are measured.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    steps: usize,
}

#[derive(Debug, clap::Args)]
struct LoadArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Let the system forget the files before each time.
    #[arg(long)]
    cold: bool,
    /// How often the model is loaded.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    repetitions: usize,
}

#[derive(Debug, clap::Args)]
struct PreprocessArguments {
    /// Pictures; without any, bitmaps are drawn.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Sizes of drawn pictures, width x height in pixels.
    #[arg(long = "size", value_name = "WxH", value_delimiter = ',', default_values = ["1280x960", "4000x3000"], value_parser = size)]
    sizes: Vec<(usize, usize)>,
    /// The largest area that the model may see, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 1280 * 28 * 28)]
    max_pixels: usize,
    /// How often each is prepared, after one time that does not count.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    repetitions: usize,
}

impl Arguments {
    /// Measures, and writes what came out.
    pub(crate) fn apply(self) -> Result<(), Failure> {
        // A hidden bar, as on a pipe or in a log file, writes nothing.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        let report = self.what.measure(&|message| {
            bar.set_message(message.to_owned());
            bar.tick();
        });
        bar.finish_and_clear();
        let report = report?;
        let text = if self.json {
            let mut object = report.json();
            object["peak_resident_bytes"] = json!(peak_resident_bytes());
            format!("{object}\n")
        } else {
            report.text()
        };
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

impl What {
    fn measure(self, progress: &Progress<'_>) -> anyhow::Result<Report> {
        // Models first: what is missing should be said at once.
        let limits = |device: &str| Limits::measure(device, progress);
        match self {
            Self::Limits(LimitsArguments { device }) => Ok(Report {
                bench: "limits",
                conditions: Vec::new(),
                limits: Some(limits(&device)?),
                tables: Vec::new(),
            }),
            Self::Kernels(typed) => {
                let limits = limits(&typed.device)?;
                kernels::run(&typed.options(), &limits, progress)
            }
            Self::Vision(VisionArguments { model, sizes, repetitions }) => {
                let folder = model.folder(progress)?;
                let ModelArguments { device, weights, .. } = model;
                let options = vision::Options { device, weights, sizes, repetitions };
                vision::run(&folder, &options, &limits(&options.device)?, progress)
            }
            Self::Prefill(PrefillArguments { model, tokens, chunk, repetitions }) => {
                let folder = model.folder(progress)?;
                let ModelArguments { device, weights, .. } = model;
                let options = text::PrefillOptions { device, weights, tokens, chunk, repetitions };
                text::prefill(&folder, &options, &limits(&options.device)?, progress)
            }
            Self::Decode(DecodeArguments { model, depths, sequences, steps }) => {
                let folder = model.folder(progress)?;
                let ModelArguments { device, weights, .. } = model;
                let options = text::DecodeOptions { device, weights, depths, sequences, steps };
                text::decode(&folder, &options, &limits(&options.device)?, progress)
            }
            Self::Load(LoadArguments { model, cold, repetitions }) => {
                let folder = model.folder(progress)?;
                let ModelArguments { device, weights, .. } = model;
                load::run(&folder, &load::Options { device, weights, cold, repetitions }, progress)
            }
            Self::Preprocess(PreprocessArguments { files, sizes, max_pixels, repetitions }) => {
                preprocess::run(&preprocess::Options { files, sizes, max_pixels, repetitions }, progress)
            }
        }
    }
}

impl KernelsArguments {
    fn options(self) -> kernels::Options {
        let Self { sizes, operations, layers, weights, tokens, repetitions, device } = self;
        kernels::Options {
            device,
            sizes,
            operations,
            layers,
            weights,
            tokens,
            copies_bytes: None,
            repetitions,
        }
    }
}

impl ModelArguments {
    /// The checkpoint's folder; that of a random model is written first.
    fn folder(&self, progress: &Progress<'_>) -> anyhow::Result<PathBuf> {
        match (&self.model, &self.random) {
            (Some(model), _) => Meant::new(model)?.folder(None, None),
            (None, Some(preset)) => {
                let random = RandomModel { preset: preset.clone(), layers: self.layers, blocks: self.blocks };
                random.write(self.cache.as_deref().unwrap_or(&default_cache()), progress)
            }
            (None, None) => anyhow::bail!("neither --model nor --random is given"),
        }
    }
}

/// Where the user's programs keep what can be made again.
fn default_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join(Path::new("ocellus/bench"))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number from 1 on".to_owned())
}

/// `448x896` is a width and a height; gives height and width.
fn size(text: &str) -> Result<(usize, usize), String> {
    const LARGEST: usize = 32_768;
    let side = |text: &str| text.parse().ok().filter(|side| (1..=LARGEST).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(height)?, side(width)?)));
    sides.ok_or_else(|| format!("expected width x height in pixels, each up to {LARGEST}, such as 1120x896"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_width_and_height() {
        assert_eq!(size("448x896"), Ok((896, 448)));
        for wrong in ["", "448", "0x5", "5x0", "axb", "448x", "1x99999999999", "-1x4"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(positive("7"), Ok(7));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
    }
}
