//! Problems as a client meets them, and what else can go wrong with a request, each told so that a person can act on it.

use std::error::Error;
use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use super::Server;
use crate::failure::{Exit, Failure};
use crate::output::text;

/// A problem document (RFC 9457), or what can be made of an answer that is none.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// The status it came with.
    pub(crate) status: u16,
    document: Value,
}

impl Problem {
    /// Reads the body of an answer that is not 2xx.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        let document = serde_json::from_slice(body).ok().filter(Value::is_object);
        Self { status, document: document.unwrap_or(Value::Null) }
    }

    /// A 2xx with a body that is not JSON: whatever answered, it is no Docket.
    pub(super) fn not_ours(status: u16) -> Self {
        let detail = "the answer is not JSON; is this a Docket server?";
        Self { status, document: serde_json::json!({"title": "Not understood", "detail": detail}) }
    }

    /// Its stable name, empty if it has none.
    pub(crate) fn code(&self) -> &str {
        self.document["code"].as_str().unwrap_or_default()
    }

    /// Whether asking again would get the same. By its outcome if it tells one, else by its status.
    pub(crate) fn is_definite(&self) -> bool {
        match self.document["outcome"].as_str() {
            Some(outcome) => outcome != "unknown",
            None => (200..500).contains(&self.status) && !matches!(self.status, 401 | 408 | 429),
        }
    }

    fn failure(&self) -> Failure {
        let title = match self.document["title"].as_str() {
            Some(title) => title.to_owned(),
            None => format!("the server answered {}", self.status),
        };
        let mut failure = Failure::plain(title).exit(match self.status {
            409 | 412 => Exit::Conflict,
            _ if self.is_definite() => Exit::Refused,
            _ => Exit::NotReachable,
        });
        let title = self.document["title"].as_str();
        // Some have nothing to add to their title.
        if let Some(detail) = self.document["detail"].as_str().filter(|detail| Some(*detail) != title) {
            failure = failure.detail(detail);
        }
        for error in self.document["errors"].as_array().into_iter().flatten() {
            failure = failure.detail(field_error(error));
        }
        if let Some(request) = self.document["request_id"].as_str() {
            failure = failure.detail(format!("request {request}"));
        }
        if self.code().is_empty() { failure } else { failure.next(format!("docket explain {}", self.code())) }
    }
}

/// One fault: where it is, what it is, and what else is known of it (`requested 3, available 2`).
fn field_error(error: &Value) -> String {
    let at = ["pointer", "parameter", "header"].iter().find_map(|kind| error[*kind].as_str()).unwrap_or("?");
    let mut line = format!("{at}: {}", text(&error["detail"]));
    let told = ["pointer", "parameter", "header", "code", "detail"];
    for (name, value) in error.as_object().into_iter().flatten().filter(|(name, _)| !told.contains(&name.as_str())) {
        line.push_str(&format!(", {name} {}", text(value)));
    }
    line
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            "" => write!(f, "the server answered {}", self.status),
            code => write!(f, "the server answered {} {code}", self.status),
        }
    }
}

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A definite no.
    Refused(Problem),
    /// The server cannot say.
    Unknown(Problem),
    /// Nobody answers at that address: nothing was sent.
    Unreachable { server: Server, why: String },
    /// The connection broke with the request under way.
    Dropped { why: String },
}

impl Trouble {
    pub(super) fn transport(server: &Server, error: &reqwest::Error) -> Self {
        // The innermost cause says it: "connection refused", not "error sending request".
        let mut cause: &dyn Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let why = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
        if error.is_connect() { Self::Unreachable { server: server.clone(), why } } else { Self::Dropped { why } }
    }

    /// With the key, where the command may still have taken effect.
    pub(super) fn of_command(self, key: Uuid) -> CommandTrouble {
        CommandTrouble { trouble: self, key }
    }

    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) | Self::Unknown(problem) => Some(problem.status),
            Self::Unreachable { .. } | Self::Dropped { .. } => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(problem) | Self::Unknown(problem) => problem.fmt(f),
            Self::Unreachable { server, why } => write!(f, "nobody answers at {server}: {why}"),
            Self::Dropped { why } => write!(f, "the connection was lost: {why}"),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(problem) | Trouble::Unknown(problem) => problem.failure(),
            Trouble::Unreachable { .. } => Self::plain(trouble.to_string())
                .exit(Exit::NotReachable)
                .next("docket dev, or name another with --server http://HOST:PORT"),
            Trouble::Dropped { .. } => Self::plain(trouble.to_string()).exit(Exit::NotReachable),
        }
    }
}

/// Why a command has no good answer.
#[derive(Debug)]
pub(crate) struct CommandTrouble {
    /// What went wrong.
    pub(crate) trouble: Trouble,
    key: Uuid,
}

impl fmt::Display for CommandTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trouble.fmt(f)
    }
}

impl From<CommandTrouble> for Failure {
    fn from(CommandTrouble { trouble, key }: CommandTrouble) -> Self {
        let definite = matches!(trouble, Trouble::Refused(_));
        let failure = Self::from(trouble);
        if definite {
            return failure;
        }
        failure
            .detail("whether it took effect is not known; under the same key it is safe to repeat")
            .next(format!("the same command with --key {key}"))
    }
}
