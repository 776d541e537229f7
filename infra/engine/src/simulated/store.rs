//! A node's state store: the fold of effective records, as far as it has got.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decider::{Decider, StreamState};
use crate::event::{Event, EventMeta};
use crate::fold::Verdict;
use crate::message::CommandId;
use crate::position::{Checkpoint, Offset, Version};
use crate::record::{Body, Commit, Header, Record};
use crate::shard::{Effective, Load, Loaded, Remembered};
use crate::stream::StreamName;
use crate::time::Timestamp;
use bytes::Bytes;

#[derive(Clone, Debug)]
pub(super) struct Store<D: Decider> {
    pub(super) decider: D,
    pub(super) checkpoint: Checkpoint,
    pub(super) last_recorded_at: Timestamp,
    pub(super) streams: BTreeMap<StreamName, (Version, Arc<D::State>)>,
    pub(super) ids: BTreeMap<(StreamName, CommandId), Remembered>,
}

impl<D: Decider + Clone + Default> Default for Store<D> {
    fn default() -> Self {
        Self::new(D::default())
    }
}

impl<D: Decider + Clone> Store<D> {
    /// Nothing is folded.
    pub(super) fn new(decider: D) -> Self {
        Self {
            decider,
            checkpoint: Checkpoint::default(),
            last_recorded_at: Timestamp(0),
            streams: BTreeMap::new(),
            ids: BTreeMap::new(),
        }
    }

    /// Forgets all.
    pub(super) fn lose(&mut self) {
        *self = Self::new(self.decider.clone());
    }

    /// Folds the next record. The commit, if it counts and is one.
    pub(super) fn fold(&mut self, bytes: &Bytes) -> (Verdict, Option<Commit>) {
        let offset = self.checkpoint.next_offset;
        let header = Header::decode(bytes).expect("the simulated log keeps what it is given");
        if self.checkpoint.accept(&header) == Verdict::Ignored {
            return (Verdict::Ignored, None);
        }
        let record = Record::decode(bytes).expect("the simulated log keeps what it is given");
        let Body::Commit(commit) = record.body else { return (Verdict::Effective, None) };
        self.apply(offset, &commit);
        (Verdict::Effective, Some(*commit))
    }

    /// Folds a record that is effective.
    fn apply(&mut self, offset: Offset, commit: &Commit) {
        self.remember(offset, commit);
        for written in &commit.streams {
            let mut meta = EventMeta {
                tenant: commit.tenant.clone(),
                stream: written.name.clone(),
                version: written.first_version,
                recorded_at: commit.recorded_at,
                command_id: commit.command_id,
                fingerprint: commit.fingerprint,
            };
            let mut state = self.streams.remove(&written.name).map(|(_, state)| Arc::unwrap_or_clone(state));
            for event in &written.events {
                let event = D::Event::decode(event).expect("the business reads what it wrote");
                state = Some(self.decider.evolve(state, &event, &meta));
                meta.version = meta.version.next();
            }
            let state = Arc::new(state.expect("a stream is written with events"));
            self.streams.insert(written.name.clone(), (written.last_version(), state));
        }
    }

    /// Takes over what the shard says is effective.
    pub(super) fn save(&mut self, effective: &Effective<D>) {
        self.checkpoint = effective.checkpoint;
        if let Some(commit) = &effective.commit {
            self.remember(effective.position.offset, commit);
        }
        for changed in &effective.changed {
            self.streams.insert(changed.name.clone(), (changed.version, changed.state.clone()));
        }
    }

    fn remember(&mut self, offset: Offset, commit: &Commit) {
        let remembered = Remembered { offset, fingerprint: commit.fingerprint };
        self.ids.insert((commit.resource.clone(), commit.command_id), remembered);
        self.last_recorded_at = commit.recorded_at;
    }

    /// What a load finds, with `newer` records (acknowledged, not saved) on top, as a cache would have them.
    pub(super) fn look<'a>(
        &self,
        load: &Load,
        newer: impl DoubleEndedIterator<Item = &'a Arc<Effective<D>>> + Clone,
    ) -> Loaded<D::State> {
        let streams = (load.streams.iter())
            .map(|name| {
                let cached = newer.clone().rev().flat_map(|effective| effective.changed.iter());
                let cached =
                    cached.filter(|changed| changed.name == *name).map(|c| (c.version, c.state.clone())).next();
                match cached.or_else(|| self.streams.get(name).cloned()) {
                    Some((version, state)) => StreamState { name: name.clone(), version, state: Some(state) },
                    None => StreamState { name: name.clone(), version: Version(0), state: None },
                }
            })
            .collect();
        Loaded { streams, remembered: self.ids.get(&(load.resource.clone(), load.id)).copied() }
    }
}
