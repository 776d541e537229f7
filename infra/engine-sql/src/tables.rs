//! What the store's tables look like, checked once when it is opened: names are plain enough to stand in a statement's
//! text, so nothing else ever has to. Also what fits them: rows and values of the right kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::read_store::StoreFault;
use engine::view::{Column, ColumnKind, Doc, Row, Table};
use serde_json::{Value, json};

use crate::dialect::{Dialect, quoted};
use crate::sets::{CheckpointTexts, Set};

/// Names a view's table or column may not take: the store's own.
const TABLES_OWN: [&str; 4] = ["meta", "checkpoints", "members", "docket_leases"];
/// What table names of the second set end with, and so no view's may.
pub(crate) const SECOND: &str = "__b";
const COLUMNS_OWN: [&str; 3] = ["key", "version", "doc"];
/// 63: what Postgres keeps of a name; two names that differ only after that would be one. Three less: see `SECOND`.
const NAME_BYTES_MAX: usize = 60;

/// An index for lists that filter by some columns and sort by another: filters first, the sort column last; the key
/// follows by itself. A table that has any gets only these; one that has none gets an index for each of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// The table.
    pub table: &'static str,
    /// Its columns.
    pub columns: &'static [&'static str],
}

/// A table and the texts made of it.
#[derive(Clone, Debug)]
pub(crate) struct TableSpec {
    pub(crate) name: &'static str,
    /// What the table is called in its set.
    pub(crate) stored: String,
    pub(crate) columns: &'static [Column],
    pub(crate) indexes: Vec<Vec<&'static str>>,
    /// Of a fetched row: key, version, document, columns.
    pub(crate) kinds: Vec<ColumnKind>,
    /// `SELECT` of such a row, up to and without `WHERE`.
    pub(crate) select: String,
    pub(crate) load: Arc<str>,
    /// See [`Dialect::upsert`].
    pub(crate) upsert: Vec<Arc<str>>,
    /// See [`Dialect::insert`].
    pub(crate) insert: Option<Arc<str>>,
    pub(crate) delete: Arc<str>,
}

/// All tables of a store, as one of its two sets holds them.
#[derive(Debug)]
pub(crate) struct Tables {
    by_name: BTreeMap<&'static str, TableSpec>,
    /// The version of the views' folds.
    pub(crate) view_version: u32,
    pub(crate) checkpoints: CheckpointTexts,
    /// See [`Dialect::move_texts`].
    pub(crate) moves: Vec<Arc<str>>,
}

impl Tables {
    /// Checks the specification and makes the texts.
    pub(crate) fn new(
        tables: &[Table],
        indexes: &[Index],
        view_version: u32,
        dialect: &impl Dialect,
        set: Set,
    ) -> Result<Self, StoreFault> {
        let mut by_name = BTreeMap::new();
        for table in tables {
            let spec = specify(table, indexes, dialect, set)?;
            if by_name.insert(table.name, spec).is_some() {
                return Err(misused(format!("table {} is specified twice", table.name)));
            }
        }
        if let Some(index) = indexes.iter().find(|index| !by_name.contains_key(index.table)) {
            return Err(misused(format!("an index is for table {:?}, which is not there", index.table)));
        }
        let moves = dialect.move_texts(&quoted(&set.stored("checkpoints")));
        Ok(Self { by_name, view_version, checkpoints: CheckpointTexts::of(set), moves })
    }

    /// The table of this name.
    pub(crate) fn get(&self, name: &str) -> Result<&TableSpec, StoreFault> {
        self.by_name.get(name).ok_or_else(|| misused(format!("it has no table {name:?}")))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TableSpec> {
        self.by_name.values()
    }

    /// The specification as text; tables made from an equal text are alike and folded alike.
    pub(crate) fn text(&self) -> String {
        let tables = self.iter().map(|table| {
            let columns = table.columns.iter().map(|column| {
                let kind = match column.kind {
                    ColumnKind::Text => "text",
                    ColumnKind::Integer => "integer",
                };
                json!([column.name, kind])
            });
            (table.name.to_owned(), json!({ "columns": columns.collect::<Vec<_>>(), "indexes": table.indexes }))
        });
        json!({ "view_version": self.view_version, "tables": Value::Object(tables.collect()) }).to_string()
    }
}

impl TableSpec {
    /// The quoted name and the kind of a column; `key` is one.
    pub(crate) fn column(&self, name: &str) -> Result<(String, ColumnKind), StoreFault> {
        if name == "key" {
            return Ok((quoted("key"), ColumnKind::Text));
        }
        let column = self.columns.iter().find(|column| column.name == name);
        let column = column.ok_or_else(|| misused(format!("table {} has no column {name:?}", self.name)))?;
        Ok((quoted(column.name), column.kind))
    }

