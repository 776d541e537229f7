//! What a command prints: a table for people, and for programs JSON as the server said it, one item a line, or CSV. Tables
//! and colour are for terminals; a pipe gets JSON unless told otherwise, and `NO_COLOR` is heeded.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use schemas::money::Money;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// As the server said it, indented
    Json,
    /// One JSON document a line
    Ndjson,
    /// Comma-separated values with a header line, nested fields by dotted names
    Csv,
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// How.
    pub(crate) format: Format,
    /// In which colours.
    pub(crate) paint: Paint,
}

impl Screen {
    /// Standard output as asked for; by default a table on a terminal and JSON elsewhere.
    pub(crate) fn stdout(asked: Option<Format>) -> Self {
        let terminal = io::stdout().is_terminal();
        let format = asked.unwrap_or(if terminal { Format::Table } else { Format::Json });
        Self { format, paint: Paint::on(terminal) }
    }

    /// Prints one document; `table` lays it out for people.
    pub(crate) fn item(&self, item: &Value, table: impl FnOnce(&Value, Paint) -> String) -> Result<(), Failure> {
        say(&match self.format {
            Format::Table => table(item, self.paint),
            Format::Json => pretty(item),
            Format::Ndjson => format!("{item}\n"),
            Format::Csv => csv(std::slice::from_ref(item)),
        })
    }

    /// Prints a page of a list (`{"items":[…],"next_cursor":…}`) under these columns.
    pub(crate) fn list(&self, page: &Value, columns: &[Column]) -> Result<(), Failure> {
        let items = items(page);
        say(&match self.format {
            Format::Table if items.is_empty() => "nothing found\n".to_owned(),
            Format::Table => table(columns, items, self.paint),
            Format::Json => pretty(page),
            Format::Ndjson => items.iter().map(|item| format!("{item}\n")).collect(),
            Format::Csv => csv(items),
        })
    }
}

/// The items of a page.
pub(crate) fn items(page: &Value) -> &[Value] {
    page["items"].as_array().map_or(&[], Vec::as_slice)
}

/// A column of a table: its title, and how it is read from an item.
pub(crate) struct Column {
    /// Its title.
    pub(crate) title: &'static str,
    /// What it shows of an item.
    pub(crate) show: fn(&Value) -> Cell,
}

/// Lays out `items` under `columns`.
pub(crate) fn table(columns: &[Column], items: &[Value], paint: Paint) -> String {
    let header = columns.iter().map(|column| Cell::new(column.title).add_attribute(Attribute::Dim)).collect();
    grid(header, items.iter().map(|item| columns.iter().map(|column| (column.show)(item)).collect()), paint)
}

/// Lays out cells in columns as wide as they need, without lines.
pub(crate) fn grid(header: Vec<Cell>, rows: impl Iterator<Item = Vec<Cell>>, paint: Paint) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if paint.0 {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    if !header.is_empty() {
        table.set_header(header);
    }
    table.add_rows(rows);
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// A field as text: what a JSON string holds, nothing for null, else as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Money as people write it: `19.99 EUR`.
pub(crate) fn money(value: &Value) -> String {
    serde_json::from_value::<Money>(value.clone()).map_or_else(|_| text(value), |money| money.to_string())
}

/// A time to the second, in UTC.
pub(crate) fn time(value: &Value) -> String {
    let text = text(value);
    match text.get(..19) {
        Some(second) => second.replacen('T', " ", 1),
        None => text,
    }
}

/// A state or status in its colour: green for a good end, red for a bad one, yellow for what needs patience.
pub(crate) fn state(value: &Value) -> Cell {
    let word = text(value);
    let colour = match word.as_str() {
        "confirmed" | "shipped" | "delivered" | "completed" | "done" => Some(Color::Green),
        "cancelled" | "failed" | "parked" | "stuck-forward" | "stuck-compensating" => Some(Color::Red),
        "retrying" | "compensating" | "compensated" | "undone" | "waiting" | "running" => Some(Color::Yellow),
        _ => None,
    };
    let cell = Cell::new(word);
    colour.map_or(cell.clone(), |colour| cell.fg(colour))
}

/// Prints to standard output. A reader that went away (`| head`) ends the process quietly: nobody is left to be told.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::of("cannot print", &error)),
    }
}

/// A document, indented, with a line end.
pub(crate) fn pretty(value: &Value) -> String {
    // The alternate form of a JSON value is its indented form.
    format!("{value:#}\n")
}

/// Comma-separated values (RFC 4180): a header of all leaf fields met, in the order in which they were met, then a row an
/// item. Lists stay JSON.
pub(crate) fn csv(items: &[Value]) -> String {
    let mut header = Vec::<String>::new();
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let mut row = Map::new();
        flatten("", item, &mut row);
        for name in row.keys() {
            if !header.contains(name) {
                header.push(name.clone());
            }
        }
        rows.push(row);
    }
    // Where some item has a money and another a null, the null's own column says nothing.
    let all = header.clone();
    header.retain(|name| !all.iter().any(|other| other.starts_with(&format!("{name}."))));
    let line = |fields: Vec<String>| fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",") + "\r\n";
    let mut csv = line(header.clone());
    for row in rows {
        csv.push_str(&line(header.iter().map(|name| row.get(name).map(text).unwrap_or_default()).collect()));
    }
    csv
}

fn flatten(prefix: &str, value: &Value, row: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, row);
            }
        }
        leaf => {
            row.insert(prefix.to_owned(), leaf.clone());
        }
    }
}

fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For a stream that is a terminal or not; never if `NO_COLOR` is set.
    pub(crate) fn on(terminal: bool) -> Self {
        Self(terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()))
    }

    /// None.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(false)
    }

    /// What went well.
    pub(crate) fn good(self, text: &str) -> String {
        self.in_colour("32", text)
    }

    /// What went wrong.
    pub(crate) fn bad(self, text: &str) -> String {
        self.in_colour("31", text)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.in_colour("2", text)
    }

    fn in_colour(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn money_is_shown_in_the_units_of_its_currency() {
        assert_eq!(money(&json!({"amount": 1999, "currency": "EUR"})), "19.99 EUR");
        assert_eq!(money(&json!({"amount": 1999, "currency": "JPY"})), "1999 JPY");
        assert_eq!(money(&Value::Null), "");
    }

    #[test]
    fn csv_has_a_column_a_leaf_and_quotes_what_would_break_it() {
        let rows = [
            json!({"id": 1, "total": {"amount": 5, "currency": "EUR"}, "note": "a, \"b\""}),
            json!({"id": 2, "total": null, "lines": [1, 2]}),
        ];
        assert_eq!(
            csv(&rows),
            "id,total.amount,total.currency,note,lines\r\n1,5,EUR,\"a, \"\"b\"\"\",\r\n2,,,,\"[1,2]\"\r\n"
        );
    }

    #[test]
    fn tables_have_a_header_and_a_row_an_item() {
        let columns = [
            Column { title: "id", show: |item| Cell::new(text(&item["id"])) },
            Column { title: "placed", show: |item| Cell::new(time(&item["at"])) },
        ];
        let items = [json!({"id": "a", "at": "2026-11-21T10:00:00.123456Z"})];
        let shown = table(&columns, &items, Paint::never());
        let lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(lines, [vec!["id", "placed"], vec!["a", "2026-11-21", "10:00:00"]]);
    }

    #[test]
    fn colours_are_left_out_where_nobody_sees_them() {
        assert_eq!(Paint(false).good("done"), "done");
        assert_eq!(Paint(true).good("done"), "\x1b[32mdone\x1b[0m");
    }
}
