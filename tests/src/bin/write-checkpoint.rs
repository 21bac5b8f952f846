//! `write-checkpoint`: writes a checkpoint with random weights, of any size, in the official layout.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ocellus_tests::checkpoint::{
    ConfigLayout, DEFAULT_SEED, Files, Naming, PRESETS, Recipe, StoredType, Tokenizer,
};

/// Write a checkpoint with random weights in the official layout.
///
/// The same preset and seed give the same bytes on every machine.
#[derive(Parser)]
struct Arguments {
    /// nano, tiny, small, 3b, 7b, 32b or 72b; not with --from-config
    #[arg(required_unless_present_any = ["list", "from_config"])]
    preset: Option<String>,

    /// The folder to write
    #[arg(required_unless_present = "list")]
    folder: Option<PathBuf>,

    /// List the presets with their sizes
    #[arg(long)]
    list: bool,

    /// Where the values come from
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,

    /// Take the dimensions from this config.json instead of a preset; the folder is then the only argument
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    from_config: Option<PathBuf>,

    /// The names of the tensors: as published, or as newer libraries save them
    #[arg(long, value_enum, default_value_t = Naming::Hub)]
    naming: Naming,

    /// The layout of config.json [default: as the preset or file has it, which is flat for presets]
    #[arg(long, value_enum)]
    config: Option<ConfigLayout>,

    /// The type of the weights
    #[arg(long, value_enum, default_value_t = StoredType::Bf16)]
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
    let (recipe, folder) = read(arguments)?;
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

fn read(arguments: Arguments) -> Result<(Recipe, PathBuf)> {
    let (recipe, folder) = match arguments.from_config {
        Some(path) => {
            let config = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            // The only positional argument is the folder.
            (Recipe::from_config(&config), arguments.preset.map(PathBuf::from))
        }
        None => (Recipe::preset(&arguments.preset.unwrap_or_default())?, arguments.folder),
    };
    let recipe = Recipe {
        seed: arguments.seed,
        naming: arguments.naming,
        config_layout: arguments.config,
        stored_type: arguments.dtype,
        files: match arguments.shard_bytes {
            _ if arguments.single_file => Files::One,
            Some(bytes) => Files::OfBytes(bytes),
            None => Files::Several,
        },
        tokenizer: arguments.tokenizer.map_or(recipe.tokenizer.clone(), Tokenizer::Folder),
        ..recipe
    };
    Ok((recipe, folder.context("which folder to write is missing")?))
}
