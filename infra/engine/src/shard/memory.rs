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

/// Where an entry is, for as long as it is pinned, in flight or unsaved. Finding a name in a large map costs more than
/// deciding does, so a name is looked up when a command comes and when it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// Entries at fixed places.
struct Slots<T> {
    entries: Vec<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Slots<T> {
    fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    fn insert(&mut self, entry: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.entries[slot.0] = Some(entry);
            return slot;
        }
        self.entries.push(Some(entry));
        Slot(self.entries.len() - 1)
    }

    fn at(&self, slot: Slot) -> &T {
        self.entries[slot.0].as_ref().expect("an entry outlives its use")
    }

    fn at_mut(&mut self, slot: Slot) -> &mut T {
        self.entries[slot.0].as_mut().expect("an entry outlives its use")
    }

    fn remove(&mut self, slot: Slot) -> T {
        self.free.push(slot);
        self.entries[slot.0].take().expect("an entry is removed once")
    }
}

/// Streams by name: the shard's own view, which wins over whatever a load brings.
pub(super) struct Streams<S> {
    index: BTreeMap<StreamKey, Slot>,
    slots: Slots<StreamEntry<S>>,
}

type StreamKey = (StreamName, Tenant);

struct StreamEntry<S> {
    key: StreamKey,
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
        Self { index: BTreeMap::new(), slots: Slots::new() }
    }

    /// Registers a load of this stream.
    pub(super) fn pin(&mut self, tenant: &Tenant, name: &StreamName) -> Slot {
        let slots = &mut self.slots;
        let slot = *self.index.entry((name.clone(), tenant.clone())).or_insert_with_key(|key| {
            slots.insert(StreamEntry { key: key.clone(), pins: 0, unsaved: 0, confirmed: Version(0), value: None })
        });
        slots.at_mut(slot).pins += 1;
        slot
    }

    /// Whether its value must be asked for.
    pub(super) fn is_unknown(&self, slot: Slot) -> bool {
        self.slots.at(slot).value.is_none()
    }

    /// Takes what a load brought, unless more is known here.
    pub(super) fn merge(&mut self, slot: Slot, version: Version, state: Option<Arc<S>>) {
        let entry = self.slots.at_mut(slot);
        if entry.value.is_none() {
            entry.value = Some((version, state));
            entry.confirmed = version;
        }
    }

    /// Ends a load's registration.
    pub(super) fn unpin(&mut self, slot: Slot) {
        self.slots.at_mut(slot).pins -= 1;
        self.let_go(slot);
    }

    /// The stream as the next decision sees it.
    pub(super) fn get(&self, slot: Slot) -> (Version, Option<&Arc<S>>) {
        let (version, state) = self.slots.at(slot).value.as_ref().expect("a deciding stream is loaded");
        (*version, state.as_ref())
    }

    /// Hands the state over to be evolved; `put` must follow.
    pub(super) fn take(&mut self, slot: Slot) -> Option<Arc<S>> {
        self.slots.at_mut(slot).value.as_mut().expect("a deciding stream is loaded").1.take()
    }

    /// The stream after a record handed to the log.
    pub(super) fn put(&mut self, slot: Slot, version: Version, state: Arc<S>) {
        let entry = self.slots.at_mut(slot);
        entry.value = Some((version, Some(state)));
        entry.unsaved += 1;
    }

    /// A record with these versions of the stream is effective.
    pub(super) fn confirm(&mut self, slot: Slot, first: Version, last: Version) {
        let entry = self.slots.at_mut(slot);
        assert_eq!(entry.confirmed.next(), first, "versions of {} must be contiguous", entry.key.0);
        entry.confirmed = last;
    }

    /// The state store has one of the records that changed it.
    pub(super) fn saved(&mut self, slot: Slot) {
        self.slots.at_mut(slot).unsaved -= 1;
        self.let_go(slot);
    }

    fn let_go(&mut self, slot: Slot) {
        let entry = self.slots.at(slot);
        if entry.pins == 0 && entry.unsaved == 0 {
            let entry = self.slots.remove(slot);
            self.index.remove(&entry.key);
        }
    }
}

