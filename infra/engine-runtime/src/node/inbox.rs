//! What a shard task is told: commands and questions through its bounded door, and everything that comes back from log,
//! state store and readers through its inbox, whose length the shard's own limits bound.

use engine::decider::Decider;
use engine::log::{Delivery, DeliverySink, Stored};
use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::position::Offset;
use engine::saga::Reactor;
use engine::shard::{Inquired, Loaded, Ticket};
use engine::stream::Tenant;
use engine::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What comes through the door.
pub(crate) enum Knock<R: Reactor> {
    /// A command, and where its answer goes.
    Command(Box<Envelope<R::Command>>, Reply<R>),
    /// What is known of an id.
    Inquiry(Tenant, CommandId, oneshot::Sender<Result<Vec<Inquired>, NoAnswer>>),
}

/// Which shards may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Whoever leads the partition, wherever.
    Anywhere,
    /// This node's only: another one has forwarded it.
    Here,
}

/// Somebody who waits for the answer to a command.
pub(crate) struct Reply<R: Reactor> {
    pub(crate) to: oneshot::Sender<Result<Answer<R::State>, NoAnswer>>,
    /// When nobody waits any more.
    pub(crate) deadline: Instant,
    /// When it is not begun any more, but told to come back: what waited too long is late, and makes the rest late.
    /// `None` for what the node owes itself.
    pub(crate) begin_by: Option<Instant>,
    pub(crate) way: Way,
    /// Whether an earlier try may have done something: then nothing may be said any more that means it did not.
    pub(crate) doubt: bool,
}

impl<R: Reactor> Reply<R> {
    /// What is to be said if this try came to nothing.
    pub(crate) fn no(&self, no: NoAnswer) -> NoAnswer {
        match no {
            NoAnswer::TimedOut | NoAnswer::LogStopped | NoAnswer::LogDamaged => no,
            _ if self.doubt => NoAnswer::Unconfirmed,
            _ => no,
        }
    }
}

/// What one look-up found.
pub(crate) type LoadAnswer<R> = (Ticket, Result<Loaded<<R as Decider>::State>, NoAnswer>);

/// What comes back. Numbers are the term that asked: what an earlier term asked for is dropped.
pub(crate) enum Inbox<R: Reactor> {
    /// From the log.
    Delivered(Vec<Delivery>),
    /// From the loader.
    Loaded(u64, Vec<LoadAnswer<R>>),
    /// From the saver.
    Saved(u64, Offset),
    /// From the saver.
    Forgotten(Timestamp),
    /// From the log.
    ReadBack(u64, Vec<Stored>),
    /// The answer to a repeat.
    Replayed(Ticket, Result<Answer<R::State>, NoAnswer>),
    /// Something below failed for good.
    Fault(String),
}

/// Takes the log's deliveries to a shard's inbox.
pub(crate) struct Sink<R: Reactor>(pub(crate) mpsc::UnboundedSender<Inbox<R>>);

impl<R: Reactor> DeliverySink for Sink<R> {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        // The task is gone only when the node has stopped: nobody waits any more.
        let _ = self.0.send(Inbox::Delivered(deliveries));
    }
}
