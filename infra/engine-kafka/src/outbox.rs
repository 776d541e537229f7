//! The way out: one idempotent producer for all partitions, and a lane per partition that remembers what was handed over
//! in which order. Appending copies the record into the producer's queue and returns; reports come back on the producer's
//! thread, find their slot, and a thread of ours hands them to their sinks, as many at once as there are, in the order of
//! the appends, whatever the order of the reports.
//!
//! Every error is *unknown*: a record that timed out may be in the topic, or come to be there later. After a fatal error,
//! and when no broker is left to it, the producer is replaced; what it had is unknown as well.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::log::{AppendError, Appender, Delivery, DeliverySink, RECORD_BYTES_MAX};
use engine::position::{Offset, Partition};
use parking_lot::{Condvar, Mutex, RwLock};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;

use crate::admin::say;
use crate::fault::{KafkaFault, told};
use crate::measures::OutboxMeasures;
use crate::options::KafkaOptions;
use crate::stranded::{self, Stranding};

/// How long closing waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(3);
/// How often at most a failing producer is complained about or replaced.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// The way out.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    topic: String,
    options: KafkaOptions,
    lanes: Vec<Lane>,
    current: RwLock<Option<Arc<Generation>>>,
    bell: Mutex<Bell>,
    rung: Condvar,
    /// Nothing is taken any more.
    closed: AtomicBool,
    complained: Mutex<Option<Instant>>,
    measures: OutboxMeasures,
}

/// A producer, and which one in the course of the program.
struct Generation {
    number: u64,
    producer: ThreadedProducer<Reports>,
}

/// What a partition has in flight.
struct Lane {
    queue: Mutex<LaneQueue>,
    /// The offset after the furthest record that was delivered.
    delivered: AtomicU64,
}

#[derive(Default)]
struct LaneQueue {
    /// The number of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
}

struct Slot {
    tag: u64,
    sink: Arc<dyn DeliverySink>,
    handed_at: Instant,
    generation: u64,
    result: Option<Result<Option<Offset>, AppendError>>,
}

/// What became of a slot.
struct Report {
    partition: u16,
    number: u64,
    result: Result<Option<Offset>, AppendError>,
}

/// What the dispatcher is to do. The producer's thread adds to it and nothing else: the lanes are the appenders'.
#[derive(Default)]
struct Bell {
    reports: Vec<Report>,
    /// Lanes whose first slot was answered without a report.
    lanes: Vec<u16>,
    waiting: bool,
    /// The producer of this number or an earlier one has failed for good.
    replace: Option<u64>,
    /// The producer of this number and all earlier ones have made their last report.
    retired: Option<u64>,
    ending: bool,
}

