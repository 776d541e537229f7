//! Query strings as they should be, and all faults of one that is not.

use engine::message::At;

use super::*;

/// Parameter and code of every fault.
fn faults(query: Query<'_>) -> Vec<(String, String)> {
    let problem = query.finish().unwrap_err();
    assert_eq!(problem.code().name, "invalid-fields");
    let fault = |error: &FieldError| match &error.at {
        At::Parameter(name) => (name.clone(), error.code.to_string()),
        at => panic!("{at:?}"),
    };
    problem.field_errors().iter().map(fault).collect()
}

fn fault(name: &str, code: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), code.to_owned())]
}

#[test]
fn parameters_are_decoded() {
    let mut query = Query::parse(Some("a=x%20y&b=x+y&c=%2B&d=Zo%C3%AB&e=&f&g=a=b&&%68=i"));
    let mut text = |name| query.text(name);
    assert_eq!(text("a").as_deref(), Some("x y"));
    assert_eq!(text("b").as_deref(), Some("x y"));
    assert_eq!(text("c").as_deref(), Some("+"));
    assert_eq!(text("d").as_deref(), Some("Zoë"));
    assert_eq!(text("e").as_deref(), Some(""));
    assert_eq!(text("f").as_deref(), Some(""));
    assert_eq!(text("g").as_deref(), Some("a=b"));
    assert_eq!(text("h").as_deref(), Some("i"));
    assert_eq!(text("absent"), None);
    query.finish().unwrap();
}

#[test]
fn nothing_is_nothing() {
    for raw in [None, Some(""), Some("&"), Some("&&")] {
        let mut query = Query::parse(raw);
        assert_eq!(query.limit(), 50);
        query.finish().unwrap();
    }
}

#[test]
fn what_nobody_asks_for_is_refused_by_name() {
    let mut query = Query::parse(Some("custmer_id=c-17&limit=5"));
    assert_eq!(query.limit(), 5);
    assert_eq!(faults(query), fault("custmer_id", "unknown"));
}

#[test]
fn what_cannot_be_read_is_told_once() {
    for raw in ["a=%", "a=%4", "a=%zz", "a=%FF", "a=%C3", "a=%00", "a=%ED%A0%80", "a=x+%"] {
        let mut query = Query::parse(Some(raw));
        assert_eq!(query.text("a"), None, "{raw}");
        assert!(query.has("a"));
        assert_eq!(faults(query), fault("a", "malformed"), "{raw}");
    }
    assert_eq!(faults(Query::parse(Some("%FF=a"))), fault("%FF", "malformed"));
}

#[test]
fn a_parameter_is_given_once() {
    let mut query = Query::parse(Some("a=1&b=2&a=1"));
    assert_eq!(query.text("a").as_deref(), Some("1"));
    assert_eq!(query.text("b").as_deref(), Some("2"));
    assert_eq!(faults(query), fault("a", "repeated"));
}

#[test]
fn a_limit_is_one_to_five_hundred() {
    for (raw, limit) in [("limit=1", 1), ("limit=500", 500), ("limit=007", 7)] {
        let mut query = Query::parse(Some(raw));
        assert_eq!(query.limit(), limit);
        query.finish().unwrap();
    }
    for (raw, code) in [
        ("limit=0", "out-of-range"),
        ("limit=501", "out-of-range"),
        ("limit=99999999999999999999999", "out-of-range"),
        ("limit=", "malformed"),
        ("limit", "malformed"),
        ("limit=-1", "malformed"),
        ("limit=%2B5", "malformed"),
        ("limit=5.0", "malformed"),
        ("limit=ten", "malformed"),
    ] {
        let mut query = Query::parse(Some(raw));
        query.limit();
        assert_eq!(faults(query), fault("limit", code), "{raw}");
    }
}

#[test]
fn a_time_is_rfc_3339() {
    let expected = "2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap();
    for raw in ["t=2026-11-21T10:00:00Z", "t=2026-11-21T12:00:00%2B02:00", "t=2026-11-21T12:00:00+02:00"] {
        let mut query = Query::parse(Some(raw));
        assert_eq!(query.time("t"), Some(expected), "{raw}");
        query.finish().unwrap();
    }
    for raw in ["t=", "t=yesterday", "t=2026-11-21", "t=2026-11-21T10:00:00", "t=2026-13-21T10:00:00Z", "t=1763719200"]
    {
        let mut query = Query::parse(Some(raw));
        assert_eq!(query.time("t"), None, "{raw}");
        assert_eq!(faults(query), fault("t", "malformed"), "{raw}");
    }
}

#[test]
fn words_are_among_the_choices() {
    let choices = [("placed", 1), ("shipped", 2), ("cancelled", 3)];
    let mut query = Query::parse(Some("one=shipped&some=cancelled,placed,placed&flag&no=false&yes=true"));
    assert_eq!(query.one_of("one", &choices), Some(2));
    assert_eq!(query.some_of("some", &choices), Some(vec![1, 3]));
    assert!(query.flag("flag") && query.flag("yes") && !query.flag("no") && !query.flag("absent"));
    query.finish().unwrap();

    let mut query = Query::parse(Some("one=Shipped&some=placed,&flag=maybe"));
    assert_eq!(query.one_of("one", &choices), None);
    assert_eq!(query.some_of("some", &choices), None);
    assert!(!query.flag("flag"));
    let names = ["one", "some", "flag"].map(|name| (name.to_owned(), "unknown-value".to_owned()));
    assert_eq!(faults(query), names);
}

#[test]
fn lists_and_uuids_are_bounded() {
    let mut query = Query::parse(Some("type=A,B&id=0198C3A4-5b6c-7d8e-9f00-112233445566"));
    assert_eq!(query.texts("type", 2), Some(vec!["A".to_owned(), "B".to_owned()]));
    assert_eq!(query.uuid("id").unwrap().to_string(), "0198c3a4-5b6c-7d8e-9f00-112233445566");
    query.finish().unwrap();
    let mut query = Query::parse(Some("type=A,B,C&empty=A,,B&id=0198c3a45b6c7d8e9f00112233445566"));
    query.texts("type", 2);
    query.texts("empty", 9);
    query.uuid("id");
    assert_eq!(faults(query).len(), 3);
}

#[test]
fn all_faults_come_together() {
    let mut query = Query::parse(Some("limit=0&status=odd&placed_after=x&customer_id=%FF&typo=1&limit=2"));
    query.limit();
    query.one_of("status", &[("placed", ())]);
    query.time("placed_after");
    query.text("customer_id");
    let mut found = faults(query);
    found.sort();
    let mut expected = [
        ("limit", "repeated"),
        ("limit", "out-of-range"),
        ("status", "unknown-value"),
        ("placed_after", "malformed"),
        ("customer_id", "malformed"),
        ("typo", "unknown"),
    ];
    expected.sort();
    assert_eq!(found, expected.iter().map(|(n, c)| ((*n).to_owned(), (*c).to_owned())).collect::<Vec<_>>());
}

#[test]
fn thousands_of_parameters_are_not_looked_at() {
    let raw = (0..5_000).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
    let problem = Query::parse(Some(&raw)).finish().unwrap_err();
    assert_eq!(problem.field_errors().len(), PARAMETERS_MAX + 1);
    let long = "x".repeat(10_000);
    let problem = Query::parse(Some(&long)).finish().unwrap_err();
    assert_eq!(problem.field_errors()[0].at, At::Parameter("x".repeat(CHARS_SHOWN)));
}
