//! Connections to other nodes: one HTTP/2 connection per address, opened when needed, shared by all requests, dropped when
//! unused. hyper's connection is driven directly because it tells apart what never left this process from what did:
//! only the first may be called undone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, Uri};
use tracing::debug;

use super::{CONNECT_WAIT, KEEP_ALIVE_EVERY, KEEP_ALIVE_WAIT, RemoteOptions};

/// Bytes of one reply, and of all replies on a connection, that may be on their way before they are read: 1 and 4 MiB,
/// so that a large reply neither stalls on a round trip nor starves the others.
const WINDOW_BYTES: (u32, u32) = (1 << 20, 4 << 20);
/// How often unused connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// All connections of a process.
pub(super) struct Links {
    options: RemoteOptions,
    links: Mutex<Known>,
}

struct Known {
    by_address: BTreeMap<Arc<str>, Arc<Link>>,
    swept: Instant,
}

impl Links {
    pub(super) fn new(options: RemoteOptions) -> Self {
        Self { options, links: Mutex::new(Known { by_address: BTreeMap::new(), swept: Instant::now() }) }
    }

    /// The way to an address; there is one, whether or not anybody is there.
    pub(super) fn to(&self, address: &Arc<str>) -> Arc<Link> {
        let now = Instant::now();
        let mut known = self.links.lock();
        if now - known.swept >= SWEEP_EVERY.min(self.options.idle_max) {
            known.swept = now;
            let idle_max = self.options.idle_max;
            known.by_address.retain(|_, link| Arc::strong_count(link) > 1 || now - *link.used.lock() < idle_max);
        }
        let link =
            known.by_address.entry(address.clone()).or_insert_with(|| Arc::new(Link::to(address, &self.options)));
        *link.used.lock() = now;
        link.clone()
    }

    /// How many addresses are remembered.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.links.lock().by_address.len()
    }
}

/// The way to one address.
pub(super) struct Link {
    address: Arc<str>,
    /// One for each request that may be under way.
    pub(super) slots: Arc<Semaphore>,
    used: Mutex<Instant>,
    state: Mutex<State>,
}

enum State {
    Closed,
    /// One attempt for all who wait.
    Opening(Shared<BoxFuture<'static, Result<Wire, Unreached>>>),
    Open(Wire),
}

/// Nobody could be reached; nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreached(Arc<str>);

impl Link {
    fn to(address: &Arc<str>, options: &RemoteOptions) -> Self {
        Self {
            address: address.clone(),
            slots: Arc::new(Semaphore::new(options.in_flight_max)),
            used: Mutex::new(Instant::now()),
            state: Mutex::new(State::Closed),
        }
    }

    /// What the requests to it are addressed to.
    pub(super) fn origin(&self) -> Result<Uri, Unreached> {
        let wrong = |_| Unreached("its address is none".into());
        Uri::try_from(format!("http://{}", host_and_port(&self.address))).map_err(wrong)
    }

    /// A connection that was open a moment ago.
    pub(super) async fn wire(&self) -> Result<Wire, Unreached> {
        let opening = {
            let mut state = self.state.lock();
            match &*state {
                State::Open(wire) if !wire.0.is_closed() => return Ok(wire.clone()),
                // An attempt that failed with nobody left to wait for it says nothing about now.
                State::Opening(opening) if !matches!(opening.peek(), Some(Err(_))) => opening.clone(),
                _ => {
                    let opening = open(self.address.clone()).boxed().shared();
                    *state = State::Opening(opening.clone());
                    opening
                }
            }
        };
        let opened = opening.clone().await;
        let mut state = self.state.lock();
        if matches!(&*state, State::Opening(current) if current.ptr_eq(&opening)) {
            *state = opened.as_ref().map_or(State::Closed, |wire| State::Open(wire.clone()));
        }
        opened
    }
}

async fn open(address: Arc<str>) -> Result<Wire, Unreached> {
    let unreached = |fault: &dyn std::error::Error| Unreached(crate::chain(fault).into());
    let connecting = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(host_and_port(&address)));
    let stream = match connecting.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(fault)) => return Err(unreached(&fault)),
        Err(_) => return Err(Unreached(format!("no connection within {} s", CONNECT_WAIT.as_secs()).into())),
    };
    stream.set_nodelay(true).map_err(|fault| unreached(&fault))?;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WAIT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES.0)
        .initial_connection_window_size(WINDOW_BYTES.1)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|fault| unreached(&fault))?;
    tokio::spawn(async move {
        if let Err(fault) = connection.await {
            debug!(peer.address = %address, error = %crate::chain(&fault), "the connection to {address} broke");
        }
    });
    Ok(Wire(sender))
}

/// Claims say `host:port`; a scheme before it is passed over.
fn host_and_port(address: &str) -> &str {
    address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/')
}

/// An open connection, as tonic's clients take one.
#[derive(Clone)]
pub(super) struct Wire(SendRequest<Body>);

/// A request that came to nothing on the way.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireFault {
    /// It never left this process.
    #[error("the connection was closed before the request was sent")]
    NeverSent(#[source] hyper::Error),
    /// It may have arrived.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Incoming>;
    type Error = WireFault;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // A closed connection is told by the request itself, which then is known to be unsent.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sending = self.0.try_send_request(request);
        async move {
            sending.await.map_err(|mut fault| match fault.take_message() {
                Some(_) => WireFault::NeverSent(fault.into_error()),
                None => WireFault::Broken(fault.into_error()),
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_ways_are_forgotten_and_used_ones_kept() {
        let links = Links::new(RemoteOptions { idle_max: Duration::ZERO, ..RemoteOptions::default() });
        let used = links.to(&"a:1".into());
        drop(links.to(&"b:1".into()));
        let again = links.to(&"a:1".into());
        assert!(Arc::ptr_eq(&used, &again));
        assert_eq!(links.count(), 1);
    }
}