    /// Whether the row can be kept here.
    pub(crate) fn accept(&self, key: &str, row: &Row) -> Result<(), StoreFault> {
        let fits = |(column, value): (&Column, &Value)| match (column.kind, value) {
            (_, Value::Null) | (ColumnKind::Text, Value::String(_)) => true,
            (ColumnKind::Integer, value) => value.is_i64(),
            _ => false,
        };
        if row.columns.len() != self.columns.len() || !self.columns.iter().zip(&row.columns).all(fits) {
            return Err(misused(format!("the columns of row {key:?} do not fit table {}", self.name)));
        }
        if i64::try_from(row.version).is_err() {
            return Err(misused(format!("the version of row {key:?} in table {} is too large", self.name)));
        }
        Ok(())
    }

    /// Makes a fetched row what it was.
    pub(crate) fn row(&self, cells: Vec<Value>) -> Result<(String, Row), StoreFault> {
        let mut cells = cells.into_iter();
        let (Some(Value::String(key)), Some(version), Some(Value::String(doc))) =
            (cells.next(), cells.next(), cells.next())
        else {
            return Err(StoreFault::Damaged(format!("a row of table {} has no key, version or document", self.name)));
        };
        let damaged = |what: &str| StoreFault::Damaged(format!("row {key:?} of table {} has {what}", self.name));
        let version = version.as_u64().ok_or_else(|| damaged("no version"))?;
        let doc = Doc::from_text(doc).map_err(|_| damaged("a document that is no JSON"))?;
        Ok((key, Row { version, doc, columns: cells.collect() }))
    }
}

/// The fault of a caller that asks for what cannot be.
pub(crate) fn misused(what: String) -> StoreFault {
    StoreFault::Misused(what)
}

fn specify(table: &Table, indexes: &[Index], dialect: &impl Dialect, set: Set) -> Result<TableSpec, StoreFault> {
    let name = table.name;
    let reserved = name.starts_with("sqlite_") || name.starts_with("pg_") || name.ends_with(SECOND);
    if !is_plain(name) || TABLES_OWN.contains(&name) || reserved {
        return Err(misused(format!("{name:?} cannot be a table's name")));
    }
    for (index, column) in table.columns.iter().enumerate() {
        let twice = table.columns.iter().take(index).any(|earlier| earlier.name == column.name);
        if !is_plain(column.name) || COLUMNS_OWN.contains(&column.name) || twice {
            return Err(misused(format!("{:?} cannot be a column's name in table {name}", column.name)));
        }
    }
    let mut own =
        indexes.iter().filter(|index| index.table == name).map(|index| index.columns.to_vec()).collect::<Vec<_>>();
    if let Some(unknown) = own.iter().flatten().find(|name| !table.columns.iter().any(|column| column.name == **name)) {
        return Err(misused(format!("an index of table {name} has column {unknown:?}, which is not there")));
    }
    if own.is_empty() {
        own = table.columns.iter().map(|column| vec![column.name]).collect();
    }
    let mut kinds = vec![ColumnKind::Text, ColumnKind::Integer, ColumnKind::Text];
    let mut select = String::from("SELECT \"key\", \"version\", \"doc\"");
    for column in table.columns {
        kinds.push(column.kind);
        select.push_str(", ");
        select.push_str(&quoted(column.name));
    }
    select.push_str(" FROM ");
    let stored = set.stored(name);
    select.push_str(&quoted(&stored));
    let among = dialect.among_texts(&quoted("key"), 1);
    let mut spec = TableSpec {
        name,
        columns: table.columns,
        indexes: own,
        kinds,
        load: format!("{select} WHERE {among}").into(),
        upsert: Vec::new(),
        insert: None,
        delete: format!("DELETE FROM {} WHERE {among}", quoted(&stored)).into(),
        select,
        stored,
    };
    spec.upsert = dialect.upsert(&spec);
    spec.insert = dialect.insert(&spec);
    Ok(spec)
}

/// Whether a name can stand in a statement's text.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= NAME_BYTES_MAX
}
