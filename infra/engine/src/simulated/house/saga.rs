//! What transfers and standing orders owe. Order of work of a transfer: set aside at its account's bank, authorize at the
//! gateway, wait for the client if he wants to be asked, take for good, capture, pay in at the other bank. Undo in reverse
//! order; a step that may still land late is undone, not assumed absent.

use super::business::{Card, Clearing, Happened, Heard, Stage, Standing, Step, Thing, Transfer, Wish};
use crate::decider::Decision;
use crate::event::EventMeta;
use crate::message::CommandId;
use crate::position::Version;
use crate::saga::{Agenda, Ask, Heard as Came, Pending, Reactor, Timer};
use crate::stream::StreamName;
use crate::time::Timestamp;
use uuid::Uuid;

/// How long a gateway that is busy is left alone.
const PUT_OFF_US: i64 = 4_000;

/// What is asked of the gateway. The key of what is captured or voided is the one it was authorized under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) transfer: StreamName,
    /// Of the authorization.
    pub(super) key: CommandId,
    pub(super) fee: u64,
    pub(super) card: Card,
    /// Which try at it this is, as recorded.
    pub(super) round: u32,
}

/// What the gateway can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Authorize,
    Capture,
    Void,
}

/// The id of a step in a round, the same however often it is sent.
pub(super) fn step_id(stream: &StreamName, step: Step, round: u32) -> CommandId {
    let stream = Uuid::new_v5(&Uuid::NAMESPACE_OID, stream.as_str().as_bytes());
    CommandId(stream).derive(&format!("{step:?} {round}"))
}

impl Clearing {
    pub(super) fn at_transfer(&self, transfer: &Transfer, wish: &Wish) -> Decision<Happened> {
        let happens = |event| Decision::accept(vec![(0, event)]);
        match wish {
            Wish::Confirm(_) if transfer.is_before_keeping() && !transfer.confirmed => happens(Happened::Confirmed),
            Wish::Cancel(_) if transfer.is_before_keeping() => happens(Happened::GivenUp),
            Wish::Confirm(_) | Wish::Cancel(_) => Decision::refuse("too-late", "It is decided."),
            Wish::Fire(_) if transfer.timer_runs() => happens(Happened::TimedOut),
            // What comes late changes nothing: the undo is under way.
            Wish::Hear(_, step, round, heard) if transfer.awaits() == Some(*step) && transfer.round == *round => {
                happens(match heard {
                    Heard::Later => Happened::PutOff(*step),
                    heard => Happened::Answered(*step, *heard),
                })
            }
            Wish::Fire(_) | Wish::Hear(..) => Decision::nothing(),
            _ => Decision::refuse("a-transfer", "This is a transfer."),
        }
    }
}

impl Transfer {
    pub(super) fn started(terms: &super::business::Terms, meta: &EventMeta) -> Self {
        let deadline = terms.confirm_within_us.map(|within| Timestamp(meta.recorded_at.0 + within as i64));
        Self {
            terms: terms.clone(),
            stage: Stage::Holding,
            round: 0,
            charged: false,
            confirmed: terms.confirm_within_us.is_none(),
            not_before: Timestamp(0),
            deadline,
            started_by: meta.command_id,
        }
    }

    fn is_before_keeping(&self) -> bool {
        matches!(self.stage, Stage::Holding | Stage::Authorizing | Stage::Waiting)
    }

    fn timer_runs(&self) -> bool {
        self.deadline.is_some() && !self.confirmed && self.is_before_keeping()
    }

    /// The step whose answer it waits for.
    fn awaits(&self) -> Option<Step> {
        Some(match self.stage {
            Stage::Holding => Step::Hold,
            Stage::Authorizing => Step::Authorize,
            Stage::Keeping => Step::Keep,
            Stage::Capturing => Step::Capture,
            Stage::Paying => Step::Pay,
            Stage::Voiding => Step::Void,
            Stage::Releasing => Step::Release,
            Stage::Waiting | Stage::Done | Stage::Undone => return None,
        })
    }

    pub(super) fn evolve(&mut self, clearing: &Clearing, event: &Happened, meta: &EventMeta) {
        match event {
            Happened::Confirmed => {
                self.confirmed = true;
                if self.stage == Stage::Waiting {
                    self.stage = Stage::Keeping;
                }
            }
            Happened::TimedOut if clearing.skips_undo_on_timeout => self.stage = Stage::Undone,
            Happened::GivenUp | Happened::TimedOut => self.undo(clearing),
            Happened::PutOff(_) => {
                self.round += 1;
                self.not_before = Timestamp(meta.recorded_at.0 + PUT_OFF_US);
            }
            Happened::Answered(step, Heard::Yes) => {
                self.stage = match step {
                    Step::Hold => Stage::Authorizing,
                    Step::Authorize if self.confirmed => Stage::Keeping,
                    Step::Authorize => Stage::Waiting,
                    Step::Keep => Stage::Capturing,
                    Step::Capture => Stage::Paying,
                    Step::Pay => Stage::Done,
                    Step::Void if clearing.forgets_undo => Stage::Undone,
                    Step::Void => Stage::Releasing,
                    Step::Release => Stage::Undone,
                };
                self.charged |= self.stage == Stage::Authorizing;
            }
            // Refused, and so never done: nothing to undo for this step.
            Happened::Answered(Step::Hold, _) => self.stage = Stage::Undone,
            Happened::Answered(Step::Authorize, _) if clearing.forgets_undo => self.stage = Stage::Undone,
            Happened::Answered(Step::Authorize, _) => self.stage = Stage::Releasing,
            Happened::Answered(..) => self.undo(clearing),
            _ => {}
        }
    }

