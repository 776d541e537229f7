//! How a database says it: the few statements that differ between SQL dialects. Many rows or many values always travel
//! as *one* value, so that a statement has one text whatever the size of a batch.

pub(crate) mod sqlite;

use std::collections::BTreeMap;

use engine::view::Row;

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

    /// Rows as values of `upsert`. Their columns fit the table.
    fn rows(&self, rows: &BTreeMap<String, Row>) -> Vec<Bind>;

    /// Texts as one value.
    fn texts<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Bind;

    /// Integers as one value.
    fn integers(&self, integers: impl Iterator<Item = i64>) -> Bind;
}

/// Quotes an identifier that `tables` has checked.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}
