//! What the cases share: a sink that can be waited for, and short ways to append and read.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::LogFixture;
use crate::log::{AppendError, Appender, Delivery, DeliverySink, Log, Stored};
use crate::position::{Offset, Partition};

/// Far longer than any log may need for anything here; only a broken one makes a case wait so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// For reads that should give everything at once.
pub(super) const PLENTY_BYTES: usize = 1 << 30;

/// Something that changes and can be waited for.
#[derive(Default)]
pub(super) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }

    /// Waits until it is so.
    pub(super) fn wait_until<R>(&self, what: &str, mut is_so: impl FnMut(&T) -> Option<R>) -> R {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.changed.wait_timeout_while(value, PATIENCE, |value| is_so(value).is_none());
        let (value, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        is_so(&value).unwrap_or_else(|| panic!("waited in vain for {what}"))
    }
}

/// Keeps all deliveries, in their order.
#[derive(Default)]
pub(super) struct Sink(Watched<Vec<Delivery>>);

impl DeliverySink for Sink {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        self.0.change(|all| all.extend(deliveries));
    }
}

impl Sink {
    /// The first `count` deliveries.
    pub(super) fn wait_for(&self, count: usize) -> Vec<Delivery> {
        self.0.wait_until(&format!("{count} deliveries"), |all| (all.len() >= count).then(|| all.clone()))
    }

    /// The offsets of the first `count` deliveries.
    pub(super) fn offsets(&self, count: usize) -> Vec<Offset> {
        self.wait_for(count).iter().map(offset_of).collect()
    }
}

/// Where a record came to lie.
pub(super) fn offset_of(delivery: &Delivery) -> Offset {
    match delivery.result {
        Ok(Some(offset)) => offset,
        other => panic!("no offset for tag {}: {other:?}", delivery.tag),
    }
}

/// A writer with a sink of its own.
pub(super) struct Writer {
    appender: Box<dyn Appender>,
    pub(super) sink: Arc<Sink>,
    handed: usize,
}

impl Writer {
    pub(super) fn new(log: &dyn Log, partition: u16) -> Self {
        let sink = Arc::new(Sink::default());
        Self { appender: log.appender(Partition(partition), sink.clone()), sink, handed: 0 }
    }

    /// Hands a record over; its tag is how many were handed over before.
    pub(super) fn hand(&mut self, record: impl Into<Bytes>) {
        self.hand_tagged(self.handed as u64, record);
    }

    pub(super) fn hand_tagged(&mut self, tag: u64, record: impl Into<Bytes>) {
        self.appender.append(tag, record.into());
        self.handed += 1;
    }

    /// Hands a record over and waits for its offset.
    pub(super) fn append(&mut self, record: impl Into<Bytes>) -> Offset {
        self.hand(record);
        offset_of(&self.sink.wait_for(self.handed)[self.handed - 1])
    }

    /// Hands a record over and waits for the refusal.
    pub(super) fn fail(&mut self, record: impl Into<Bytes>) -> AppendError {
        self.hand(record);
        let delivery = &self.sink.wait_for(self.handed)[self.handed - 1];
        delivery.result.expect_err("the record should be refused")
    }

    /// Waits for all that was handed over and gives its offsets.
    pub(super) fn settle(&self) -> Vec<Offset> {
        self.sink.offsets(self.handed)
    }
}

impl LogFixture {
    pub(super) fn writer(&self, partition: u16) -> Writer {
        Writer::new(self.log.as_ref(), partition)
    }

    pub(super) fn end(&self, partition: u16) -> Offset {
        self.log.end(Partition(partition))
    }

    /// One read.
    pub(super) fn read(&self, partition: u16, from: u64, bytes_max: usize) -> Vec<Stored> {
        self.log.read(Partition(partition), Offset(from), bytes_max).expect("the log can be read")
    }

    /// Everything from `from` on, page by page.
    pub(super) fn all_from(&self, partition: u16, from: u64) -> Vec<Stored> {
        all_from(self.log.as_ref(), partition, from, PLENTY_BYTES)
    }

    /// The bytes after the genesis.
    pub(super) fn written(&self, partition: u16) -> Vec<Bytes> {
        self.all_from(partition, 1).into_iter().map(|stored| stored.bytes).collect()
    }
}

/// Everything from `from` to the end, in pages of `bytes_max`; checks that each page goes on where the last one ended.
pub(super) fn all_from(log: &dyn Log, partition: u16, from: u64, bytes_max: usize) -> Vec<Stored> {
    let mut all = Vec::new();
    let mut next = Offset(from);
    loop {
        let page = log.read(Partition(partition), next, bytes_max).expect("the log can be read");
        if page.is_empty() {
            return all;
        }
        for stored in page {
            assert_eq!(stored.offset, next, "reads have no gaps");
            next = next.next();
            all.push(stored);
        }
    }
}

/// A record that says where it was meant to be.
pub(super) fn marked(partition: u16, writer: usize, number: usize) -> Bytes {
    format!("partition {partition}, writer {writer}, record {number}").into()
}

/// A record of `length` bytes that no other seed makes.
pub(super) fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift: enough to tell records apart and to defeat anything that would squeeze them.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// The offsets `from..from + count`.
pub(super) fn offsets(from: u64, count: u64) -> Vec<Offset> {
    (from..from + count).map(Offset).collect()
}
