//! What a node needs to know to keep its log in Kafka. Everything that safety rests on is set here and nowhere else; what
//! may be chosen is chosen in [`KafkaOptions`].

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::log::RECORD_BYTES_MAX;
use engine_embedded::CACHE_BYTES;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

/// Bytes of a batch that every topic must take: the largest record and what Kafka puts around it.
pub const BATCH_BYTES_NEEDED: u64 = RECORD_BYTES_MAX as u64 + (64 << 10);
/// `max.message.bytes` of topics made here, and the most that the producer puts into one batch.
pub(crate) const BATCH_BYTES_MAX: u64 = 2 * RECORD_BYTES_MAX as u64;
/// Most records that wait in the producer. Shards bound what they have in flight far below.
pub(crate) const QUEUE_RECORDS_MAX: u32 = 1_000_000;
/// Most bytes that wait in the producer, in KiB.
pub(crate) const QUEUE_KIB_MAX: u32 = 512 << 10;

/// How often every client asks the brokers who there is and who leads what, though nothing seems wrong. librdkafka learns
/// of most changes when they hurt; what it does not learn that way is known so late. One small question.
const METADATA_EVERY: Duration = Duration::from_secs(10);
/// The same of a member of the group: when it joins, librdkafka may ask for the topic, miss the answer, and wait for the
/// next one before it goes on joining. So long a node leads nothing.
const GROUP_METADATA_EVERY: Duration = Duration::from_secs(1);

/// How to reach the log. The topics are `docket.log.<name>` and `docket.owners.<name>`.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port` of one broker or several, separated by commas. The others are learned from them.
    pub brokers: String,
    /// The log's name: 1 to 200 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Where the local copy is kept: a directory of its own, for one process.
    pub directory: PathBuf,
    /// How this node names itself to the brokers (`client.id`), for their logs and quotas.
    pub client_id: String,
    /// Copies that Kafka keeps of every partition of topics made here, 1 to 32 767. 3 survives the loss of any broker.
    pub replication: u16,
    /// How many of them must have a record before it is acknowledged, for topics made here; 2 at most if not set.
    pub min_in_sync: Option<u16>,
    /// How long opening and asking the brokers may take, 1 s or more.
    pub patience: Duration,
    /// How long Kafka may take to acknowledge a record before its fate is *unknown*, 1 s or more. Longer than a change of
    /// leaders takes, or every one of them ends the terms of ownership.
    pub delivery_timeout: Duration,
    /// How long one request may take before it is sent again, at most `delivery_timeout`.
    pub request_timeout: Duration,
    /// How long the brokers wait for a sign of life before a node's partitions go to others: the greater part of what a
    /// take-over takes. Where they do not allow it (6 s to 30 min unless `group.min.session.timeout.ms` says otherwise), the
    /// nearest that they do.
    pub session_timeout: Duration,
    /// Bytes of the local copy's first segment.
    pub segment_bytes_first: u64,
    /// Bytes of its later segments.
    pub segment_bytes: u64,
    /// Most bytes of the local copy kept in memory for readers.
    pub cache_bytes: usize,
    /// Most bytes fetched ahead of what the local copy has taken, 1 to 2 047 MiB.
    pub fetch_ahead_mib: u16,
    /// How the connections are secured.
    pub security: Security,
}

impl KafkaOptions {
    /// The usual, for the log `name` at `brokers`, copied into `directory`.
    pub fn new(brokers: impl Into<String>, name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            brokers: brokers.into(),
            name: name.into(),
            directory: directory.into(),
            client_id: "docket".to_owned(),
            replication: 3,
            min_in_sync: None,
            patience: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(5),
            session_timeout: Duration::from_secs(3),
            segment_bytes_first: 8 << 20,
            segment_bytes: 64 << 20,
            cache_bytes: CACHE_BYTES,
            fetch_ahead_mib: 32,
            security: Security::default(),
        }
    }

    /// The topic of the log.
    pub fn topic(&self) -> String {
        format!("docket.log.{}", self.name)
    }

    /// The topic whose partitions stand for the log's when nodes share them out. It never holds a record.
    pub fn owners_topic(&self) -> String {
        format!("docket.owners.{}", self.name)
    }

    /// What topics made here ask for.
    pub(crate) fn min_in_sync(&self) -> u16 {
        self.min_in_sync.unwrap_or(2).clamp(1, self.replication.max(1))
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("allow.auto.create.topics", "false")
            .set("broker.address.family", "any")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("socket.timeout.ms", millis(self.request_timeout + Duration::from_secs(1)))
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "200")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "500")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            .set("topic.metadata.refresh.interval.ms", millis(METADATA_EVERY))
            // Only how often it is asked for changes: what is known may be as old as ever.
            .set("metadata.max.age.ms", "900000")
            .set_log_level(RDKafkaLogLevel::Warning);
        self.security.apply(&mut config);
        config
    }

    pub(crate) fn admin_config(&self) -> ClientConfig {
        self.client()
    }

    pub(crate) fn producer_config(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("compression.type", "lz4")
            .set("batch.size", "1000000")
            .set("batch.num.messages", "100000")
            .set("message.max.bytes", BATCH_BYTES_MAX.to_string())
            .set("message.timeout.ms", millis(self.delivery_timeout))
            .set("request.timeout.ms", millis(self.request_timeout.min(self.delivery_timeout)))
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string())
            .set("statistics.interval.ms", "2000");
        config
    }

    pub(crate) fn follower_config(&self) -> ClientConfig {
        let mut config = self.client();
        let ahead_kib = u32::from(self.fetch_ahead_mib.clamp(1, 2_047)) << 10;
        config
            // Needed to have a consumer at all. Nothing joins it: partitions are assigned by hand.
            .set("group.id", format!("docket.follow.{}", self.name))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // On purpose: what counts is decided by the accept fold, and no transaction of a stranger can hold it up.
            .set("isolation.level", "read_uncommitted")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "true")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.message.max.bytes", (2 * BATCH_BYTES_MAX).to_string())
            .set("fetch.max.bytes", (8 * BATCH_BYTES_MAX).to_string())
            .set("receive.message.max.bytes", (8 * BATCH_BYTES_MAX + (1 << 20)).to_string())
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", ahead_kib.to_string())
            .set("statistics.interval.ms", "1000");
        config
    }

    /// For a member whose sessions are so long.
    pub(crate) fn group_config(&self, session: Duration) -> ClientConfig {
        let mut config = self.client();
        // No `group.instance.id`: the second of two processes with one node name would put the first out of the group
        // for good, and a member that has one does not leave when it ends.
        config
            .set("group.id", format!("docket.owners.{}", self.name))
            .set("group.protocol", "classic")
            .set("topic.metadata.refresh.interval.ms", millis(GROUP_METADATA_EVERY))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(session))
            // Members hear of a death by the answer to one of these. librdkafka's own thread sends them, however busy the
            // node is.
            .set("heartbeat.interval.ms", millis((session / 6).min(Duration::from_secs(1))))
            .set("max.poll.interval.ms", millis(session.max(Duration::from_secs(300))))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            .set("fetch.wait.max.ms", "5000")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "64")
            .set("statistics.interval.ms", "1000");
        config
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// How connections to the brokers are secured. Anything but plain text needs the feature `tls`.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Whether connections are encrypted and the brokers' certificates checked.
    pub tls: bool,
    /// A file of the authorities' certificates to trust, PEM. The system's if not set.
    pub ca_file: Option<PathBuf>,
    /// A file with this node's certificate chain, PEM, if the brokers ask for one.
    pub certificate_file: Option<PathBuf>,
    /// A file with the certificate's private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Who the node is to the brokers, if they ask.
    pub sasl: Option<Sasl>,
}

