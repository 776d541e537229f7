//! Are the rows the fold of the log? Some keys are checked by folding the log again, only onto them, exactly as far as the
//! state goes in which they were read. The whole is checked by folding everything into a scratch store and walking both in
//! the order of their keys; so are rebuilt rows against those in use. Nothing stops meanwhile: a row that differs in the walk
//! may only have moved, so each is then folded by itself, and only what the log does not make is a difference.
//!
//! What an event of a parked stream would have changed is not expected of its rows. An event that cannot be folded, and whose
//! stream is not parked, is a difference too.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::position::{Checkpoint, Partition, Position};
use engine::read_store::ReadStore;
use engine::stream::{StreamId, partition_of};
use engine::view::{Row, RowKey, View};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::rows::{Draw, PAGE, Waits, differs, load, page, waits};
use super::folder::parked_key;
use super::operations::{Denied, Operations, positions};
use super::scan::scan;
use super::worker::spawned;
use super::{PARKED_TABLE, Projection, ProjectionFault, ProjectionOptions, ProjectionStatus};

/// Keys that are folded by themselves at once: their rows are in memory.
const KEYS_MAX: usize = 1_000;
/// Most keys of a sample.
const SAMPLE_MAX: usize = 1_000;
/// Looks at rows that differ, before they are folded by themselves.
const LOOKS: u32 = 3;
/// Between two such looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often progress is looked at while a scratch store is filled.
const STRIDE: Duration = Duration::from_millis(200);
/// Tries to read rows and what is parked as one state.
const STATES_MAX: usize = 10;

/// What is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The rows that show a stream.
    Stream(StreamId),
    /// So many rows, half of them drawn from the store and half from the log.
    Sample(usize),
    /// All rows.
    Whole,
    /// All rows beside those in use, and all in use that differ from them.
    Beside,
    /// All rows beside those in use, whatever those in use are like: whether a switch would be right.
    Rebuilt,
}

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Those that reads are answered from.
    InUse,
    /// Those beside them.
    Beside,
}

/// The first row that is not what the log makes of it.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Of which rows.
    pub rows: Side,
    /// Its table.
    pub table: &'static str,
    /// Its key.
    pub key: String,
    /// What differs, in a sentence.
    pub detail: String,
    /// The last event that touched it.
    pub position: Option<Position>,
    /// The document as it is; null if there is none.
    pub found: Value,
    /// As the log makes it.
    pub expected: Value,
}

/// How a check stands.
#[derive(Clone, Debug, Serialize)]
pub struct CheckState {
    /// `stream`, `sample`, `whole`, `beside` or `rebuilt`.
    pub scope: &'static str,
    /// `running`, `equal`, `different` or `failed`.
    pub state: &'static str,
    /// What it is at: `folding`, `comparing`.
    pub phase: &'static str,
    /// Steps of the phase that are done: records, or rows.
    pub done: u64,
    /// Steps of the phase, if known.
    pub total: Option<u64>,
    /// Rows checked so far.
    pub rows: u64,
    /// Streams set aside: of their rows nothing is expected that came after.
    pub parked: usize,
    /// The first difference.
    pub difference: Option<Difference>,
    /// Why it failed.
    pub why: Option<String>,
    /// How long it takes, or took.
    pub seconds: f64,
}

/// The check under way, or the last one.
#[derive(Default)]
pub(super) struct Checks {
    last: Mutex<Option<Arc<Run>>>,
}

impl Checks {
    /// Ends what is under way.
    pub(super) fn stop(&self) {
        if let Some(run) = &*self.last.lock() {
            run.stop.cancel();
        }
    }
}

/// One check.
struct Run {
    scope: &'static str,
    began: Instant,
    stop: CancellationToken,
    phase: Mutex<(&'static str, Option<u64>)>,
    done: AtomicU64,
    rows: AtomicU64,
    parked: AtomicU64,
    end: Mutex<Option<Ended>>,
}

struct Ended {
    took: Duration,
    result: Result<Option<Difference>, String>,
}

impl Run {
    fn phase(&self, phase: &'static str, total: Option<u64>) {
        *self.phase.lock() = (phase, total);
        self.done.store(0, Ordering::Relaxed);
    }

