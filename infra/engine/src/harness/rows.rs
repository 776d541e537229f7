//! Rows of a view after these events.

use std::collections::BTreeMap;

use crate::event::Recorded;
use crate::view::{Row, RowKey, View};

/// What a view made of its events.
#[derive(Clone, Debug)]
pub struct Rows {
    rows: BTreeMap<RowKey, Row>,
}

/// Folds events into a view's rows as a projection does.
///
/// # Panics
/// If the view touches a table that it does not have, or a row has other columns than its table.
pub fn rows<'a, V: View>(view: &V, events: impl IntoIterator<Item = &'a Recorded<V::Event>>) -> Rows
where
    V::Event: 'a,
{
    let mut rows = BTreeMap::new();
    for event in events {
        for key in view.rows(event) {
            let table = view.tables().iter().find(|table| table.name == key.table);
            let table = table.unwrap_or_else(|| panic!("the view has no table {}", key.table));
            let before = rows.remove(&key);
            if let Some(row) = view.evolve(&key, before, event) {
                assert_eq!(row.columns.len(), table.columns.len(), "a row of {} has its columns", table.name);
                rows.insert(key, row);
            }
        }
    }
    Rows { rows }
}

impl Rows {
    /// The row under a key.
    pub fn row(&self, table: &'static str, key: &str) -> Option<&Row> {
        self.rows.get(&RowKey { table, key: key.to_owned() })
    }

    /// All of them, by table and key.
    pub fn iter(&self) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.iter()
    }
}
