//! Logs: for a person on a terminal, as JSON lines everywhere else, always on stderr (stdout belongs to answers). What is
//! logged is chosen by `RUST_LOG`. Control characters in values are escaped in both forms, so nobody can forge a line. A
//! panic is logged once, as an error with its place and the span it happened in.

use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

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
        registry.with(json_layer(io::stderr)).try_init()
    } else {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry.with(text_layer(io::stderr, colours)).try_init()
    }
    .map_err(TelemetryError::Taken)?;
    log_panics();
    Ok(())
}

/// One object per line: the event's fields beside time, level and target; the span's, with the request's ids, within
/// `span`.
fn json_layer<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer)
}

fn text_layer<S, W>(writer: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    tracing_subscriber::fmt::layer().compact().with_ansi(colours).fmt_fields(escape::EscapedFields).with_writer(writer)
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was logged so far.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    const FORGED: &str = "a\r\n{\"level\":\"INFO\"}\u{1b}[2J\0";

    fn log_something_forged() {
        let span = tracing::info_span!("request", request.id = 7, path = FORGED);
        span.in_scope(|| tracing::info!(actor = FORGED, "somebody asked for {FORGED}"));
    }

    #[test]
    fn a_json_line_is_one_line_whatever_is_in_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log_something_forged);
        let text = lines.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["actor"], FORGED);
        assert_eq!(line["span"]["request.id"], 7);
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    }

    #[test]
    fn a_text_line_is_one_line_whatever_is_in_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(text_layer(move || writer.clone(), false));
        tracing::subscriber::with_default(subscriber, log_something_forged);
        let text = lines.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        assert!(text.contains("request.id=7"), "{text}");
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("auto".parse(), Ok(LogFormat::Auto));
        assert_eq!("JSON".parse::<LogFormat>(), Err(UnknownLogFormat));
    }
}
