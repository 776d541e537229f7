//! Folding a whole log into an empty store: several partitions at once, and what they amount to as sorted tables, past the
//! journal. Tables of one keyspace say nothing of those of another, so until all of it is there the store stands condemned:
//! a process that dies meanwhile leaves one that is wiped and folded again. To the letter what catching up gives.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use engine::log::Log;
use engine::position::{Checkpoint, Offset, Partition, Position};
use engine::record::Body;
use engine::saga::Reactor;
use engine::stream::StreamId;
use engine::time::Timestamp;

use super::catching_up::{Working, accept_body, hole, put_states};
use super::sheet::Sheet;
use super::tables::{condemn_durably, pardon};
use super::{Progress, StateStore, StoreFault};
use crate::peers::Owner;

/// Bytes of records read from a partition before the others have their turn. 128 KiB: blocks of the log hold records of
/// all partitions, and the next one finds them still cached.
const READ_BYTES: usize = 128 << 10;
/// 4 threads at most: more would wait for the disk, and each has its own memory.
const THREADS_MAX: usize = 4;

/// How far a rebuild has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// Records folded so far, of all partitions.
    pub records: u64,
    /// Records there are.
    pub of: u64,
}

/// A partition while it is folded.
struct Lane {
    partition: Partition,
    end: Offset,
    checkpoint: Checkpoint,
    recorded_at: Timestamp,
    claimant: Option<Owner>,
}

/// What the threads share.
struct Shared<'a> {
    log: &'a dyn Log,
    records: AtomicU64,
    of: u64,
    failed: AtomicBool,
    progress: &'a (dyn Fn(Rebuild) + Sync),
    /// Records still to be folded, as metrics tell it.
    left: metrics::Gauge,
}

impl<R: Reactor> StateStore<R> {
    /// Folds all partitions to the log's end (as it is when called), if the store has folded nothing yet and the log is
    /// long; else it does nothing and says `false`: catching up does. Nothing else may write to the store meanwhile.
    /// `progress` is told after every piece, by several threads.
    ///
    /// # Errors
    /// As for [`StateStore::catch_up`], but nothing of it is kept then: the store is condemned, to be wiped by whoever
    /// opens it next, and this one must not be used.
    pub fn rebuild(&self, log: &dyn Log, progress: &(dyn Fn(Rebuild) + Sync)) -> Result<bool, StoreFault> {
        if log.id() != self.log {
            return Err(StoreFault::OtherLog { store: self.log, log: log.id() });
        }
        let mut lanes = Vec::new();
        for partition in (0..self.partitions()).map(Partition) {
            if self.checkpoint(partition).0 != Checkpoint::default() {
                return Ok(false);
            }
            lanes.push(Lane::new(partition, log.end(partition)));
        }
        let of = lanes.iter().map(|lane| lane.end.0).sum::<u64>();
        if of < self.options.rebuild_records_min.max(1) {
            return Ok(false);
        }
        condemn_durably(&self.directory)?;
        let left = metrics::gauge!("docket_state_rebuild_records_left");
        let shared = Shared { log, records: AtomicU64::new(0), of, failed: AtomicBool::new(false), progress, left };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(lanes.len());
        let mut shares = (0..threads).map(|_| Vec::new()).collect::<Vec<_>>();
        for (index, lane) in lanes.into_iter().enumerate() {
            shares[index % threads].push(lane);
        }
        let folded = thread::scope(|scope| {
            let threads = shares.into_iter().map(|lanes| scope.spawn(|| self.fold_lanes(&shared, lanes)));
            let threads = threads.collect::<Vec<_>>();
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(folded) => folded,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.collect::<Result<Vec<_>, _>>()
        })?;
        let mut sheet = Sheet::new(self)?;
        sheet.put_whole_calendar();
        for lane in folded.into_iter().flatten() {
            let Lane { partition, checkpoint, recorded_at, claimant, .. } = lane;
            sheet.put_progress(partition, Progress { checkpoint, recorded_at, claimant });
        }
        sheet.commit()?;
        self.persist()?;
        pardon(&self.directory)?;
        Ok(true)
    }

