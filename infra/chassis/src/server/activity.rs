//! What a connection is doing, so that its watchdog knows how long it may go on: idle, sending a head, or being answered;
//! and whether the client takes what is sent to it. All of it happens in the connection's one task; the atomics are only
//! there because tasks move between threads.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Limits, refusal};

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const CLOSING: u8 = 3;
/// How long, and for how many bytes, a client is heard out that was answered before it had sent all: closing while it
/// still sends resets the connection, and a reset may overtake the answer that says what was wrong.
const HEAR_OUT_MAX: Duration = Duration::from_secs(1);
const HEAR_OUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Stands for "never" among microseconds.
const NEVER: u64 = u64::MAX;

/// What a connection is doing and since when.
pub(super) struct Activity {
    opened: Instant,
    header_time_max: Duration,
    idle_max: Duration,
    write_stall_max: Duration,
    phase: AtomicU8,
    /// Microseconds from `opened` to the start of the phase.
    since_us: AtomicU64,
    /// Microseconds from `opened` to the moment when the client stopped taking, or `NEVER`.
    stalled_us: AtomicU64,
    /// Microseconds from `opened` after which an idle connection is not needed, or `NEVER`.
    drain_us: AtomicU64,
    /// Whether the current phase began with an answer whose last byte may not have left.
    unflushed: AtomicBool,
}

/// What the watchdog is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Close the connection: its time is up.
    Close,
    /// Look again then.
    Until(Instant),
}

impl Activity {
    pub(super) fn new(opened: Instant, limits: &Limits) -> Self {
        Self {
            opened,
            header_time_max: limits.header_time_max,
            idle_max: limits.idle_max,
            write_stall_max: limits.write_stall_max,
            phase: AtomicU8::new(IDLE),
            since_us: AtomicU64::new(0),
            stalled_us: AtomicU64::new(NEVER),
            drain_us: AtomicU64::new(NEVER),
            unflushed: AtomicBool::new(false),
        }
    }

    /// Bytes came: if nothing was under way, a head has begun. (Half a head that came along with the body before it is
    /// not seen here; it has the idle time to be completed.)
    fn bytes_came(&self) {
        if self.phase.load(Relaxed) == IDLE {
            self.enter(HEAD, self.now_us());
        }
    }

    /// A head was read and its request is being answered.
    pub(super) fn request_began(&self) {
        // When it began does not matter: an answer may take its time.
        self.phase.store(BUSY, Relaxed);
    }

    /// The answer's last piece was handed on.
    fn request_ended(&self) {
        self.unflushed.store(true, Relaxed);
        self.enter(IDLE, self.now_us());
    }

    /// All is said; what the client still sends is for nobody. Tells whether it was in the middle of a head.
    fn closing(&self) -> bool {
        let in_head = self.phase.load(Relaxed) == HEAD;
        self.enter(CLOSING, self.now_us());
        in_head
    }

    fn write_waits(&self) {
        if self.stalled_us.load(Relaxed) == NEVER {
            self.stalled_us.store(self.now_us(), Relaxed);
        }
    }

    fn write_went(&self) {
        self.stalled_us.store(NEVER, Relaxed);
    }

    fn flushed(&self) {
        self.unflushed.store(false, Relaxed);
    }

    /// From `at` on an idle connection is closed.
    pub(super) fn drain(&self, at: Instant) {
        self.drain_us.store(self.us(at), Relaxed);
    }

