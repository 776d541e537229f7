//! Every header, as it should be and as nobody should send it.

use engine::message::At;

use super::*;

const KEY: &str = "0198c3a4-5b6c-7d8e-9f00-112233445566";

/// A map of these lines, in order.
fn map(lines: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
    }
    map
}

fn one(name: &'static str, value: &str) -> HeaderMap {
    map(&[(name, value.as_bytes())])
}

fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> &'static str {
    result.unwrap_err().code().name
}

#[test]
fn a_key_is_a_uuid_bare_or_quoted_in_any_case() {
    let id = CommandId(KEY.parse().unwrap());
    for text in [KEY.to_owned(), KEY.to_uppercase(), format!("\"{KEY}\""), format!("  {KEY} "), format!("\t\"{KEY}\"")]
    {
        assert_eq!(idempotency_key(&one("idempotency-key", &text)).unwrap(), id, "{text}");
    }
}

#[test]
fn a_missing_key_is_missing() {
    for headers in [HeaderMap::new(), one("idempotency-key", ""), one("idempotency-key", "   ")] {
        assert_eq!(code(idempotency_key(&headers)), "idempotency-key-missing");
    }
}

#[test]
fn anything_else_than_one_uuid_is_a_malformed_key() {
    let simple = KEY.replace('-', "");
    let nasty = [
        "order-17".to_owned(),
        format!("\"{KEY}"),
        format!("{KEY}\""),
        format!("'{KEY}'"),
        format!("\"\"{KEY}\"\""),
        format!("\" {KEY}\""),
        format!("{{{KEY}}}"),
        format!("urn:uuid:{KEY}"),
        simple,
        format!("{KEY}, {KEY}"),
        format!("{KEY}0"),
        KEY[..35].to_owned(),
        KEY.replace('c', "g"),
        KEY.replace("0198", "01-8"),
        "\"\"".to_owned(),
        "\"".to_owned(),
    ];
    for text in nasty {
        assert_eq!(code(idempotency_key(&one("idempotency-key", &text))), "idempotency-key-malformed", "{text}");
    }
    let beyond_ascii = map(&[("idempotency-key", b"\xff\xfe")]);
    assert_eq!(code(idempotency_key(&beyond_ascii)), "idempotency-key-malformed");
    let twice = map(&[("idempotency-key", KEY.as_bytes()), ("idempotency-key", KEY.as_bytes())]);
    assert_eq!(code(idempotency_key(&twice)), "idempotency-key-malformed");
}

fn versions(versions: &[u64]) -> Precondition {
    Precondition::AnyOf(versions.iter().copied().map(Version).collect())
}

#[test]
fn if_match_compares_strongly() {
    let cases = [
        ("\"3\"", versions(&[3])),
        ("\"3\", \"4\"", versions(&[3, 4])),
        ("\"3\",\"4\" , ,\"5\",", versions(&[3, 4, 5])),
        ("*", Precondition::Exists),
        (" * ", Precondition::Exists),
        ("W/\"3\"", versions(&[])),
        ("W/\"3\", \"4\"", versions(&[4])),
        ("\"\"", versions(&[])),
        ("\"abc\"", versions(&[])),
        ("\"03\"", versions(&[])),
        ("\"0\"", versions(&[])),
        ("\"+3\"", versions(&[])),
        ("\"3,4\"", versions(&[])),
        ("\"99999999999999999999999\"", versions(&[])),
        ("\"18446744073709551615\"", versions(&[u64::MAX])),
    ];
    for (text, expected) in cases {
        assert_eq!(precondition(&one("if-match", text)).unwrap(), expected, "{text}");
    }
    assert_eq!(precondition(&HeaderMap::new()).unwrap(), Precondition::None);
    let lines = map(&[("if-match", b"\"3\""), ("if-match", b"\"4\"")]);
    assert_eq!(precondition(&lines).unwrap(), versions(&[3, 4]));
    assert_eq!(precondition(&map(&[("if-match", b"\"\xe9\"")])).unwrap(), versions(&[]));
}

#[test]
fn a_malformed_precondition_is_refused_rather_than_ignored() {
    for text in
        ["3", "\"3", "3\"", "\"3\" \"4\"", "\"3\"4", "w/\"3\"", "W/3", "*, \"3\"", "\"3\", *", "", ",", "\"a b\"", "**"]
    {
        let problem = precondition(&one("if-match", text)).unwrap_err();
        assert_eq!(problem.code().name, "bad-header", "{text}");
        assert_eq!(problem.field_errors()[0].at, At::Header("if-match".to_owned()));
    }
    let both = map(&[("if-match", b"*"), ("if-match", b"\"3\"")]);
    assert_eq!(code(precondition(&both)), "bad-header");
    let many = vec!["\"1\""; 65].join(",");
    assert_eq!(code(precondition(&one("if-match", &many))), "bad-header");
}

