//! Commands and reads on their way in: bounds, and the order in which faults are told.

use futures::stream;
use http::Request;
use serde_json::{Value, json};

use super::*;

const KEY: &str = "0198c3a4-5b6c-7d8e-9f00-112233445566";

fn parts(lines: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::post("/v1/orders");
    for (name, value) in lines {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn command_headers() -> Vec<(&'static str, &'static str)> {
    vec![("idempotency-key", KEY), ("content-type", "application/json")]
}

async fn refused(lines: &[(&str, &str)], body: impl Into<Body>) -> &'static str {
    command_request(&parts(lines), body.into()).await.unwrap_err().code().name
}

/// A body in these pieces, with nothing told about its length.
fn pieces(pieces: Vec<&'static [u8]>) -> Body {
    Body::from_stream(stream::iter(pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece)))))
}

#[tokio::test]
async fn a_command_is_taken_in_whole() {
    let mut lines = command_headers();
    lines.extend([
        ("if-match", "\"3\""),
        ("prefer", "wait=5"),
        ("docket-actor", "Zo%C3%AB"),
        ("docket-reason", "asked%20twice"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ]);
    let command = command_request(&parts(&lines), pieces(vec![b"{\"a\"", b":", b"[1,2.5]}"])).await.unwrap();
    assert_eq!(command.id.to_string(), KEY);
    assert_eq!(command.precondition, Precondition::AnyOf(vec![engine::position::Version(3)]));
    assert_eq!(command.wait, Some(Duration::from_secs(5)));
    assert_eq!(command.provenance.actor.as_deref(), Some("Zoë"));
    assert_eq!(command.provenance.reason.as_deref(), Some("asked twice"));
    assert!(command.provenance.traceparent.is_some());
    assert_eq!(command.body.root().to_value(), json!({"a": [1, 2.5]}));
}

/// Everything wrong at once; each mended in turn uncovers the next.
#[tokio::test]
async fn faults_are_told_in_the_order_of_the_contract() {
    let large = "x".repeat(300 * 1024);
    let wrong = |lines: &[(&'static str, &'static str)]| lines.to_vec();
    let accept = ("accept", "image/png");
    let key = ("idempotency-key", "no");
    let actor = ("docket-actor", "%");
    let media = ("content-type", "text/plain");
    assert_eq!(refused(&wrong(&[accept, key, actor, media]), large.clone()).await, "not-acceptable");
    assert_eq!(refused(&wrong(&[key, actor, media]), large.clone()).await, "idempotency-key-malformed");
    assert_eq!(refused(&wrong(&[actor, media]), large.clone()).await, "idempotency-key-missing");
    let key = ("idempotency-key", KEY);
    assert_eq!(refused(&wrong(&[key, actor, media]), large.clone()).await, "bad-header");
    assert_eq!(refused(&wrong(&[key, media]), large.clone()).await, "unsupported-media-type");
    let media = ("content-type", "application/json");
    assert_eq!(refused(&wrong(&[key, media]), large).await, "body-too-large");
    assert_eq!(refused(&wrong(&[key, media]), "{").await, "malformed-body");
    assert!(command_request(&parts(&wrong(&[key, media])), Body::from("{}")).await.is_ok());
}

#[tokio::test]
async fn every_header_at_fault_is_named() {
    let mut lines = command_headers();
    lines.extend([("docket-actor", "%"), ("docket-reason", "%zz"), ("if-match", "3")]);
    let problem = command_request(&parts(&lines), Body::from("{}")).await.unwrap_err();
    assert_eq!(problem.code().name, "bad-header");
    assert_eq!(problem.field_errors().len(), 3);
}

#[tokio::test]
async fn an_empty_body_needs_no_type_but_is_not_json() {
    assert_eq!(refused(&[("idempotency-key", KEY)], Body::empty()).await, "malformed-body");
    assert_eq!(refused(&[("idempotency-key", KEY)], "{}").await, "unsupported-media-type");
}

#[tokio::test]
async fn a_body_is_taken_up_to_its_bound_whether_declared_or_not() {
    let limits = BodyLimits { bytes_max: 10, ..BodyLimits::DEFAULT };
    let take = async |mut body: Body| read_body(&mut body, &limits).await.map_err(|problem| problem.code().name);
    assert_eq!(take(Body::from("0123456789")).await.unwrap(), "0123456789");
    assert_eq!(take(Body::from("0123456789a")).await, Err("body-too-large"));
    assert_eq!(take(pieces(vec![b"01234", b"", b"56789"])).await.unwrap(), "0123456789");
    assert_eq!(take(pieces(vec![b"01234", b"56789", b"a"])).await, Err("body-too-large"));
    assert_eq!(take(Body::empty()).await.unwrap(), "");
    let declared = {
        let mut lines = command_headers();
        lines.push(("content-length", "262145"));
        lines
    };
    assert_eq!(refused(&declared, "{}").await, "body-too-large");
    let exactly = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
    assert!(command_request(&parts(&command_headers()), Body::from(exactly)).await.is_ok());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_malformed() {
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    assert_eq!(refused(&command_headers(), Body::from_stream(broken)).await, "malformed-body");
}

/// A byte every `pause`, `count` times.
fn trickle(count: usize, pause: Duration) -> Body {
    let bytes = stream::unfold(0, move |sent| async move {
        if sent == count {
            return None;
        }
        tokio::time::sleep(pause).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), sent + 1))
    });
    Body::from_stream(bytes)
}

