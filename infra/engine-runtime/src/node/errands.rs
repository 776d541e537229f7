//! The saga runner: carries out what streams owe. What is owed is in the streams' states, so nothing here is worth
//! keeping: it is a table of the streams that owe something, a line of errands to be tried, and back-off in memory. Each
//! errand has at most one try under way; it ends when its stream no longer owes it.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use engine::message::{Answer, CommandId, Provenance};
use engine::position::{Partition, Position, Version};
use engine::saga::{Ask, Heard, Pending, Reactor};
use engine::stream::StreamId;
use futures::FutureExt;
use metrics::{Gauge, gauge};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::NodeOptions;
use super::shared::{Shared, blocking};

/// First wait between tries of an errand; doubles from try to try.
const BACK_OFF_FIRST_MS: u64 = 50;
/// Longest such wait.
const BACK_OFF_MAX_MS: u64 = 10_000;
/// Longest wait for a recorded time without looking at the clock, which may jump.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// Tries to record what came back before the errand itself is tried again.
const RECORD_TRIES_MAX: u32 = 5;

/// What all partitions owe.
pub(crate) struct Errands<R: Reactor> {
    desks: Vec<Mutex<Desk<R>>>,
    line: Mutex<Line>,
    woken: Notify,
    pub(crate) permits: Arc<Semaphore>,
    open_max: usize,
    late_max: Duration,
    in_flight: Gauge,
}

/// What one partition owes.
struct Desk<R: Reactor> {
    open: BTreeMap<StreamId, Open<R>>,
    /// Errands in line or under way, with their tries so far.
    tries: BTreeMap<CommandId, u32>,
}

/// A stream that owes something.
struct Open<R: Reactor> {
    version: Version,
    state: Arc<R::State>,
    /// What its commands carry; `None` after take-over, until looked up.
    provenance: Option<Provenance>,
    pending: Vec<Pending<R::Command, R::Call>>,
}

/// Errands to be tried now, and later.
#[derive(Default)]
struct Line {
    /// Each since when it has been due.
    ready: VecDeque<(Instant, Key)>,
    later: BTreeMap<(Instant, u64), Key>,
    numbered: u64,
}

#[derive(Clone, Debug)]
struct Key {
    partition: Partition,
    stream: StreamId,
    id: CommandId,
}

/// An errand as its stream now owes it.
struct Owed<R: Reactor> {
    version: Version,
    state: Arc<R::State>,
    provenance: Option<Provenance>,
    pending: Pending<R::Command, R::Call>,
}

/// What a try came to.
enum Tried {
    /// The stream no longer owes it.
    Done,
    /// Again after this long; it is not its time yet.
    NotYet(Duration),
    /// Again after a back-off.
    Again,
}

impl<R: Reactor> Errands<R> {
    pub(crate) fn new(partitions: u16, options: &NodeOptions) -> Self {
        let desk = || Mutex::new(Desk { open: BTreeMap::new(), tries: BTreeMap::new() });
        Self {
            desks: (0..partitions).map(|_| desk()).collect(),
            line: Mutex::new(Line::default()),
            woken: Notify::new(),
            permits: Arc::new(Semaphore::new(options.errands_max)),
            open_max: options.open_max,
            late_max: options.late_max,
            in_flight: gauge!("docket_errands_in_flight"),
        }
    }

    fn desk(&self, partition: Partition) -> &Mutex<Desk<R>> {
        &self.desks[usize::from(partition.0)]
    }

    /// What the stream owes from now on: nothing, or these.
    pub(crate) fn owes(
        &self,
        partition: Partition,
        stream: StreamId,
        version: Version,
        state: Arc<R::State>,
        provenance: Option<Provenance>,
        pending: Vec<Pending<R::Command, R::Call>>,
    ) {
        let mut new = Vec::new();
        {
            let mut desk = self.desk(partition).lock();
            if pending.is_empty() {
                desk.open.remove(&stream);
                return;
            }
            for errand in &pending {
                if let std::collections::btree_map::Entry::Vacant(entry) = desk.tries.entry(errand.id) {
                    entry.insert(0);
                    new.push(Key { partition, stream: stream.clone(), id: errand.id });
                }
            }
            desk.open.insert(stream, Open { version, state, provenance, pending });
        }
        if !new.is_empty() {
            let now = Instant::now();
            self.line.lock().ready.extend(new.into_iter().map(|key| (now, key)));
            self.woken.notify_one();
        }
    }

