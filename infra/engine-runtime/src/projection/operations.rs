//! What an operator may do to a projection while it runs: rebuild its rows from the whole log beside those in use, compare
//! the two, bring the new ones into use and the old ones back, and check rows against the log.
//!
//! A rebuild is a second projection over the same log that feeds the tables beside. It belongs to the process that began it:
//! when that ends, what was not brought into use is dropped, and a rebuild begins from the start. What was in use before a
//! switch is kept, at rest, until it is brought back (it is caught up first), discarded, or the next rebuild takes its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::ports::Clock;
use engine::position::{Offset, Partition, Position, Positions};
use engine::read_store::{Beside, Origin, ReadStore, SideBySide, StoreFault, Switch};
use engine::record::Genesis;
use engine::view::View;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::check::Checks;
use super::worker::{jittered, spawned};
use super::{Projection, ProjectionFault, ProjectionOptions, ProjectionStatus};

/// Between two tries to bring into use what the live rows are ahead of just then.
const SWITCH_AGAIN: Duration = Duration::from_millis(10);

/// Makes an empty store that is gone when it is closed, for a check to fold the whole log into.
pub type Scratch = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn ReadStore>, StoreFault>> + Send + Sync>;

/// What operations work on and with.
pub struct OperationsParts<V: View> {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its first record.
    pub genesis: Genesis,
    /// The view.
    pub view: Arc<V>,
    /// The rows.
    pub store: Arc<dyn SideBySide>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The projection that feeds the rows in use.
    pub live: Projection,
    /// What a rebuild bounds, and what metrics call it.
    pub options: ProjectionOptions,
    /// Where a check of the whole folds to.
    pub scratch: Scratch,
}

/// Operations on one projection. Clones are the same.
pub struct Operations<V: View> {
    pub(super) inner: Arc<Inner<V>>,
}

impl<V: View> Clone for Operations<V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

pub(super) struct Inner<V: View> {
    pub(super) log: Arc<dyn Log>,
    pub(super) genesis: Genesis,
    pub(super) view: Arc<V>,
    pub(super) store: Arc<dyn SideBySide>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) live: Projection,
    pub(super) options: ProjectionOptions,
    pub(super) scratch: Scratch,
    /// What feeds the tables beside, in this process.
    feeding: parking_lot::Mutex<Option<Arc<Feeding>>>,
    /// Held by who changes that: one at a time, while others may look.
    turn: Mutex<()>,
    pub(super) checks: Checks,
}

/// The second projection.
struct Feeding {
    beside: Beside,
    projection: Projection,
    began: Instant,
    /// Records that were folded before it began.
    records_before: u64,
}

