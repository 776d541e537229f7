//! The thread that follows: fetches where the copy ends, adds what comes, and when the consumer is in doubt asks the brokers
//! whether it may go on, must look again, or has to stop for good.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::log::Stored;
use engine::position::{Offset, Partition};
use engine_embedded::{CopyReadFault, LogCopy};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::util::Timeout;

use super::taking::{Taking, take};
use super::{Ears, GONE_AFTER, POLL, Shared, Truth, compare_ends, consumer};
use crate::fault::{KafkaFault, chain, told};
use crate::stranded;

/// Most bytes and records taken over at once.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 4_096;
/// How long it rests after something failed that may pass.
const REST: Duration = Duration::from_millis(500);
/// The thread's state.
pub(super) struct Following {
    shared: Arc<Shared>,
    copy: LogCopy,
    consumer: BaseConsumer<Ears>,
    truth: Truth,
    /// What comes next, by partition.
    next: Vec<Next>,
    /// Since when the brokers do not know the topic.
    gone: Option<Instant>,
}

pub(super) struct Next {
    pub(super) offset: u64,
    /// The record before it, until it was seen in the topic as well.
    pub(super) overlap: Option<Stored>,
}

/// Why following pauses or ends.
enum Stop {
    /// The copy is to be looked at again from its end.
    Anew,
    /// For good.
    Fault(KafkaFault),
}

impl Following {
    pub(super) fn new(shared: Arc<Shared>, copy: LogCopy, consumer: BaseConsumer<Ears>, truth: Truth) -> Self {
        Self { shared, copy, consumer, truth, next: Vec::new(), gone: None }
    }

    pub(super) fn run(mut self, on_fault: impl FnOnce()) {
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
        if self.consumer.context().stranding.seen() {
            return self.replace();
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

    /// Goes on with another consumer, from where the copy ends.
    fn replace(&mut self) -> Result<(), Stop> {
        match consumer(&self.truth.options, &self.shared) {
            Ok(next) => {
                stranded::end(std::mem::replace(&mut self.consumer, next), || {});
                Err(Stop::Anew)
            }
            Err(error) => self.rest(format!("no other consumer can be made: {error}")),
        }
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
            Ok(None) if gone_for > GONE_AFTER => Err(Stop::Fault(KafkaFault::gone(&self.shared.topic))),
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
