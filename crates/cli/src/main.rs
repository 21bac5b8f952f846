//! The binary `ocellus`: arguments come in, a running server or an answer on the terminal goes out.
//!
//! Each command has a file of its own: what was typed, what it means, and doing it. **Absent here:** how a model works
//! and how HTTP is spoken; both are called through the doors of `ocellus-engine` and `ocellus-server`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod bench;
mod count;
mod doctor;
mod document;
mod draw;
mod embedded;
mod find;
mod located;
mod log;
mod memory;
mod model;
mod pull;
mod quantize;
mod sample_call;
mod self_test;
mod serve;
mod settings;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

/// A local inference engine for Qwen2.5-VL: pictures and questions in, answers out.
#[derive(Debug, Parser)]
#[command(name = "ocellus", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What `ocellus` alone says: what it is for, and the first commands to type.
const INTRODUCTION: &str = "\
Ocellus answers questions about pictures, documents and clips with Qwen2.5-VL, on this machine alone.

  ocellus serve                                  a page and an API on http://127.0.0.1:8000, with a tiny built-in model
  ocellus serve --model Qwen/Qwen2.5-VL-3B-Instruct   the same with real weights, which are fetched once; or a folder
  ocellus ask --image a.png \"What is this?\"      one answer, here on the terminal
  ocellus ask --image a.png --draw b.png \"Locate all cups, output the bbox coordinates in JSON format\"
  ocellus pull Qwen/Qwen2.5-VL-3B-Instruct       fetches weights, and goes on where it was interrupted
  ocellus doctor                                 what this machine has to compute on
  ocellus help                                   everything else
";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Answer HTTP requests in the dialect of OpenAI's chat completions.
    Serve(serve::Arguments),
    /// Ask one question about pictures, and read the answer here.
    Ask(ask::Arguments),
    /// Fetch a checkpoint from a hub into the cache, or what is newer of it.
    Pull(pull::Arguments),
    /// Pack a checkpoint's weights once, so that later starts only read them.
    Quantize(quantize::Arguments),
    /// Count the tokens that pictures take.
    Count(count::Arguments),
    /// Measure this machine, single operations and whole models.
    Bench(bench::Arguments),
    /// Say what this machine has to compute on, and why what it has is not used.
    Doctor(doctor::Arguments),
    /// Test a device against the processor's reference: every operation, and a model.
    SelfTest(self_test::Arguments),
}

/// Why a command failed.
enum Failure {
    /// What was typed can't be meant. Exit status 2, as for an unknown flag.
    Usage(String),
    /// It was meant, but it went wrong. Exit status 1.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn main() -> ExitCode {
    ocellus_engine::return_freed_memory();
    let (status, message) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Failed(error)) => (1, format!("{error:#}")),
    };
    // One line, whatever the cause is made of. Nothing is left to be done when even this can't be written.
    let _ =
        writeln!(std::io::stderr(), "error: {}", message.split_whitespace().collect::<Vec<_>>().join(" "));
    ExitCode::from(status)
}

fn run() -> Result<(), Failure> {
    let Some(command) = Arguments::read()? else {
        std::io::stdout().write_all(INTRODUCTION.as_bytes())?;
        return Ok(());
    };
    match command {
        Command::Serve(typed) => {
            log::start(typed.log_format());
            typed.parse().and_then(serve::Serve::apply)
        }
        Command::Ask(typed) => {
            log::start(log::LogFormat::Text);
            typed.parse().and_then(ask::Ask::apply)
        }
        Command::Quantize(typed) => {
            log::start(log::LogFormat::Text);
            typed.apply()
        }
        Command::Pull(typed) => typed.apply(),
        Command::Count(typed) => typed.apply(),
        Command::Bench(typed) => typed.apply(),
        Command::Doctor(typed) => typed.apply(),
        Command::SelfTest(typed) => {
            log::start(log::LogFormat::Text);
            typed.apply()
        }
    }
}

impl Arguments {
    /// Reads what was typed, with the file of settings that it may name. Ends the process for `--help`, for what
    /// clap refuses, and after `--print-config`. None: nothing was typed.
    fn read() -> Result<Option<Command>, Failure> {
        let mut command = Self::command();
        if let Some(serve) = command.find_subcommand("serve").cloned() {
            command = command.mut_subcommand("serve", |_| settings::with_environment(serve));
        }
        let mut matches = command.clone().get_matches();
        if let Some(Command::Serve(typed)) = Self::from_arg_matches(&matches)?.command
            && let Some(path) = typed.config
            && let Some(serve) = command.find_subcommand("serve").cloned()
        {
            let serve = settings::with_file(serve, &path).map_err(Failure::Usage)?;
            command = command.mut_subcommand("serve", |_| serve);
            matches = command.clone().get_matches();
        }
        let read = Self::from_arg_matches(&matches)?.command;
        if let Some(Command::Serve(typed)) = &read
            && typed.print_config
            && let (Some(serve), Some(matches)) =
                (command.find_subcommand("serve"), matches.subcommand_matches("serve"))
        {
            let text = settings::print(serve, matches);
            typed.clone().parse()?;
            std::io::stdout().write_all(text.as_bytes())?;
            std::process::exit(0);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// A reader takes in ten lines; and they name only what there is.
    #[test]
    fn the_introduction_is_short_and_true() {
        assert!(super::INTRODUCTION.lines().count() <= 10);
        let command = super::Arguments::command();
        let lines = super::INTRODUCTION.lines().filter_map(|line| line.strip_prefix("  ocellus "));
        for name in lines.filter_map(|line| line.split(' ').next()) {
            assert!(name == "help" || command.find_subcommand(name).is_some(), "{name}");
        }
    }

    /// clap checks the definitions of all flags only when it is asked to.
    #[test]
    fn flags_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
