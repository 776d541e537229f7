//! Which partitions a node should lead: a consumer group on a tiny topic that stands for the log's partitions and never
//! holds a record. It is a hint and no more. Two nodes may have it for one partition, or none: what keeps them apart is
//! the log itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::position::Partition;
use parking_lot::Mutex;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::watch;

use crate::admin::{Admin, owners_topic_settings, say};
use crate::check::allowed_session;
use crate::fault::{KafkaFault, told as because};
use crate::options::KafkaOptions;
use crate::stranded::{self, Stranding};

/// How soon leaving is noticed.
const POLL: Duration = Duration::from_millis(100);
/// How long it rests after no other member could be made.
const REST: Duration = Duration::from_secs(1);

/// How long a node that has lost the group goes on by what it was told last. Brokers that elect another coordinator put all
/// members out at once: if each gave its partitions back then, nobody would lead anything.
const KEPT_WITHOUT_GROUP: Duration = Duration::from_secs(10);

/// The partitions that a node should lead.
pub type Hint = Arc<BTreeSet<Partition>>;

/// A node's membership in the group. Dropping it leaves, and the others get the partitions at once.
pub struct KafkaGroup {
    hint: watch::Receiver<Hint>,
    leaving: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl KafkaGroup {
    /// Joins the group of the log's owners; makes the topic for it if need be. `partitions` is the log's. Blocks until
    /// the topic is there; the first assignment comes later, some seconds later if a member has just died.
    pub fn join(options: &KafkaOptions, partitions: u16) -> Result<Self, KafkaFault> {
        let admin = Admin::new(options)?;
        let topic = options.owners_topic();
        match admin.layout(&topic, admin.patience())? {
            None => admin.create(&topic, partitions, options.replication, &owners_topic_settings())?,
            Some(layout) if layout.partitions.len() == usize::from(partitions) => {}
            Some(layout) => {
                let found = u16::try_from(layout.partitions.len()).unwrap_or(u16::MAX);
                return Err(KafkaFault::Partitions { topic, found, founded: partitions });
            }
        }
        let session = session(&admin, options);
        let (sender, hint) = watch::channel(Hint::default());
        let told = Arc::new(Told { topic, hint: sender, lost: Mutex::new(None) });
        let config = options.group_config(session);
        let consumer = member(&config, &told)?;
        let leaving = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("docket-kafka-owners".to_owned())
            .spawn({
                let leaving = Arc::clone(&leaving);
                move || belong(&leaving, consumer, &told, || member(&config, &told))
            })
            .map_err(|error| KafkaFault::Options(format!("cannot start a thread: {error}")))?;
        Ok(Self { hint, leaving, thread: Mutex::new(Some(thread)) })
    }

    /// What this node should lead, now and from now on. Empty before the first assignment, some seconds after the group
    /// was lost and not found again, and after leaving.
    pub fn hint(&self) -> watch::Receiver<Hint> {
        self.hint.clone()
    }

    /// Leaves the group and waits until that is done, up to a few seconds.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.lock().take() else { return };
        if thread.join().is_err() {
            tracing::error!("the thread of the owners' group panicked");
        }
    }
}

