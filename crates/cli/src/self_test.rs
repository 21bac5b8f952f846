//! `ocellus self-test`: whether a device computes what the processor's reference does.

use std::{
    collections::hash_map::RandomState,
    fmt::Write as _,
    hash::BuildHasher,
    io::{self, Write},
    path::PathBuf,
    time::Instant,
};

use ocellus_bench::self_test::{self, Line, Options};
use ocellus_engine::Source;
use serde_json::json;

use crate::{Failure, embedded};

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What is tested, as for `serve`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Decides all inputs; the same gives the same ones [default: another one each time].
    #[arg(long)]
    seed: Option<u64>,
    /// How often each operation's cases are repeated, with other numbers each time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only a part of it.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Folder with a checkpoint for the test of a whole model [default: the tiny built-in one].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Leave out the cases that compute much.
    #[arg(long)]
    short: bool,
    /// Write one JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Single operations.
    Operations,
    /// A model's stages.
    Model,
}

impl Arguments {
    /// Tests, and writes what came of it. Fails when anything differs by more than it may.
    pub(crate) fn apply(self) -> Result<(), Failure> {
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(0u8) >> 32);
        let options = Options {
            seed,
            rounds: self.rounds.into(),
            operations: self.only != Some(Part::Model),
            model: self.only != Some(Part::Operations),
            short: self.short,
        };
        let source = self.model.as_deref().map_or_else(embedded::nano, Source::folder);
        let device = self_test::open(&self.device)?;
        let started = Instant::now();
        let mut output = io::stdout().lock();
        if !self.json {
            writeln!(output, "device {}, seed {seed}\n{}", device.name(), heading())?;
        }
        let mut told = Ok(());
        let lines = self_test::run(&device, &source, &options, &mut |line| {
            if !self.json && told.is_ok() {
                told = output.write_all(row(line).as_bytes()).and_then(|()| output.flush());
            }
        })?;
        told?;
        let failed = lines.iter().filter(|line| !line.faults.is_empty()).count();
        if self.json {
            writeln!(output, "{}", as_json(device.name(), seed, &lines))?;
        } else {
            let (all, seconds) = (lines.len(), started.elapsed().as_secs_f64());
            writeln!(output, "{} of {all} hold, in {seconds:.1} s", all - failed)?;
        }
        if failed > 0 {
            return Err(anyhow::anyhow!(
                "{failed} of {} subjects differ by more than they may; --seed {seed} repeats this",
                lines.len()
            )
            .into());
        }
        Ok(())
    }
}

fn heading() -> String {
    format!(
        "{:<44} {:>5} {:>10} {:>8} {:>11} {:>11}  tolerance",
        "subject", "cases", "numbers", "kernels", "difference", "allowed"
    )
}

/// A subject's line, and its faults below it.
fn row(line: &Line) -> String {
    let number = |value: Option<f32>| match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) => format!("{value:.3e}"),
    };
    let mut out = format!(
        "{:<44} {:>5} {:>10} {:>8} {:>11} {:>11}  {}{}\n",
        line.subject,
        line.cases,
        line.numbers,
        line.kernels.map_or("-".to_owned(), |n| n.to_string()),
        number(line.difference.map(|(found, _)| found)),
        number(line.difference.map(|(_, allowed)| allowed)),
        if line.faults.is_empty() { "" } else { "DOES NOT HOLD: " },
        line.tolerance,
    );
    for fault in &line.faults {
        let _ = writeln!(out, "    {fault}");
    }
    out
}

fn as_json(device: &str, seed: u64, lines: &[Line]) -> serde_json::Value {
    let line = |line: &Line| {
        json!({
            "subject": line.subject,
            "cases": line.cases,
            "numbers": line.numbers,
            "kernels": line.kernels,
            "difference": line.difference.map(|(found, _)| found),
            "allowed": line.difference.map(|(_, allowed)| allowed),
            "tolerance": line.tolerance,
            "faults": line.faults,
        })
    };
    json!({
        "device": device,
        "seed": seed,
        "holds": lines.iter().all(|line| line.faults.is_empty()),
        "subjects": lines.iter().map(line).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(faults: &[&str]) -> Line {
        Line {
            subject: "rms_norm".into(),
            cases: 12,
            numbers: 3456,
            kernels: Some(12),
            difference: Some((0.0012, 0.004)),
            tolerance: "rounding".into(),
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
        }
    }

    #[test]
    fn a_row_has_its_faults_below() {
        let text = row(&line(&["rms_norm, 3 x 31: element 1 is NaN"]));
        let mut lines = text.lines();
        let words: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(
            words,
            ["rms_norm", "12", "3456", "12", "1.200e-3", "4.000e-3", "DOES", "NOT", "HOLD:", "rounding"]
        );
        assert_eq!(lines.next(), Some("    rms_norm, 3 x 31: element 1 is NaN"));
        assert_eq!(heading().split_whitespace().count(), 7);
    }

    #[test]
    fn programs_read_whether_all_holds() {
        assert_eq!(as_json("a", 1, &[line(&[])])["holds"], json!(true));
        let json = as_json("a", 1, &[line(&[]), line(&["x"])]);
        assert_eq!((&json["holds"], &json["subjects"][1]["faults"][0]), (&json!(false), &json!("x")));
    }
}