/// What the shard knows of a command id.
enum IdState {
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
    key: IdKey,
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
    index: BTreeMap<IdKey, Slot>,
    slots: Slots<IdEntry>,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { index: BTreeMap::new(), slots: Slots::new() }
    }

    /// Where the id stands, if the shard itself knows.
    pub(super) fn standing_of(&self, key: &IdKey) -> Option<Standing> {
        self.standing(*self.index.get(key)?)
    }

    /// Where the id stands, if the shard itself knows.
    pub(super) fn standing(&self, slot: Slot) -> Option<Standing> {
        match &self.slots.at(slot).state {
            IdState::Asked => None,
            IdState::Loading(load) => Some(Standing::Loading(*load)),
            IdState::InFlight(seq) => Some(Standing::InFlight(*seq)),
            IdState::Effective { offset, commit, .. } => Some(Standing::Effective(*offset, commit.fingerprint)),
        }
    }

    /// Registers a load that asks whether the id is known: for a command that would run under it, or for a mere question.
    pub(super) fn pin(&mut self, key: IdKey, running: Option<u64>) -> Slot {
        let slots = &mut self.slots;
        let slot = *(self.index.entry(key))
            .or_insert_with_key(|key| slots.insert(IdEntry { key: key.clone(), pins: 0, state: IdState::Asked }));
        let entry = slots.at_mut(slot);
        entry.pins += 1;
        if let Some(load) = running {
            assert!(matches!(entry.state, IdState::Asked), "a known id must not run again");
            entry.state = IdState::Loading(load);
        }
        slot
    }

    /// Ends a load's registration; `running` as it began.
    pub(super) fn unpin(&mut self, slot: Slot, running: bool) {
        let entry = self.slots.at_mut(slot);
        entry.pins -= 1;
        if running && matches!(entry.state, IdState::Loading(_)) {
            entry.state = IdState::Asked;
        }
        self.let_go(slot);
    }

    /// The command under it has been decided.
    pub(super) fn run(&mut self, slot: Slot, seq: Seq) {
        let entry = self.slots.at_mut(slot);
        assert!(matches!(entry.state, IdState::Loading(_)), "a command id must run once in a term");
        entry.state = IdState::InFlight(seq);
    }

    /// Its record is effective.
    pub(super) fn confirm(&mut self, slot: Slot, offset: Offset, commit: Arc<Commit>) {
        let entry = self.slots.at_mut(slot);
        assert!(matches!(entry.state, IdState::InFlight(_)), "an id is confirmed once");
        entry.state = IdState::Effective { offset, commit, saved: false };
    }

    /// The state store has its record.
    pub(super) fn saved(&mut self, slot: Slot) {
        let IdState::Effective { saved, .. } = &mut self.slots.at_mut(slot).state else {
            unreachable!("only effective records are saved")
        };
        *saved = true;
        self.let_go(slot);
    }

    fn let_go(&mut self, slot: Slot) {
        let entry = self.slots.at(slot);
        let idle = match entry.state {
            IdState::Asked => true,
            IdState::Effective { saved, .. } => saved,
            IdState::Loading(_) | IdState::InFlight(_) => false,
        };
        if entry.pins == 0 && idle {
            let entry = self.slots.remove(slot);
            self.index.remove(&entry.key);
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
        (self.index.range(least..))
            .take_while(move |(key, _)| key.0 == id)
            .filter(move |(key, _)| key.1 == *tenant)
            .filter_map(|(key, slot)| match &self.slots.at(*slot).state {
                IdState::Asked => None,
                IdState::Loading(_) | IdState::InFlight(_) => Some((&key.2, None)),
                IdState::Effective { offset, commit, .. } => Some((&key.2, Some((*offset, commit)))),
            })
    }
}
