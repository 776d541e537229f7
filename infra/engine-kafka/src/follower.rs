//! The way in: one thread with one consumer that copies all partitions of the topic, byte for byte and offset for offset,
//! into local segments. Readers are served from there. Kafka is the truth: what is torn, damaged or missing here is cut
//! off and fetched again, and readers wait for it; what is missing or different *there* stops the log for good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::log::{LogFault, Stored};
use engine::position::{Offset, Partition};
use engine_embedded::{COPIED_RECORD_BYTES_MAX, CopyReadFault, CopyReader, LogCopy};
use parking_lot::{Condvar, Mutex};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::watch;

use crate::admin::{Admin, say};
use crate::fault::{KafkaFault, chain, told};
use crate::measures::FollowerMeasures;
use crate::options::KafkaOptions;

/// Most bytes and records taken over at once.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 4_096;
/// How long the thread waits for records before it looks after other things.
const POLL: Duration = Duration::from_millis(50);
/// How long it rests after something failed that may pass.
const REST: Duration = Duration::from_millis(500);
/// How long a reader waits for what Kafka has and the copy has not yet.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a reader waits for more than what it could have at once.
const MORE_PATIENCE: Duration = Duration::from_millis(250);
/// How long the topic may be unknown to the brokers before it counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How old the last word of the client may be before nothing is known of the brokers.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The way in.
pub(crate) struct Follower {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Waker = Arc<dyn Fn() + Send + Sync>;

struct Shared {
    topic: String,
    reader: CopyReader,
    /// The furthest end that readers were shown, by partition. A copy that is cut does not take it back.
    shown: Vec<AtomicU64>,
    /// Whether the topic was seen to have what the copy had, by partition.
    verified: Vec<AtomicBool>,
    wakers: Mutex<Wakers>,
    /// A segment that a reader found damaged.
    damaged: Mutex<Option<u64>>,
    /// For whoever waits for the copy to grow.
    progress: Mutex<()>,
    moved: Condvar,
    fault: watch::Sender<Option<Arc<KafkaFault>>>,
    closing: AtomicBool,
    sight: Mutex<Sight>,
    measures: FollowerMeasures,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    by_number: BTreeMap<u64, Waker>,
}

/// What is seen of the brokers and the disk.
struct Sight {
    heard_at: Instant,
    /// Partitions whose leader is not connected.
    away: Vec<i32>,
    last_error: String,
    copy_trouble: Option<String>,
}

/// What the follower asks with while it is in doubt.
pub(crate) struct Truth {
    pub(crate) admin: Arc<Admin>,
    pub(crate) options: KafkaOptions,
}

impl Follower {
    /// Goes on where `copy` ends. Its last record of every partition is fetched again and must be the same. `on_fault` is
    /// called before anybody hears of a fault.
    pub(crate) fn start(
        copy: LogCopy,
        truth: Truth,
        partitions: u16,
        on_fault: impl FnOnce() + Send + 'static,
    ) -> Result<Self, KafkaFault> {
        let reader = copy.reader();
        let shown = (0..partitions).map(|partition| AtomicU64::new(reader.end(Partition(partition)).0)).collect();
        let shared = Arc::new(Shared {
            topic: truth.options.topic(),
            reader,
            shown,
            verified: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
            wakers: Mutex::default(),
            damaged: Mutex::new(None),
            progress: Mutex::new(()),
            moved: Condvar::new(),
            fault: watch::Sender::new(None),
            closing: AtomicBool::new(false),
            sight: Mutex::new(Sight {
                heard_at: Instant::now(),
                away: Vec::new(),
                last_error: String::new(),
                copy_trouble: None,
            }),
            measures: FollowerMeasures::new(partitions),
        });
        let ears = Ears(Arc::clone(&shared));
        let consumer = BaseConsumer::from_config_and_context(&truth.options.follower_config(), ears)
            .map_err(|error| KafkaFault::Options(error.to_string()))?;
        let following = Following { shared: Arc::clone(&shared), copy, consumer, truth, next: Vec::new(), gone: None };
        let thread = std::thread::Builder::new()
            .name("docket-kafka-follow".to_owned())
            .spawn(move || following.run(on_fault))
            .map_err(|error| KafkaFault::Options(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The offset after the furthest record of `partition` that the copy ever had.
    pub(crate) fn end(&self, partition: Partition) -> Offset {
        let shown = self.shared.shown.get(usize::from(partition.0));
        Offset(shown.map_or(0, |shown| shown.load(Ordering::Acquire)))
    }

    /// Reads from the copy. Records before `known_end` exist: they are waited for, a little even if there are some to give
    /// already.
    pub(crate) fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        known_end: Offset,
    ) -> Result<Vec<Stored>, LogFault> {
        let started = Instant::now();
        let deadline = started + READER_PATIENCE;
        loop {
            let waiting_for = match self.shared.reader.read(partition, from, bytes_max) {
                Ok(records) if !records.is_empty() => {
                    let bytes: usize = records.iter().map(|stored| stored.bytes.len()).sum();
                    let next = Offset(from.0 + records.len() as u64);
                    if bytes >= bytes_max || next >= known_end || next < self.shared.reader.end(partition) {
                        return Ok(records);
                    }
                    let mut progress = self.shared.progress.lock();
                    if self.shared.reader.end(partition) <= next
                        && (started.elapsed() > MORE_PATIENCE || self.fault().is_some())
                    {
                        return Ok(records);
                    }
                    if self.shared.reader.end(partition) <= next {
                        self.shared.moved.wait_for(&mut progress, POLL);
                    }
                    continue;
                }
                Ok(nothing) if from >= known_end.max(self.end(partition)) => return Ok(nothing),
                Ok(_) => format!("offset {from} of partition {partition} is in Kafka and not in the local copy yet"),
                Err(CopyReadFault::Unreadable(why)) => return Err(LogFault::Unreadable(why)),
                Err(fault @ CopyReadFault::Damaged { segment, .. }) => {
                    let mut damaged = self.shared.damaged.lock();
                    *damaged = Some(damaged.map_or(segment, |before| before.min(segment)));
                    fault.to_string()
                }
            };
            if let Some(fault) = self.shared.fault.borrow().as_ref() {
                return Err(LogFault::Unreadable(format!("{waiting_for}: {fault}")));
            }
            if Instant::now() >= deadline || self.shared.closing.load(Ordering::SeqCst) {
                return Err(LogFault::Unreadable(waiting_for));
            }
            let mut progress = self.shared.progress.lock();
            if self.shared.reader.end(partition) <= from || self.shared.damaged.lock().is_some() {
                self.shared.moved.wait_for(&mut progress, POLL);
            }
        }
    }

    /// Waits until the copy of `partition` reaches `end` and is seen to be of this topic. Says how far it is if it does not.
    pub(crate) fn wait_for(&self, partition: Partition, end: Offset, deadline: Instant) -> Result<(), KafkaFault> {
        let mut progress = self.shared.progress.lock();
        loop {
            let is = self.shared.reader.end(partition);
            let verified = self.shared.verified.get(usize::from(partition.0));
            if is >= end && verified.is_none_or(|verified| verified.load(Ordering::Acquire)) {
                return Ok(());
            }
            if let Some(fault) = self.shared.fault.borrow().as_ref() {
                return Err(KafkaFault::clone(fault));
            }
            if self.shared.closing.load(Ordering::SeqCst) {
                return Err(KafkaFault::Closed);
            }
            if Instant::now() >= deadline {
                return Err(KafkaFault::Unreachable {
                    brokers: self.shared.topic.clone(),
                    doing: "following the topic",
                    why: format!("partition {partition} is copied up to offset {is}, Kafka goes up to {end}"),
                });
            }
            self.shared.moved.wait_for(&mut progress, POLL);
        }
    }

    pub(crate) fn add_waker(&self, waker: Waker) -> impl FnOnce() + Send + Sync + 'static + use<> {
        let mut wakers = self.shared.wakers.lock();
        wakers.next += 1;
        let number = wakers.next;
        wakers.by_number.insert(number, waker);
        drop(wakers);
        let shared = Arc::clone(&self.shared);
        move || {
            let removed = shared.wakers.lock().by_number.remove(&number);
            drop(removed);
        }
    }

    pub(crate) fn faults(&self) -> watch::Receiver<Option<Arc<KafkaFault>>> {
        self.shared.fault.subscribe()
    }

    pub(crate) fn fault(&self) -> Option<Arc<KafkaFault>> {
        self.shared.fault.borrow().clone()
    }

    /// Whether every partition's leader is connected and the copy can be written; why not.
    pub(crate) fn reachable(&self) -> Result<(), String> {
        if let Some(fault) = self.fault() {
            return Err(fault.to_string());
        }
        let sight = self.shared.sight.lock();
        if let Some(trouble) = &sight.copy_trouble {
            return Err(trouble.clone());
        }
        if sight.heard_at.elapsed() > SILENCE_MAX {
            return Err("nothing was heard of Kafka for a while".to_owned());
        }
        match sight.away.as_slice() {
            [] => Ok(()),
            away => Err(format!("the leaders of partitions {away:?} cannot be reached. {}", sight.last_error)),
        }
    }

    /// Ends the thread and lets go of the copy.
    pub(crate) fn close(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.moved.notify_all();
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread that follows the log panicked");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread's state.
struct Following {
    shared: Arc<Shared>,
    copy: LogCopy,
    consumer: BaseConsumer<Ears>,
    truth: Truth,
    /// What comes next, by partition.
    next: Vec<Next>,
    /// Since when the brokers do not know the topic.
    gone: Option<Instant>,
}

struct Next {
    offset: u64,
    /// The record before it, until it was seen in the topic as well.
    overlap: Option<Stored>,
}

/// Why following pauses or ends.
enum Stop {
    /// The copy is to be looked at again from its end.
    Anew,
    /// For good.
    Fault(KafkaFault),
}

impl Following {
    fn run(mut self, on_fault: impl FnOnce()) {
        let mut assigned = false;
        while !self.shared.closing.load(Ordering::SeqCst) {
            let step = if assigned { self.step() } else { self.assign() };
            assigned = true;
            match step {
                Ok(()) => {}
                Err(Stop::Anew) => assigned = false,
                Err(Stop::Fault(fault)) => {
                    tracing::error!("the log in Kafka stops: {fault}");
                    on_fault();
                    self.shared.fault.send_replace(Some(Arc::new(fault)));
                    break;
                }
            }
        }
        self.shared.moved.notify_all();
        // After a fault the consumer is of no more use, but what is here can still be read.
        while !self.shared.closing.load(Ordering::SeqCst) {
            let mut progress = self.shared.progress.lock();
            self.shared.moved.wait_for(&mut progress, REST);
        }
    }

    /// Starts fetching where the copy ends, one record earlier.
    fn assign(&mut self) -> Result<(), Stop> {
        let partitions = self.shared.shown.len() as u16;
        self.next.clear();
        let mut list = TopicPartitionList::new();
        for partition in (0..partitions).map(Partition) {
            let end = self.copy.end(partition);
            let overlap = match end.0.checked_sub(1) {
                None => None,
                Some(last) => match self.shared.reader.read(partition, Offset(last), 0) {
                    Ok(records) => records.into_iter().next(),
                    Err(CopyReadFault::Damaged { segment, what }) => {
                        return self.cut_back(segment, &what).and(Err(Stop::Anew));
                    }
                    Err(CopyReadFault::Unreadable(why)) => return self.rest(why),
                },
            };
            let from = overlap.as_ref().map_or(end, |stored| stored.offset);
            self.shared.verified[usize::from(partition.0)].store(overlap.is_none(), Ordering::Release);
            let added = list.add_partition_offset(
                &self.shared.topic,
                i32::from(partition.0),
                rdkafka::Offset::Offset(i64::try_from(from.0).expect("offsets are below 2^53")),
            );
            if let Err(error) = added {
                return self.rest(told(&error));
            }
            self.next.push(Next { offset: end.0, overlap });
        }
        match self.consumer.assign(&list) {
            Ok(()) => Ok(()),
            Err(error) => self.rest(told(&error)),
        }
    }

    /// After something that may pass: a while of nothing, then anew.
    fn rest(&self, why: String) -> Result<(), Stop> {
        tracing::warn!("following the log is interrupted: {why}");
        self.shared.sight.lock().last_error = why;
        let mut progress = self.shared.progress.lock();
        self.shared.moved.wait_for(&mut progress, REST);
        Err(Stop::Anew)
    }

    fn cut_back(&mut self, segment: u64, what: &str) -> Result<(), Stop> {
        tracing::warn!(segment, "the local copy is damaged and fetched again from there: {what}");
        self.shared.measures.cuts.increment(1);
        match self.copy.cut_back(segment) {
            Ok(_) => Ok(()),
            Err(fault) => self.rest(chain(&fault)),
        }
    }

    /// Takes over what has come, or waits a little for it.
    fn step(&mut self) -> Result<(), Stop> {
        let damaged = *self.shared.damaged.lock();
        if let Some(segment) = damaged {
            let cut = self.cut_back(segment, "a reader found it so");
            *self.shared.damaged.lock() = None;
            self.shared.moved.notify_all();
            return cut.and(Err(Stop::Anew));
        }
        if self.gone.is_some() {
            self.look_for_topic()?;
        }
        let mut batch = Vec::new();
        let (mut bytes, mut error) = (0, None);
        let mut wait = Timeout::After(POLL);
        // What was polled borrows the consumer, and the rest of this is changed meanwhile.
        let Self { consumer, copy, next, shared, .. } = self;
        while bytes < BATCH_BYTES && batch.len() < BATCH_RECORDS {
            match consumer.poll(wait) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    batch.push(message);
                }
                Some(Err(trouble)) => {
                    error = Some(trouble);
                    break;
                }
            }
            wait = Timeout::After(Duration::ZERO);
        }
        let taken = take(copy, next, shared, &batch);
        drop(batch);
        match taken {
            Ok(0) => {
                shared.moved.notify_all();
            }
            Ok(records) => {
                shared.measures.fetched.increment(records as u64);
                shared.sight.lock().copy_trouble = None;
                self.gone = None;
                self.show();
            }
            Err(Taking::Failed(why)) => {
                self.show();
                self.shared.sight.lock().copy_trouble = Some(why.clone());
                return self.rest(why);
            }
            Err(Taking::Fault(fault)) => return Err(Stop::Fault(fault)),
        }
        error.map_or(Ok(()), |error| self.weigh(&error))
    }

    /// Lets readers and wakers know.
    fn show(&self) {
        for (partition, shown) in (0..).zip(&self.shared.shown) {
            shown.fetch_max(self.copy.end(Partition(partition)).0, Ordering::AcqRel);
        }
        // Whoever is about to wait holds this until they do.
        drop(self.shared.progress.lock());
        self.shared.moved.notify_all();
        for waker in self.shared.wakers.lock().by_number.values() {
            waker();
        }
    }

    /// What an error of the consumer means.
    fn weigh(&mut self, error: &KafkaError) -> Result<(), Stop> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => self.compare_ends(),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => {
                self.gone.get_or_insert_with(Instant::now);
                Ok(())
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => self.rest(told(error)),
            _ => {
                tracing::debug!(%error, "the consumer complains");
                Ok(())
            }
        }
    }

