//! A real server on a real socket and clients that speak bytes, politely or not.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::body::{BodyLimits, command_request_within};

/// Longest that a test waits for anything: far above what it expects, far below what people bear.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server under test. Dropping it without `stop` would leave its task behind, so tests stop it.
struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(router: Router, limits: Limits) -> Self {
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), Exposure::LoopbackOnly, limits).await.unwrap();
        let address = server.local_addr();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server.run(App::new(router), shutdown.clone()));
        Self { address, shutdown, task }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Asks it to drain and waits until it has.
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.expect("the server drains").unwrap();
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        self.answer().await
    }

    /// One answer: its head and as much body as it declares.
    async fn answer(&mut self) -> String {
        timeout(PATIENCE, async {
            let mut gathered = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&gathered).to_lowercase();
                if let Some(end) = text.find("\r\n\r\n") {
                    let length = text[..end].lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
                    if gathered.len() >= end + 4 + length {
                        return String::from_utf8(gathered).unwrap();
                    }
                }
                let mut piece = [0; 4096];
                let count = self.0.read(&mut piece).await.unwrap();
                assert!(count > 0, "closed after {text:?}");
                gathered.extend_from_slice(&piece[..count]);
            }
        })
        .await
        .expect("an answer")
    }

    /// All that comes until the server closes, and how long that took.
    async fn until_closed(&mut self) -> (String, Duration) {
        let start = Instant::now();
        let mut gathered = Vec::new();
        // A reset is a close too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut gathered)).await.expect("the server closes");
        (String::from_utf8_lossy(&gathered).into_owned(), start.elapsed())
    }
}

fn hello() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/panic", get(async || -> &'static str { panic!("a bug, wanted by a test") }))
}

/// Short enough to test, long enough for a busy machine.
fn brief() -> Limits {
    Limits { header_time_max: Duration::from_millis(400), ..Limits::DEFAULT }
}

fn assert_about(took: Duration, expected_ms: u64) {
    let took_ms = u64::try_from(took.as_millis()).unwrap();
    assert!(took_ms + 60 >= expected_ms && took_ms < expected_ms + 3_000, "{took_ms} ms instead of {expected_ms}");
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = Running::start(hello(), Limits::DEFAULT).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        let answer = client.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
        assert!(answer.contains("\r\nrequest-id: "), "{answer}");
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.until_closed().await.0.matches("hello").count(), 2, "pipelined");
    server.stop().await;
}

#[tokio::test]
async fn who_sends_too_much_is_heard_out_and_reads_why() {
    let refusing = Router::new().route("/", post(async || http::StatusCode::PAYLOAD_TOO_LARGE));
    let server = Running::start(refusing, Limits::DEFAULT).await;
    let much = "x".repeat(1024 * 1024);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {much}\r\n\r\n"), "431"),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{much}", much.len()), "413"),
    ] {
        // In pieces, and reading only after all is sent, as most clients do.
        let mut client = server.connect().await;
        for piece in request.as_bytes().chunks(64 * 1024) {
            client.0.write_all(piece).await.expect("the server hears it out");
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        timeout(PATIENCE, client.0.read_to_string(&mut answer)).await.expect("the server closes").unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }

    // Not for ever.
    let mut client = server.connect().await;
    let start = Instant::now();
    let mut told = client.0.write_all(format!("GET / HTTP/1.1\r\nX-Large: {much}").as_bytes()).await;
    while told.is_ok() {
        assert!(start.elapsed() < PATIENCE);
        told = client.0.write_all(b"x").await;
        sleep(Duration::from_millis(20)).await;
    }
    assert_about(start.elapsed(), 1_000);
    server.stop().await;
}

#[tokio::test]
async fn half_a_head_is_not_waited_for() {
    let server = Running::start(hello(), brief()).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow").await;
    assert_about(client.until_closed().await.1, 400);

    // Neither on a connection that was good before, …
    let mut client = server.connect().await;
    client.get("/").await;
    client.send("GET").await;
    assert_about(client.until_closed().await.1, 400);

    // … nor byte by byte.
    let mut client = server.connect().await;
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    while client.0.write_all(b"X-Slow: 1\r\n").await.is_ok() {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(50)).await;
    }
    assert_about(start.elapsed(), 400);
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_later_than_a_slow_head() {
    let limits =
        Limits { header_time_max: Duration::from_millis(200), idle_max: Duration::from_millis(1_000), ..brief() };
    let server = Running::start(hello(), limits).await;
    let mut silent = server.connect().await;
    let mut client = server.connect().await;
    client.get("/").await;
    let (_, took) = client.until_closed().await;
    assert_about(took, 1_000);
    assert_about(silent.until_closed().await.1 + took, 1_000);
    server.stop().await;
}

