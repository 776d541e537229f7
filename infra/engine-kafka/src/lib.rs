//! The log as an Apache Kafka topic: one partition of the topic for each of the log's, one Kafka record for each of its
//! records. Appends go through one idempotent producer; reads are served from a local copy in segments like those of the
//! embedded log, which one consumer keeps up to date. No Kafka transactions: what counts is decided by the engine's accept
//! fold, so duplicates, late retries and zombies do no harm.
//!
//! Start with [`KafkaLog::open`]; [`KafkaGroup`] says which partitions a node should lead; [`check()`] looks for settings
//! that are not safe, [`clocks()`] for clocks that are apart.

mod admin;
mod check;
mod clocks;
mod door;
mod fault;
mod follower;
mod group;
mod identity;
mod log;
mod measures;
mod options;
mod outbox;
mod stranded;

pub use crate::check::{Finding, check};
pub use crate::clocks::{BrokerClock, clocks};
pub use crate::fault::KafkaFault;
pub use crate::group::{Hint, KafkaGroup};
pub use crate::log::{KafkaLog, OpenReport};
pub use crate::options::{BATCH_BYTES_NEEDED, KafkaOptions, Sasl, SaslMechanism, Secret, Security};
