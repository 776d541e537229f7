//! Problems (RFC 9457): what a request gets when the answer is not what it asked for. Each has a [`Code`], and each code
//! a page, so a problem that nobody explains cannot be made. Constructors for the codes of any service are here; the
//! business makes its own with [`Problem::new`].
//!
//! The outcome that commands are told follows from the status: 4xx *rejected*, everything else *unknown*; 401, 408 and
//! 429 are *unknown* too, because they say nothing about an earlier try. Reads are told none.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use engine::message::{At, FieldError, NoAnswer, Outcome};
use engine::position::{Positions, Version};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::context;
use crate::headers::DOCKET_POSITION;

pub mod codes;
mod pages;

pub use pages::Pages;

/// Where a code's page is for the world; the same text is at `/problems/{code}` of every server.
pub const TYPE_PREFIX: &str = "https://docket.dev/problems/";
/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Seconds told in `Retry-After` where a constructor names no other.
pub const RETRY_AFTER_S: u64 = 1;

/// A kind of problem: stable, kebab-case, unique over the product, with the page that explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its name.
    pub name: &'static str,
    /// The HTTP status it comes with.
    pub status: u16,
    /// The same for every occurrence.
    pub title: &'static str,
    /// Markdown: what it means, what to do. Its first line is `# ` and the title.
    pub page: &'static str,
}

impl Code {
    /// A code with its page, to be kept in a constant.
    pub const fn new(name: &'static str, status: u16, title: &'static str, page: &'static str) -> Self {
        Self { name, status, title, page }
    }
}

/// What a command's sender may believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeWord {
    /// Has not taken effect and never will.
    Rejected,
    /// This try did nothing that is known; an earlier one may have. Ask again with the same key.
    Unknown,
}

impl OutcomeWord {
    /// What a status says about a command.
    pub fn of(status: u16) -> Self {
        match status {
            401 | 408 | 429 => Self::Unknown,
            400..=499 => Self::Rejected,
            _ => Self::Unknown,
        }
    }
}

/// A problem, ready to be answered. Small to move; the parts are behind one pointer.
#[derive(Clone)]
pub struct Problem(Box<Parts>);

