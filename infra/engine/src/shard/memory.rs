//! What a shard keeps of its own term: streams and command ids that are speculative, or acknowledged and not yet in the
//! state store, or about to be loaded. An entry stays for as long as anybody has a load out that may return older news.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::message::{CommandId, Fingerprint};
use crate::position::{Offset, Seq, Version};
use crate::record::Commit;
use crate::stream::{StreamName, Tenant};

/// A command id where it counts. The id first: it is random, so comparing keys ends early.
pub(super) type IdKey = (CommandId, Tenant, StreamName);

/// Streams by name: the shard's own view, which wins over whatever a load brings.
pub(super) struct Streams<S> {
    entries: BTreeMap<(StreamName, Tenant), StreamEntry<S>>,
}

struct StreamEntry<S> {
    /// Loads under way that this entry must outlive.
    pins: u32,
    /// Records in flight or unsaved that changed it.
    unsaved: u32,
    /// The version that confirmed records reach. The assertion behind LOG-1.
    confirmed: Version,
    /// What is known of it; `None` until a load returns.
    value: Option<(Version, Option<Arc<S>>)>,
}

impl<S> Streams<S> {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// Registers a load of this stream. Whether the value must be asked for.
    pub(super) fn pin(&mut self, tenant: &Tenant, name: &StreamName) -> bool {
        let entry = self.entries.entry((name.clone(), tenant.clone())).or_insert(StreamEntry {
            pins: 0,
            unsaved: 0,
            confirmed: Version(0),
            value: None,
        });
        entry.pins += 1;
        entry.value.is_none()
    }

    /// Takes what a load brought, unless more is known here.
    pub(super) fn merge(&mut self, tenant: &Tenant, name: StreamName, version: Version, state: Option<Arc<S>>) {
        let entry = self.entries.get_mut(&(name, tenant.clone())).expect("a loading stream is pinned");
        if entry.value.is_none() {
            entry.value = Some((version, state));
            entry.confirmed = version;
        }
    }

    /// Ends a load's registration.
    pub(super) fn unpin(&mut self, tenant: &Tenant, name: &StreamName) {
        let key = (name.clone(), tenant.clone());
        let entry = self.entries.get_mut(&key).expect("what is unpinned was pinned");
        entry.pins -= 1;
        if entry.pins == 0 && entry.unsaved == 0 {
            self.entries.remove(&key);
        }
    }

    /// The stream as the next decision sees it.
    pub(super) fn get(&self, tenant: &Tenant, name: &StreamName) -> (Version, Option<Arc<S>>) {
        let entry = self.entries.get(&(name.clone(), tenant.clone())).expect("a deciding stream is pinned");
        let (version, state) = entry.value.as_ref().expect("a deciding stream is loaded");
        (*version, state.clone())
    }

    /// Hands the state over to be evolved; `put` must follow.
    pub(super) fn take(&mut self, tenant: &Tenant, name: &StreamName) -> Option<Arc<S>> {
        let entry = self.entries.get_mut(&(name.clone(), tenant.clone())).expect("a deciding stream is pinned");
        entry.value.as_mut().expect("a deciding stream is loaded").1.take()
    }

    /// The stream after a record handed to the log.
    pub(super) fn put(&mut self, tenant: &Tenant, name: &StreamName, version: Version, state: Arc<S>) {
        let entry = self.entries.get_mut(&(name.clone(), tenant.clone())).expect("a deciding stream is pinned");
        entry.value = Some((version, Some(state)));
        entry.unsaved += 1;
    }

    /// A record with these versions of the stream is effective.
    pub(super) fn confirm(&mut self, tenant: &Tenant, name: &StreamName, first: Version, last: Version) {
        let entry = self.entries.get_mut(&(name.clone(), tenant.clone())).expect("an unsaved stream is kept");
        assert_eq!(entry.confirmed.next(), first, "versions of {name} must be contiguous");
        entry.confirmed = last;
    }

    /// The state store has one of the records that changed it.
    pub(super) fn saved(&mut self, tenant: &Tenant, name: &StreamName) {
        let key = (name.clone(), tenant.clone());
        let entry = self.entries.get_mut(&key).expect("an unsaved stream is kept");
        entry.unsaved -= 1;
        if entry.pins == 0 && entry.unsaved == 0 {
            self.entries.remove(&key);
        }
    }
}