impl Feeding {
    fn is_over(&self) -> bool {
        super::is_over(&self.projection.status())
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// A rebuild or a check is under way already.
    #[error("{0} is under way already")]
    Busy(&'static str),
    /// There is nothing of that kind beside the rows in use.
    #[error("there are no {0} rows beside those in use")]
    Nothing(&'static str),
    /// What is beside does not reflect yet what the rows in use do. It goes on; ask again.
    #[error("the rows beside are not as far as those in use yet: {behind} records behind")]
    NotReady {
        /// How many records.
        behind: u64,
    },
    /// The stream is not set aside.
    #[error("the stream is not set aside")]
    NotParked,
    /// The decision was not carried out in time.
    #[error("whoever feeds the stream has not carried it out in time")]
    NotTried,
    /// Of a stream that has no rows nothing can be checked.
    #[error("no row shows this stream")]
    NoRows,
    /// The store.
    #[error("the read store failed")]
    Store(#[from] StoreFault),
    /// The second projection.
    #[error("the rows beside cannot be fed")]
    Projection(#[from] ProjectionFault),
    /// The log.
    #[error("the log cannot be read: {0}")]
    Log(String),
}

/// How a projection stands.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Its name.
    pub name: &'static str,
    /// `running`, `waiting`, `stopped` or `failed`.
    pub state: &'static str,
    /// Why, unless it is running.
    pub why: Option<String>,
    /// Counts what came into use.
    pub generation: i64,
    /// Records of the log, and how many of them are not in the rows.
    pub records: u64,
    /// See `records`.
    pub behind: u64,
    /// Each partition's next offset.
    pub checkpoints: BTreeMap<Partition, Offset>,
    /// Streams set aside, dropped ones not counted.
    pub parked: usize,
    /// Streams dropped.
    pub dropped: usize,
    /// What is beside the rows in use.
    pub beside: Option<BesideState>,
}

/// What state the rows beside are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BesideWord {
    /// Being folded from the log.
    Folding,
    /// As far as the log, and following it: can be brought into use.
    Ready,
    /// Kept from before, at rest.
    Kept,
    /// Fed by another node, or by nobody any more.
    Elsewhere,
    /// Not being fed any more; `why` says why.
    Failed,
}

/// How the rows beside stand.
#[derive(Clone, Debug, Serialize)]
pub struct BesideState {
    /// In a word.
    pub state: BesideWord,
    /// Whether they were rebuilt; else they were in use before.
    pub rebuilt: bool,
    /// Records folded.
    pub records_done: u64,
    /// Records of the log.
    pub records_total: u64,
    /// Events folded by this process.
    pub events: u64,
    /// The average since it began.
    pub events_per_s: f64,
    /// Seconds until it is done at the pace so far, while it is folding.
    pub eta_s: Option<f64>,
    /// Streams set aside in them.
    pub parked: usize,
    /// Why they are not fed any more.
    pub why: Option<String>,
}

impl<V: View> Operations<V> {
    /// Over a running projection and its rows.
    pub fn new(parts: OperationsParts<V>) -> Self {
        let OperationsParts { log, genesis, view, store, clock, live, options, scratch } = parts;
        let (feeding, turn) = (parking_lot::Mutex::new(None), Mutex::new(()));
        let checks = Checks::default();
        let inner = Inner { log, genesis, view, store, clock, live, options, scratch, feeding, turn, checks };
        Self { inner: Arc::new(inner) }
    }

    /// How the projection stands, and what is beside.
    pub async fn state(&self, name: &'static str) -> Result<State, Denied> {
        let inner = &self.inner;
        let store = inner.store.clone();
        let standing = spawned(async move { store.standing().await }).await?;
        let (word, why) = match inner.live.status() {
            ProjectionStatus::Running => ("running", None),
            ProjectionStatus::Waiting(why) => ("waiting", Some(why)),
            ProjectionStatus::Stopped => ("stopped", None),
            ProjectionStatus::Failed(fault) => ("failed", Some(crate::chain(&fault))),
        };
        let beside = standing.beside.map(|beside| self.beside_state(beside));
        let watermark = inner.live.watermark();
        let parked = inner.live.parked();
        let dropped = parked.iter().filter(|parked| parked.dropped.is_some()).count();
        let records = self.records();
        Ok(State {
            name,
            state: word,
            why,
            generation: standing.generation,
            records,
            behind: records.saturating_sub(sum(&watermark)),
            checkpoints: (0..).map(Partition).zip(watermark).collect(),
            parked: parked.len() - dropped,
            dropped,
            beside,
        })
    }

    fn beside_state(&self, beside: Beside) -> BesideState {
        let mut state = BesideState {
            state: if beside.origin == Origin::Kept { BesideWord::Kept } else { BesideWord::Elsewhere },
            rebuilt: beside.origin == Origin::Rebuilt,
            records_done: 0,
            records_total: self.records(),
            events: 0,
            events_per_s: 0.0,
            eta_s: None,
            parked: 0,
            why: None,
        };
        if let Some(feeding) = self.feeding().filter(|feeding| feeding.beside.token == beside.token) {
            let elapsed = feeding.began.elapsed().as_secs_f64().max(0.001);
            state.records_done = sum(&feeding.projection.watermark());
            state.events = feeding.projection.events();
            state.events_per_s = state.events as f64 / elapsed;
            state.parked = feeding.projection.parked().len();
            state.state = match feeding.projection.status() {
                ProjectionStatus::Failed(fault) => {
                    state.why = Some(crate::chain(&fault));
                    BesideWord::Failed
                }
                ProjectionStatus::Stopped => BesideWord::Failed,
                _ if feeding.projection.is_caught_up() => BesideWord::Ready,
                _ => BesideWord::Folding,
            };
            let pace = state.records_done.saturating_sub(feeding.records_before) as f64 / elapsed;
            if state.state == BesideWord::Folding && pace > 0.0 {
                state.eta_s = Some(state.records_total.saturating_sub(state.records_done) as f64 / pace);
            }
        }
        state
    }

    /// Begins to fold the whole log into empty tables beside those in use. What was beside is dropped.
    pub async fn rebuild(&self) -> Result<(), Denied> {
        let _turn = self.inner.turn.lock().await;
        let rebuilding = |feeding: Arc<Feeding>| feeding.beside.origin == Origin::Rebuilt && !feeding.is_over();
        if self.feeding().is_some_and(rebuilding) {
            return Err(Denied::Busy("a rebuild"));
        }
        self.end_feeding().await;
        let store = self.inner.store.clone();
        let beside = spawned(async move { store.begin_beside().await }).await?;
        self.feed(beside).await?;
        Ok(())
    }

    /// Brings the rebuilt rows into use, once they reflect all that those in use do; waits for that no longer than this.
    /// Readers see one or the other, and nothing older than before. The generation then in use.
    pub async fn switch(&self, within: Duration) -> Result<i64, Denied> {
        let _turn = self.inner.turn.lock().await;
        let rebuilt = self.feeding().filter(|feeding| feeding.beside.origin == Origin::Rebuilt);
        self.bring(rebuilt.ok_or(Denied::Nothing("rebuilt"))?, within).await
    }

    /// Brings the rows back that were in use before the last switch, caught up with the log first.
    pub async fn roll_back(&self, within: Duration) -> Result<i64, Denied> {
        let _turn = self.inner.turn.lock().await;
        let store = self.inner.store.clone();
        let standing = spawned(async move { store.standing().await }).await?;
        let kept = standing.beside.filter(|beside| beside.origin == Origin::Kept).ok_or(Denied::Nothing("kept"))?;
        let feeding = match self.feeding().filter(|feeding| feeding.beside == kept && !feeding.is_over()) {
            Some(feeding) => feeding,
            None => self.feed(kept).await?,
        };
        self.bring(feeding, within).await
    }

    /// Drops what is beside, and ends what feeds it. False if there was nothing.
    pub async fn discard(&self) -> Result<bool, Denied> {
        let _turn = self.inner.turn.lock().await;
        self.end_feeding().await;
        let store = self.inner.store.clone();
        Ok(spawned(async move { store.discard_beside().await }).await?)
    }

    /// Ends what this process does beside the live projection, for good.
    pub async fn stop(&self) {
        self.inner.checks.stop();
        self.end_feeding().await;
    }

    /// The rows beside, if this process feeds them.
    pub(super) fn fed_beside(&self) -> Option<Arc<dyn ReadStore>> {
        self.feeding().map(|feeding| self.inner.store.beside(feeding.beside))
    }

    fn feeding(&self) -> Option<Arc<Feeding>> {
        self.inner.feeding.lock().clone()
    }

    async fn end_feeding(&self) {
        let before = self.inner.feeding.lock().take();
        if let Some(before) = before {
            before.projection.stop().await;
        }
    }

    async fn feed(&self, beside: Beside) -> Result<Arc<Feeding>, Denied> {
        let inner = &self.inner;
        let store = inner.store.beside(beside);
        let (log, view, clock) = (inner.log.clone(), inner.view.clone(), inner.clock.clone());
        let projection = Projection::start(log, &inner.genesis, view, store, clock, inner.options.clone()).await?;
        let records_before = sum(&projection.watermark());
        let feeding = Arc::new(Feeding { beside, projection, began: Instant::now(), records_before });
        *inner.feeding.lock() = Some(feeding.clone());
        Ok(feeding)
    }

    async fn bring(&self, feeding: Arc<Feeding>, within: Duration) -> Result<i64, Denied> {
        let deadline = Instant::now() + within;
        let not_ready = || {
            let behind = self.records().saturating_sub(sum(&feeding.projection.watermark()));
            Err(Denied::NotReady { behind })
        };
        loop {
            if let ProjectionStatus::Failed(fault) = feeding.projection.status() {
                return Err(fault.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let reached = feeding.projection.wait_for(&positions(&self.inner.live.watermark()), left).await;
            if reached.is_err() || left.is_zero() {
                return not_ready();
            }
            if feeding.projection.is_caught_up() {
                let (store, beside) = (self.inner.store.clone(), feeding.beside);
                match spawned(async move { store.switch(beside).await }).await? {
                    Switch::Done(generation) => {
                        // It finds out by itself, and ends.
                        *self.inner.feeding.lock() = None;
                        // Who is answered is not told any more what was parked before. It is done all the same should
                        // that take longer than there is time.
                        let _ = tokio::time::timeout_at(deadline, self.inner.live.tells_of(generation)).await;
                        return Ok(generation);
                    }
                    Switch::Gone => return Err(Denied::Nothing("such")),
                    // What is in use moved on meanwhile.
                    Switch::Behind(_) => {}
                }
            }
            tokio::time::sleep(jittered(SWITCH_AGAIN)).await;
        }
    }

    /// Records of the log.
    pub(super) fn records(&self) -> u64 {
        (0..self.inner.genesis.partitions).map(|at| self.inner.log.end(Partition(at)).0).sum()
    }
}

fn sum(watermark: &[Offset]) -> u64 {
    watermark.iter().map(|next| next.0).sum()
}

/// The last records before these offsets.
pub(super) fn positions(watermark: &[Offset]) -> Positions {
    let mut positions = Positions::default();
    for (partition, next) in (0..).map(Partition).zip(watermark) {
        if let Some(offset) = next.0.checked_sub(1).map(Offset) {
            positions.reach(Position { partition, offset });
        }
    }
    positions
}
