//! The HTTP/1.1 server: accepts within bounds, gives every connection a watchdog so that slow and silent clients cannot
//! hold it, and drains when asked. hyper's own header timer also counts the pause between two requests, and is set anew
//! for each of them; the watchdog tells "idle" from "sending a head" and costs a busy connection nothing.
//!
//! What hyper cannot read as a request (400), or has too large a head (431), it answers itself and closes; `refusal` puts
//! our words in place of its own. Where there is no room for another connection, the longest idle one goes; where none is
//! idle, the newcomer is told so and heard out for a moment, so that it gets to read it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_LENGTH;
use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;

mod activity;
mod refusal;
mod slots;

use activity::{Activity, Verdict, Watched};
use slots::{Slot, Slots};

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time from a request's first byte to the end of its head.
    pub header_time_max: Duration,
    /// Longest head, request line included, in bytes; more is answered 431. Fields are bounded by the
    /// [`App`](crate::app::HEADER_FIELDS_MAX).
    pub header_bytes_max: usize,
    /// Longest time that a connection may be open without a request.
    pub idle_max: Duration,
    /// Longest time that a client may take nothing of an answer that waits for it.
    pub write_stall_max: Duration,
    /// Most connections in all.
    pub connections_max: usize,
    /// Most connections of one address; loopback is exempt.
    pub connections_per_address_max: usize,
    /// Longest time that a drain waits for requests under way.
    pub drain_max: Duration,
}

impl Limits {
    /// 5 s and 16 KiB per head, 60 s idle, 4,096 connections, 1,024 per address, 30 s to drain.
    pub const DEFAULT: Self = Self {
        header_time_max: Duration::from_secs(5),
        header_bytes_max: 16 * 1024,
        idle_max: Duration::from_secs(60),
        write_stall_max: Duration::from_secs(60),
        connections_max: 4_096,
        connections_per_address_max: 1_024,
        drain_max: Duration::from_secs(30),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// hyper's read buffer per connection. A body comes through it in pieces, so it bounds memory, not bodies.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long a connection that has not sent a byte may still do so once the server drains.
const DRAIN_IDLE_GRACE: Duration = Duration::from_millis(250);
/// Most newcomers without a place who are told so at a time, and how long that may take; further ones are just closed. Where
/// there is room for few connections only a quarter as many are: they must not take the files that the rest of the process
/// needs.
const TURNED_AWAY_MAX: usize = 256;
const TURNED_AWAY_TIME_MAX: Duration = Duration::from_secs(1);
/// Newcomers that wait to be accepted, at least.
const BACKLOG_MIN: u32 = 1_024;
/// First and longest pause after `accept` failed for want of file descriptors or memory.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Who may reach a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exposure {
    /// This machine. There is no TLS and no login yet, so it is the default.
    #[default]
    LoopbackOnly,
    /// Whoever reaches the address: the operator said so.
    Anyone,
}

/// A server could not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can be reached from other machines.
    #[error(
        "{0} can be reached from other machines, and there is no TLS and no login yet: listen on 127.0.0.1 or [::1] \
         (with a proxy in front that has both), or allow it explicitly"
    )]
    NotLoopback(SocketAddr),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A server that listens and does not serve yet: clients that connect wait.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Server {
    /// Listens. Port 0 picks a free one: see [`local_addr`](Self::local_addr).
    pub async fn bind(address: SocketAddr, exposure: Exposure, limits: Limits) -> Result<Self, BindError> {
        if exposure == Exposure::LoopbackOnly && !address.ip().to_canonical().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let failed = |source| BindError::Io { address, source };
        let listener = listen(address, limits.connections_max).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, limits })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then takes no more, lets the requests under way finish (at most `drain_max`) and returns
    /// when every connection is closed.
    pub async fn run(self, app: App, shutdown: CancellationToken) {
        let Self { listener, limits, address } = self;
        let slots = Slots::new(limits.connections_max, limits.connections_per_address_max);
        let gauge = metrics::gauge!("docket_http_connections");
        let refused = metrics::counter!("docket_http_connections_refused_total");
        let tasks = TaskTracker::new();
        let kill = CancellationToken::new();
        let turned_away = Arc::new(Semaphore::new((limits.connections_max / 4).clamp(1, TURNED_AWAY_MAX)));
        let mut pause = ACCEPT_PAUSE.0;
        let next = async || {
            slots.made_room().await;
            listener.accept().await
        };
        while let Some(accepted) = shutdown.run_until_cancelled(next()).await {
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE.0;
                    let activity = Arc::new(Activity::new(Instant::now(), &limits));
                    let close = kill.child_token();
                    if let Some(slot) = slots.take(peer.ip(), &activity, &close, gauge.clone()) {
                        let (app, shutdown) = (app.clone(), shutdown.clone());
                        let connection = Connection { app, limits, shutdown, close, activity, _slot: slot };
                        tasks.spawn(connection.serve(stream));
                    } else {
                        refused.increment(1);
                        if let Ok(place) = Arc::clone(&turned_away).try_acquire_owned() {
                            let close = kill.clone();
                            tasks.spawn(async move {
                                let _place = place;
                                close.run_until_cancelled(turn_away(stream)).await;
                            });
                        }
                    }
                }
                // The client was gone before it was accepted.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: connections that end give some back.
                    tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "cannot accept connections");
                    shutdown.run_until_cancelled(sleep(pause)).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
        drop(listener);
        tasks.close();
        if timeout(limits.drain_max, tasks.wait()).await.is_err() {
            tracing::warn!(%address, connections = tasks.len(), "closing connections that did not finish in time");
            kill.cancel();
            tasks.wait().await;
        }
    }
}

