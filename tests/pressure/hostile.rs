//! What no well-meaning client sends: too large, malformed, ambiguous, or made to confuse whoever reads along. All of it is
//! answered with the contract's words or a closed connection, none of it breaks anything, and nothing of it stays.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::clients::{House, PATIENCE, Wire, behaves};

/// What is to come back.
#[derive(Clone, Copy)]
enum Told {
    /// A problem of this status and code.
    Problem(u16, &'static str),
    /// A problem with any 4xx, or the end of the connection: nobody can tell where a request begins.
    Refusal,
    /// Anything that is not a fault of the server's.
    Answer,
}
use Told::{Answer, Problem, Refusal};

/// A request without a body.
fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n").into_bytes()
}

/// An order with any bytes for a body.
fn post(body: &[u8], fields: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {}\r\nContent-Length: {}\r\n{fields}\r\n",
        Uuid::now_v7(),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An order whose length is told otherwise.
fn framed(fields: &str, rest: &str) -> Vec<u8> {
    format!(
        "POST /v1/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {}\r\n{fields}\r\n\r\n{rest}",
        Uuid::now_v7()
    )
    .into_bytes()
}

fn bodies() -> Vec<(&'static str, Vec<u8>, Told)> {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let keys = |count: usize| {
        let members: Vec<String> = (0..count).map(|number| format!("\"k{number}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    let malformed = Problem(400, "malformed-body");
    let invalid = Problem(422, "invalid-fields");
    vec![
        ("a byte too long", post(&vec![b' '; 256 * 1024 + 1], ""), Problem(413, "body-too-large")),
        ("a million keys", post(keys(1_000_000).as_bytes(), ""), Problem(413, "body-too-large")),
        ("as many keys as fit", post(keys(20_000).as_bytes(), ""), malformed),
        ("33 deep", post(deep(33).as_bytes(), ""), malformed),
        ("as deep as fits", post("[".repeat(256 * 1024).as_bytes(), ""), malformed),
        ("objects as deep as fit", post("{\"a\":".repeat(40_000).as_bytes(), ""), malformed),
        ("no UTF-8", post(b"{\"customer_id\":\"\xff\xfe\"}", ""), malformed),
        ("half a surrogate", post(br#"{"customer_id":"\ud800"}"#, ""), malformed),
        ("a NUL", post(b"{\"customer_id\":\"\0\"}", ""), malformed),
        ("an escaped NUL", post(br#"{"customer_id":"\u0000"}"#, ""), invalid),
        ("a number without end", post(format!("{{\"a\":{}}}", "9".repeat(200_000)).as_bytes(), ""), Refusal),
        ("a number beyond numbers", post(br#"{"a":1e999999999}"#, ""), Refusal),
        ("a member twice", post(br#"{"lines":[],"lines":[]}"#, ""), malformed),
        ("two values", post(b"{} {}", ""), malformed),
        ("a byte order mark", post(b"\xef\xbb\xbf{}", ""), malformed),
        ("nothing", post(b"", ""), malformed),
        ("no object", post(b"[]", ""), invalid),
        ("an id of 200 KB", post(format!("{{\"customer_id\":\"{}\"}}", "x".repeat(200_000)).as_bytes(), ""), invalid),
        ("ten thousand lines", post(format!("{{\"lines\":[{}0]}}", "0,".repeat(9_000)).as_bytes(), ""), invalid),
        ("compressed", post(b"\x1f\x8b\x08\0", "Content-Encoding: gzip\r\n"), Problem(415, "unsupported-media-type")),
        ("two media types", post(b"{}", "Content-Type: text/xml\r\n"), Refusal),
        ("money beyond money", post(br#"{"lines":[{"unit_price":{"amount":1e30}}]}"#, ""), invalid),
    ]
}

fn heads() -> Vec<(&'static str, Vec<u8>, Told)> {
    let too_large = Problem(431, "head-too-large");
    let fields = |count: usize| (0..count).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    let long = |count: usize| "x".repeat(count);
    vec![
        ("a field of 16 KiB", get("/v1/orders", &format!("X: {}\r\n", long(16 * 1024))), too_large),
        ("a field of a megabyte", get("/v1/orders", &format!("X: {}\r\n", long(1 << 20))), too_large),
        ("63 fields too many", get("/v1/orders", &fields(125)), too_large),
        ("one field too many", get("/v1/orders", &fields(63)), too_large),
        ("a target of 20 KB", get(&format!("/v1/orders?a={}", long(20_000)), ""), too_large),
        ("a query of 15 KB", get(&format!("/v1/orders?a={}", long(15_000)), ""), Problem(422, "invalid-fields")),
        ("3,000 parameters", get(&format!("/v1/orders?{}", "a=1&".repeat(3_000)), ""), Problem(422, "invalid-fields")),
        ("an id of 10 KB", get(&format!("/v1/orders/{}", long(10_000)), ""), Problem(404, "order-not-found")),
        ("a path that climbs", get("/v1/orders/../../etc/passwd", ""), Problem(404, "no-such-route")),
        ("a path with NUL", get("/v1/orders/%00", ""), Problem(404, "no-such-route")),
        ("a path that is no UTF-8", get("/v1/stock/%ff%fe/b", ""), Problem(404, "no-such-route")),
        ("a path of dots", get("/v1/stock/%2e%2e/b", ""), Refusal),
        ("a stream of 10 KB", get(&format!("/v1/streams/{}/events", long(10_000)), ""), Refusal),
        ("a limit beyond numbers", get("/v1/orders?limit=99999999999999999999", ""), Problem(422, "invalid-fields")),
        ("a limit below 1", get("/v1/orders?limit=-1", ""), Problem(422, "invalid-fields")),
        ("a time that is none", get("/v1/orders?placed_after=%F0%9F%8D%B5", ""), Problem(422, "invalid-fields")),
        ("a cursor that is none", get("/v1/orders?cursor=AAAA", ""), Problem(400, "bad-cursor")),
        ("a cursor of 10 KB", get(&format!("/v1/orders?cursor={}", long(10_000)), ""), Problem(400, "bad-cursor")),
        ("a position beyond numbers", get("/v1/orders", "Docket-Min-Position: 3:99999999999999999999\r\n"), Refusal),
        (
            "a thousand positions",
            get("/v1/orders", &format!("Docket-Min-Position: {}\r\n", "1:1, ".repeat(1_000))),
            Refusal,
        ),
        ("an endless wait", get("/v1/orders", "Prefer: wait=99999999999999999999\r\n"), Answer),
        ("everything accepted", get("/v1/orders", &format!("Accept: {}*/*\r\n", "a/b;q=0.1, ".repeat(1_000))), Answer),
        ("nothing acceptable", get("/v1/orders", "Accept: image/png\r\n"), Problem(406, "not-acceptable")),
        ("a thousand tags", get("/v1/orders", &format!("If-None-Match: {}\"1\"\r\n", "\"9\", ".repeat(1_000))), Answer),
        ("a range", get("/v1/events", "Range: bytes=0-,0-,0-,0-\r\n"), Answer),
        ("an event id that is none", get("/v1/events", "Last-Event-ID: x\r\n"), Answer),
        ("a key of 10 KB", post(b"{}", &format!("Idempotency-Key: {}\r\n", long(10_000))), Refusal),
        ("an actor of 10 KB", post(b"{}", &format!("Docket-Actor: {}\r\n", long(10_000))), Problem(400, "bad-header")),
        ("a broken escape", post(b"{}", "Docket-Reason: %zz\r\n"), Problem(400, "bad-header")),
        ("a body where none is", get("/v1/orders", "Content-Length: 2\r\n"), Answer),
        ("an unknown expectation", post(b"{}", "Expect: the-unexpected\r\n"), Answer),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(), Refusal),
        ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(), Refusal),
        (
            "a method of 10 KB",
            format!("{} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", long(10_000)).into_bytes(),
            Refusal,
        ),
    ]
}

/// Shapes by which one server sees one request where another sees two, and rubbish.
fn frames() -> Vec<(&'static str, Vec<u8>, Told)> {
    let second = "GET /v1/second HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked";
    let refused = Problem(400, "malformed-head");
    vec![
        ("two lengths", framed("Content-Length: 2\r\nContent-Length: 3", "{}"), refused),
        (
            "a length and chunks",
            framed(&format!("Content-Length: 5\r\n{chunked}"), &format!("0\r\n\r\n{second}")),
            Refusal,
        ),
        (
            "chunks and a length",
            framed(&format!("{chunked}\r\nContent-Length: 5"), &format!("0\r\n\r\n{second}")),
            Refusal,
        ),
        ("a length with a sign", framed("Content-Length: +2", "{}"), refused),
        ("a length below 0", framed("Content-Length: -2", "{}"), refused),
        ("a length in hex", framed("Content-Length: 0x2", "{}"), refused),
        ("a length beyond numbers", framed("Content-Length: 99999999999999999999", "{}"), refused),
        ("a length in a list", framed("Content-Length: 2, 3", "{}"), refused),
        ("chunks that are none", framed("Transfer-Encoding: identity", second), refused),
        ("chunks that are not last", framed("Transfer-Encoding: chunked, identity", second), refused),
        ("chunks of another name", framed("Transfer-Encoding: xchunked", second), refused),
        ("a space before the colon", framed("Transfer-Encoding : chunked", second), refused),
        ("a folded field", framed("X: a\r\n b", "{}"), Refusal),
        ("a field with NUL", framed("X: \0", "{}"), refused),
        ("a field without a name", framed(": x", "{}"), refused),
        ("a chunk beyond numbers", framed(chunked, "ffffffffffffffffff\r\n{}"), Refusal),
        ("a chunk below 0", framed(chunked, "-1\r\n{}\r\n0\r\n\r\n"), Refusal),
        ("a chunk without an end", framed(chunked, "2\r\n{}XX0\r\n\r\n"), Refusal),
        ("a chunk that lies", framed(chunked, "1\r\n{}\r\n0\r\n\r\n"), Refusal),
        (
            "a chunk with much to say",
            framed(chunked, &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(1 << 20))),
            Refusal,
        ),
        (
            "trailers without end",
            framed(chunked, &format!("2\r\n{{}}\r\n0\r\n{}\r\n", "X: y\r\n".repeat(50_000))),
            Refusal,
        ),
        ("one byte a chunk", framed(chunked, &format!("{}0\r\n\r\n", "1\r\n \r\n".repeat(50_000))), Refusal),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), Refusal),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec(), Refusal),
        ("another protocol", b"EHLO example.org\r\n\r\n".to_vec(), Refusal),
        ("another version", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_vec(), Refusal),
        (
            "two hosts",
            b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n".to_vec(),
            Problem(400, "bad-header"),
        ),
        ("no host", b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), Problem(400, "bad-header")),
        (
            "to HTTP/2",
            get("/livez", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n"),
            Answer,
        ),
        (
            "to WebSocket",
            get("/v1/events", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"),
            Answer,
        ),
    ]
}

/// Sends it and looks at what comes back, to the end.
async fn is_told(address: &str, name: &str, request: &[u8], told: Told) {
    let mut wire = Wire::to(address).await.expect("the server listens");
    // Who is refused in the middle of a request reads why, whether or not the server took the rest.
    let _ = wire.send(request).await;
    let answer = tokio::time::timeout(PATIENCE, wire.answer()).await;
    let answer = answer.unwrap_or_else(|_| panic!("{name}: nothing comes back"));
    match (&answer, told) {
        (None, Refusal) => return,
        (None, _) => panic!("{name}: no answer"),
        (Some(answer), Problem(status, code)) => {
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            assert!(answer.body.contains(&format!("\"code\":\"{code}\"")), "{name}: {answer:?}");
        }
        (Some(answer), Refusal) => {
            assert!((400..500).contains(&answer.status), "{name}: {answer:?}");
            assert!(answer.body.contains("\"code\":\""), "{name}: {answer:?}");
        }
        (Some(answer), Answer) => assert!((200..500).contains(&answer.status), "{name}: {answer:?}"),
    }
    if let Some(answer) = answer.filter(|answer| answer.status >= 400) {
        assert!(answer.head.contains("content-type: application/problem+json"), "{name}: {answer:?}");
    }
    if matches!(told, Answer) {
        return;
    }
    // What was hidden behind it is no request.
    let rest = wire.until_closed().await.unwrap_or_else(|| panic!("{name}: the connection stays open"));
    assert!(!rest.contains("HTTP/1.1"), "{name}: two answers, {rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_is_answered_in_the_contracts_words() {
    let mut house = House::open(&[]).await;
    let address = house.address();
    let all = || bodies().into_iter().chain(heads()).chain(frames());
    for (name, request, told) in all() {
        is_told(&address, name, &request, told).await;
    }
    // Again and again, many at once, with somebody beside them who behaves.
    let mut quiet = behaves(&address, Duration::from_secs(1), "/v1/orders").await;
    let (rss, files) = (house.rss_mib(), house.open_files());
    let crowd: Vec<_> = (0..4)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move {
                for (name, request, told) in bodies().into_iter().chain(heads()).chain(frames()) {
                    is_told(&address, name, &request, told).await;
                }
            })
        })
        .collect();
    let mut beside = behaves(&address, Duration::from_secs(2), "/v1/orders").await;
    for one in crowd {
        one.await.expect("all are told alike");
    }
    eprintln!("beside hostile clients p50 {:?} p99 {:?}, {:?} before", beside.at(50), beside.at(99), quiet.at(99));
    assert!(beside.at(50) < quiet.at(99) * 3 + Duration::from_millis(50), "{:?}", beside.at(50));
    house.calms_down(files).await;
    let grown = house.rss_mib().saturating_sub(rss);
    assert!(grown < 64, "{grown} MiB more");
    assert_eq!(house.metric("docket_http_responses_total{class=\"5xx\"}").await, 0.0);
    house.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_in_one_breath_are_answered_in_order() {
    let house = House::open(&[]).await;
    let mut wire = Wire::to(&house.address()).await.expect("the server listens");
    let request = |number: usize| {
        let close = if number == 999 { "Connection: close\r\n" } else { "" };
        format!("GET /v1/orders/{number} HTTP/1.1\r\nHost: a\r\n{close}\r\n")
    };
    let all: String = (0..1_000).map(request).collect();
    wire.send(all.as_bytes()).await.expect("the server takes them");
    for number in 0..1_000 {
        let answer = tokio::time::timeout(PATIENCE, wire.answer()).await.expect("in time").expect("an answer");
        assert_eq!(answer.status, 404, "{number}: {answer:?}");
    }
    assert_eq!(wire.until_closed().await.as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_was_touched_is_refused_wherever_it_is_shown() {
    let house = House::open(&[]).await;
    let (address, client) = (house.address(), house.client());
    let mut placed = String::new();
    for _ in 0..3 {
        let body = kit::shop::order("c", "here", vec![kit::shop::line("b", 1, 100)], None);
        let reply = client.post("/v1/orders", Uuid::now_v7(), &body).await.expect("an answer");
        assert_eq!(reply.status, 201);
        let position = reply.header("docket-position").expect("a position").to_owned();
        placed = if placed.is_empty() { position } else { format!("{placed}, {position}") };
    }
    // Lists tell what has come to them; asked so, what was placed has.
    let fresh = [("docket-min-position", placed.as_str()), ("prefer", "wait=30")];
    let page = client.get_with("/v1/orders?limit=1", &fresh).await.expect("an answer").body;
    let cursor = page["next_cursor"].as_str().expect("there is more").to_owned();
    let good = client.get(&format!("/v1/orders?limit=1&cursor={cursor}")).await.expect("an answer");
    assert_eq!(good.body["items"].as_array().map(Vec::len), Some(1));
    for at in 0..cursor.len() {
        let mut touched = cursor.clone().into_bytes();
        touched[at] = if touched[at] == b'A' { b'B' } else { b'A' };
        let touched = String::from_utf8(touched).expect("ASCII");
        let request = get(&format!("/v1/orders?limit=1&cursor={touched}"), "");
        is_told(&address, "a touched cursor", &request, Problem(400, "bad-cursor")).await;
    }
    for elsewhere in ["/v1/streams", "/v1/sagas", "/v1/stock/here", "/v1/orders?status=placed&limit=1"] {
        let joint = if elsewhere.contains('?') { '&' } else { '?' };
        let request = get(&format!("{elsewhere}{joint}cursor={cursor}"), "");
        is_told(&address, elsewhere, &request, Problem(400, "bad-cursor")).await;
    }
    for length in [1, cursor.len() / 2, cursor.len() - 1] {
        let request = get(&format!("/v1/orders?cursor={}", &cursor[..length]), "");
        is_told(&address, "a cursor cut short", &request, Problem(400, "bad-cursor")).await;
    }
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{}", json!(page));
}