#[test]
fn if_none_match_on_a_command_is_a_star_or_nothing() {
    assert_eq!(precondition(&one("if-none-match", "*")).unwrap(), Precondition::Absent);
    assert_eq!(code(precondition(&one("if-none-match", "\"3\""))), "bad-header");
    let both = map(&[("if-none-match", b"*"), ("if-match", b"*")]);
    assert_eq!(precondition(&both).unwrap(), versions(&[]), "nothing both exists and does not");
}

#[test]
fn a_conditional_read_compares_weakly() {
    for text in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*", "\"x\", W/\"3\""] {
        assert!(not_modified(&one("if-none-match", text), Version(3)), "{text}");
    }
    for text in ["\"4\"", "3", "\"03\"", "", "\"3"] {
        assert!(!not_modified(&one("if-none-match", text), Version(3)), "{text}");
    }
    assert!(!not_modified(&HeaderMap::new(), Version(3)));
}

#[test]
fn a_wait_is_whole_seconds_and_at_most_thirty() {
    let cases = [
        ("wait=5", Some(5)),
        ("wait=0", Some(0)),
        ("Wait=5", Some(5)),
        ("wait = 5", Some(5)),
        ("wait=\"5\"", Some(5)),
        ("wait=30", Some(30)),
        ("wait=31", Some(30)),
        ("wait=99999999999999999999999999", Some(30)),
        ("respond-async, wait=7", Some(7)),
        ("wait=7;strict, return=minimal", Some(7)),
        ("foo=\"a, wait=9\", wait=3", Some(3)),
        ("wait=x, wait=4", Some(4)),
        ("wait=4, wait=9", Some(4)),
        ("wait", None),
        ("wait=", None),
        ("wait=\"\"", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=5s", None),
        ("wait=+5", None),
        ("await=5", None),
        ("", None),
        (",;=", None),
        ("foo=\"unclosed, wait=9", None),
    ];
    for (text, seconds) in cases {
        assert_eq!(prefer_wait(&one("prefer", text)), seconds.map(Duration::from_secs), "{text}");
    }
    assert_eq!(prefer_wait(&HeaderMap::new()), None);
    let lines = map(&[("prefer", b"return=minimal"), ("prefer", b"\xff"), ("prefer", b"wait=2")]);
    assert_eq!(prefer_wait(&lines), Some(Duration::from_secs(2)));
}

#[test]
fn a_position_is_a_list_and_keeps_the_furthest() {
    let asked = |text| min_position(&one("docket-min-position", text)).unwrap().unwrap().to_string();
    assert_eq!(asked("3:1042"), "3:1042");
    assert_eq!(asked("5:77,3:1042"), "3:1042, 5:77");
    assert_eq!(asked("3:7, 3:9, 3:8"), "3:9");
    assert_eq!(min_position(&HeaderMap::new()).unwrap(), None);
    let lines = map(&[("docket-min-position", b"3:1"), ("docket-min-position", b"4:2")]);
    assert_eq!(min_position(&lines).unwrap().unwrap().to_string(), "3:1, 4:2");
}

#[test]
fn a_malformed_position_is_told() {
    for text in ["", "3", "3:", ":1", "a:b", "3:1,", "3:-1", "+3:1", "3:1 4:2", "3:9007199254740992", "1024:1", "3:1:2"]
    {
        assert_eq!(code(min_position(&one("docket-min-position", text))), "bad-position", "{text}");
    }
    assert_eq!(code(min_position(&map(&[("docket-min-position", b"3:1\xff")]))), "bad-position");
}

#[test]
fn who_and_why_are_decoded() {
    let cases =
        [("ada", "ada"), ("Ada%20Lovelace", "Ada Lovelace"), ("Zo%C3%AB", "Zoë"), ("100%25", "100%"), ("a+b", "a+b")];
    for (text, expected) in cases {
        assert_eq!(actor(&one("docket-actor", text)).unwrap().as_deref(), Some(expected));
        assert_eq!(reason(&one("docket-reason", text)).unwrap().as_deref(), Some(expected));
    }
    assert_eq!(actor(&HeaderMap::new()).unwrap(), None);
    assert_eq!(actor(&one("docket-actor", "")).unwrap(), None);
}

#[test]
fn who_and_why_are_counted_in_characters_after_decoding() {
    let encoded = |count: usize| "%C3%AB".repeat(count);
    assert!(actor(&one("docket-actor", &encoded(200))).is_ok());
    assert_eq!(code(actor(&one("docket-actor", &encoded(201)))), "bad-header");
    assert!(reason(&one("docket-reason", &encoded(500))).is_ok());
    assert_eq!(code(reason(&one("docket-reason", &encoded(501)))), "bad-header");
}

#[test]
fn a_broken_escape_a_control_character_or_two_of_them_are_refused() {
    for text in
        ["%", "%4", "%zz", "a%2", "%C3", "%FF", "%ED%A0%80", "%00", "a%0Ab", "%0d%0aSet-Cookie", "%1b[31m", "%C2%85"]
    {
        assert_eq!(code(actor(&one("docket-actor", text))), "bad-header", "{text}");
    }
    assert_eq!(code(actor(&map(&[("docket-actor", b"Zo\xc3\xab")]))), "bad-header");
    assert_eq!(code(actor(&map(&[("docket-actor", b"a\tb")]))), "bad-header");
    assert_eq!(code(actor(&map(&[("docket-actor", b"ada"), ("docket-actor", b"bob")]))), "bad-header");
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_valid_trace_is_taken_over() {
    let headers = one("traceparent", PARENT);
    let parent = traceparent(&headers).unwrap();
    assert_eq!(parent.text, PARENT);
    assert_eq!(parent.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    let later = format!("cc{}-what-the-future-brings", &PARENT[2..]);
    assert_eq!(traceparent(&one("traceparent", &later)).unwrap().text, later);
    let later_and_plain = format!("cc{}", &PARENT[2..]);
    assert!(traceparent(&one("traceparent", &later_and_plain)).is_some());
}

#[test]
fn an_invalid_trace_is_ignored() {
    let invalid = [
        String::new(),
        "00".to_owned(),
        PARENT[..54].to_owned(),
        format!("{PARENT}-00"),
        format!("{PARENT}0"),
        format!("ff{}", &PARENT[2..]),
        format!("cc{}.x", &PARENT[2..]),
        PARENT.to_uppercase(),
        PARENT.replace('-', "_"),
        PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
        PARENT.replace("4bf9", "4bg9"),
        format!("cc{}-{}", &PARENT[2..], "x".repeat(200)),
    ];
    for text in invalid {
        assert_eq!(traceparent(&one("traceparent", &text)), None, "{text}");
    }
    let twice = map(&[("traceparent", PARENT.as_bytes()), ("traceparent", PARENT.as_bytes())]);
    assert_eq!(traceparent(&twice), None);
    assert_eq!(traceparent(&HeaderMap::new()), None);
}

#[test]
fn the_best_acceptable_type_is_chosen() {
    const JSON: &str = "application/json";
    const LINES: &str = "application/x-ndjson";
    const EVENTS: &str = "text/event-stream";
    let offered = [JSON, LINES, EVENTS];
    let cases = [
        ("*/*", Some(JSON)),
        ("", Some(JSON)),
        ("application/json", Some(JSON)),
        ("APPLICATION/JSON", Some(JSON)),
        ("application/x-ndjson", Some(LINES)),
        ("text/*", Some(EVENTS)),
        ("application/*;q=0.5, text/event-stream", Some(EVENTS)),
        ("application/json;q=0.2, application/x-ndjson;q=0.3", Some(LINES)),
        ("application/json;q=0, */*", Some(LINES)),
        ("*/*;q=0.1, application/*;q=0", Some(EVENTS)),
        ("application/json;charset=utf-8", Some(JSON)),
        ("application/json;profile=\"a,b;q=0\"", Some(JSON)),
        ("text/html, application/xhtml+xml, */*;q=0.8", Some(JSON)),
        ("text/html", None),
        ("application/json;q=0", None),
        ("*/*;q=0", None),
        ("application/problem+json", None),
        ("nonsense, application/x-ndjson", Some(LINES)),
        ("nonsense", Some(JSON)),
        ("*/json", Some(JSON)),
        ("application/x-ndjson;q=2, text/event-stream;q=0.1", Some(EVENTS)),
        ("text/event-stream;q=0.001", Some(EVENTS)),
        ("text/event-stream;q=0.0001, application/x-ndjson;q=0.1", Some(LINES)),
    ];
    for (text, expected) in cases {
        assert_eq!(negotiate(&one("accept", text), &offered), expected, "{text}");
    }
    assert_eq!(negotiate(&HeaderMap::new(), &offered), Some(JSON));
    let lines = map(&[("accept", b"text/html"), ("accept", b"text/event-stream")]);
    assert_eq!(negotiate(&lines, &offered), Some(EVENTS));
    assert_eq!(code(accept(&one("accept", "image/png"), &offered)), "not-acceptable");
}

#[test]
fn a_json_body_says_so() {
    for text in [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "Application/JSON ; Charset=UTF8",
        "application/json;",
        "application/vnd.shop.order+json",
        "application/json; profile=\"a;charset=latin1\"",
    ] {
        assert!(json_body(&one("content-type", text), false).is_ok(), "{text}");
    }
    for text in [
        "",
        "json",
        "text/json",
        "text/plain",
        "application/jsonx",
        "application/+json",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/json, application/json",
        "application/json; charset",
        "multipart/form-data; boundary=x",
    ] {
        assert_eq!(code(json_body(&one("content-type", text), false)), "unsupported-media-type", "{text}");
    }
    assert_eq!(code(json_body(&HeaderMap::new(), false)), "unsupported-media-type");
    assert!(json_body(&HeaderMap::new(), true).is_ok(), "nothing needs no type");
    let json = b"application/json".as_slice();
    for coding in ["gzip", "br", "identity", ""] {
        let headers = map(&[("content-type", json), ("content-encoding", coding.as_bytes())]);
        assert_eq!(code(json_body(&headers, false)), "unsupported-media-type", "{coding}");
    }
    assert_eq!(code(json_body(&map(&[("content-type", json), ("content-type", json)]), false)), "bad-header");
}
