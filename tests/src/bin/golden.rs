//! `golden [DIR]`: how far our numbers are from an independent implementation's, one line for each family.
#![allow(clippy::print_stdout)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use ocellus_engine::WeightFormat;
use ocellus_tests::golden::{Folder, Outcome, compare_all, formats::divergence};

/// Compare our numbers with golden ones.
#[derive(Parser)]
struct Arguments {
    /// A folder with golden/, images/ and checkpoints [default: the project's own]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let folder = Arguments::parse().dir.map_or_else(Folder::own, Folder::new);
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
    for format in [WeightFormat::Bf16, WeightFormat::Int8, WeightFormat::Int4] {
        match divergence(&folder, format) {
            Ok(divergence) => println!("{:6}  weights in {format} against f32: {divergence}", ""),
            Err(error) => println!("{:6}  weights in {format}: {error:#}", ""),
        }
    }
    let holds = compared > 0 && broken == 0;
    let verdict = if holds { "they hold" } else { "they do NOT hold" };
    println!("{}: {compared} families compared, {broken} broken: {verdict}", folder.root().display());
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
