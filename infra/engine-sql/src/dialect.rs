//! How a database says it: the few statements that differ between SQL dialects. Many rows or many values always travel
//! as *one* value, so that a statement has one text whatever the size of a batch.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use std::collections::BTreeMap;

use engine::view::Row;

use self::postgres::PostgresDialect;
use self::sqlite::SqliteDialect;
use crate::connection::Bind;
use crate::tables::TableSpec;

/// A dialect of SQL. Texts are made once for each table and kept.
pub(crate) trait Dialect {
    /// Makes a view table and its indexes.
    fn create(&self, table: &TableSpec) -> Vec<String>;

    /// Writes rows, all of them in one value: see `rows`.
    fn upsert(&self, table: &TableSpec) -> String;

    /// `column` is one of the texts in the placeholder's value: see `texts`.
    fn among_texts(&self, column: &str, placeholder: usize) -> String;

    /// `column` is one of the integers in the placeholder's value: see `integers`.
    fn among_integers(&self, column: &str, placeholder: usize) -> String;

    /// Rows as values of `upsert`, in order of their keys. Their columns fit the table.
    fn rows(&self, table: &TableSpec, rows: &BTreeMap<&str, &Row>) -> Vec<Bind>;

    /// Most rows or keys that one statement takes.
    fn rows_max(&self) -> usize;

    /// Texts as one value.
    fn texts<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Bind;

    /// Integers as one value.
    fn integers(&self, integers: impl Iterator<Item = i64>) -> Bind;
}

/// Quotes an identifier that `tables` has checked.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// The dialect of whichever database it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyDialect {
    /// SQLite.
    Sqlite(SqliteDialect),
    /// PostgreSQL.
    Postgres(PostgresDialect),
}

macro_rules! either {
    ($self:ident, $dialect:ident => $does:expr) => {
        match $self {
            Self::Sqlite($dialect) => $does,
            Self::Postgres($dialect) => $does,
        }
    };
}

impl Dialect for AnyDialect {
    fn create(&self, table: &TableSpec) -> Vec<String> {
        either!(self, dialect => dialect.create(table))
    }

    fn upsert(&self, table: &TableSpec) -> String {
        either!(self, dialect => dialect.upsert(table))
    }

    fn among_texts(&self, column: &str, placeholder: usize) -> String {
        either!(self, dialect => dialect.among_texts(column, placeholder))
    }

    fn among_integers(&self, column: &str, placeholder: usize) -> String {
        either!(self, dialect => dialect.among_integers(column, placeholder))
    }

    fn rows(&self, table: &TableSpec, rows: &BTreeMap<&str, &Row>) -> Vec<Bind> {
        either!(self, dialect => dialect.rows(table, rows))
    }

    fn rows_max(&self) -> usize {
        either!(self, dialect => dialect.rows_max())
    }

    fn texts<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Bind {
        either!(self, dialect => dialect.texts(texts))
    }

    fn integers(&self, integers: impl Iterator<Item = i64>) -> Bind {
        either!(self, dialect => dialect.integers(integers))
    }
}
