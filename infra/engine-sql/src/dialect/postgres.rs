//! PostgreSQL, 13 or newer. Many values travel as one array for each column, which `UNNEST` puts side by side: one
//! prepared statement whatever the size of a batch. Many rows that are new are copied instead (`copy`).
//! Documents are `json`, not `jsonb`: they come back to the letter, with their members in order, and analysts can still look
//! into them.

mod copy;

use std::fmt::Write as _;
use std::sync::Arc;

use engine::view::{ColumnKind, Row};
use serde_json::Value;

use super::{Dialect, quoted};
use crate::connection::{Bind, Statement};
use crate::tables::TableSpec;

/// 5,000: a whole batch. Time to parse and plan is nothing then, and a statement stays at some megabytes.
const ROWS_MAX: usize = 5_000;

/// The dialect of PostgreSQL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PostgresDialect;

fn sql_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "text",
        ColumnKind::Integer => "bigint",
    }
}

impl Dialect for PostgresDialect {
    fn move_texts(&self, checkpoints: &str) -> Vec<Arc<str>> {
        let arrays = (1..=11).map(|number| format!("${number}::bigint[]")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "UPDATE {checkpoints} AS c \
             SET next_offset = v.n1, epoch = v.e1, nonce = v.c1, next_seq = v.s1, open = v.o1 \
             FROM UNNEST({arrays}) AS v (p, n1, e1, c1, s1, o1, n0, e0, c0, s0, o0) \
             WHERE c.\"partition\" = v.p AND c.next_offset = v.n0 AND c.epoch = v.e0 AND c.nonce = v.c0 \
                AND c.next_seq = v.s0 AND c.open = v.o0"
        );
        vec![text.into()]
    }

    fn moves(&self, texts: &[Arc<str>], moves: &[[i64; 11]]) -> Vec<Statement> {
        let Some(text) = texts.first().filter(|_| !moves.is_empty()) else { return Vec::new() };
        let column = |index: usize| Bind::Integers(moves.iter().map(|numbers| Some(numbers[index])).collect());
        vec![Statement::new(text.clone(), (0..11).map(column).collect())]
    }

    fn create(&self, table: &TableSpec) -> String {
        let name = quoted(&table.stored);
        // Collation C: text compares by its bytes, also after an upgrade of the system's collations.
        let mut create = format!(
            "CREATE TABLE {name} (\"key\" text COLLATE \"C\" NOT NULL PRIMARY KEY, \"version\" bigint NOT NULL, \"doc\" json NOT NULL"
        );
        for column in table.columns {
            let collate = if column.kind == ColumnKind::Text { " COLLATE \"C\"" } else { "" };
            let _ = write!(create, ", {} {}{collate}", quoted(column.name), sql_type(column.kind));
        }
        // Rows change a few times soon after they came: room for that on their page saves touching every index.
        create.push_str(") WITH (fillfactor = 80)");
        create
    }

    fn create_indexes(&self, table: &TableSpec) -> Vec<String> {
        let name = quoted(&table.stored);
        let index = |columns: &Vec<&str>| {
            let index = quoted(&index_name(&table.stored, columns));
            // Null sorts before everything; read backwards, after everything.
            let columns = columns.iter().map(|column| format!("{} NULLS FIRST", quoted(column))).collect::<Vec<_>>();
            format!("CREATE INDEX IF NOT EXISTS {index} ON {name} ({}, \"key\")", columns.join(", "))
        };
        table.indexes.iter().map(index).collect()
    }

    fn upsert(&self, table: &TableSpec) -> Vec<Arc<str>> {
        let mut text = format!("INSERT INTO {} (\"key\", \"version\", \"doc\"", quoted(&table.stored));
        for column in table.columns {
            let _ = write!(text, ", {}", quoted(column.name));
        }
        text.push_str(") SELECT k, v, d::json");
        for index in 0..table.columns.len() {
            let _ = write!(text, ", c{index}");
        }
        text.push_str(" FROM UNNEST($1::text[], $2::bigint[], $3::text[]");
        for (index, column) in table.columns.iter().enumerate() {
            let _ = write!(text, ", ${}::{}[]", index + 4, sql_type(column.kind));
        }
        text.push_str(") AS given (k, v, d");
        for index in 0..table.columns.len() {
            let _ = write!(text, ", c{index}");
        }
        text.push_str(
            ") ON CONFLICT (\"key\") DO UPDATE SET \"version\" = excluded.\"version\", \"doc\" = excluded.\"doc\"",
        );
        for column in table.columns {
            let column = quoted(column.name);
            let _ = write!(text, ", {column} = excluded.{column}");
        }
        vec![text.into()]
    }

    fn insert(&self, table: &TableSpec) -> Option<Arc<str>> {
        let columns = table.columns.iter().map(|column| format!(", {}", quoted(column.name))).collect::<String>();
        let name = quoted(&table.stored);
        Some(format!("COPY {name} (\"key\", \"version\", \"doc\"{columns}) FROM STDIN (FORMAT binary)").into())
    }

    fn inserts<'a>(
        &self,
        table: &'a TableSpec,
        rows: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Vec<u8>> + Send + 'a> {
        Box::new(copy::pieces(table, rows))
    }

    fn among_texts(&self, column: &str, placeholder: usize) -> String {
        format!("{column} = ANY (${placeholder}::text[])")
    }

    fn among_integers(&self, column: &str, placeholder: usize) -> String {
        format!("{column} = ANY (${placeholder}::bigint[])")
    }

    fn upserts<'a>(
        &self,
        table: &'a TableSpec,
        rows: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Statement> + Send + 'a> {
        let mut rest = rows.iter();
        Box::new(std::iter::from_fn(move || {
            let some = rest.by_ref().take(ROWS_MAX).map(|(key, row)| (*key, *row)).collect::<Vec<_>>();
            let text = table.upsert.first().filter(|_| !some.is_empty())?;
            Some(Statement::new(text.clone(), arrays(table, &some)))
        }))
    }

    fn keys_max(&self) -> usize {
        ROWS_MAX
    }

    fn texts<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Bind {
        Bind::Texts(texts.map(|text| Some(text.to_owned())).collect())
    }

    fn integers(&self, integers: impl Iterator<Item = i64>) -> Bind {
        Bind::Integers(integers.map(Some).collect())
    }
}

/// An array for each column.
fn arrays(table: &TableSpec, rows: &[(&str, &Row)]) -> Vec<Bind> {
    let mut binds = vec![
        Bind::Texts(rows.iter().map(|(key, _)| Some((*key).to_owned())).collect()),
        Bind::Integers(rows.iter().map(|(_, row)| i64::try_from(row.version).ok()).collect()),
        Bind::Texts(rows.iter().map(|(_, row)| Some(row.doc.text().to_owned())).collect()),
    ];
    for (index, column) in table.columns.iter().enumerate() {
        let values = rows.iter().filter_map(|(_, row)| row.columns.get(index));
        binds.push(match column.kind {
            ColumnKind::Text => Bind::Texts(values.map(|value| value.as_str().map(str::to_owned)).collect()),
            ColumnKind::Integer => Bind::Integers(values.map(Value::as_i64).collect()),
        });
    }
    binds
}

/// A name for an index, cut where PostgreSQL would cut it, but so that two indexes of a table still have two names.
fn index_name(table: &str, columns: &[&str]) -> String {
    let name = format!("{table}__{}", columns.join("__"));
    if name.len() <= 63 {
        return name;
    }
    // FNV-1a, 32 bits: any mixture would do.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}__{hash:08x}", &name[..53])
}