    /// How many wait for their turn, and how many for their time.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let line = self.line.lock();
        (line.ready.len(), line.later.len())
    }

    /// How many streams owe something, of each partition.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.desks.iter().map(|desk| desk.lock().open.len())
    }

    /// How long the one that is next in line has been waiting; zero where none waits.
    pub(crate) fn late(&self) -> Duration {
        self.line.lock().ready.front().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    /// Whether nothing more is to be begun in the partition: so much is owed there that it fills memory, or what is owed,
    /// there or anywhere on this node, is late, and whatever is begun would make all of it later. What is owed goes on.
    pub(crate) fn is_crowded(&self, partition: Partition) -> bool {
        self.desk(partition).lock().open.len() >= self.open_max || self.late() > self.late_max
    }

    /// Nothing is owed here any more: the partition is not led.
    pub(crate) fn clear(&self, partition: Partition) {
        self.desk(partition).lock().open.clear();
    }

    /// The errand, if it is still owed. If not it is forgotten, in the same breath: owed again it gets in line again.
    fn owed(&self, key: &Key) -> Option<Owed<R>> {
        let mut desk = self.desk(key.partition).lock();
        let found = desk.open.get(&key.stream).and_then(|open| {
            let pending = open.pending.iter().find(|pending| pending.id == key.id)?;
            Some(Owed {
                version: open.version,
                state: open.state.clone(),
                provenance: open.provenance.clone(),
                pending: pending.clone(),
            })
        });
        if found.is_none() {
            desk.tries.remove(&key.id);
        }
        found
    }

    fn found_provenance(&self, key: &Key, version: Version, provenance: &Provenance) {
        let mut desk = self.desk(key.partition).lock();
        if let Some(open) = desk.open.get_mut(&key.stream)
            && open.version == version
        {
            open.provenance = Some(provenance.clone());
        }
    }

    fn tried(&self, key: &Key) -> u32 {
        let mut desk = self.desk(key.partition).lock();
        let tries = desk.tries.entry(key.id).or_insert(0);
        *tries = tries.saturating_add(1);
        *tries
    }

    fn later(&self, key: Key, wait: Duration) {
        let mut line = self.line.lock();
        line.numbered += 1;
        let place = (Instant::now() + wait, line.numbered);
        line.later.insert(place, key);
        drop(line);
        self.woken.notify_one();
    }

    /// The next errand to try, or when to look again.
    fn next(&self) -> Result<Key, Option<Instant>> {
        let mut line = self.line.lock();
        let now = Instant::now();
        while let Some(entry) = line.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let (since, key) = (entry.key().0, entry.remove());
            line.ready.push_back((since, key));
        }
        line.ready.pop_front().map(|(_, key)| key).ok_or_else(|| line.later.first_key_value().map(|((at, _), _)| *at))
    }
}

/// The task that sends errands on their way, in order, as many at once as there are permits.
pub(crate) async fn dispatch<R: Reactor>(shared: Arc<Shared<R>>) {
    let end = shared.errands_end.clone();
    let work = async {
        loop {
            let Ok(permit) = shared.errands.permits.clone().acquire_owned().await else { return };
            let key = loop {
                match shared.errands.next() {
                    Ok(key) => break key,
                    Err(None) => shared.errands.woken.notified().await,
                    Err(Some(at)) => tokio::select! {
                        () = shared.errands.woken.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    },
                }
            };
            shared.tasks.spawn(run(shared.clone(), key, permit));
        }
    };
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        () = work => {}
    }
}

async fn run<R: Reactor>(shared: Arc<Shared<R>>, key: Key, _permit: OwnedSemaphorePermit) {
    shared.errands.in_flight.increment(1);
    let end = shared.errands_end.clone();
    let tried = tokio::select! {
        biased;
        () = end.cancelled() => Ok(Tried::Done),
        tried = AssertUnwindSafe(attempt(&shared, &key)).catch_unwind() => tried,
    };
    shared.errands.in_flight.decrement(1);
    let again = tried.unwrap_or_else(|panic| {
        let why = crate::panic_text(panic.as_ref());
        error!(fault.code = "errand-panicked", stream = %key.stream.name, errand.id = %key.id, error = %why, "an errand panicked");
        Tried::Again
    });
    match again {
        Tried::Done => {}
        Tried::NotYet(wait) => shared.errands.later(key, wait),
        Tried::Again => {
            let tries = shared.errands.tried(&key);
            shared.errands.later(key, back_off(&shared, tries));
        }
    }
}

/// How long to wait after so many tries: doubling, with up to half of it in jitter on top.
pub(crate) fn back_off<R: Reactor>(shared: &Shared<R>, tries: u32) -> Duration {
    let wait = BACK_OFF_FIRST_MS.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(BACK_OFF_MAX_MS);
    Duration::from_millis(wait + shared.chance.below(wait / 2 + 1))
}

