//! What surrounds the routes: unknown ones, wrong methods, HEAD, types nobody can give, a missing or doubled Host, and the
//! page behind every code.

use reqwest::Method;
use serde_json::{Value, json};

use crate::platform::{Shop, Told, id, raw};

/// Every code of the contract's table, with its status where it has one.
const CODES: &[&str] = &[
    "malformed-body",
    "unsupported-media-type",
    "body-too-large",
    "invalid-fields",
    "no-such-route",
    "method-not-allowed",
    "not-acceptable",
    "order-not-found",
    "payment-not-found",
    "stock-not-found",
    "reservation-not-found",
    "saga-not-found",
    "stream-not-found",
    "command-not-found",
    "field-not-found",
    "stock-insufficient",
    "stock-below-reserved",
    "stock-above-limit",
    "order-already-exists",
    "order-not-payable",
    "order-not-cancellable",
    "order-not-shippable",
    "order-not-deliverable",
    "order-not-refundable",
    "refund-exceeds-paid",
    "payment-not-capturable",
    "payment-not-voidable",
    "payment-not-refundable",
    "reservation-already-exists",
    "reservation-closed",
    "belongs-to-order",
    "saga-not-actionable",
    "version-mismatch",
    "precondition-required",
    "bad-cursor",
    "read-model-behind",
    "read-model-parked",
    "rate-limited",
    "overloaded",
    "log-full",
    "log-stopped",
    "log-damaged",
    "idempotency-key-missing",
    "idempotency-key-malformed",
    "idempotency-key-reused",
    "command-expired",
    "bad-header",
    "bad-position",
];

#[tokio::test]
async fn every_code_has_a_page() {
    let shop = Shop::open().await;
    for code in CODES {
        let page = shop.get(&format!("/problems/{code}")).await.is(200);
        assert!(page.text.contains(code) && page.text.len() > 80, "{code}: {}", page.text);
    }
    let page = shop.get_with("/problems/log-damaged", &[("accept", "text/html")]).await.is(200);
    assert!(page.header("content-type").is_some_and(|media| media.starts_with("text/html")), "{page:?}");
    shop.get("/problems/no-such-problem").await.is(404);
}

#[tokio::test]
async fn unknown_routes_and_trailing_slashes_are_not_found() {
    let shop = Shop::open().await;
    let order = shop.post("/v1/orders", shop.order_of("b", 1, 1, None)).await.text("order_id");
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/orders/",
        "/V1/orders",
        "/v1/order",
        "/v2/orders",
        "/v1/stock",
        "/v1//orders",
        "/livez/",
    ] {
        shop.get(path).await.says(404, "no-such-route");
    }
    shop.get(&format!("/v1/orders/{order}/")).await.says(404, "no-such-route");
    let key = id();
    let posted = shop.send(Method::POST, "/v1/orders/", &[("idempotency-key", &key)], Some(&json!({}))).await;
    posted.says(404, "no-such-route");
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let shop = Shop::open().await;
    let order = shop.post("/v1/orders", shop.order_of("b", 1, 1, None)).await.text("order_id");
    let allows: &[(Method, String, &[&str])] = &[
        (Method::DELETE, "/v1/orders".to_owned(), &["GET", "HEAD", "POST"]),
        (Method::PUT, format!("/v1/orders/{order}"), &["GET", "HEAD"]),
        (Method::GET, format!("/v1/orders/{order}/ship"), &["POST"]),
        (Method::POST, shop.stock_path("b"), &["GET", "HEAD", "PUT"]),
        (Method::PATCH, format!("/v1/payments/{order}"), &["GET", "HEAD"]),
        (Method::GET, shop.reservations_path(), &["POST"]),
        (Method::POST, "/v1/events".to_owned(), &["GET", "HEAD"]),
        (Method::POST, "/livez".to_owned(), &["GET", "HEAD"]),
    ];
    for (method, path, allowed) in allows {
        let told = shop.send(method.clone(), path, &[], None).await.says(405, "method-not-allowed");
        let mut told: Vec<_> =
            told.header("allow").expect("Allow").split(',').map(|method| method.trim().to_owned()).collect();
        told.sort();
        assert_eq!(told, *allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let shop = Shop::open().await;
    shop.count("b", 3).await;
    let order = shop.post("/v1/orders", shop.order_of("b", 1, 1, None)).await.text("order_id");
    for path in [
        format!("/v1/orders/{order}"),
        shop.stock_path("b"),
        "/v1/orders?limit=1".to_owned(),
        "/livez".to_owned(),
        "/readyz".to_owned(),
        format!("/v1/orders/{}", id()),
    ] {
        let get = shop.get(&path).await;
        let head = shop.send(Method::HEAD, &path, &[], None).await.is(get.status);
        assert_eq!(
            (head.text.as_str(), head.header("etag"), head.header("content-type")),
            ("", get.header("etag"), get.header("content-type")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_given_is_not_acceptable() {
    let shop = Shop::open().await;
    shop.count("b", 3).await;
    for accept in ["text/csv", "application/xml", "application/json;q=0"] {
        shop.get_with(&shop.stock_path("b"), &[("accept", accept)]).await.says(406, "not-acceptable");
    }
    for accept in ["*/*", "application/*", "text/html, application/json;q=0.5", "application/json"] {
        shop.get_with(&shop.stock_path("b"), &[("accept", accept)]).await.is(200);
    }
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    let shop = Shop::open().await;
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n"] {
        let answer =
            raw(shop.address(), format!("GET /livez HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{hosts:?} {answer}");
    }
    let answer = raw(shop.address(), b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn headers_that_are_too_many_or_too_large_are_refused() {
    let shop = Shop::open().await;
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "x".repeat(1024 * 1024));
    for headers in [many, large] {
        let answer = raw(
            shop.address(),
            format!("GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n").as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{}", answer.lines().next().unwrap_or("no answer"));
    }
}

#[tokio::test]
async fn what_is_no_http_is_turned_away() {
    let shop = Shop::open().await;
    for nonsense in ["\0\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let answer = raw(shop.address(), nonsense.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{nonsense:?} {answer}");
    }
    shop.get("/livez").await.is(200);
}

#[tokio::test]
async fn every_answer_can_be_told_apart_and_timed() {
    let shop = Shop::open().await;
    let (first, second) = (shop.get("/v1/orders?limit=1").await, shop.get("/v1/nothing").await);
    for reply in [&first, &second] {
        assert!(reply.header("request-id").is_some_and(|id| !id.is_empty()), "{reply:?}");
        assert!(reply.header("server-timing").is_some_and(|timing| timing.contains("total")), "{reply:?}");
    }
    assert_ne!(first.header("request-id"), second.header("request-id"));
    assert_eq!(second.body["outcome"], Value::Null, "outcome is for commands only");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = shop.get_with("/v1/nothing", &[("traceparent", trace)]).await.is(404);
    assert_eq!(traced.body["trace_id"], "0af7651916cd43dd8448eb211c80319c");
}
