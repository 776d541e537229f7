//! A business that needs everything a node does: accounts at banks in several partitions, transfers between them that are
//! sagas with an undo and a fee that an outside gateway charges, and standing orders that live by their timers. Each
//! fact about money is said once, in an account; what a transfer or a standing order still owes is in `saga`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::account::{at_account, release};
use crate::decider::{Context, Decider, Decision, States};
use crate::event::{ContentType, EncodedEvent, Event, EventMeta, UnreadableEvent};
use crate::message::{CommandId, FieldError, Fingerprint};
use crate::position::Version;
use crate::stream::StreamName;
use crate::time::Timestamp;

/// Most that moves at once; more can never be valid.
pub(super) const AMOUNT_MAX: u64 = 1_000;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Opens an account.
    Open(StreamName),
    /// Puts money in.
    Deposit(StreamName, u64),
    /// Writes something down in an account that an old view cannot read.
    Mark(StreamName),
    /// Begins a transfer.
    Start(StreamName, Terms),
    /// Lets a transfer that waits for its client go on.
    Confirm(StreamName),
    /// Gives a transfer up, if it is not too late.
    Cancel(StreamName),
    /// Begins a standing order.
    Begin(StreamName, Plan),
    /// Sets money of an account aside for a transfer.
    Hold(StreamName, StreamName, u64),
    /// Takes out for good what was set aside.
    Keep(StreamName, StreamName),
    /// Gives back what was set aside or taken; bars what has not come yet.
    Release(StreamName, StreamName),
    /// Pays in, for a transfer or the n-th time for a standing order.
    PayIn(StreamName, StreamName, u32, u64),
    /// Records what came of an errand.
    Hear(StreamName, Step, u32, Heard),
    /// The timer armed at this version has fired.
    Fire(StreamName),
}

/// What a transfer is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    pub(super) from: StreamName,
    pub(super) to: StreamName,
    pub(super) amount: u64,
    /// What the gateway charges for it.
    pub(super) fee: u64,
    /// How the card behaves at the gateway.
    pub(super) card: Card,
    /// Given up unless confirmed within this long, in microseconds; if nothing, nobody needs to confirm.
    pub(super) confirm_within_us: Option<u64>,
}

/// How a card behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Card {
    Good,
    /// Not even promised.
    Declined,
    /// Promised and not paid.
    FailsAtCapture,
    /// The first two times the gateway says to come again.
    Busy,
}

/// What a standing order is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) account: StreamName,
    pub(super) amount: u64,
    pub(super) times: u32,
    pub(super) every_us: u64,
}

/// The errands there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Step {
    Hold,
    Authorize,
    Keep,
    Capture,
    Pay,
    Void,
    Release,
}

/// What an errand heard, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Heard {
    Yes,
    No,
    /// Not now; nothing was done.
    Later,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Happened {
    Opened,
    Deposited(u64),
    Marked,
    Held(StreamName, u64),
    Kept(StreamName),
    Released(StreamName),
    PaidIn(StreamName, u32, u64),
    Started(Terms),
    Confirmed,
    GivenUp,
    Answered(Step, Heard),
    /// To be asked again, in the next round.
    PutOff(Step),
    TimedOut,
    Begun(Plan),
    Ticked,
    /// The n-th payment of a standing order has arrived.
    Arrived(u32),
    /// It was refused, and so never made.
    Bounced(u32),
}

/// What a stream amounts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Thing {
    Account(Account),
    Transfer(Transfer),
    Standing(Standing),
}

/// An account. Never overdrawn: what is set aside was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) balance: u64,
    pub(super) holds: BTreeMap<StreamName, Held>,
    /// What came in, by whom and which time.
    pub(super) paid_in: BTreeMap<StreamName, BTreeMap<u32, u64>>,
    /// Steps that were done here are remembered for ever, as is who opened it.
    pub(super) steps: BTreeMap<CommandId, Version>,
}

/// What became of money set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Held {
    Aside(u64),
    Gone(u64),
    /// Given back, or never taken: nothing is set aside for it any more.
    Back,
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    Holding,
    Authorizing,
    /// For its client.
    Waiting,
    Keeping,
    /// No way back by a client's wish.
    Capturing,
    Paying,
    Done,
    /// Undo, in reverse order.
    Voiding,
    Releasing,
    Undone,
}

/// A transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub(super) terms: Terms,
    pub(super) stage: Stage,
    /// Raised only by what is recorded.
    pub(super) round: u32,
    /// Whether the errand of this stage was ever to be sent: it may land late.
    pub(super) charged: bool,
    pub(super) confirmed: bool,
    /// Not before.
    pub(super) not_before: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    pub(super) started_by: CommandId,
}

/// A standing order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) plan: Plan,
    pub(super) ticks: u32,
    /// Payments that were answered, and which of them with no.
    pub(super) arrived: u32,
    pub(super) bounced: Vec<u32>,
    /// When the next tick is due, and which event armed it.
    pub(super) due: Timestamp,
    pub(super) armed_at: Version,
    pub(super) begun_by: CommandId,
}

