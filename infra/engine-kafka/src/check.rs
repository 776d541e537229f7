//! Whether Kafka is set so that the log is safe in it: asked at every start, and by whoever looks for trouble. Each
//! finding says what is wrong and how to mend it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::admin::{Admin, BROKERS_LEARN, TopicLayout};
use crate::fault::KafkaFault;
use crate::options::{BATCH_BYTES_NEEDED, KafkaOptions};

/// How long a broker may be silent before its partitions get other leaders, if nodes are to go on within 10 s.
const BROKER_SESSION_MS_MAX: u64 = 9_000;

/// The shortest session that brokers allow unless they are set otherwise.
const SESSION_MIN_UNTOLD: Duration = Duration::from_secs(6);
/// Shorter ones end by themselves on a busy machine.
const SESSION_MIN: Duration = Duration::from_secs(1);

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The setting or the thing, in Kafka's words.
    pub name: &'static str,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
    /// Whether the log is not opened until it is mended.
    pub fatal: bool,
}

impl Finding {
    fn fatal(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, what: what.into(), mend: mend.into(), fatal: true }
    }

    fn note(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { fatal: false, ..Self::fatal(name, what, mend) }
    }
}

/// Looks at brokers, topics and options, and says all that is wrong. Blocks for up to the options' patience, a few times.
pub fn check(options: &KafkaOptions) -> Vec<Finding> {
    let admin = match Admin::new(options) {
        Ok(admin) => admin,
        Err(fault @ (KafkaFault::Login { .. } | KafkaFault::Certificate { .. })) => {
            return vec![Finding::fatal("brokers", fault.to_string(), "correct the options, or the brokers")];
        }
        Err(fault) => return vec![Finding::fatal("options", fault.to_string(), "correct the options")],
    };
    let mut findings = Vec::new();
    if let Err(fault) = look(&admin, options, &mut findings) {
        let mend = "see that brokers run, can be reached, and let this user describe topics";
        findings.push(Finding::fatal("brokers", fault.to_string(), mend));
    }
    findings
}

fn look(admin: &Admin, options: &KafkaOptions, findings: &mut Vec<Finding>) -> Result<(), KafkaFault> {
    let brokers = admin.brokers(admin.patience())?;
    if let Some(&broker) = brokers.first() {
        match admin.broker_settings(broker) {
            Ok(settings) => findings.extend(judge_broker(options, &settings)),
            Err(fault) => {
                findings.push(Finding::note("brokers", fault.to_string(), "let this user describe the cluster"))
            }
        }
    }
    let topic = options.topic();
    match admin.expected_layout(&topic, BROKERS_LEARN)? {
        Some(layout) => {
            findings.extend(judge_topic(options, &topic, &layout, &admin.topic_settings(&topic)?));
            if let Some(owners) = admin.layout(&options.owners_topic(), admin.patience())?
                && owners.partitions.len() != layout.partitions.len()
            {
                let (has, needs) = (owners.partitions.len(), layout.partitions.len());
                findings.push(Finding::fatal(
                    "partitions",
                    format!("{} has {has} partitions, the log {needs}", options.owners_topic()),
                    format!("delete {}; it is made again and holds nothing", options.owners_topic()),
                ));
            }
        }
        None => {
            let what = format!("topic {topic} is not there yet");
            findings.push(Finding::note("topic", what, "it is made when the log is founded"));
            if brokers.len() < usize::from(options.replication) {
                findings.push(Finding::fatal(
                    "replication",
                    format!(
                        "{} copies of each partition are asked for, of {} brokers",
                        options.replication,
                        brokers.len()
                    ),
                    "start more brokers, or ask for fewer copies",
                ));
            }
        }
    }
    Ok(())
}

/// How long a session may be that is to be as long as the options say, as the brokers are set; at least [`SESSION_MIN_UNTOLD`]
/// where they do not tell.
pub(crate) fn allowed_session(options: &KafkaOptions, settings: Option<&BTreeMap<String, String>>) -> Duration {
    let bound = |name: &str| Some(Duration::from_millis(settings?.get(name)?.parse().ok()?));
    let least = bound("group.min.session.timeout.ms").unwrap_or(SESSION_MIN_UNTOLD).max(SESSION_MIN);
    let most = bound("group.max.session.timeout.ms").unwrap_or(Duration::MAX);
    options.session_timeout.max(least).min(most.max(least))
}

