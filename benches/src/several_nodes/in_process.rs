//! How much of a bare producer is left when records go through the product's log, which follows what it writes and
//! acknowledges only what lies where it must? As many records under way in both, the same bytes, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::log::{Appender, Delivery, DeliverySink, Log};
use engine::position::Partition;
use engine_kafka::KafkaLog;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};

use super::floor;
use crate::floor::log::RECORD_BYTES;
use crate::floor::topic::settings;
use crate::ground::{Ground, PARTITIONS};
use crate::table::{Row, Table};
use crate::times::Times;
use crate::{Done, How};

/// Records under way: as many callers, each with the next when its last is acknowledged.
const CALLERS: [u64; 4] = [1, 16, 128, 1_024];
/// Left out of the measure: the first records find no connection and a cold broker.
const WARM_UP: Duration = Duration::from_millis(700);
/// Longest that a look at what was delivered is late.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// More than can be under way.
const SLOTS: usize = 1 << 12;

/// Counts what was delivered and notes how long it took.
struct Tally {
    delivered: AtomicU64,
    failed: AtomicBool,
    driver: Thread,
    begun: Instant,
    /// When each that is under way was handed over, in nanoseconds since `begun`.
    handed: Vec<AtomicU64>,
    /// One thread delivers, so nobody waits for this.
    times: parking_lot::Mutex<Times>,
}

impl Tally {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            delivered: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            driver: std::thread::current(),
            begun: Instant::now(),
            handed: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            times: parking_lot::Mutex::new(Times::new()),
        })
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn done(&self, times: &mut Times, number: u64, acknowledged: bool) {
        let took = self.now() - self.handed[number as usize % SLOTS].load(Ordering::Relaxed);
        times.note(Duration::from_nanos(took));
        if !acknowledged {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    fn count(&self, records: u64) {
        self.delivered.fetch_add(records, Ordering::Release);
        self.driver.unpark();
    }
}

impl DeliverySink for Tally {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        let mut times = self.times.lock();
        for delivery in &deliveries {
            self.done(&mut times, delivery.tag, delivery.result.is_ok());
        }
        drop(times);
        self.count(deliveries.len() as u64);
    }
}

struct Bare(Arc<Tally>);

impl ClientContext for Bare {}

impl ProducerContext<NoCustomPartitioner> for Bare {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, number: usize) {
        self.0.done(&mut self.0.times.lock(), number as u64, report.is_ok());
        self.0.count(1);
    }
}

/// What came of it: records a second, and how long each took.
struct Found {
    rate: f64,
    times: Times,
}

/// Keeps so many records under way for so long.
fn drive(tally: &Tally, callers: u64, lasting: Duration, mut send: impl FnMut(u16, u64)) -> Done<Found> {
    let mut handed = 0;
    let mut run = |lasting: Duration| {
        let (first, began) = (handed, Instant::now());
        while began.elapsed() < lasting {
            while handed < tally.delivered.load(Ordering::Acquire) + callers {
                tally.handed[handed as usize % SLOTS].store(tally.now(), Ordering::Relaxed);
                send((handed % u64::from(PARTITIONS)) as u16, handed);
                handed += 1;
            }
            std::thread::park_timeout(LOOK_AGAIN_AFTER);
        }
        while tally.delivered.load(Ordering::Acquire) < handed {
            std::thread::park_timeout(LOOK_AGAIN_AFTER);
        }
        (handed - first) as f64 / began.elapsed().as_secs_f64()
    };
    run(WARM_UP);
    *tally.times.lock() = Times::new();
    let rate = run(lasting);
    if tally.failed.load(Ordering::Relaxed) {
        return Err("a record was not delivered".into());
    }
    Ok(Found { rate, times: std::mem::replace(&mut *tally.times.lock(), Times::new()) })
}

/// A record that can be compressed to about half, as one of three lines can.
fn record() -> Bytes {
    let mut dice = 1_u32;
    let letters = (0..RECORD_BYTES).map(|at| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if at < RECORD_BYTES / 2 { (dice >> 24) as u8 } else { b'a' }
    });
    letters.collect()
}

pub(super) fn measure(how: &How, ground: &Ground, table: &mut Table) -> Done<()> {
    let scratch = how.scratch()?;
    let lasting = Duration::from_secs(u64::from(how.seconds())) / 2;
    let record = record();
    let topic = floor::topic(ground, &scratch)?;
    let bare = |callers| {
        let tally = Tally::new();
        let config = settings(&ground.kafka.bootstrap());
        let producer: ThreadedProducer<Bare> =
            ThreadedProducer::from_config_and_context(&config, Bare(Arc::clone(&tally)))?;
        drive(&tally, callers, lasting, |partition, number| {
            let message: BaseRecord<'_, (), [u8], usize> =
                BaseRecord::with_opaque_to(&topic, number as usize).partition(i32::from(partition)).payload(&record);
            // One that is not taken is never delivered, and that is a fault.
            if producer.send(message).is_err() {
                tally.failed.store(true, Ordering::Relaxed);
                tally.count(1);
            }
        })
    };
    let through_log = |callers| {
        let (options, genesis) = floor::options(ground, &scratch);
        let log = KafkaLog::open(&options, Some(&genesis))?;
        let tally = Tally::new();
        let mut appenders: Vec<Box<dyn Appender>> = (0..PARTITIONS)
            .map(|partition| log.appender(Partition(partition), Arc::clone(&tally) as Arc<dyn DeliverySink>))
            .collect();
        let found = drive(&tally, callers, lasting, |partition, number| {
            appenders[usize::from(partition)].append(number, record.clone());
        })?;
        log.close();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(found)
    };
    // Java compiles what it does often: nobody is to pay for that but this.
    bare(128)?;
    for callers in CALLERS {
        let before = bare(callers)?;
        let ours = through_log(callers)?;
        let after = bare(callers)?.rate;
        let what = format!("{callers} callers, {}", ground.brokers());
        let row = |what: String, found: &Found| Row {
            p50_ms: Some(found.times.at(0.5)),
            p99_ms: Some(found.times.at(0.99)),
            ..Row::new(what, found.rate, "records/s")
        };
        table.push(row(format!("bare producer, {what}"), &before));
        let floors = Some((before.rate, after));
        table.push(Row { floors, target: "50 % of floor", ..row(format!("log on Kafka in process, {what}"), &ours) });
    }
    Ok(())
}