#[tokio::test]
async fn a_request_under_way_is_not_idle() {
    let limits =
        Limits { header_time_max: Duration::from_millis(100), idle_max: Duration::from_millis(200), ..brief() };
    let slow = async || {
        sleep(Duration::from_millis(700)).await;
        "worth the wait"
    };
    let server = Running::start(Router::new().route("/slow", get(slow)), limits).await;
    assert!(server.connect().await.get("/slow").await.ends_with("worth the wait"));
    server.stop().await;
}

#[tokio::test]
async fn a_head_too_large_is_told_so() {
    let server = Running::start(hello(), Limits::DEFAULT).await;
    let head = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(bytes));
    let mut client = server.connect().await;
    client.send(&head(15 * 1024)).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200 "));
    let mut client = server.connect().await;
    client.send(&head(16 * 1024)).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("\"head-too-large\""), "{answer}");
    for fields in [64, 99, 500] {
        let mut client = server.connect().await;
        let lines = (0..fields).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
        client.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("\"head-too-large\""), "{fields}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_without_one_host_is_refused() {
    let server = Running::start(hello(), Limits::DEFAULT).await;
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nhost: b\r\n", "Host: a b\r\n"] {
        let mut client = server.connect().await;
        client.send(&format!("GET / HTTP/1.1\r\n{hosts}\r\n")).await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"bad-header\""), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_of_two_lengths_smuggles_nothing() {
    let router = Router::new().route("/", post(async |body: Bytes| body));
    let server = Running::start(router, Limits::DEFAULT).await;
    // As RFC 9112 allows, chunks win, and what follows is not taken for a request: the connection closes.
    for lengths in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]
    {
        let mut client = server.connect().await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n0\r\n\r\n{smuggled}")).await;
        let (answer, _) = client.until_closed().await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n0\r\n\r\n")).await;
        let (answer, _) = client.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn nonsense_is_refused_and_harms_nobody() {
    let server = Running::start(hello(), brief()).await;
    let nonsense = [
        "\0\0\0\0",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\x00",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ];
    for text in nonsense {
        let mut client = server.connect().await;
        client.send(text).await;
        let (answer, _) = client.until_closed().await;
        assert!(!answer.contains(" 200 "), "{text:?}: {answer}");
        // A first line that is no HTTP at all is told so; what has not ended, and HTTP/2, is only closed.
        assert_eq!(answer.contains("\"malformed-head\""), answer.starts_with("HTTP/1.1 400 "), "{text:?}: {answer}");
    }
    assert!(server.connect().await.get("/").await.ends_with("hello"));
    server.stop().await;
}

#[tokio::test]
async fn odd_targets_are_answered_without_a_fault() {
    let server = Running::start(hello(), brief()).await;
    let odd =
        ["OPTIONS *", "GET http://a/", "GET http://a", "CONNECT a:80", "GET /?", "GET /%2e%2e", "GET //", "POST *"];
    for line in odd {
        let mut client = server.connect().await;
        client.send(&format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let (answer, _) = client.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.starts_with("HTTP/1.1 5"), "{line}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_panic_is_answered_and_the_connection_goes_on() {
    let server = Running::start(hello(), Limits::DEFAULT).await;
    let mut client = server.connect().await;
    let answer = client.get("/panic").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\"code\":\"internal\""), "{answer}");
    assert!(client.get("/").await.ends_with("hello"));
    server.stop().await;
}

/// Takes commands in as the real routes do, with bounds short enough to test.
async fn take(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let limits = BodyLimits { grace: Duration::from_millis(300), ..BodyLimits::DEFAULT };
    match command_request_within(&parts, body, &limits).await {
        Ok(command) => command.body.root().to_value().to_string().into_response(),
        Err(problem) => problem.into_response(),
    }
}

const COMMAND: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                       Idempotency-Key: 0198c3a4-5b6c-7d8e-9f00-112233445566\r\n";

#[tokio::test]
async fn a_slow_body_is_cut_with_an_unknown_outcome() {
    let server = Running::start(Router::new().route("/", post(take)), Limits::DEFAULT).await;
    let mut client = server.connect().await;
    client.send(&format!("{COMMAND}Content-Length: 10\r\n\r\n{{")).await;
    let (answer, took) = client.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"outcome\":\"unknown\""), "{answer}");
    assert_about(took, 300);
    server.stop().await;
}

#[tokio::test]
async fn a_large_body_still_reads_its_refusal() {
    let server = Running::start(Router::new().route("/", post(take)), Limits::DEFAULT).await;
    let body = "x".repeat(900 * 1024);
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.send(&format!("{COMMAND}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body-too-large"), "{answer}");
    }
    // Undeclared, it is found out on the way.
    let mut client = server.connect().await;
    client.send(&format!("{COMMAND}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 413 "));
    server.stop().await;
}

