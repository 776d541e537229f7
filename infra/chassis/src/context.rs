//! What is known of the request that is being answered, wherever in its task one stands: its id, its trace, when it came
//! and whether it is a command. [`App`](crate::app::App) sets it; problems and replies read it, so nobody has to carry it
//! along. Work moved into another task leaves it behind: take [`current`] along by value.

use std::fmt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{Method, Request};
use uuid::Uuid;

use crate::headers::{self, TraceId};

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The request under way.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext {
    /// Ours, UUIDv7, on every answer as `Request-Id`.
    pub request_id: Uuid,
    /// The caller's from `traceparent`, else drawn here.
    pub trace_id: TraceId,
    /// When its head had been read.
    pub started: Instant,
    /// Whether its method may change something: its problems then tell an outcome.
    pub is_command: bool,
}

impl RequestContext {
    /// A context for a request that has just come in.
    pub fn begin<B>(request: &Request<B>) -> Self {
        Self {
            request_id: request_id(),
            trace_id: headers::traceparent(request.headers())
                .map_or_else(|| TraceId(rand::random()), |parent| parent.trace_id),
            started: Instant::now(),
            is_command: is_command(request.method()),
        }
    }

    /// Runs `future` with this as its [`current`] context.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        // Not an `async fn`: that would have room for what it is given twice.
        CURRENT.scope(self, future)
    }
}

/// The context of the request that this task answers; `None` outside of one.
pub fn current() -> Option<RequestContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// Whether a request by this method may change something.
pub fn is_command(method: &Method) -> bool {
    !(method == Method::GET || method == Method::HEAD || method == Method::OPTIONS || method == Method::TRACE)
}

/// A UUIDv7 from the thread's generator: a request must not pay for a system call to get its name.
fn request_id() -> Uuid {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

impl fmt::Display for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} of trace {}", self.request_id, self.trace_id)
    }
}
