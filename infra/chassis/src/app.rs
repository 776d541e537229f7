//! What stands between the server and the routes, once per request: a context with ids, a span, the checks that hold for
//! every route (one `Host`, bounded header fields, a path that decodes), a net under panics, and the headers that every
//! answer has. It needs no socket, so tests and benches may call [`App::handle`] directly.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tower::Service;
use tracing::Instrument;

use crate::body::BodyLimits;
use crate::context::RequestContext;
use crate::gate::{self, Gates, Turn};
use crate::headers::{REQUEST_ID, SERVER_TIMING, percent_decode};
use crate::problem::{PROBLEM_JSON, Problem};
use crate::respond;

/// Most header fields of a request; more is answered 431.
pub const HEADER_FIELDS_MAX: usize = 64;
/// Longest part of a path that is logged.
const PATH_BYTES_SHOWN: usize = 256;

/// The routes with everything around them. Cheap to clone.
#[derive(Clone)]
pub struct App {
    router: Router,
    /// What takes its place once there is more to serve.
    opened: Arc<OnceLock<Router>>,
    gauges: Arc<Gauges>,
    gates: Option<Gates>,
    bodies: BodyLimits,
}

/// Registered once: looking a metric up by name and labels costs more than counting.
struct Gauges {
    /// By the status' first digit.
    responses: [metrics::Counter; 5],
    seconds: metrics::Histogram,
    in_flight: metrics::Gauge,
    panics: metrics::Counter,
}

impl App {
    /// These routes, with problems for what they do not have. Install the metrics recorder first, or this app's metrics
    /// are counted nowhere.
    pub fn new(router: Router) -> Self {
        Self::opening(complete(router))
    }

    /// These routes, which also take what they do not have, until [`open`](Self::open): for a server that answers before all
    /// that it rests on is there.
    pub fn opening(router: Router) -> Self {
        let responses = ["1xx", "2xx", "3xx", "4xx", "5xx"]
            .map(|class| metrics::counter!("docket_http_responses_total", "class" => class));
        Self {
            router,
            opened: Arc::default(),
            gauges: Arc::new(Gauges {
                responses,
                seconds: metrics::histogram!("docket_http_request_duration_seconds"),
                in_flight: metrics::gauge!("docket_http_requests_in_flight"),
                panics: metrics::counter!("docket_http_panics_total"),
            }),
            gates: None,
            bodies: BodyLimits::DEFAULT,
        }
    }

    /// Serves these routes from now on, with problems for what they do not have; on connections that are there already, and
    /// by all clones. Only the first call counts.
    pub fn open(&self, router: Router) {
        let _ = self.opened.set(complete(router));
    }

    /// The same behind gates: what is too much waits, and is turned away if it has waited too long.
    #[must_use]
    pub fn behind(self, gates: Gates) -> Self {
        Self { gates: Some(gates), ..self }
    }

    /// The same with other bounds of what [`body::command_request`](crate::body::command_request) reads.
    #[must_use]
    pub fn bounding_bodies(self, bodies: BodyLimits) -> Self {
        Self { bodies, ..self }
    }

    /// Answers one request. Never fails and never panics.
    pub async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        self.handle_until(request, None).await
    }

    /// Answers one request whose client hangs up when `gone` is set: what it has not begun by then it leaves.
    pub(crate) async fn handle_until<B>(&self, request: Request<B>, gone: Option<Arc<AtomicBool>>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let context = RequestContext::begin(&request);
        let span = tracing::info_span!(
            "request",
            request.id = %context.request_id,
            trace.id = %context.trace_id,
            method = %request.method(),
            path = shown(request.uri().path()),
        );
        let gate = self.gates.as_ref().and_then(|gates| gates.before(request.method(), request.uri().path()));
        // Boxed, for each layer around it has room for what it is given more than once, and moves it.
        let answer = Box::pin(self.answer(context, request).instrument(span));
        match gate {
            Some(gate) => context.scope(Turn::new(Some(gate), gone).scope(answer)).await,
            None => context.scope(answer).await,
        }
    }

    async fn answer<B>(&self, context: RequestContext, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let _in_flight = InFlight::enter(&self.gauges.in_flight);
        let refusal = match refuse(&request) {
            // Commands have their turn once they have come whole: a slow client must not keep others from their place.
            None if !context.is_command => gate::turn().await.err().map(Problem::into_response),
            refusal => refusal,
        };
        let mut response = match refusal {
            Some(refusal) => refusal,
            None => {
                let router = self.opened.get().unwrap_or(&self.router);
                let mut request = request.map(Body::new);
                if context.is_command {
                    request.extensions_mut().insert(self.bodies);
                }
                let answer = router.clone().call(request);
                // A panic is one request's trouble. What it may have left half-done is behind the shard's own door.
                match AssertUnwindSafe(answer).catch_unwind().await {
                    Ok(Ok(response)) => response,
                    // The hook has logged it, with this request's span.
                    Err(_) => {
                        self.gauges.panics.increment(1);
                        Problem::internal().into_response()
                    }
                }
            }
        };
        finish(&mut response, &context, &self.bodies);
        let class = usize::from(response.status().as_u16() / 100).clamp(1, 5) - 1;
        self.gauges.responses[class].increment(1);
        self.gauges.seconds.record(Instant::now() - context.started);
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("router", &self.router).finish_non_exhaustive()
    }
}

