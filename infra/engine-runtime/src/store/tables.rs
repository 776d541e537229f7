//! The database below: opened, judged, wiped if it is of no use, and its keyspaces by kind.
//!
//! **Why the keyspaces cannot disagree after a crash.** fjall writes a batch over all keyspaces as one checksummed entry
//! of one journal, and on opening replays the journal up to the first entry that is not whole: a prefix of the batches,
//! each all or nothing. A keyspace's memory table becomes a file only after the journal was synced up to it (fjall syncs
//! before every flush), so no file holds what the journal lost, and a journal is removed only when all keyspaces in it
//! have been flushed past it. New keyspaces are written down, synced, before anything is put in them. What does not fit
//! this picture fails fjall's checksums on opening, and the store is wiped. So after kill -9 the store is as it was after
//! its last save, and after a power cut as it was after some save of the last second or so.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::position::{LogId, Offset, Partition};
use engine::time::Timestamp;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use metrics::gauge;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::calendar::{BUCKET_NAME, Bucket, Calendar, Fill, Forgotten, Slots};
use super::keys::{self, Reader, damaged};
use super::{Opened, Progress, StoreFault, StoreOptions};

/// What a store is, as its `meta` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) format: u32,
    pub(super) log: LogId,
    pub(super) partitions: u16,
    pub(super) decider: u32,
}

/// The open database.
pub(super) struct Tables {
    pub(super) database: Database,
    pub(super) states: Keyspace,
    pub(super) index: Keyspace,
    pub(super) timers: Keyspace,
    pub(super) open: Keyspace,
    pub(super) meta: Keyspace,
    /// Newest first: most repeats come soon. Readers take the list as it is; savers put another in its place.
    pub(super) ids: RwLock<Arc<Buckets>>,
}

/// The keyspaces of remembered ids.
pub(super) type Buckets = Vec<(Bucket, Keyspace)>;

/// What `meta` said.
pub(super) struct Remains {
    pub(super) progress: Vec<Progress>,
    pub(super) calendar: Calendar,
    pub(super) is_new: bool,
}

/// Says that what lies beside it is to be wiped.
const CONDEMNED: &str = "condemned";
const DATABASE: &str = "db";
/// Full memory tables of one keyspace at which savers wait: fewer than fjall's own bound, for they are memory.
const SEALED_MAX: usize = 2;
/// How long they wait between looks, and how often they look: after a tenth of a second the wait is left to fjall.
const PACE_STEP: Duration = Duration::from_millis(1);
const PACE_STEPS_MAX: u32 = 100;

/// Marks the store in `directory` as of no use. Best effort: if the disk refuses even this, the next opening may find the
/// damage by itself.
pub(super) fn condemn(directory: &Path) {
    if let Err(error) = fs::write(directory.join(CONDEMNED), b"") {
        tracing::error!(error = &error as &dyn std::error::Error, "the state store cannot be condemned");
    }
}

/// The same, on the disk before anything that is written after it; and told if that cannot be.
pub(super) fn condemn_durably(directory: &Path) -> Result<(), StoreFault> {
    let written = fs::File::create(directory.join(CONDEMNED)).and_then(|file| file.sync_all());
    written.and_then(|()| sync(directory)).map_err(|source| refused(directory, source))
}

