//! Appends per second through [`KafkaLog`] beside a bare `ThreadedProducer` with the same settings, the same bytes and as
//! many records in flight, on one broker and in one run. Give it `host:port`, or it starts a broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::log::{Appender, Delivery, DeliverySink, Log};
use engine::position::{LogId, Partition};
use engine::record::Genesis;
use engine::time::Timestamp;
use engine_kafka::{KafkaLog, KafkaOptions};
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};

const RECORD_BYTES: usize = 700;
const FOR: Duration = Duration::from_secs(3);
const NUMBERS: usize = 1 << 20;

/// Counts what was delivered and how long it took.
struct Tally {
    delivered: AtomicU64,
    failed: AtomicBool,
    driver: Thread,
    begun: Instant,
    /// When each was handed over, in nanoseconds since `begun`; then how long it took.
    at: Vec<AtomicU64>,
}

impl Tally {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            delivered: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            driver: std::thread::current(),
            begun: Instant::now(),
            at: (0..NUMBERS).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn hand(&self, number: u64) {
        let now = self.begun.elapsed().as_nanos() as u64;
        self.at[number as usize % NUMBERS].store(now, Ordering::Relaxed);
    }

    fn done(&self, number: u64) {
        let now = self.begun.elapsed().as_nanos() as u64;
        let slot = &self.at[number as usize % NUMBERS];
        slot.store(now - slot.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn count(&self, records: u64) {
        self.delivered.fetch_add(records, Ordering::Release);
        self.driver.unpark();
    }
}

impl DeliverySink for Tally {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        for delivery in &deliveries {
            self.done(delivery.tag);
            if delivery.result.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
        self.count(deliveries.len() as u64);
    }
}

struct Bare(Arc<Tally>);

impl ClientContext for Bare {}

impl ProducerContext<NoCustomPartitioner> for Bare {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, number: usize) {
        self.0.done(number as u64);
        if report.is_err() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
        self.0.count(1);
    }
}

/// Keeps `in_flight` records under way. Gives records per second, and p50 and p99 in microseconds.
fn drive(tally: &Tally, in_flight: u64, partitions: u16, mut send: impl FnMut(u16, u64)) -> (f64, f64, f64) {
    let mut handed = tally.delivered.load(Ordering::Acquire);
    let mut run = |until: Instant| {
        let first = handed;
        let started = Instant::now();
        while Instant::now() < until {
            while handed < tally.delivered.load(Ordering::Acquire) + in_flight {
                tally.hand(handed);
                send((handed % u64::from(partitions)) as u16, handed);
                handed += 1;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        while tally.delivered.load(Ordering::Acquire) < handed {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        (first, handed, started.elapsed())
    };
    run(Instant::now() + Duration::from_millis(700));
    let (first, last, took) = run(Instant::now() + FOR);
    let newest = last.saturating_sub(NUMBERS as u64).max(first);
    let mut times: Vec<u64> =
        (newest..last).map(|number| tally.at[number as usize % NUMBERS].load(Ordering::Relaxed)).collect();
    times.sort_unstable();
    assert!(!tally.failed.load(Ordering::Relaxed), "a record was not delivered");
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    ((last - first) as f64 / took.as_secs_f64(), at(0.5), at(0.99))
}

fn main() {
    let (brokers, _kafka) = match std::env::args().nth(1) {
        Some(brokers) => (brokers, None),
        None => {
            let kafka = xtask::kafka::Kafka::start(1);
            (kafka.bootstrap(), Some(kafka))
        }
    };
    let record: Bytes = (0..RECORD_BYTES).map(|at| b'a' + (at * 7 % 26) as u8).collect();
    println!(
        "{:>10} {:>9} | {:>9} {:>8} {:>8} | {:>9} {:>8} {:>8} | share",
        "partitions", "in flight", "bare/s", "p50 us", "p99 us", "log/s", "p50 us", "p99 us"
    );
    for partitions in [1_u16, 12] {
        let directory = tempfile::tempdir().expect("a directory");
        let name = format!("beside{}", uuid::Uuid::new_v4().simple());
        let mut options = KafkaOptions::new(&brokers, &name, directory.path());
        options.replication = 1;
        let genesis = Genesis {
            log: LogId(uuid::Uuid::new_v4()),
            partitions,
            placement_rule: 1,
            format: 1,
            fingerprint_key: [0; 32],
            created_at: Timestamp(1),
        };
        for in_flight in [1, 16, 128, 1_024] {
            let bare = {
                // Another topic of the same kind, so that nobody follows it.
                let other = KafkaOptions {
                    name: format!("{name}.bare"),
                    directory: directory.path().join("bare"),
                    ..options.clone()
                };
                let topic = other.topic();
                drop(KafkaLog::open(&other, Some(&genesis)).expect("the topic is made"));
                let tally = Tally::new();
                let mut config = ClientConfig::new();
                config
                    .set("bootstrap.servers", &brokers)
                    .set("enable.idempotence", "true")
                    .set("acks", "all")
                    .set("linger.ms", "0")
                    .set("compression.type", "lz4")
                    .set("batch.size", "1000000")
                    .set("batch.num.messages", "100000")
                    .set("queue.buffering.max.messages", "1000000");
                let producer: ThreadedProducer<Bare> =
                    ThreadedProducer::from_config_and_context(&config, Bare(Arc::clone(&tally))).expect("a producer");
                drive(&tally, in_flight, partitions, |partition, number| {
                    let message: BaseRecord<'_, (), [u8], usize> = BaseRecord::with_opaque_to(&topic, number as usize)
                        .partition(i32::from(partition))
                        .payload(&record);
                    producer.send(message).map_err(|(error, _)| error).expect("there is room");
                })
            };
            let ours = {
                let log = KafkaLog::open(&options, Some(&genesis)).expect("the log opens");
                let tally = Tally::new();
                let mut appenders: Vec<Box<dyn Appender>> = (0..partitions)
                    .map(|partition| log.appender(Partition(partition), Arc::clone(&tally) as Arc<dyn DeliverySink>))
                    .collect();
                let measured = drive(&tally, in_flight, partitions, |partition, number| {
                    appenders[usize::from(partition)].append(number, record.clone());
                });
                log.caught_up(Duration::from_secs(60)).expect("it follows");
                measured
            };
            println!(
                "{partitions:>10} {in_flight:>9} | {:>9.0} {:>8.0} {:>8.0} | {:>9.0} {:>8.0} {:>8.0} | {:.0} %",
                bare.0,
                bare.1,
                bare.2,
                ours.0,
                ours.1,
                ours.2,
                100.0 * ours.0 / bare.0
            );
        }
    }
}
