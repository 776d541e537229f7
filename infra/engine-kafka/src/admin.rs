//! Asking the brokers: what there is, how it is set, where partitions end; and making topics. All of it blocks, for no
//! longer than the options' patience.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use engine::position::{Offset, Partition};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use crate::door::knock;
use crate::fault::{KafkaFault, told};
use crate::options::{BATCH_BYTES_MAX, KafkaOptions};

/// How long brokers may take to hear of a topic that another has made.
pub(crate) const BROKERS_LEARN: Duration = Duration::from_secs(2);

/// How long a broker may know a topic that another has made and not yet how it is set: longer than any that is well takes.
const SETTINGS_LEARNED: Duration = Duration::from_secs(10);

/// Puts what librdkafka says into the program's log.
pub(crate) struct Voice(pub(crate) &'static str);

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say(self.0, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(client = self.0, %error, "{reason}");
    }
}

/// One line of librdkafka's. A lost connection is news there and not here: what it means is told elsewhere.
pub(crate) fn say(client: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(client, facility, "{message}");
        }
        _ => tracing::debug!(client, facility, "{message}"),
    }
}

/// What the brokers say of a topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicLayout {
    pub(crate) partitions: Vec<PartitionLayout>,
}

/// What they say of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionLayout {
    pub(crate) has_leader: bool,
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
}

/// How long the first attempt to ask something may take; the next ones twice as long each time.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);
/// How long it rests between two attempts: the longer, the more of them nobody has answered.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Somebody to ask by.
pub(crate) struct Admin {
    /// Another one after every question that no broker has answered. It may have lost them all (see [`crate::stranded`]), and
    /// an admin client does not tell of itself.
    client: Mutex<Arc<AdminClient<Voice>>>,
    options: KafkaOptions,
    patience: Duration,
}

