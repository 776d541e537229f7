//! The log in Kafka as a house opens it, and who should lead what there: a consumer group shares the partitions out, or the
//! configuration says. Either is only a hint; the log decides.

use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::position::Partition;
use engine::record::Genesis;
use engine_kafka::{KafkaFault, KafkaGroup, KafkaLog, KafkaOptions};

use super::log::{Kept, Opened, States, rebuild_states};
use super::opening::Opening;
use crate::failure::{Exit, Failure};

/// How often it is looked whether Kafka still has all records: a few small requests. What is lost is lost, but nobody should
/// go on for long as if it were not.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Opens the log, or founds it, and the state store beside its copy. Waits for brokers and disks.
pub(super) fn open(
    options: &KafkaOptions,
    states: &States,
    founding: &Genesis,
    opening: &Opening,
) -> Result<Opened, Failure> {
    let log = KafkaLog::open(options, Some(founding)).map_err(|fault| failure(&fault))?;
    let report = log.report();
    if report.founded {
        tracing::info!(log.id = %log.id(), "made topic {}", options.topic());
    }
    let genesis = *log.genesis();
    let states = states.open(genesis.log, genesis.partitions)?;
    for partition in (0..genesis.partitions).map(Partition) {
        log.refuse_store_ahead(partition, states.checkpoint(partition).0.next_offset)
            .map_err(|fault| failure(&fault))?;
    }
    // What the copy has so far; the rest follows as it comes.
    rebuild_states(&states, &log, opening)?;
    let log = Arc::new(log);
    Ok(Opened { log: Arc::<KafkaLog>::clone(&log), kept: Arc::new(Kept::Kafka(log)), genesis, states })
}

/// Waits until the log has stopped for good: it says so itself, or Kafka has thrown records away, which only shows to who
/// looks.
pub(super) async fn failed(log: &Arc<KafkaLog>) -> Arc<KafkaFault> {
    let told = async {
        match log.faults().wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone()) {
            Some(fault) => fault,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        fault = told => fault,
        fault = lost(log) => Arc::new(fault),
    }
}

async fn lost(log: &Arc<KafkaLog>) -> KafkaFault {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looking = Arc::clone(log);
        match tokio::task::spawn_blocking(move || looking.look_for_loss()).await {
            Ok(Err(fault)) if !fault.may_pass() => return fault,
            // Brokers that do not answer now are asked again.
            _ => {}
        }
    }
}

/// Joins the group of those who lead. Waits for the brokers.
pub(super) fn join(options: &KafkaOptions, partitions: u16) -> Result<KafkaGroup, Failure> {
    KafkaGroup::join(options, partitions).map_err(|fault| failure(&fault))
}

/// Why the log in Kafka cannot be used, and what to do about it.
pub(crate) fn failure(fault: &KafkaFault) -> Failure {
    let failure = Failure::plain(fault.to_string());
    if fault.may_pass() { failure.exit(Exit::NotReachable) } else { failure }
        .next("docket doctor --config FILE    looks at brokers, topics and settings")
        .next(format!("docket explain {}", code(fault)))
}

/// The page that explains a fault.
pub(crate) fn code(fault: &KafkaFault) -> &'static str {
    match fault {
        KafkaFault::Unreachable { .. } => "kafka-unreachable",
        KafkaFault::Unsafe { .. } => "kafka-unsafe",
        KafkaFault::Truncated { .. } | KafkaFault::StoreAhead { .. } => "topic-truncated",
        KafkaFault::Foreign { .. } | KafkaFault::OtherLog { .. } | KafkaFault::Partitions { .. } => "topic-foreign",
        KafkaFault::Absent { .. } => "topic-absent",
        KafkaFault::Options(_) => "config-refused",
        KafkaFault::Login { .. } | KafkaFault::Certificate { .. } | KafkaFault::Refused { .. } => "kafka-refused",
        KafkaFault::Copy { .. } | KafkaFault::Closed => "log-copy-failed",
    }
}
