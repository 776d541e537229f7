//! Which log a topic is. Partition 0 offset 0 decides: whoever founds a log appends its `Genesis` there and takes the one
//! that is read back, his own or another's who was faster; only then do the other partitions get that very record. A
//! `Genesis` anywhere else is ignored by the accept fold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::log::{Delivery, DeliverySink};
use engine::position::{Offset, Partition};
use engine::record::{Body, Genesis, Record};
use parking_lot::{Condvar, Mutex};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::message::Message;

use crate::admin::{Admin, Voice};
use crate::fault::{KafkaFault, told};
use crate::options::KafkaOptions;
use crate::outbox::Outbox;

impl ConsumerContext for Voice {}

/// Reads what the log is, and completes its founding if need be. `founding` is what to found an empty topic as.
pub(crate) fn settle(
    admin: &Admin,
    options: &KafkaOptions,
    outbox: &Outbox,
    partitions: u16,
    founding: Option<&Genesis>,
) -> Result<Genesis, KafkaFault> {
    let topic = options.topic();
    let all: Vec<Partition> = (0..partitions).map(Partition).collect();
    let mut empty = Vec::new();
    for &partition in &all {
        let (low, high) = admin.bounds(&topic, partition)?;
        if low > Offset(0) {
            let what = format!("it begins at offset {low}, its first records were thrown away");
            return Err(KafkaFault::Truncated { topic, partition, what });
        }
        if high == Offset(0) {
            empty.push(partition);
        }
    }
    if empty.first() == Some(&Partition(0)) {
        let Some(founding) = founding else { return Err(KafkaFault::Absent { topic }) };
        if empty.len() < all.len() {
            let what = "partition 0 is empty and others are not".to_owned();
            return Err(KafkaFault::Foreign { topic, what });
        }
        write(options, outbox, &[Partition(0)], &Record::genesis(*founding).encode())?;
        empty.remove(0);
    }
    // Others are read at once only where nothing is to be written first.
    let wanted = if empty.is_empty() { &all[..] } else { &all[..1] };
    let mut firsts = read_first(options, &topic, wanted)?;
    let first = firsts.get(&Partition(0)).cloned().unwrap_or_default();
    let genesis = read_genesis(&topic, Partition(0), &first)?;
    genesis.check().map_err(|error| KafkaFault::Foreign { topic: topic.clone(), what: error.to_string() })?;
    if genesis.partitions != partitions {
        return Err(KafkaFault::Partitions { topic, found: partitions, founded: genesis.partitions });
    }
    if !empty.is_empty() {
        write(options, outbox, &empty, &first)?;
        firsts = read_first(options, &topic, &all)?;
    }
    for (partition, bytes) in firsts {
        let found = read_genesis(&topic, partition, &bytes)?;
        if found.log != genesis.log {
            let what = format!("partition {partition} is of log {}, partition 0 of {}", found.log, genesis.log);
            return Err(KafkaFault::Foreign { topic, what });
        }
    }
    Ok(genesis)
}

fn read_genesis(topic: &str, partition: Partition, bytes: &Bytes) -> Result<Genesis, KafkaFault> {
    let foreign = |what: String| KafkaFault::Foreign { topic: topic.to_owned(), what };
    let record = Record::decode(bytes)
        .map_err(|error| foreign(format!("the first record of partition {partition}: {error}")))?;
    match record.body {
        Body::Genesis(genesis) => Ok(genesis),
        _ => Err(foreign(format!("the first record of partition {partition} is no genesis"))),
    }
}

#[derive(Default)]
struct Answers {
    all: Mutex<Vec<Delivery>>,
    came: Condvar,
}

impl DeliverySink for Answers {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        self.all.lock().extend(deliveries);
        self.came.notify_all();
    }
}

/// Appends `record` to each of the partitions and waits for it.
fn write(options: &KafkaOptions, outbox: &Outbox, partitions: &[Partition], record: &Bytes) -> Result<(), KafkaFault> {
    let answers = Arc::new(Answers::default());
    for &partition in partitions {
        outbox.appender(partition, Arc::clone(&answers) as Arc<dyn DeliverySink>).append(0, record.clone());
    }
    let mut all = answers.all.lock();
    let deadline = Instant::now() + options.delivery_timeout + Duration::from_secs(5);
    while all.len() < partitions.len() && !answers.came.wait_until(&mut all, deadline).timed_out() {}
    match all.iter().find_map(|delivery| delivery.result.err()) {
        None if all.len() == partitions.len() => Ok(()),
        error => Err(KafkaFault::Unreachable {
            brokers: options.brokers.clone(),
            doing: "founding the log",
            why: error.map_or_else(|| "no acknowledgement".to_owned(), |error| error.to_string()),
        }),
    }
}

/// The record at offset 0 of each of the partitions.
fn read_first(
    options: &KafkaOptions,
    topic: &str,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, Bytes>, KafkaFault> {
    let unreachable = |why| KafkaFault::Unreachable { brokers: options.brokers.clone(), doing: "reading the log", why };
    let mut config = options.follower_config();
    config.set("fetch.message.max.bytes", "4096").remove("statistics.interval.ms");
    let consumer = BaseConsumer::from_config_and_context(&config, Voice("reader"))
        .map_err(|error| KafkaFault::Options(error.to_string()))?;
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, i32::from(partition.0), rdkafka::Offset::Beginning)
            .map_err(|error| unreachable(told(&error)))?;
    }
    consumer.assign(&list).map_err(|error| unreachable(told(&error)))?;
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + options.patience.max(Duration::from_secs(1));
    let mut last_error = "no answer".to_owned();
    while found.len() < partitions.len() {
        if Instant::now() >= deadline {
            return Err(unreachable(last_error));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if message.offset() == 0 => {
                let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                found.insert(Partition(message.partition() as u16), bytes);
            }
            Some(Ok(message)) if !found.contains_key(&Partition(message.partition() as u16)) => {
                return Err(KafkaFault::Truncated {
                    topic: topic.to_owned(),
                    partition: Partition(message.partition() as u16),
                    what: format!("its first record is at offset {}", message.offset()),
                });
            }
            Some(Err(error)) => last_error = told(&error),
            _ => {}
        }
    }
    Ok(found)
}
