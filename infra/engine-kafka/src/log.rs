//! The log: opening it, and the port.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::log::{Appender, DeliverySink, Log, LogFault, Stored, WakerGuard};
use engine::position::{LogId, Offset, Partition};
use engine::record::Genesis;
use engine_embedded::{CopyReport, LogCopy, Options as CopyOptions, is_copy};
use tokio::sync::watch;

use crate::admin::{Admin, BROKERS_LEARN, log_topic_settings};
use crate::check::refuse_unsafe;
use crate::fault::KafkaFault;
use crate::follower::{Follower, GONE_AFTER, Truth, compare_ends};
use crate::identity;
use crate::options::KafkaOptions;
use crate::outbox::Outbox;

/// A log in a Kafka topic, followed into a local copy.
///
/// Opening, asking the brokers and closing block: do it off the shards and off async tasks. Dropping closes.
pub struct KafkaLog {
    genesis: Genesis,
    topic: String,
    admin: Arc<Admin>,
    outbox: Outbox,
    follower: Follower,
    report: OpenReport,
}

/// What opening found and did.
#[derive(Clone, Debug)]
pub struct OpenReport {
    /// Whether the topic was made just now.
    pub founded: bool,
    /// What became of the local copy.
    pub copy: CopyReport,
    /// How long it took.
    pub took: Duration,
}

impl KafkaLog {
    /// Opens the log, or founds it as `founding` says if there is none. Other nodes may do the same at the same time: all
    /// get the log that was first. Where there is a copy of a log already, its topic is gone, and none is founded. When
    /// this returns every partition's `Genesis` can be read; what else Kafka has is fetched from now on, see
    /// [`KafkaLog::caught_up`]. Install a metrics recorder before, if there is to be one.
    pub fn open(options: &KafkaOptions, founding: Option<&Genesis>) -> Result<Self, KafkaFault> {
        let started = Instant::now();
        let admin = Arc::new(Admin::new(options)?);
        let topic = options.topic();
        let followed = is_copy(&options.directory);
        let grace = if founding.is_some() && !followed { Duration::ZERO } else { BROKERS_LEARN };
        let founded = match (admin.expected_layout(&topic, grace)?, founding) {
            (Some(_), _) => false,
            // Whoever starts next on nothing would take an empty log for the one that was here.
            (None, Some(_)) if followed => {
                let what = format!("the topic is gone, and {} holds a copy of its log", options.directory.display());
                return Err(KafkaFault::Truncated { topic, partition: Partition(0), what });
            }
            (None, Some(genesis)) => {
                tracing::info!(topic, partitions = genesis.partitions, "making topic {topic}");
                admin.create(&topic, genesis.partitions, options.replication, &log_topic_settings(options))?;
                true
            }
            (None, None) => return Err(KafkaFault::Absent { topic }),
        };
        let layout = refuse_unsafe(&admin, options, &topic)?;
        let partitions = u16::try_from(layout.partitions.len())
            .map_err(|_| KafkaFault::Foreign { topic: topic.clone(), what: "too many partitions".to_owned() })?;
        let outbox = Outbox::open(options, &topic, partitions)?;
        let genesis = identity::settle(&admin, options, &outbox, partitions, founding)?;
        let copy_options = CopyOptions {
            segment_bytes_first: options.segment_bytes_first,
            segment_bytes: options.segment_bytes,
            cache_bytes: options.cache_bytes,
            ..CopyOptions::existing()
        };
        let (copy, copy_report) = LogCopy::open(&options.directory, genesis.log, partitions, copy_options)
            .map_err(|fault| KafkaFault::copy(&options.directory, &topic, fault))?;
        for cut in &copy_report.cut {
            tracing::warn!("the local copy was damaged and is fetched again from there: {cut}");
        }
        compare_ends(&admin, &topic, partitions, |partition| copy.end(partition))?;
        let truth = Truth { admin: Arc::clone(&admin), options: options.clone() };
        // Nothing more is appended to a topic that is not what it was.
        let refusing = outbox.refusing();
        let follower = Follower::start(copy, truth, partitions, refusing)?;
        let deadline = Instant::now() + admin.patience();
        for partition in (0..partitions).map(Partition) {
            follower.wait_for(partition, Offset(1), deadline)?;
        }
        let report = OpenReport { founded, copy: copy_report, took: started.elapsed() };
        Ok(Self { genesis, topic, admin, outbox, follower, report })
    }

    /// What the log is.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// What opening found and did.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// The offset after the last record of `partition` in Kafka. Asks the brokers.
    pub fn end_at_broker(&self, partition: Partition) -> Result<Offset, KafkaFault> {
        Ok(self.admin.bounds(&self.topic, partition)?.1)
    }

