//! How a database says it: the few statements that differ between SQL dialects. Texts are made once for each table, and
//! are few: a connection keeps them prepared.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use std::sync::Arc;

use engine::view::Row;

use self::postgres::PostgresDialect;
use self::sqlite::SqliteDialect;
use crate::connection::{Bind, Statement};
use crate::tables::TableSpec;

/// A dialect of SQL. Texts are made once for each table and kept.
pub(crate) trait Dialect {
    /// Moves checkpoints of this table, one text for each number of them that a statement of `moves` has.
    fn move_texts(&self, checkpoints: &str) -> Vec<Arc<str>>;

    /// The statements that move checkpoints: each a partition, the five numbers it goes to, and the five that it must be
    /// at. They change as many rows as there are moves, or somebody else was there.
    fn moves(&self, texts: &[Arc<str>], moves: &[[i64; 11]]) -> Vec<Statement>;

    /// Makes a view table, without its indexes.
    fn create(&self, table: &TableSpec) -> String;

    /// Makes those of its indexes that are not there.
    fn create_indexes(&self, table: &TableSpec) -> Vec<String>;

    /// Writes rows, one text for each number of rows that a statement of `upserts` has.
    fn upsert(&self, table: &TableSpec) -> Vec<Arc<str>>;

    /// Writes rows that are not there yet, if there is a way that is cheaper than `upsert`.
    fn insert(&self, table: &TableSpec) -> Option<Arc<str>>;

    /// The rows as pieces of what `insert` takes, made one by one. The rows' columns fit the table.
    fn inserts<'a>(
        &self,
        table: &'a TableSpec,
        rows: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Vec<u8>> + Send + 'a>;

    /// `column` is one of the texts in the placeholder's value: see `texts`.
    fn among_texts(&self, column: &str, placeholder: usize) -> String;

    /// `column` is one of the integers in the placeholder's value: see `integers`.
    fn among_integers(&self, column: &str, placeholder: usize) -> String;

    /// The statements that write rows, made one by one, in order of their keys. The rows' columns fit the table.
    fn upserts<'a>(
        &self,
        table: &'a TableSpec,
        rows: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Statement> + Send + 'a>;

    /// Most keys that one statement takes.
    fn keys_max(&self) -> usize;

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
    fn move_texts(&self, checkpoints: &str) -> Vec<Arc<str>> {
        either!(self, dialect => dialect.move_texts(checkpoints))
    }

    fn moves(&self, texts: &[Arc<str>], moves: &[[i64; 11]]) -> Vec<Statement> {
        either!(self, dialect => dialect.moves(texts, moves))
    }

    fn create(&self, table: &TableSpec) -> String {
        either!(self, dialect => dialect.create(table))
    }

    fn create_indexes(&self, table: &TableSpec) -> Vec<String> {
        either!(self, dialect => dialect.create_indexes(table))
    }

    fn upsert(&self, table: &TableSpec) -> Vec<Arc<str>> {
        either!(self, dialect => dialect.upsert(table))
    }

    fn insert(&self, table: &TableSpec) -> Option<Arc<str>> {
        either!(self, dialect => dialect.insert(table))
    }

    fn inserts<'a>(
        &self,
        table: &'a TableSpec,
        rows: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Vec<u8>> + Send + 'a> {
        either!(self, dialect => dialect.inserts(table, rows))
    }

    fn among_texts(&self, column: &str, placeholder: usize) -> String {
        either!(self, dialect => dialect.among_texts(column, placeholder))
    }

    fn among_integers(&self, column: &str, placeholder: usize) -> String {
        either!(self, dialect => dialect.among_integers(column, placeholder))
    }

    fn upserts<'a>(
        &self,
        table: &'a TableSpec,
        rows: &'a [(&'a str, &'a Row)],
    ) -> Box<dyn Iterator<Item = Statement> + Send + 'a> {
        either!(self, dialect => dialect.upserts(table, rows))
    }

    fn keys_max(&self) -> usize {
        either!(self, dialect => dialect.keys_max())
    }

    fn texts<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Bind {
        either!(self, dialect => dialect.texts(texts))
    }

    fn integers(&self, integers: impl Iterator<Item = i64>) -> Bind {
        either!(self, dialect => dialect.integers(integers))
    }
}
