//! Fields for a terminal. A value may be anything a client sent: its control characters, bidirectional overrides
//! included, are written as escapes, so that it can neither end a line nor hide in one.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Longest value that is shown, in characters; the rest is cut.
const VALUE_CHARS_MAX: usize = 1_024;

/// Writes `message name=value name=value`.
pub(super) struct EscapedFields;

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Escaping { writer, first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Escaping<'writer> {
    writer: Writer<'writer>,
    first: bool,
    result: fmt::Result,
}

impl Visit for Escaping<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let gap = if std::mem::take(&mut self.first) { "" } else { " " };
        let name = field.name();
        self.result = (|| {
            self.writer.write_str(gap)?;
            if name != "message" {
                self.writer.write_str(name)?;
                self.writer.write_char('=')?;
            }
            escape(&mut self.writer, &format!("{value:?}"))
        })();
    }
}

/// Writes `text` without anything that a terminal would obey.
fn escape(writer: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    for (count, char) in text.chars().enumerate() {
        if count == VALUE_CHARS_MAX {
            return writer.write_char('…');
        }
        if char.is_control() || is_hidden(char) {
            write!(writer, "{}", char.escape_unicode())?;
        } else {
            writer.write_char(char)?;
        }
    }
    Ok(())
}

/// Line and paragraph separators, and marks that change the direction of what follows.
fn is_hidden(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        escape(&mut out, text).unwrap();
        out
    }

    #[test]
    fn nothing_a_terminal_obeys_passes() {
        assert_eq!(escaped("plain, ünïcode"), "plain, ünïcode");
        assert_eq!(escaped("a\r\nb"), "a\\u{d}\\u{a}b");
        assert_eq!(escaped("\u{1b}[31mred"), "\\u{1b}[31mred");
        assert_eq!(escaped("nul\0"), "nul\\u{0}");
        assert_eq!(escaped("abc\u{202e}fed"), "abc\\u{202e}fed");
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(escaped(&"a".repeat(5_000)).chars().count(), VALUE_CHARS_MAX + 1);
    }
}