#[tokio::test(start_paused = true)]
async fn a_trickle_is_cut_after_the_grace() {
    let start = Instant::now();
    let problem = read_body(&mut trickle(1_000, Duration::from_millis(500)), &BodyLimits::DEFAULT).await.unwrap_err();
    assert_eq!(problem.code().name, "body-too-slow");
    let took = start.elapsed();
    assert!((5.0..5.1).contains(&took.as_secs_f64()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_within_the_grace_is_nobodys_fault() {
    assert!(read_body(&mut trickle(1, Duration::from_millis(4_900)), &BodyLimits::DEFAULT).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_fast_enough_still_ends_by_the_total() {
    let start = Instant::now();
    let chunk = Bytes::from(vec![b' '; 1_100]);
    let steady = stream::unfold((), move |()| {
        let chunk = chunk.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(chunk), ()))
        }
    });
    let problem = read_body(&mut Body::from_stream(steady), &BodyLimits::DEFAULT).await.unwrap_err();
    assert_eq!(problem.code().name, "body-too-slow");
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[test]
fn a_read_says_how_fresh_and_how_long() {
    let request = |lines: &[(&str, &str)]| read_request(&parts(lines), &["application/json", "application/x-ndjson"]);
    let plain = request(&[]).unwrap();
    assert_eq!((plain.media, plain.min_position, plain.wait), ("application/json", None, READ_WAIT_DEFAULT));
    let fresh = request(&[("docket-min-position", "3:7"), ("prefer", "wait=99"), ("accept", "application/x-ndjson")]);
    let fresh = fresh.unwrap();
    assert_eq!(fresh.min_position.unwrap().to_string(), "3:7");
    assert_eq!((fresh.media, fresh.wait), ("application/x-ndjson", Duration::from_secs(30)));
    assert_eq!(request(&[("docket-min-position", "x")]).unwrap_err().code().name, "bad-position");
}

fn parse(text: &str) -> Result<Value, String> {
    let parsed = parse_json(text.as_bytes());
    parsed.map(|document| document.root().to_value()).map_err(|problem| {
        assert_eq!(problem.code().name, "malformed-body");
        problem.detail().to_owned()
    })
}

#[test]
fn json_is_parsed_as_serde_does() {
    for text in [
        "null",
        "true",
        " {\"b\":1,\"a\":{\"x\":[[],{}]}} ",
        "[-1,0,1.5,1e3,18446744073709551615,-9223372036854775808]",
        "\"\\ud83d\\ude00 \\u0000 ü\"",
        "{\"\":0}",
    ] {
        assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "{]",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "01",
        "+1",
        ".5",
        "1.",
        "NaN",
        "Infinity",
        "1e999",
        "nul",
        "{} {}",
        "{}x",
        "\"\\ud800\"",
        "\"\n\"",
        "\u{feff}{}",
        "// a\n{}",
        "\"",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    assert_eq!(parse_json(b"\"\xff\"").unwrap_err().detail(), "the body is not UTF-8");
    assert_eq!(parse_json(b"\xff\xfe{\0}\0").unwrap_err().detail(), "the body is not UTF-8");
}

#[test]
fn nesting_is_bounded_at_thirty_two() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(32)).is_ok());
    assert!(parse(&nested(33)).unwrap_err().contains("32 levels"));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(parse(&objects(32)).is_ok());
    assert!(parse(&objects(33)).unwrap_err().contains("32 levels"));
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&"{\"a\":".repeat(50_000)).is_err());
}

#[test]
fn values_are_counted() {
    let list = |count: u32| format!("[{}]", vec!["0"; count as usize].join(","));
    assert!(parse(&list(NODES_MAX - 1)).is_ok());
    assert!(parse(&list(NODES_MAX)).unwrap_err().contains("10000 values"));
}

#[test]
fn a_member_named_twice_is_refused_wherever_it_is() {
    assert!(parse("{\"a\":1,\"a\":1}").unwrap_err().contains("\"a\" is named twice"));
    assert!(parse("[{\"b\":{\"a\":1,\"\\u0061\":2}}]").unwrap_err().contains("\"a\" is named twice"));
    assert!(parse("{\"a\":{\"a\":1},\"b\":{\"a\":1}}").is_ok());
}
