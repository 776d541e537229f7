//! The way of a record: handed over, landed, durable, reported. And all that goes wrong on it.

use bytes::Bytes;

use super::node::{Phase, ToNode};
use super::world::{Event, Found, Mistake, World};
use crate::log::{AppendError, Delivery};
use crate::position::Offset;
use crate::simulated::log::{Write, WriteFault};

impl World {
    pub(super) fn append(&mut self, node: usize, partition: usize, tag: u64, bytes: Bytes) {
        self.note(tag);
        let write = self.logs[partition].writes.len();
        let fault = self.faults.writes.draw(&mut self.dice);
        let incarnation = self.nodes[node].incarnation;
        self.nodes[node].desks[partition].awaiting.push_back(write);
        self.logs[partition].writes.push(Write { node, incarnation, tag, bytes, copies: 1, fault, report: None });
        self.tell(|| format!("node {node} appends {} to partition {partition} {fault:?}", name(tag)));
        let delay = self.dice.between(20, self.faults.writes.delay_us_max);
        if self.nodes[node].stopped {
            if self.dice.chance(500) {
                self.after(delay, Event::Land(partition, write));
            }
            self.after(delay, Event::Resolve(partition, write, AppendError::Stopped));
            return;
        }
        if self.logs[partition].full {
            self.count("append to a full log");
            self.after(delay, Event::Resolve(partition, write, AppendError::Full));
            return;
        }
        // One connection keeps its order; what is overtaken went another way.
        let landing = (self.now + delay).max(self.nodes[node].desks[partition].last_landing);
        let in_order = landing - self.now;
        if fault != Some(WriteFault::Overtaken) {
            self.nodes[node].desks[partition].last_landing = landing;
        }
        let late = self.dice.between(5_000, 20_000);
        let landings = match fault {
            None | Some(WriteFault::NoOffset | WriteFault::AnswerLost) => vec![in_order],
            Some(WriteFault::Overtaken) => vec![in_order + late / 4],
            Some(WriteFault::Lost | WriteFault::LandsLate) => Vec::new(),
            Some(WriteFault::Duplicated | WriteFault::DuplicatedReportedLast) => vec![in_order, in_order + late],
        };
        self.logs[partition].writes[write].copies = landings.len().max(1) as u32;
        for landing in landings {
            self.after(landing, Event::Land(partition, write));
        }
        if let Some(WriteFault::AnswerLost | WriteFault::Lost | WriteFault::LandsLate) = fault {
            self.after(in_order + late, Event::Resolve(partition, write, AppendError::Unknown));
        }
        if fault == Some(WriteFault::LandsLate) {
            let much_later = self.dice.between(0, 100_000);
            self.after(in_order + late + much_later, Event::Land(partition, write));
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

    pub(super) fn land(&mut self, partition: usize, write: usize) {
        let log = &mut self.logs[partition];
        log.writes[write].copies = log.writes[write].copies.saturating_sub(1);
        log.unsynced.push(write);
        if self.plan.mistake == Some(Mistake::AcknowledgesBeforeSync) {
            let offset = Offset(log.end().0 + log.unsynced.len() as u64 - 1);
            if let Some(report) = log.writes[write].on_durable(offset) {
                self.resolve(partition, write, report);
            }
        }
        if !self.logs[partition].sync_due {
            self.logs[partition].sync_due = true;
            let delay = self.dice.between(20, 1_500);
            self.after(delay, Event::Sync(partition));
        }
    }

    pub(super) fn sync(&mut self, partition: usize) -> Result<(), Found> {
        self.logs[partition].sync_due = false;
        for write in std::mem::take(&mut self.logs[partition].unsynced) {
            let offset = self.logs[partition].end();
            let Write { bytes, tag, .. } = &self.logs[partition].writes[write];
            let (bytes, tag) = (bytes.clone(), *tag);
            self.tell(|| format!("{} is durable in partition {partition} at {offset}", name(tag)));
            self.become_durable(partition, bytes)?;
            if let Some(report) = self.logs[partition].writes[write].on_durable(offset) {
                self.resolve(partition, write, report);
            }
        }
        for node in 0..self.nodes.len() {
            if !self.nodes[node].up {
                continue;
            }
            let desk = &self.nodes[node].desks[partition];
            if desk.read_from.is_some() || matches!(desk.phase, Phase::Claiming { .. }) {
                let delay = self.dice.between(10, 400);
                self.reach(node, delay, ToNode::LogGrew(partition));
            }
            if self.leases[partition] == node {
                let delay = self.dice.between(10, 2_000);
                self.reach(node, delay, ToNode::Work(partition));
            }
            let delay = self.dice.between(10, 3_000);
            self.reach(node, delay, ToNode::Tail(partition));
        }
        Ok(())
    }

    pub(super) fn become_durable(&mut self, partition: usize, bytes: Bytes) -> Result<(), Found> {
        self.note(xxhash_rust::xxh3::xxh3_64(&bytes));
        self.referee.observe(partition, &bytes)?;
        self.logs[partition].durable.push(bytes);
        Ok(())
    }

    pub(super) fn resolve(&mut self, partition: usize, write: usize, report: Result<Option<Offset>, AppendError>) {
        let Write { node, incarnation, report: slot, .. } = &mut self.logs[partition].writes[write];
        if slot.is_some() {
            return;
        }
        *slot = Some(report);
        let (node, incarnation) = (*node, *incarnation);
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        let desk = &mut self.nodes[node].desks[partition];
        let mut deliveries = Vec::new();
        while let Some(front) = desk.awaiting.front() {
            let Write { tag, report: Some(result), .. } = &self.logs[partition].writes[*front] else { break };
            deliveries.push(Delivery { tag: *tag, result: *result });
            desk.awaiting.pop_front();
        }
        if !deliveries.is_empty() {
            let at = (self.now + self.dice.between(5, 300)).max(desk.last_report);
            desk.last_report = at;
            self.reach(node, at - self.now, ToNode::Delivered(partition, deliveries));
        }
    }
}

/// Term and number of a record.
fn name(tag: u64) -> String {
    format!("{}:{}", tag >> 40, tag & 0xFF_FFFF)
}
