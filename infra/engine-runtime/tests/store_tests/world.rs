//! A log in memory with somebody writing it: every record goes to the log and is kept as a shard would tell it, so that a
//! store can be fed either way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use engine::decider::Decider;
use engine::event::{Event, EventMeta};
use engine::log::{Delivery, DeliverySink, Log};
use engine::memory::MemoryLog;
use engine::message::{CommandId, Fingerprint, Outcome, Provenance};
use engine::position::{Checkpoint, Epoch, LogId, Nonce, Offset, Partition, Position, Seq, Version};
use engine::record::{Body, Claim, Commit, Genesis, Header, Kind, Record, StreamEvents};
use engine::shard::{Changed, Effective};
use engine::stream::{StreamId, StreamName, Tenant, partition_of};
use engine::time::Timestamp;
use engine_runtime::store::{CatchUp, Opened, StateStore, StoreFault, StoreOptions};
use uuid::Uuid;

use crate::toy::{Happened, Sum, Toy};

/// Noon of a day in 2026, in microseconds.
pub(crate) const NOON: i64 = 1_780_000_000_000_000 / DAY * DAY + DAY / 2;
pub(crate) const DAY: i64 = 86_400_000_000;
pub(crate) const MINUTE: i64 = 60_000_000;

pub(crate) struct World {
    pub(crate) log: MemoryLog,
    pub(crate) effective: Vec<Arc<Effective<Toy>>>,
    pub(crate) states: BTreeMap<StreamId, (Version, Arc<Sum>)>,
    pub(crate) now: Timestamp,
    checkpoints: Vec<Checkpoint>,
    next_id: u128,
}

struct Nobody;

impl DeliverySink for Nobody {
    fn delivered(&self, _: Vec<Delivery>) {}
}

pub(crate) fn log_id(number: u128) -> LogId {
    LogId(Uuid::from_u128(number))
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a stream's name")
}

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a tenant's name")
}

impl World {
    pub(crate) fn new(partitions: u16) -> Self {
        let genesis = Genesis {
            log: log_id(1),
            partitions,
            placement_rule: 1,
            format: 1,
            fingerprint_key: [7; 32],
            created_at: Timestamp(NOON),
        };
        let mut world = Self {
            log: MemoryLog::new(genesis),
            effective: Vec::new(),
            states: BTreeMap::new(),
            now: Timestamp(NOON),
            checkpoints: vec![Checkpoint::default(); usize::from(partitions)],
            next_id: 0,
        };
        for partition in 0..partitions {
            let genesis = Header { kind: Kind::Genesis, epoch: Epoch(0), nonce: Nonce(0), seq: Seq(0) };
            world.checkpoints[usize::from(partition)].accept(&genesis);
            world.claim(Partition(partition));
        }
        world
    }

    pub(crate) fn partition_of(&self, tenant: &Tenant, name: &str) -> Partition {
        partition_of(tenant, &stream(name), self.log.partitions())
    }

    /// Somebody takes the partition.
    pub(crate) fn claim(&mut self, partition: Partition) {
        let epoch = Epoch(self.checkpoints[usize::from(partition.0)].epoch.0 + 1);
        let header = Header { kind: Kind::Claim, epoch, nonce: Nonce(epoch.0 * 1_000), seq: Seq(0) };
        let claim = Claim { node: "n".into(), address: "here".into(), claimed_at: self.now };
        self.append(partition, Record::new(header, Body::Claim(claim)));
    }

    /// A sign of life.
    pub(crate) fn barrier(&mut self, partition: Partition) {
        let header = self.header(partition, Kind::Barrier);
        self.append(partition, Record::new(header, Body::Barrier));
    }

    /// Somebody who lost the partition still writes to it; it says something absurd.
    pub(crate) fn zombie(&mut self, partition: Partition) {
        let mut header = self.header(partition, Kind::Commit);
        header.nonce = Nonce(666);
        let commit = self.make_commit(&Tenant::default(), "count-zombie", &[("count-zombie", Happened::Unheard)]);
        self.append(partition, Record::new(header, Body::Commit(Box::new(commit))));
    }

    /// A fresh id that says nothing of time.
    pub(crate) fn id(&mut self) -> CommandId {
        self.next_id += 1;
        CommandId(Uuid::from_u128(0x1000_0000_0000_4000_8000_0000_0000_0000 + self.next_id))
    }

