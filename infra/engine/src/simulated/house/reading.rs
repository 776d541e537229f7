//! The query side: rows out of a cache that the tail of the log keeps true, or out of the read store, and never older than
//! what the reader was told or the node itself has acknowledged.

use super::node::{Looking, ToNode};
use super::projecting::events_of;
use super::read_store::Snapshot;
use super::view::Ledger;
use super::world::{Event, Mistake, Told, World};
use crate::fold::Verdict;
use crate::position::{Offset, Partition};
use crate::record::{Body, Record};
use crate::shard::Ticket;
use crate::stream::StreamName;

/// Records that the tail tells in one go.
const TAIL_RECORDS: u64 = 8;

impl World {
    /// The tail of the log tells the cache what is new.
    pub(super) fn tail(&mut self, node: usize, partition: usize) {
        let end = self.logs[partition].end();
        let count = self.dice.between(1, TAIL_RECORDS);
        let there = &mut self.nodes[node];
        let at = Partition(partition as u16);
        for _ in 0..count {
            let desk = &mut there.desks[partition];
            let offset = desk.tail.next_offset;
            if offset >= end {
                break;
            }
            let record = Record::decode(self.logs[partition].at(offset)).expect("the log keeps what it is given");
            let effective = desk.tail.accept(&record.header) == Verdict::Effective;
            let foreign = self.plan.mistake == Some(Mistake::CacheMissesForeignEvents) && !desk.shard.is_leading();
            let tells = effective && !foreign && matches!(record.body, Body::Commit(_));
            let events = if tells { events_of(partition, offset, record) } else { Vec::new() };
            if events.iter().any(|event| self.faults.poison && event.event == super::business::Happened::Marked) {
                there.gate.unreadable(at, offset, &mut there.shelf);
            } else {
                there.gate.record(&Ledger, at, offset, &events, &mut there.shelf);
            }
        }
        if self.dice.chance(50)
            && let Some(evicted) = self.nodes[node].shelf.0.pop_first()
        {
            self.count("evicted");
            drop(evicted);
        }
        if self.nodes[node].desks[partition].tail.next_offset < end {
            let delay = self.dice.between(10, 500);
            self.reach(node, delay, ToNode::Tail(partition));
        }
    }

    /// A client wants to see a row.
    pub(super) fn look_up(&mut self, node: usize, ticket: Ticket, stream: StreamName, told: Option<Offset>) {
        let partition = self.partition_of(&stream);
        let there = &mut self.nodes[node];
        let mut floor = told.max(there.desks[partition].acknowledged);
        if self.plan.mistake == Some(Mistake::ReadsWithoutWaiting) {
            floor = None;
        }
        let key = Self::row_key(&stream);
        let shown = there.gate.serve(&key, &there.shelf);
        if let Some(shown) = shown.filter(|shown| is_fresh(shown.as_of, floor)) {
            self.count("served from the cache");
            self.show(ticket, Told::Row(shown.row));
            return;
        }
        let load = there.gate.begin(key, Partition(partition as u16));
        let incarnation = there.incarnation;
        let delay = self.dice.between(10, 1_000);
        self.after(delay, Event::StoreLook(node, incarnation, Box::new(Looking { ticket, stream, floor, load })));
    }

    pub(super) fn store_look(&mut self, node: usize, incarnation: u64, looking: Looking) {
        let partition = self.partition_of(&looking.stream);
        let snapshot = self.read_store.look(partition, std::slice::from_ref(looking.load.key()));
        let delay = if self.dice.chance(200) { self.dice.between(1_000, 20_000) } else { self.dice.between(10, 500) };
        self.after(delay, Event::at_node(node, Some(incarnation), ToNode::Found(looking, snapshot)));
    }

    pub(super) fn found(&mut self, node: usize, looking: Looking, snapshot: Snapshot) {
        let Looking { ticket, stream, floor, load } = looking;
        let there = &mut self.nodes[node];
        if snapshot.parked.contains_key(&stream) {
            there.gate.abandoned(&load);
            self.show(ticket, Told::Parked);
            return;
        }
        let row = snapshot.rows.into_values().next().flatten();
        let mut at = snapshot.checkpoint.unwrap_or_default().next_offset;
        let mut load = load;
        if self.plan.mistake == Some(Mistake::FillsCacheWithStaleRows) {
            let (key, partition) = (load.key().clone(), Partition(self.referee.partition_of(&stream) as u16));
            there.gate.abandoned(&load);
            load = there.gate.begin(key, partition);
            at = at.max(there.gate.seen(partition));
        }
        let landed = there.gate.landed(load, row, at, &mut there.shelf);
        self.count(if landed.kept { "load kept" } else { "load not kept" });
        if is_fresh(landed.shown.as_of, floor) {
            self.show(ticket, Told::Row(landed.shown.row));
        } else {
            self.count("read waits");
            let delay = self.dice.between(300, 3_000);
            self.reach(node, delay, ToNode::Look(ticket, stream, floor));
        }
    }

    fn show(&mut self, ticket: Ticket, told: Told) {
        if self.dice.chance(self.faults.answer_lost) {
            self.count("answer lost on the way");
            return;
        }
        let delay = self.dice.between(20, 1_000);
        self.after(delay, Event::Told(ticket, Box::new(told)));
    }
}

/// Whether what is as of this next offset has what lies at the floor.
fn is_fresh(as_of: Offset, floor: Option<Offset>) -> bool {
    floor.is_none_or(|floor| as_of > floor)
}
