//! The writing side: one thread that takes whatever is queued, makes it one group, writes it, flushes it once for all
//! partitions, and only then lets readers, waiters and wakers know. Nothing waits for a timer: while one group is being
//! flushed the next gathers. After a failed flush the thread never writes again, because nobody can know what of the
//! group is on the disk; opening the log anew finds out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::log::{AppendError, Appender, Delivery, DeliverySink, RECORD_BYTES_MAX};
use engine::position::{Offset, Partition};
use parking_lot::{Condvar, Mutex};

use crate::disk::{Disk, is_full, is_out_of_descriptors};
use crate::files::segment_path;
use crate::index::SegmentIndex;
use crate::layout::{Chain, FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, Place, SegmentHeader, encode_group, group_bytes};
use crate::options::{CacheSizes, QUEUE_BYTES_MAX, SEAL_AFTER};
use crate::spare::{Spare, Spares};
use crate::store::{Active, Store};

/// How often, and how long after each other, a file descriptor is looked for: for a minute.
const DESCRIPTOR_LOOKS_MAX: u32 = 6_000;
const DESCRIPTOR_STEP: std::time::Duration = std::time::Duration::from_millis(10);

/// What appenders, the writer and the log share.
pub(crate) struct Hub {
    queue: Mutex<Queue>,
    queued: Condvar,
    stopped: Mutex<Option<String>>,
    wakers: Mutex<Wakers>,
}

type Waker = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Wakers {
    next: u64,
    by_number: BTreeMap<u64, Waker>,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Pending>,
    bytes: usize,
    writer_waits: bool,
    closing: bool,
    /// The writer is gone: nobody takes from the queue any more.
    closed: bool,
}

struct Pending {
    partition: u16,
    tag: u64,
    /// Why it must not be written, if so. It keeps its place, so that deliveries keep their order.
    refused: Option<AppendError>,
    record: Bytes,
    sink: Arc<dyn DeliverySink>,
    queued_at: Instant,
}

impl Pending {
    fn delivery(&self, result: Result<Option<Offset>, AppendError>) -> Delivery {
        Delivery { tag: self.tag, result }
    }
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            queued: Condvar::new(),
            stopped: Mutex::new(None),
            wakers: Mutex::new(Wakers::default()),
        }
    }

    /// Why the writer stopped for good, if it did.
    pub(crate) fn stopped(&self) -> Option<String> {
        self.stopped.lock().clone()
    }

    /// Sets the gauges of what waits for the writer.
    pub(crate) fn measure(&self) {
        let (records, bytes) = {
            let queue = self.queue.lock();
            (queue.records.len(), queue.bytes)
        };
        metrics::gauge!("docket_log_queue_records").set(records as f64);
        metrics::gauge!("docket_log_queue_bytes").set(bytes as f64);
    }

    /// Has the writer finish what is queued, seal and end.
    pub(crate) fn close(&self) {
        self.queue.lock().closing = true;
        self.queued.notify_all();
    }

    pub(crate) fn add_waker(&self, waker: Waker) -> u64 {
        let mut wakers = self.wakers.lock();
        wakers.next += 1;
        let number = wakers.next;
        wakers.by_number.insert(number, waker);
        number
    }

    pub(crate) fn remove_waker(&self, number: u64) {
        let removed = self.wakers.lock().by_number.remove(&number);
        drop(removed);
    }
}

/// A handle to append to one partition.
pub(crate) struct QueueAppender {
    pub(crate) hub: Arc<Hub>,
    pub(crate) partition: Partition,
    pub(crate) sink: Arc<dyn DeliverySink>,
}

impl Appender for QueueAppender {
    fn append(&mut self, tag: u64, record: Bytes) {
        self.append_all(&mut vec![(tag, record)]);
    }