fn judge_broker(options: &KafkaOptions, settings: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let number = |name: &str| settings.get(name).and_then(|value| value.parse::<u64>().ok());
    let (asked, allowed) = (options.session_timeout, allowed_session(options, Some(settings)));
    if asked != allowed {
        let name = if asked < allowed { "group.min.session.timeout.ms" } else { "group.max.session.timeout.ms" };
        let (asked, allowed) = (asked.as_millis(), allowed.as_millis());
        findings.push(Finding::note(
            name,
            format!(
                "the brokers do not allow sessions of {asked} ms: a dead node is taken over from after {allowed} ms"
            ),
            format!("set {name}={asked} on the brokers, or session_timeout_ms = {allowed} here"),
        ));
    }
    if let Some(broker_session) = number("broker.session.timeout.ms").filter(|ms| *ms > BROKER_SESSION_MS_MAX) {
        findings.push(Finding::note(
            "broker.session.timeout.ms",
            format!("a dead broker's partitions wait {broker_session} ms for another leader"),
            "set it to 3000 to 6000 on the brokers",
        ));
    }
    findings
}

/// Judges a topic that is there.
pub(crate) fn judge_topic(
    options: &KafkaOptions,
    topic: &str,
    layout: &TopicLayout,
    settings: &BTreeMap<String, String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let value = |name: &str| settings.get(name).map_or("", String::as_str);
    let number = |name: &str| settings.get(name).and_then(|value| value.parse::<i64>().ok());
    let alter = |setting: &str| format!("kafka-configs.sh --alter --topic {topic} --add-config {setting}");
    if value("cleanup.policy") != "delete" {
        let what = format!("cleanup.policy is {:?}: records are thrown away", value("cleanup.policy"));
        findings.push(Finding::fatal("cleanup.policy", what, alter("cleanup.policy=delete")));
    }
    for name in ["retention.ms", "retention.bytes"] {
        if number(name) != Some(-1) {
            let what = format!("{name} is {}: old records are thrown away", value(name));
            findings.push(Finding::fatal(name, what, alter(&format!("{name}=-1"))));
        }
    }
    if value("unclean.leader.election.enable") != "false" {
        let what = "unclean.leader.election.enable is on: acknowledged records may be lost";
        let mend = alter("unclean.leader.election.enable=false");
        findings.push(Finding::fatal("unclean.leader.election.enable", what, mend));
    }
    if number("max.message.bytes").is_none_or(|bytes| bytes < BATCH_BYTES_NEEDED as i64) {
        let what = format!("max.message.bytes is {}, {BATCH_BYTES_NEEDED} are needed", value("max.message.bytes"));
        findings.push(Finding::fatal("max.message.bytes", what, alter("max.message.bytes=2097152")));
    }
    if value("message.timestamp.type") == "LogAppendTime" {
        let what = "message.timestamp.type is LogAppendTime: batches are rewritten by the broker for nothing";
        findings.push(Finding::note("message.timestamp.type", what, alter("message.timestamp.type=CreateTime")));
    }
    if !matches!(value("compression.type"), "producer" | "lz4") {
        let what =
            format!("compression.type is {:?}: the broker compresses every batch again", value("compression.type"));
        findings.push(Finding::note("compression.type", what, alter("compression.type=producer")));
    }
    let replicas = layout.partitions.iter().map(|partition| partition.replicas).min().unwrap_or(0);
    judge_copies(
        options,
        replicas,
        number("min.insync.replicas").unwrap_or(1),
        number("flush.messages"),
        alter,
        &mut findings,
    );
    let silent = layout.partitions.iter().filter(|partition| !partition.has_leader).count();
    if silent > 0 {
        let what = format!("{silent} partitions have no leader: they can be neither read nor written");
        findings.push(Finding::note("leader", what, "start the brokers that hold them"));
    }
    let thin = layout.partitions.iter().filter(|partition| partition.in_sync < partition.replicas).count();
    if thin > 0 {
        let what = format!("{thin} partitions have copies that are behind or away");
        findings.push(Finding::note("in-sync replicas", what, "see to the brokers that hold them"));
    }
    findings
}

