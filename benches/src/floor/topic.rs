//! The least that makes records durable in Kafka: a producer that waits for all replicas, idempotent, with the settings of
//! the product's own and nothing around it. No order across partitions, no epochs, nobody reads what it writes.

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::Done;
use crate::ground::PARTITIONS;

/// How the product's producer is set up, as far as speed goes.
pub(crate) fn settings(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "1000000")
        .set("socket.nagle.disable", "true");
    config
}

/// Tells whoever waits for a record.
struct Told;

impl ClientContext for Told {}

impl ProducerContext<NoCustomPartitioner> for Told {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, report: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        // Who hung up does not hear it.
        let _ = waiting.send(report.is_ok());
    }
}

/// A topic that records are written to.
pub(crate) struct Topic {
    producer: ThreadedProducer<Told>,
    name: String,
}

impl Topic {
    /// Of a topic that is there.
    pub(crate) fn start(brokers: &str, name: &str) -> Done<Self> {
        let producer = ThreadedProducer::from_config_and_context(&settings(brokers), Told)?;
        Ok(Self { producer, name: name.to_owned() })
    }

    /// Whether `record` is with all replicas that there have to be.
    pub(crate) async fn append(&self, key: Uuid, record: &[u8]) -> bool {
        let partition = u16::from(key.as_bytes()[15]) % PARTITIONS;
        let (sender, receiver) = oneshot::channel();
        let message: BaseRecord<'_, (), [u8], _> =
            BaseRecord::with_opaque_to(&self.name, Box::new(sender)).partition(i32::from(partition)).payload(record);
        self.producer.send(message).is_ok() && receiver.await.unwrap_or(false)
    }
}
