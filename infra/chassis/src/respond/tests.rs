//! Answers, header by header.

use http_body_util::BodyExt;
use serde_json::json;

use super::*;
use crate::context::RequestContext;

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn an_answer_has_all_that_was_asked_for() {
    let response = Reply::json(StatusCode::CREATED, &json!({"order_id": "x"}))
        .version(Version(u64::MAX))
        .positions(&"5:77, 3:1042".parse().unwrap())
        .location("/v1/orders/x")
        .replayed(true)
        .preference_applied(Duration::from_secs(5))
        .timing(Timing { queue: Duration::from_micros(12), append: Duration::from_micros(1_234) })
        .into_response();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    assert_eq!(header(&response, "etag"), Some("\"18446744073709551615\""));
    assert_eq!(header(&response, "docket-position"), Some("3:1042, 5:77"));
    assert_eq!(header(&response, "location"), Some("/v1/orders/x"));
    assert_eq!(header(&response, "idempotency-replayed"), Some("true"));
    assert_eq!(header(&response, "preference-applied"), Some("wait=5"));
    assert_eq!(header(&response, "server-timing"), Some("queue;dur=0.012, append;dur=1.234, total;dur=0.000"));
    assert_eq!(text(response).await, "{\"order_id\":\"x\"}");
}

#[test]
fn nothing_is_told_that_there_is_not() {
    let reply = Reply::json(StatusCode::OK, &json!([])).positions(&Positions::default()).replayed(false);
    let response = reply.into_response();
    for name in ["etag", "docket-position", "location", "idempotency-replayed", "preference-applied"] {
        assert_eq!(header(&response, name), None, "{name}");
    }
}

#[test]
fn many_positions_fit_too() {
    let many = (0..1_000).map(|n| format!("{n}:9007199254740991")).collect::<Vec<_>>().join(", ");
    assert_eq!(positions_value(&many.parse().unwrap()).unwrap(), many.as_str());
}

#[tokio::test]
async fn who_has_this_version_is_sent_no_body() {
    let reply = || Reply::json(StatusCode::OK, &json!({})).version(Version(3)).positions(&"3:7".parse().unwrap());
    let asked =
        |tags: &'static str| HeaderMap::from_iter([(http::header::IF_NONE_MATCH, HeaderValue::from_static(tags))]);
    let same = reply().conditional(&asked("\"3\"")).into_response();
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(&same, "etag"), Some("\"3\""));
    assert_eq!(header(&same, "docket-position"), Some("3:7"));
    assert_eq!(header(&same, "content-type"), None);
    assert_eq!(text(same).await, "");
    assert_eq!(reply().conditional(&asked("\"2\"")).into_response().status(), StatusCode::OK);
    assert_eq!(reply().conditional(&HeaderMap::new()).into_response().status(), StatusCode::OK);
    let unversioned = Reply::json(StatusCode::OK, &json!({})).conditional(&asked("*"));
    assert_eq!(unversioned.into_response().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_total_counts_from_the_request() {
    let request = http::Request::get("/").body(()).unwrap();
    let mut context = RequestContext::begin(&request);
    context.started -= Duration::from_millis(1_500);
    let timing = context.scope(async { server_timing(None) }).await;
    assert!(timing.to_str().unwrap().starts_with("total;dur=150"), "{timing:?}");
}

#[tokio::test]
async fn a_stream_has_a_line_per_item() {
    let items = futures::stream::iter([Ok::<_, axum::BoxError>(json!({"a": "x\ny"})), Ok(json!(2))]);
    let response = ndjson(items, None, &Positions::default());
    assert_eq!(header(&response, "content-type"), Some("application/x-ndjson"));
    assert_eq!(text(response).await, "{\"a\":\"x\\ny\"}\n2\n");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_says_that_it_lives() {
    let items = futures::stream::once(async {
        tokio::time::sleep(Duration::from_secs(40)).await;
        Ok::<_, axum::BoxError>(1)
    });
    assert_eq!(text(ndjson(items, Some(KEEP_ALIVE), &Positions::default())).await, "\n\n1\n");
}

#[tokio::test]
async fn a_stream_that_fails_breaks_off() {
    let items = futures::stream::iter([Ok(1), Err(axum::BoxError::from("the log is damaged"))]);
    assert!(ndjson(items, None, &Positions::default()).into_body().collect().await.is_err());
}
