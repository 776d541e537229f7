//! A broker, a log of its own for each test, and a sink that can be waited for.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::log::{Appender, Delivery, DeliverySink, Log};
use engine::position::{LogId, Offset, Partition};
use engine::record::Genesis;
use engine::time::Timestamp;
use engine_kafka::{KafkaLog, KafkaOptions};
use parking_lot::{Condvar, Mutex};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use uuid::Uuid;

/// Long enough for any broker; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Why there are no brokers here; none if there are.
pub(crate) fn missing() -> Option<String> {
    if std::env::var_os("DOCKET_TEST_KAFKA").is_some() { None } else { xtask::kafka::missing() }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Ends a test that cannot be here, and says so.
macro_rules! needs_kafka {
    () => {
        if let Some(missing) = $crate::support::missing() {
            println!("SKIPPED: {missing}");
            return;
        }
    };
}
pub(crate) use needs_kafka;

/// Where the broker is that all tests share: the one that is named in the environment, or one of our own.
pub(crate) fn brokers() -> String {
    static OURS: OnceLock<xtask::kafka::Kafka> = OnceLock::new();
    std::env::var("DOCKET_TEST_KAFKA")
        .unwrap_or_else(|_| OURS.get_or_init(|| xtask::kafka::Kafka::start(1)).bootstrap())
}

/// A connection to meddle with topics by.
pub(crate) struct Meddler(AdminClient<DefaultClientContext>, tokio::runtime::Runtime);

impl Meddler {
    pub(crate) fn new() -> Self {
        let admin = ClientConfig::new().set("bootstrap.servers", brokers()).create().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self(admin, runtime)
    }

    pub(crate) fn make(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        new.config.extend_from_slice(settings);
        let made =
            self.1.block_on(self.0.create_topics([&new], &AdminOptions::new().operation_timeout(Some(PATIENCE))));
        made.expect("an answer").remove(0).expect("it is made");
    }

    pub(crate) fn delete(&self, topic: &str) {
        let gone =
            self.1.block_on(self.0.delete_topics(&[topic], &AdminOptions::new().operation_timeout(Some(PATIENCE))));
        gone.expect("an answer").remove(0).expect("it is deleted");
        // The brokers tell each other in their own time.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metadata = self.0.inner().fetch_metadata(Some(topic), PATIENCE).expect("an answer");
            if metadata.topics().iter().all(|found| found.error().is_some()) {
                return;
            }
            assert!(Instant::now() < deadline, "{topic} does not go away");
        }
    }

    pub(crate) fn throw_away(&self, topic: &str, partition: i32, before: i64) {
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(before)).expect("it fits");
        let done =
            self.1.block_on(self.0.delete_records(&list, &AdminOptions::new().operation_timeout(Some(PATIENCE))));
        done.expect("they are thrown away");
    }

    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        let more = [&NewPartitions::new(topic, partitions)];
        let grown =
            self.1.block_on(self.0.create_partitions(more, &AdminOptions::new().operation_timeout(Some(PATIENCE))));
        grown.expect("an answer").remove(0).expect("it has grown");
    }
}

/// Writes a record that is none of ours.
pub(crate) fn write_foreign(topic: &str, partition: i32, payload: &[u8]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().expect("a client");
    producer
        .send(BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(payload))
        .map_err(|(e, _)| e)
        .expect("sent");
    producer.flush(PATIENCE).expect("it is written");
}

/// A name that no other log of this broker has.
pub(crate) fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}-{}", Uuid::new_v4().simple(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn genesis(partitions: u16) -> Genesis {
    Genesis {
        log: LogId(Uuid::new_v4()),
        partitions,
        placement_rule: 1,
        format: 1,
        fingerprint_key: [7; 32],
        created_at: Timestamp(1_700_000_000_000_000),
    }
}

pub(crate) fn options(name: &str, directory: &Path) -> KafkaOptions {
    let mut options = KafkaOptions::new(brokers(), name, directory);
    options.replication = 1;
    options.segment_bytes_first = 256 << 10;
    options.segment_bytes = 1 << 20;
    options
}

pub(crate) fn open(options: &KafkaOptions, founding: Option<&Genesis>) -> KafkaLog {
    let log = KafkaLog::open(options, founding).expect("the log opens");
    log.caught_up(PATIENCE).expect("the copy catches up");
    log
}

#[derive(Default)]
pub(crate) struct Sink {
    all: Mutex<Vec<Delivery>>,
    came: Condvar,
}

impl DeliverySink for Sink {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        self.all.lock().extend(deliveries);
        self.came.notify_all();
    }
}

impl Sink {
    /// The first `count` deliveries.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Delivery> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = self.all.lock();
        while all.len() < count {
            assert!(!self.came.wait_until(&mut all, deadline).timed_out(), "{} of {count} deliveries", all.len());
        }
        all.clone()
    }
}

/// A writer of one partition.
pub(crate) struct Writer {
    appender: Box<dyn Appender>,
    pub(crate) sink: Arc<Sink>,
    handed: usize,
}

impl Writer {
    pub(crate) fn new(log: &dyn Log, partition: u16) -> Self {
        let sink = Arc::new(Sink::default());
        Self { appender: log.appender(Partition(partition), sink.clone()), sink, handed: 0 }
    }

    pub(crate) fn hand(&mut self, record: impl Into<Bytes>) {
        self.appender.append(self.handed as u64, record.into());
        self.handed += 1;
    }

    pub(crate) fn settle(&self) -> Vec<Delivery> {
        self.sink.wait_for(self.handed)
    }

    /// Hands `count` records over and waits for their offsets.
    pub(crate) fn append_many(&mut self, count: usize, record: impl Fn(usize) -> Vec<u8>) -> Vec<Offset> {
        let first = self.handed;
        for number in 0..count {
            self.hand(record(number));
        }
        let deliveries = self.settle();
        let offset = |delivery: &Delivery| delivery.result.expect("it is delivered").expect("an offset is known");
        deliveries[first..].iter().map(offset).collect()
    }
}

/// All records of a partition.
pub(crate) fn all(log: &dyn Log, partition: u16) -> Vec<Bytes> {
    let mut found = Vec::new();
    loop {
        let page = log.read(Partition(partition), Offset(found.len() as u64), 1 << 20).expect("it can be read");
        if page.is_empty() {
            return found;
        }
        for stored in page {
            assert_eq!(stored.offset, Offset(found.len() as u64), "reads have no gaps");
            found.push(stored.bytes);
        }
    }
}
