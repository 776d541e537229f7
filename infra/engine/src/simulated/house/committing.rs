//! The way of a batch into the read store and back, and all that goes wrong on it: it may lie somewhere for long and land
//! after all, be done and not answered for, or come when somebody else feeds the partition.

use super::node::{Commit, ToNode};
use super::projecting::{Batch, Standing, Worker};
use super::view::row_of;
use super::world::{Event, Found, Mistake, World};
use crate::stream::StreamName;
use crate::view::RowKey;

impl World {
    pub(super) fn commit(&mut self, node: usize, batch: Batch, delay_us: u64) {
        let partition = batch.partition;
        let worker = self.worker(node, partition);
        worker.attempt += 1;
        worker.standing = Standing::Committing(batch.clone());
        let (attempt, incarnation) = (worker.attempt, self.nodes[node].incarnation);
        let there = delay_us + self.dice.between(20, 1_500);
        // Now and then one lies somewhere for long, and is done after all.
        let late = if self.dice.chance(self.faults.commit_late) { self.dice.between(5_000, 60_000) } else { 0 };
        if late > 0 {
            self.count("commit late");
            let unknown = ToNode::Committed(partition, attempt, None);
            self.after(there + 5_000, Event::at_node(node, Some(incarnation), unknown));
        }
        let commit = Box::new(Commit { node, incarnation, attempt, batch });
        self.after(there + late, Event::StoreCommit(commit));
    }

    /// A commit reaches the read store.
    pub(super) fn store_commit(&mut self, commit: Commit) -> Result<(), Found> {
        let Commit { node, incarnation, attempt, batch } = commit;
        let partition = batch.partition;
        let before = self.read_store.checkpoints[partition];
        let done = if self.dice.chance(self.faults.commit_fails) {
            self.count("commit failed");
            None
        } else if self.plan.mistake == Some(Mistake::CommitsUnguarded) {
            self.read_store.move_checkpoint(&batch);
            self.read_store.write_rows(&batch);
            Some(true)
        } else if self.plan.mistake == Some(Mistake::CheckpointBeforeRows) {
            let guarded = before == batch.from;
            if guarded {
                self.read_store.move_checkpoint(&batch);
                let delay = self.dice.between(50, 1_000);
                // The rows follow in a transaction of their own, if the process lives.
                self.after(delay, Event::StoreRows(node, incarnation, Box::new(batch.clone())));
            }
            Some(guarded)
        } else {
            Some(self.read_store.commit(&batch, self.plan.mistake != Some(Mistake::RetriesUnfenced)))
        };
        if done == Some(true) {
            let to = batch.to.next_offset;
            self.tell(|| format!("the read store takes partition {partition} to {to} from node {node}"));
            self.note(to.0);
            self.referee.judge_commit(&batch, before)?;
        } else if done == Some(false) {
            self.count("commit fenced");
        }
        let told = if self.dice.chance(self.faults.commit_unknown) { None } else { done };
        if told.is_none() && done.is_some() {
            self.count("commit unknown");
        }
        let back = self.dice.between(10, 400);
        self.after(back, Event::at_node(node, Some(incarnation), ToNode::Committed(partition, attempt, told)));
        Ok(())
    }

    pub(super) fn commit_came(&mut self, node: usize, partition: usize, attempt: u64, done: Option<bool>) {
        if self.worker(node, partition).attempt != attempt {
            return;
        }
        let standing = std::mem::take(&mut self.worker(node, partition).standing);
        let Standing::Committing(batch) = standing else {
            self.worker(node, partition).standing = standing;
            return;
        };
        match done {
            Some(true) => self.committed(node, partition, &batch),
            Some(false) if self.worker(node, partition).in_doubt => {
                self.worker(node, partition).standing = Standing::Doubting(batch);
                self.ask_store(node, partition, Some(Vec::new()), 0);
            }
            Some(false) => self.open_worker(node, partition, 500),
            None => {
                self.worker(node, partition).in_doubt = true;
                let delay = self.dice.between(200, 2_000);
                self.commit(node, batch, delay);
            }
        }
    }

    pub(super) fn committed(&mut self, node: usize, partition: usize, batch: &Batch) {
        let worker = self.worker(node, partition);
        worker.committed = Some(batch.to);
        for (stream, parked) in &batch.parked {
            match parked {
                Some(parked) => worker.parked.insert(stream.clone(), parked.clone()),
                None => worker.parked.remove(stream),
            };
        }
        worker.rows.extend(batch.rows.iter().cloned());
        worker.standing = Standing::Idle;
        // What is read only once is not worth its place.
        if self.dice.chance(100) {
            self.worker(node, partition).rows.clear();
        }
        self.reach(node, 1, ToNode::Work(partition));
    }

    /// What all feeders do anew once a view that reads everything is there.
    pub(super) fn restart_workers(&mut self) {
        for node in 0..self.nodes.len() {
            for partition in 0..self.logs.len() {
                let worker = self.worker(node, partition);
                *worker = Worker { attempt: worker.attempt + 1, ..Worker::default() };
            }
        }
    }

    /// Whether the read store has everything, and nothing is set aside.
    pub(super) fn store_lags(&self) -> Option<String> {
        for (partition, checkpoint) in self.read_store.checkpoints.iter().enumerate() {
            let next = checkpoint.unwrap_or_default().next_offset;
            if let Some(last) = self.referee.last_commit(partition)
                && next <= last
            {
                return Some(format!("the read store has partition {partition} up to {next}, and {last} counts"));
            }
        }
        let (stream, parked) = self.read_store.parked.iter().next()?;
        Some(format!("{stream} is still parked at version {}", parked.version))
    }

    /// The row of a stream, to be read by clients.
    pub(super) fn row_key(stream: &StreamName) -> RowKey {
        row_of(stream)
    }
}