/// Listens with room for as many newcomers as there may be connections, as far as the system lets it: one that finds none
/// would hear nothing and ask again after a second.
fn listen(address: SocketAddr, connections_max: usize) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else an address that was just given up could not be had again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(u32::try_from(connections_max).unwrap_or(u32::MAX).max(BACKLOG_MIN).min(i32::MAX as u32))
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Says why, and hears the client out for a moment: closing while it sends would reset the connection, and the reset could
/// overtake the answer.
async fn turn_away(mut stream: TcpStream) {
    const BODY: &str = concat!(
        r#"{"type":"https://docket.dev/problems/overloaded","title":"Too busy to take this now","status":503,"#,
        r#""code":"overloaded","detail":"too many connections","outcome":"unknown"}"#
    );
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let telling = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut dropped = [0; 4096];
        while stream.read(&mut dropped).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that is gone already needs no answer.
    let _ = timeout(TURNED_AWAY_TIME_MAX, telling).await;
}

/// One connection and what its task needs.
struct Connection {
    app: App,
    limits: Limits,
    shutdown: CancellationToken,
    close: CancellationToken,
    activity: Arc<Activity>,
    _slot: Slot,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // Answers are small and whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let activity = Arc::clone(&self.activity);
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let app = &self.app;
        let seen = &activity;
        let service = service_fn(move |request: Request<Incoming>| {
            seen.request_began();
            let answer = Finished::of(app.clone(), request);
            async move {
                let response = answer.await;
                Ok::<_, Infallible>(response.map(|body| activity::Tracked::new(body, Arc::clone(seen))))
            }
        });
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_header_size(self.limits.header_bytes_max)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let mut watchdog = pin!(sleep_until(activity.deadline()));
        let mut shutdown = pin!(self.shutdown.cancelled());
        let mut close = pin!(self.close.cancelled());
        let mut draining = false;
        std::future::poll_fn(|context| {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                if let Err(error) = result {
                    // A client's doing, or its network's; never this program's.
                    tracing::debug!(%error, "a connection ended early");
                }
                return Poll::Ready(());
            }
            if close.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            if !draining && shutdown.as_mut().poll(context).is_ready() {
                draining = true;
                connection.as_mut().graceful_shutdown();
                activity.drain(Instant::now() + DRAIN_IDLE_GRACE);
                // Asked to end, it has to be polled to do so.
                context.waker().wake_by_ref();
            }
            // Only ever brought forward: a deadline that has moved away is seen when the old one fires.
            let deadline = activity.deadline();
            if deadline < watchdog.deadline() {
                watchdog.as_mut().reset(deadline);
            }
            while watchdog.as_mut().poll(context).is_ready() {
                match activity.verdict(Instant::now()) {
                    Verdict::Close => return Poll::Ready(()),
                    Verdict::Until(deadline) => watchdog.as_mut().reset(deadline),
                }
            }
            Poll::Pending
        })
        .await;
    }
}

/// An answer in the making. That of a request that has come whole, or says how long it is, and may change something is
/// made to its end although nobody waits for it any more: hyper drops what is under way the moment a client hangs up.
enum Finished {
    /// Nothing is lost if nobody waits.
    Read(Answer),
    /// Goes on by itself if dropped before its end, unless it still waits for its turn: that is what the flag is for.
    Command(Option<Answer>, Arc<AtomicBool>),
}

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

impl Finished {
    fn of(app: App, request: Request<Incoming>) -> Self {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        // Of a chunked body that breaks off nobody could tell that it did.
        let whole = request.headers().contains_key(CONTENT_LENGTH) || request.body().is_end_stream();
        if reads || !whole {
            return Self::Read(Box::pin(async move { app.handle(request).await }));
        }
        let gone = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&gone);
        Self::Command(Some(Box::pin(async move { app.handle_until(request, Some(told)).await })), gone)
    }
}

impl Future for Finished {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Read(answer) => answer.as_mut().poll(context),
            Self::Command(command, _) => {
                let Some(answer) = command else { return Poll::Pending };
                let response = std::task::ready!(answer.as_mut().poll(context));
                *command = None;
                Poll::Ready(response)
            }
        }
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if let Self::Command(command, gone) = self
            && let Some(answer) = command.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            gone.store(true, Ordering::Relaxed);
            runtime.spawn(answer);
        }
    }
}

#[cfg(test)]
mod tests;