    fn state(&self) -> CheckState {
        let (phase, total) = *self.phase.lock();
        let end = self.end.lock();
        let (state, difference, why) = match end.as_ref().map(|end| &end.result) {
            None => ("running", None, None),
            Some(Ok(None)) => ("equal", None, None),
            Some(Ok(Some(difference))) => ("different", Some(difference.clone()), None),
            Some(Err(why)) => ("failed", None, Some(why.clone())),
        };
        CheckState {
            scope: self.scope,
            state,
            phase,
            done: self.done.load(Ordering::Relaxed),
            total,
            rows: self.rows.load(Ordering::Relaxed),
            parked: self.parked.load(Ordering::Relaxed) as usize,
            difference,
            why,
            seconds: end.as_ref().map_or_else(|| self.began.elapsed(), |end| end.took).as_secs_f64(),
        }
    }
}

/// What the log makes of some keys.
#[derive(Default)]
struct Made {
    rows: BTreeMap<RowKey, Option<Row>>,
    last: BTreeMap<RowKey, Position>,
    /// The first event that cannot be folded although its stream is not parked.
    unfolded: Option<(StreamId, Position, String)>,
}

impl<V: View> Operations<V> {
    /// Begins a check; one at a time.
    pub async fn begin_check(&self, scope: Scope) -> Result<CheckState, Denied> {
        let word = match &scope {
            Scope::Stream(_) => "stream",
            Scope::Sample(_) => "sample",
            Scope::Whole => "whole",
            Scope::Beside => "beside",
            Scope::Rebuilt => "rebuilt",
        };
        let beside = match scope {
            Scope::Beside | Scope::Rebuilt => Some(self.fed_beside().ok_or(Denied::Nothing("rebuilt"))?),
            _ => None,
        };
        let run = {
            let mut last = self.inner.checks.last.lock();
            if last.as_ref().is_some_and(|run| run.end.lock().is_none()) {
                return Err(Denied::Busy("a check"));
            }
            let run = Arc::new(Run {
                scope: word,
                began: Instant::now(),
                stop: CancellationToken::new(),
                phase: Mutex::new(("folding", None)),
                done: AtomicU64::new(0),
                rows: AtomicU64::new(0),
                parked: AtomicU64::new(0),
                end: Mutex::new(None),
            });
            *last = Some(run.clone());
            run
        };
        let (running, checks) = (run.clone(), self.clone());
        tokio::spawn(async move {
            let checked = tokio::spawn({
                let run = running.clone();
                async move { checks.check(scope, beside, &run).await }
            });
            let result = match checked.await {
                Ok(Ok(difference)) => Ok(difference),
                Ok(Err(denied)) => Err(crate::chain(&denied)),
                Err(cut) => Err(format!("its task ended: {cut}")),
            };
            *running.end.lock() = Some(Ended { took: running.began.elapsed(), result });
        });
        Ok(run.state())
    }

    /// The check under way or the last one since the start.
    pub fn check_state(&self) -> Option<CheckState> {
        self.inner.checks.last.lock().as_ref().map(|run| run.state())
    }

    async fn check(
        &self,
        scope: Scope,
        beside: Option<Arc<dyn ReadStore>>,
        run: &Arc<Run>,
    ) -> Result<Option<Difference>, Denied> {
        let in_use: Arc<dyn ReadStore> = self.inner.store.clone();
        run.parked.store(waits(&in_use).await?.len() as u64, Ordering::Relaxed);
        match (scope, beside) {
            (Scope::Stream(stream), _) => {
                let partition = partition_of(&stream.tenant, &stream.name, self.inner.genesis.partitions);
                let keys = self.rows_of(stream, partition, run).await?;
                if keys.is_empty() {
                    return Err(Denied::NoRows);
                }
                self.verify(Side::InUse, &in_use, keys, vec![partition], run).await
            }
            (Scope::Sample(count), _) => {
                let count = count.clamp(1, SAMPLE_MAX);
                let mut keys = self.drawn_rows(&in_use, count.div_ceil(2), run).await?;
                keys.extend(self.drawn_events(count / 2, run).await?);
                self.verify(Side::InUse, &in_use, keys, self.partitions(), run).await
            }
            (Scope::Whole, _) => {
                let scratch = (self.inner.scratch)().await?;
                self.fill(&scratch, run).await?;
                let sides = [(Side::InUse, in_use.clone())];
                self.walk(&in_use, &scratch, &sides, run).await
            }
            (Scope::Beside, Some(beside)) => {
                let sides = [(Side::Beside, beside.clone()), (Side::InUse, in_use.clone())];
                self.walk(&in_use, &beside, &sides, run).await
            }
            (Scope::Rebuilt, Some(beside)) => {
                let sides = [(Side::Beside, beside.clone())];
                self.walk(&in_use, &beside, &sides, run).await
            }
            (Scope::Beside | Scope::Rebuilt, None) => Err(Denied::Nothing("rebuilt")),
        }
    }

