//! Clients that cost little, so that one machine can ask for more than it can answer: a connection each, requests made
//! beforehand, and of the answers only what is looked at.

use std::path::Path;
use std::time::{Duration, Instant};

use kit::{Client, Docket};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use uuid::Uuid;

/// Longest that any single answer may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One server at a time: they share the machine.
static TURN: Mutex<()> = Mutex::const_new(());

/// A server of the test's own.
pub(crate) struct House {
    /// The process.
    pub(crate) docket: Docket,
    _data: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl House {
    /// An embedded node with these settings, such as `limits.commands_at_once=16`.
    pub(crate) async fn open(settings: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let data = TempDir::with_prefix("docket-pressure-").expect("a folder for the test's data");
        let own = ["listen.http=127.0.0.1:0", "dev_routes=true", &format!("data={}", data.path().display())];
        let arguments: Vec<&str> = own.iter().chain(settings).flat_map(|one| ["--set", one]).collect();
        let docket = Docket::serve(&arguments).await.unwrap_or_else(|fault| panic!("{fault}"));
        Self { docket, _data: data, _turn: turn }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        self.docket.address().trim_start_matches("http://").to_owned()
    }

    /// A client that behaves.
    pub(crate) fn client(&self) -> Client {
        self.docket.client()
    }

    /// Its memory now, in MiB.
    pub(crate) fn rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a process has memory") / 1024
    }

    /// Files it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("a running process has files").count()
    }

    fn proc(&self, what: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.docket.pid().to_string()).join(what)
    }

    /// A figure of `/metrics`: the sum of all lines of that name.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.client().get("/metrics").await.expect("metrics are told whatever happens").text;
        let lines =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until nothing of what clients did is left: no more files open than `files`, nothing under way.
    pub(crate) async fn calms_down(&self, files: usize) {
        let began = Instant::now();
        loop {
            // One connection is that of the look itself; state and read stores open and close a few of their own.
            let (open, under_way) = (self.open_files(), self.metric("docket_http_requests_in_flight").await);
            let taken = self.metric("docket_http_places_taken").await;
            let in_flight = self.metric("docket_shard_in_flight").await;
            if open <= files + 16 && under_way <= 1.0 && taken == 0.0 && in_flight == 0.0 {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{open} files open ({files} before), {under_way} requests under way, {taken} places taken, {in_flight} \
                 records in flight"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// That everything that must hold does.
    pub(crate) async fn is_sound(&self) {
        let report = self.client().get("/dev/invariants").await.expect("an answer").body;
        assert_eq!(report["violations"], serde_json::json!([]), "{report}");
    }

    /// Whether the process runs and says that it is ready.
    pub(crate) async fn is_well(&mut self) {
        assert!(self.docket.runs(), "{}", self.docket.printed());
        assert_eq!(self.client().get("/readyz").await.map(|reply| reply.status), Some(200));
        assert_eq!(self.metric("docket_http_panics_total").await, 0.0, "{}", self.docket.printed());
    }
}

/// An order of one line without payment: a whole request, under this key.
pub(crate) fn order(key: Uuid) -> Vec<u8> {
    let body = r#"{"customer_id":"c","location_id":"here","lines":[{"sku":"b","quantity":1,"unit_price":{"amount":100,"currency":"EUR"}}]}"#;
    command("POST /v1/orders", key, body)
}

/// Any command, as it goes over the wire.
pub(crate) fn command(what: &str, key: Uuid, body: &str) -> Vec<u8> {
    format!(
        "{what} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A connection that says what it is told to.
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer: status, head and body.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// All lines before the body, in small letters.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
}

impl Answer {
    /// Whether it is told as the contract tells that it should be asked again.
    pub(crate) fn asks_to_come_back(&self) -> bool {
        matches!(self.status, 429 | 503)
            && self.head.contains("\r\nretry-after: ")
            && self.body.contains(r#""outcome":"unknown""#)
    }
}

impl Wire {
    /// Connects.
    pub(crate) async fn to(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Sends these bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a request and takes its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Option<Answer> {
        timeout(PATIENCE, async {
            // Who is refused in the middle of a request still reads why.
            let _ = self.send(request).await;
            self.answer().await
        })
        .await
        .ok()?
    }

    /// The next answer; `None` if the connection ends before it.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.read[..end + 2]).to_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        let whole = end + 4 + length.unwrap_or(0);
        while self.read.len() < whole {
            self.more().await?;
        }
        let body = String::from_utf8_lossy(&self.read[end + 4..whole]).into_owned();
        self.read.drain(..whole);
        Some(Answer { status, head, body })
    }

    async fn more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(1..) => Some(()),
            _ => None,
        }
    }

    /// All that still comes until the server closes; `None` if it does not in time.
    pub(crate) async fn until_closed(mut self) -> Option<String> {
        timeout(PATIENCE, async { while self.more().await.is_some() {} }).await.ok()?;
        Some(String::from_utf8_lossy(&self.read).into_owned())
    }
}

/// Times, to be asked for percentiles.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// One more.
    pub(crate) fn note(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// All of another.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// So many of a hundred took no longer.
    pub(crate) fn at(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        self.0.get((self.0.len() * percent / 100).min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// How long a client that behaves waits for each of its commands, one after the other, for so long. Every one of them is
/// carried out, after however many tries; the time of those counts too.
pub(crate) async fn behaves(address: &str, lasting: Duration, path: &str) -> Times {
    let (began, mut times) = (Instant::now(), Times::default());
    let mut wire = None;
    while began.elapsed() < lasting {
        let (asked, key) = (Instant::now(), Uuid::now_v7());
        let request =
            if path == "/v1/orders" { order(key) } else { command(&format!("POST {path}"), key, r#"{"quantity":1}"#) };
        loop {
            let mut at_hand: Wire = match wire.take() {
                Some(wire) => wire,
                None => Wire::to(address).await.expect("the server listens"),
            };
            let answer = at_hand.ask(&request).await;
            if answer.as_ref().is_some_and(|answer| (200..300).contains(&answer.status)) {
                wire = Some(at_hand);
                break;
            }
            assert!(asked.elapsed() < PATIENCE, "a client that behaves is not served: {answer:?}");
            assert!(answer.as_ref().is_none_or(Answer::asks_to_come_back), "{answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.note(asked.elapsed());
    }
    times
}
