//! Opens the log that a plan asks for, and the state store that is folded from it. The state store is asked first how far
//! it has folded: what it knows was durable once, so a log that ends before that has lost something and is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use domain::Shop;
use engine::log::Log;
use engine::memory::MemoryLog;
use engine::ports::Clock;
use engine::position::{LogId, Offset, Partition};
use engine::record::{FORMAT, Genesis, PLACEMENT_RULE};
use engine_embedded::{EmbeddedLog, KnownDurable, OpenFault, Options};
use engine_runtime::store::{self, Rebuild, StateStore, StoreFault, StoreOptions};
use rand::RngExt;
use uuid::Uuid;

use super::Plan;
use super::opening::{Far, Opening};
use crate::failure::Failure;

/// Which log.
pub(crate) enum LogPlan {
    /// One that is gone with the process.
    Memory,
    /// Segment files in this directory, of which so many bytes are kept in memory for readers.
    Embedded(PathBuf, usize),
    /// A topic, copied into the directory that the options name.
    #[cfg(feature = "kafka")]
    Kafka(Box<engine_kafka::KafkaOptions>),
}

impl fmt::Display for LogPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("a log in memory"),
            Self::Embedded(folder, _) => write!(f, "the log in {}", folder.display()),
            #[cfg(feature = "kafka")]
            Self::Kafka(options) => write!(f, "topic {} at {}", options.topic(), options.brokers),
        }
    }
}

/// The log, and what the node has folded of it.
pub(super) struct Opened {
    pub(super) log: Arc<dyn Log>,
    pub(super) kept: Arc<Kept>,
    pub(super) genesis: Genesis,
    pub(super) states: Arc<StateStore<Shop>>,
}

/// The log as what it is, for what not every log can do.
pub(super) enum Kept {
    /// In memory.
    Memory,
    /// As segments.
    Embedded(Arc<EmbeddedLog>),
    /// In Kafka.
    #[cfg(feature = "kafka")]
    Kafka(Arc<engine_kafka::KafkaLog>),
}

/// Says where a partition really ends; nothing while nobody knows.
pub(super) type RealEnd = Arc<dyn Fn(Partition) -> Option<Offset> + Send + Sync>;

