//! What a problem looks like to its reader.

use engine::position::Partition;
use serde_json::{Value, json};

use super::*;
use crate::context::RequestContext;

fn context(method: &str) -> RequestContext {
    RequestContext::begin(&http::Request::builder().method(method).body(()).unwrap())
}

fn document(problem: &Problem, method: &str) -> Value {
    serde_json::from_slice(&problem.to_json(Some(context(method)))).unwrap()
}

#[test]
fn it_is_the_document_of_the_contract() {
    let problem = Problem::invalid_fields(vec![
        FieldError::at("/lines/0/quantity", "out-of-range", "must be 1 to 1,000,000; is 0"),
        FieldError::at("/lines/1", "short", "3 left").with("available", 3),
    ]);
    let context = context("POST");
    let document: Value = serde_json::from_slice(&problem.to_json(Some(context))).unwrap();
    let expected = json!({
        "type": "https://docket.dev/problems/invalid-fields",
        "title": "Some fields are not valid",
        "status": 422,
        "code": "invalid-fields",
        "detail": "2 fields need attention",
        "outcome": "rejected",
        "request_id": context.request_id,
        "trace_id": context.trace_id.to_string(),
        "errors": [
            {"pointer": "/lines/0/quantity", "code": "out-of-range", "detail": "must be 1 to 1,000,000; is 0"},
            {"pointer": "/lines/1", "code": "short", "detail": "3 left", "available": 3},
        ],
    });
    assert_eq!(document, expected);
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&document), names(&expected), "in the order in which people read");
}

#[test]
fn only_commands_are_told_an_outcome() {
    assert_eq!(document(&Problem::bad_cursor(), "GET").get("outcome"), None);
    assert_eq!(document(&Problem::bad_cursor(), "HEAD").get("outcome"), None);
    assert_eq!(document(&Problem::malformed_body("no"), "POST")["outcome"], "rejected");
    assert_eq!(document(&Problem::version_mismatch(Version(3)), "PUT")["outcome"], "rejected");
    for problem in [
        Problem::overloaded(),
        Problem::internal(),
        Problem::body_too_slow(),
        Problem::rate_limited(Duration::from_millis(1_001)),
        Problem::no_answer(NoAnswer::Unconfirmed),
    ] {
        assert_eq!(document(&problem, "POST")["outcome"], "unknown", "{problem}");
    }
}

#[test]
fn what_may_be_tried_again_says_when() {
    let after = |problem: Problem| problem.into_response().headers().get(RETRY_AFTER).cloned();
    assert_eq!(after(Problem::rate_limited(Duration::from_millis(1_001))).unwrap(), "2");
    assert_eq!(after(Problem::overloaded().retry_after(Duration::ZERO)).unwrap(), "1");
    for why in [
        NoAnswer::Overloaded,
        NoAnswer::NotOwner,
        NoAnswer::Unreachable,
        NoAnswer::Draining,
        NoAnswer::Unconfirmed,
        NoAnswer::LogFull,
        NoAnswer::LogStopped,
        NoAnswer::LogDamaged,
        NoAnswer::TimedOut,
    ] {
        assert_eq!(Problem::no_answer(why).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(after(Problem::no_answer(why)).is_some(), "{why:?}");
    }
    assert_eq!(after(Problem::bad_cursor()), None);
}

#[test]
fn a_recorded_refusal_is_told_again() {
    let outcome = Outcome {
        status: 412,
        code: Some("version-mismatch".into()),
        detail: Some("the order is at version 3".to_owned()),
        answer: Some(json!({"current_version": 3, "status": "forged"})),
        ..Outcome::default()
    };
    let document = document(&Problem::recorded(codes::VERSION_MISMATCH, &outcome), "POST");
    assert_eq!(document["current_version"], 3);
    assert_eq!(document["detail"], "the order is at version 3");
    assert_eq!(document["status"], 412, "what every problem has is not replaced");
}

#[test]
fn how_far_a_read_model_is_stands_in_the_header() {
    let reached = Positions::from(engine::position::Position {
        partition: Partition(3),
        offset: engine::position::Offset(1_042),
    });
    let response = Problem::read_model_behind(&reached).into_response();
    assert_eq!(response.headers()[DOCKET_POSITION], "3:1042");
    let response = Problem::read_model_behind(&Positions::default()).into_response();
    assert!(!response.headers().contains_key(DOCKET_POSITION));
}

#[test]
fn a_result_with_a_problem_stays_small() {
    assert!(size_of::<Result<(), Problem>>() <= size_of::<usize>());
}