impl Outbox {
    pub(crate) fn open(options: &KafkaOptions, topic: &str, partitions: u16) -> Result<Self, KafkaFault> {
        let lane = |_| Lane { queue: Mutex::default(), delivered: AtomicU64::new(0) };
        let shared = Arc::new(Shared {
            topic: topic.to_owned(),
            options: options.clone(),
            lanes: (0..partitions).map(lane).collect(),
            current: RwLock::new(None),
            bell: Mutex::default(),
            rung: Condvar::new(),
            closed: AtomicBool::new(false),
            complained: Mutex::new(None),
            measures: OutboxMeasures::new(),
        });
        let first = shared.generation(1).map_err(|error| KafkaFault::Options(error.to_string()))?;
        *shared.current.write() = Some(Arc::new(first));
        let dispatcher = std::thread::Builder::new()
            .name("docket-kafka-reports".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.dispatch()
            })
            .map_err(|error| KafkaFault::Options(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, dispatcher: Mutex::new(Some(dispatcher)) })
    }

    pub(crate) fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender> {
        Box::new(LaneAppender { shared: Arc::clone(&self.shared), partition: partition.0, sink })
    }

    /// The offset after the furthest record of `partition` that was delivered to anybody here; 0 if none was.
    pub(crate) fn delivered(&self, partition: Partition) -> Offset {
        let lane = self.shared.lanes.get(usize::from(partition.0));
        Offset(lane.map_or(0, |lane| lane.delivered.load(Ordering::Acquire)))
    }

    /// Takes nothing more; waits a little for what is in flight, and reports the rest as unknown.
    pub(crate) fn close(&self) {
        let Some(dispatcher) = self.dispatcher.lock().take() else { return };
        self.shared.closed.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + DRAIN;
        while Instant::now() < deadline && self.shared.lanes.iter().any(|lane| !lane.queue.lock().slots.is_empty()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let last = self.shared.current.write().take();
        if let Some(last) = last {
            let number = last.number;
            drop(last);
            self.shared.retired(number);
        }
        self.shared.ring(|bell| bell.ending = true);
        if dispatcher.thread().id() != std::thread::current().id() && dispatcher.join().is_err() {
            tracing::error!("the thread that reports deliveries panicked");
        }
    }

    /// What makes it take nothing more, without waiting for what is in flight.
    pub(crate) fn refusing(&self) -> impl FnOnce() + Send + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.closed.store(true, Ordering::SeqCst)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

struct LaneAppender {
    shared: Arc<Shared>,
    partition: u16,
    sink: Arc<dyn DeliverySink>,
}

impl Appender for LaneAppender {
    fn append(&mut self, tag: u64, record: Bytes) {
        if self.shared.closed.load(Ordering::SeqCst) {
            self.sink.delivered(vec![Delivery { tag, result: Err(AppendError::Stopped) }]);
            return;
        }
        self.shared.append(self.partition, tag, &record, &self.sink);
    }
}

impl Shared {
    fn generation(self: &Arc<Self>, number: u64) -> Result<Generation, KafkaError> {
        let reports = Reports { shared: Arc::downgrade(self), number, stranding: Stranding::new("producer") };
        let producer = ThreadedProducer::from_config_and_context(&self.options.producer_config(), reports)?;
        Ok(Generation { number, producer })
    }

    fn append(&self, partition: u16, tag: u64, record: &Bytes, sink: &Arc<dyn DeliverySink>) {
        let mut queue = self.lanes[usize::from(partition)].queue.lock();
        // Under the lane's lock, so that slots and the producer's queue have one order.
        let number = queue.first + queue.slots.len() as u64;
        let (generation, result) = if record.len() > RECORD_BYTES_MAX {
            (0, Some(AppendError::TooLarge))
        } else {
            self.send(partition, number, record)
        };
        let result = result.map(Err);
        let answered = result.is_some();
        let (sink, handed_at) = (Arc::clone(sink), Instant::now());
        queue.slots.push_back(Slot { tag, sink, handed_at, generation, result });
        let first = queue.slots.len() == 1;
        drop(queue);
        if answered && first {
            self.ring(|bell| bell.lanes.push(partition));
        }
    }

    /// Puts the record into the producer's queue. Says by which producer, and what is wrong if it was not taken.
    fn send(&self, partition: u16, number: u64, record: &Bytes) -> (u64, Option<AppendError>) {
        let current = self.current.read();
        let Some(generation) = current.as_ref() else { return (0, Some(AppendError::Unknown)) };
        let opaque = usize::try_from(number).expect("slots are counted in 64 bits");
        let message: BaseRecord<'_, (), [u8], usize> =
            BaseRecord::with_opaque_to(&self.topic, opaque).partition(i32::from(partition)).payload(&record[..]);
        match generation.producer.send(message) {
            Ok(()) => (generation.number, None),
            Err((error, _)) => {
                // Certainly not sent; but the next may be, and the writer must not go on as if this one were there.
                self.failed(partition, generation.number, &error);
                (generation.number, Some(AppendError::Unknown))
            }
        }
    }

    fn failed(&self, partition: u16, generation: u64, error: &KafkaError) {
        self.measures.unknown.increment(1);
        let now = Instant::now();
        let mut complained = self.complained.lock();
        if complained.is_none_or(|at| now - at >= COMPLAIN_EVERY) {
            *complained = Some(now);
            tracing::warn!(partition, "the fate of records is unknown until they are read back: {}", told(error));
        }
        drop(complained);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.replace(generation);
        }
    }

    fn replace(&self, generation: u64) {
        self.ring(|bell| bell.replace = bell.replace.max(Some(generation)));
    }

    fn ring(&self, change: impl FnOnce(&mut Bell)) {
        let mut bell = self.bell.lock();
        change(&mut bell);
        if std::mem::take(&mut bell.waiting) {
            drop(bell);
            self.rung.notify_one();
        }
    }

    /// Runs until the end: hands reports to their sinks.
    fn dispatch(self: &Arc<Self>) {
        let (mut reports, mut lanes) = (Vec::new(), Vec::new());
        loop {
            let (replace, retired) = {
                let mut bell = self.bell.lock();
                while bell.reports.is_empty()
                    && bell.lanes.is_empty()
                    && bell.replace.is_none()
                    && bell.retired.is_none()
                {
                    if bell.ending {
                        return;
                    }
                    bell.waiting = true;
                    self.rung.wait(&mut bell);
                }
                std::mem::swap(&mut reports, &mut bell.reports);
                std::mem::swap(&mut lanes, &mut bell.lanes);
                (bell.replace.take(), bell.retired.take())
            };
            for run in reports.chunk_by(|one, next| one.partition == next.partition) {
                self.deliver(run[0].partition, run);
            }
            reports.clear();
            for partition in lanes.drain(..) {
                self.deliver(partition, &[]);
            }
            if let Some(retired) = retired {
                self.give_up(retired);
            }
            if let Some(failed) = replace {
                self.replace_now(failed);
            }
        }
    }

    /// Takes reports of a lane, and hands over what it has answered, from the front on.
    fn deliver(&self, partition: u16, reports: &[Report]) {
        let Some(lane) = self.lanes.get(usize::from(partition)) else { return };
        let mut by_sink: Vec<(Arc<dyn DeliverySink>, Vec<Delivery>)> = Vec::new();
        let mut end = 0;
        {
            let mut queue = lane.queue.lock();
            for report in reports {
                let Some(at) = report.number.checked_sub(queue.first) else { continue };
                if let Some(slot) = usize::try_from(at).ok().and_then(|at| queue.slots.get_mut(at)) {
                    slot.result.get_or_insert(report.result);
                }
            }
            let now = Instant::now();
            while let Some(Some(result)) = queue.slots.front().map(|slot| slot.result) {
                let slot = queue.slots.pop_front().expect("there is a front");
                queue.first += 1;
                if let Ok(offset) = result {
                    end = end.max(offset.map_or(0, |offset| offset.0 + 1));
                    self.measures.append_seconds.record(now.saturating_duration_since(slot.handed_at));
                }
                let delivery = Delivery { tag: slot.tag, result };
                match by_sink.iter_mut().find(|(sink, _)| Arc::ptr_eq(sink, &slot.sink)) {
                    Some((_, deliveries)) => deliveries.push(delivery),
                    None => by_sink.push((slot.sink, vec![delivery])),
                }
            }
        }
        lane.delivered.fetch_max(end, Ordering::AcqRel);
        for (sink, deliveries) in by_sink {
            sink.delivered(deliveries);
        }
    }

    /// Goes on with another producer, unless that was done already.
    fn replace_now(self: &Arc<Self>, failed: u64) {
        let old = {
            let mut current = self.current.write();
            if current.as_ref().is_none_or(|generation| generation.number > failed) {
                return;
            }
            match self.generation(failed + 1) {
                Ok(next) => current.replace(Arc::new(next)),
                Err(error) => {
                    tracing::error!(%error, "no other producer can be made; the failed one stays");
                    return;
                }
            }
        };
        tracing::warn!("the producer has failed for good and was replaced");
        self.measures.replaced.increment(1);
        if let Some(old) = old {
            let (shared, number) = (Arc::clone(self), old.number);
            stranded::end(old, move || shared.retired(number));
        }
    }

    /// A producer has ended. What it left unanswered is unknown.
    fn retired(&self, number: u64) {
        self.ring(|bell| bell.retired = bell.retired.max(Some(number)));
    }

    /// Answers what the producers up to `retired` have not.
    fn give_up(&self, retired: u64) {
        for (partition, lane) in (0..).zip(&self.lanes) {
            for slot in &mut lane.queue.lock().slots {
                if slot.generation <= retired {
                    slot.result.get_or_insert(Err(AppendError::Unknown));
                }
            }
            self.deliver(partition, &[]);
        }
    }
}

/// Hears what a producer has to say.
struct Reports {
    shared: Weak<Shared>,
    number: u64,
    stranding: Stranding,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say("producer", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(client = "producer", %error, "{reason}");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.replace(self.number);
        }
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(shared) = self.shared.upgrade() {
            shared.measures.take(&statistics, &shared.topic);
            if self.stranding.look(&statistics) {
                shared.replace(self.number);
            }
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, number: usize) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (partition, result) = match report {
            // -1 and -1001 mean that the broker had it already and does not say where.
            Ok(message) => (message.partition(), Ok(u64::try_from(message.offset()).ok().map(Offset))),
            Err((error, message)) => {
                let partition = message.partition();
                shared.failed(u16::try_from(partition).unwrap_or(u16::MAX), self.number, error);
                (partition, Err(AppendError::Unknown))
            }
        };
        let Ok(partition) = u16::try_from(partition) else { return };
        shared.ring(|bell| bell.reports.push(Report { partition, number: number as u64, result }));
    }
}

#[cfg(test)]
mod tests;
