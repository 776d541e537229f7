//! The tail of a log whose read store nodes share, for the rows at hand: no node knows what the others commit, but all
//! read the same log. Each record is told once and in order; the few rows that are at hand are folded on, the others only
//! noted as touched. It begins where the store is, and is woken by the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::event::{Event, Recorded};
use engine::fold::Verdict;
use engine::position::{Checkpoint, Partition, Position};
use engine::read_store::StoreFault;
use engine::record::{Body, Header, Kind, Record};
use engine::view::View;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::worker::{Source, jittered, spawned};

/// First wait before a store that did not answer is asked again where it is; doubles.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
/// Longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Bytes read from one partition at once.
const READ_BYTES_MAX: usize = 256 << 10;

/// Tells the cache of every record, until it is stopped. Should the log not be readable the cache keeps nothing any more.
pub(super) async fn follow<V: View>(source: Source<V>, stop: CancellationToken) {
    let cache = Arc::clone(&source.published.cache);
    if let Some(Err(why)) = stop.clone().run_until_cancelled_owned(follow_on(source)).await {
        warn!(error = %why, "rows are not kept at hand any more");
    }
    cache.ends();
}

async fn follow_on<V: View>(source: Source<V>) -> Result<(), String> {
    let mut at = where_it_is(&source).await?;
    for (partition, checkpoint) in &at {
        source.published.cache.begins(*partition, checkpoint.next_offset);
    }
    let woken = Arc::new(Notify::new());
    let waking = Arc::clone(&woken);
    let _waker = source.log.on_append(Arc::new(move || waking.notify_one()));
    loop {
        let reading = source.clone();
        let read = tokio::task::spawn_blocking(move || {
            let told = at.iter_mut().map(|(partition, checkpoint)| tell(&reading, *partition, checkpoint));
            let told = told.collect::<Result<Vec<bool>, String>>();
            (at, told)
        });
        let (next, told) = read.await.map_err(|cut| cut.to_string())?;
        at = next;
        if !told?.contains(&true) {
            woken.notified().await;
        }
    }
}

/// Where the store is: what it has is as good a beginning as any.
async fn where_it_is<V: View>(source: &Source<V>) -> Result<Vec<(Partition, Checkpoint)>, String> {
    let mut wait = AGAIN_FIRST;
    loop {
        let (store, log_id) = (Arc::clone(&source.store), source.genesis.log);
        match spawned(async move { store.open(log_id).await }).await {
            Ok(found) => {
                let all = (0..source.genesis.partitions).map(Partition);
                return Ok(all.map(|at| (at, found.get(&at).copied().unwrap_or_default())).collect());
            }
            Err(StoreFault::Unavailable(_)) => tokio::time::sleep(jittered(wait)).await,
            Err(fault) => return Err(crate::chain(&fault)),
        }
        wait = (wait * 2).min(AGAIN_MAX);
    }
}

/// Tells what a partition has more, at most a stretch of it. False if there was nothing.
fn tell<V: View>(source: &Source<V>, partition: Partition, at: &mut Checkpoint) -> Result<bool, String> {
    // A copy of the log may be behind the store: then what comes until it has caught up is told late, and does no harm.
    if at.next_offset >= source.log.end(partition) {
        return Ok(false);
    }
    let read = source.log.read(partition, at.next_offset, READ_BYTES_MAX);
    let mut told = false;
    for stored in read.map_err(|fault| crate::chain(&fault))? {
        let position = Position { partition, offset: stored.offset };
        if stored.offset != at.next_offset {
            return Err(format!("{position} came where {} was asked for", at.next_offset));
        }
        let header = Header::decode(&stored.bytes).map_err(|fault| format!("{position}: {fault}"))?;
        let is_commit = at.accept(&header) == Verdict::Effective && header.kind == Kind::Commit;
        tell_record(source, position, is_commit.then_some(&stored.bytes));
        told = true;
    }
    Ok(told)
}

/// Tells of one record; nothing is in it if it is no effective one.
fn tell_record<V: View>(source: &Source<V>, position: Position, bytes: Option<&Bytes>) {
    let Position { partition, offset } = position;
    let events = match bytes {
        None => Ok(Vec::new()),
        Some(bytes) => events_of::<V::Event>(position, bytes),
    };
    let cache = &source.published.cache;
    let told = events.and_then(|events| {
        let telling = AssertUnwindSafe(|| cache.record(source.view.as_ref(), partition, offset, Some(&events)));
        catch_unwind(telling).map_err(|panic| crate::panic_text(panic.as_ref()))
    });
    if let Err(why) = told {
        // Whoever feeds the store parks it, and says so loudly.
        debug!(%position, %why, "a record cannot be folded: all rows are loaded again");
        cache.record(source.view.as_ref(), partition, offset, None);
    }
}

fn events_of<E: Event>(position: Position, bytes: &Bytes) -> Result<Vec<Recorded<E>>, String> {
    let record = Record::decode(bytes).map_err(|fault| fault.to_string())?;
    let Body::Commit(commit) = record.body else { return Ok(Vec::new()) };
    let events = commit.events().map(|told| told.read(position));
    events.collect::<Result<_, _>>().map_err(|fault| fault.to_string())
}
