//! A payment gateway that behaves as its tokens say: `tok_ok`, `tok_declined`, `tok_insufficient_funds`,
//! `tok_slow_<ms>`, `tok_flaky_<n>`, `tok_lost_answer`, `tok_late`, `tok_twice`, `tok_capture_fails_<n>`,
//! `tok_capture_late`, `tok_capture_refused` and `tok_down`; any other is declined as `unknown_token`. Its books are its
//! own: nothing in Docket's log can change them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::message::CommandId;
use engine::ports::Clock;
use engine::time::Timestamp;
use engine_runtime::outside::Outside;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use schemas::command::{GatewayAnswer, GatewayCall};
use schemas::ledger::LedgerRow;

use super::books::{Books, BooksFault, Line, Verb, parts};
use super::journal::Journal;
use super::shared::SharedBooks;

/// How long our client waits for an answer that never comes.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Longest delay that `tok_slow_<ms>` may ask for: a minute.
const SLOW_MS_MAX: u64 = 60_000;
/// How much later `tok_twice` answers again.
const SECOND_ANSWER_AFTER: Duration = Duration::from_millis(20);

/// Takes an answer that comes a second time, as a webhook delivered twice would.
pub type SecondAnswer = Arc<dyn Fn(CommandId, GatewayCall, GatewayAnswer) + Send + Sync>;

/// The gateway. Clones are the same gateway.
#[derive(Clone)]
pub struct Simulator(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    keeping: Keeping,
    second_answer: OnceLock<SecondAnswer>,
}

/// Where the books are.
enum Keeping {
    /// With this process alone.
    Here { books: Mutex<Books>, journal: Journal, healed: AtomicBool },
    /// In a database, for several processes.
    Shared(SharedBooks),
}

/// What became of a call.
pub(super) enum Entered {
    /// It is in the books; whether its key was new.
    Done { line: Line, first: bool, manner: Manner },
    /// The token wants it to wait first.
    Slow(Duration),
    /// It has set out and will arrive when the gateway is healed, whatever becomes of this process; its line if it set out
    /// just now.
    OnItsWay(Option<Line>),
    /// The gateway is not to be reached.
    Down,
}

/// What a token demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Good,
    Refuses(&'static str),
    Slow(u64),
    Flaky(u32),
    LosesAnswers,
    /// This call is on its way until the gateway is healed, whatever is asked meanwhile and whoever dies.
    Late(Verb),
    AnswersTwice,
    CaptureFails(u32),
    CaptureRefused,
    Down,
}

impl Manner {
    pub(super) fn of(token: &str) -> Self {
        let number = |prefix: &str| token.strip_prefix(prefix).and_then(|digits| digits.parse::<u64>().ok());
        match token {
            "tok_ok" => Self::Good,
            "tok_declined" => Self::Refuses("declined"),
            "tok_insufficient_funds" => Self::Refuses("insufficient_funds"),
            "tok_lost_answer" => Self::LosesAnswers,
            "tok_late" => Self::Late(Verb::Authorize),
            "tok_capture_late" => Self::Late(Verb::Capture),
            "tok_twice" => Self::AnswersTwice,
            "tok_capture_refused" => Self::CaptureRefused,
            "tok_down" => Self::Down,
            _ => {
                let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                if let Some(ms) = number("tok_slow_") {
                    Self::Slow(ms.min(SLOW_MS_MAX))
                } else if let Some(n) = number("tok_flaky_") {
                    Self::Flaky(count(n))
                } else if let Some(n) = number("tok_capture_fails_") {
                    Self::CaptureFails(count(n))
                } else {
                    Self::Refuses("unknown_token")
                }
            }
        }
    }
}

impl Simulator {
    /// A gateway that forgets its books with the process.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        Self::here(clock, Journal::Memory, Books::default())
    }

    /// A gateway whose books are in this file, which is created if need be. For one process. Calls that were on their way
    /// when a process died still are.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, BooksFault> {
        let (journal, books) = Journal::open(path)?;
        Ok(Self::here(clock, journal, books))
    }

    /// One gateway for several processes: its books are in this PostgreSQL. While that does not answer, the gateway does
    /// not either.
    ///
    /// # Errors
    /// If the URL is none. Whether the database is there shows with the first call.
    pub fn shared(url: &str, clock: Arc<dyn Clock>) -> Result<Self, BooksFault> {
        let keeping = Keeping::Shared(SharedBooks::at(url, Arc::clone(&clock))?);
        Ok(Self(Arc::new(Inner { clock, keeping, second_answer: OnceLock::new() })))
    }

    fn here(clock: Arc<dyn Clock>, journal: Journal, books: Books) -> Self {
        let keeping = Keeping::Here { books: Mutex::new(books), journal, healed: AtomicBool::new(false) };
        Self(Arc::new(Inner { clock, keeping, second_answer: OnceLock::new() }))
    }

    /// Says where second answers go. The first call counts.
    pub fn on_second_answer(&self, sink: SecondAnswer) {
        let _ = self.0.second_answer.set(sink);
    }

    /// Makes the gateway reachable for `tok_down` from now on, and lets arrive what is on its way. Nobody waits for those
    /// answers any more; who asks by key finds them.
    ///
    /// # Errors
    /// If the books cannot be reached or written.
    pub async fn heal(&self) -> Result<(), String> {
        match &self.0.keeping {
            Keeping::Here { books, journal, healed } => {
                healed.store(true, Ordering::Relaxed);
                let landed = land(&mut books.lock(), self.0.clock.now());
                if landed.is_empty() { Ok(()) } else { journal.flush(&landed).wait().await }
            }
            Keeping::Shared(books) => books.heal().await,
        }
    }

    /// The books, a row per payment.
    ///
    /// # Errors
    /// If the books cannot be reached.
    pub async fn ledger(&self) -> Result<Vec<LedgerRow>, String> {
        match &self.0.keeping {
            Keeping::Here { books, .. } => Ok(books.lock().rows()),
            Keeping::Shared(books) => books.rows().await,
        }
    }
}

