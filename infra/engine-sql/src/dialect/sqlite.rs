//! SQLite, 3.51 or newer (the one that is compiled in). Many values travel as a JSON array that `json_each` takes apart,
//! rows as an array of arrays; `jsonb_each` hands each row on in binary, so that it is parsed once and not once for every
//! column.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use engine::view::{ColumnKind, Row};
use serde::Serialize;

use super::{Dialect, quoted};
use crate::connection::Bind;
use crate::tables::TableSpec;

/// 1 KiB: an order of three lines with its columns. Only saves the buffer from growing.
const ROW_BYTES_USUAL: usize = 1 << 10;

/// The dialect of SQLite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SqliteDialect;

impl Dialect for SqliteDialect {
    fn create(&self, table: &TableSpec) -> Vec<String> {
        let name = quoted(table.name);
        // STRICT: else SQLite would keep text in an integer column, and compare it as larger than any number.
        let mut create = format!(
            "CREATE TABLE {name} (\"key\" TEXT NOT NULL PRIMARY KEY, \"version\" INTEGER NOT NULL, \"doc\" TEXT NOT NULL"
        );
        for column in table.columns {
            let kind = match column.kind {
                ColumnKind::Text => "TEXT",
                ColumnKind::Integer => "INTEGER",
            };
            let _ = write!(create, ", {} {kind}", quoted(column.name));
        }
        create.push_str(") STRICT");
        let mut statements = vec![create];
        for columns in &table.indexes {
            let index = quoted(&format!("{}__{}", table.name, columns.join("__")));
            let columns = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
            statements.push(format!("CREATE INDEX {index} ON {name} ({columns}, \"key\")"));
        }
        statements
    }

    fn upsert(&self, table: &TableSpec) -> String {
        let columns = table.columns.iter().map(|column| quoted(column.name)).collect::<Vec<_>>();
        let mut text = format!("INSERT INTO {} (\"key\", \"version\", \"doc\"", quoted(table.name));
        for column in &columns {
            let _ = write!(text, ", {column}");
        }
        // `->` gives JSON, `->>` an SQL value.
        text.push_str(") SELECT value ->> 0, value ->> 1, value -> 2");
        for index in 0..columns.len() {
            let _ = write!(text, ", value ->> {}", index + 3);
        }
        // WHERE: without it SQLite takes ON CONFLICT for the condition of a join.
        text.push_str(" FROM jsonb_each($1) WHERE true ON CONFLICT (\"key\") DO UPDATE SET \"version\" = excluded.\"version\", \"doc\" = excluded.\"doc\"");
        for column in &columns {
            let _ = write!(text, ", {column} = excluded.{column}");
        }
        text
    }

    fn among_texts(&self, column: &str, placeholder: usize) -> String {
        format!("{column} IN (SELECT value FROM json_each(${placeholder}))")
    }

    fn among_integers(&self, column: &str, placeholder: usize) -> String {
        self.among_texts(column, placeholder)
    }

    fn rows(&self, _table: &TableSpec, rows: &BTreeMap<&str, &Row>) -> Vec<Bind> {
        let mut json = Vec::with_capacity(rows.len() * ROW_BYTES_USUAL);
        json.push(b'[');
        for (key, row) in rows {
            if json.len() > 1 {
                json.push(b',');
            }
            json.push(b'[');
            append(&mut json, key);
            json.push(b',');
            append(&mut json, &row.version);
            json.push(b',');
            json.extend_from_slice(row.doc.text().as_bytes());
            for value in &row.columns {
                json.push(b',');
                append(&mut json, value);
            }
            json.push(b']');
        }
        json.push(b']');
        vec![text(json)]
    }

    fn rows_max(&self) -> usize {
        // 128: with documents of a kilobyte a statement's value stays at a hundred kilobytes or so. Allocators take values
        // of megabytes straight from the system and give them straight back, and clearing their pages then costs more
        // than the statements that are saved.
        128
    }

    fn texts<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Bind {
        array(texts)
    }

    fn integers(&self, integers: impl Iterator<Item = i64>) -> Bind {
        array(integers)
    }
}

fn array<T: Serialize>(values: impl Iterator<Item = T>) -> Bind {
    let mut json = vec![b'['];
    for value in values {
        if json.len() > 1 {
            json.push(b',');
        }
        append(&mut json, &value);
    }
    json.push(b']');
    text(json)
}

fn append(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Texts, numbers and JSON values: none has a key that is no text, and a vector takes everything.
    serde_json::to_writer(json, value).expect("this can be written as JSON");
}

fn text(json: Vec<u8>) -> Bind {
    Bind::Text(String::from_utf8(json).expect("JSON is UTF-8"))
}