impl Kept {
    /// Whether it can be reached now; why not.
    pub(super) fn reachable(&self) -> Result<(), String> {
        match self {
            Self::Memory => Ok(()),
            Self::Embedded(log) => {
                log.stopped().map_or(Ok(()), |why| Err(format!("the log has stopped until the next start: {why}")))
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.reachable(),
        }
    }

    /// Whether it took everything to the end: a disk that failed a write or a flush is told of once more when the process
    /// ends, so that whoever restarts it looks at the disk first.
    pub(super) fn ended_well(&self) -> Result<(), Failure> {
        let Self::Embedded(log) = self else { return Ok(()) };
        let Some(why) = log.stopped() else { return Ok(()) };
        Err(Failure::plain(format!("the log had stopped: {why}"))
            .detail("nothing that was acknowledged is lost; what was under way is unknown until the next start")
            .next("look at the disk (`docket doctor --set data=DIR`), then start again: the log is recovered when it is opened"))
    }

    /// Sets the gauges of what of it is in memory for readers.
    pub(super) fn measure(&self) {
        match self {
            Self::Memory => {}
            Self::Embedded(log) => log.measure(),
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.measure(),
        }
    }

    /// Waits until it has stopped for good, so that this node must end; says why.
    pub(super) async fn failed(&self) -> Failure {
        match self {
            // Their writers tell every command, and reads go on.
            Self::Memory | Self::Embedded(_) => std::future::pending().await,
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => {
                let fault = super::kafka::failed(log).await;
                tracing::error!(fault.code = super::kafka::code(&fault), error = %fault, "the log has stopped for good");
                super::kafka::failure(&fault)
            }
        }
    }

    /// Where the log really ends, where what is read is a copy that may be behind.
    pub(super) fn real_end(kept: &Arc<Self>) -> Option<RealEnd> {
        match &**kept {
            Self::Memory | Self::Embedded(_) => None,
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => {
                let log = Arc::clone(log);
                // Asked where a worker begins, seldom; it waits for the network.
                Some(Arc::new(move |partition| tokio::task::block_in_place(|| log.end_at_broker(partition).ok())))
            }
        }
    }

    /// Seals it, once nobody writes to it any more. Waits for the disk.
    pub(super) fn close(&self) {
        match self {
            Self::Memory => {}
            Self::Embedded(log) => log.close(),
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.close(),
        }
    }
}

/// Opens the log that a plan names, or founds it, and the state store.
pub(super) async fn open(plan: &Plan, clock: &dyn Clock, opening: &Opening) -> Result<Opened, Failure> {
    let founding = founding(plan.partitions, clock);
    let states = States { folder: plan.data.states(), options: plan.states };
    let opening = opening.clone();
    match &plan.log {
        LogPlan::Memory => {
            let log = Arc::new(MemoryLog::new(founding));
            let states = blocking(move || states.open(founding.log, founding.partitions)).await?;
            Ok(Opened { log, kept: Arc::new(Kept::Memory), genesis: founding, states })
        }
        LogPlan::Embedded(folder, cache_bytes) => {
            let (folder, cache_bytes) = (folder.clone(), *cache_bytes);
            blocking(move || open_embedded(&folder, cache_bytes, &states, founding, &opening)).await
        }
        #[cfg(feature = "kafka")]
        LogPlan::Kafka(options) => {
            let options = options.clone();
            blocking(move || super::kafka::open(&options, &states, &founding, &opening)).await
        }
    }
}

/// What a new log begins with.
fn founding(partitions: u16, clock: &dyn Clock) -> Genesis {
    let mut fingerprint_key = [0; 32];
    rand::rng().fill(&mut fingerprint_key);
    Genesis {
        log: LogId(Uuid::now_v7()),
        partitions,
        placement_rule: PLACEMENT_RULE,
        format: FORMAT,
        fingerprint_key,
        created_at: clock.now(),
    }
}

fn open_embedded(
    folder: &Path,
    cache_bytes: usize,
    states: &States,
    founding: Genesis,
    opening: &Opening,
) -> Result<Opened, Failure> {
    // What the state store has folded was durable once. The log asks for it before it takes its own end for torn.
    let early: Arc<OnceLock<Arc<StateStore<Shop>>>> = Arc::default();
    let asked = Arc::clone(&early);
    let asked_states = states.clone();
    let told = opening.clone();
    let known_durable: KnownDurable = Arc::new(move |log, partitions| {
        told.begin("opening the state store");
        // One that cannot be opened knows nothing; whether that matters is told when it is opened in earnest.
        let Ok(states) = asked_states.open(log, partitions) else { return BTreeMap::new() };
        let known = (0..partitions).map(Partition).map(|it| (it, states.checkpoint(it).0.next_offset)).collect();
        let _ = asked.set(states);
        told.begin("recovering the log");
        known
    });
    let options = Options { known_durable, cache_bytes, ..Options::or_found(founding) };
    let (log, report) = EmbeddedLog::open(folder, options).map_err(|fault| cannot_open(&fault))?;
    if let Some(torn) = &report.torn {
        tracing::warn!(
            log.file = %torn.file.display(), log.offset = torn.offset, log.bytes = torn.bytes,
            "cut a group that was being written when the process died; nothing in it was acknowledged"
        );
    }
    let genesis = *log.genesis();
    let states = match early.get() {
        Some(states) => Arc::clone(states),
        None => states.open(genesis.log, genesis.partitions)?,
    };
    rebuild_states(&states, &log, opening)?;
    let log = Arc::new(log);
    Ok(Opened { log: Arc::<EmbeddedLog>::clone(&log), kept: Arc::new(Kept::Embedded(log)), genesis, states })
}

/// Opens the embedded log of a data directory, alone, to read it from its beginning to its end. The node's state store, if
/// there is one, says how far the log must go at least.
#[cfg(feature = "kafka")]
pub(crate) fn open_existing(data: &Path) -> Result<EmbeddedLog, Failure> {
    let states = States { folder: data.join("state"), options: StoreOptions::default() };
    let known_durable: KnownDurable = Arc::new(move |log, partitions| {
        if !states.folder.is_dir() {
            return BTreeMap::new();
        }
        let Ok(states) = states.open(log, partitions) else { return BTreeMap::new() };
        (0..partitions).map(Partition).map(|it| (it, states.checkpoint(it).0.next_offset)).collect()
    });
    let options = Options { known_durable, ..Options::existing() };
    let (log, _) = EmbeddedLog::open(data.join("log"), options).map_err(|fault| cannot_open(&fault))?;
    Ok(log)
}

/// Runs what waits for a disk where waiting harms nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::plain("a task that waits for disk or network ended badly"))?
}

