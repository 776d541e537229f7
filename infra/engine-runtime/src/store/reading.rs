//! Looking things up: states and ids for the shards, timers and errands for the saga runner, the index for history.

use std::ops::Bound;
use std::sync::Arc;

use engine::decider::StreamState;
use engine::message::CommandId;
use engine::position::{Offset, Partition, Version};
use engine::saga::{Reactor, Timer};
use engine::shard::{Load, Loaded, Remembered};
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;

use super::keys::{self, Reader, StateHead, damaged};
use super::{Direction, DueTimer, Indexed, Known, StateStore, StoreFault, StoredState, StreamInfo};

impl<R: Reactor> StateStore<R> {
    /// Answers `Effect::Load`. The id is looked up after the states: what it misses, a state may not rest on.
    pub fn load(&self, load: &Load) -> Result<Loaded<R::State>, StoreFault> {
        let mut streams = Vec::with_capacity(load.streams.len());
        for name in &load.streams {
            let found =
                self.read_state(&load.tenant, name, |head, json| Ok((head.version, self.parse_state(json)?)))?;
            let (version, state) =
                found.map_or((Version(0), None), |(version, state)| (version, Some(Arc::new(state))));
            streams.push(StreamState { name: name.clone(), version, state });
        }
        Ok(Loaded { streams, remembered: self.remembered(load.id, &load.tenant, &load.resource)? })
    }

    /// Where this id was used on this resource, if it was and is remembered.
    pub fn remembered(
        &self,
        id: CommandId,
        tenant: &Tenant,
        resource: &StreamName,
    ) -> Result<Option<Remembered>, StoreFault> {
        let key = keys::id(id, tenant, resource);
        let tables = self.tables()?;
        for (_, bucket) in tables.buckets().iter() {
            if let Some(value) = self.checked(bucket.get(&key))? {
                return self.checked_fault(keys::read_id_value(&value)).map(|(_, remembered)| Some(remembered));
            }
        }
        Ok(None)
    }

    /// Everything known of a command id, whatever tenant and resource, in their order.
    pub fn known(&self, id: CommandId) -> Result<Vec<Known>, StoreFault> {
        let mut known = Vec::<Known>::new();
        let tables = self.tables()?;
        for (_, bucket) in tables.buckets().iter() {
            for entry in bucket.prefix(id.0.as_bytes()) {
                let (key, value) = self.checked(entry.into_inner())?;
                let StreamId { tenant, name: resource } = self.checked_fault(keys::read_id(&key))?;
                let (partition, remembered) = self.checked_fault(keys::read_id_value(&value))?;
                // Newer buckets come first: an id used again after it was forgotten is known by its last use.
                if !known.iter().any(|known| known.tenant == tenant && known.resource == resource) {
                    known.push(Known { tenant, resource, partition, remembered });
                }
            }
        }
        known.sort_by(|one, other| (&one.tenant, &one.resource).cmp(&(&other.tenant, &other.resource)));
        Ok(known)
    }

    /// What a stream amounts to; `None` where nobody wrote it.
    pub fn state(&self, tenant: &Tenant, stream: &StreamName) -> Result<Option<StoredState<R::State>>, StoreFault> {
        self.read_state(tenant, stream, |head, json| {
            Ok(StoredState {
                stream: StreamId { tenant: tenant.clone(), name: stream.clone() },
                version: head.version,
                state: Arc::new(self.parse_state(json)?),
            })
        })
    }

