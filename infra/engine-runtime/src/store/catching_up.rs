//! Folding the log into the store: the newest records after a restart, all of them after a loss, everybody else's before
//! a term of one's own. Gives to the letter what following the shards gives.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use engine::event::{Event, EventMeta};
use engine::fold::Verdict;
use engine::log::{Log, LogFault};
use engine::position::{Checkpoint, Offset, Partition, Position, Version};
use engine::record::{Body, Commit, Header, Record, UnreadableRecord};
use engine::saga::Reactor;
use engine::stream::StreamId;
use engine::time::Timestamp;

use super::keys::StateHead;
use super::sheet::Sheet;
use super::{CatchUp, Progress, StateStore, StoreFault};
use crate::peers::Owner;

/// Bytes of records folded into one batch: a few thousand records, so that the streams they have in common are written
/// once.
const BATCH_BYTES: usize = 2 << 20;
/// Bytes of states (as JSON) kept between batches.
const STATES_BYTES_MAX: usize = 8 << 20;

/// A stream while its partition is being folded.
pub(super) struct Working<S> {
    /// As the store has it.
    before: Option<StateHead>,
    version: Version,
    offset: Offset,
    recorded_at: Timestamp,
    /// `None` only while nobody wrote it.
    state: Option<S>,
    is_changed: bool,
    /// Its place among what the record changed.
    place: usize,
}

/// A stream as a catch-up left it.
pub(crate) struct Folded<'a, S> {
    pub(crate) stream: &'a StreamId,
    pub(crate) version: Version,
    pub(crate) position: Position,
    pub(crate) state: &'a S,
}

impl<R: Reactor> StateStore<R> {
    /// Folds `partition` from its checkpoint to the log's end (as it is when called), or up to `stop_before`. Must not
    /// run for a partition while something else saves to it; several partitions may be folded at once. `progress` is told
    /// after every batch.
    ///
    /// # Errors
    /// [`StoreFault::Record`] and [`StoreFault::Event`] name what this program cannot read: the node must not go on. What
    /// was folded before stays in the store.
    pub fn catch_up(
        &self,
        log: &dyn Log,
        partition: Partition,
        stop_before: Option<Offset>,
        progress: &mut dyn FnMut(CatchUp),
    ) -> Result<Checkpoint, StoreFault> {
        self.catch_up_telling(log, partition, stop_before, progress, &mut |_| {})
    }