    fn append_all(&mut self, records: &mut Vec<(u64, Bytes)>) {
        let queued_at = Instant::now();
        let mut queue = self.hub.queue.lock();
        if queue.closed {
            drop(queue);
            // The log's own thread is gone, so this one has to say it.
            let stopped = |(tag, _)| Delivery { tag, result: Err(AppendError::Stopped) };
            self.sink.delivered(records.drain(..).map(stopped).collect());
            return;
        }
        for (tag, record) in records.drain(..) {
            let refused = if record.len() > RECORD_BYTES_MAX {
                Some(AppendError::TooLarge)
            } else if queue.bytes + record.len() > QUEUE_BYTES_MAX {
                Some(AppendError::Unknown)
            } else {
                None
            };
            let record = if refused.is_some() { Bytes::new() } else { record };
            queue.bytes += record.len();
            let (partition, sink) = (self.partition.0, Arc::clone(&self.sink));
            queue.records.push_back(Pending { partition, tag, refused, record, sink, queued_at });
        }
        if queue.writer_waits {
            queue.writer_waits = false;
            drop(queue);
            self.hub.queued.notify_one();
        }
    }
}

/// Why a group was not written.
enum Trouble {
    /// No room, and certainly nothing of the group is in the log.
    Full(io::Error),
    /// Anything else: never again.
    Failed(&'static str, io::Error),
}

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) hub: Arc<Hub>,
    pub(crate) store: Arc<Store>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) spares: Spares,
    pub(crate) directory: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) group_bytes_max: usize,
    pub(crate) header: Arc<SegmentHeader>,
    pub(crate) file: Arc<File>,
    pub(crate) position: u64,
    pub(crate) chain: Chain,
    /// Whether the last group is an empty one.
    pub(crate) sealed: bool,
    pub(crate) tail: TailBound,
    pub(crate) measures: Measures,
}

impl Writer {
    /// Runs until the log is closed.
    pub(crate) fn run(mut self) {
        // Whatever ends this thread, nobody is left waiting for a delivery.
        let _last_words = LastWords(Arc::clone(&self.hub));
        let mut pending = VecDeque::new();
        loop {
            match self.wait(&mut pending) {
                Woken::Records => {}
                Woken::Idle => {
                    self.seal();
                    continue;
                }
                Woken::Closing => break,
            }
            while !pending.is_empty() {
                if self.hub.stopped.lock().is_some() {
                    deliver_all(&mut pending, AppendError::Stopped);
                } else {
                    self.write_group(&mut pending);
                }
                take_queued(&mut self.hub.queue.lock(), &mut pending);
            }
        }
        self.seal();
    }

    fn wait(&self, pending: &mut VecDeque<Pending>) -> Woken {
        let mut queue = self.hub.queue.lock();
        let idle_at = Instant::now() + SEAL_AFTER;
        let may_seal = !self.sealed && self.hub.stopped.lock().is_none();
        loop {
            if take_queued(&mut queue, pending) {
                return Woken::Records;
            }
            if queue.closing {
                return Woken::Closing;
            }
            queue.writer_waits = true;
            if !may_seal {
                self.hub.queued.wait(&mut queue);
            } else if self.hub.queued.wait_until(&mut queue, idle_at).timed_out() && queue.records.is_empty() {
                queue.writer_waits = false;
                return Woken::Idle;
            }
        }
    }

    /// Writes the first of `pending`, as many as fit a group, and says what became of them.
    fn write_group(&mut self, pending: &mut VecDeque<Pending>) {
        let (mut count, mut records, mut frames_bytes) = (0, 0_usize, 0);
        for next in pending.iter() {
            if next.refused.is_none() {
                let bytes = FRAME_HEADER_BYTES + next.record.len();
                if records > 0 && frames_bytes + bytes > self.group_bytes_max {
                    break;
                }
                records += 1;
                frames_bytes += bytes;
            }
            count += 1;
        }
        let mut next_offsets = Vec::new();
        if records > 0 {
            next_offsets.clone_from(&self.chain.next_offsets);
            let group = pending.iter().take(count).filter(|next| next.refused.is_none());
            match self.write_records(group.map(|next| (next.partition, &next.record[..])), frames_bytes) {
                Ok(bytes) => {
                    let group = pending.iter().take(count).filter(|next| next.refused.is_none());
                    self.show(group.map(|next| (next.partition, next.record.len())), bytes, frames_bytes);
                }
                Err(trouble) => return self.give_up(pending, trouble),
            }
        }
        let mut deliveries = Deliveries::default();
        let now = Instant::now();
        for next in pending.drain(..count) {
            let result = match next.refused {
                Some(error) => Err(error),
                None => {
                    let offset = &mut next_offsets[usize::from(next.partition)];
                    *offset += 1;
                    self.measures.append_seconds.record(now - next.queued_at);
                    Ok(Some(Offset(*offset - 1)))
                }
            };
            deliveries.add(next, result);
        }
        deliveries.send();
        if records > 0 {
            self.measures.group_records.record(records as f64);
            self.measures.group_bytes.record(frames_bytes as f64);
            for waker in self.hub.wakers.lock().by_number.values() {
                waker();
            }
            self.prepare_next_segment();
        }
    }

