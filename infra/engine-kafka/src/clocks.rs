//! How far the brokers' clocks are from this machine's. Kafka has no request for that: one small record is written to the
//! topic that stands for the partitions, which holds nothing and lets the brokers stamp what comes, and each broker's stamp
//! is compared with the time before and after.

use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext};
use rdkafka::{ClientContext, Timestamp};

use crate::admin::{Admin, say};
use crate::fault::{KafkaFault, told};
use crate::options::KafkaOptions;

/// How long the brokers may take for all of it.
const WAIT: Duration = Duration::from_secs(5);
/// What is written.
const PAYLOAD: &[u8] = b"what time is it?";

/// A broker's clock beside this machine's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrokerClock {
    /// Which broker.
    pub broker: i32,
    /// By how many seconds it is ahead, at least; negative if behind. `None` if it does not stamp what comes: the topic was
    /// made so.
    pub ahead_s: Option<f64>,
}

/// Asks each broker that leads a partition of the owners' topic. Empty while there is no such topic. Blocks for a few
/// seconds at most.
pub fn clocks(options: &KafkaOptions) -> Result<Vec<BrokerClock>, KafkaFault> {
    let admin = Admin::new(options)?;
    let topic = options.owners_topic();
    let leaders = admin.leaders(&topic, WAIT.min(admin.patience()))?;
    let (told_when, stamps) = mpsc::channel();
    let producer: BaseProducer<Stamps> =
        BaseProducer::from_config_and_context(&options.producer_config(), Stamps(told_when))
            .map_err(|error| KafkaFault::Options(error.to_string()))?;
    let mut asked = Vec::new();
    // The first record to a broker waits for the connection; the second one's time is what counts.
    for _ in 0..2 {
        for (&broker, &partition) in &leaders {
            let before = now_ms();
            let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&topic).partition(partition).payload(PAYLOAD);
            let refused =
                |error: &KafkaError| KafkaFault::Refused { doing: format!("write to {topic}"), why: told(error) };
            producer.send(record).map_err(|(error, _)| refused(&error))?;
            let deadline = Instant::now() + WAIT;
            let stamp = loop {
                producer.poll(Duration::from_millis(20));
                match stamps.try_recv() {
                    Ok(stamp) => break stamp,
                    Err(_) if Instant::now() < deadline => {}
                    Err(_) => return Err(admin.unreachable("asking for the time", &KafkaError::Canceled)),
                }
            };
            let (after, stamp) = (now_ms(), stamp.map_err(|error| refused(&error))?);
            asked.push(BrokerClock { broker, ahead_s: stamp.map(|stamp| ahead_s(before, stamp, after)) });
        }
    }
    Ok(asked.split_off(leaders.len()))
}

/// By how much a stamp lies outside the time in which it was made.
fn ahead_s(before_ms: i64, stamp_ms: i64, after_ms: i64) -> f64 {
    let outside = if stamp_ms > after_ms { stamp_ms - after_ms } else { (stamp_ms - before_ms).min(0) };
    outside as f64 / 1e3
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Passes the brokers' stamps on: `None` of who does not stamp.
struct Stamps(mpsc::Sender<Result<Option<i64>, KafkaError>>);

impl ClientContext for Stamps {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say("clocks", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(client = "clocks", %error, "{reason}");
    }
}

impl ProducerContext for Stamps {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let stamp = match result {
            Ok(message) => Ok(match message.timestamp() {
                Timestamp::LogAppendTime(stamp) => Some(stamp),
                Timestamp::CreateTime(_) | Timestamp::NotAvailable => None,
            }),
            Err((error, _)) => Err(error.clone()),
        };
        // Whoever asked may have given up.
        let _ = self.0.send(stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stamp_outside_the_time_it_took_tells_of_another_clock() {
        assert_eq!(ahead_s(1_000, 1_000, 1_010), 0.0);
        assert_eq!(ahead_s(1_000, 1_010, 1_010), 0.0);
        assert_eq!(ahead_s(1_000, 3_510, 1_010), 2.5);
        assert_eq!(ahead_s(1_000, 400, 1_010), -0.6);
    }
}