impl Admin {
    pub(crate) fn new(options: &KafkaOptions) -> Result<Self, KafkaFault> {
        if options.security.needs_tls_feature() && !cfg!(feature = "tls") {
            let what = "TLS and SASL need a program built with the feature kafka-tls";
            return Err(KafkaFault::Options(what.to_owned()));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if options.name.is_empty() || options.name.len() > 200 || !options.name.chars().all(fits) {
            let what = format!("the log's name {:?} is not 1 to 200 of a-z A-Z 0-9 . _ -", options.name);
            return Err(KafkaFault::Options(what));
        }
        if options.security.needs_tls_feature() {
            knock(options)?;
        }
        let client = client(options).map_err(|error| KafkaFault::Options(error.to_string()))?;
        let patience = options.patience.max(Duration::from_secs(1));
        Ok(Self { client: Mutex::new(client), options: options.clone(), patience })
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    fn client(&self) -> Arc<AdminClient<Voice>> {
        Arc::clone(&self.client.lock())
    }

    /// If it was not a broker that said so, the next question is asked by another client. Whether it was a broker.
    fn answered(&self, asked_by: &Arc<AdminClient<Voice>>, error: &KafkaError) -> bool {
        // librdkafka's own errors are below zero.
        if error.rdkafka_error_code().is_some_and(|code| code as i32 >= 0) {
            return true;
        }
        let mut current = self.client.lock();
        if Arc::ptr_eq(&current, asked_by) {
            match client(&self.options) {
                Ok(next) => *current = next,
                Err(error) => tracing::error!(%error, "no other admin client can be made; this one stays"),
            }
        }
        false
    }

    /// Asks until somebody answers, and for so long at most.
    fn ask<T>(
        &self,
        doing: &'static str,
        within: Duration,
        ask: impl Fn(&Client<Voice>, Duration) -> KafkaResult<T>,
    ) -> Result<T, KafkaFault> {
        let deadline = Instant::now() + within;
        let (mut attempt, mut pause) = (FIRST_ATTEMPT, FIRST_PAUSE);
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            let client = self.client();
            let error = match ask(client.inner(), attempt.min(left)) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let answered = self.answered(&client, &error);
            if Instant::now() >= deadline {
                return Err(self.unreachable(doing, &error));
            }
            // What a broker has answered is otherwise in a moment: a new leader does not know the end at once.
            if !answered {
                (attempt, pause) = ((attempt * 2).min(self.patience), (pause * 2).min(LONGEST_PAUSE));
            }
            std::thread::sleep(pause);
        }
    }

    fn metadata(&self, doing: &'static str, topic: &str, within: Duration) -> Result<Metadata, KafkaFault> {
        self.ask(doing, within, |client, within| client.fetch_metadata(Some(topic), within))
    }

    pub(crate) fn unreachable(&self, doing: &'static str, error: &KafkaError) -> KafkaFault {
        KafkaFault::Unreachable { brokers: self.options.brokers.clone(), doing, why: told(error) }
    }

    /// The ids of the brokers there are.
    pub(crate) fn brokers(&self, within: Duration) -> Result<Vec<i32>, KafkaFault> {
        let metadata = self.metadata("asking for brokers", "docket.probe", within)?;
        Ok(metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect())
    }

    /// What a topic is like; nothing if it is not there.
    pub(crate) fn layout(&self, topic: &str, within: Duration) -> Result<Option<TopicLayout>, KafkaFault> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            let metadata = self.metadata("asking for topics", topic, left)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
            match (found, error) {
                (Some(found), None) if !found.partitions().is_empty() => {
                    let partitions = found.partitions().iter().map(|partition| PartitionLayout {
                        has_leader: partition.leader() >= 0,
                        replicas: partition.replicas().len(),
                        in_sync: partition.isr().len(),
                    });
                    return Ok(Some(TopicLayout { partitions: partitions.collect() }));
                }
                (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) | (None, _) => {
                    return Ok(None);
                }
                (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                    let why = RDKafkaErrorCode::TopicAuthorizationFailed.to_string();
                    return Err(KafkaFault::Refused { doing: format!("describe topic {topic}"), why });
                }
                (_, error) if Instant::now() >= deadline => {
                    let why = error.map_or_else(|| "no partitions".to_owned(), |error| error.to_string());
                    let brokers = self.options.brokers.clone();
                    return Err(KafkaFault::Unreachable { brokers, doing: "asking for topics", why });
                }
                // Being made, or between two leaders.
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// A partition of a topic that each broker leads; nothing if the topic is not there.
    pub(crate) fn leaders(&self, topic: &str, within: Duration) -> Result<BTreeMap<i32, i32>, KafkaFault> {
        let metadata = self.metadata("asking for topics", topic, within)?;
        let found = metadata.topics().iter().filter(|found| found.name() == topic);
        let led = found.flat_map(|found| found.partitions()).filter(|partition| partition.leader() >= 0);
        Ok(led.map(|partition| (partition.leader(), partition.id())).collect())
    }

    /// What a topic is like that should be there: brokers that have not heard of it yet are asked again for so long.
    pub(crate) fn expected_layout(&self, topic: &str, grace: Duration) -> Result<Option<TopicLayout>, KafkaFault> {
        let deadline = Instant::now() + grace;
        loop {
            let layout = self.layout(topic, self.patience)?;
            if layout.is_some() || Instant::now() >= deadline {
                return Ok(layout);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes a topic; one that is there already stays as it is. Waits until it can be written.
    pub(crate) fn create(
        &self,
        topic: &str,
        partitions: u16,
        replication: u16,
        settings: &[(&str, String)],
    ) -> Result<(), KafkaFault> {
        let replicas = TopicReplication::Fixed(i32::from(replication));
        let mut new = NewTopic::new(topic, i32::from(partitions), replicas);
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(self.patience)).request_timeout(Some(self.patience));
        let client = self.client();
        let made = block_on(client.create_topics([&new], &options)).map_err(|error| {
            self.answered(&client, &error);
            self.unreachable("making a topic", &error)
        })?;
        match made.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | Some(Ok(_)) | None => {}
            Some(Err((_, code))) => {
                return Err(KafkaFault::Refused { doing: format!("make topic {topic}"), why: code.to_string() });
            }
        }
        let deadline = Instant::now() + self.patience;
        loop {
            let layout = self.layout(topic, deadline.saturating_duration_since(Instant::now()))?;
            if layout.is_some_and(|layout| layout.partitions.iter().all(|partition| partition.has_leader)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let why = format!("topic {topic} was made and cannot be written yet");
                return Err(KafkaFault::Unreachable {
                    brokers: self.options.brokers.clone(),
                    doing: "making a topic",
                    why,
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How a topic is set, defaults included.
    pub(crate) fn topic_settings(&self, topic: &str) -> Result<BTreeMap<String, String>, KafkaFault> {
        self.settings(ResourceSpecifier::Topic(topic), format!("describe topic {topic}"), SETTINGS_LEARNED)
    }

    /// How a broker is set.
    pub(crate) fn broker_settings(&self, broker: i32) -> Result<BTreeMap<String, String>, KafkaFault> {
        self.settings(ResourceSpecifier::Broker(broker), format!("describe broker {broker}"), Duration::ZERO)
    }

    /// `learning`: how long the broker that is asked may know nothing of it.
    fn settings(
        &self,
        of: ResourceSpecifier<'_>,
        doing: String,
        learning: Duration,
    ) -> Result<BTreeMap<String, String>, KafkaFault> {
        let options = AdminOptions::new().request_timeout(Some(self.patience));
        let deadline = Instant::now() + learning.min(self.patience);
        loop {
            let client = self.client();
            let found: Vec<Result<ConfigResource, RDKafkaErrorCode>> =
                block_on(client.describe_configs([&of], &options)).map_err(|error| {
                    self.answered(&client, &error);
                    self.unreachable("asking for settings", &error)
                })?;
            let why = match found.into_iter().next() {
                // rdkafka gives nothing instead of the broker's refusal. Everything there is has settings.
                Some(Ok(resource)) if resource.entries.is_empty() => {
                    "it is not there, or this user may not see how it is set".to_owned()
                }
                Some(Ok(resource)) => {
                    let entries = resource.entries.into_iter();
                    return Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect());
                }
                Some(Err(code)) => code.to_string(),
                None => "no answer".to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(KafkaFault::Refused { doing, why });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The first offset that a partition still has, and the one after its last.
    pub(crate) fn bounds(&self, topic: &str, partition: Partition) -> Result<(Offset, Offset), KafkaFault> {
        let (low, high) = self.ask("asking where a partition ends", self.patience, |client, within| {
            client.fetch_watermarks(topic, i32::from(partition.0), within)
        })?;
        let offset = |raw: i64| Offset(u64::try_from(raw).unwrap_or(0));
        Ok((offset(low), offset(high)))
    }
}

fn client(options: &KafkaOptions) -> KafkaResult<Arc<AdminClient<Voice>>> {
    AdminClient::from_config_and_context(&options.admin_config(), Voice("admin")).map(Arc::new)
}

/// What a log's topic is made with.
pub(crate) fn log_topic_settings(options: &KafkaOptions) -> Vec<(&'static str, String)> {
    vec![
        ("min.insync.replicas", options.min_in_sync().to_string()),
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("unclean.leader.election.enable", "false".to_owned()),
        ("max.message.bytes", BATCH_BYTES_MAX.to_string()),
        ("compression.type", "producer".to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
    ]
}

/// What the topic is made with that stands for the partitions when nodes share them out.
pub(crate) fn owners_topic_settings() -> Vec<(&'static str, String)> {
    let settings = [
        ("min.insync.replicas", "1"),
        ("cleanup.policy", "delete"),
        // What is written here asks the brokers what time it is.
        ("message.timestamp.type", "LogAppendTime"),
    ];
    settings.map(|(name, value)| (name, value.to_owned())).to_vec()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread; librdkafka's own thread completes it.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_question_that_no_broker_answered_another_client_asks() {
        let mut options = KafkaOptions::new("127.0.0.1:1", "main", "data");
        options.patience = Duration::from_secs(1);
        let admin = Admin::new(&options).expect("a client");
        let first = admin.client();
        let fault = admin.bounds("docket.log.main", Partition(0)).expect_err("nobody is there");
        assert!(fault.may_pass(), "{fault}");
        assert!(!Arc::ptr_eq(&first, &admin.client()), "it would ask the same again");
    }
}