    /// Makes a group of records durable. On trouble the log stands where it stood.
    fn write_records<'a>(
        &mut self,
        records: impl Iterator<Item = (u16, &'a [u8])>,
        frames_bytes: usize,
    ) -> Result<Bytes, Trouble> {
        // Room for a seal is always left, so a full segment can be closed like any other.
        let needed = (group_bytes(frames_bytes) + GROUP_HEADER_BYTES) as u64;
        if self.position + needed > self.header.bytes {
            self.roll(needed)?;
        }
        let mut chain = self.chain.clone();
        let group = encode_group(&mut chain, self.place(), frames_bytes, records);
        self.put(&group, chain)?;
        self.sealed = false;
        Ok(group)
    }

    fn place(&self) -> Place {
        Place { log: self.header.log, segment: self.header.segment, position: self.position }
    }

    fn put(&mut self, group: &Bytes, chain: Chain) -> Result<(), Trouble> {
        if let Err(error) = self.disk.write_all_at(&self.file, group, self.position) {
            // Preallocated segments do not meet this, but file systems that never overwrite in place do.
            if !is_full(&error) {
                return Err(Trouble::Failed("write to", error));
            }
            let zeros = vec![0; group.len()];
            self.disk.write_all_at(&self.file, &zeros, self.position).map_err(|error| Trouble::Failed("cut", error))?;
            self.disk.sync_data(&self.file).map_err(|error| Trouble::Failed("flush", error))?;
            return Err(Trouble::Full(error));
        }
        self.disk.sync_data(&self.file).map_err(|error| Trouble::Failed("flush", error))?;
        self.position += group.len() as u64;
        self.chain = chain;
        self.store.lengthen(self.position, &self.chain);
        Ok(())
    }

    /// Lets readers see what is durable now.
    fn show(&mut self, records: impl Iterator<Item = (u16, usize)>, group: Bytes, frames_bytes: usize) {
        let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
        let mut at = GROUP_HEADER_BYTES;
        for (partition, len) in records {
            at += FRAME_HEADER_BYTES;
            self.store.show(partition, group.slice(at..at + len));
            at += len;
            *counts.entry(partition).or_default() += 1;
        }
        assert_eq!(at, GROUP_HEADER_BYTES + frames_bytes, "what is shown is what was written");
        self.tail.push(TailGroup { bytes: group.len(), counts: counts.into_iter().collect() }, &self.store);
    }

    /// Goes on in a new segment that has room for `needed` bytes of groups.
    fn roll(&mut self, needed: u64) -> Result<(), Trouble> {
        let start = SegmentHeader::len(self.chain.next_offsets.len()) as u64;
        let spare = self.spares.take(self.segment_bytes.max(start + needed)).map_err(|error| {
            // Without a descriptor there is no room for another file, and nothing was begun.
            if is_full(&error) || is_out_of_descriptors(&error) {
                Trouble::Full(error)
            } else {
                Trouble::Failed("make", error)
            }
        })?;
        let segment = self.header.segment + 1;
        let header = SegmentHeader {
            log: self.header.log,
            segment,
            first_group: self.chain.next_group,
            previous_crc: self.chain.previous_crc,
            bytes: spare.bytes,
            next_offsets: self.chain.next_offsets.clone(),
        };
        let file = self.name_segment(spare, &header)?;
        let (header, file) = (Arc::new(header), Arc::new(file));
        let index = SegmentIndex::new(start, self.chain.clone(), self.store.block_bytes());
        self.measures.log_bytes.increment(header.bytes as f64);
        let (sealed, sealed_index) =
            self.store.roll(Active { header: Arc::clone(&header), file: Arc::clone(&file), index });
        self.spares.keep_index(sealed, sealed_index);
        (self.header, self.file, self.position, self.sealed) = (header, file, start, true);
        Ok(())
    }

