//! The read store that all nodes share: rows, checkpoints and what is parked, committed together or not at all, and only
//! if the checkpoint is where the committer believes it to be and nobody has begun to feed the partition after it.

use std::collections::BTreeMap;

use super::projecting::{Batch, Parked};
use crate::position::Checkpoint;
use crate::stream::StreamName;
use crate::view::{Row, RowKey};

#[derive(Clone, Debug)]
pub(super) struct ReadStore {
    pub(super) rows: BTreeMap<RowKey, Row>,
    pub(super) checkpoints: Vec<Option<Checkpoint>>,
    pub(super) parked: BTreeMap<StreamName, Parked>,
    /// By partition: counts those who began to feed it. What does not move a checkpoint (a second try at what is parked)
    /// would fence nobody else.
    pub(super) tokens: Vec<u64>,
}

/// What one read of the store saw.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) token: u64,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) rows: BTreeMap<RowKey, Option<Row>>,
    pub(super) parked: BTreeMap<StreamName, Parked>,
}

impl ReadStore {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            rows: BTreeMap::new(),
            checkpoints: vec![None; partitions],
            parked: BTreeMap::new(),
            tokens: vec![0; partitions],
        }
    }

    /// One transaction. False if somebody else moved the checkpoint, or feeds the partition now.
    pub(super) fn commit(&mut self, batch: &Batch, looks_at_token: bool) -> bool {
        let fenced = looks_at_token && self.tokens[batch.partition] != batch.token;
        if fenced || self.checkpoints[batch.partition] != batch.from {
            return false;
        }
        self.move_checkpoint(batch);
        self.write_rows(batch);
        true
    }

    pub(super) fn move_checkpoint(&mut self, batch: &Batch) {
        self.checkpoints[batch.partition] = Some(batch.to);
        for (stream, parked) in &batch.parked {
            match parked {
                Some(parked) => self.parked.insert(stream.clone(), parked.clone()),
                None => self.parked.remove(stream),
            };
        }
    }

    pub(super) fn write_rows(&mut self, batch: &Batch) {
        for (key, row) in &batch.rows {
            match row {
                Some(row) => self.rows.insert(key.clone(), row.clone()),
                None => self.rows.remove(key),
            };
        }
    }

    pub(super) fn look(&self, partition: usize, keys: &[RowKey]) -> Snapshot {
        Snapshot {
            token: self.tokens[partition],
            checkpoint: self.checkpoints[partition],
            rows: keys.iter().map(|key| (key.clone(), self.rows.get(key).cloned())).collect(),
            parked: self
                .parked
                .iter()
                .filter(|(_, parked)| parked.partition == partition)
                .map(|(stream, parked)| (stream.clone(), parked.clone()))
                .collect(),
        }
    }
}