impl Wish {
    /// What a keyed hash of verb and body would be: equal for equal commands.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(xxhash_rust::xxh3::xxh3_128(format!("{self:?}").as_bytes()).to_le_bytes())
    }

    /// Whether something goes on by itself from then on.
    pub(super) fn begins(&self) -> bool {
        matches!(self, Self::Start(..) | Self::Begin(..))
    }

    /// The stream it addresses.
    pub(super) fn resource(&self) -> &StreamName {
        match self {
            Self::Open(stream)
            | Self::Deposit(stream, _)
            | Self::Mark(stream)
            | Self::Start(stream, _)
            | Self::Confirm(stream)
            | Self::Cancel(stream)
            | Self::Begin(stream, _)
            | Self::Hold(stream, ..)
            | Self::Keep(stream, _)
            | Self::Release(stream, _)
            | Self::PayIn(stream, ..)
            | Self::Hear(stream, ..)
            | Self::Fire(stream) => stream,
        }
    }
}

impl Event for Happened {
    fn encode(&self) -> EncodedEvent {
        let payload = serde_json::to_vec(self).expect("plain data is JSON");
        EncodedEvent {
            event_type: "Happened".into(),
            schema_version: 1,
            content_type: ContentType::Json,
            payload: Bytes::from(payload),
        }
    }

    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        serde_json::from_slice(&stored.payload).map_err(|error| UnreadableEvent {
            event_type: stored.event_type.to_string(),
            schema_version: stored.schema_version,
            why: error.to_string(),
        })
    }
}

/// The business. What is planted in it is planted for all nodes alike.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clearing {
    /// Gives up without asking for what was set aside (planted).
    pub(super) forgets_undo: bool,
    /// Takes what was not answered in time for what was not done (planted).
    pub(super) skips_undo_on_timeout: bool,
    /// Leaves the count out of a payment's id (planted).
    pub(super) pays_under_one_id: bool,
    /// Takes what goes on for what begins (planted).
    pub(super) holds_back_what_was_begun: bool,
}

impl Decider for Clearing {
    type Command = Wish;
    type Event = Happened;
    type State = Thing;

    fn version(&self) -> u32 {
        1
    }

    fn streams(&self, command: &Wish) -> Vec<StreamName> {
        vec![command.resource().clone()]
    }

    fn begins(&self, command: &Wish) -> bool {
        command.begins() || self.holds_back_what_was_begun
    }

    fn decide(&self, states: &States<'_, Thing>, command: &Wish, _context: &Context) -> Decision<Happened> {
        match (command, states.at(0)) {
            (Wish::Open(_), None) => Decision::create(vec![(0, Happened::Opened)]),
            (Wish::Start(_, terms), None) if terms.amount > AMOUNT_MAX => {
                Decision::Invalid(vec![FieldError::at("/amount", "too-much", "Nobody moves that much.")])
            }
            (Wish::Start(_, terms), None) => Decision::create(vec![(0, Happened::Started(terms.clone()))]),
            (Wish::Begin(_, plan), None) => Decision::create(vec![(0, Happened::Begun(plan.clone()))]),
            (Wish::Open(_) | Wish::Start(..) | Wish::Begin(..), Some(_)) => {
                Decision::refuse("exists", "It is there already.")
            }
            // Even of an account that nobody opened: what comes late is barred.
            (Wish::Release(_, transfer), thing) => release(thing, transfer),
            (_, None) => Decision::absent("unknown", "There is no such thing."),
            (_, Some(Thing::Account(account))) => at_account(account, command),
            (_, Some(Thing::Transfer(transfer))) => self.at_transfer(transfer, command),
            (_, Some(Thing::Standing(standing))) => at_standing(standing, command),
        }
    }

    fn evolve(&self, state: Option<Thing>, event: &Happened, meta: &EventMeta) -> Thing {
        match (state, event) {
            (None, Happened::Started(terms)) => Thing::Transfer(Transfer::started(terms, meta)),
            (None, Happened::Begun(plan)) => Thing::Standing(Standing::begun(plan, meta)),
            (Some(Thing::Transfer(mut transfer)), _) => {
                transfer.evolve(self, event, meta);
                Thing::Transfer(transfer)
            }
            (Some(Thing::Standing(mut standing)), _) => {
                standing.evolve(event, meta);
                Thing::Standing(standing)
            }
            (Some(Thing::Account(mut account)), _) => {
                account.evolve(event, meta);
                Thing::Account(account)
            }
            (None, _) => {
                let mut account = Account::default();
                account.evolve(event, meta);
                Thing::Account(account)
            }
        }
    }

    fn remembers(&self, state: &Thing, id: CommandId) -> Option<Version> {
        match state {
            Thing::Account(account) => account.steps.get(&id).copied(),
            Thing::Transfer(transfer) => (transfer.started_by == id).then_some(Version(1)),
            Thing::Standing(standing) => (standing.begun_by == id).then_some(Version(1)),
        }
    }
}

fn at_standing(standing: &Standing, wish: &Wish) -> Decision<Happened> {
    match wish {
        Wish::Fire(_) if standing.ticks < standing.plan.times => Decision::accept(vec![(0, Happened::Ticked)]),
        Wish::Hear(_, Step::Pay, time, heard) if *time == standing.arrived => {
            let arrived = *heard == Heard::Yes;
            Decision::accept(vec![(0, if arrived { Happened::Arrived(*time) } else { Happened::Bounced(*time) })])
        }
        Wish::Fire(_) | Wish::Hear(..) => Decision::nothing(),
        _ => Decision::refuse("a-standing-order", "This is a standing order."),
    }
}