    /// Waits, but not for ever, for a descriptor to flush the directory with: all that hangs on it is who waits anyway.
    fn sync_names(&self) -> io::Result<()> {
        for _ in 0..DESCRIPTOR_LOOKS_MAX {
            match self.disk.sync_directory(&self.directory) {
                Err(error) if is_out_of_descriptors(&error) => std::thread::sleep(DESCRIPTOR_STEP),
                done => return done,
            }
        }
        self.disk.sync_directory(&self.directory)
    }

    /// Gives a spare its header, then its name: a segment that has a name has a whole header.
    fn name_segment(&self, spare: Spare, header: &SegmentHeader) -> Result<File, Trouble> {
        let full_or_failed =
            |doing| move |error| if is_full(&error) { Trouble::Full(error) } else { Trouble::Failed(doing, error) };
        self.disk.write_all_at(&spare.file, &header.encode(), 0).map_err(full_or_failed("write to"))?;
        self.disk.sync_data(&spare.file).map_err(|error| Trouble::Failed("flush", error))?;
        let path = segment_path(&self.directory, header.segment);
        self.disk.rename(&spare.path, &path).map_err(full_or_failed("name"))?;
        self.sync_names().map_err(|error| Trouble::Failed("flush the name of", error))?;
        Ok(spare.file)
    }

    fn prepare_next_segment(&self) {
        if self.position > self.header.bytes / 2 {
            self.spares.prepare(self.segment_bytes);
        }
    }

    /// Follows the last group by an empty one, so that damage to it cannot be taken for a torn write.
    fn seal(&mut self) {
        if self.sealed || self.hub.stopped.lock().is_some() {
            return;
        }
        let mut chain = self.chain.clone();
        let seal = encode_group(&mut chain, self.place(), 0, std::iter::empty());
        // Room for it was left by the group before. Should a disk be full all the same, the next group is as good.
        match self.put(&seal, chain) {
            Ok(()) => {}
            Err(Trouble::Full(error)) => tracing::warn!(%error, "no room to seal the log"),
            Err(Trouble::Failed(doing, error)) => self.stop(doing, &error),
        }
        self.sealed = true;
    }

    /// Answers this group and everything behind it alike: nothing may overtake what failed.
    fn give_up(&mut self, pending: &mut VecDeque<Pending>, trouble: Trouble) {
        take_queued(&mut self.hub.queue.lock(), pending);
        match trouble {
            Trouble::Full(error) => {
                tracing::warn!(%error, records = pending.len(), "the log is full: {} records refused", pending.len());
                deliver_all(pending, AppendError::Full);
            }
            Trouble::Failed(doing, error) => {
                self.stop(doing, &error);
                deliver_all(pending, AppendError::Stopped);
            }
        }
    }

    fn stop(&self, doing: &str, error: &io::Error) {
        let path = segment_path(&self.directory, self.header.segment);
        let why = format!("cannot {doing} {}: {error}", path.display());
        tracing::error!("the log's writer stops for good, open the log again to go on: {why}");
        *self.hub.stopped.lock() = Some(why);
    }
}

/// Without the thread: for a copy, whose records come from elsewhere.
impl Writer {
    /// Writes records as groups and shows them. On an error the log stands where the last whole group ended.
    pub(crate) fn append_copied(&mut self, mut records: &[(Partition, &[u8])]) -> io::Result<()> {
        while !records.is_empty() {
            let (mut count, mut frames_bytes) = (0, 0);
            for (_, record) in records {
                let bytes = FRAME_HEADER_BYTES + record.len();
                if count > 0 && frames_bytes + bytes > self.group_bytes_max {
                    break;
                }
                count += 1;
                frames_bytes += bytes;
            }
            let (group, rest) = records.split_at(count);
            let written = self
                .write_records(group.iter().map(|(partition, record)| (partition.0, *record)), frames_bytes)
                .map_err(|trouble| match trouble {
                    Trouble::Full(error) | Trouble::Failed(_, error) => error,
                })?;
            self.show(group.iter().map(|(partition, record)| (partition.0, record.len())), written, frames_bytes);
            self.prepare_next_segment();
            records = rest;
        }
        Ok(())
    }
}

enum Woken {
    Records,
    Idle,
    Closing,
}

