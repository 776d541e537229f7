//! Following a shard: taking over what it says is effective, with the states it has already folded.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::position::{Position, Version};
use engine::saga::Reactor;
use engine::shard::{Changed, Effective};
use engine::stream::{StreamId, Tenant};
use engine::time::Timestamp;

use super::keys::StateHead;
use super::sheet::Sheet;
use super::{StateStore, StoreFault};

/// A stream that one or more of the records changed: how it was, and how the last of them left it.
struct Latest<'a, R: Reactor> {
    before: Option<StateHead>,
    position: Position,
    recorded_at: Timestamp,
    changed: &'a Changed<R>,
}

impl<R: Reactor> StateStore<R> {
    /// Takes over what became effective, of any partitions, each partition's in offset order: one atomic batch.
    /// Records that the store already holds are passed over.
    ///
    /// # Errors
    /// [`StoreFault::Gap`] if a stream's versions do not follow those that the store has. After an error nothing of this
    /// call is in the store.
    pub fn save(&self, effective: &[Arc<Effective<R>>]) -> Result<(), StoreFault> {
        let mut sheet = Sheet::new(self)?;
        let mut latest = BTreeMap::<StreamId, Latest<'_, R>>::new();
        let mut reached = BTreeMap::new();
        for record in effective {
            let position = record.position;
            let progress = reached.entry(position.partition).or_insert_with(|| self.progress_of(position.partition));
            if position.offset < progress.checkpoint.next_offset {
                continue;
            }
            if record.checkpoint.epoch != progress.checkpoint.epoch {
                // Its claim was not folded here, and what is effective does not say who made it.
                progress.claimant = None;
            }
            progress.checkpoint = record.checkpoint;
            let Some(commit) = &record.commit else { continue };
            progress.recorded_at = commit.recorded_at.max(progress.recorded_at);
            sheet.put_commit(position, commit);
            for events in &commit.streams {
                let changed = record.changed.iter().find(|changed| changed.name == events.name);
                let stream = StreamId { tenant: commit.tenant.clone(), name: events.name.clone() };
                let gap =
                    |expected, found| StoreFault::Gap { position, stream: Box::new(stream.clone()), expected, found };
                let changed = changed
                    .filter(|changed| changed.version == events.last_version())
                    .ok_or_else(|| gap(events.last_version(), changed.map_or(Version(0), |changed| changed.version)))?;
                let (before, version) = match latest.get(&stream) {
                    Some(earlier) => (earlier.before, earlier.changed.version),
                    None => {
                        let before = self.head_of(&commit.tenant, changed)?;
                        (before, before.map_or(Version(0), |head| head.version))
                    }
                };
                if events.first_version != version.next() {
                    return Err(gap(version.next(), events.first_version));
                }
                latest.insert(stream, Latest { before, position, recorded_at: commit.recorded_at, changed });
            }
        }
        for (stream, latest) in latest {
            let head = StateHead {
                partition: latest.position.partition,
                version: latest.changed.version,
                offset: latest.position.offset,
                recorded_at: latest.recorded_at,
                open: false,
                timer: None,
            };
            sheet.put_state(&stream, latest.before.as_ref(), head, &latest.changed.state)?;
        }
        for (partition, progress) in reached {
            sheet.put_progress(partition, progress);
        }
        sheet.commit()
    }

    /// What stands in front of the stream's state in the store. A stream that the record made needs no look.
    fn head_of(&self, tenant: &Tenant, changed: &Changed<R>) -> Result<Option<StateHead>, StoreFault> {
        if changed.version.0 == changed.events.len() as u64 {
            return Ok(None);
        }
        self.read_state(tenant, &changed.name, |head, _| Ok(head))
    }
}
