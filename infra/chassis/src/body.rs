//! A command on its way in: its headers and its JSON body, read within bounds of size, time and depth, with the faults
//! told in the order that the contract names: accept, key, other headers, media type, size, body.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use engine::json::Document;
use engine::message::{CommandId, FieldError, Precondition, Provenance};
use engine::position::Positions;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, request};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::gate;
use crate::headers;
use crate::problem::{Problem, codes};
use crate::query::Query;

mod json;

pub use json::{DEPTH_MAX, NODES_MAX, parse_json};

/// The media type of commands and of their answers.
pub const APPLICATION_JSON: &str = "application/json";
/// How long a read waits for its `Docket-Min-Position` unless `Prefer: wait` says otherwise.
pub const READ_WAIT_DEFAULT: Duration = Duration::from_secs(2);

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Longest body, in bytes.
    pub bytes_max: usize,
    /// Longest time for all of it.
    pub total_max: Duration,
    /// Time after which the rate is looked at: a short pause at the start is nobody's fault.
    pub grace: Duration,
    /// Least average rate after `grace`, in bytes per second.
    pub rate_min: u32,
}

impl BodyLimits {
    /// 256 KiB in 30 s, and at least 1 KiB/s after 5 s.
    pub const DEFAULT: Self = Self {
        bytes_max: 256 * 1024,
        total_max: Duration::from_secs(30),
        grace: Duration::from_secs(5),
        rate_min: 1024,
    };

    /// Those that came along with a request, else [`BodyLimits::DEFAULT`].
    fn of(parts: &request::Parts) -> Self {
        parts.extensions.get().copied().unwrap_or_default()
    }
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A command as it came, before the business looks at it.
#[derive(Clone, Debug)]
pub struct CommandRequest {
    /// Its `Idempotency-Key`.
    pub id: CommandId,
    /// Its `If-Match` and `If-None-Match`.
    pub precondition: Precondition,
    /// Its `Prefer: wait`.
    pub wait: Option<Duration>,
    /// Its `Docket-Actor`, `Docket-Reason` and `traceparent`.
    pub provenance: Provenance,
    /// Its body; not necessarily an object.
    pub body: Document,
    /// Its query's parameters, each a fault: commands take none. Told with those of the fields.
    pub parameters: Vec<FieldError>,
}

/// A read as it came.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// What to answer with, one of those offered.
    pub media: &'static str,
    /// What the answer must reflect at least.
    pub min_position: Option<Positions>,
    /// How long to wait for it.
    pub wait: Duration,
}

/// Takes a command in, within the bounds of the [`App`](crate::app::App) that it came through.
pub async fn command_request(parts: &request::Parts, body: Body) -> Result<CommandRequest, Problem> {
    command_request_within(parts, body, &BodyLimits::of(parts)).await
}

/// The same of a command whose verb says all there is to say: no body at all is as good as an empty object.
pub async fn bare_command_request(parts: &request::Parts, body: Body) -> Result<CommandRequest, Problem> {
    command_request_of(parts, body, &BodyLimits::of(parts), Emptiness::IsAnObject).await
}

/// Takes a command in, within `limits`.
pub async fn command_request_within(
    parts: &request::Parts,
    body: Body,
    limits: &BodyLimits,
) -> Result<CommandRequest, Problem> {
    command_request_of(parts, body, limits, Emptiness::IsMalformed).await
}

/// What no body at all means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Emptiness {
    IsMalformed,
    IsAnObject,
}

async fn command_request_of(
    parts: &request::Parts,
    mut body: Body,
    limits: &BodyLimits,
    emptiness: Emptiness,
) -> Result<CommandRequest, Problem> {
    let taken = take(parts, &mut body, limits, emptiness).await;
    if let Err(problem) = &taken
        // Not where no more of it comes.
        && problem.code() != codes::BODY_TOO_SLOW
    {
        drain(&parts.headers, &mut body).await;
    }
    taken
}