    /// Waits until the local copy of `partition` has all that Kafka had when this was called, and says how far that is.
    /// To be done before a claim: what is claimed in ignorance of the last records is not claimed at all.
    pub fn catch_up(&self, partition: Partition, within: Duration) -> Result<Offset, KafkaFault> {
        let deadline = Instant::now() + within;
        let end = self.end_at_broker(partition)?;
        self.follower.wait_for(partition, end, deadline)?;
        Ok(end)
    }

    /// The same for all partitions.
    pub fn caught_up(&self, within: Duration) -> Result<(), KafkaFault> {
        let deadline = Instant::now() + within;
        let partitions = || (0..self.genesis.partitions).map(Partition);
        let ends = partitions().map(|partition| self.end_at_broker(partition)).collect::<Result<Vec<_>, _>>()?;
        partitions().zip(ends).try_for_each(|(partition, end)| self.follower.wait_for(partition, end, deadline))
    }

    /// Refuses a store that has folded `partition` up to `folded` if Kafka does not go so far: it is of another log, or
    /// the topic has lost records.
    pub fn refuse_store_ahead(&self, partition: Partition, folded: Offset) -> Result<(), KafkaFault> {
        // What is here came from there.
        if folded <= self.end(partition) {
            return Ok(());
        }
        let end = self.end_at_broker(partition)?;
        if folded <= end { Ok(()) } else { Err(KafkaFault::StoreAhead { partition, end, folded }) }
    }

    /// Whether Kafka still has the topic, and every partition from its first record on up to where the copy here ends: what is
    /// thrown away underneath is not noticed by who reads at the end, and a client goes by a topic that is gone for half a
    /// minute. If it is not so, nothing more is appended here, and the node must end. Asks the brokers; that they do not
    /// answer now is told as [`KafkaFault::Unreachable`].
    pub fn look_for_loss(&self) -> Result<(), KafkaFault> {
        let gone = matches!(self.admin.expected_layout(&self.topic, GONE_AFTER), Ok(None));
        let found = match gone {
            true => Err(KafkaFault::gone(&self.topic)),
            false => compare_ends(&self.admin, &self.topic, self.genesis.partitions, |it| self.copied(it)),
        };
        if found.as_ref().is_err_and(|fault| !fault.may_pass()) {
            self.outbox.refusing()();
        }
        found
    }

    /// How far the local copy of `partition` goes: [`Log::end`] may be further by what this node has just appended.
    pub fn copied(&self, partition: Partition) -> Offset {
        self.follower.end(partition)
    }

    /// Sets the gauges of what of the local copy is kept in memory for readers: to be called by whoever renders metrics,
    /// right before.
    pub fn measure(&self) {
        self.follower.measure();
    }

    /// Whether the leaders of all partitions are connected and the local copy can be written; why not. For readiness.
    pub fn reachable(&self) -> Result<(), String> {
        self.follower.reachable()
    }

    /// Why the log has stopped for good, as soon as it has: nothing is followed and nothing may be appended any more, and
    /// the node must end.
    pub fn faults(&self) -> watch::Receiver<Option<Arc<KafkaFault>>> {
        self.follower.faults()
    }

    /// The same, now.
    pub fn fault(&self) -> Option<Arc<KafkaFault>> {
        self.follower.fault()
    }

    /// Waits a few seconds for what is in flight, ends the threads and lets go of the local copy. What is in it can still
    /// be read; further appends are answered with [`engine::log::AppendError::Stopped`], on the caller's own thread. Must
    /// not be called by a sink or a waker.
    pub fn close(&self) {
        self.outbox.close();
        self.follower.close();
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").field("id", &self.genesis.log).field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Log for KafkaLog {
    fn id(&self) -> LogId {
        self.genesis.log
    }

    fn partitions(&self) -> u16 {
        self.genesis.partitions
    }

    fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender> {
        assert!(partition.0 < self.partitions(), "there is no partition {partition}");
        self.outbox.appender(partition, sink)
    }

    /// Of what this node has appended and was told of, but has not followed yet, `read` waits for the copy: a moment.
    fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, LogFault> {
        if partition.0 >= self.partitions() {
            return Err(LogFault::Unreadable(format!("there is no partition {partition}")));
        }
        self.follower.read(partition, from, bytes_max, self.outbox.delivered(partition))
    }

    fn end(&self, partition: Partition) -> Offset {
        self.follower.end(partition).max(self.outbox.delivered(partition))
    }

    /// Asks the leader of the partition, and waits for its answer at most as long as any request to a broker may take.
    fn catch_up_end(&self, partition: Partition) -> Result<Offset, LogFault> {
        let end = self.end_at_broker(partition).map_err(|fault| LogFault::Unreadable(fault.to_string()))?;
        // What was delivered here is there, whatever a broker says that has not heard of it yet.
        Ok(end.max(self.end(partition)))
    }

    fn on_append(&self, waker: Arc<dyn Fn() + Send + Sync>) -> WakerGuard {
        WakerGuard::new(self.follower.add_waker(waker))
    }
}