/// Takes a sentence back: all that is to be there is there, and synced.
pub(super) fn pardon(directory: &Path) -> Result<(), StoreFault> {
    let removed = fs::remove_file(directory.join(CONDEMNED)).and_then(|()| sync(directory));
    removed.map_err(|source| refused(directory, source))
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

fn refused(directory: &Path, source: io::Error) -> StoreFault {
    StoreFault::Directory { directory: directory.to_owned(), source: Arc::new(source) }
}

/// Whether the store in `directory` is marked so.
pub(super) fn is_condemned(directory: &Path) -> bool {
    directory.join(CONDEMNED).exists()
}

/// Refuses to write if that could fill the disk.
pub(super) fn check_room(directory: &Path, options: &StoreOptions) -> Result<(), StoreFault> {
    let room = rustix::fs::statvfs(directory)
        .map_err(|source| StoreFault::Directory { directory: directory.to_owned(), source: Arc::new(source.into()) })?;
    let free_bytes = room.f_bavail.saturating_mul(room.f_frsize);
    if free_bytes < options.reserve_bytes {
        return Err(StoreFault::Full { directory: directory.to_owned(), free_bytes });
    }
    Ok(())
}

/// Opens what is in `directory`, or wipes it and begins afresh.
pub(super) fn open(
    directory: &Path,
    identity: &Identity,
    options: &StoreOptions,
) -> Result<(Tables, Remains, Opened), StoreFault> {
    let refused = |source| refused(directory, source);
    fs::create_dir_all(directory).map_err(refused)?;
    let reason = if directory.join(CONDEMNED).try_exists().map_err(refused)? {
        "it was condemned, or not wiped to the end".to_owned()
    } else {
        match open_database(directory, options)? {
            Ok((tables, found)) => match judge(&tables, found, identity) {
                Ok(remains) if remains.is_new => return Ok((tables, remains, Opened::New)),
                Ok(remains) => return Ok((tables, remains, Opened::Resumed)),
                Err(reason) => reason,
            },
            Err(reason) => reason,
        }
    };
    tracing::warn!(store.directory = %directory.display(), store.reason = reason, "the state store is folded afresh");
    condemn(directory);
    match fs::remove_dir_all(directory.join(DATABASE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    match fs::remove_file(directory.join(CONDEMNED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    let (tables, found) = open_database(directory, options)?.map_err(|reason| damaged(&reason))?;
    let remains = judge(&tables, found, identity).map_err(|reason| damaged(&reason))?;
    Ok((tables, remains, Opened::Wiped(reason)))
}

/// What is in `directory`, and how far it has folded; nothing if nothing was saved there yet. Wipes and begins nothing.
pub(super) fn look(directory: &Path, options: &StoreOptions) -> Result<Option<Usable<Folded>>, StoreFault> {
    if is_condemned(directory) {
        return Ok(Some(Err("it was condemned, or not wiped to the end".to_owned())));
    }
    if !directory.join(DATABASE).is_dir() {
        return Ok(None);
    }
    let (tables, found) = match open_database(directory, options)? {
        Ok(opened) => opened,
        Err(reason) => return Ok(Some(Err(reason))),
    };
    let Some(written) = found.get(keys::META_STORE) else { return Ok(None) };
    let looked = serde_json::from_slice::<Identity>(written)
        .map_err(|error| format!("it does not say what it is: {error}"))
        .and_then(|identity| {
            let remains = read_remains(&tables, &found, identity.partitions).map_err(|error| error.to_string())?;
            Ok((identity, remains.progress.iter().map(|progress| progress.checkpoint.next_offset).collect()))
        });
    Ok(Some(looked))
}

/// What a store is, and the offset that each partition is to be folded from next.
type Folded = (Identity, Vec<Offset>);

/// Opens what is in `directory` once more, wiping nothing: inner error, why it is of no use.
pub(super) fn reopen(
    directory: &Path,
    identity: &Identity,
    options: &StoreOptions,
) -> Result<Usable<(Tables, Remains)>, StoreFault> {
    let (tables, found) = match open_database(directory, options)? {
        Ok(opened) => opened,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(match judge(&tables, found, identity) {
        Ok(remains) if !remains.is_new => Ok((tables, remains)),
        Ok(_) => Err("it is empty".to_owned()),
        Err(reason) => Err(reason),
    })
}

/// Inner error: the database is of no use, and why.
type Usable<T> = Result<T, String>;

/// What `meta` holds, unread, and the buckets' keyspaces.
type Found = BTreeMap<Vec<u8>, Vec<u8>>;

fn open_database(directory: &Path, options: &StoreOptions) -> Result<Usable<(Tables, Found)>, StoreFault> {
    // fjall asserts what it finds in its own files: a panic there is damage like another.
    let opened = catch_unwind(AssertUnwindSafe(|| -> fjall::Result<(Tables, Found)> {
        let database = Database::builder(directory.join(DATABASE))
            .cache_size(options.cache_bytes)
            // With several, fjall's first one hands compactions to the others without pause: a whole core for nothing.
            .worker_threads(1)
            // The journal is kept until the slowest keyspace is flushed, and is replayed on opening: the least allowed.
            .max_journaling_size(64 << 20)
            .open()?;
        let keyspace = |name: &str| database.keyspace(name, || keyspace_options(options));
        let (states, index, timers) = (keyspace("states")?, keyspace("index")?, keyspace("timers")?);
        let (open, meta) = (keyspace("open")?, keyspace("meta")?);
        let mut found = Found::new();
        for entry in meta.iter() {
            let (key, value) = entry.into_inner()?;
            found.insert(key.to_vec(), value.to_vec());
        }
        Ok((Tables { database, states, index, timers, open, meta, ids: RwLock::default() }, found))
    }));
    match opened {
        Ok(Ok(opened)) => Ok(Ok(opened)),
        Ok(Err(fjall::Error::Locked)) => Err(StoreFault::Locked(directory.to_owned())),
        Ok(Err(fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)))) => match error.kind() {
            // Files that end too soon, are missing or are too many are damage; what else the disk says is about the disk.
            io::ErrorKind::NotFound
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput => Ok(Err(format!("its files are damaged: {error}"))),
            _ => Err(StoreFault::Directory { directory: directory.to_owned(), source: Arc::new(error) }),
        },
        Ok(Err(error)) => Ok(Err(format!("it cannot be opened: {error}"))),
        Err(_) => Ok(Err("its files contradict each other".to_owned())),
    }
}

fn keyspace_options(options: &StoreOptions) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(options.write_buffer_bytes)
}

/// Reads what `meta` says, or says why the store is of no use.
fn judge(tables: &Tables, found: Found, identity: &Identity) -> Usable<Remains> {
    let written = match found.get(keys::META_STORE) {
        // Nothing was ever saved: what it is is written down, and synced, before the first save.
        None if found.is_empty() && is_empty(tables)? => {
            return begin(tables, identity).map_err(|error| error.to_string());
        }
        None => return Err("it does not say what it is".to_owned()),
        Some(written) => serde_json::from_slice::<Identity>(written)
            .map_err(|error| format!("it does not say what it is: {error}"))?,
    };
    if written != *identity {
        return Err(match written {
            Identity { format, .. } if format != identity.format => {
                format!("its format is {format}, not {}", identity.format)
            }
            Identity { log, .. } if log != identity.log => format!("it is of log {log}, not {}", identity.log),
            Identity { decider, .. } if decider != identity.decider => {
                format!("its states are of decider version {decider}, not {}", identity.decider)
            }
            Identity { partitions, .. } => format!("it has {partitions} partitions, not {}", identity.partitions),
        });
    }
    read_remains(tables, &found, identity.partitions).map_err(|error| error.to_string())
}

fn is_empty(tables: &Tables) -> Usable<bool> {
    let states = tables.states.is_empty().map_err(|error| error.to_string())?;
    Ok(states && tables.index.is_empty().map_err(|error| error.to_string())?)
}

fn begin(tables: &Tables, identity: &Identity) -> Result<Remains, StoreFault> {
    let written = serde_json::to_vec(identity).map_err(|error| damaged(&error.to_string()))?;
    tables.meta.insert(keys::META_STORE, written)?;
    tables.database.persist(PersistMode::SyncAll)?;
    let progress = vec![Progress::default(); usize::from(identity.partitions)];
    Ok(Remains { progress, calendar: Calendar::default(), is_new: true })
}

fn read_remains(tables: &Tables, found: &Found, partitions: u16) -> Result<Remains, StoreFault> {
    let mut progress = Vec::with_capacity(usize::from(partitions));
    for partition in 0..partitions {
        let value = found.get(&keys::meta_progress(Partition(partition)));
        progress.push(value.map(|value| keys::read_progress(value)).transpose()?.unwrap_or_default());
    }
    let mut calendar = Calendar::default();
    for (key, value) in found {
        if key.starts_with(keys::META_ACTIVE) {
            calendar.active.insert(keys::read_meta_active(key)?, read_slots(value)?);
        } else if let Some(bucket) = key.strip_prefix(keys::META_BUCKET) {
            let mut reader = Reader(bucket);
            let day = i32::from_be_bytes(reader.take()?) ^ i32::MIN;
            let bucket = Bucket { day, part: u32::from_be_bytes(reader.take()?) };
            calendar.buckets.insert(bucket, read_fill(value)?);
        } else if key == keys::META_FORGOTTEN {
            calendar.forgotten = read_forgotten(value)?;
        }
    }
    for bucket in calendar.buckets.keys() {
        if !tables.database.keyspace_exists(&bucket.keyspace()) {
            return Err(damaged(&format!("{} is missing", bucket.keyspace())));
        }
    }
    // Buckets made or dropped just before the process died.
    for name in tables.database.list_keyspace_names() {
        let belongs = calendar.buckets.keys().any(|bucket| bucket.keyspace() == *name);
        if name.starts_with(BUCKET_NAME) && !belongs {
            let stray = tables.database.keyspace(&name, KeyspaceCreateOptions::default)?;
            tables.database.delete_keyspace(stray)?;
        }
    }
    Ok(Remains { progress, calendar, is_new: false })
}

impl Tables {
    /// The buckets as they are now, newest first.
    pub(super) fn buckets(&self) -> Arc<Buckets> {
        Arc::clone(&self.ids.read())
    }

    /// Shows readers the calendar's buckets.
    pub(super) fn show_buckets(&self, calendar: &Calendar, options: &StoreOptions) -> Result<(), StoreFault> {
        if self.ids.read().iter().rev().map(|(bucket, _)| bucket).eq(calendar.buckets.keys()) {
            return Ok(());
        }
        let mut buckets = Buckets::with_capacity(calendar.buckets.len());
        for &bucket in calendar.buckets.keys().rev() {
            buckets.push((bucket, self.bucket(bucket, options)?));
        }
        *self.ids.write() = Arc::new(buckets);
        Ok(())
    }

    /// Sets the gauges of what is in memory.
    pub(super) fn measure(&self) {
        gauge!("docket_cache_bytes", "cache" => "state-blocks").set(self.database.cache_size() as f64);
        gauge!("docket_cache_bytes_max", "cache" => "state-blocks").set(self.database.cache_capacity() as f64);
        gauge!("docket_state_store_buffered_bytes").set(self.database.write_buffer_size() as f64);
    }

    /// Waits, but not for long, until what was written before is on its way to files. fjall waits too, in steps of a tenth
    /// of a second.
    pub(super) fn pace(&self) {
        let buckets = self.buckets();
        let ids = buckets.iter().map(|(_, keyspace)| keyspace);
        let busy = [&self.states, &self.index, &self.timers, &self.open].into_iter().chain(ids).collect::<Vec<_>>();
        for _ in 0..PACE_STEPS_MAX {
            if busy.iter().all(|keyspace| keyspace.sealed_memtable_count() < SEALED_MAX) {
                return;
            }
            std::thread::sleep(PACE_STEP);
        }
    }

    /// The keyspace of one bucket, made if it is new.
    pub(super) fn bucket(&self, bucket: Bucket, options: &StoreOptions) -> Result<Keyspace, StoreFault> {
        Ok(self.database.keyspace(&bucket.keyspace(), || keyspace_options(options))?)
    }
}

/// The key of a bucket's fill.
pub(super) fn meta_bucket(bucket: Bucket) -> Vec<u8> {
    [keys::META_BUCKET, &(bucket.day ^ i32::MIN).to_be_bytes(), &bucket.part.to_be_bytes()].concat()
}

/// The words of a day's slots.
pub(super) fn slots_value(slots: &Slots) -> Vec<u8> {
    slots.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn read_slots(value: &[u8]) -> Result<Slots, StoreFault> {
    let mut reader = Reader(value);
    Ok([reader.u64()?, reader.u64()?, reader.u64()?])
}

/// `bytes newest`.
pub(super) fn fill_value(fill: &Fill) -> Vec<u8> {
    let mut value = fill.bytes.to_be_bytes().to_vec();
    push_time(&mut value, fill.newest);
    value
}

fn read_fill(value: &[u8]) -> Result<Fill, StoreFault> {
    let mut reader = Reader(value);
    Ok(Fill { bytes: reader.u64()?, newest: read_time(&mut reader)? })
}

/// `newest`, then the day, if whole days are forgotten.
pub(super) fn forgotten_value(forgotten: &Forgotten) -> Vec<u8> {
    let mut value = Vec::new();
    push_time(&mut value, forgotten.newest);
    if let Some(day) = forgotten.day {
        value.extend_from_slice(&day.to_be_bytes());
    }
    value
}

fn read_forgotten(value: &[u8]) -> Result<Forgotten, StoreFault> {
    let mut reader = Reader(value);
    let newest = read_time(&mut reader)?;
    let day = if reader.0.is_empty() { None } else { Some(i32::from_be_bytes(reader.take()?)) };
    Ok(Forgotten { day, newest })
}

/// Without a time: the moment before all.
fn push_time(value: &mut Vec<u8>, time: Option<Timestamp>) {
    value.extend_from_slice(&time.map_or(i64::MIN, |time| time.0).to_be_bytes());
}

fn read_time(reader: &mut Reader<'_>) -> Result<Option<Timestamp>, StoreFault> {
    let time = i64::from_be_bytes(reader.take()?);
    Ok((time != i64::MIN).then_some(Timestamp(time)))
}