/// Moves everything queued behind what is pending. Says whether there was anything.
fn take_queued(queue: &mut Queue, pending: &mut VecDeque<Pending>) -> bool {
    queue.bytes = 0;
    if pending.is_empty() {
        std::mem::swap(pending, &mut queue.records);
    } else {
        pending.append(&mut queue.records);
    }
    !pending.is_empty()
}

fn deliver_all(pending: &mut VecDeque<Pending>, error: AppendError) {
    let mut deliveries = Deliveries::default();
    for next in pending.drain(..) {
        let error = next.refused.unwrap_or(error);
        deliveries.add(next, Err(error));
    }
    deliveries.send();
}

/// Deliveries by sink, each sink's in order.
#[derive(Default)]
struct Deliveries {
    by_sink: Vec<(Arc<dyn DeliverySink>, Vec<Delivery>)>,
    places: HashMap<usize, usize>,
}

impl Deliveries {
    fn add(&mut self, pending: Pending, result: Result<Option<Offset>, AppendError>) {
        let delivery = pending.delivery(result);
        let address = Arc::as_ptr(&pending.sink).cast::<()>() as usize;
        let place = *self.places.entry(address).or_insert(self.by_sink.len());
        match self.by_sink.get_mut(place) {
            Some((_, deliveries)) => deliveries.push(delivery),
            None => self.by_sink.push((pending.sink, vec![delivery])),
        }
    }

    fn send(self) {
        for (sink, deliveries) in self.by_sink {
            sink.delivered(deliveries);
        }
    }
}

/// Tells everybody who still waits when the thread ends, also when it panics.
struct LastWords(Arc<Hub>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut stopped = self.0.stopped.lock();
            stopped.get_or_insert_with(|| "the log's writer panicked".to_owned());
        }
        let mut pending = VecDeque::new();
        {
            let mut queue = self.0.queue.lock();
            queue.closed = true;
            take_queued(&mut queue, &mut pending);
        }
        deliver_all(&mut pending, AppendError::Stopped);
    }
}

/// Keeps what readers have in memory within its bounds.
pub(crate) struct TailBound {
    groups: VecDeque<TailGroup>,
    bytes: usize,
    records: usize,
    bytes_max: usize,
    records_max: usize,
}

struct TailGroup {
    bytes: usize,
    counts: Vec<(u16, usize)>,
}

impl TailBound {
    pub(crate) fn new(caches: CacheSizes) -> Self {
        let (bytes_max, records_max) = (caches.tail, caches.tail_records);
        Self { groups: VecDeque::new(), bytes: 0, records: 0, bytes_max, records_max }
    }

    fn push(&mut self, group: TailGroup, store: &Store) {
        self.bytes += group.bytes;
        self.records += group.counts.iter().map(|(_, count)| count).sum::<usize>();
        self.groups.push_back(group);
        while self.bytes > self.bytes_max || self.records > self.records_max {
            let Some(group) = self.groups.pop_front() else { break };
            self.bytes -= group.bytes;
            for (partition, count) in group.counts {
                self.records -= count;
                store.forget(partition, count);
            }
        }
        store.tail_weighs(self.bytes);
    }
}

/// What is measured.
pub(crate) struct Measures {
    append_seconds: metrics::Histogram,
    group_records: metrics::Histogram,
    group_bytes: metrics::Histogram,
    log_bytes: metrics::Gauge,
}

impl Measures {
    pub(crate) fn new(segments_bytes: u64) -> Self {
        metrics::describe_histogram!(
            "docket_append_seconds",
            metrics::Unit::Seconds,
            "From handing a record to the log until it is durable"
        );
        metrics::describe_histogram!("docket_group_records", "Records made durable by one flush");
        metrics::describe_histogram!("docket_group_bytes", metrics::Unit::Bytes, "Bytes made durable by one flush");
        metrics::describe_gauge!("docket_log_bytes", metrics::Unit::Bytes, "Bytes the log's segments take on disk");
        let log_bytes = metrics::gauge!("docket_log_bytes");
        log_bytes.set(segments_bytes as f64);
        Self {
            append_seconds: metrics::histogram!("docket_append_seconds"),
            group_records: metrics::histogram!("docket_group_records"),
            group_bytes: metrics::histogram!("docket_group_bytes"),
            log_bytes,
        }
    }
}
