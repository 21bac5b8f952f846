//! The binary `ocellus`: arguments come in, a running server or an answer on the terminal goes out.
//!
//! Each command has a file of its own: what was typed, what it means, and doing it. **Absent here:** how a model works
//! and how HTTP is spoken; both are called through the doors of `ocellus-engine` and `ocellus-server`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod embedded;
mod memory;
mod model;
mod sample_call;
mod serve;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// A local inference engine for Qwen2.5-VL: pictures and questions in, answers out.
#[derive(Debug, Parser)]
#[command(name = "ocellus", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Answer HTTP requests in the dialect of OpenAI's chat completions.
    Serve(serve::Arguments),
    /// Ask one question about pictures, and read the answer here.
    Ask(ask::Arguments),
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
    let arguments = Arguments::parse();
    start_log();
    let done = match arguments.command {
        Command::Serve(typed) => typed.parse().and_then(serve::Serve::apply),
        Command::Ask(typed) => typed.parse().and_then(ask::Ask::apply),
    };
    let (status, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Failed(error)) => (1, format!("{error:#}")),
    };
    // One line, whatever the cause is made of. Nothing is left to be done when even this can't be written.
    let _ =
        writeln!(std::io::stderr(), "error: {}", message.split_whitespace().collect::<Vec<_>>().join(" "));
    ExitCode::from(status)
}

/// The log goes to the standard error stream. `OCELLUS_LOG` chooses what, in the syntax of `tracing`'s `EnvFilter`.
fn start_log() {
    let filter =
        EnvFilter::try_from_env("OCELLUS_LOG").unwrap_or_else(|_| EnvFilter::new("warn,ocellus_server=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// clap checks the definitions of all flags only when it is asked to.
    #[test]
    fn flags_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