    /// Folds some partitions side by side.
    fn fold_lanes(&self, shared: &Shared<'_>, lanes: Vec<Lane>) -> Result<Vec<Lane>, StoreFault> {
        let folded = self.try_fold_lanes(shared, lanes);
        if folded.is_err() {
            shared.failed.store(true, Ordering::Relaxed);
        }
        folded
    }

    fn try_fold_lanes(&self, shared: &Shared<'_>, mut lanes: Vec<Lane>) -> Result<Vec<Lane>, StoreFault> {
        let mut working = (0..lanes.len()).map(|_| HashMap::new()).collect::<Vec<_>>();
        let mut sheet = Sheet::of_runs(self)?;
        let mut bytes = 0;
        // The one that is furthest behind in time: then all are near the same place of the log on disk.
        let behind = |lanes: &[Lane]| {
            let open = lanes.iter().enumerate().filter(|(_, lane)| lane.checkpoint.next_offset < lane.end);
            open.min_by_key(|(_, lane)| lane.recorded_at).map(|(index, _)| index)
        };
        while let Some(index) = behind(&lanes) {
            if shared.failed.load(Ordering::Relaxed) {
                break;
            }
            let before = lanes[index].checkpoint.next_offset;
            bytes += self.fold_piece(shared.log, &mut lanes[index], &mut sheet, &mut working[index])?;
            let records = lanes[index].checkpoint.next_offset.0 - before.0;
            let records = shared.records.fetch_add(records, Ordering::Relaxed) + records;
            shared.left.set(shared.of.saturating_sub(records) as f64);
            (shared.progress)(Rebuild { records, of: shared.of });
            if bytes >= self.options.rebuild_run_bytes {
                self.write_run(std::mem::replace(&mut sheet, Sheet::of_runs(self)?), &lanes, &mut working)?;
                bytes = 0;
            }
        }
        self.write_run(sheet, &lanes, &mut working)?;
        Ok(lanes)
    }

    /// Folds the next piece of a partition; says how many bytes of records that were.
    fn fold_piece(
        &self,
        log: &dyn Log,
        lane: &mut Lane,
        sheet: &mut Sheet<'_, R>,
        working: &mut HashMap<StreamId, Working<R::State>>,
    ) -> Result<usize, StoreFault> {
        let partition = lane.partition;
        let bytes_max = READ_BYTES.min(self.options.rebuild_run_bytes);
        let chunk = log.read(partition, lane.checkpoint.next_offset, bytes_max)?;
        if chunk.is_empty() {
            return Err(hole(partition, lane.checkpoint.next_offset, "nothing").into());
        }
        let mut bytes = 0;
        for stored in chunk.into_iter().take_while(|stored| stored.offset < lane.end) {
            if stored.offset != lane.checkpoint.next_offset {
                return Err(hole(partition, lane.checkpoint.next_offset, "a later record").into());
            }
            bytes += stored.bytes.len();
            let position = Position { partition, offset: stored.offset };
            match accept_body(&mut lane.checkpoint, position, &stored.bytes)? {
                Some(Body::Commit(commit)) => {
                    lane.recorded_at = commit.recorded_at.max(lane.recorded_at);
                    sheet.put_commit(position, &commit);
                    self.evolve(working, position, &commit)?;
                }
                Some(Body::Claim(claim)) => {
                    lane.claimant = Some(Owner { node: claim.node.into(), address: claim.address.into() });
                }
                _ => {}
            }
        }
        Ok(bytes)
    }

    /// Writes what was folded, and forgets the states: what comes again is read again.
    fn write_run(
        &self,
        mut sheet: Sheet<'_, R>,
        lanes: &[Lane],
        working: &mut [HashMap<StreamId, Working<R::State>>],
    ) -> Result<(), StoreFault> {
        for (lane, working) in lanes.iter().zip(working) {
            put_states(&mut sheet, lane.partition, working)?;
            working.clear();
        }
        sheet.ingest()
    }
}

impl Lane {
    fn new(partition: Partition, end: Offset) -> Self {
        let (checkpoint, recorded_at) = (Checkpoint::default(), Timestamp::default());
        Self { partition, end, checkpoint, recorded_at, claimant: None }
    }
}
