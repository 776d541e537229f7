//! SQLite, 3.51 or newer (the one that is compiled in). Keys travel as a JSON array that `json_each` takes apart, rows as a
//! value for each column: there is no network to save, and what is not made into JSON need not be read again.

use std::fmt::Write as _;
use std::sync::Arc;

use engine::view::{ColumnKind, Row};
use serde::Serialize;
use serde_json::Value;

use super::{Dialect, quoted};
use crate::connection::{Bind, Statement};
use crate::tables::TableSpec;

/// Rows that one statement may have. 64 at most: more save nothing. In between only powers of two, so that any number of
/// rows takes few statements and there are few texts to keep prepared.
static ROWS_IN_STATEMENTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The dialect of SQLite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SqliteDialect;

/// Checkpoints that one statement may move: 16 at most, all that a log of the usual size has. What is left over is null,
/// which moves nothing.
static MOVES_IN_STATEMENTS: [usize; 5] = [1, 2, 4, 8, 16];

impl Dialect for SqliteDialect {
    fn move_texts(&self, checkpoints: &str) -> Vec<Arc<str>> {
        let set = "next_offset = column2, epoch = column3, nonce = column4, next_seq = column5, open = column6";
        let at = "\"partition\" = column1 AND next_offset = column7 AND epoch = column8 AND nonce = column9 \
            AND next_seq = column10 AND open = column11";
        let text = |moves: &usize| -> Arc<str> {
            let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; *moves].join(", ");
            format!("UPDATE {checkpoints} SET {set} FROM (VALUES {values}) WHERE {at}").into()
        };
        MOVES_IN_STATEMENTS.iter().map(text).collect()
    }

    fn moves(&self, texts: &[Arc<str>], moves: &[[i64; 11]]) -> Vec<Statement> {
        let most = MOVES_IN_STATEMENTS.last().copied().unwrap_or(1);
        let statement = |moves: &[[i64; 11]]| {
            let mut sizes = MOVES_IN_STATEMENTS.iter().zip(texts);
            let (size, text) = sizes.find(|(size, _)| **size >= moves.len())?;
            let mut binds = moves.iter().flatten().map(|number| Bind::Integer(*number)).collect::<Vec<_>>();
            binds.resize(size * 11, Bind::Null);
            Some(Statement::new(text.clone(), binds))
        };
        moves.chunks(most).filter_map(statement).collect()
    }

    fn create(&self, table: &TableSpec) -> String {
        let name = quoted(&table.stored);
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
        create
    }

    fn create_indexes(&self, table: &TableSpec) -> Vec<String> {
        let name = quoted(&table.stored);
        let index = |columns: &Vec<&str>| {
            let index = quoted(&format!("{}__{}", table.stored, columns.join("__")));
            let columns = columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
            format!("CREATE INDEX IF NOT EXISTS {index} ON {name} ({columns}, \"key\")")
        };
        table.indexes.iter().map(index).collect()
    }

    fn upsert(&self, table: &TableSpec) -> Vec<Arc<str>> {
        let columns = table.columns.iter().map(|column| quoted(column.name)).collect::<Vec<_>>();
        let mut into = format!("INSERT INTO {} (\"key\", \"version\", \"doc\"", quoted(&table.stored));
        let mut conflict = String::from(
            " ON CONFLICT (\"key\") DO UPDATE SET \"version\" = excluded.\"version\", \"doc\" = excluded.\"doc\"",
        );
        for column in &columns {
            let _ = write!(into, ", {column}");
            let _ = write!(conflict, ", {column} = excluded.{column}");
        }
        // Placeholders without numbers: looking for a numbered one takes the longer the more there are.
        let row = format!("(?, ?, ?{})", ", ?".repeat(columns.len()));
        let text = |rows: &usize| -> Arc<str> {
            format!("{into}) VALUES {}{conflict}", vec![row.as_str(); *rows].join(", ")).into()
        };
        ROWS_IN_STATEMENTS.iter().map(text).collect()
    }

    fn insert(&self, _: &TableSpec) -> Option<Arc<str>> {
        None
    }

    fn inserts<'a>(
        &self,
        _: &'a TableSpec,
        _: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Vec<u8>> + Send + 'a> {
        Box::new(std::iter::empty())
    }

    fn among_texts(&self, column: &str, placeholder: usize) -> String {
        format!("{column} IN (SELECT value FROM json_each(${placeholder}))")
    }

    fn among_integers(&self, column: &str, placeholder: usize) -> String {
        self.among_texts(column, placeholder)
    }

    fn upserts<'a>(
        &self,
        table: &'a TableSpec,
        rows: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Statement> + Send + 'a> {
        let mut rest = rows.iter();
        Box::new(std::iter::from_fn(move || {
            let sizes = ROWS_IN_STATEMENTS.iter().zip(&table.upsert);
            let (rows, text) = sizes.rev().find(|(size, _)| **size <= rest.len())?;
            let mut binds = Vec::with_capacity(rows * (3 + table.columns.len()));
            for (key, row) in rest.by_ref().take(*rows) {
                binds.push(Bind::Text((*key).to_owned()));
                binds.push(i64::try_from(row.version).map_or(Bind::Null, Bind::Integer));
                binds.push(Bind::Shared(row.doc.shared_text()));
                binds.extend(row.columns.iter().map(|value| match value {
                    Value::String(text) => Bind::Text(text.clone()),
                    value => value.as_i64().map_or(Bind::Null, Bind::Integer),
                }));
            }
            Some(Statement::new(text.clone(), binds))
        }))
    }

    fn keys_max(&self) -> usize {
        // 2,000: keys of some forty bytes stay below a hundred kilobytes. Allocators take larger values straight from the
        // system and give them straight back, and clearing their pages then costs more than the statements that are saved.
        2_000
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
