//! From a folder to the first word: how long it takes until a model is ready, until it has answered, and until its weights
//! lie where they stay.

use std::{path::Path, process::Command};

use anyhow::{Result, bail, ensure};
use ocellus_engine::{
    Engine, Event, Formats, Message, Options as EngineOptions, Request, Role, Source, WeightFormat,
};
use ocellus_kernels::settle;
use serde_json::{Value, json};

use crate::{Column, Progress, Report, Spread, Table, model, spread::timed};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to compute: `auto`, or a device's name.
    pub device: String,
    /// How weights are held. A file that was packed so is taken when it lies in the folder.
    pub weights: WeightFormat,
    /// Whether the system forgets the files before each time, so that they are read from the disk.
    pub cold: bool,
    /// How often the model is loaded.
    pub repetitions: usize,
}

const COLUMNS: &[Column] = &[
    Column::new("stage", "stage"),
    Column::new("time_ms", "ms"),
    Column::new("p10_ms", "p10"),
    Column::new("p90_ms", "p90"),
    Column::new("gb_per_s", "GB/s"),
    Column::new("repetitions", "n"),
];

/// Loads the model in `folder` and asks it for one token.
///
/// # Errors
/// When the model can't be loaded or does not answer; when files can't be forgotten on this system.
pub fn run(folder: &Path, options: &Options, progress: &Progress<'_>) -> Result<Report> {
    let stored = model::weights_bytes(folder)?;
    let packed = model::packed_bytes(folder, options.weights);
    let formats = Formats { decoder: options.weights, tower: None };
    let (mut ready, mut answered, mut settled) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..options.repetitions {
        progress(&format!("loading, {repetition} of {}", options.repetitions));
        if options.cold {
            forget(folder)?;
        } else {
            read(folder)?;
        }
        let engine_options = EngineOptions {
            device: options.device.clone(),
            formats,
            context_tokens: Some(512),
            ..EngineOptions::default()
        };
        let (loading, engine) =
            timed(|| Ok(Engine::load(&Source::folder(folder), &engine_options, &|_| {})?))?;
        let (answering, ()) = timed(|| answer(&engine))?;
        let (settling, ()) = timed(|| {
            settle::wait();
            Ok(())
        })?;
        ready.push(loading);
        answered.push(loading + answering);
        settled.push(loading + answering + settling);
    }
    let mut table = Table::new("from the folder to an answer", COLUMNS);
    for (stage, seconds) in [("ready", ready), ("first token", answered), ("all in place", settled)] {
        let spread = Spread::of(seconds);
        let [time, p10, p90] = spread.scaled(1e3).cells();
        // Before the last stage not all bytes need have been moved.
        let rate = spread.rate(packed.unwrap_or(stored) as f64).median / 1e9;
        let rate = if stage == "all in place" { json!(rate) } else { Value::Null };
        table.push([json!(stage), time, p10, p90, rate, json!(spread.n)]);
    }
    let caches =
        if options.cold { "cold: the system was asked to forget the files" } else { "warm: files just read" };
    let conditions = vec![
        ("weights", json!(options.weights.to_string())),
        ("stored_bytes", json!(stored)),
        ("packed_bytes", json!(packed)),
        ("caches", json!(caches)),
    ];
    Ok(Report { bench: "load", conditions, limits: None, tables: vec![table] })
}

/// One token to the shortest question.
fn answer(engine: &Engine) -> Result<()> {
    let request =
        Request { messages: vec![Message::text(Role::User, "?")], max_tokens: Some(1), ..Request::default() };
    let mut events = engine.submit(request);
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Finished(_) => return Ok(()),
            Event::Failed(error) => return Err(error.into()),
            Event::Started(_) | Event::Text(_) => {}
        }
    }
    bail!("the model ended without an answer")
}

/// Brings all files into memory, as far as there is room.
fn read(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink())?;
        }
    }
    Ok(())
}

/// Asks the system to drop the files of `folder` from its cache, through a tool that can do so for single files.
fn forget(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            let mut file = std::ffi::OsString::from("if=");
            file.push(&path);
            let output = Command::new("dd").arg(file).args(["iflag=nocache", "count=0"]).output()?;
            ensure!(
                output.status.success(),
                "dd could not drop {} from memory: {}",
                path.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RandomModel;

    #[test]
    fn a_model_answers_after_it_is_ready() {
        let cache = tempfile::tempdir().unwrap();
        let model = RandomModel { preset: "nano".into(), layers: None, blocks: None };
        let folder = model.write(cache.path(), &|_| {}).unwrap();
        let options =
            Options { device: "auto".into(), weights: WeightFormat::Bf16, cold: false, repetitions: 2 };
        let table = &run(&folder, &options, &|_| {}).unwrap().tables[0];
        assert!(table.number(0, "time_ms") > Some(0.0));
        assert!(table.number(1, "time_ms") > table.number(0, "time_ms"));
        assert!(table.number(2, "time_ms") >= table.number(1, "time_ms"));
    }
}
