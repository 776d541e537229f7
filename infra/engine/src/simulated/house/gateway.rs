//! What is outside: a gateway with books of its own. It is asked by key: the same key asks for the same thing and takes
//! effect once, and what is voided is barred for ever, also if it was never heard of.

use std::collections::BTreeMap;

use super::business::{Card, Heard};
use super::saga::{Call, Verb};
use crate::message::CommandId;
use crate::stream::StreamName;

/// A card that is busy is so this many rounds.
const BUSY_ROUNDS: u32 = 2;

/// One authorization, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) transfer: StreamName,
    pub(super) fee: u64,
    pub(super) charge: Charge,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    Busy,
    Declined,
    Authorized,
    Captured,
    CaptureFailed,
    /// Voided, perhaps before it came.
    Barred,
    /// Captured and paid back.
    PaidBack,
}

#[derive(Debug, Default)]
pub(super) struct Gateway {
    pub(super) books: BTreeMap<CommandId, Entry>,
    /// Does not bar what it never heard of (planted).
    pub(super) forgets_bars: bool,
}

impl Gateway {
    /// One call.
    pub(super) fn call(&mut self, call: &Call) -> Heard {
        let known = self.books.get(&call.key).map(|entry| entry.charge);
        let (charge, heard) = match (call.verb, known) {
            (Verb::Authorize, None) => match call.card {
                Card::Declined => (Charge::Declined, Heard::No),
                Card::Busy if call.round < BUSY_ROUNDS => (Charge::Busy, Heard::Later),
                Card::Good | Card::FailsAtCapture | Card::Busy => (Charge::Authorized, Heard::Yes),
            },
            (Verb::Authorize, Some(charge)) => (
                charge,
                match charge {
                    Charge::Busy => Heard::Later,
                    Charge::Declined | Charge::Barred | Charge::PaidBack => Heard::No,
                    Charge::Authorized | Charge::Captured | Charge::CaptureFailed => Heard::Yes,
                },
            ),
            (Verb::Capture, Some(Charge::Authorized)) if call.card == Card::FailsAtCapture => {
                (Charge::CaptureFailed, Heard::No)
            }
            (Verb::Capture, Some(Charge::Authorized | Charge::Captured)) => (Charge::Captured, Heard::Yes),
            (Verb::Capture, Some(charge)) => (charge, Heard::No),
            (Verb::Capture, None) => return Heard::No,
            (Verb::Void, None) if self.forgets_bars => return Heard::Yes,
            (Verb::Void, Some(Charge::Captured | Charge::PaidBack)) => (Charge::PaidBack, Heard::Yes),
            (Verb::Void, _) => (Charge::Barred, Heard::Yes),
        };
        let entry = Entry { transfer: call.transfer.clone(), fee: call.fee, charge };
        self.books.insert(call.key, entry);
        heard
    }
}