    /// The same, and `changed` is told of every stream that changed, in the order of the records that last changed them,
    /// once the store has it.
    pub(crate) fn catch_up_telling(
        &self,
        log: &dyn Log,
        partition: Partition,
        stop_before: Option<Offset>,
        progress: &mut dyn FnMut(CatchUp),
        changed: &mut dyn FnMut(Folded<'_, R::State>),
    ) -> Result<Checkpoint, StoreFault> {
        if log.id() != self.log {
            return Err(StoreFault::OtherLog { store: self.log, log: log.id() });
        }
        // First: it may show more than was known to be saved.
        self.reopen_if_broken()?;
        let Progress { mut checkpoint, mut recorded_at, mut claimant } = self.progress_of(partition);
        let log_end = log.end(partition);
        if checkpoint.next_offset > log_end {
            return Err(StoreFault::AheadOfLog { partition, folded: checkpoint.next_offset, end: log_end });
        }
        let end = stop_before.map_or(log_end, |stop_before| stop_before.min(log_end));
        let mut working = HashMap::new();
        let mut working_bytes = 0;
        let mut records = 0;
        while checkpoint.next_offset < end {
            let mut sheet = Sheet::new(self)?;
            let chunk = log.read(partition, checkpoint.next_offset, BATCH_BYTES)?;
            if chunk.is_empty() {
                return Err(hole(partition, checkpoint.next_offset, "nothing").into());
            }
            for stored in chunk.into_iter().take_while(|stored| stored.offset < end) {
                if stored.offset != checkpoint.next_offset {
                    return Err(hole(partition, checkpoint.next_offset, "a later record").into());
                }
                records += 1;
                let position = Position { partition, offset: stored.offset };
                match accept_body(&mut checkpoint, position, &stored.bytes)? {
                    Some(Body::Commit(commit)) => {
                        recorded_at = commit.recorded_at.max(recorded_at);
                        sheet.put_commit(position, &commit);
                        self.checked_fault(self.evolve(&mut working, position, &commit))?;
                    }
                    Some(Body::Claim(claim)) => {
                        claimant = Some(Owner { node: claim.node.into(), address: claim.address.into() });
                    }
                    _ => {}
                }
            }
            let (bytes, streams) = put_states(&mut sheet, partition, &mut working)?;
            working_bytes += bytes;
            sheet.put_progress(partition, Progress { checkpoint, recorded_at, claimant: claimant.clone() });
            sheet.commit()?;
            for stream in &streams {
                if let Some(Working { version, offset, state: Some(state), .. }) = working.get(stream) {
                    let position = Position { partition, offset: *offset };
                    changed(Folded { stream, version: *version, position, state });
                }
            }
            if working_bytes > STATES_BYTES_MAX {
                working.clear();
                working_bytes = 0;
            }
            progress(CatchUp { partition, records, next_offset: checkpoint.next_offset, end });
        }
        Ok(checkpoint)
    }

    pub(super) fn evolve(
        &self,
        working: &mut HashMap<StreamId, Working<R::State>>,
        position: Position,
        commit: &Commit,
    ) -> Result<(), StoreFault> {
        for (place, events) in commit.streams.iter().enumerate() {
            let stream = StreamId { tenant: commit.tenant.clone(), name: events.name.clone() };
            let found = match working.entry(stream) {
                Entry::Occupied(entry) => entry.into_mut(),
                // Only the first event of a stream needs no look: nobody wrote it before.
                Entry::Vacant(entry) if events.first_version == Version(1) => entry.insert(Working::absent()),
                Entry::Vacant(entry) => {
                    let found = self.working(entry.key())?;
                    entry.insert(found)
                }
            };
            let stream_id = || Box::new(StreamId { tenant: commit.tenant.clone(), name: events.name.clone() });
            if events.first_version != found.version.next() {
                return Err(StoreFault::Gap {
                    position,
                    stream: stream_id(),
                    expected: found.version.next(),
                    found: events.first_version,
                });
            }
            let mut meta = EventMeta {
                tenant: commit.tenant.clone(),
                stream: events.name.clone(),
                version: events.first_version,
                recorded_at: commit.recorded_at,
                command_id: commit.command_id,
                fingerprint: commit.fingerprint,
            };
            for stored in &events.events {
                let event = R::Event::decode(stored).map_err(|source| StoreFault::Event {
                    position,
                    stream: stream_id(),
                    source,
                })?;
                found.state = Some(self.decider.evolve(found.state.take(), &event, &meta));
                meta.version = meta.version.next();
            }
            found.version = events.last_version();
            found.offset = position.offset;
            found.recorded_at = commit.recorded_at;
            found.is_changed = true;
            found.place = place;
        }
        Ok(())
    }

    fn working(&self, stream: &StreamId) -> Result<Working<R::State>, StoreFault> {
        let found = self.read_state(&stream.tenant, &stream.name, |head, json| {
            Ok(Working {
                before: Some(head),
                version: head.version,
                offset: head.offset,
                recorded_at: head.recorded_at,
                state: Some(self.parse_state(json)?),
                is_changed: false,
                place: 0,
            })
        })?;
        Ok(found.unwrap_or_else(Working::absent))
    }
}

impl<S> Working<S> {
    fn absent() -> Self {
        Self {
            before: None,
            version: Version(0),
            offset: Offset(0),
            recorded_at: Timestamp(0),
            state: None,
            is_changed: false,
            place: 0,
        }
    }
}

/// Writes down what changed; returns how many bytes that are, and the streams in the order of their last records.
pub(super) fn put_states<R: Reactor>(
    sheet: &mut Sheet<'_, R>,
    partition: Partition,
    working: &mut HashMap<StreamId, Working<R::State>>,
) -> Result<(usize, Vec<StreamId>), StoreFault> {
    let mut written = 0;
    let mut streams = Vec::new();
    for (stream, found) in working.iter_mut().filter(|(_, found)| found.is_changed) {
        let Some(state) = &found.state else { continue };
        let head = StateHead {
            partition,
            version: found.version,
            offset: found.offset,
            recorded_at: found.recorded_at,
            open: false,
            timer: None,
        };
        let (head, bytes) = sheet.put_state(stream, found.before.as_ref(), head, state)?;
        found.before = Some(head);
        found.is_changed = false;
        written += bytes;
        streams.push((found.offset, found.place, stream.clone()));
    }
    streams.sort_unstable_by_key(|(offset, place, _)| (*offset, *place));
    Ok((written, streams.into_iter().map(|(_, _, stream)| stream).collect()))
}

/// Folds one record into the checkpoint; gives back the commit, if it is one and counts.
pub(crate) fn accept(
    checkpoint: &mut Checkpoint,
    position: Position,
    bytes: &Bytes,
) -> Result<Option<Commit>, StoreFault> {
    Ok(match accept_body(checkpoint, position, bytes)? {
        Some(Body::Commit(commit)) => Some(*commit),
        _ => None,
    })
}

/// Folds one record into the checkpoint; gives back what it says, if it counts.
pub(super) fn accept_body(
    checkpoint: &mut Checkpoint,
    position: Position,
    bytes: &Bytes,
) -> Result<Option<Body>, StoreFault> {
    let unreadable = |source: UnreadableRecord| StoreFault::Record { position, source };
    match Record::decode(bytes) {
        Ok(record) => match checkpoint.accept(&record.header) {
            Verdict::Effective => Ok(Some(record.body)),
            Verdict::Ignored => Ok(None),
        },
        // Its header may do: what a zombie of a newer version wrote late concerns nobody.
        Err(error) => match checkpoint.accept(&Header::decode(bytes).map_err(unreadable)?) {
            Verdict::Effective => Err(unreadable(error)),
            Verdict::Ignored => Ok(None),
        },
    }
}

pub(super) fn hole(partition: Partition, offset: Offset, what: &str) -> LogFault {
    LogFault::Damaged {
        place: Position { partition, offset }.to_string(),
        what: format!("{what} was read where a record should be"),
    }
}
