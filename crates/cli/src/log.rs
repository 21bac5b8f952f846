//! The log: on the standard error stream, as text for people or as JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// Starts it. `OCELLUS_LOG` chooses what, in the syntax of `tracing`'s `EnvFilter`.
pub(crate) fn start(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env("OCELLUS_LOG").unwrap_or_else(|_| EnvFilter::new("warn,ocellus_server=info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        // Fields at the top level, and those of the request's span under `span`.
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).init(),
    }
}