    fn partitions(&self) -> Vec<Partition> {
        (0..self.inner.genesis.partitions).map(Partition).collect()
    }

    /// Reads the log in a thread that may wait.
    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Denied> {
        let operations = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&operations)).await;
        done.unwrap_or_else(|cut| Err(format!("the reading task ended: {cut}"))).map_err(Denied::Log)
    }

    /// Counts records as read; false to stop.
    fn stride(run: &Run) -> impl FnMut(u64) -> bool + '_ {
        |records| {
            run.done.fetch_add(records, Ordering::Relaxed);
            !run.stop.is_cancelled()
        }
    }

    /// The rows that a stream's events touch.
    async fn rows_of(
        &self,
        stream: StreamId,
        partition: Partition,
        run: &Arc<Run>,
    ) -> Result<BTreeSet<RowKey>, Denied> {
        let run = run.clone();
        self.reading(move |this| {
            let mut keys = BTreeSet::new();
            let (log, to) = (this.inner.log.as_ref(), this.inner.log.end(partition));
            run.phase("folding", Some(to.0));
            scan::<V::Event>(log, partition, to, Self::stride(&run), |met| {
                if met.stream == stream
                    && let Ok(event) = &met.event
                {
                    let rows = catch_unwind(AssertUnwindSafe(|| this.inner.view.rows(event)));
                    keys.extend(rows.into_iter().flatten());
                }
            })?;
            Ok(keys)
        })
        .await
    }

    /// Draws rows of the store, each as likely as any other.
    async fn drawn_rows(
        &self,
        store: &Arc<dyn ReadStore>,
        count: usize,
        run: &Arc<Run>,
    ) -> Result<BTreeSet<RowKey>, Denied> {
        run.phase("drawing", None);
        let mut drawn = Draw::of(count);
        for table in self.inner.view.tables() {
            let mut after = None;
            loop {
                let page = page(store, table.name, after).await?;
                let Some((key, _)) = page.last() else { break };
                after = Some(key.clone());
                run.done.fetch_add(page.len() as u64, Ordering::Relaxed);
                page.into_iter().for_each(|(key, _)| drawn.offer(RowKey { table: table.name, key }));
                if run.stop.is_cancelled() {
                    return Err(stopped());
                }
            }
        }
        Ok(drawn.keys.into_iter().collect())
    }

    /// Draws rows that the log's events touch, those that are touched often more likely.
    async fn drawn_events(&self, count: usize, run: &Arc<Run>) -> Result<BTreeSet<RowKey>, Denied> {
        let run = run.clone();
        run.phase("drawing", Some(self.records()));
        self.reading(move |this| {
            let mut drawn = Draw::of(count);
            for partition in this.partitions() {
                let (log, to) = (this.inner.log.as_ref(), this.inner.log.end(partition));
                scan::<V::Event>(log, partition, to, Self::stride(&run), |met| {
                    let Ok(event) = &met.event else { return };
                    let rows = catch_unwind(AssertUnwindSafe(|| this.inner.view.rows(event)));
                    rows.into_iter().flatten().for_each(|key| drawn.offer(key));
                })?;
            }
            Ok(drawn.keys.into_iter().collect())
        })
        .await
    }

    /// Folds the whole log into an empty store, as far as the live rows are now.
    async fn fill(&self, scratch: &Arc<dyn ReadStore>, run: &Arc<Run>) -> Result<(), Denied> {
        let inner = &self.inner;
        let goal = inner.live.watermark();
        let total = goal.iter().map(|next| next.0).sum();
        run.phase("folding", Some(total));
        let (log, view, clock) = (inner.log.clone(), inner.view.clone(), inner.clock.clone());
        let options = ProjectionOptions { name: "check", ..inner.options.clone() };
        let filling = Projection::start(log, &inner.genesis, view, scratch.clone(), clock, options).await?;
        let goal = positions(&goal);
        while filling.wait_for(&goal, STRIDE).await.is_err() {
            let done: u64 = filling.watermark().iter().map(|next| next.0).sum();
            run.done.store(done.min(total), Ordering::Relaxed);
            match filling.status() {
                _ if run.stop.is_cancelled() => return Err(stopped()),
                ProjectionStatus::Failed(fault) => return Err(fault.into()),
                ProjectionStatus::Stopped => return Err(stopped()),
                ProjectionStatus::Running | ProjectionStatus::Waiting(_) => {}
            }
        }
        filling.stop().await;
        Ok(())
    }

    /// Walks both in the order of their keys; what differs is folded by itself for each of the `sides`.
    async fn walk(
        &self,
        one: &Arc<dyn ReadStore>,
        other: &Arc<dyn ReadStore>,
        sides: &[(Side, Arc<dyn ReadStore>)],
        run: &Arc<Run>,
    ) -> Result<Option<Difference>, Denied> {
        run.phase("comparing", None);
        let mut suspects = BTreeSet::new();
        for table in self.inner.view.tables() {
            let mut after = None;
            loop {
                if run.stop.is_cancelled() {
                    return Err(stopped());
                }
                let mut here = page(one, table.name, after.clone()).await?;
                let mut there = page(other, table.name, after.clone()).await?;
                // What lies behind the end of a full page is seen with the next one.
                let ends = [&here, &there].map(|page| {
                    let full = page.len() == PAGE as usize;
                    page.last().filter(|_| full).map(|(key, _)| key.clone())
                });
                let end = ends.into_iter().flatten().min();
                if let Some(end) = &end {
                    here.retain(|(key, _)| key <= end);
                    there.retain(|(key, _)| key <= end);
                }
                let count = here.len().max(there.len()) as u64;
                run.done.fetch_add(count, Ordering::Relaxed);
                run.rows.fetch_add(count, Ordering::Relaxed);
                let (here, there) = (here.into_iter().collect::<BTreeMap<_, _>>(), BTreeMap::from_iter(there));
                let keys = here.keys().chain(there.keys()).collect::<BTreeSet<_>>();
                for key in keys {
                    if here.get(key) != there.get(key) {
                        suspects.insert(RowKey { table: table.name, key: key.clone() });
                    }
                }
                if suspects.len() >= KEYS_MAX {
                    let found = self.settle(one, other, sides, std::mem::take(&mut suspects), run).await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                    run.phase("comparing", None);
                }
                match end {
                    Some(end) => after = Some(end),
                    None => break,
                }
            }
        }
        self.settle(one, other, sides, suspects, run).await
    }

    /// Looks again at rows that differed, and folds those by themselves that still do.
    async fn settle(
        &self,
        one: &Arc<dyn ReadStore>,
        other: &Arc<dyn ReadStore>,
        sides: &[(Side, Arc<dyn ReadStore>)],
        mut suspects: BTreeSet<RowKey>,
        run: &Arc<Run>,
    ) -> Result<Option<Difference>, Denied> {
        for _ in 0..LOOKS {
            if suspects.is_empty() {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            let here = load(one, &suspects).await?;
            let there = load(other, &suspects).await?;
            suspects.retain(|key| here.get(key) != there.get(key));
        }
        let suspects = suspects.into_iter().collect::<Vec<_>>();
        for keys in suspects.chunks(KEYS_MAX) {
            for (side, store) in sides {
                let keys = keys.iter().cloned().collect();
                let found = self.verify(*side, store, keys, self.partitions(), run).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Folds the log onto these keys, as far as the state goes in which their rows are read, and compares.
    async fn verify(
        &self,
        side: Side,
        store: &Arc<dyn ReadStore>,
        keys: BTreeSet<RowKey>,
        partitions: Vec<Partition>,
        run: &Arc<Run>,
    ) -> Result<Option<Difference>, Denied> {
        let (rows, checkpoints, waits) = self.state_of(store, &keys).await?;
        run.parked.store(waits.len() as u64, Ordering::Relaxed);
        run.rows.fetch_max(keys.len() as u64, Ordering::Relaxed);
        let at = move |partition: Partition| checkpoints.get(&partition).map_or(0, |at: &Checkpoint| at.next_offset.0);
        run.phase("folding", Some(partitions.iter().map(|partition| at(*partition)).sum()));
        let (wanted, running) = (keys.clone(), run.clone());
        let mut made = self
            .reading(move |this| {
                let mut made = Made::default();
                for partition in partitions {
                    this.fold_onto(&wanted, partition, at(partition), &waits, &mut made, &running)?;
                }
                Ok(made)
            })
            .await?;
        if run.stop.is_cancelled() {
            return Err(stopped());
        }
        if let Some((stream, position, why)) = made.unfolded {
            return Ok(Some(Difference {
                rows: side,
                table: PARKED_TABLE.name,
                key: parked_key(&stream).key,
                detail: format!("an event cannot be folded, and its stream is not set aside: {why}"),
                position: Some(position),
                found: Value::Null,
                expected: Value::Null,
            }));
        }
        for key in keys {
            let (found, expected) = (rows.get(&key), made.rows.remove(&key).flatten());
            if let Some(detail) = differs(found, expected.as_ref()) {
                let doc = |row: Option<&Row>| row.map_or(Value::Null, |row| row.doc.value());
                return Ok(Some(Difference {
                    rows: side,
                    table: key.table,
                    detail,
                    position: made.last.get(&key).copied(),
                    found: doc(found),
                    expected: doc(expected.as_ref()),
                    key: key.key,
                }));
            }
        }
        Ok(None)
    }

    /// Rows, how far they were folded, and what was parked then.
    async fn state_of(
        &self,
        store: &Arc<dyn ReadStore>,
        keys: &BTreeSet<RowKey>,
    ) -> Result<(BTreeMap<RowKey, Row>, BTreeMap<Partition, Checkpoint>, Waits), Denied> {
        for _ in 0..STATES_MAX {
            let before = waits(store).await?;
            let (reading, asked) = (store.clone(), keys.iter().cloned().collect());
            let (rows, checkpoints) = spawned(async move { reading.load_at(asked).await }).await?;
            if waits(store).await? == before {
                return Ok((rows, checkpoints, before));
            }
        }
        Err(Denied::Busy("parking"))
    }

    /// Folds a partition's events below an offset onto those rows that are wanted.
    fn fold_onto(
        &self,
        wanted: &BTreeSet<RowKey>,
        partition: Partition,
        to: u64,
        waits: &Waits,
        made: &mut Made,
        run: &Run,
    ) -> Result<(), String> {
        let view = &self.inner.view;
        let to = engine::position::Offset(to);
        scan::<V::Event>(self.inner.log.as_ref(), partition, to, Self::stride(run), |met| {
            if waits.get(&met.stream).is_some_and(|from| met.version >= *from) {
                return;
            }
            let folded = met.event.and_then(|event| {
                let folding = catch_unwind(AssertUnwindSafe(|| {
                    for key in view.rows(&event).into_iter().filter(|key| wanted.contains(key)) {
                        let before = made.rows.remove(&key).flatten();
                        let after = view.evolve(&key, before, &event);
                        made.last.insert(key.clone(), met.position);
                        made.rows.insert(key, after);
                    }
                }));
                folding.map_err(|panic| crate::panic_text(panic.as_ref()))
            });
            if let Err(why) = folded
                && made.unfolded.is_none()
            {
                made.unfolded = Some((met.stream, met.position, why));
            }
        })
    }
}

fn stopped() -> Denied {
    Denied::Projection(ProjectionFault::Wrong("the check was ended".to_owned()))
}
