//! Read models as folds. A view says which rows an event touches and what they become; where rows are kept is the read
//! store's affair. A row is a JSON document with a few columns to find it by.

use serde_json::Value;

use crate::event::Recorded;

/// A table of a view, as read stores create and query it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, snake_case.
    pub name: &'static str,
    /// Columns beside key, version and document that rows are found and sorted by.
    pub columns: &'static [Column],
}

/// A column that rows are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, snake_case.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text.
    Text,
    /// 64-bit integer.
    Integer,
}

/// A row: what a key amounts to.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The version of the stream it reflects.
    pub version: u64,
    /// The document: what a GET answers.
    pub doc: Value,
    /// The table's columns, in its order; text, integers or null.
    pub columns: Vec<Value>,
}

/// Names one row: table and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// The table's name.
    pub table: &'static str,
    /// The key in it.
    pub key: String,
}

/// A read model.
pub trait View: Send + Sync + 'static {
    /// The business's events.
    type Event: crate::event::Event;

    /// Its tables.
    fn tables(&self) -> &'static [Table];

    /// The rows that the event touches. A row is fed by streams of one partition only.
    fn rows(&self, event: &Recorded<Self::Event>) -> Vec<RowKey>;

    /// What the row becomes; `None` removes it. Cannot fail.
    fn evolve(&self, key: &RowKey, row: Option<Row>, event: &Recorded<Self::Event>) -> Option<Row>;
}
