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
use engine_embedded::{CopyReadFault, CopyReader, LogCopy};
use parking_lot::{Condvar, Mutex};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::fault::KafkaFault;
use crate::measures::FollowerMeasures;
use crate::options::KafkaOptions;

mod ears;
mod following;
mod taking;

use ears::Ears;
use following::Following;

/// How long the thread waits for records before it looks after other things, and a reader before it looks again.
const POLL: Duration = Duration::from_millis(50);
/// How long a reader waits for what Kafka has and the copy has not yet: far longer than the copy is ever behind while
/// brokers and disk are well.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the topic may be unknown to the brokers before it counts as gone.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(5);
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
        let consumer = consumer(&truth.options, &shared).map_err(|error| KafkaFault::Options(error.to_string()))?;
        let following = Following::new(Arc::clone(&shared), copy, consumer, truth);
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

    /// Sets the gauges of what of the copy is in memory.
    pub(crate) fn measure(&self) {
        self.shared.reader.measure();
    }

    /// Reads from the copy. Records before `known_end` exist: those of them that fit are waited for. A page that is short
    /// of them is given only if they do not come.
    pub(crate) fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        known_end: Offset,
    ) -> Result<Vec<Stored>, LogFault> {
        let deadline = Instant::now() + READER_PATIENCE;
        let (mut page, mut bytes) = (Vec::new(), 0);
        loop {
            let next = Offset(from.0 + page.len() as u64);
            // Asked before reading: a page that ends before this ends for want of room.
            let copied = self.shared.reader.end(partition);
            let waiting_for = match self.shared.reader.read(partition, next, bytes_max.saturating_sub(bytes)) {
                Ok(records) if !records.is_empty() => {
                    for stored in records {
                        if !page.is_empty() && bytes + stored.bytes.len() > bytes_max {
                            return Ok(page);
                        }
                        bytes += stored.bytes.len();
                        page.push(stored);
                    }
                    let next = Offset(from.0 + page.len() as u64);
                    if bytes >= bytes_max || next >= known_end || next < copied {
                        return Ok(page);
                    }
                    continue;
                }
                Ok(_) if next >= known_end.max(self.end(partition)) => return Ok(page),
                Ok(_) => format!("offset {next} of partition {partition} is in Kafka and not in the local copy yet"),
                // What is wrong further on is for who reads from there.
                Err(_) if !page.is_empty() => return Ok(page),
                Err(CopyReadFault::Unreadable(why)) => return Err(LogFault::Unreadable(why)),
                Err(fault @ CopyReadFault::Damaged { segment, .. }) => {
                    let mut damaged = self.shared.damaged.lock();
                    *damaged = Some(damaged.map_or(segment, |before| before.min(segment)));
                    fault.to_string()
                }
            };
            let fault = self.fault();
            if fault.is_some() || Instant::now() >= deadline || self.shared.closing.load(Ordering::SeqCst) {
                return match (page.is_empty(), fault) {
                    (false, _) => Ok(page),
                    (true, Some(fault)) => Err(LogFault::Unreadable(format!("{waiting_for}: {fault}"))),
                    (true, None) => Err(LogFault::Unreadable(waiting_for)),
                };
            }
            let mut progress = self.shared.progress.lock();
            if self.shared.reader.end(partition) <= next || self.shared.damaged.lock().is_some() {
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

/// A consumer that nothing is assigned to yet.
fn consumer(options: &KafkaOptions, shared: &Arc<Shared>) -> Result<BaseConsumer<Ears>, KafkaError> {
    BaseConsumer::from_config_and_context(&options.follower_config(), Ears::new(Arc::clone(shared)))
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