    fn undo(&mut self, clearing: &Clearing) {
        self.stage = match (self.charged, clearing.forgets_undo) {
            (true, _) => Stage::Voiding,
            (false, false) => Stage::Releasing,
            (false, true) => Stage::Undone,
        };
    }
}

impl Standing {
    pub(super) fn begun(plan: &super::business::Plan, meta: &EventMeta) -> Self {
        Self {
            plan: plan.clone(),
            ticks: 0,
            arrived: 0,
            bounced: Vec::new(),
            due: Timestamp(meta.recorded_at.0 + plan.every_us as i64),
            armed_at: meta.version,
            begun_by: meta.command_id,
        }
    }

    pub(super) fn evolve(&mut self, event: &Happened, meta: &EventMeta) {
        match event {
            Happened::Ticked => {
                self.ticks += 1;
                self.due = Timestamp(meta.recorded_at.0 + self.plan.every_us as i64);
                self.armed_at = meta.version;
            }
            Happened::Arrived(_) => self.arrived += 1,
            Happened::Bounced(time) => {
                self.arrived += 1;
                self.bounced.push(*time);
            }
            _ => {}
        }
    }
}

impl Reactor for Clearing {
    type Call = Call;
    type Returned = Heard;

    fn react(&self, stream: &StreamName, version: Version, state: &Thing) -> Agenda<Wish, Call> {
        let _ = version;
        let timer = timer_of(state);
        let pending = match state {
            Thing::Transfer(transfer) => self.of_transfer(stream, transfer),
            Thing::Standing(standing) if standing.arrived < standing.ticks => {
                let round = if self.pays_under_one_id { 0 } else { standing.arrived };
                let (account, amount) = (standing.plan.account.clone(), standing.plan.amount);
                let ask = Ask::Command(Wish::PayIn(account, stream.clone(), round, amount));
                vec![Pending { id: step_id(stream, Step::Pay, round), not_before: None, ask }]
            }
            Thing::Standing(_) | Thing::Account(_) => Vec::new(),
        };
        Agenda { pending, timer }
    }

    fn heard(
        &self,
        stream: &StreamName,
        state: &Thing,
        pending: &Pending<Wish, Call>,
        heard: &Came<Heard>,
        _now: Timestamp,
    ) -> Option<(CommandId, Wish)> {
        let (step, round) = match state {
            Thing::Transfer(transfer) => (transfer.awaits()?, transfer.round),
            Thing::Standing(standing) => (Step::Pay, standing.arrived),
            Thing::Account(_) => return None,
        };
        let heard = match heard {
            Came::Outcome(outcome, _) if outcome.is_accepted() => Heard::Yes,
            Came::Outcome(..) | Came::Invalid(_) => Heard::No,
            Came::Returned(returned) => *returned,
            Came::Unreachable(_) => return None,
        };
        Some((pending.id.derive("outcome"), Wish::Hear(stream.clone(), step, round, heard)))
    }

    fn fire(&self, stream: &StreamName, _state: &Thing, _timer: &Timer) -> Wish {
        Wish::Fire(stream.clone())
    }
}

impl Clearing {
    fn of_transfer(&self, stream: &StreamName, transfer: &Transfer) -> Vec<Pending<Wish, Call>> {
        let Some(step) = transfer.awaits() else { return Vec::new() };
        let terms = &transfer.terms;
        let call = |verb| {
            let key = step_id(stream, Step::Authorize, transfer.round);
            let (transfer_name, round) = (stream.clone(), transfer.round);
            Ask::Call(Call { verb, transfer: transfer_name, key, fee: terms.fee, card: terms.card, round })
        };
        let (from, transfer_name) = (terms.from.clone(), stream.clone());
        let ask = match step {
            Step::Hold => Ask::Command(Wish::Hold(from, transfer_name, terms.amount)),
            Step::Keep => Ask::Command(Wish::Keep(from, transfer_name)),
            Step::Release => Ask::Command(Wish::Release(from, transfer_name)),
            Step::Pay => Ask::Command(Wish::PayIn(terms.to.clone(), transfer_name, 0, terms.amount)),
            Step::Authorize => call(Verb::Authorize),
            Step::Capture => call(Verb::Capture),
            Step::Void => call(Verb::Void),
        };
        let not_before = (transfer.not_before > Timestamp(0)).then_some(transfer.not_before);
        vec![Pending { id: step_id(stream, step, transfer.round), not_before, ask }]
    }
}

/// When a stream wants to be woken. A transfer's deadline is armed once, by its first event.
pub(super) fn timer_of(state: &Thing) -> Option<Timer> {
    match state {
        Thing::Transfer(transfer) if transfer.timer_runs() => {
            transfer.deadline.map(|due| Timer { due, armed_at: Version(1) })
        }
        Thing::Standing(standing) if standing.ticks < standing.plan.times => {
            Some(Timer { due: standing.due, armed_at: standing.armed_at })
        }
        _ => None,
    }
}