#[derive(Clone)]
struct Parts {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    more: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of this code; `detail` says what is special about this occurrence, in a sentence for a person.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut problem = Self(Box::new(Parts {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            more: Map::new(),
            headers: HeaderMap::new(),
        }));
        if OutcomeWord::of(code.status) == OutcomeWord::Unknown {
            problem = problem.retry_after(Duration::from_secs(RETRY_AFTER_S));
        }
        problem
    }

    /// A refusal as it was recorded: its detail and errors, and as members what its `answer` holds if that is an object
    /// (`current_version` of a mismatch).
    pub fn recorded(code: Code, outcome: &Outcome) -> Self {
        let detail = outcome.detail.clone().map_or(Cow::Borrowed(code.title), Cow::Owned);
        let mut problem = Self::new(code, detail).errors(outcome.errors.clone());
        if let Some(Value::Object(members)) = &outcome.answer {
            for (name, value) in members {
                problem = problem.with(name, value.clone());
            }
        }
        problem
    }

    /// Why there is no definite answer, in its own code.
    pub fn no_answer(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Overloaded => Self::overloaded(),
            NoAnswer::NotOwner => Self::new(
                codes::NOT_SERVING,
                "no node that could be asked leads the partition now; send it again with the same key",
            ),
            NoAnswer::Unreachable => Self::new(
                codes::NOT_SERVING,
                "the node that leads the partition cannot be reached; another takes over within seconds: send it again \
                 with the same key",
            ),
            NoAnswer::Draining => Self::new(
                codes::NOT_SERVING,
                "this node is shutting down; send it again with the same key, to another node if there is one",
            ),
            NoAnswer::Unconfirmed => Self::new(
                codes::UNCONFIRMED,
                "the log has not confirmed the record; send it again with the same key until there is an answer",
            ),
            NoAnswer::TimedOut => Self::new(
                codes::UNCONFIRMED,
                "no answer came in time; send it again with the same key until there is one",
            ),
            NoAnswer::LogFull => Self::new(codes::LOG_FULL, codes::LOG_FULL.title),
            NoAnswer::LogStopped => Self::new(codes::LOG_STOPPED, codes::LOG_STOPPED.title),
            NoAnswer::LogDamaged => Self::new(codes::LOG_DAMAGED, codes::LOG_DAMAGED.title),
        }
    }

    /// 400: not JSON, too deep, a member twice; `why` says which.
    pub fn malformed_body(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(codes::MALFORMED_BODY, why)
    }

    /// 415.
    pub fn unsupported_media_type(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(codes::UNSUPPORTED_MEDIA_TYPE, why)
    }

    /// 413, naming the bound.
    pub fn body_too_large(bytes_max: usize) -> Self {
        Self::new(codes::BODY_TOO_LARGE, format!("at most {bytes_max} bytes are taken"))
    }

    /// 408; the connection closes with it, since the rest of the body may never come.
    pub fn body_too_slow() -> Self {
        Self::new(codes::BODY_TOO_SLOW, "the body came too slowly")
            .header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// 422 with every fault.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => Cow::Borrowed("1 field needs attention"),
            count => Cow::Owned(format!("{count} fields need attention")),
        };
        Self::new(codes::INVALID_FIELDS, detail).errors(errors)
    }

    /// 404 for a path that no route has.
    pub fn no_such_route() -> Self {
        Self::new(codes::NO_SUCH_ROUTE, "no route has this path")
    }

    /// 405. `Allow` is set by the router, or by `.header(ALLOW, …)`.
    pub fn method_not_allowed() -> Self {
        Self::new(codes::METHOD_NOT_ALLOWED, "the path exists, but not for this method")
    }

    /// 406, naming what could be had.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        Self::new(codes::NOT_ACCEPTABLE, format!("this route answers with {}", offered.join(" or ")))
    }

    /// 400.
    pub fn idempotency_key_missing() -> Self {
        Self::new(codes::IDEMPOTENCY_KEY_MISSING, "every command needs an Idempotency-Key: a UUID, kept for retries")
    }

    /// 400.
    pub fn idempotency_key_malformed() -> Self {
        Self::new(codes::IDEMPOTENCY_KEY_MALFORMED, "the Idempotency-Key must be one UUID")
    }

    /// 422.
    pub fn idempotency_key_reused() -> Self {
        Self::new(codes::IDEMPOTENCY_KEY_REUSED, "this key stands for another verb or body on this resource")
    }

    /// 400 with every header at fault.
    pub fn bad_headers(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => Cow::Borrowed("1 header needs attention"),
            count => Cow::Owned(format!("{count} headers need attention")),
        };
        Self::new(codes::BAD_HEADER, detail).errors(errors)
    }

    /// 400 for one header: `code` names what is wrong with it.
    pub fn bad_header(header: &str, code: &'static str, detail: impl Into<String>) -> Self {
        Self::bad_headers(vec![FieldError {
            at: At::Header(header.to_owned()),
            code: Cow::Borrowed(code),
            detail: detail.into(),
            more: Map::new(),
        }])
    }

    /// 400.
    pub fn bad_position() -> Self {
        Self::new(codes::BAD_POSITION, "Docket-Min-Position must be a list such as 3:1042, 5:77")
    }

    /// 400.
    pub fn bad_cursor() -> Self {
        Self::new(codes::BAD_CURSOR, "the cursor was not given for this list")
    }

    /// 412 with `current_version`.
    pub fn version_mismatch(current: Version) -> Self {
        Self::new(codes::VERSION_MISMATCH, format!("the resource is at version {current}"))
            .with("current_version", current.0)
    }

    /// 428.
    pub fn precondition_required() -> Self {
        Self::new(codes::PRECONDITION_REQUIRED, "send If-Match with the version that the command is meant for")
    }

    /// 409 for a UUIDv7 from before what is remembered.
    pub fn command_expired() -> Self {
        Self::new(codes::COMMAND_EXPIRED, "the key is older than what is remembered, so the command is not run")
    }

    /// 431.
    pub fn head_too_large() -> Self {
        Self::new(codes::HEAD_TOO_LARGE, codes::HEAD_TOO_LARGE.title)
    }

    /// 503.
    pub fn overloaded() -> Self {
        Self::new(codes::OVERLOADED, "too busy to take this now")
    }

    /// 429.
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self::new(codes::RATE_LIMITED, "too many requests").retry_after(retry_after)
    }

    /// 421: another node of the same system answers this.
    pub fn not_served_here(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(codes::NOT_SERVED_HERE, detail)
    }

    /// 503 with how far the read model is.
    pub fn read_model_behind(reached: &Positions) -> Self {
        Self::new(codes::READ_MODEL_BEHIND, "the read model has not reached Docket-Min-Position").positions(reached)
    }

    /// 503.
    pub fn read_model_parked(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(codes::READ_MODEL_PARKED, detail)
    }

    /// 500. Constant: what broke is for the log, never for the answer.
    pub fn internal() -> Self {
        Self::new(codes::INTERNAL, codes::INTERNAL.title)
    }

    /// With these faults.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// With one more member, such as `current_version`. Members that every problem has are not replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        const OWN: [&str; 9] =
            ["type", "title", "status", "code", "detail", "outcome", "request_id", "trace_id", "errors"];
        if !OWN.contains(&name) {
            self.0.more.insert(name.to_owned(), value.into());
        }
        self
    }

    /// With `Retry-After`, in whole seconds, rounded up, at least 1.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// With `Docket-Position`; none is told if nothing is in `positions`.
    #[must_use]
    pub fn positions(self, positions: &Positions) -> Self {
        match crate::respond::positions_value(positions) {
            Some(value) => self.header(DOCKET_POSITION, value),
            None => self,
        }
    }

    /// With a header, in place of one of that name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// With `Allow`.
    #[must_use]
    pub fn allow(self, methods: &'static str) -> Self {
        self.header(ALLOW, HeaderValue::from_static(methods))
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Its faults.
    pub fn field_errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The detail of this occurrence.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The document as told to whoever asked in `context`.
    pub fn to_json(&self, context: Option<context::RequestContext>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(rename = "type")]
            kind: fmt::Arguments<'a>,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            outcome: Option<OutcomeWord>,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<uuid::Uuid>,
            #[serde(skip_serializing_if = "Option::is_none")]
            trace_id: Option<crate::headers::TraceId>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(flatten)]
            more: &'a Map<String, Value>,
        }
        let Parts { code, detail, errors, more, .. } = &*self.0;
        let document = Document {
            kind: format_args!("{TYPE_PREFIX}{}", code.name),
            title: code.title,
            status: code.status,
            code: code.name,
            detail,
            outcome: context.filter(|context| context.is_command).map(|_| OutcomeWord::of(code.status)),
            request_id: context.map(|context| context.request_id),
            trace_id: context.map(|context| context.trace_id),
            errors,
            more,
        };
        // Strings, numbers and maps with string keys: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(&document).expect("a problem is always JSON")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json(context::current());
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        *headers = self.0.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.name, self.0.detail)
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("code", &self.0.code.name)
            .field("detail", &self.0.detail)
            .field("errors", &self.0.errors)
            .field("more", &self.0.more)
            .finish()
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests;
