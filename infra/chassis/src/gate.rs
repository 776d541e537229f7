//! Who is worked on now. A node that is asked for more than it can do must not begin everything at once: then all of it
//! would be late, and what is late is asked for again. A gate has so many places; who finds none waits, for a bounded
//! time, and is then told to come back. Waiting costs no CPU time, so that refusing many leaves the work for the others
//! undisturbed, and a client that has to wait asks less.
//!
//! While waits are short, who came first goes first. Once they are long, who came last does: the others have most of
//! their time behind them, and serving them would make everybody late.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::context::is_command;
use crate::problem::Problem;

/// Most that wait at one gate. 16,384: four for each connection there may be by default; one more is refused at once.
const WAITING_MAX: usize = 16_384;
/// Longest that a request keeps its place. What is not done by then waits for something else (a saga, a position, another
/// node, a disk that stalls) and does not keep this machine busy.
const HELD_MAX: Duration = Duration::from_secs(1);

/// What gates allow.
#[derive(Clone, Copy, Debug)]
pub struct GateLimits {
    /// Commands worked on at once.
    pub commands_max: usize,
    /// Reads worked on at once.
    pub reads_max: usize,
    /// Longest that a request waits for its turn.
    pub wait_max: Duration,
}

impl GateLimits {
    /// 512 commands: a few of the largest groups that were measured to help, and at the slowest disk worth the name still
    /// thousands a second. 512 reads. Half a second: longer than any stall that is not trouble, shorter than patience.
    pub const DEFAULT: Self = Self { commands_max: 512, reads_max: 512, wait_max: Duration::from_millis(500) };
}

impl Default for GateLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A gate for commands and one for reads, so that neither keeps the other out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gates {
    commands: Gate,
    reads: Gate,
}

impl Gates {
    /// Gates that allow this much.
    pub fn new(limits: &GateLimits) -> Self {
        Self {
            commands: Gate::new("command", limits.commands_max, limits.wait_max),
            reads: Gate::new("read", limits.reads_max, limits.wait_max),
        }
    }

    /// The gate before a request; what tells how this program is has none, or nobody could look while it is busy.
    pub(crate) fn before(&self, method: &Method, path: &str) -> Option<Gate> {
        let gated = path.starts_with("/v1/");
        gated.then(|| if is_command(method) { self.commands.clone() } else { self.reads.clone() })
    }
}

/// So many places, and who waits for one.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places_max: usize,
    wait_max: Duration,
    state: Mutex<State>,
    taken: Gauge,
    waited: Histogram,
    refused: Counter,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    place: oneshot::Sender<Place>,
}

/// A place at a gate, until dropped: then whoever waits has it.
#[derive(Debug)]
pub(crate) struct Place(Option<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.pass_on();
        }
    }
}

impl Gate {
    fn new(kind: &'static str, places_max: usize, wait_max: Duration) -> Self {
        Self(Arc::new(Shared {
            places_max,
            wait_max,
            state: Mutex::default(),
            taken: gauge!("docket_http_places_taken", "kind" => kind),
            waited: histogram!("docket_http_turn_wait_seconds", "kind" => kind),
            refused: counter!("docket_http_requests_refused_total", "kind" => kind),
        }))
    }

    /// A place, if one is free.
    fn try_enter(&self) -> Option<Place> {
        self.take(&mut self.state())
    }

    fn take(&self, state: &mut State) -> Option<Place> {
        (state.taken < self.0.places_max).then(|| {
            state.taken += 1;
            self.0.taken.increment(1);
            Place(Some(self.clone()))
        })
    }

    /// A place, waited for if need be; `None` if none came free in time.
    pub(crate) async fn enter(&self) -> Option<Place> {
        let shared = &*self.0;
        let since = Instant::now();
        let coming = {
            let mut state = self.state();
            if let Some(place) = self.take(&mut state) {
                return Some(place);
            }
            // Who has given up meanwhile keeps nobody else from waiting.
            if state.waiting.len() >= WAITING_MAX {
                state.waiting.retain(|waiting| !waiting.place.is_closed());
            }
            if state.waiting.len() >= WAITING_MAX {
                None
            } else {
                let (place, coming) = oneshot::channel();
                state.waiting.push_back(Waiting { since, place });
                Some(coming)
            }
        };
        let entered = match coming {
            Some(coming) => timeout_at(since + shared.wait_max, coming).await.ok().and_then(Result::ok),
            None => None,
        };
        shared.waited.record(since.elapsed());
        if entered.is_none() {
            shared.refused.increment(1);
        }
        entered
    }

    /// Gives a place that has come free to whoever is to have it.
    fn pass_on(&self) {
        let mut state = self.state();
        let patience = self.0.wait_max / 4;
        loop {
            let late = state.waiting.front().is_some_and(|first| first.since.elapsed() > patience);
            let next = if late { state.waiting.pop_back() } else { state.waiting.pop_front() };
            let Some(next) = next else { break };
            match next.place.send(Place(Some(self.clone()))) {
                Ok(()) => return,
                // It has given up. This place is the one in hand, not another one.
                Err(mut place) => place.0 = None,
            }
        }
        state.taken -= 1;
        self.0.taken.decrement(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counting cannot panic half-way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

tokio::task_local! {
    static TURN: RefCell<Turn>;
}

/// A request's way through its gate.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    gate: Option<Gate>,
    place: Option<Place>,
    /// Set once nobody waits for the answer any more.
    gone: Option<Arc<AtomicBool>>,
}

impl Turn {
    /// For a request before this gate.
    pub(crate) fn new(gate: Option<Gate>, gone: Option<Arc<AtomicBool>>) -> Self {
        Self { gate, place: None, gone }
    }

    /// Answers a request; the place that it has taken meanwhile is given back with the answer, or when it takes long.
    pub(crate) async fn scope<F: Future>(self, answer: F) -> F::Output {
        let holding = async {
            let mut answer = pin!(answer);
            match timeout(HELD_MAX, &mut answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    TURN.with(|turn| {
                        let mut turn = turn.borrow_mut();
                        turn.gate = None;
                        turn.place.take()
                    });
                    answer.await
                }
            }
        };
        TURN.scope(RefCell::new(self), holding).await
    }
}

/// Waits until it is this request's turn, if it has not had it; outside of a request it always is.
///
/// # Errors
/// 503 `overloaded` if it does not come in time. Nothing has been done, and an earlier try may have done something.
pub async fn turn() -> Result<(), Problem> {
    let gate = TURN.try_with(|turn| turn.borrow_mut().gate.take()).ok().flatten();
    let Some(gate) = gate else { return Ok(()) };
    let at_once = gate.try_enter();
    let waited = at_once.is_none();
    let place = match at_once {
        Some(place) => Some(place),
        None => gate.enter().await,
    };
    let Some(place) = place else { return Err(Problem::overloaded()) };
    TURN.with(|turn| {
        let mut turn = turn.borrow_mut();
        turn.place = Some(place);
        // Whoever asked has hung up while it waited: nobody hears this, and nothing was begun. Where there was a place at
        // once, what has come whole is done, whoever hears of it.
        let gone = turn.gone.as_ref().is_some_and(|gone| gone.load(Ordering::Relaxed));
        if waited && gone { Err(Problem::overloaded()) } else { Ok(()) }
    })
}

/// Gives this request's place back before it is answered: what it waits for from here on keeps this machine no busier.
pub fn leave() {
    // Dropped outside: whoever waits is given it.
    let place = TURN.try_with(|turn| turn.borrow_mut().place.take()).ok().flatten();
    drop(place);
}

#[cfg(test)]
mod tests;
