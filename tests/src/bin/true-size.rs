//! `true-size`: asks a random checkpoint of the true 3B dimensions about pictures, and holds the memory that it
//! takes against the size of its weights.
#![allow(clippy::print_stdout)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ocellus_tests::{
    checkpoint::{Recipe, Tokenizer},
    house::workspace,
    picture,
};
use serde_json::Value;

/// Ask a true-size random 3B checkpoint about a small and a large picture.
#[derive(Parser)]
struct Arguments {
    /// The `ocellus` binary
    #[arg(long)]
    ocellus: PathBuf,

    /// The folder for the checkpoint (7.5 GB) and the pictures; a checkpoint that lies there already is used
    folder: PathBuf,
}

/// Sides of the pictures, in pixels.
const SIDES: [u32; 2] = [448, 980];
const MAX_TOKENS: usize = 16;
/// The most memory that may be resident at a time, in bytes, for so many bytes of weights.
fn memory_limit(weights: u64) -> u64 {
    (weights as f64 * 1.15) as u64 + 1_500_000_000
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let checkpoint = arguments.folder.join("3b");
    write_checkpoint(&checkpoint)?;
    let weights = weights_bytes(&checkpoint)?;
    println!("weights: {:.2} GB bf16, random", gigabytes(weights));

    let mut holds = true;
    for side in SIDES {
        let file = arguments.folder.join(format!("{side}x{side}.bmp"));
        fs::write(&file, picture::bmp(side, side)).with_context(|| file.display().to_string())?;
        let report = ask(&arguments.ocellus, &checkpoint, &file)?;
        holds &= print(&report, side, weights)?;
    }
    println!("{}", if holds { "3b: holds" } else { "3b: does NOT hold" });
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The published dimensions with the small tokenizer that is part of the repository: every matrix has its true
/// size, and the ids of control tokens are those of that tokenizer.
fn write_checkpoint(folder: &Path) -> Result<()> {
    if folder.join("model.safetensors.index.json").is_file() {
        return Ok(());
    }
    let config_of = |name: &str| -> Result<Value> {
        let file = workspace().join("models").join(name).join("config.json");
        Ok(serde_json::from_str(&fs::read_to_string(&file).with_context(|| file.display().to_string())?)?)
    };
    let nano = config_of("nano")?;
    let mut recipe = Recipe::preset("3b")?.edit_config(|config| {
        for (name, id) in
            nano.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token_id"))
        {
            config[name] = id.clone();
        }
    })?;
    recipe.tokenizer = Tokenizer::Nano;
    let style = ProgressStyle::with_template("writing the checkpoint {bar:30} {bytes}/{total_bytes} {eta}")?;
    let bar = ProgressBar::new(recipe.plan()?.bytes).with_style(style);
    recipe.write(folder, &mut |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    Ok(())
}

fn weights_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn ask(ocellus: &Path, checkpoint: &Path, picture: &Path) -> Result<Value> {
    let output = Command::new(ocellus)
        .args(["ask", "--json", "--max-tokens", &MAX_TOKENS.to_string(), "--model"])
        .arg(checkpoint)
        .arg("--image")
        .arg(picture)
        .args(["--", "What is in the picture?"])
        .output()
        .with_context(|| ocellus.display().to_string())?;
    ensure!(output.status.success(), "ocellus ask failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Prints the figures of one picture; whether they hold.
fn print(report: &Value, side: u32, weights: u64) -> Result<bool> {
    let number = |pointer: &str| {
        report.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("the report lacks {pointer}"))
    };
    let peak = number("/peak_resident_bytes")? as u64;
    let limit = memory_limit(weights);
    let tokens = number("/usage/completion_tokens")? as usize;
    let parts = ["decode_images_s", "encode_s", "prefill_s"];
    let seconds =
        parts.iter().map(|part| number(&format!("/timings/{part}"))).collect::<Result<Vec<f64>>>()?;
    println!(
        "{side}x{side}: {} image tokens, time to first token {:.1} s (picture {:.2}, encode {:.1}, prefill {:.1}), \
         {tokens} tokens at {:.2} tokens/s, peak RSS {:.2} GB (limit {:.2})",
        number("/usage/image_tokens")?,
        seconds.iter().sum::<f64>(),
        seconds[0],
        seconds[1],
        seconds[2],
        number("/timings/tokens_per_second")?,
        gigabytes(peak),
        gigabytes(limit),
    );
    Ok(peak <= limit && tokens == MAX_TOKENS)
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
