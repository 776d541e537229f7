//! How a node takes a partition: it claims, folds the log up to its own claim, and leads if the fold says so. And how it
//! reads the log back where it is not told where its records lie.

use super::business::Clearing;
use super::node::Phase;
use super::world::{CLAIM_TIMEOUT_US, Found, Mistake, World};
use crate::fold::Verdict;
use crate::log::Delivery;
use crate::position::{Epoch, Nonce, Offset, Seq};
use crate::record::{Claim, Header, Kind};
use crate::shard::Input;
use crate::simulated::store::Store;

impl World {
    pub(super) fn claim(&mut self, node: usize, partition: usize) {
        self.count("claimed");
        self.fold_store(node, partition, |_| false);
        let nonce = Nonce(self.dice.any());
        let claim = Claim { node: "node".into(), address: "here".into(), claimed_at: self.clock(node) };
        let desk = &mut self.nodes[node].desks[partition];
        let (tag, bytes) = desk.shard.claim(&desk.store.checkpoint, nonce, claim);
        let epoch = Header::decode(&bytes).expect("a claim").epoch;
        desk.phase = Phase::Claiming { epoch, nonce, until: self.now + CLAIM_TIMEOUT_US };
        self.tell(|| format!("node {node} claims epoch {epoch} of partition {partition}"));
        self.append(node, partition, tag, bytes);
    }

    /// Folds the log into the node's state store until `enough`, or to the end.
    pub(super) fn fold_store(&mut self, node: usize, partition: usize, enough: impl Fn(&Store<Clearing>) -> bool) {
        let (store, log) = (&mut self.nodes[node].desks[partition].store, &self.logs[partition]);
        while !enough(store) && store.checkpoint.next_offset < log.end() {
            store.fold(log.at(store.checkpoint.next_offset));
        }
    }

    pub(super) fn await_claim(&mut self, node: usize, partition: usize) -> Result<(), Found> {
        let Phase::Claiming { epoch, nonce, .. } = self.nodes[node].desks[partition].phase else { return Ok(()) };
        if self.plan.mistake == Some(Mistake::ServesBeforeItsClaim) {
            return self.serve_at_once(node, partition, epoch, nonce);
        }
        self.fold_store(node, partition, |store| store.checkpoint.epoch >= epoch);
        let desk = &mut self.nodes[node].desks[partition];
        let checkpoint = desk.store.checkpoint;
        if checkpoint.epoch < epoch {
            return Ok(());
        }
        if checkpoint.nonce == nonce && checkpoint.open {
            let led = desk.shard.lead(checkpoint, desk.store.last_recorded_at);
            assert!(led, "the fold says so");
            desk.phase = Phase::Leading;
            self.count("led");
            self.tell(|| format!("node {node} leads partition {partition} in epoch {epoch}"));
            self.take_over(node, partition);
            // What the state store had from before this term says nothing of it.
            let saved = checkpoint.next_offset;
            return self.feed(node, partition, Input::Saved(saved));
        }
        desk.phase = Phase::Standby;
        self.count("claim lost");
        Ok(())
    }

    fn serve_at_once(&mut self, node: usize, partition: usize, epoch: Epoch, nonce: Nonce) -> Result<(), Found> {
        let header = Header { kind: Kind::Claim, epoch, nonce, seq: Seq(0) };
        let durable = &self.logs[partition].durable;
        let Some(at) = durable.iter().position(|bytes| Header::decode(bytes) == Ok(header)) else { return Ok(()) };
        let desk = &mut self.nodes[node].desks[partition];
        let mut checkpoint = desk.store.checkpoint;
        checkpoint.next_offset = Offset(at as u64);
        if checkpoint.accept(&header) == Verdict::Effective && desk.shard.lead(checkpoint, desk.store.last_recorded_at)
        {
            desk.phase = Phase::Leading;
            self.take_over(node, partition);
        } else {
            desk.phase = Phase::Standby;
        }
        Ok(())
    }

    pub(super) fn assume_contiguous(&mut self, node: usize, partition: usize, deliveries: &mut [Delivery]) {
        let desk = &mut self.nodes[node].desks[partition];
        for delivery in deliveries {
            if let Ok(offset) = &mut delivery.result {
                // The first of a term says where it starts.
                if delivery.tag & 0xFF_FFFF == 0 {
                    desk.assumed = offset.unwrap_or(desk.assumed).next();
                } else {
                    *offset = Some(desk.assumed);
                    desk.assumed = desk.assumed.next();
                }
            }
        }
    }

    pub(super) fn read_back(&mut self, node: usize, partition: usize) -> Result<(), Found> {
        let Some(from) = self.nodes[node].desks[partition].read_from else { return Ok(()) };
        let records = if self.logs[partition].end() > from {
            let count = self.dice.between(1, 5) as usize;
            self.logs[partition].read(from, count)
        } else if self.dice.chance(200) {
            Vec::new()
        } else {
            return Ok(());
        };
        self.nodes[node].desks[partition].read_from = None;
        self.feed(node, partition, Input::ReadBack(records))
    }
}