    /// A UUIDv7 of this moment.
    pub(crate) fn id_of(&mut self, made_at: Timestamp) -> CommandId {
        self.next_id += 1;
        let random = self.next_id.to_be_bytes()[6..].try_into().expect("ten bytes");
        let milliseconds = u64::try_from(made_at.0 / 1_000).expect("after 1970");
        CommandId(uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid())
    }

    /// A command to the first of these streams does this to them, now.
    pub(crate) fn happen(&mut self, events: &[(&str, Happened)]) -> Arc<Effective<Toy>> {
        let id = self.id();
        self.happen_as(id, &Tenant::default(), events)
    }

    /// The same, by name and for a tenant.
    pub(crate) fn happen_as(
        &mut self,
        id: CommandId,
        tenant: &Tenant,
        events: &[(&str, Happened)],
    ) -> Arc<Effective<Toy>> {
        let resource = events[0].0;
        let mut commit = self.make_commit(tenant, resource, events);
        commit.command_id = id;
        self.record(commit)
    }

    /// A command is refused.
    pub(crate) fn refuse(&mut self, id: CommandId, resource: &str) -> Arc<Effective<Toy>> {
        let mut commit = self.make_commit(&Tenant::default(), resource, &[]);
        commit.command_id = id;
        commit.outcome = Outcome { status: 409, code: Some("no".into()), ..Outcome::default() };
        self.record(commit)
    }

    fn record(&mut self, commit: Commit) -> Arc<Effective<Toy>> {
        let partition = partition_of(&commit.tenant, &commit.resource, self.log.partitions());
        let header = self.header(partition, Kind::Commit);
        self.append(partition, Record::new(header, Body::Commit(Box::new(commit))));
        Arc::clone(self.effective.last().expect("it was effective"))
    }

    fn make_commit(&mut self, tenant: &Tenant, resource: &str, events: &[(&str, Happened)]) -> Commit {
        let mut streams = Vec::<StreamEvents>::new();
        for (name, event) in events {
            let name = stream(name);
            let version = self.version_of(tenant, &name);
            match streams.iter_mut().find(|found| found.name == name) {
                Some(found) => found.events.push(event.encode()),
                None => {
                    streams.push(StreamEvents { name, first_version: version.next(), events: vec![event.encode()] })
                }
            }
        }
        let resource = stream(resource);
        let own = streams.iter().find(|events| events.name == resource);
        Commit {
            command_id: self.id(),
            tenant: tenant.clone(),
            resource_version: own.map_or_else(|| self.version_of(tenant, &resource), StreamEvents::last_version),
            resource,
            fingerprint: Fingerprint([self.next_id as u8; 16]),
            outcome: Outcome { status: 200, ..Outcome::default() },
            provenance: Provenance::default(),
            recorded_at: self.now,
            streams,
        }
    }

    fn version_of(&self, tenant: &Tenant, name: &StreamName) -> Version {
        let id = StreamId { tenant: tenant.clone(), name: name.clone() };
        self.states.get(&id).map_or(Version(0), |(version, _)| *version)
    }

    fn header(&self, partition: Partition, kind: Kind) -> Header {
        let at = &self.checkpoints[usize::from(partition.0)];
        Header { kind, epoch: at.epoch, nonce: at.nonce, seq: at.next_seq }
    }

    fn append(&mut self, partition: Partition, record: Record) {
        let offset = self.log.end(partition);
        self.log.appender(partition, Arc::new(Nobody)).append(0, record.encode());
        let checkpoint = &mut self.checkpoints[usize::from(partition.0)];
        if checkpoint.accept(&record.header) == engine::fold::Verdict::Ignored {
            return;
        }
        let checkpoint = *checkpoint;
        let position = Position { partition, offset };
        let commit = match record.body {
            Body::Commit(commit) => Some(Arc::new(*commit)),
            _ => None,
        };
        let changed = commit.iter().flat_map(|commit| self.fold(commit)).collect();
        self.effective.push(Arc::new(Effective { position, checkpoint, commit, changed }));
    }

