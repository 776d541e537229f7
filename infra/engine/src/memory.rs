//! A log and a read store that live as long as the process: for tests, and for `docket dev --memory`. They keep every
//! promise of their ports except outliving the process, and are held to the same contract suites as the others.
//!
//! The log delivers inside [`Appender::append`], on the caller's thread: sinks must not wait for whoever appends.

mod read_store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

pub use self::read_store::MemoryReadStore;
use crate::log::{AppendError, Appender, Delivery, DeliverySink, Log, LogFault, RECORD_BYTES_MAX, Stored, WakerGuard};
use crate::position::{LogId, Offset, Partition};
use crate::record::{Genesis, Record};

/// A log in memory.
pub struct MemoryLog {
    genesis: Genesis,
    shared: Arc<Shared>,
}

struct Shared {
    partitions: Vec<Mutex<Vec<Bytes>>>,
    /// Bytes that may still be taken.
    room_bytes: Mutex<usize>,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    by_number: BTreeMap<u64, Arc<dyn Fn() + Send + Sync>>,
}

impl MemoryLog {
    /// A new log: every partition holds the genesis and nothing else.
    ///
    /// # Panics
    /// If no log may have such a genesis ([`Genesis::check`]).
    pub fn new(genesis: Genesis) -> Self {
        Self::with_room(genesis, usize::MAX)
    }

    /// The same, that takes records up to `room_bytes` in all (genesis not counted) and answers
    /// [`AppendError::Full`] beyond.
    ///
    /// # Panics
    /// If no log may have such a genesis ([`Genesis::check`]).
    pub fn with_room(genesis: Genesis, room_bytes: usize) -> Self {
        let first = Record::genesis(genesis).encode();
        let partitions = (0..genesis.partitions).map(|_| Mutex::new(vec![first.clone()])).collect();
        let shared = Shared { partitions, room_bytes: Mutex::new(room_bytes), wakers: Mutex::default() };
        Self { genesis, shared: Arc::new(shared) }
    }

    /// What the log is.
    pub fn genesis(&self) -> Genesis {
        self.genesis
    }

    /// Makes room for this many bytes more.
    pub fn add_room(&self, room_bytes: usize) {
        let mut room = lock(&self.shared.room_bytes);
        *room = room.saturating_add(room_bytes);
    }
}

impl Log for MemoryLog {
    fn id(&self) -> LogId {
        self.genesis.log
    }

    fn partitions(&self) -> u16 {
        self.genesis.partitions
    }

    fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender> {
        assert!(partition.0 < self.genesis.partitions, "the log has no partition {partition}");
        Box::new(MemoryAppender { shared: self.shared.clone(), partition, sink })
    }

    fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, LogFault> {
        let records = self.shared.partition(partition);
        let start = usize::try_from(from.0).unwrap_or(usize::MAX).min(records.len());
        let mut room = bytes_max;
        let mut found = Vec::new();
        for (bytes, offset) in records[start..].iter().zip(from.0..) {
            match room.checked_sub(bytes.len()) {
                Some(left) => room = left,
                // The first is given however large it is, so that a reader always gets on.
                None if found.is_empty() => room = 0,
                None => break,
            }
            found.push(Stored { offset: Offset(offset), bytes: bytes.clone() });
        }
        Ok(found)
    }

    fn end(&self, partition: Partition) -> Offset {
        Offset(self.shared.partition(partition).len() as u64)
    }

    fn on_append(&self, waker: Arc<dyn Fn() + Send + Sync>) -> WakerGuard {
        let mut wakers = lock(&self.shared.wakers);
        let number = wakers.next;
        wakers.next += 1;
        wakers.by_number.insert(number, waker);
        let shared = self.shared.clone();
        WakerGuard::new(move || {
            lock(&shared.wakers).by_number.remove(&number);
        })
    }
}

impl Shared {
    fn partition(&self, partition: Partition) -> MutexGuard<'_, Vec<Bytes>> {
        lock(&self.partitions[usize::from(partition.0)])
    }

    fn take(&self, partition: Partition, record: Bytes) -> Result<Option<Offset>, AppendError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge);
        }
        {
            let mut room = lock(&self.room_bytes);
            *room = room.checked_sub(record.len()).ok_or(AppendError::Full)?;
        }
        let mut records = self.partition(partition);
        records.push(record);
        Ok(Some(Offset(records.len() as u64 - 1)))
    }

    fn wake(&self) {
        // Called outside the lock: a waker may drop its own guard.
        let wakers = lock(&self.wakers).by_number.values().cloned().collect::<Vec<_>>();
        for waker in wakers {
            waker();
        }
    }
}

struct MemoryAppender {
    shared: Arc<Shared>,
    partition: Partition,
    sink: Arc<dyn DeliverySink>,
}

impl Appender for MemoryAppender {
    fn append(&mut self, tag: u64, record: Bytes) {
        let result = self.shared.take(self.partition, record);
        self.sink.delivered(vec![Delivery { tag, result }]);
        if result.is_ok() {
            self.shared.wake();
        }
    }
}

/// What a panicking test left behind is whole all the same: nothing here panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
