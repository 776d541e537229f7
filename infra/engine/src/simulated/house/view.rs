//! The read model: a row for each account, transfer and standing order, and one for each partition that counts all its
//! events, so that an event folded twice or never shows.

use serde::{Deserialize, Serialize};

use super::business::{Happened, Heard, Step};
use crate::event::Recorded;
use crate::stream::StreamName;
use crate::view::{Doc, Row, RowKey, Table, View};

/// By stream.
pub(super) const THINGS: &str = "things";
/// By partition.
pub(super) const TOTALS: &str = "totals";

/// What a row of `things` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Thing {
    /// What is there, or was paid so far.
    amount: i64,
    said: String,
    marks: u32,
}

/// The row of a stream.
pub(super) fn row_of(stream: &StreamName) -> RowKey {
    RowKey { table: THINGS, key: stream.to_string() }
}

/// The read model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger;

impl Ledger {
    /// The row that only this event's own stream feeds, and after it.
    pub(super) fn evolve_thing(&self, row: Option<&Row>, event: &Recorded<Happened>) -> Row {
        let mut thing = row.map(|row| row.doc.read::<Thing>().expect("a row of this view")).unwrap_or_default();
        match &event.event {
            Happened::Deposited(amount) | Happened::PaidIn(_, _, amount) => thing.amount += *amount as i64,
            Happened::Held(_, amount) => thing.amount -= *amount as i64,
            Happened::Marked => thing.marks += 1,
            Happened::Ticked => thing.amount += 1,
            Happened::Started(terms) => thing.amount = terms.fee as i64,
            Happened::Answered(step, heard) => {
                thing.said = format!("{step:?} {heard:?}");
                if (*step, *heard) == (Step::Pay, Heard::Yes) {
                    thing.said.push('!');
                }
            }
            other => thing.said = format!("{other:?}"),
        }
        Row { version: event.meta.version.0, doc: Doc::of(&thing), columns: Vec::new() }
    }
}

impl View for Ledger {
    type Event = Happened;

    fn tables(&self) -> &'static [Table] {
        &[Table { name: THINGS, columns: &[] }, Table { name: TOTALS, columns: &[] }]
    }

    fn rows(&self, event: &Recorded<Happened>) -> Vec<RowKey> {
        let totals = RowKey { table: TOTALS, key: event.position.partition.to_string() };
        vec![row_of(&event.meta.stream), totals]
    }

    fn evolve(&self, key: &RowKey, row: Option<Row>, event: &Recorded<Happened>) -> Option<Row> {
        if key.table == THINGS {
            return Some(self.evolve_thing(row.as_ref(), event));
        }
        let events = row.map_or(0, |row| row.version) + 1;
        Some(Row { version: events, doc: Doc::of(&events), columns: Vec::new() })
    }
}
