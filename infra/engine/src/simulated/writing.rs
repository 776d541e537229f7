//! The way of a record: handed over, landed, durable, reported. And all that goes wrong on it.

use bytes::Bytes;

use super::log::{Write, WriteFault};
use super::node::{Phase, ToNode};
use super::world::{Event, World};
use crate::log::{AppendError, Delivery};
use crate::position::Offset;

impl World {
    pub(super) fn append(&mut self, node: usize, tag: u64, bytes: Bytes) {
        self.note(tag);
        let write = self.log.writes.len();
        let fault = self.faults.writes.draw(&mut self.dice);
        let incarnation = self.nodes[node].incarnation;
        self.nodes[node].awaiting.push_back(write);
        self.log.writes.push(Write { node, incarnation, tag, bytes, copies: 1, fault, report: None });
        self.tell(|| format!("node {node} appends {}:{} {fault:?}", tag >> 40, tag & 0xFF_FFFF));
        let delay = self.dice.between(20, self.faults.writes.delay_us_max);
        if self.nodes[node].stopped {
            if self.dice.chance(500) {
                self.after(delay, Event::Land(write));
            }
            self.after(delay, Event::Resolve(write, AppendError::Stopped));
            return;
        }
        if self.log.full {
            self.count("append to a full log");
            self.after(delay, Event::Resolve(write, AppendError::Full));
            return;
        }
        // One connection keeps its order; what is overtaken went another way.
        let landing = (self.now + delay).max(self.nodes[node].last_landing);
        let in_order = landing - self.now;
        if fault != Some(WriteFault::Overtaken) {
            self.nodes[node].last_landing = landing;
        }
        let late = self.dice.between(5_000, 20_000);
        match fault {
            None | Some(WriteFault::NoOffset) => self.after(in_order, Event::Land(write)),
            Some(WriteFault::Overtaken) => self.after(in_order + late / 4, Event::Land(write)),
            Some(WriteFault::AnswerLost) => {
                self.after(in_order, Event::Land(write));
                self.after(in_order + late, Event::Resolve(write, AppendError::Unknown));
            }
            Some(WriteFault::Lost) => self.after(in_order + late, Event::Resolve(write, AppendError::Unknown)),
            Some(WriteFault::LandsLate) => {
                self.after(in_order + late, Event::Resolve(write, AppendError::Unknown));
                let much_later = self.dice.between(0, 100_000);
                self.after(in_order + late + much_later, Event::Land(write));
            }
            Some(WriteFault::Duplicated | WriteFault::DuplicatedReportedLast) => {
                self.log.writes[write].copies = 2;
                self.after(in_order, Event::Land(write));
                self.after(in_order + late, Event::Land(write));
            }
        }
        match fault {
            Some(WriteFault::AnswerLost) => self.count("answer lost"),
            Some(WriteFault::Lost) => self.count("append lost"),
            Some(WriteFault::LandsLate) => self.count("append lands late"),
            Some(WriteFault::Duplicated | WriteFault::DuplicatedReportedLast) => self.count("append duplicated"),
            Some(WriteFault::NoOffset) => self.count("append without offset"),
            Some(WriteFault::Overtaken) => self.count("append overtaken"),
            None => {}
        }
    }

    pub(super) fn land(&mut self, write: usize) {
        self.log.writes[write].copies = self.log.writes[write].copies.saturating_sub(1);
        self.log.unsynced.push(write);
        if !self.log.sync_due {
            self.log.sync_due = true;
            let delay = self.dice.between(20, 1_500);
            self.after(delay, Event::Sync);
        }
    }

    pub(super) fn sync(&mut self) -> Result<(), String> {
        self.log.sync_due = false;
        for write in std::mem::take(&mut self.log.unsynced) {
            let offset = self.log.end();
            let bytes = self.log.writes[write].bytes.clone();
            let tag = self.log.writes[write].tag;
            self.tell(|| format!("{}:{} is durable at {offset}", tag >> 40, tag & 0xFF_FFFF));
            self.become_durable(bytes)?;
            if let Some(report) = self.log.writes[write].on_durable(offset) {
                self.resolve(write, report);
            }
        }
        for node in 0..self.nodes.len() {
            let there = &self.nodes[node];
            if there.up && (there.read_from.is_some() || matches!(there.phase, Phase::Claiming { .. })) {
                let delay = self.dice.between(10, 400);
                self.reach(node, delay, ToNode::LogGrew);
            }
        }
        Ok(())
    }

    pub(super) fn become_durable(&mut self, bytes: Bytes) -> Result<(), String> {
        self.note(xxhash_rust::xxh3::xxh3_64(&bytes));
        self.referee.observe(&bytes)?;
        self.log.durable.push(bytes);
        Ok(())
    }

    pub(super) fn resolve(&mut self, write: usize, report: Result<Option<Offset>, AppendError>) {
        let Write { node, incarnation, report: slot, .. } = &mut self.log.writes[write];
        if slot.is_some() {
            return;
        }
        *slot = Some(report);
        let (node, incarnation) = (*node, *incarnation);
        let there = &mut self.nodes[node];
        if there.incarnation != incarnation {
            return;
        }
        let mut deliveries = Vec::new();
        while let Some(front) = there.awaiting.front() {
            let Write { tag, report: Some(result), .. } = &self.log.writes[*front] else { break };
            deliveries.push(Delivery { tag: *tag, result: *result });
            there.awaiting.pop_front();
        }
        if !deliveries.is_empty() {
            let at = (self.now + self.dice.between(5, 300)).max(there.last_report);
            there.last_report = at;
            self.reach(node, at - self.now, ToNode::Delivered(deliveries));
        }
    }
}
