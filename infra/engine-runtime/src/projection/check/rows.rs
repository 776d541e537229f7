//! Rows as a check looks at them: page by page, by key, drawn by lot, and what differs between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::position::Version;
use engine::read_store::{Query, ReadStore};
use engine::stream::StreamId;
use engine::view::{Row, RowKey};
use serde_json::Value;

use crate::projection::operations::Denied;
use crate::projection::worker::{read_parked, spawned};

/// Rows of a table walked at once.
pub(super) const PAGE: u32 = 500;
/// From which version on events of parked streams wait.
pub(super) type Waits = BTreeMap<StreamId, Version>;

/// Draws so many of those that are offered, each as likely as any other.
pub(super) struct Draw {
    count: usize,
    offered: usize,
    pub(super) keys: Vec<RowKey>,
}

impl Draw {
    pub(super) fn of(count: usize) -> Self {
        Self { count, offered: 0, keys: Vec::new() }
    }

    pub(super) fn offer(&mut self, key: RowKey) {
        self.offered += 1;
        if self.keys.len() < self.count {
            self.keys.push(key);
        } else if let Some(slot) = self.keys.get_mut(rand::random_range(0..self.offered)) {
            *slot = key;
        }
    }
}

pub(super) async fn page(
    store: &Arc<dyn ReadStore>,
    table: &'static str,
    after: Option<String>,
) -> Result<Vec<(String, Row)>, Denied> {
    let after = after.map(|key| (Value::Null, key));
    let query = Query { table, filters: Vec::new(), sort: None, descending: false, after, limit: PAGE };
    let store = store.clone();
    Ok(spawned(async move { store.list(query).await }).await?)
}

pub(super) async fn load(store: &Arc<dyn ReadStore>, keys: &BTreeSet<RowKey>) -> Result<BTreeMap<RowKey, Row>, Denied> {
    let (store, keys) = (store.clone(), keys.iter().cloned().collect());
    Ok(spawned(async move { store.load(keys).await }).await?)
}

pub(super) async fn waits(store: &Arc<dyn ReadStore>) -> Result<Waits, Denied> {
    let parked = read_parked(store).await?;
    Ok(parked.into_iter().map(|(stream, doc)| (stream, doc.parked.version)).collect())
}

/// How a row differs from what it should be, if it does.
pub(super) fn differs(found: Option<&Row>, expected: Option<&Row>) -> Option<String> {
    let (found, expected) = match (found, expected) {
        (None, None) => return None,
        (None, Some(_)) => return Some("the row is missing".to_owned()),
        (Some(_), None) => return Some("no event makes this row".to_owned()),
        (Some(found), Some(expected)) => (found, expected),
    };
    if found.version != expected.version {
        return Some(format!("the row is at version {}; the log makes {}", found.version, expected.version));
    }
    let (here, there) = (found.doc.value(), expected.doc.value());
    if let Some((pointer, here, there)) = first_difference(&here, &there, String::new()) {
        return Some(format!("{pointer} is {here}; the log makes it {there}"));
    }
    let columns = found.columns.iter().zip(&expected.columns).position(|(found, expected)| found != expected);
    if let Some(column) = columns {
        let (found, expected) = (&found.columns[column], &expected.columns[column]);
        return Some(format!("column {column} is {found}; the log makes it {expected}"));
    }
    None
}

/// The first member that differs: its JSON Pointer, and what both say.
fn first_difference(found: &Value, expected: &Value, at: String) -> Option<(String, String, String)> {
    let absent = || "absent".to_owned();
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (name, value) in expected {
                let at = format!("{at}/{name}");
                match found.get(name) {
                    None => return Some((at, absent(), value.to_string())),
                    Some(here) => match first_difference(here, value, at) {
                        None => {}
                        different => return different,
                    },
                }
            }
            let more = found.iter().find(|(name, _)| !expected.contains_key(*name));
            more.map(|(name, value)| (format!("{at}/{name}"), value.to_string(), absent()))
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => found
            .iter()
            .zip(expected)
            .enumerate()
            .find_map(|(index, (found, expected))| first_difference(found, expected, format!("{at}/{index}"))),
        (found, expected) if found == expected => None,
        (found, expected) => Some((at, found.to_string(), expected.to_string())),
    }
}
