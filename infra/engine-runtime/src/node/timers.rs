//! Timers: armed by what streams become, kept in the state store, fired as commands with fixed ids. In memory there is only
//! the next due time of each partition. The clock may jump: it is looked at every second at the latest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use engine::message::{CommandId, Provenance};
use engine::position::Partition;
use engine::saga::Reactor;
use engine::stream::StreamId;
use engine::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{error, warn};

use super::errands::back_off;
use super::shared::{Shared, blocking};
use crate::store::{DueTimer, StoreFault};

/// Longest sleep without looking at the clock.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// Timers of one partition fired in one go, beside those already being fired.
const DUE_PAGE: usize = 256;
/// Until the store is asked again whether what was fired is gone from it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The same when nothing new was found: what is left is waiting for its next try.
const LOOK_AGAIN_IDLE: Duration = Duration::from_millis(500);

/// When to look next, and what is being fired.
pub(crate) struct Timers {
    /// By partition, microseconds: no timer is due before.
    next: Vec<AtomicI64>,
    woken: Notify,
    firing: Mutex<BTreeSet<StreamId>>,
}

impl Timers {
    pub(crate) fn new(partitions: u16) -> Self {
        Self {
            next: (0..partitions).map(|_| AtomicI64::new(i64::MAX)).collect(),
            woken: Notify::new(),
            firing: Mutex::new(BTreeSet::new()),
        }
    }

    /// A timer of `partition` was armed for `due`.
    pub(crate) fn armed(&self, partition: Partition, due: Timestamp) {
        if self.next[usize::from(partition.0)].fetch_min(due.0, Ordering::AcqRel) > due.0 {
            self.woken.notify_one();
        }
    }

    fn next(&self, partition: Partition) -> Timestamp {
        Timestamp(self.next[usize::from(partition.0)].load(Ordering::Acquire))
    }

    /// A timer of `partition` may be due since it was last led.
    pub(crate) fn led(&self) {
        self.woken.notify_one();
    }
}

/// The task that fires what is due.
pub(crate) async fn run<R: Reactor>(shared: Arc<Shared<R>>) {
    let end = shared.errands_end.clone();
    let work = async {
        loop {
            let now = shared.clock.now();
            let mut earliest = Timestamp(i64::MAX);
            for partition in (0..shared.genesis.partitions).map(Partition) {
                if !shared.is_leading(partition) {
                    continue;
                }
                if shared.timers.next(partition) <= now {
                    look(&shared, partition, now).await;
                }
                earliest = earliest.min(shared.timers.next(partition));
            }
            let wait = earliest.micros_since(shared.clock.now());
            let wait = Duration::from_micros(wait).clamp(Duration::from_millis(1), CLOCK_LOOK);
            tokio::select! {
                () = shared.timers.woken.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        () = work => {}
    }
}

/// Fires what is due in a partition and sets when to look next.
async fn look<R: Reactor>(shared: &Arc<Shared<R>>, partition: Partition, now: Timestamp) {
    let slot = &shared.timers.next[usize::from(partition.0)];
    // Taken away before looking: what is armed meanwhile puts it back.
    slot.store(i64::MAX, Ordering::Release);
    // What was armed for at once may not be saved yet.
    let saved = shared.saver.flush().await;
    let limit = DUE_PAGE + shared.timers.firing.lock().len();
    let looking = shared.clone();
    let found = blocking(move || {
        let due = looking.store.due_timers(partition, now, limit)?;
        let next = if due.is_empty() { looking.store.next_due(partition)? } else { None };
        Ok((due, next))
    });
    let again = |wait: Duration| Timestamp(now.0).plus_ms(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let (due, next) = match found.await {
        Ok(found) if saved.is_ok() => found,
        Ok(_) => return shared.timers.armed(partition, again(CLOCK_LOOK)),
        Err(fault) => {
            error!(fault.code = "state-store-unreadable", partition = partition.0, error = %crate::chain(&fault), "cannot look for timers");
            return shared.timers.armed(partition, again(CLOCK_LOOK));
        }
    };
    if due.is_empty() {
        return shared.timers.armed(partition, next.unwrap_or(Timestamp(i64::MAX)));
    }
    let mut fresh = false;
    for found in due {
        if shared.timers.firing.lock().insert(found.stream.clone()) {
            fresh = true;
            shared.tasks.spawn(fire(shared.clone(), partition, found));
        }
    }
    shared.timers.armed(partition, again(if fresh { LOOK_AGAIN } else { LOOK_AGAIN_IDLE }));
}

/// Fires one timer until it is answered or no longer armed.
async fn fire<R: Reactor>(shared: Arc<Shared<R>>, partition: Partition, due: DueTimer) {
    let _firing = Firing { timers: &shared.timers, stream: &due.stream };
    let end = shared.errands_end.clone();
    let id = due.timer.command_id(&due.stream.name);
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        () = fire_until_gone(&shared, partition, id, &due) => {}
    }
}

/// Ends the firing also if it panics.
struct Firing<'a> {
    timers: &'a Timers,
    stream: &'a StreamId,
}

impl Drop for Firing<'_> {
    fn drop(&mut self) {
        self.timers.firing.lock().remove(self.stream);
    }
}

async fn fire_until_gone<R: Reactor>(shared: &Arc<Shared<R>>, partition: Partition, id: CommandId, due: &DueTimer) {
    let mut tries = 0;
    while shared.is_leading(partition) {
        let permit = shared.errands.permits.clone().acquire_owned().await;
        match shared.current(&due.stream).await {
            Ok(Some(current)) => {
                let agenda = shared.decider.react(&due.stream.name, current.version, &current.state);
                if agenda.timer != Some(due.timer) {
                    return;
                }
                let command = shared.decider.fire(&due.stream.name, &current.state, &due.timer);
                let (looking, at) = (shared.clone(), current.position);
                let provenance = match looking.history.record_at(at).await {
                    Ok(commit) => commit.provenance.caused_by(commit.command_id),
                    Err(fault) => {
                        error!(fault.code = "log-damaged", position = %at, error = %crate::chain(&fault), "cannot read a record");
                        Provenance::default()
                    }
                };
                if let Some(envelope) = shared.own_envelope(id, &due.stream.tenant, command, provenance)
                    && let Ok(answer) = shared.submit_own(envelope).await
                {
                    // Answered, and usually gone: look before waiting.
                    if let Ok(Some(after)) = shared.current(&due.stream).await
                        && after.version != current.version
                    {
                        continue;
                    }
                    if tries == 0 {
                        warn!(stream = %due.stream.name, timer.id = %id, "firing a timer changed nothing: {answer:?}");
                    }
                }
            }
            Ok(None) => return,
            // Told by the saver; the timer stays armed.
            Err(StoreFault::Full { .. }) => {}
            Err(fault) => {
                error!(fault.code = "state-store-unreadable", error = %crate::chain(&fault), "cannot look a stream up");
            }
        }
        drop(permit);
        tries += 1;
        tokio::time::sleep(back_off(shared, tries)).await;
    }
}