    /// Streams of `partition` that owe something, in the order of tenant and name, after `after`: at most `limit`.
    pub fn open_streams(
        &self,
        partition: Partition,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<StoredState<R::State>>, StoreFault> {
        let prefix = keys::partition(partition);
        let from = after.map_or(Bound::Included(prefix.to_vec()), |after| {
            Bound::Excluded(keys::open(partition, &keys::stream(&after.tenant, after.name.as_str())))
        });
        let mut streams = Vec::new();
        let tables = self.tables()?;
        for entry in tables.open.range((from, Bound::Unbounded)) {
            let key = self.checked(entry.key())?;
            let Some(stream_key) = key.strip_prefix(&prefix).filter(|_| streams.len() < limit) else { break };
            let stream = self.checked_fault(keys::read_stream(stream_key))?;
            // Another save may have come between: then it is gone, or newer, and both are right.
            streams.extend(self.state(&stream.tenant, &stream.name)?);
        }
        Ok(streams)
    }

    /// Timers of `partition` due at `now`, the longest due first: at most `limit`.
    pub fn due_timers(&self, partition: Partition, now: Timestamp, limit: usize) -> Result<Vec<DueTimer>, StoreFault> {
        let from = keys::partition(partition).to_vec();
        let until = keys::timers_until(partition, Timestamp(now.0.saturating_add(1)));
        let mut timers = Vec::new();
        let tables = self.tables()?;
        for entry in tables.timers.range(from..until).take(limit) {
            let (key, value) = self.checked(entry.into_inner())?;
            let (due, stream_key) = self.checked_fault(keys::read_timer(&key))?;
            let armed_at = Version(self.checked_fault(Reader(&value).u64())?);
            let stream = self.checked_fault(keys::read_stream(stream_key))?;
            timers.push(DueTimer { stream, timer: Timer { due, armed_at } });
        }
        Ok(timers)
    }

    /// When the next timer of `partition` is due.
    pub fn next_due(&self, partition: Partition) -> Result<Option<Timestamp>, StoreFault> {
        let tables = self.tables()?;
        let Some(entry) = tables.timers.prefix(keys::partition(partition)).next() else { return Ok(None) };
        let key = self.checked(entry.key())?;
        self.checked_fault(keys::read_timer(&key)).map(|(due, _)| Some(due))
    }

    /// The offset of the record that holds this version of this stream, in the stream's partition.
    pub fn offset_of(
        &self,
        tenant: &Tenant,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Offset>, StoreFault> {
        let found = self.records_of(tenant, stream, version, version, Direction::Forward, 1)?;
        Ok(found.first().map(|record| record.offset))
    }

    /// The records that hold versions `from..=to` of a stream, in this direction: at most `limit`.
    pub fn records_of(
        &self,
        tenant: &Tenant,
        stream: &StreamName,
        from: Version,
        to: Version,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Indexed>, StoreFault> {
        let key_of = |version| keys::index(tenant, stream, version);
        let mut found = Vec::new();
        if from > to {
            return Ok(found);
        }
        let tables = self.tables()?;
        let index = &tables.index;
        // Keys name the first version of a record: the one that holds `from` may begin before it.
        let first_key = match index.range(keys::index_prefix(tenant, stream)..=key_of(from)).next_back() {
            Some(entry) => self.checked(entry.key())?.to_vec(),
            None => key_of(from),
        };
        let mut entries = index.range(first_key..=key_of(to));
        let mut next = || match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.next_back(),
        };
        while let Some(entry) = next().filter(|_| found.len() < limit) {
            let (key, value) = self.checked(entry.into_inner())?;
            let record = self.checked_fault(keys::read_index(&key, &value))?;
            // The stream may end before `from`.
            if record.first_version.0 + u64::from(record.count) > from.0 {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Streams of `tenant` whose names begin with `prefix`, by name, after `after`: at most `limit`.
    pub fn streams(
        &self,
        tenant: &Tenant,
        prefix: &str,
        after: Option<&StreamName>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, StoreFault> {
        let prefix = keys::stream(tenant, prefix);
        let after = after.map(|after| keys::stream(tenant, after.as_str())).filter(|after| *after >= prefix);
        let from = after.map_or_else(|| Bound::Included(prefix.clone()), Bound::Excluded);
        let mut streams = Vec::new();
        let tables = self.tables()?;
        for entry in tables.states.range((from, Bound::Unbounded)) {
            if streams.len() == limit {
                break;
            }
            let (key, value) = self.checked(entry.into_inner())?;
            if !key.starts_with(&prefix) {
                break;
            }
            let (head, _) = self.checked_fault(StateHead::read(&value))?;
            let name = self.checked_fault(keys::read_stream(&key))?.name;
            streams.push(StreamInfo { name, version: head.version, updated_at: head.recorded_at });
        }
        Ok(streams)
    }

    /// Reads a state's entry without copying it.
    pub(super) fn read_state<T>(
        &self,
        tenant: &Tenant,
        stream: &StreamName,
        read: impl FnOnce(StateHead, &[u8]) -> Result<T, StoreFault>,
    ) -> Result<Option<T>, StoreFault> {
        let tables = self.tables()?;
        let Some(value) = self.checked(tables.states.get(keys::stream(tenant, stream.as_str())))? else {
            return Ok(None);
        };
        let (head, json) = self.checked_fault(StateHead::read(&value))?;
        read(head, json).map(Some)
    }

    /// Back from the JSON behind a head.
    pub(super) fn parse_state(&self, json: &[u8]) -> Result<R::State, StoreFault> {
        self.checked_fault(serde_json::from_slice(json).map_err(|error| damaged(&format!("a state: {error}"))))
    }
}
