//! The events of a commit one by one, each with what is known of it: how readers of the log come from a record to what a
//! fold takes.

use super::{Commit, StreamEvents};
use crate::event::{EncodedEvent, Event, EventMeta, Recorded, UnreadableEvent};
use crate::position::{Position, Version};
use crate::stream::StreamId;

/// An event of a commit, as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct CommitEvent<'a> {
    /// What it belongs to.
    pub commit: &'a Commit,
    /// What happened to the same stream in that record.
    pub written: &'a StreamEvents,
    /// Its version in that stream.
    pub version: Version,
    /// Its place among the record's events, from 0.
    pub index: u32,
    /// Its stored form.
    pub stored: &'a EncodedEvent,
}

impl Commit {
    /// Its events, in the order of the record.
    pub fn events(&self) -> impl Iterator<Item = CommitEvent<'_>> {
        let streams = self.streams.iter();
        let stored = streams.flat_map(|written| {
            let versions = (written.first_version.0..).map(Version);
            versions.zip(&written.events).map(move |(version, stored)| (written, version, stored))
        });
        let places = 0_u32..;
        places.zip(stored).map(|(index, (written, version, stored))| CommitEvent {
            commit: self,
            written,
            version,
            index,
            stored,
        })
    }
}

impl CommitEvent<'_> {
    /// Whose stream it is, and which.
    pub fn stream(&self) -> StreamId {
        StreamId { tenant: self.commit.tenant.clone(), name: self.written.name.clone() }
    }

    /// What a fold may know beside it.
    pub fn meta(&self) -> EventMeta {
        let Commit { tenant, recorded_at, command_id, fingerprint, .. } = self.commit;
        EventMeta {
            tenant: tenant.clone(),
            stream: self.written.name.clone(),
            version: self.version,
            recorded_at: *recorded_at,
            command_id: *command_id,
            fingerprint: *fingerprint,
        }
    }

    /// As readers of the log get it, of a record at this position.
    ///
    /// # Errors
    /// If no decoder here understands it.
    pub fn read<E: Event>(&self, position: Position) -> Result<Recorded<E>, UnreadableEvent> {
        let event = E::decode(self.stored)?;
        let provenance = self.commit.provenance.clone();
        Ok(Recorded { meta: self.meta(), position, index: self.index, provenance, event })
    }
}
