//! Answers: JSON with the headers that commands and reads promise (`ETag`, `Docket-Position`, `Location`,
//! `Server-Timing`, `Preference-Applied`, `Idempotency-Replayed`), 304 for conditional reads, and NDJSON streams.

use std::fmt::Write;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use engine::position::{Positions, Version};
use futures::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use crate::context;
use crate::headers::{DOCKET_POSITION, IDEMPOTENCY_REPLAYED, PREFERENCE_APPLIED, SERVER_TIMING, not_modified};
use crate::problem::Problem;

/// The media type of newline-delimited JSON.
pub const NDJSON: &str = "application/x-ndjson";
/// How often a quiet stream sends an empty line, so that proxies and clients see it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a command's time went, as `Server-Timing` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From the door to the decision.
    pub queue: Duration,
    /// From the decision to the log's acknowledgement.
    pub append: Duration,
}

/// An answer in the making.
#[derive(Debug)]
#[must_use]
pub struct Reply {
    status: StatusCode,
    body: Bytes,
    headers: HeaderMap,
    version: Option<Version>,
}

impl Reply {
    /// `value` as JSON.
    pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Self {
        Self::typed_json(status, "application/json", value)
    }

    /// `value` as JSON of a media type of its own, such as `application/json-patch+json`.
    pub fn typed_json<T: Serialize + ?Sized>(status: StatusCode, media: &'static str, value: &T) -> Self {
        // An order of three lines has 900 bytes; and a plain vector is written to faster than shared bytes are.
        let mut body = Vec::with_capacity(1_024);
        match serde_json::to_writer(&mut body, value) {
            Ok(()) => Self::bytes(status, media, body.into()),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as JSON");
                let problem = Problem::internal();
                let body = problem.to_json(context::current());
                Self::bytes(problem.status(), crate::problem::PROBLEM_JSON, body.into())
            }
        }
    }

    /// A body as it is.
    pub fn bytes(status: StatusCode, media: &'static str, body: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(10);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        // Kept by nobody without asking: an answer holds what its reader may see, and is old with the next event.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Self { status, body, headers, version: None }
    }

    /// With `ETag: "<version>"`.
    pub fn version(mut self, version: Version) -> Self {
        let mut text = Text::<32>::default();
        // 20 digits and two quotes at most.
        let _ = write!(text, "\"{version}\"");
        self.version = Some(version);
        self.header(ETAG, text.value())
    }

    /// With `Docket-Position`; none if there is nothing in it.
    pub fn positions(self, positions: &Positions) -> Self {
        match positions_value(positions) {
            Some(value) => self.header(DOCKET_POSITION, value),
            None => self,
        }
    }

    /// With `Location`. A path that no header can hold is left out.
    pub fn location(self, path: &str) -> Self {
        match HeaderValue::from_str(path) {
            Ok(value) => self.header(LOCATION, value),
            Err(_) => self,
        }
    }

    /// With `Idempotency-Replayed: true`, if so.
    pub fn replayed(self, replayed: bool) -> Self {
        if replayed { self.header(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true")) } else { self }
    }

    /// With `Preference-Applied: wait=<seconds>`.
    pub fn preference_applied(self, wait: Duration) -> Self {
        let mut text = Text::<32>::default();
        let _ = write!(text, "wait={}", wait.as_secs());
        self.header(PREFERENCE_APPLIED, text.value())
    }

    /// With `Server-Timing` of a command: `queue`, `append` and, since the request came, `total`.
    pub fn timing(self, timing: Timing) -> Self {
        self.header(SERVER_TIMING, server_timing(Some(timing)))
    }

    /// With `Vary: Accept`, where the same address answers in several types.
    pub fn vary_accept(self) -> Self {
        self.header(VARY, HeaderValue::from_static("accept"))
    }

    /// With a header, in place of one of that name.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// 304 without a body if the reader already has this version (`If-None-Match` of its request).
    pub fn conditional(mut self, request_headers: &HeaderMap) -> Self {
        if self.status == StatusCode::OK && self.version.is_some_and(|version| not_modified(request_headers, version)) {
            self.status = StatusCode::NOT_MODIFIED;
            self.body = Bytes::new();
            self.headers.remove(CONTENT_TYPE);
        }
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(if self.body.is_empty() { Body::empty() } else { Body::from(self.body) });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The value of `Docket-Position`; `None` if there is nothing in it.
pub fn positions_value(positions: &Positions) -> Option<HeaderValue> {
    if positions.is_empty() {
        return None;
    }
    let mut text = Text::<64>::default();
    if write!(text, "{positions}").is_ok() {
        return Some(text.value());
    }
    HeaderValue::from_maybe_shared(Bytes::from(positions.to_string())).ok()
}

/// The value of `Server-Timing`, in milliseconds, `total` counted from the current request's start.
pub(crate) fn server_timing(timing: Option<Timing>) -> HeaderValue {
    let mut text = Text::<128>::default();
    let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    if let Some(timing) = timing {
        let _ = write!(text, "queue;dur={:.3}, append;dur={:.3}, ", millis(timing.queue), millis(timing.append));
    }
    let total = context::current().map_or(Duration::ZERO, |context| Instant::now() - context.started);
    let _ = write!(text, "total;dur={:.3}", millis(total));
    text.value()
}

/// A header's text, written without an allocation of its own.
struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], length: 0 }
    }
}

impl<const N: usize> Text<N> {
    fn value(&self) -> HeaderValue {
        // Only digits and punctuation are ever written.
        HeaderValue::from_bytes(&self.bytes[..self.length]).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Streams items as one JSON line each. While nothing comes, an empty line is sent every `keep_alive` (if given). An item
/// that is an error breaks the connection off instead of ending the body, so that nobody takes a part for the whole. An
/// endless stream has to end when the server drains: `items.take_until(shutdown.cancelled_owned())`.
///
/// The header goes out before the first item is read, so `positions` are those that the items reflect at least.
pub fn ndjson<S, T, E>(items: S, keep_alive: Option<Duration>, positions: &Positions) -> Response
where
    S: Stream<Item = Result<T, E>> + Send + 'static,
    T: Serialize + Send + 'static,
    E: Into<axum::BoxError> + Send + 'static,
{
    let lines = items.map(|item| -> Result<Bytes, axum::BoxError> {
        let mut line = BytesMut::with_capacity(512).writer();
        serde_json::to_writer(&mut line, &item.map_err(Into::into)?)?;
        let mut line = line.into_inner();
        line.put_u8(b'\n');
        Ok(line.freeze())
    });
    let body = match keep_alive {
        None => Body::from_stream(lines),
        Some(every) => Body::from_stream(with_keep_alive(lines, every)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // What is streamed as lines is told in pages as well.
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if let Some(value) = positions_value(positions) {
        headers.insert(DOCKET_POSITION, value);
    }
    // Proxies that gather answers would hold a stream back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn with_keep_alive<S>(lines: S, every: Duration) -> impl Stream<Item = Result<Bytes, axum::BoxError>> + Send
where
    S: Stream<Item = Result<Bytes, axum::BoxError>> + Send + 'static,
{
    futures::stream::unfold(Box::pin(lines), move |mut lines| async move {
        let line = match tokio::time::timeout(every, lines.next()).await {
            Ok(line) => line?,
            Err(_) => Ok(Bytes::from_static(b"\n")),
        };
        Some((line, lines))
    })
}

#[cfg(test)]
mod tests;