/// One try: ask, hear, record.
async fn attempt<R: Reactor>(shared: &Arc<Shared<R>>, key: &Key) -> Tried {
    let Some(owed) = shared.errands.owed(key) else { return Tried::Done };
    if let Some(wait) = not_yet(shared, &owed.pending) {
        return Tried::NotYet(wait);
    }
    let provenance = match owed.provenance {
        Some(provenance) => provenance,
        None => {
            let Some(provenance) = provenance_of(shared, key, owed.version).await else { return Tried::Again };
            shared.errands.found_provenance(key, owed.version, &provenance);
            provenance
        }
    };
    let Some(heard) = ask(shared, key, owed.pending, provenance).await else { return Tried::Again };
    for tries in 1..=RECORD_TRIES_MAX {
        // As it stands now: the answer may have come by another way.
        let Some(owed) = shared.errands.owed(key) else { return Tried::Done };
        let now = shared.clock.now();
        let Some((id, command)) = shared.decider.heard(&key.stream.name, &owed.state, &owed.pending, &heard, now)
        else {
            return Tried::Again;
        };
        let provenance = owed.provenance.unwrap_or_default();
        let Some(envelope) = shared.own_envelope(id, &key.stream.tenant, command, provenance) else {
            error!(fault.code = "errand-without-stream", stream = %key.stream.name, "a recording command names no stream");
            return Tried::Again;
        };
        match shared.submit_own(envelope).await {
            Ok(answer) => {
                if let Answer::Invalid(_) | Answer::Reused | Answer::Expired = answer {
                    warn!(stream = %key.stream.name, errand.id = %key.id, "what an errand heard cannot be recorded: {answer:?}");
                }
                let Some(owed) = shared.errands.owed(key) else { return Tried::Done };
                return not_yet(shared, &owed.pending).map_or(Tried::Again, Tried::NotYet);
            }
            Err(why) => {
                debug!(stream = %key.stream.name, errand.id = %key.id, "not recorded yet: {why}");
                tokio::time::sleep(back_off(shared, tries)).await;
            }
        }
    }
    Tried::Again
}

/// How long until the errand may be sent; `None` if it may be now.
fn not_yet<R: Reactor>(shared: &Shared<R>, pending: &Pending<R::Command, R::Call>) -> Option<Duration> {
    let wait = pending.not_before?.micros_since(shared.clock.now());
    (wait > 0).then(|| Duration::from_micros(wait).min(CLOCK_LOOK))
}

/// Sends the errand; `None` if nothing certain came back.
async fn ask<R: Reactor>(
    shared: &Arc<Shared<R>>,
    key: &Key,
    pending: Pending<R::Command, R::Call>,
    provenance: Provenance,
) -> Option<Heard<R::Returned>> {
    match pending.ask {
        Ask::Command(command) => {
            let envelope = shared.own_envelope(pending.id, &key.stream.tenant, command, provenance)?;
            match shared.submit_own(envelope).await {
                Ok(Answer::Decided(decided)) => Some(Heard::Outcome(decided.outcome, decided.position)),
                Ok(Answer::Invalid(errors)) => {
                    let errors = errors.iter().map(|error| error.detail.as_str()).collect::<Vec<_>>();
                    Some(Heard::Invalid(errors.join("; ")))
                }
                Ok(Answer::Reused) => Some(Heard::Invalid("its id was used for something else".to_owned())),
                Ok(Answer::Expired) => Some(Heard::Invalid("its id is too old to be taken".to_owned())),
                // Only said of envelopes without a command.
                Ok(Answer::Unheard) => None,
                Err(why) => {
                    debug!(stream = %key.stream.name, errand.id = %key.id, "no answer yet: {why}");
                    None
                }
            }
        }
        Ask::Call(call) => {
            let call = AssertUnwindSafe(shared.outside.call(pending.id, call)).catch_unwind();
            let heard = match tokio::time::timeout(shared.options.call_wait, call).await {
                Ok(Ok(Ok(returned))) => Heard::Returned(returned),
                Ok(Ok(Err(why))) => Heard::Unreachable(why),
                Ok(Err(panic)) => {
                    let why = crate::panic_text(panic.as_ref());
                    error!(fault.code = "outside-panicked", errand.id = %key.id, error = %why, "an outside call panicked");
                    Heard::Unreachable(format!("the call panicked: {why}"))
                }
                Err(_) => Heard::Unreachable("no answer in time".to_owned()),
            };
            Some(heard)
        }
    }
}

/// What commands of a stream that was taken over carry: that of the record that last changed it.
async fn provenance_of<R: Reactor>(shared: &Arc<Shared<R>>, key: &Key, version: Version) -> Option<Provenance> {
    let (looking, stream) = (shared.clone(), key.stream.clone());
    let found = blocking(move || looking.store.offset_of(&stream.tenant, &stream.name, version)).await;
    let offset = match found {
        Ok(offset) => offset?,
        Err(fault) => {
            error!(fault.code = "state-store-unreadable", error = %crate::chain(&fault), "cannot find a record");
            return None;
        }
    };
    match shared.history.record_at(Position { partition: key.partition, offset }).await {
        Ok(commit) => Some(commit.provenance.caused_by(commit.command_id)),
        Err(fault) => {
            error!(fault.code = "log-damaged", error = %crate::chain(&fault), "cannot read a record");
            None
        }
    }
}
