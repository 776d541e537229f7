//! What must hold over the whole log, whatever happened: checked by tests, by the crash checker and by `GET
//! /dev/invariants` with the same code. The checker keeps books of its own, simpler than the deciders' and not shared with
//! them, so that a mistake there does not excuse itself here.
//!
//! Feed it every effective event, partition by partition in order, then ask. What spans partitions is judged only for
//! sagas that settled below the positions that were scanned.

mod money;
mod saga;
mod stock;

use std::collections::{BTreeMap, BTreeSet};

use engine::event::Recorded;
use engine::position::{Position, Positions};
use engine::stream::StreamName;
use schemas::event::ShopEvent;
use schemas::id::PaymentId;
use schemas::ledger::LedgerRow;
use serde::Serialize;

/// Violations told at most. 1,000: whoever has that many needs no more.
pub const VIOLATIONS_MAX: usize = 1_000;

/// Something that must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// Its stable id.
    pub id: &'static str,
    /// In a sentence.
    pub text: &'static str,
}

macro_rules! invariants {
    ($($name:ident = $id:literal, $text:literal;)*) => {
        $(pub(crate) const $name: &str = $id;)*

        /// Every invariant that is checked here.
        pub const INVARIANTS: &[Invariant] = &[$(Invariant { id: $id, text: $text }),*];
    };
}
invariants! {
    LOG_1 = "LOG-1", "Versions of a stream are 1, 2, 3… without gap or repeat.";
    STOCK_1 = "STOCK-1", "At every prefix: on hand and reserved are not negative, and no more is reserved than is on hand.";
    STOCK_2 = "STOCK-2", "What moved on a stock is what its reservations say, piece by piece.";
    STOCK_3 = "STOCK-3", "A reservation is made once and ends at most once; only what was committed is returned.";
    MONEY_1 = "MONEY-1", "An order shows as paid and refunded what its payment captured and refunded; a confirmed one is paid in full.";
    MONEY_2 = "MONEY-2", "At every prefix: a payment is captured once, for no more than was promised, and refunds, asked-for ones included, stay below.";
    MONEY_3 = "MONEY-3", "Nothing is shipped that was not paid, and nothing stays captured on an order that was called off.";
    MONEY_4 = "MONEY-4", "The gateway's books say what the log says, for every payment that waits for no answer.";
    SAGA_1 = "SAGA-1", "A completed saga kept all its promises, a compensated one none.";
    SAGA_2 = "SAGA-2", "Undo goes in reverse order of what was done, each step once.";
    SAGA_6 = "SAGA-6", "An order has at most one checkout, and nothing happens to a settled one but that a cancellation reopens it.";
}

/// A place where an invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// On which stream.
    pub stream: StreamName,
    /// At which record, where one is to blame.
    pub position: Option<Position>,
    /// What is wrong.
    pub detail: String,
}

/// What came of checking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The ids of what was checked.
    pub checked: Vec<&'static str>,
    /// Where it does not hold; at most [`VIOLATIONS_MAX`].
    pub violations: Vec<Violation>,
}

/// Checks the log event by event.
#[derive(Debug, Default)]
pub struct Checker {
    versions: BTreeMap<StreamName, u64>,
    stock: stock::StockBooks,
    money: money::MoneyBooks,
    sagas: saga::SagaBooks,
    scanned: Positions,
    moving: BTreeSet<PaymentId>,
    found: Found,
}

/// The violations so far.
#[derive(Debug, Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, invariant: &'static str, stream: &StreamName, position: Option<Position>, detail: String) {
        if self.0.len() < VIOLATIONS_MAX {
            self.0.push(Violation { invariant, stream: stream.clone(), position, detail });
        }
    }
}

/// Adds what the books think of one event.
struct Blame<'a> {
    found: &'a mut Found,
    stream: &'a StreamName,
    position: Position,
}

impl Blame<'_> {
    fn unless(&mut self, holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) {
        if !holds {
            self.found.add(invariant, self.stream, Some(self.position), detail());
        }
    }
}

impl Checker {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one effective event; those of a partition in their order.
    pub fn observe(&mut self, recorded: &Recorded<ShopEvent>) {
        let Recorded { meta, position, event, .. } = recorded;
        self.scanned(*position);
        let mut blame = Blame { found: &mut self.found, stream: &meta.stream, position: *position };
        let known = self.versions.entry(meta.stream.clone()).or_insert(0);
        blame.unless(meta.version.0 == *known + 1, LOG_1, || format!("version {} follows {known}", meta.version));
        *known = meta.version.0;
        self.stock.observe(meta, event, &mut blame);
        self.money.observe(meta, event, &mut blame);
        self.sagas.observe(meta, event, &mut blame);
    }

    /// Everything up to this position of its partition has been seen, records without events included.
    pub fn scanned(&mut self, position: Position) {
        self.scanned.reach(position);
    }

    /// Payments that are not to be compared with the gateway's books, because something has happened to them since the log
    /// was scanned.
    pub fn leave_out(&mut self, payments: impl IntoIterator<Item = PaymentId>) {
        self.moving.extend(payments);
    }

    /// Judges the whole. Without the gateway's books MONEY-4 is not checked.
    pub fn finish(mut self, ledger: Option<&[LedgerRow]>) -> Report {
        self.stock.finish(&mut self.found);
        self.money.finish(&mut self.found);
        self.sagas.finish(&self.scanned, &self.stock, &self.money, &mut self.found);
        if let Some(ledger) = ledger {
            self.money.compare(ledger, &self.moving, &mut self.found);
        }
        let asked = |invariant: &&Invariant| ledger.is_some() || invariant.id != MONEY_4;
        Report { checked: INVARIANTS.iter().filter(asked).map(|each| each.id).collect(), violations: self.found.0 }
    }
}
