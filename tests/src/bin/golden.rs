//! `golden [DIR]`: how far our numbers are from an independent implementation's, one line for each family.
#![allow(clippy::print_stdout)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use ocellus_engine::WeightFormat;
use ocellus_tests::golden::{
    Folder, Outcome, compare_all,
    formats::{Narrowed, divergence},
};

/// Compare our numbers with golden ones.
#[derive(Parser)]
struct Arguments {
    /// A folder with golden/, images/ and checkpoints [default: the project's own]
    dir: Option<PathBuf>,
    /// Checkpoints of the same names whose weights another quantizer has rewritten, to compare with our formats; with
    /// this, nothing else is compared
    #[arg(long, value_name = "DIR")]
    rewritten: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { dir, rewritten } = Arguments::parse();
    let folder = dir.map_or_else(Folder::own, Folder::new);
    if !rewritten.is_empty() {
        let mut shown = narrow_weights(&folder);
        for format in [WeightFormat::Int8, WeightFormat::Int4] {
            shown &= print(&folder, &format!("rounded-{format}"), Narrowed::Rounded(format));
        }
        for other in &rewritten {
            shown &= print(&folder, &other.display().to_string(), Narrowed::Rewritten(other));
        }
        return if shown { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (mut compared, mut broken) = (0, 0);
    match compare_all(&folder) {
        Ok(outcomes) => {
            for (family, outcome) in outcomes {
                let (word, text) = match &outcome {
                    Outcome::Absent => ("absent", String::new()),
                    Outcome::Measured(gauge) if gauge.holds() => ("holds", gauge.to_string()),
                    Outcome::Measured(gauge) => ("BROKEN", gauge.to_string()),
                };
                compared += usize::from(word != "absent");
                broken += usize::from(word == "BROKEN");
                println!("{}", format!("{word:6}  {family:36}  {text}").trim_end());
            }
        }
        Err(error) => println!("BROKEN  {error:#}"),
    }
    // Not golden: how far narrower weights move the same conversations. A test bounds bf16 by 0.1.
    narrow_weights(&folder);
    let holds = compared > 0 && broken == 0;
    let verdict = if holds { "they hold" } else { "they do NOT hold" };
    println!("{}: {compared} families compared, {broken} broken: {verdict}", folder.root().display());
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what each of our formats does. False when one couldn't be measured.
fn narrow_weights(folder: &Folder) -> bool {
    let mut shown = true;
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        shown &= print(folder, &format.to_string(), Narrowed::Packed(format));
    }
    shown
}

fn print(folder: &Folder, name: &str, narrowed: Narrowed<'_>) -> bool {
    let divergence = divergence(folder, narrowed);
    match &divergence {
        Ok(divergence) => println!("{:6}  weights in {name} against f32: {divergence}", ""),
        Err(error) => println!("{:6}  weights in {name}: {error:#}", ""),
    }
    divergence.is_ok()
}