#[tokio::test]
async fn who_expects_a_refusal_first_gets_it_without_sending() {
    let server = Running::start(Router::new().route("/", post(take)), Limits::DEFAULT).await;
    let mut client = server.connect().await;
    client.send(&format!("{COMMAND}Expect: 100-continue\r\nContent-Length: 999999\r\n\r\n")).await;
    let answer = client.answer().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut client = server.connect().await;
    client.send(&format!("{COMMAND}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 100 "));
    client.send("{}").await;
    assert!(client.answer().await.ends_with("{}"));
    server.stop().await;
}

/// A route that waits until told, and says when it has begun.
fn gated() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let route = get(async move || {
        tell.notify_one();
        wait.notified().await;
        "done"
    });
    (Router::new().route("/", route), begun, go)
}

#[tokio::test]
async fn a_drain_lets_the_request_under_way_finish_and_takes_no_other() {
    let (router, begun, go) = gated();
    let server = Running::start(router, Limits::DEFAULT).await;
    let mut idle = server.connect().await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    begun.notified().await;
    server.shutdown.cancel();
    let (nothing, _) = idle.until_closed().await;
    assert_eq!(nothing, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed while it drains");
    go.notify_one();
    let (answer, _) = client.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let (router, begun, _go) = gated();
    let server = Running::start(router, Limits { drain_max: Duration::from_millis(300), ..Limits::DEFAULT }).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    begun.notified().await;
    let start = Instant::now();
    server.stop().await;
    assert_about(start.elapsed(), 300);
    assert_eq!(client.until_closed().await.0, "");
}

#[tokio::test]
async fn a_large_answer_is_finished_while_draining() {
    let large = async || Body::from(vec![b'x'; 8 * 1024 * 1024]);
    let server = Running::start(Router::new().route("/", get(large)), Limits::DEFAULT).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut first = [0; 1024];
    client.0.read_exact(&mut first).await.unwrap();
    server.shutdown.cancel();
    // Longer than a drain leaves to who has nothing to get.
    sleep(DRAIN_IDLE_GRACE * 2).await;
    let (rest, _) = client.until_closed().await;
    assert!(rest.len() > 8 * 1024 * 1024 - 1024, "{} bytes came", rest.len());
    server.stop().await;
}

#[tokio::test]
async fn who_takes_nothing_is_dropped() {
    let large = async || Body::from(vec![b'x'; 32 * 1024 * 1024]);
    let limits = Limits { write_stall_max: Duration::from_millis(300), ..Limits::DEFAULT };
    let server = Running::start(Router::new().route("/", get(large)), limits).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // The drain ends only with the connection, which nobody reads from.
    let start = Instant::now();
    let mut first = [0; 1];
    client.0.read_exact(&mut first).await.unwrap();
    server.stop().await;
    assert_about(start.elapsed(), 300);
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_place() {
    let (router, begun, _go) = gated();
    let limits = Limits { connections_max: 1, ..Limits::DEFAULT };
    let server = Running::start(router.route("/hello", get(async || "hello")), limits).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    begun.notified().await;
    let (answer, _) = server.connect().await.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"overloaded\""), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
    drop(client);
    let freed = async {
        loop {
            let mut client = server.connect().await;
            // Turned away while the place is still taken: that shows as a 503 or as a reset.
            let _ = client.0.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            if client.until_closed().await.0.ends_with("hello") {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.expect("the place is free again");
    server.stop().await;
}

#[tokio::test]
async fn many_connections_at_once_are_all_answered() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let route = get(async move || seen.fetch_add(1, Ordering::Relaxed).to_string());
    let server = Arc::new(Running::start(Router::new().route("/", route), Limits::DEFAULT).await);
    let clients = (0..200).map(|_| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.connect().await.get("/").await.starts_with("HTTP/1.1 200 ") })
    });
    for client in clients.collect::<Vec<_>>() {
        assert!(client.await.unwrap());
    }
    assert_eq!(count.load(Ordering::Relaxed), 200);
    Arc::into_inner(server).unwrap().stop().await;
}

#[tokio::test]
async fn only_this_machine_unless_allowed() {
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let refused = Server::bind(anywhere, Exposure::LoopbackOnly, Limits::DEFAULT).await.unwrap_err();
    assert!(refused.to_string().contains("no TLS and no login"), "{refused}");
    assert!(Server::bind(anywhere, Exposure::Anyone, Limits::DEFAULT).await.is_ok());
    let first = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), Exposure::LoopbackOnly, Limits::DEFAULT).await.unwrap();
    let taken = Server::bind(first.local_addr(), Exposure::LoopbackOnly, Limits::DEFAULT).await.unwrap_err();
    assert!(taken.to_string().contains(&first.local_addr().to_string()), "{taken}");
}
