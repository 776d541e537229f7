//! What the store needs of a database: statements run one after the other, in a transaction that sees one state of
//! things. A statement is text and values; values are plain, so that the store's logic names no driver's types.

pub(crate) mod sqlite;

use std::future::Future;
use std::sync::Arc;

use engine::read_store::StoreFault;
use engine::view::ColumnKind;
use serde_json::Value;

/// A statement and its values. Placeholders are `$1`, `$2`, …
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Made of checked identifiers and placeholders only; values never become text.
    pub(crate) text: Arc<str>,
    /// The values, by placeholder.
    pub(crate) binds: Vec<Bind>,
}

impl Statement {
    /// A statement without values.
    pub(crate) fn plain(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), binds: Vec::new() }
    }

    /// A statement with values.
    pub(crate) fn new(text: impl Into<Arc<str>>, binds: Vec<Bind>) -> Self {
        Self { text: text.into(), binds }
    }
}

/// A value for a placeholder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bind {
    /// A 64-bit integer.
    Integer(i64),
    /// Text; may hold NUL.
    Text(String),
}

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// One statement that reads: no transaction is needed for it to see one state.
    Read,
    /// Several statements that read the same state.
    Snapshot,
    /// Reads and writes, alone: the right to write is taken at the start, so that nothing read in it can be outdated.
    Write,
}

/// An open transaction. Dropped without `commit`, it is rolled back.
pub(crate) trait Session: Send + Sized {
    /// Runs a statement and counts the rows it changed.
    fn execute(&mut self, statement: Statement) -> impl Future<Output = Result<u64, StoreFault>> + Send;

    /// Runs a statement and collects its rows, whose columns are of these kinds.
    fn fetch(
        &mut self,
        statement: Statement,
        kinds: &[ColumnKind],
    ) -> impl Future<Output = Result<Vec<Vec<Value>>, StoreFault>> + Send;

    /// Makes it so.
    fn commit(self) -> impl Future<Output = Result<(), StoreFault>> + Send;

    /// Makes it as if nothing had been.
    fn rollback(self) -> impl Future<Output = Result<(), StoreFault>> + Send;
}
