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
use engine_runtime::outside::Outside;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use schemas::command::{GatewayAnswer, GatewayCall};
use schemas::id::PaymentId;
use schemas::ledger::LedgerRow;

use super::books::{Books, BooksFault, Line, Verb, parts};
use super::journal::Journal;

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
    books: Mutex<Books>,
    journal: Journal,
    healed: AtomicBool,
    second_answer: OnceLock<SecondAnswer>,
}

/// What a token demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
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
    fn of(token: &str) -> Self {
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
        Self::with(clock, Journal::Memory, Books::default())
    }

    /// A gateway whose books are in this file, which is created if need be. Calls that were on their way when a process
    /// died still are.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, BooksFault> {
        let (journal, books) = Journal::open(path)?;
        Ok(Self::with(clock, journal, books))
    }

    fn with(clock: Arc<dyn Clock>, journal: Journal, books: Books) -> Self {
        Self(Arc::new(Inner {
            clock,
            books: Mutex::new(books),
            journal,
            healed: AtomicBool::new(false),
            second_answer: OnceLock::new(),
        }))
    }

    /// Says where second answers go. The first call counts.
    pub fn on_second_answer(&self, sink: SecondAnswer) {
        let _ = self.0.second_answer.set(sink);
    }

    /// Makes the gateway reachable for `tok_down` from now on, and lets arrive what is on its way.
    ///
    /// # Errors
    /// If the books cannot be written.
    pub async fn heal(&self) -> Result<(), String> {
        self.0.healed.store(true, Ordering::Relaxed);
        self.0.land().await
    }

    /// The books, a row per payment.
    pub fn ledger(&self) -> Vec<LedgerRow> {
        self.0.books.lock().rows()
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
        let (payment_id, verb, _, token) = parts(&call);
        let manner = self.manner(payment_id, token);
        if let Manner::Slow(ms) = manner {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if manner == Manner::Down && !self.healed.load(Ordering::Relaxed) {
            return Err("the gateway cannot be reached".to_owned());
        }
        if manner == Manner::Late(verb) && self.sets_out(key, &call).await? {
            tokio::time::sleep(ANSWER_WAIT).await;
            return Err("the gateway's answer did not come".to_owned());
        }
        let (line, first) = self.enter(key, &call, manner);
        self.flush(&line).await?;
        let Some(said) = line.said else {
            return Err("the gateway failed".to_owned());
        };
        if manner == Manner::LosesAnswers && first {
            tokio::time::sleep(ANSWER_WAIT).await;
            return Err("the gateway's answer did not come".to_owned());
        }
        let answer = GatewayAnswer::from(said);
        if manner == Manner::AnswersTwice
            && verb != Verb::Void
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

    /// Sends a call on its way, unless it is or has arrived; whether it is. It will arrive whatever becomes of this process.
    async fn sets_out(&self, key: CommandId, call: &GatewayCall) -> Result<bool, String> {
        let (payment_id, verb, amount, token) = parts(call);
        let token = token.map(str::to_owned);
        let line = Line { payment_id, key, verb, amount, token, said: None, sets_out: true };
        {
            let mut books = self.books.lock();
            if self.healed.load(Ordering::Relaxed) || books.answered(payment_id, key).is_some() {
                return Ok(false);
            }
            if books.is_on_its_way(payment_id, key) {
                return Ok(true);
            }
            books.enter(&line);
        }
        let flushed = self.flush(&line).await;
        if flushed.is_err() {
            self.books.lock().turn_back(payment_id, key);
        }
        flushed.map(|()| true)
    }

    /// What is on its way arrives. Nobody waits for the answers any more; who asks by key finds them.
    async fn land(&self) -> Result<(), String> {
        let flights: Vec<Line> = self.books.lock().flights().cloned().collect();
        for flight in flights {
            let call = flight.call().ok_or("a call on its way is none")?;
            let (line, _) = self.enter(flight.key, &call, Manner::Good);
            self.flush(&line).await?;
        }
        Ok(())
    }

    async fn flush(&self, line: &Line) -> Result<(), String> {
        self.journal.flush(std::slice::from_ref(line)).wait().await
    }

    /// How the payment's token behaves. The first call of a payment names it, an authorization or a void that overtook it;
    /// the books remember it for the others.
    fn manner(&self, payment: PaymentId, token: Option<&str>) -> Manner {
        match token {
            Some(token) => Manner::of(token),
            None => self.books.lock().token_of(payment).map_or(Manner::Good, Manner::of),
        }
    }

    /// Decides and enters the call, in one piece; whether the key was new.
    fn enter(&self, key: CommandId, call: &GatewayCall, manner: Manner) -> (Line, bool) {
        let (payment_id, verb, amount, token) = parts(call);
        let mut books = self.books.lock();
        let before = books.answered(payment_id, key).cloned();
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
            None => Some(books.judge(call, no, self.clock.now())),
        };
        let line = Line { payment_id, key, verb, amount, token: token.map(str::to_owned), said, sets_out: false };
        books.enter(&line);
        (line, first)
    }
}
