//! What the consumer tells unasked: complaints, and which leaders it is connected to.

use std::sync::Arc;
use std::time::Instant;

use engine::position::Partition;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;

use super::Shared;
use crate::admin::say;
use crate::stranded::Stranding;

/// Hears what the consumer has to say.
pub(super) struct Ears {
    shared: Arc<Shared>,
    pub(super) stranding: Stranding,
}

impl Ears {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stranding: Stranding::new("follower") }
    }
}

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say("follower", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(client = "follower", %error, "{reason}");
        self.shared.sight.lock().last_error = reason.to_owned();
    }

    fn stats(&self, statistics: Statistics) {
        self.stranding.look(&statistics);
        let up = |node: i32| statistics.brokers.values().any(|broker| broker.nodeid == node && broker.state == "UP");
        let mut away = Vec::new();
        if let Some(topic) = statistics.topics.get(&self.shared.topic) {
            for (number, partition) in &topic.partitions {
                let Ok(slot) = usize::try_from(*number) else { continue };
                if !up(partition.leader) {
                    away.push(*number);
                }
                if let Ok(number) = u16::try_from(slot) {
                    let behind = u64::try_from(partition.hi_offset).unwrap_or(0);
                    self.shared.measures.lag(slot, behind.saturating_sub(self.shared.reader.end(Partition(number)).0));
                }
            }
        }
        away.sort_unstable();
        let mut sight = self.shared.sight.lock();
        sight.heard_at = Instant::now();
        sight.away = away;
    }
}

impl ConsumerContext for Ears {}