impl Outside<GatewayCall, GatewayAnswer> for Simulator {
    fn call(&self, id: CommandId, call: GatewayCall) -> BoxFuture<'static, Result<GatewayAnswer, String>> {
        let gateway = Arc::clone(&self.0);
        Box::pin(async move { gateway.answer(id, call).await })
    }
}

impl Inner {
    async fn answer(&self, key: CommandId, call: GatewayCall) -> Result<GatewayAnswer, String> {
        let entered = match self.enter(key, &call, false).await? {
            Entered::Slow(pause) => {
                tokio::time::sleep(pause).await;
                self.enter(key, &call, true).await?
            }
            entered => entered,
        };
        let (line, first, manner) = match entered {
            Entered::Done { line, first, manner } => (line, first, manner),
            Entered::OnItsWay(_) => {
                tokio::time::sleep(ANSWER_WAIT).await;
                return Err("the gateway's answer did not come".to_owned());
            }
            Entered::Slow(_) | Entered::Down => return Err("the gateway cannot be reached".to_owned()),
        };
        let Some(said) = line.said else {
            return Err("the gateway failed".to_owned());
        };
        if manner == Manner::LosesAnswers && first {
            tokio::time::sleep(ANSWER_WAIT).await;
            return Err("the gateway's answer did not come".to_owned());
        }
        let answer = GatewayAnswer::from(said);
        if manner == Manner::AnswersTwice
            && line.verb != Verb::Void
            && let Some(sink) = self.second_answer.get().cloned()
        {
            let again = answer.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SECOND_ANSWER_AFTER).await;
                sink(key, call, again);
            });
        }
        Ok(answer)
    }

    /// Enters a call into the books, for good before this answers. `waited` if what its token wanted was done.
    async fn enter(&self, key: CommandId, call: &GatewayCall, waited: bool) -> Result<Entered, String> {
        let (books, journal, healed) = match &self.keeping {
            Keeping::Here { books, journal, healed } => (books, journal, healed.load(Ordering::Relaxed)),
            Keeping::Shared(books) => return books.enter(key, call.clone(), waited).await,
        };
        let entered = enter(&mut books.lock(), healed, self.clock.now(), key, call, waited);
        match &entered {
            Entered::Done { line, .. } => journal.flush(std::slice::from_ref(line)).wait().await?,
            Entered::OnItsWay(Some(line)) => {
                let flushed = journal.flush(std::slice::from_ref(line)).wait().await;
                if flushed.is_err() {
                    books.lock().turn_back(line.payment_id, key);
                }
                flushed?;
            }
            Entered::OnItsWay(None) | Entered::Slow(_) | Entered::Down => {}
        }
        Ok(entered)
    }
}

/// What is on its way arrives; the lines of it.
pub(super) fn land(books: &mut Books, now: Timestamp) -> Vec<Line> {
    let flights: Vec<Line> = books.flights().cloned().collect();
    let calls = flights.into_iter().filter_map(|flight| Some((flight.key, flight.call()?)));
    let landed = calls.map(|(key, call)| enter(books, true, now, key, &call, true));
    landed.filter_map(|entered| if let Entered::Done { line, .. } = entered { Some(line) } else { None }).collect()
}

/// Decides and enters a call, in one piece, as its token says: the first call of a payment names it, an authorization or a
/// void that overtook it; the books remember it for the others.
pub(super) fn enter(
    books: &mut Books,
    healed: bool,
    now: Timestamp,
    key: CommandId,
    call: &GatewayCall,
    waited: bool,
) -> Entered {
    let (payment_id, verb, amount, token) = parts(call);
    let manner = token.or_else(|| books.token_of(payment_id)).map_or(Manner::Good, Manner::of);
    match manner {
        Manner::Slow(ms) if !waited => return Entered::Slow(Duration::from_millis(ms)),
        Manner::Down if !healed => return Entered::Down,
        _ => {}
    }
    let before = books.answered(payment_id, key).cloned();
    if manner == Manner::Late(verb) && !healed && before.is_none() {
        if books.is_on_its_way(payment_id, key) {
            return Entered::OnItsWay(None);
        }
        let line = Line { payment_id, key, verb, amount, token: token.map(str::to_owned), said: None, sets_out: true };
        books.enter(&line);
        return Entered::OnItsWay(Some(line));
    }
    let fails = match manner {
        Manner::Flaky(times) => verb == Verb::Authorize && books.failures(payment_id, verb) < times,
        Manner::CaptureFails(times) => verb == Verb::Capture && books.failures(payment_id, verb) < times,
        _ => false,
    };
    let no = match manner {
        Manner::Refuses(reason) if verb == Verb::Authorize => Some(reason),
        Manner::CaptureRefused if verb == Verb::Capture => Some("capture_refused"),
        _ => None,
    };
    let first = before.is_none();
    let said = match before {
        Some(said) => Some(said),
        None if fails => None,
        None => Some(books.judge(call, no, now)),
    };
    let line = Line { payment_id, key, verb, amount, token: token.map(str::to_owned), said, sets_out: false };
    books.enter(&line);
    Entered::Done { line, first, manner }
}
