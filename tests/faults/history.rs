//! What the clients know: every command they sent, and what they heard of it, try by try. This is the first of the judge's
//! three witnesses, and the only one that remembers what was promised.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use kit::{Client, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// What a command does; the judge's own words for the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Place,
    Checkout,
    Cancel,
    Ship,
    Deliver,
    RefundOrder,
    Count,
    Receive,
    Adjust,
    Reserve,
    Commit,
    Release,
    Authorize,
    Capture,
    Void,
    RefundPayment,
}

impl Verb {
    /// Whether it waits for the gateway, so that its answer may show more than its own record.
    pub(crate) fn waits_for_gateway(self) -> bool {
        matches!(self, Self::Authorize | Self::Capture | Self::Void | Self::RefundPayment)
    }

    /// The event that every effect of this verb has, in the stream it addresses.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Self::Place => "OrderPlaced",
            Self::Checkout => "CheckoutStarted",
            Self::Cancel => "OrderCancelled",
            Self::Ship => "OrderShipped",
            Self::Deliver => "OrderDelivered",
            Self::RefundOrder => "OrderRefundRequested",
            Self::Count => "StockCounted",
            Self::Receive => "StockReceived",
            Self::Adjust => "StockAdjusted",
            Self::Reserve => "ReservationMade",
            Self::Commit => "ReservationCommitted",
            Self::Release => "ReservationReleased",
            Self::Authorize => "PaymentRequested",
            Self::Capture => "PaymentCaptureRequested",
            Self::Void => "PaymentVoidRequested",
            Self::RefundPayment => "PaymentRefundRequested",
        }
    }

    /// Whether asking again under another key is accepted without an effect (http.md §3, §4).
    pub(crate) fn is_harmless_again(self) -> bool {
        matches!(self, Self::Commit | Self::Release | Self::Capture | Self::Void)
    }
}

/// One command, whatever became of it.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) key: Uuid,
    pub(crate) verb: Verb,
    pub(crate) put: bool,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// `Prefer: wait` in seconds.
    pub(crate) wait: Option<u64>,
    pub(crate) answers: Vec<Answer>,
}

/// What one try heard.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Nothing, or nothing that says what became of it; why.
    Unknown(String),
    /// It is decided.
    Definite(Reply),
}

impl Command {
    pub(crate) fn new(key: Uuid, verb: Verb, path: impl Into<String>, body: Value) -> Self {
        Self { key, verb, put: verb == Verb::Count, path: path.into(), body, wait: None, answers: Vec::new() }
    }

    pub(crate) fn waiting(mut self, seconds: u64) -> Self {
        self.wait = Some(seconds);
        self
    }

    /// The first definite answer.
    pub(crate) fn definite(&self) -> Option<&Reply> {
        self.all_definite().next()
    }

    pub(crate) fn all_definite(&self) -> impl Iterator<Item = &Reply> {
        self.answers.iter().filter_map(|answer| match answer {
            Answer::Definite(reply) => Some(reply),
            Answer::Unknown(_) => None,
        })
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.definite().is_some_and(|reply| reply.status < 300)
    }

    pub(crate) fn is_rejected(&self) -> bool {
        self.definite().is_some_and(|reply| reply.status >= 400)
    }
}

/// All commands of a run. Clones are the same history.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    commands: Mutex<Vec<Command>>,
    /// Things that are wrong in themselves, whatever the log says.
    findings: Mutex<Vec<String>>,
    /// From here on nothing that is heard counts: the power is being cut.
    deaf: AtomicBool,
}

impl History {
    /// Sends a new command once; its place in the history, and the answer if it is definite.
    pub(crate) async fn send(&self, client: &Client, command: Command) -> (usize, Option<Reply>) {
        let place = {
            let mut commands = self.0.commands.lock().expect("nobody panics with the lock");
            commands.push(command);
            commands.len() - 1
        };
        (place, self.send_again(client, place).await)
    }

    /// Sends a command of the history again, under the same key.
    pub(crate) async fn send_again(&self, client: &Client, place: usize) -> Option<Reply> {
        let command = self.command(place);
        let key = command.key.to_string();
        let wait = command.wait.map(|seconds| format!("wait={seconds}"));
        let mut headers = vec![("idempotency-key", key.as_str())];
        headers.extend(wait.as_deref().map(|wait| ("prefer", wait)));
        let method = if command.put { Method::PUT } else { Method::POST };
        let reply = client.send(method, &command.path, &headers, Some(&command.body)).await;
        let answer = if self.0.deaf.load(Ordering::SeqCst) {
            Answer::Unknown("heard after the power was cut".to_owned())
        } else {
            judge_reply(reply)
        };
        if let Answer::Unknown(why) = &answer
            && why.starts_with("wrong")
        {
            self.finding(format!("{} {}: {why}", command.path, command.key));
        }
        let mut commands = self.0.commands.lock().expect("nobody panics with the lock");
        commands[place].answers.push(answer.clone());
        match answer {
            Answer::Definite(reply) => Some(reply),
            Answer::Unknown(_) => None,
        }
    }

    pub(crate) fn command(&self, place: usize) -> Command {
        self.0.commands.lock().expect("nobody panics with the lock")[place].clone()
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        self.0.commands.lock().expect("nobody panics with the lock").clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.commands.lock().expect("nobody panics with the lock").len()
    }

    /// Notes something that is wrong whatever the log says.
    pub(crate) fn finding(&self, what: String) {
        self.0.findings.lock().expect("nobody panics with the lock").push(what);
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.0.findings.lock().expect("nobody panics with the lock").clone()
    }

    /// From now on answers do not count as heard, or do again.
    pub(crate) fn deafen(&self, deaf: bool) {
        self.0.deaf.store(deaf, Ordering::SeqCst);
    }
}

/// The outcome vocabulary of http.md §1, and nothing else.
fn judge_reply(reply: Option<Reply>) -> Answer {
    let Some(reply) = reply else { return Answer::Unknown("no answer".to_owned()) };
    let outcome = reply.body["outcome"].as_str();
    match reply.status {
        200..=299 => Answer::Definite(reply),
        401 | 429 | 503 | 504 if outcome == Some("unknown") => {
            Answer::Unknown(format!("{} {}", reply.status, reply.body["code"]))
        }
        400..=499 if outcome == Some("rejected") => Answer::Definite(reply),
        status => Answer::Unknown(format!("wrong: {status} with outcome {outcome:?}: {}", reply.body)),
    }
}

/// What must be equal whenever the same command is answered again.
pub(crate) fn what_is_promised(reply: &Reply) -> Value {
    let mut body = reply.body.clone();
    if let Some(problem) = body.as_object_mut() {
        // These name the try, not the command.
        problem.remove("request_id");
        problem.remove("trace_id");
    }
    json!({
        "status": reply.status,
        "location": reply.header("location"),
        "etag": reply.header("etag"),
        "position": reply.header("docket-position"),
        "body": body,
    })
}
