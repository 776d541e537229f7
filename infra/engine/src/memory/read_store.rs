//! A read store in memory. What the port leaves to SQL is said here in Rust: text compares by bytes, null comes before
//! everything, equals itself and is neither at least nor below anything.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::Value;

use super::lock;
use crate::position::{Checkpoint, LogId, Partition};
use crate::read_store::{Batch, Filter, Query, ReadStore, RowsAt, StoreFault, StoreFuture};
use crate::view::{Row, RowKey, Table};

/// A read store in memory.
pub struct MemoryReadStore {
    tables: &'static [Table],
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    log: Option<LogId>,
    checkpoints: BTreeMap<Partition, Checkpoint>,
    rows: BTreeMap<RowKey, Row>,
}

impl MemoryReadStore {
    /// A new store with these tables.
    pub fn new(tables: &'static [Table]) -> Self {
        Self { tables, held: Mutex::default() }
    }

    fn table(&self, name: &str) -> Result<&'static Table, StoreFault> {
        let table = self.tables.iter().find(|table| table.name == name);
        table.ok_or_else(|| StoreFault::Damaged(format!("there is no table {name}")))
    }

    fn check(&self, key: &RowKey, row: &Row) -> Result<(), StoreFault> {
        let table = self.table(key.table)?;
        if row.columns.len() == table.columns.len() {
            return Ok(());
        }
        let (has, wants) = (row.columns.len(), table.columns.len());
        Err(StoreFault::Damaged(format!("a row of {} has {has} columns, not {wants}", key.table)))
    }

    fn open_now(&self, log: LogId) -> Result<BTreeMap<Partition, Checkpoint>, StoreFault> {
        let mut held = lock(&self.held);
        match held.log {
            Some(found) if found != log => return Err(StoreFault::ForeignLog { found, expected: log }),
            _ => held.log = Some(log),
        }
        Ok(held.checkpoints.clone())
    }

    fn commit_now(&self, batch: Batch) -> Result<(), StoreFault> {
        for (key, row) in &batch.rows {
            row.as_ref().map_or(Ok(()), |row| self.check(key, row))?;
        }
        let mut held = lock(&self.held);
        for (partition, expected, _) in &batch.checkpoints {
            if held.checkpoints.get(partition) != expected.as_ref() {
                return Err(StoreFault::Fenced(*partition));
            }
        }
        for (partition, _, next) in batch.checkpoints {
            held.checkpoints.insert(partition, next);
        }
        for (key, row) in batch.rows {
            match row {
                Some(row) => held.rows.insert(key, row),
                None => held.rows.remove(&key),
            };
        }
        Ok(())
    }

    fn list_now(&self, query: &Query) -> Result<Vec<(String, Row)>, StoreFault> {
        let table = self.table(query.table)?;
        let filters = query.filters.iter().map(|filter| Ok((Place::of(table, filter_column(filter))?, filter)));
        let filters = filters.collect::<Result<Vec<_>, StoreFault>>()?;
        let sort = query.sort.map(|sort| Place::of(table, sort)).transpose()?;
        let sorted_by = |key: &str, row: &Row| sort.map_or(Value::Null, |place| place.value(key, row));
        let in_order = |(one, one_key): (&Value, &str), (other, other_key): (&Value, &str)| {
            let order = compare(one, other).then_with(|| one_key.cmp(other_key));
            if query.descending { order.reverse() } else { order }
        };
        let held = lock(&self.held);
        let rows = held.rows.iter().filter(|(key, _)| key.table == query.table);
        let mut found = rows
            .filter(|(key, row)| filters.iter().all(|(place, filter)| holds(filter, &place.value(&key.key, row))))
            .map(|(key, row)| (sorted_by(&key.key, row), key, row))
            .filter(|(value, key, _)| {
                let after = query.after.as_ref();
                after.is_none_or(|(last, last_key)| {
                    let last = if sort.is_some() { last } else { &Value::Null };
                    in_order((value, &key.key), (last, last_key)) == Ordering::Greater
                })
            })
            .collect::<Vec<_>>();
        found
            .sort_by(|(one, one_key, _), (other, other_key, _)| in_order((one, &one_key.key), (other, &other_key.key)));
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        Ok(found.into_iter().take(limit).map(|(_, key, row)| (key.key.clone(), row.clone())).collect())
    }
}

impl ReadStore for MemoryReadStore {
    fn open(&self, log: LogId) -> StoreFuture<'_, BTreeMap<Partition, Checkpoint>> {
        Box::pin(async move { self.open_now(log) })
    }

    fn load(&self, keys: Vec<RowKey>) -> StoreFuture<'_, BTreeMap<RowKey, Row>> {
        Box::pin(async move {
            let held = lock(&self.held);
            Ok(keys.into_iter().filter_map(|key| held.rows.get(&key).cloned().map(|row| (key, row))).collect())
        })
    }

    fn commit(&self, batch: Batch) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.commit_now(batch) })
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(String, Row)>> {
        Box::pin(async move { self.list_now(&query) })
    }

    fn load_at(&self, keys: Vec<RowKey>) -> StoreFuture<'_, RowsAt> {
        Box::pin(async move {
            let held = lock(&self.held);
            let rows = keys.into_iter().filter_map(|key| held.rows.get(&key).cloned().map(|row| (key, row)));
            Ok((rows.collect(), held.checkpoints.clone()))
        })
    }
}

/// Where a column's value is found.
#[derive(Clone, Copy)]
enum Place {
    Key,
    Column(usize),
}

impl Place {
    fn of(table: &Table, column: &str) -> Result<Self, StoreFault> {
        if column == "key" {
            return Ok(Self::Key);
        }
        let index = table.columns.iter().position(|known| known.name == column);
        index.map(Self::Column).ok_or_else(|| StoreFault::Damaged(format!("{} has no column {column}", table.name)))
    }

    fn value(self, key: &str, row: &Row) -> Value {
        match self {
            Self::Key => Value::String(key.to_owned()),
            Self::Column(index) => row.columns[index].clone(),
        }
    }
}

fn filter_column(filter: &Filter) -> &'static str {
    match filter {
        Filter::Is(column, _)
        | Filter::OneOf(column, _)
        | Filter::AtLeast(column, _)
        | Filter::Below(column, _)
        | Filter::StartsWith(column, _) => column,
    }
}

fn holds(filter: &Filter, value: &Value) -> bool {
    match filter {
        Filter::Is(_, wanted) => value == wanted,
        Filter::OneOf(_, wanted) => wanted.contains(value),
        Filter::AtLeast(_, least) => !value.is_null() && !least.is_null() && compare(value, least).is_ge(),
        Filter::Below(_, limit) => !value.is_null() && !limit.is_null() && compare(value, limit).is_lt(),
        Filter::StartsWith(_, start) => value.as_str().is_some_and(|text| text.starts_with(start)),
    }
}

/// Null, then integers, then text by its bytes. A column holds one kind beside null.
fn compare(one: &Value, other: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Number(_) => 1,
        _ => 2,
    };
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_i64().cmp(&other.as_i64()),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        _ => rank(one).cmp(&rank(other)),
    }
}