/// With problems for what it does not have.
fn complete(router: Router) -> Router {
    router
        .fallback(async |request: Request<Body>| turned_away(request, Problem::no_such_route()).await)
        .method_not_allowed_fallback(async |request: Request<Body>| {
            turned_away(request, Problem::method_not_allowed()).await
        })
}

/// As much of a path as a log line shows: all of ours are shorter, and a client may send 16 KiB.
fn shown(path: &str) -> &str {
    &path[..path.floor_char_boundary(PATH_BYTES_SHOWN)]
}

/// Counts a request for as long as it lives, even if its client hangs up.
struct InFlight<'a>(&'a metrics::Gauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a metrics::Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// What no route needs to see.
fn refuse<B>(request: &Request<B>) -> Option<Response> {
    let headers = request.headers();
    if headers.len() > HEADER_FIELDS_MAX {
        let mut response = Problem::head_too_large().into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Some(response);
    }
    if let Err(problem) = one_host(headers) {
        return Some(problem.into_response());
    }
    let path = request.uri().path();
    let decodes = !path.contains('%') || percent_decode(path).is_ok_and(|path| !path.contains('\0'));
    if !decodes {
        return Some(Problem::no_such_route().into_response());
    }
    None
}

fn one_host(headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return Err(Problem::bad_header("host", "required", "must be sent"));
    };
    if hosts.next().is_some() {
        return Err(Problem::bad_header("host", "repeated", "must be sent once"));
    }
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(b);
    if !host.as_bytes().iter().all(plain) {
        return Err(Problem::bad_header("host", "malformed", "must be a host and a port"));
    }
    Ok(())
}

/// Says no to a request that no route takes, whose body nobody will read.
pub async fn turned_away(request: Request<Body>, problem: Problem) -> Problem {
    let (parts, mut body) = request.into_parts();
    crate::body::drain(&parts.headers, &mut body).await;
    problem
}

/// The headers that every answer has, and a problem in place of an error that is none.
fn finish(response: &mut Response, context: &RequestContext, bodies: &BodyLimits) {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|media| media == PROBLEM_JSON);
        if !is_problem {
            replace(response, bodies);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            spell_allow(response.headers_mut());
        }
    }
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = context.request_id.as_hyphenated().encode_lower(&mut text);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(SERVER_TIMING) {
        headers.insert(SERVER_TIMING, respond::server_timing(None));
    }
}

/// An error that some extractor of the framework answered in its own words.
fn replace(response: &mut Response, bodies: &BodyLimits) {
    let problem = match response.status() {
        StatusCode::NOT_FOUND => Problem::no_such_route(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(),
        StatusCode::BAD_REQUEST => Problem::malformed_body("the request cannot be read"),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::body_too_large(bodies.bytes_max),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::unsupported_media_type("send application/json"),
        StatusCode::NOT_ACCEPTABLE => Problem::not_acceptable(&[crate::body::APPLICATION_JSON]),
        status if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE => Problem::internal(),
        // A status chosen on purpose by a route that answers in another form, such as `/readyz`.
        _ => return,
    };
    let allow = response.headers_mut().remove(ALLOW);
    *response = problem.into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, allow);
    }
}

/// `GET,HEAD` as axum writes it, with spaces, as RFC 9110 and people do.
fn spell_allow(headers: &mut HeaderMap) {
    let spelled = headers.get(ALLOW).and_then(|allow| allow.to_str().ok()).map(|allow| {
        let mut methods = allow.split(',').map(str::trim).filter(|method| !method.is_empty()).collect::<Vec<_>>();
        methods.sort_unstable();
        methods.dedup();
        methods.join(", ")
    });
    if let Some(value) = spelled.and_then(|spelled| HeaderValue::from_str(&spelled).ok()) {
        headers.insert(ALLOW, value);
    }
}

#[cfg(test)]
mod tests;
