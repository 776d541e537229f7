//! A process that may own the partition: the real shard, a state store, and the duties of a runner.

use std::collections::VecDeque;
use std::sync::Arc;

use super::bank::{Account, Bank, BankCommand, bank};
use super::store::Store;
use crate::log::Delivery;
use crate::message::{CommandId, Envelope, NoAnswer};
use crate::position::{Epoch, Nonce, Offset, Partition};
use crate::shard::{Effective, Limits, Load, Loaded, Shard, Ticket};

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Standby,
    /// Waits for its claim until then.
    Claiming {
        epoch: Epoch,
        nonce: Nonce,
        until: u64,
    },
    Leading,
}

/// What reaches a node.
#[derive(Debug)]
pub(super) enum ToNode {
    Submit(Ticket, Envelope<BankCommand>),
    Inquire(Ticket, CommandId),
    /// A load that was read when it was asked for.
    Loaded(Ticket, Result<Loaded<Account>, NoAnswer>),
    /// A load that is read now.
    LoadNow(Ticket, Load),
    Delivered(Vec<Delivery>),
    /// The log has more than it had.
    LogGrew,
    /// The state store takes over what is effective.
    Save,
    /// Time to look whether it should claim.
    Tick,
    Drain,
}

pub(super) struct Node {
    pub(super) up: bool,
    pub(super) paused: bool,
    /// Its log writer has stopped for good, until it starts anew.
    pub(super) stopped: bool,
    /// Counts starts: what was on its way to an earlier one is dropped.
    pub(super) incarnation: u64,
    pub(super) limits: Limits,
    pub(super) shard: Shard<Bank>,
    pub(super) store: Store<Bank>,
    pub(super) phase: Phase,
    /// What came while it was paused.
    pub(super) inbox: VecDeque<ToNode>,
    /// Commands that wait until the shard can take them.
    pub(super) held: VecDeque<ToNode>,
    pub(super) to_save: VecDeque<Arc<Effective<Bank>>>,
    pub(super) save_due: bool,
    /// Reading the log back from here.
    pub(super) read_from: Option<Offset>,
    /// Appends without a report, in order.
    pub(super) awaiting: VecDeque<usize>,
    pub(super) last_landing: u64,
    pub(super) last_report: u64,
    /// What it would expect next if every report were contiguous (a planted mistake).
    pub(super) assumed: Offset,
}

impl Node {
    pub(super) fn new(home: Partition, partitions: u16, limits: Limits) -> Self {
        Self {
            up: true,
            paused: false,
            stopped: false,
            incarnation: 0,
            limits,
            shard: Shard::new(bank(), home, partitions, limits),
            store: Store::default(),
            phase: Phase::Standby,
            inbox: VecDeque::new(),
            held: VecDeque::new(),
            to_save: VecDeque::new(),
            save_due: false,
            read_from: None,
            awaiting: VecDeque::new(),
            last_landing: 0,
            last_report: 0,
            assumed: Offset(0),
        }
    }

    /// Everything but the state store goes.
    pub(super) fn crash(&mut self, home: Partition, partitions: u16) {
        let store = std::mem::take(&mut self.store);
        let incarnation = self.incarnation + 1;
        *self = Self { up: false, store, incarnation, ..Self::new(home, partitions, self.limits) };
    }
}