    fn fold(&mut self, commit: &Commit) -> Vec<Changed<Toy>> {
        let mut changed = Vec::new();
        for events in &commit.streams {
            let id = StreamId { tenant: commit.tenant.clone(), name: events.name.clone() };
            let before = self.states.get(&id);
            let mut state = before.map(|(_, state)| Sum::clone(state));
            let mut version = events.first_version;
            let mut decoded = Vec::new();
            for stored in &events.events {
                // What the toy cannot read it cannot fold; tests of that do not look at the states.
                let Ok(event) = Happened::decode(stored) else { continue };
                let meta = EventMeta {
                    tenant: commit.tenant.clone(),
                    stream: events.name.clone(),
                    version,
                    recorded_at: commit.recorded_at,
                    command_id: commit.command_id,
                    fingerprint: commit.fingerprint,
                };
                state = Some(Toy(1).evolve(state, &event, &meta));
                decoded.push(event);
                version = version.next();
            }
            let state = Arc::new(state.unwrap_or_default());
            let version = events.last_version();
            self.states.insert(id, (version, Arc::clone(&state)));
            changed.push(Changed { name: events.name.clone(), version, state, events: decoded });
        }
        changed
    }

    pub(crate) fn open(&self, directory: &Path) -> (StateStore<Toy>, Opened) {
        self.open_with(directory, StoreOptions::default())
    }

    pub(crate) fn open_with(&self, directory: &Path, options: StoreOptions) -> (StateStore<Toy>, Opened) {
        StateStore::open(directory, self.log.id(), self.log.partitions(), Arc::new(Toy(1)), options)
            .expect("the store opens")
    }

    pub(crate) fn catch_up(&self, store: &StateStore<Toy>) {
        self.try_catch_up(store, None).expect("the store catches up");
    }

    pub(crate) fn try_catch_up(
        &self,
        store: &StateStore<Toy>,
        stop: Option<Offset>,
    ) -> Result<Vec<CatchUp>, StoreFault> {
        let mut told = Vec::new();
        for partition in 0..self.log.partitions() {
            store.catch_up(&self.log, Partition(partition), stop, &mut |progress| told.push(progress))?;
        }
        Ok(told)
    }
}

/// Bytes of a partition's progress before the name of whoever claimed it: that is known only where the claim was folded,
/// not where a shard was followed.
const PROGRESS_BYTES: usize = 41;

/// Everything in a closed store, keyspace by keyspace.
pub(crate) type Dump = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

pub(crate) fn dump(directory: &Path) -> Dump {
    let database = fjall::Database::builder(directory.join("db")).open().expect("the database opens");
    let mut dump = Dump::new();
    for name in database.list_keyspace_names() {
        let keyspace = database.keyspace(&name, fjall::KeyspaceCreateOptions::default).expect("the keyspace opens");
        let mut entries = BTreeMap::new();
        for entry in keyspace.iter() {
            let (key, value) = entry.into_inner().expect("the entry is readable");
            let is_progress = key.starts_with(b"progress/");
            let length = if is_progress { value.len().min(PROGRESS_BYTES) } else { value.len() };
            entries.insert(key.to_vec(), value[..length].to_vec());
        }
        dump.insert(name.to_string(), entries);
    }
    dump
}

/// What a fold of the whole log from nothing leaves in a store.
pub(crate) fn dump_of_a_fresh_fold(world: &World) -> Dump {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, opened) = world.open(directory.path());
    assert_eq!(opened, Opened::New);
    world.catch_up(&store);
    drop(store);
    dump(directory.path())
}

/// What a rebuild of the whole log leaves in a store, with so many bytes of records in each of its runs.
pub(crate) fn dump_of_a_rebuild(world: &World, run_bytes: usize) -> Dump {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = world.open_with(directory.path(), rebuilt_in_runs_of(run_bytes));
    assert!(store.rebuild(&world.log, &|_| {}).expect("the store is rebuilt"));
    assert!(!store.rebuild(&world.log, &|_| {}).expect("there is nothing to rebuild"));
    drop(store);
    dump(directory.path())
}

/// So that a rebuild is worth it however short the log.
pub(crate) fn rebuilt_in_runs_of(run_bytes: usize) -> StoreOptions {
    StoreOptions { rebuild_records_min: 1, rebuild_run_bytes: run_bytes, ..StoreOptions::default() }
}

/// The same directory as kill -9 would leave it now.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory to copy") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                // The store is open, and just did away with it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("a copy")),
            }
        }
    }
}
