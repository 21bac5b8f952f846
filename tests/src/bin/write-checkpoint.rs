//! `write-checkpoint`: writes a checkpoint with random weights, of any size, in the official layout.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, error::ErrorKind};
use indicatif::{ProgressBar, ProgressStyle};
use ocellus_tests::checkpoint::{
    ConfigLayout, DEFAULT_SEED, Files, Naming, PRESETS, Recipe, StoredType, Tokenizer,
};

/// Write a checkpoint with random weights in the official layout.
///
/// The same preset and seed give the same bytes on every machine.
#[derive(Debug, Parser)]
#[command(override_usage = "write-checkpoint [OPTIONS] PRESET FOLDER\n       \
                            write-checkpoint [OPTIONS] --from-config FILE FOLDER\n       \
                            write-checkpoint --list")]
struct Arguments {
    /// The preset (nano, tiny, small, 3b, 7b, 32b or 72b), unless --from-config stands for it, and the folder to write
    #[arg(value_name = "PRESET FOLDER")]
    words: Vec<PathBuf>,

    /// List the presets with their sizes
    #[arg(long)]
    list: bool,

    /// Where the values come from
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,

    /// Take the dimensions from this config.json in place of a preset
    #[arg(long, value_name = "FILE")]
    from_config: Option<PathBuf>,

    /// The names of the tensors: as published (hub), or as newer libraries save them (new)
    #[arg(long, default_value_t = Naming::Hub)]
    naming: Naming,

    /// The layout of config.json: flat, nested or rope-parameters [default: as the preset or file has it, which is flat for presets]
    #[arg(long, value_name = "LAYOUT")]
    config: Option<ConfigLayout>,

    /// The type of the weights: bf16, f16 or f32
    #[arg(long, default_value_t = StoredType::Bf16)]
    dtype: StoredType,

    /// The largest size of a file in bytes [default: 4 GB, or 60 % of the whole below 1 GB]
    #[arg(long, value_name = "BYTES", conflicts_with = "single_file")]
    shard_bytes: Option<u64>,

    /// Write one model.safetensors without an index
    #[arg(long)]
    single_file: bool,

    /// The folder to copy the tokenizer's files from [default for nano: the one that belongs to it]
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.list {
        for (name, _) in PRESETS {
            let plan = Recipe::preset(name)?.plan()?;
            println!("{name:6} {:>15} parameters {:>9.3} GB", plan.parameters, plan.bytes as f64 / 1e9);
        }
        return Ok(());
    }
    let (recipe, folder) = arguments.read()?;
    let plan = recipe.plan()?;
    let style = "{bytes:>11} of {total_bytes} {wide_bar} {binary_bytes_per_sec}, {eta} left";
    let bar = ProgressBar::new(plan.bytes).with_style(ProgressStyle::with_template(style)?);
    recipe.write(&folder, &mut |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    let (files, parameters) = (plan.files.len(), plan.parameters);
    println!("{}: {parameters} parameters, {} bytes in {files} file(s)", folder.display(), plan.bytes);
    if recipe.tokenizer == Tokenizer::Absent {
        eprintln!("Without tokenizer files: give --tokenizer FOLDER to have them copied.");
    }
    Ok(())
}

impl Arguments {
    /// What to write, and where. Words that can't be meant end the process as a wrong flag does.
    fn read(self) -> Result<(Recipe, PathBuf)> {
        let (dimensions, folder) = self.meaning().unwrap_or_else(|error| error.exit());
        let recipe = match dimensions {
            Dimensions::Preset(name) => Recipe::preset(&name)?,
            Dimensions::Config(path) => {
                let config = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                Recipe::from_config(&config)
            }
        };
        let recipe = Recipe {
            seed: self.seed,
            naming: self.naming,
            config_layout: self.config,
            stored_type: self.dtype,
            files: match self.shard_bytes {
                _ if self.single_file => Files::One,
                Some(bytes) => Files::OfBytes(bytes),
                None => Files::Several,
            },
            tokenizer: self.tokenizer.map_or(recipe.tokenizer.clone(), Tokenizer::Folder),
            ..recipe
        };
        Ok((recipe, folder))
    }

    /// Which of the two forms was typed.
    fn meaning(&self) -> Result<(Dimensions, PathBuf), clap::Error> {
        match (&self.words[..], &self.from_config) {
            ([preset, folder], None) => {
                Ok((Dimensions::Preset(preset.to_string_lossy().into_owned()), folder.clone()))
            }
            ([folder], Some(config)) => Ok((Dimensions::Config(config.clone()), folder.clone())),
            (words, config) => {
                let wanted = if config.is_some() { "FOLDER alone" } else { "PRESET and FOLDER" };
                let message = format!("{} words, expected {wanted}", words.len());
                Err(Self::command().error(ErrorKind::WrongNumberOfValues, message))
            }
        }
    }
}

/// Where the dimensions come from.
#[derive(Debug, PartialEq)]
enum Dimensions {
    /// A preset's name.
    Preset(String),
    /// A config.json.
    Config(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(line: &str) -> Result<(Dimensions, PathBuf), String> {
        let typed = Arguments::try_parse_from(line.split(' ').filter(|word| !word.is_empty()));
        typed.and_then(|typed| typed.meaning()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_config_stands_for_the_preset() {
        let check = |line: &str, dimensions| {
            assert_eq!(meaning(line), Ok((dimensions, PathBuf::from("out"))), "{line}");
        };
        let config = || Dimensions::Config("a.json".into());
        check("write nano out", Dimensions::Preset("nano".into()));
        check("write nano out --seed 7", Dimensions::Preset("nano".into()));
        check("write --from-config a.json out", config());
        check("write out --from-config a.json", config());
        check("write --seed 7 --from-config=a.json --single-file out", config());
    }

    #[test]
    fn too_few_and_too_many_words_are_refused() {
        let check = |line: &str, expected: &str| {
            let message = meaning(line).expect_err(line);
            assert!(message.contains(expected), "{line}: {message}");
        };
        check("write", "0 words, expected PRESET and FOLDER");
        check("write nano", "1 words, expected PRESET and FOLDER");
        check("write nano out more", "3 words, expected PRESET and FOLDER");
        check("write --from-config a.json", "0 words, expected FOLDER alone");
        check("write nano out --from-config a.json", "2 words, expected FOLDER alone");
        check("write nano out --single-file --shard-bytes 5", "cannot be used with");
    }

    #[test]
    fn a_checkpoint_is_written_from_a_config() {
        let folder = tempfile::tempdir().unwrap();
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/odd/config.json");
        let words = ["write", "--from-config", config, folder.path().to_str().unwrap()];
        let (recipe, to) = Arguments::try_parse_from(words).unwrap().read().unwrap();
        recipe.write(&to, &mut |_| {}).unwrap();
        assert!(folder.path().join("config.json").exists());
    }
}
