//! Logs: for a person on a terminal, as JSON lines everywhere else, always on stderr (stdout belongs to answers). What is
//! logged is chosen by `RUST_LOG`. Control characters in values are escaped in both forms, so nobody can forge a line. A
//! panic is logged once, as an error with its place and the span it happened in.

use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod escape;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// [`Text`](Self::Text) on a terminal, else [`Json`](Self::Json).
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Compact, in colour unless `NO_COLOR` is set or stderr is no terminal.
    Text,
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(UnknownLogFormat),
        }
    }
}

/// A word that names no format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be auto, json or text")]
pub struct UnknownLogFormat;

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` or the default filter is not a filter.
    #[error("the log filter cannot be read (RUST_LOG)")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Somebody else logs in this process already.
    #[error("logging is set up already")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging to stderr: what `RUST_LOG` chooses, else what `filter_default` (such as `info`) does. Once per process.
pub fn init(format: LogFormat, filter_default: &str) -> Result<(), TelemetryError> {
    let chosen = std::env::var("RUST_LOG").ok().filter(|chosen| !chosen.trim().is_empty());
    let filter =
        EnvFilter::builder().parse(chosen.as_deref().unwrap_or(filter_default)).map_err(TelemetryError::Filter)?;
    let terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(io::stderr);
        registry.with(layer).try_init()
    } else {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let layer = tracing_subscriber::fmt::layer()
            .compact()
            .with_ansi(colours)
            .fmt_fields(escape::EscapedFields)
            .with_writer(io::stderr);
        registry.with(layer).try_init()
    }
    .map_err(TelemetryError::Taken)?;
    log_panics();
    Ok(())
}

/// In place of the standard hook, which writes lines that no log reader understands.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let said = panic.payload_as_str().unwrap_or("something that is no text");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => backtrace.to_string(),
            _ => String::new(),
        };
        tracing::error!(panic.message = said, panic.place = %place, panic.backtrace = %backtrace, "a task panicked");
    }));
}