impl Drop for KafkaGroup {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A new member of the group, which is told nothing yet.
fn member(config: &ClientConfig, told: &Arc<Told>) -> Result<BaseConsumer<Member>, KafkaFault> {
    let member = Member { told: Arc::clone(told), stranding: Stranding::new("owners") };
    let consumer = BaseConsumer::from_config_and_context(config, member)
        .map_err(|error| KafkaFault::Options(error.to_string()))?;
    let topic = told.topic.as_str();
    consumer
        .subscribe(&[topic])
        .map_err(|error| KafkaFault::Refused { doing: format!("subscribe to {topic}"), why: because(&error) })?;
    Ok(consumer)
}

/// Is a member until it is to leave; one that no broker is left to is followed by `another`.
fn belong(
    leaving: &AtomicBool,
    mut consumer: BaseConsumer<Member>,
    told: &Told,
    another: impl Fn() -> Result<BaseConsumer<Member>, KafkaFault>,
) {
    while !leaving.load(Ordering::SeqCst) {
        if let Some(Err(error)) = consumer.poll(POLL) {
            tracing::debug!(%error, "the owners' group complains");
        }
        if consumer.context().stranding.seen() {
            told.lose();
            match another() {
                Ok(next) => stranded::end(std::mem::replace(&mut consumer, next), || {}),
                Err(fault) => {
                    tracing::error!(%fault, "no other member of the owners' group can be made");
                    std::thread::sleep(REST);
                }
            }
        }
        told.give_up();
    }
    // Here, not on an async task: it waits for the group to be left.
    drop(consumer);
}

/// How long the brokers are to wait for this member: what the options say, as far as they allow it.
fn session(admin: &Admin, options: &KafkaOptions) -> Duration {
    let settings = admin.brokers(admin.patience()).and_then(|brokers| match brokers.first() {
        Some(broker) => admin.broker_settings(*broker).map(Some),
        None => Ok(None),
    });
    let settings = settings.unwrap_or_else(|fault| {
        tracing::info!(error = %fault, "the brokers do not tell how short a session they allow");
        None
    });
    let session = allowed_session(options, settings.as_ref());
    if session != options.session_timeout {
        let (asked, allowed) = (options.session_timeout.as_millis(), session.as_millis());
        tracing::warn!(
            mend = format!("set group.min.session.timeout.ms={asked} on the brokers"),
            "sessions of {asked} ms are not allowed: if this node dies, others take over after {allowed} ms"
        );
    }
    session
}

/// What a node was told, by whichever of its members.
struct Told {
    topic: String,
    hint: watch::Sender<Hint>,
    /// Since when the group is lost: the brokers gave this member up, or it has not heard of them.
    lost: Mutex<Option<Instant>>,
}

impl Told {
    /// What was told is kept for a while.
    fn lose(&self) {
        self.lost.lock().get_or_insert_with(Instant::now);
    }

    /// Gives up what was kept while the group was lost, once that has been too long.
    fn give_up(&self) {
        let mut lost = self.lost.lock();
        if lost.is_some_and(|since| since.elapsed() > KEPT_WITHOUT_GROUP) {
            *lost = None;
            tracing::warn!("the owners' group was lost and not found again: this node should lead nothing");
            self.hint.send_replace(Hint::default());
        }
    }

    fn change(&self, list: &TopicPartitionList, change: impl Fn(&mut BTreeSet<Partition>, Partition)) {
        // What was kept while the group was lost ends with the first that is told anew.
        let kept = self.lost.lock().take().is_none();
        let mut hint = if kept { BTreeSet::clone(&self.hint.borrow()) } else { BTreeSet::new() };
        for element in list.elements_for_topic(&self.topic) {
            if let Ok(number) = u16::try_from(element.partition()) {
                change(&mut hint, Partition(number));
            }
        }
        tracing::info!(partitions = hint.len(), "this node should lead {hint:?}");
        self.hint.send_replace(Arc::new(hint));
    }
}

/// Hears what the group has to say.
struct Member {
    told: Arc<Told>,
    stranding: Stranding,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say("owners", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(client = "owners", %error, "{reason}");
    }

    fn stats(&self, statistics: Statistics) {
        self.stranding.look(&statistics);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Only told, not waited for: a node that is slow to let go is fenced by the next one's claim.
        if let Rebalance::Revoke(list) = rebalance {
            // One that is ended since no broker is left to it gives back everything; that was kept when it was replaced.
            if self.stranding.seen() {
                return;
            }
            if consumer.assignment_lost() {
                tracing::warn!("the owners' group is lost: this node goes on by what it was told last");
                self.told.lose();
                return;
            }
            self.told.change(list, |hint, partition| {
                hint.remove(&partition);
            });
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance
            && !self.stranding.seen()
        {
            // There is nothing to fetch.
            if let Err(error) = consumer.pause(list) {
                tracing::debug!(%error, "the owners' topic is polled for nothing");
            }
            self.told.change(list, |hint, partition| {
                hint.insert(partition);
            });
        }
    }
}
