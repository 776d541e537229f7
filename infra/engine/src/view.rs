//! Read models as folds. A view says which rows an event touches and what they become; where rows are kept is the read
//! store's affair. A row is a JSON document with a few columns to find it by.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

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
    pub doc: Doc,
    /// The table's columns, in its order; text, integers or null.
    pub columns: Vec<Value>,
}

/// A JSON document as text: cheap to keep, to copy and to tell, and read only by whoever folds it.
#[derive(Clone, Debug)]
pub struct Doc(Arc<str>);

/// Bytes that a document is first given room for: most take less than a kibibyte.
const DOC_BYTES: usize = 1 << 10;

impl Doc {
    /// The document of plain data.
    ///
    /// # Panics
    /// If the value is no JSON (maps without text keys): a mistake of its type, not of its content.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        let mut text = Vec::with_capacity(DOC_BYTES);
        serde_json::to_writer(&mut text, value).expect("a document is plain data with text keys");
        Self(String::from_utf8(text).expect("JSON is UTF-8").into())
    }

    /// A document from its text.
    ///
    /// # Errors
    /// If the text is no JSON.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(&text)?;
        Ok(Self(text.into()))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Its text, shared.
    pub fn shared_text(&self) -> Arc<str> {
        self.0.clone()
    }

    /// What it says, as plain data.
    ///
    /// # Errors
    /// If it says something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.text())
    }

    /// What it says, member by member.
    pub fn value(&self) -> Value {
        self.read().expect("a document is JSON")
    }
}

impl From<Value> for Doc {
    fn from(value: Value) -> Self {
        Self::of(&value)
    }
}

/// Two documents are equal if they say the same, however it is written.
impl PartialEq for Doc {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text() || self.value() == other.value()
    }
}

impl Serialize for Doc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
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

    /// Whether this event is the first that ever touches the row: then there is nothing to look up before it. Never true
    /// of any other event; false costs only the look.
    fn begins(&self, _key: &RowKey, _event: &Recorded<Self::Event>) -> bool {
        false
    }

    /// What the row becomes; `None` removes it. Cannot fail.
    fn evolve(&self, key: &RowKey, row: Option<Row>, event: &Recorded<Self::Event>) -> Option<Row>;
}