/// What the shard knows of a command id.
pub(super) enum IdState {
    /// Nothing; somebody asks whether the state store does.
    Asked,
    /// A command with it waits for this load.
    Loading(u64),
    /// Its record has been handed to the log.
    InFlight(Seq),
    /// Its record is effective.
    Effective {
        offset: Offset,
        commit: Arc<Commit>,
        /// Whether the state store knows.
        saved: bool,
    },
}

struct IdEntry {
    /// Loads under way that this entry must outlive.
    pins: u32,
    state: IdState,
}

/// Where a command with a known id stands.
pub(super) enum Standing {
    /// It waits for this load.
    Loading(u64),
    /// Its record is in flight.
    InFlight(Seq),
    /// Its record is effective.
    Effective(Offset, Fingerprint),
}

/// Command ids of the term.
pub(super) struct Ids {
    entries: BTreeMap<IdKey, IdEntry>,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// Where the id stands, if the shard itself knows.
    pub(super) fn standing(&self, key: &IdKey) -> Option<Standing> {
        match &self.entries.get(key)?.state {
            IdState::Asked => None,
            IdState::Loading(load) => Some(Standing::Loading(*load)),
            IdState::InFlight(seq) => Some(Standing::InFlight(*seq)),
            IdState::Effective { offset, commit, .. } => Some(Standing::Effective(*offset, commit.fingerprint)),
        }
    }

    /// Registers a load that asks whether the id is known: for a command that would run under it, or for a mere question.
    pub(super) fn pin(&mut self, key: IdKey, running: Option<u64>) {
        let entry = self.entries.entry(key).or_insert(IdEntry { pins: 0, state: IdState::Asked });
        entry.pins += 1;
        if let Some(load) = running {
            assert!(matches!(entry.state, IdState::Asked), "a known id must not run again");
            entry.state = IdState::Loading(load);
        }
    }

    /// Ends a load's registration; `running` as it began.
    pub(super) fn unpin(&mut self, key: &IdKey, running: bool) {
        let entry = self.entries.get_mut(key).expect("what is unpinned was pinned");
        entry.pins -= 1;
        if running && matches!(entry.state, IdState::Loading(_)) {
            entry.state = IdState::Asked;
        }
        let gone = match entry.state {
            IdState::Asked => true,
            IdState::Effective { saved, .. } => saved,
            IdState::Loading(_) | IdState::InFlight(_) => false,
        };
        if entry.pins == 0 && gone {
            self.entries.remove(key);
        }
    }

    /// The command under it has been decided.
    pub(super) fn run(&mut self, key: &IdKey, seq: Seq) {
        let entry = self.entries.get_mut(key).expect("a deciding id is pinned");
        assert!(matches!(entry.state, IdState::Loading(_)), "a command id must run once in a term");
        entry.state = IdState::InFlight(seq);
    }

    /// Its record is effective.
    pub(super) fn confirm(&mut self, key: &IdKey, offset: Offset, commit: Arc<Commit>) {
        let entry = self.entries.get_mut(key).expect("an id in flight is kept");
        assert!(matches!(entry.state, IdState::InFlight(_)), "an id is confirmed once");
        entry.state = IdState::Effective { offset, commit, saved: false };
    }

    /// The state store has its record.
    pub(super) fn saved(&mut self, key: &IdKey) {
        let entry = self.entries.get_mut(key).expect("an unsaved id is kept");
        let IdState::Effective { saved, .. } = &mut entry.state else {
            unreachable!("only effective records are saved")
        };
        *saved = true;
        if entry.pins == 0 {
            self.entries.remove(key);
        }
    }

    /// All that is known under this id: the resource, and the record once it is effective.
    pub(super) fn under(
        &self,
        tenant: &Tenant,
        id: CommandId,
    ) -> impl Iterator<Item = (&StreamName, Option<(Offset, &Arc<Commit>)>)> {
        // "-" and "a-!" sort before every other name that a tenant and a stream can have.
        let least = (id, Tenant::new("-").expect("a tenant name"), StreamName::new("a-!").expect("a stream name"));
        self.entries
            .range(least..)
            .take_while(move |(key, _)| key.0 == id)
            .filter(move |(key, _)| key.1 == *tenant)
            .filter_map(|(key, entry)| match &entry.state {
                IdState::Asked => None,
                IdState::Loading(_) | IdState::InFlight(_) => Some((&key.2, None)),
                IdState::Effective { offset, commit, .. } => Some((&key.2, Some((*offset, commit)))),
            })
    }
}
