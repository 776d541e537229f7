//! Apps without a socket: what every route gets without doing anything for it.

use axum::extract::Path;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::health::Health;
use crate::problem::Pages;

fn app() -> App {
    let router = Router::new()
        .route("/orders", get(async || "[]").post(async || "made"))
        .route("/orders/{id}", get(async |Path(id): Path<String>| id))
        .route("/number/{n}", get(async |Path(n): Path<u8>| n.to_string()))
        .route("/only-post", post(async || "ok"))
        .route("/panic", get(async || -> &'static str { panic!("a bug") }))
        .route("/raw-500", get(async || (StatusCode::INTERNAL_SERVER_ERROR, "SELECT * FROM secrets")))
        .merge(Health::builder(Default::default()).check("log", || Err("not open yet".to_owned())).build().routes())
        .merge(Pages::with([]).routes());
    App::new(router)
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost")
}

async fn ask(method: &str, path: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    send(request(method, path).body(Body::empty()).unwrap()).await
}

async fn send(request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let (parts, body) = app().handle(request).await.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

/// Asserts a problem of this code and gives its document.
#[track_caller]
fn problem(answer: (StatusCode, HeaderMap, Vec<u8>), code: &str) -> Value {
    let (status, headers, body) = answer;
    let document: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["code"], code, "{document}");
    assert_eq!(document["status"], status.as_u16());
    assert_eq!(document["type"], format!("https://docket.dev/problems/{code}"));
    assert_eq!(headers[CONTENT_TYPE], PROBLEM_JSON);
    assert_eq!(document["request_id"], headers["request-id"].to_str().unwrap());
    assert_eq!(document["trace_id"].as_str().unwrap().len(), 32);
    document
}

#[tokio::test]
async fn every_answer_has_an_id_and_a_timing() {
    let (status, headers, body) = ask("GET", "/orders").await;
    assert_eq!((status, body.as_slice()), (StatusCode::OK, b"[]".as_slice()));
    let id = headers["request-id"].to_str().unwrap().parse::<uuid::Uuid>().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert!(headers["server-timing"].to_str().unwrap().starts_with("total;dur="));
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn a_body_is_bounded_as_the_app_says() {
    async fn take(request: Request<Body>) -> Result<String, Problem> {
        let (parts, body) = request.into_parts();
        let taken = crate::body::command_request(&parts, body).await?;
        Ok(taken.body.root().to_value().to_string())
    }
    let bodies = BodyLimits { bytes_max: 20, ..BodyLimits::DEFAULT };
    let usual = || App::new(Router::new().route("/orders", post(take)));
    for (app, longest) in [(usual(), 256 * 1024), (usual().bounding_bodies(bodies), 20)] {
        for (length, status) in [(longest, StatusCode::OK), (longest + 1, StatusCode::PAYLOAD_TOO_LARGE)] {
            let asked = request("POST", "/orders")
                .header("idempotency-key", uuid::Uuid::now_v7().to_string())
                .header("content-type", "application/json")
                .body(Body::from(format!("\"{}\"", "x".repeat(length - 2))));
            assert_eq!(app.handle(asked.unwrap()).await.status(), status, "{length} of {longest}");
        }
    }
}

#[tokio::test]
async fn the_callers_trace_is_told_back() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let asked = request("GET", "/nowhere").header("traceparent", parent).body(Body::empty()).unwrap();
    assert_eq!(problem(send(asked).await, "no-such-route")["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test]
async fn an_unknown_path_is_no_such_route() {
    for path in
        ["/", "/nowhere", "/orders/", "/orders/a/", "/Orders", "//orders", "/orders/%", "/orders/%FF", "/orders/%00"]
    {
        let document = problem(ask("GET", path).await, "no-such-route");
        assert_eq!(document.get("outcome"), None, "{path}");
    }
    assert_eq!(problem(ask("POST", "/nowhere").await, "no-such-route")["outcome"], "rejected");
    assert_eq!(ask("GET", "/orders/Zo%C3%AB").await.2, "Zoë".as_bytes());
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let allow = async |method: &str, path: &str| {
        let answer = ask(method, path).await;
        let allow = answer.1["allow"].to_str().unwrap().to_owned();
        if method != "HEAD" {
            problem(answer, "method-not-allowed");
        }
        allow
    };
    assert_eq!(allow("DELETE", "/orders").await, "GET, HEAD, POST");
    assert_eq!(allow("POST", "/orders/1").await, "GET, HEAD");
    assert_eq!(allow("GET", "/only-post").await, "POST");
    assert_eq!(allow("HEAD", "/only-post").await, "POST");
    assert_eq!(allow("BREW", "/orders").await, "GET, HEAD, POST");
    assert_eq!(allow("TRACE", "/orders").await, "GET, HEAD, POST");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (status, headers, body) = ask("HEAD", "/orders").await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers["content-length"], "2");
}

#[tokio::test]
async fn one_host_is_needed() {
    let hosts = |hosts: &[&str]| {
        let mut builder = Request::get("/orders");
        for host in hosts {
            builder = builder.header("host", *host);
        }
        send(builder.body(Body::empty()).unwrap())
    };
    problem(hosts(&[]).await, "bad-header");
    problem(hosts(&["a", "a"]).await, "bad-header");
    for host in ["a b", "a,b", "a/b", "user@a", "a?b", "a#b"] {
        let document = problem(hosts(&[host]).await, "bad-header");
        assert_eq!(document["errors"][0]["header"], "host", "{host}");
    }
    for host in ["localhost:8080", "127.0.0.1", "[::1]:80", "shop.example", ""] {
        assert_eq!(hosts(&[host]).await.0, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn header_fields_are_counted() {
    let with = |count: usize| {
        let fields = (1..count).fold(request("GET", "/orders"), |builder, n| builder.header(format!("x-{n}"), "1"));
        send(fields.body(Body::empty()).unwrap())
    };
    assert_eq!(with(64).await.0, StatusCode::OK);
    assert_eq!(with(65).await.0, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn a_panic_is_an_internal_problem() {
    let document = problem(ask("GET", "/panic").await, "internal");
    assert!(!document.to_string().contains("a bug"), "{document}");
}

#[tokio::test]
async fn errors_in_other_words_become_problems() {
    let document = problem(ask("GET", "/raw-500").await, "internal");
    assert!(!document.to_string().contains("SELECT"), "{document}");
    problem(ask("GET", "/number/many").await, "malformed-body");
}

#[tokio::test]
async fn health_speaks_for_itself() {
    assert_eq!(ask("GET", "/livez").await.0, StatusCode::OK);
    let (status, _, body) = ask("GET", "/readyz?verbose").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, b"[+] draining ok\n[-] log: not open yet\nnot ready\n");
    problem(ask("GET", "/readyz?verbos").await, "invalid-fields");
}

#[tokio::test]
async fn every_problem_has_its_page() {
    let (status, headers, body) = ask("GET", "/problems/bad-cursor").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[CONTENT_TYPE], "text/markdown; charset=utf-8");
    assert!(body.starts_with(b"# The cursor is not one of ours\n"));
    problem(ask("GET", "/problems/unheard-of").await, "no-such-route");
    let asked = request("GET", "/problems/bad-cursor").header("accept", "text/html,*/*;q=0.8");
    let (_, headers, body) = send(asked.body(Body::empty()).unwrap()).await;
    assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(String::from_utf8(body).unwrap().contains("<title>The cursor is not one of ours</title>"));
}

#[tokio::test]
async fn an_app_that_is_opened_later_serves_what_it_was_opened_with() {
    let app = App::opening(
        Router::new()
            .route("/early", get(async || "early"))
            .fallback(async || Problem::new(crate::problem::codes::NOT_OPEN_YET, "not yet")),
    );
    let clone = app.clone();
    let ask = async |app: &App, path: &str| {
        app.handle(request("GET", path).body(Body::empty()).unwrap()).await.status().as_u16()
    };
    assert_eq!((ask(&clone, "/early").await, ask(&clone, "/orders").await), (200, 503));
    app.open(Router::new().route("/orders", get(async || "[]")));
    assert_eq!((ask(&clone, "/early").await, ask(&clone, "/orders").await), (404, 200));
}