/// A user of the brokers.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// How to prove it.
    pub mechanism: SaslMechanism,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// How a user is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password as it is: over TLS only.
    Plain,
    /// A challenge, SHA-256.
    ScramSha256,
    /// A challenge, SHA-512.
    ScramSha512,
}

/// Text that is not shown.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Security {
    /// Whether the feature `tls` is needed for it.
    pub fn needs_tls_feature(&self) -> bool {
        self.tls || self.sasl.is_some()
    }

    fn apply(&self, config: &mut ClientConfig) {
        config.set(
            "security.protocol",
            match (self.tls, self.sasl.is_some()) {
                (false, false) => "plaintext",
                (true, false) => "ssl",
                (false, true) => "sasl_plaintext",
                (true, true) => "sasl_ssl",
            },
        );
        if self.tls {
            config
                .set("enable.ssl.certificate.verification", "true")
                .set("ssl.endpoint.identification.algorithm", "https");
        }
        let files = [
            ("ssl.ca.location", &self.ca_file),
            ("ssl.certificate.location", &self.certificate_file),
            ("ssl.key.location", &self.key_file),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                config.set(name, file.to_string_lossy());
            }
        }
        if let Some(sasl) = &self.sasl {
            let mechanism = match sasl.mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            config
                .set("sasl.mechanism", mechanism)
                .set("sasl.username", &sasl.user)
                .set("sasl.password", sasl.password.0.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let mut options = KafkaOptions::new("localhost:9092", "main", "data");
        let password = Secret::new("hunter2");
        options.security.sasl =
            Some(Sasl { mechanism: SaslMechanism::ScramSha512, user: "docket".to_owned(), password });
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.producer_config().get("sasl.password"), Some("hunter2"));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_the_feature_a_secured_log_is_refused_with_the_mend() {
        let mut options = KafkaOptions::new("localhost:9092", "main", "data");
        options.security.tls = true;
        let fault = crate::KafkaLog::open(&options, None).expect_err("it cannot be");
        assert!(!fault.may_pass() && fault.to_string().contains("the feature kafka-tls"), "{fault}");
        assert!(crate::check(&options).iter().any(|finding| finding.fatal && finding.what.contains("kafka-tls")));
    }

    #[test]
    fn the_brokers_certificates_are_checked_with_their_names() {
        let mut options = KafkaOptions::new("localhost:9092", "main", "data");
        options.security.tls = true;
        let producer = options.producer_config();
        assert_eq!(producer.get("security.protocol"), Some("ssl"));
        assert_eq!(producer.get("enable.ssl.certificate.verification"), Some("true"));
        assert_eq!(producer.get("ssl.endpoint.identification.algorithm"), Some("https"));
    }

    #[test]
    fn what_safety_rests_on_is_set() {
        let options = KafkaOptions::new("localhost:9092", "main", "data");
        let producer = options.producer_config();
        assert_eq!((producer.get("acks"), producer.get("enable.idempotence")), (Some("all"), Some("true")));
        let follower = options.follower_config();
        assert_eq!(follower.get("check.crcs"), Some("true"));
        assert_eq!(follower.get("isolation.level"), Some("read_uncommitted"));
        assert_eq!(follower.get("auto.offset.reset"), Some("error"));
        assert_eq!(options.group_config(options.session_timeout).get("group.instance.id"), None);
    }
}
