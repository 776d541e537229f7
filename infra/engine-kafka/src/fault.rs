//! Why the log in Kafka cannot be used, each with what to do about it.

use std::path::PathBuf;

use engine::position::{LogId, Offset, Partition};
use engine_embedded::CopyFault;
use rdkafka::error::KafkaError;

use crate::check::Finding;

/// Why the log cannot be opened, or had to be stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KafkaFault {
    /// Nobody answers, or not in time.
    #[error(
        "cannot reach Kafka at {brokers} ({doing}): {why}. Check that the brokers run and can be reached from here"
    )]
    Unreachable {
        /// The addresses tried.
        brokers: String,
        /// What was asked.
        doing: &'static str,
        /// What came instead of an answer.
        why: String,
    },
    /// The brokers do not take this node's user and password.
    #[error(
        "the brokers at {brokers} do not let this node in: {why}. Check sasl_user, its password and sasl_mechanism, and \
         that the brokers know this user by that mechanism"
    )]
    Login {
        /// The addresses tried.
        brokers: String,
        /// What they said.
        why: String,
    },
    /// This node and the brokers cannot agree on an encrypted connection.
    #[error(
        "no encrypted connection to the brokers at {brokers}: {why}. Check that tls_ca_file holds the authority that \
         signed the brokers' certificates, that these name the hosts as they are addressed, that TLS is spoken at \
         these ports, and, if the brokers ask for a certificate, that tls_certificate_file and tls_key_file name one \
         that they trust"
    )]
    Certificate {
        /// The addresses tried.
        brokers: String,
        /// What is wrong with it.
        why: String,
    },
    /// The options cannot be.
    #[error("the Kafka options are wrong: {0}")]
    Options(String),
    /// There is no topic, and none was to be made.
    #[error("there is no log in topic {topic}: found one, or check the name and the brokers")]
    Absent {
        /// The topic.
        topic: String,
    },
    /// Kafka refused.
    #[error("Kafka refuses to {doing}: {why}. Check the brokers' log and this user's permissions")]
    Refused {
        /// What was asked.
        doing: String,
        /// What it said.
        why: String,
    },
    /// Settings that safety needs are not so.
    #[error("topic {topic} is not safe to use: {}", summary(.findings))]
    Unsafe {
        /// The topic.
        topic: String,
        /// What is wrong, with the mend.
        findings: Vec<Finding>,
    },
    /// The topic has not the number of partitions that the log was founded with.
    #[error(
        "topic {topic} has {found} partitions, its log was founded with {founded}: partitions cannot be added or \
         removed. Make a new topic of {founded} and copy the log into it"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: u16,
        /// How many it must have.
        founded: u16,
    },
    /// What the topic holds was not written by this program.
    #[error(
        "topic {topic} holds something else than this log: {what}. Use another name, or the topic it was written to"
    )]
    Foreign {
        /// The topic.
        topic: String,
        /// What was found.
        what: String,
    },
    /// The local copy is of another log.
    #[error(
        "{directory} holds a copy of log {local}, topic {topic} is log {found}: the topic was made anew or is another \
         one. If that is meant, remove the directory; the copy will be fetched again"
    )]
    OtherLog {
        /// Where the copy is.
        directory: PathBuf,
        /// The topic.
        topic: String,
        /// Which log is copied there.
        local: LogId,
        /// Which log the topic is.
        found: LogId,
    },
    /// Records that were there are gone, or others are in their place.
    #[error(
        "topic {topic} has lost records of partition {partition}: {what}. Nothing is written any more; find out how \
         (retention, an unclean election, a topic made anew) before going on from the fullest copy"
    )]
    Truncated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// What is missing or different.
        what: String,
    },
    /// A store has folded further than Kafka goes.
    #[error("partition {partition} ends at offset {end} in Kafka, but a store has folded it up to {folded}")]
    StoreAhead {
        /// Which partition.
        partition: Partition,
        /// Where it ends in Kafka.
        end: Offset,
        /// How far the store is.
        folded: Offset,
    },
    /// The local copy cannot be kept.
    #[error("the local copy in {directory} cannot be kept: {why}")]
    Copy {
        /// Where.
        directory: PathBuf,
        /// Why not.
        why: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl KafkaFault {
    /// Whether trying again later may help, as opposed to what a person must look at.
    pub fn may_pass(&self) -> bool {
        // Users, passwords and certificates are changed while nodes run, here or at the brokers first.
        matches!(self, Self::Unreachable { .. } | Self::Login { .. } | Self::Certificate { .. })
    }

    pub(crate) fn gone(topic: &str) -> Self {
        Self::Truncated { topic: topic.to_owned(), partition: Partition(0), what: "the topic is gone".to_owned() }
    }

    pub(crate) fn copy(directory: &std::path::Path, topic: &str, fault: CopyFault) -> Self {
        match fault {
            CopyFault::OtherLog { directory, found, wanted } => {
                Self::OtherLog { directory, topic: topic.to_owned(), local: found, found: wanted }
            }
            other => Self::Copy { directory: directory.to_owned(), why: chain(&other) },
        }
    }
}

fn summary(findings: &[Finding]) -> String {
    let texts: Vec<String> = findings.iter().map(|finding| format!("{} ({})", finding.what, finding.mend)).collect();
    texts.join("; ")
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}

/// What librdkafka's error says, without its wrapping.
pub(crate) fn told(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}