async fn take(
    parts: &request::Parts,
    body: &mut Body,
    limits: &BodyLimits,
    emptiness: Emptiness,
) -> Result<CommandRequest, Problem> {
    let map = &parts.headers;
    headers::accept(map, &[APPLICATION_JSON])?;
    let id = headers::idempotency_key(map)?;
    let mut faults = Vec::new();
    let precondition = headers::collect(headers::precondition(map), &mut faults);
    let actor = headers::collect(headers::actor(map), &mut faults);
    let reason = headers::collect(headers::reason(map), &mut faults);
    if !faults.is_empty() {
        return Err(Problem::bad_headers(faults));
    }
    headers::json_body(map, body.is_end_stream())?;
    let declared = map.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.bytes_max as u64) {
        return Err(Problem::body_too_large(limits.bytes_max));
    }
    let bytes = read_body(body, limits).await?;
    // A command is carried out although its client is gone: then what has come must be all that was to come.
    if declared.is_some_and(|length| length != bytes.len() as u64) {
        return Err(Problem::malformed_body("the body broke off"));
    }
    // All that waiting in line could keep from others has come; what costs time begins.
    gate::turn().await?;
    let body = if bytes.is_empty() && emptiness == Emptiness::IsAnObject {
        Document::empty_object()
    } else {
        parse_json(&bytes)?
    };
    Ok(CommandRequest {
        id,
        precondition: precondition.unwrap_or_default(),
        wait: headers::prefer_wait(map),
        provenance: Provenance {
            actor: actor.flatten(),
            reason: reason.flatten(),
            correlation_id: None,
            causation_id: None,
            traceparent: headers::traceparent(map).map(|parent| parent.to_arc()),
        },
        body,
        parameters: match Query::of(&parts.uri).finish() {
            Ok(()) => Vec::new(),
            Err(problem) => problem.field_errors().to_vec(),
        },
    })
}

/// Takes a read in: what it accepts of `offered` (best first), how fresh it must be, how long it waits.
pub fn read_request(parts: &request::Parts, offered: &[&'static str]) -> Result<ReadRequest, Problem> {
    Ok(ReadRequest {
        media: headers::accept(&parts.headers, offered)?,
        min_position: headers::min_position(&parts.headers)?,
        wait: headers::prefer_wait(&parts.headers).unwrap_or(READ_WAIT_DEFAULT),
    })
}

/// Reads all of a body within `limits`: 413 if it is longer, 408 if it is slower, 400 if it breaks off.
pub async fn read_body(body: &mut Body, limits: &BodyLimits) -> Result<Bytes, Problem> {
    let start = Instant::now();
    let mut first = Bytes::new();
    let mut gathered = BytesMut::new();
    loop {
        let length = first.len() + gathered.len();
        let earned = limits.grace + Duration::from_secs_f64(length as f64 / f64::from(limits.rate_min.max(1)));
        let deadline = start + earned.min(limits.total_max);
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Problem::body_too_slow()),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Problem::malformed_body("the body broke off")),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are nobody's concern here.
        let Ok(data) = frame.into_data() else { continue };
        if length + data.len() > limits.bytes_max {
            return Err(Problem::body_too_large(limits.bytes_max));
        }
        // Most bodies come in one piece, which is passed on as it is.
        if length == 0 {
            first = data;
        } else {
            if gathered.is_empty() {
                gathered.extend_from_slice(&std::mem::take(&mut first));
            }
            gathered.extend_from_slice(&data);
        }
    }
    Ok(if gathered.is_empty() { first } else { gathered.freeze() })
}

/// Most bytes of a refused body that are read and thrown away.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// Longest time that is spent on it.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Reads on for a moment what will not be used: closing a socket with unread bytes resets it, and the client would lose
/// the very answer that explains the refusal. Not where the client waits to be asked for its body.
pub(crate) async fn drain(headers: &HeaderMap, body: &mut Body) {
    if headers.contains_key(EXPECT) || body.is_end_stream() {
        return;
    }
    let deadline = Instant::now() + DRAIN_TIME_MAX;
    let mut left = DRAIN_BYTES_MAX;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

#[cfg(test)]
mod tests;