    /// How long nothing has been asked on it; zero while something is under way.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        if self.phase.load(Relaxed) == IDLE && !self.unflushed.load(Relaxed) {
            now.saturating_duration_since(self.instant(self.since_us.load(Relaxed)))
        } else {
            Duration::ZERO
        }
    }

    /// When the watchdog must look, at the latest.
    pub(super) fn deadline(&self) -> Instant {
        let since = self.instant(self.since_us.load(Relaxed));
        let of_phase = match self.phase.load(Relaxed) {
            IDLE => {
                let idle = since + self.idle_max;
                match self.drain_us.load(Relaxed) {
                    NEVER => idle,
                    drain if self.unflushed.load(Relaxed) => idle.max(self.instant(drain)),
                    drain => idle.min(self.instant(drain)),
                }
            }
            HEAD => since + self.header_time_max,
            CLOSING => since + HEAR_OUT_MAX,
            // Not bounded here, but what comes after it is: so the watchdog keeps looking.
            _ => Instant::now() + self.idle_max,
        };
        match self.stalled_us.load(Relaxed) {
            NEVER => of_phase,
            // Somebody still reads an answer: what it is stuck in counts, not what comes after.
            stalled => self.instant(stalled) + self.write_stall_max,
        }
    }

    /// Whether its time is up.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let deadline = self.deadline();
        if deadline <= now { Verdict::Close } else { Verdict::Until(deadline) }
    }

    fn enter(&self, phase: u8, since_us: u64) {
        self.since_us.store(since_us, Relaxed);
        self.phase.store(phase, Relaxed);
    }

    fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from((at - self.opened).as_micros()).unwrap_or(NEVER - 1)
    }

    fn instant(&self, us: u64) -> Instant {
        self.opened + Duration::from_micros(us)
    }
}

/// A socket that tells what comes and whether it takes what is sent.
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
    end: End,
    /// What is left of an answer that goes out instead of hyper's own.
    instead: Option<Bytes>,
}

/// How far a socket's end has come.
#[derive(Clone, Copy)]
enum End {
    /// It is in use.
    Open,
    /// Nothing is sent any more. If the client was still sending, what it sends is read and dropped.
    Said { sending: bool, bytes: usize },
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, end: End::Open, instead: None }
    }

    /// Whether these bytes are a refusal of hyper's own, for which ours goes out.
    fn says_instead(&mut self, buf: &[u8]) -> bool {
        if self.instead.is_none() {
            self.instead = refusal::instead_of(buf);
        }
        self.instead.is_some()
    }

    /// Writes all of it before it calls the `replaced` bytes written: hyper asks again with the same until then.
    fn say_instead(&mut self, cx: &mut Context<'_>, replaced: usize) -> Poll<io::Result<usize>> {
        while let Some(left) = self.instead.as_mut().filter(|left| !left.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(written);
        }
        self.instead = None;
        Poll::Ready(Ok(replaced))
    }

    fn wrote<T>(&self, poll: Poll<T>) -> Poll<T> {
        match &poll {
            Poll::Pending => self.activity.write_waits(),
            Poll::Ready(_) => self.activity.write_went(),
        }
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.activity.bytes_came();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = match self.says_instead(buf) {
            true => self.say_instead(cx, buf.len()),
            false => Pin::new(&mut self.stream).poll_write(cx, buf),
        };
        self.wrote(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = match bufs {
            [buf] if self.says_instead(buf) => self.say_instead(cx, buf.len()),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once its own buffer is empty.
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.activity.flushed();
        Poll::Ready(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut sending, mut bytes) = match self.end {
            End::Said { sending, bytes } => (sending, bytes),
            End::Open => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                (self.activity.closing(), 0)
            }
        };
        let mut dropped = [0; 4096];
        while bytes < HEAR_OUT_BYTES_MAX {
            let mut piece = ReadBuf::new(&mut dropped);
            match Pin::new(&mut self.stream).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                    sending = true;
                    bytes += piece.filled().len();
                }
                Poll::Pending if sending => {
                    self.end = End::Said { sending, bytes };
                    return Poll::Pending;
                }
                // It has ended too, or was not sending anything.
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// An answer's body that tells when hyper is done with it.
pub(super) struct Tracked {
    body: Body,
    activity: Arc<Activity>,
}

impl Tracked {
    pub(super) fn new(body: Body, activity: Arc<Activity>) -> Self {
        Self { body, activity }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.activity.request_ended();
    }
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