fn judge_copies(
    options: &KafkaOptions,
    replicas: usize,
    min_in_sync: i64,
    flush_messages: Option<i64>,
    alter: impl Fn(&str) -> String,
    findings: &mut Vec<Finding>,
) {
    let min_in_sync = usize::try_from(min_in_sync).unwrap_or(0);
    if replicas < usize::from(options.replication) {
        let what = format!("a partition has {replicas} copies, {} are asked for", options.replication);
        findings.push(Finding::note("replication", what, "kafka-reassign-partitions.sh, or ask for fewer"));
    }
    if min_in_sync > replicas {
        let what = format!("min.insync.replicas is {min_in_sync} of {replicas} copies: nothing can ever be written");
        findings.push(Finding::fatal("min.insync.replicas", what, alter(&format!("min.insync.replicas={replicas}"))));
    } else if replicas > 1 && min_in_sync < 2 && options.min_in_sync != Some(1) {
        let what = "min.insync.replicas is 1: an acknowledged record may be on one broker only";
        findings.push(Finding::fatal("min.insync.replicas", what, alter("min.insync.replicas=2")));
    } else if replicas > 1 && min_in_sync == replicas {
        let what =
            format!("min.insync.replicas is {min_in_sync} of {replicas}: nothing is written while a broker is away");
        findings.push(Finding::note("min.insync.replicas", what, "three copies and min.insync.replicas=2"));
    }
    if replicas == 1 && flush_messages != Some(1) {
        let what = "each partition is on one broker, which acknowledges before its disk has the record";
        let mend = format!("more copies; or, for one broker, {}", alter("flush.messages=1"));
        findings.push(Finding::note("replication", what, mend));
    }
}

/// What must be mended before the log is opened, as a fault; the rest is told.
pub(crate) fn refuse_unsafe(admin: &Admin, options: &KafkaOptions, topic: &str) -> Result<TopicLayout, KafkaFault> {
    let layout = admin.expected_layout(topic, admin.patience())?;
    let layout = layout.ok_or_else(|| KafkaFault::Absent { topic: topic.to_owned() })?;
    let found = judge_topic(options, topic, &layout, &admin.topic_settings(topic)?);
    let (fatal, notes): (Vec<_>, Vec<_>) = found.into_iter().partition(|finding| finding.fatal);
    for note in notes {
        tracing::warn!(setting = note.name, mend = note.mend, "{}", note.what);
    }
    if fatal.is_empty() { Ok(layout) } else { Err(KafkaFault::Unsafe { topic: topic.to_owned(), findings: fatal }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{PartitionLayout, log_topic_settings};

    fn options() -> KafkaOptions {
        KafkaOptions::new("localhost:9092", "main", "data")
    }

    fn judged(copies: usize, changed: &[(&str, &str)]) -> Vec<(&'static str, bool)> {
        let mut settings: BTreeMap<String, String> =
            log_topic_settings(&options()).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for (name, value) in changed {
            settings.insert((*name).to_owned(), (*value).to_owned());
        }
        let partition = PartitionLayout { has_leader: true, replicas: copies, in_sync: copies };
        let layout = TopicLayout { partitions: vec![partition; 3] };
        let findings = judge_topic(&options(), "docket.log.main", &layout, &settings);
        findings.into_iter().map(|finding| (finding.name, finding.fatal)).collect()
    }

    #[test]
    fn a_topic_as_it_is_made_has_no_findings() {
        assert_eq!(judged(3, &[]), []);
    }

    #[test]
    fn whatever_could_lose_records_is_fatal() {
        for (name, value) in [
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "1000000"),
            ("unclean.leader.election.enable", "true"),
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "1"),
            ("min.insync.replicas", "4"),
        ] {
            assert_eq!(judged(3, &[(name, value)]), [(name, true)], "{name}={value}");
        }
    }

    #[test]
    fn a_session_is_as_long_as_the_brokers_allow() {
        let session = |settings: &[(&str, &str)]| {
            let told = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let found = judge_broker(&options(), &told).len();
            (allowed_session(&options(), Some(&told)).as_millis(), found)
        };
        let (least, most) = ("group.min.session.timeout.ms", "group.max.session.timeout.ms");
        assert_eq!(session(&[(least, "500"), (most, "1800000")]), (3_000, 0));
        assert_eq!(session(&[(least, "6000"), (most, "1800000")]), (6_000, 1));
        assert_eq!(session(&[(least, "1"), (most, "2000")]), (2_000, 1));
        assert_eq!(session(&[]), (6_000, 1));
        assert_eq!(allowed_session(&options(), None), Duration::from_secs(6));
    }

    #[test]
    fn what_is_merely_unwise_is_told() {
        assert_eq!(judged(3, &[("min.insync.replicas", "3")]), [("min.insync.replicas", false)]);
        assert_eq!(judged(3, &[("compression.type", "gzip")]), [("compression.type", false)]);
        let one = judged(1, &[("min.insync.replicas", "1")]);
        assert_eq!(one, [("replication", false), ("replication", false)]);
        let flushed = judged(1, &[("min.insync.replicas", "1"), ("flush.messages", "1")]);
        assert_eq!(flushed, [("replication", false)]);
    }
}