/// Why an embedded log cannot be opened, and what to do about it.
pub(crate) fn cannot_open(fault: &OpenFault) -> Failure {
    let failure = Failure::of("cannot open the log", fault);
    match fault {
        OpenFault::InUse { .. } => failure.next("stop that process, or use another directory with --data DIR"),
        OpenFault::Damaged { .. } | OpenFault::Behind { .. } => {
            failure.next("restore the directory from a copy; nothing in it was changed")
        }
        _ => failure,
    }
}

/// Folds a long log into a state store that has nothing of it.
pub(super) fn rebuild_states(states: &StateStore<Shop>, log: &dyn Log, opening: &Opening) -> Result<(), Failure> {
    let began = Instant::now();
    let far = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let progress = |rebuild: Rebuild| {
        if far.1.swap(rebuild.of, Ordering::Relaxed) == 0 {
            let far = Arc::clone(&far);
            let how_far = move || (far.0.load(Ordering::Relaxed), far.1.load(Ordering::Relaxed));
            opening.begin_counted("folding the state store afresh", Box::new(how_far));
        }
        far.0.fetch_max(rebuild.records, Ordering::Relaxed);
    };
    let rebuilt = states.rebuild(log, &progress).map_err(|fault| Failure::of("cannot fold the log", &fault))?;
    if rebuilt {
        let took_s = began.elapsed().as_secs_f64();
        tracing::info!(rebuild.took_s = took_s, "the state store was folded from the log in {took_s:.1} s");
    }
    Ok(())
}

/// Says how much of the log the states amount to, in records; of 0 until it is known how many there are, since a share of
/// what has been copied so far would go back as more is.
pub(super) fn folded(log: &Arc<dyn Log>, kept: &Arc<Kept>, states: &Arc<StateStore<Shop>>) -> Far {
    let really: Arc<OnceLock<u64>> = Arc::default();
    if let Some(real_end) = Kept::real_end(kept) {
        let (told, partitions) = (Arc::clone(&really), log.partitions());
        // It may wait for the network.
        tokio::task::spawn_blocking(move || {
            let ends = (0..partitions).map(Partition).map(|it| real_end(it).unwrap_or_default().0);
            told.get_or_init(|| ends.sum());
        });
    } else {
        really.get_or_init(|| 0);
    }
    let (log, states) = (Arc::clone(log), Arc::clone(states));
    Box::new(move || {
        let partitions = || (0..log.partitions()).map(Partition);
        let done = partitions().map(|it| states.checkpoint(it).0.next_offset.0).sum();
        let here = partitions().map(|it| log.end(it).0).sum::<u64>();
        (done, really.get().map_or(0, |really| here.max(*really)))
    })
}

/// Where folded states are, and what is bounded there.
#[derive(Clone)]
pub(super) struct States {
    folder: PathBuf,
    options: StoreOptions,
}

impl States {
    pub(super) fn open(&self, log: LogId, partitions: u16) -> Result<Arc<StateStore<Shop>>, Failure> {
        let (store, opened) = StateStore::open(&self.folder, log, partitions, Arc::new(Shop), self.options)
            .map_err(|fault| cannot_open_states(&self.folder, &fault))?;
        if let store::Opened::Wiped(why) = opened {
            tracing::warn!(why, "the state store is folded afresh from the log");
        }
        Ok(Arc::new(store))
    }
}

fn cannot_open_states(folder: &Path, fault: &StoreFault) -> Failure {
    let failure = Failure::of("cannot open the state store", fault);
    match fault {
        StoreFault::Locked(_) => failure.next("stop that process, or use another directory"),
        _ => failure.next(format!(
            "look at the disk; all that {} holds is folded from the log, so it may be deleted",
            folder.display()
        )),
    }
}