    /// The topic was not known to a broker: either it is new there, or it is gone, or it was made anew.
    fn look_for_topic(&mut self) -> Result<(), Stop> {
        let gone_for = self.gone.map_or(Duration::ZERO, |since| since.elapsed());
        match self.truth.admin.layout(&self.shared.topic, Duration::from_secs(1)) {
            Ok(Some(layout)) if layout.partitions.iter().all(|partition| partition.has_leader) => {
                self.gone = None;
                self.compare_ends()?;
                // What was the last record must still be the last, or be followed by others.
                Err(Stop::Anew)
            }
            Ok(None) if gone_for > GONE_AFTER => Err(Stop::Fault(KafkaFault::Truncated {
                topic: self.shared.topic.clone(),
                partition: Partition(0),
                what: "the topic is gone".to_owned(),
            })),
            _ => {
                let mut progress = self.shared.progress.lock();
                self.shared.moved.wait_for(&mut progress, REST);
                Ok(())
            }
        }
    }

    /// Whether Kafka still has what the copy has.
    fn compare_ends(&mut self) -> Result<(), Stop> {
        match compare_ends(&self.truth.admin, &self.shared.topic, self.shared.shown.len() as u16, |partition| {
            self.copy.end(partition)
        }) {
            Ok(()) => Err(Stop::Anew),
            Err(fault) if fault.may_pass() => self.rest(fault.to_string()),
            Err(fault) => Err(Stop::Fault(fault)),
        }
    }
}

/// Whether Kafka has every partition from offset 0 and at least up to where the copy ends.
pub(crate) fn compare_ends(
    admin: &Admin,
    topic: &str,
    partitions: u16,
    end_here: impl Fn(Partition) -> Offset,
) -> Result<(), KafkaFault> {
    let truncated = |partition, what| KafkaFault::Truncated { topic: topic.to_owned(), partition, what };
    for partition in (0..partitions).map(Partition) {
        let here = end_here(partition);
        // A leader that has just taken over may not know how far the others are.
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let (low, high) = admin.bounds(topic, partition)?;
            if low > Offset(0) {
                return Err(truncated(
                    partition,
                    format!("it begins at offset {low}, its first records were thrown away"),
                ));
            }
            if high >= here {
                break;
            }
            if Instant::now() >= deadline {
                return Err(truncated(
                    partition,
                    format!("it ends at offset {high}, this node has followed it to {here}"),
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// Why records could not be taken over.
enum Taking {
    Failed(String),
    Fault(KafkaFault),
}

/// Adds what is new in a batch to the copy.
fn take(
    copy: &mut LogCopy,
    next: &mut [Next],
    shared: &Shared,
    batch: &[BorrowedMessage<'_>],
) -> Result<usize, Taking> {
    let mut records = Vec::with_capacity(batch.len());
    let mut fault = None;
    for message in batch {
        let Some(next) = usize::try_from(message.partition()).ok().and_then(|partition| next.get_mut(partition)) else {
            continue;
        };
        let partition = Partition(message.partition() as u16);
        let (offset, bytes) = (message.offset() as u64, message.payload().unwrap_or_default());
        match check(shared, partition, next, offset, bytes) {
            Ok(true) => {
                next.offset += 1;
                records.push((partition, bytes));
            }
            Ok(false) => {}
            Err(found) => {
                fault = Some(found);
                break;
            }
        }
    }
    if !records.is_empty()
        && let Err(error) = copy.append(&records)
    {
        let what = if engine_embedded::no_room(&error) { "the disk is full" } else { "the disk fails" };
        return Err(Taking::Failed(format!("{what}, the local copy does not go on: {error}")));
    }
    fault.map_or(Ok(records.len()), |fault| Err(Taking::Fault(fault)))
}

/// Whether a record is the next one; `false` if it is here already.
fn check(
    shared: &Shared,
    partition: Partition,
    next: &mut Next,
    offset: u64,
    bytes: &[u8],
) -> Result<bool, KafkaFault> {
    let topic = || shared.topic.clone();
    if let Some(overlap) = &next.overlap {
        // The first that comes must be the one that was fetched last time.
        if offset != overlap.offset.0 || bytes != &overlap.bytes[..] {
            let what = format!("offset {} holds another record than this node has read there", overlap.offset);
            return Err(KafkaFault::Truncated { topic: topic(), partition, what });
        }
        next.overlap = None;
        shared.verified[usize::from(partition.0)].store(true, Ordering::Release);
        return Ok(false);
    }
    if offset < next.offset {
        return Ok(false);
    }
    if offset > next.offset {
        let what = format!(
            "after offset {} of partition {partition} comes {offset}: a transaction was written to it, or it was compacted",
            next.offset.saturating_sub(1)
        );
        return Err(KafkaFault::Foreign { topic: topic(), what });
    }
    if bytes.len() > COPIED_RECORD_BYTES_MAX {
        let what = format!("offset {offset} of partition {partition} has {} bytes", bytes.len());
        return Err(KafkaFault::Foreign { topic: topic(), what });
    }
    Ok(true)
}

/// Hears what the consumer has to say.
struct Ears(Arc<Shared>);

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say("follower", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(client = "follower", %error, "{reason}");
        self.0.sight.lock().last_error = reason.to_owned();
    }

    fn stats(&self, statistics: Statistics) {
        let up = |node: i32| statistics.brokers.values().any(|broker| broker.nodeid == node && broker.state == "UP");
        let mut away = Vec::new();
        if let Some(topic) = statistics.topics.get(&self.0.topic) {
            for (number, partition) in &topic.partitions {
                let Ok(slot) = usize::try_from(*number) else { continue };
                if !up(partition.leader) {
                    away.push(*number);
                }
                if let Ok(number) = u16::try_from(slot) {
                    let behind = u64::try_from(partition.hi_offset).unwrap_or(0);
                    self.0.measures.lag(slot, behind.saturating_sub(self.0.reader.end(Partition(number)).0));
                }
            }
        }
        away.sort_unstable();
        let mut sight = self.0.sight.lock();
        sight.heard_at = Instant::now();
        sight.away = away;
    }
}

impl ConsumerContext for Ears {}
