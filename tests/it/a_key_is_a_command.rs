//! A command's key is the command: asked again with it, the first answer comes again, whatever happened in between; asked
//! for something else with it, nothing happens. And a command can say which version of the resource it means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kit::shop::{payment, reservation};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::platform::{Server, Shop, Told, id};

#[tokio::test]
async fn a_command_without_a_key_or_with_half_a_key_is_turned_away() {
    let shop = Shop::open().await;
    let body = json!({"on_hand": 1});
    let path = shop.stock_path("beans");
    shop.send(Method::PUT, &path, &[], Some(&body)).await.refuses(400, "idempotency-key-missing");
    let whole = id();
    for malformed in
        ["1", "not-a-uuid", &whole[1..], &format!("\"{whole}"), &format!("{{{whole}}}"), &whole.replace('-', "")]
    {
        let headers = [("idempotency-key", malformed)];
        shop.send(Method::PUT, &path, &headers, Some(&body)).await.refuses(400, "idempotency-key-malformed");
    }
    let twice = [("idempotency-key", whole.as_str()), ("idempotency-key", whole.as_str())];
    shop.send(Method::PUT, &path, &twice, Some(&body)).await.refuses(400, "idempotency-key-malformed");
    shop.get(&path).await.says(404, "stock-not-found");
}

#[tokio::test]
async fn a_key_may_be_bare_or_quoted_in_any_case() {
    let shop = Shop::open().await;
    let (key, body) = (id(), json!({"on_hand": 7}));
    let path = shop.stock_path("beans");
    let first = shop.send(Method::PUT, &path, &[("idempotency-key", &key)], Some(&body)).await.is(201);
    assert!(!first.is_replayed());
    for spelling in [key.to_uppercase(), format!("\"{key}\""), format!("\"{}\"", key.to_uppercase())] {
        let again = shop.send(Method::PUT, &path, &[("idempotency-key", &spelling)], Some(&body)).await;
        assert!(again.is_replayed(), "{again:?}");
        assert_eq!(again.essence(), first.essence());
    }
}

#[tokio::test]
async fn every_kind_of_command_answers_a_repeat_as_at_first_although_more_has_happened() {
    let shop = Shop::open().await;
    shop.count("beans", 100).await;
    let order = shop.ordered("beans", 1, 500, "tok_ok").await.text("order_id");
    let authorized = shop.post("/v1/payments", payment(900, "tok_ok")).await.is(201).text("payment_id");
    let held =
        shop.post(&shop.reservations_path(), reservation(&[("beans", 1)], None)).await.is(201).text("reservation_id");
    let commands: Vec<(Method, String, Value)> = vec![
        (Method::PUT, shop.stock_path("rice"), json!({"on_hand": 5})),
        (Method::PUT, shop.stock_path("rice"), json!({"on_hand": 50})),
        (Method::POST, format!("{}/receive", shop.stock_path("rice")), json!({"quantity": 5})),
        (Method::POST, format!("{}/adjust", shop.stock_path("rice")), json!({"delta": -1, "reason": "damaged"})),
        (Method::POST, shop.reservations_path(), reservation(&[("rice", 2)], Some(600))),
        (Method::POST, format!("{}/{held}/commit", shop.reservations_path()), json!({})),
        (Method::POST, "/v1/payments".to_owned(), payment(700, "tok_ok")),
        (Method::POST, "/v1/payments".to_owned(), payment(700, "tok_declined")),
        (Method::POST, format!("/v1/payments/{authorized}/capture"), json!({})),
        (
            Method::POST,
            format!("/v1/payments/{authorized}/refund"),
            json!({"amount": {"amount": 100, "currency": "EUR"}, "reason": "late"}),
        ),
        (Method::POST, "/v1/orders".to_owned(), shop.order_of("beans", 1, 100, None)),
        (Method::POST, format!("/v1/orders/{order}/ship"), json!({"carrier": "bike"})),
        (Method::POST, format!("/v1/orders/{order}/deliver"), json!({})),
        (
            Method::POST,
            format!("/v1/orders/{order}/refund"),
            json!({"amount": {"amount": 100, "currency": "EUR"}, "reason": "late"}),
        ),
    ];
    let mut firsts = Vec::new();
    for (method, path, body) in &commands {
        let key = id();
        let first = shop.send(method.clone(), path, &[("idempotency-key", &key)], Some(body)).await.accepted();
        assert!(
            !first.is_replayed() && !first.positions().is_empty() && first.header("etag").is_some(),
            "{path} {first:?}"
        );
        assert_eq!(first.status == 201, first.header("location").is_some(), "{path} {first:?}");
        let timing = first.header("server-timing").unwrap_or_default();
        assert!(["queue", "append", "total"].iter().all(|part| timing.contains(part)), "{timing}");
        firsts.push((key, first));
    }
    for ((method, path, body), (key, first)) in commands.iter().zip(&firsts) {
        let again = shop.send(method.clone(), path, &[("idempotency-key", key)], Some(body)).await;
        assert!(again.is_replayed(), "{path} {again:?}");
        assert_eq!(again.essence(), first.essence(), "{path}");
    }
}

#[tokio::test]
async fn a_refusal_is_remembered_although_it_would_be_accepted_now() {
    let shop = Shop::open().await;
    let commands = [
        (format!("{}/receive", shop.stock_path("beans")), json!({"quantity": 5}), 404, "stock-not-found"),
        (shop.reservations_path(), reservation(&[("beans", 3)], None), 409, "stock-insufficient"),
    ];
    let mut firsts = Vec::new();
    for (path, body, status, code) in commands {
        let key = Uuid::now_v7();
        let first = shop.post_as(key, &path, body.clone()).await.refuses(status, code);
        assert!(!first.positions().is_empty(), "a refusal is a record: {first:?}");
        firsts.push((key, path, body, first));
    }
    shop.count("beans", 100).await;
    for (key, path, body, first) in firsts {
        let again = shop.post_as(key, &path, body.clone()).await;
        assert!(again.is_replayed(), "{again:?}");
        assert_eq!(again.essence(), first.essence());
        shop.post(&path, body).await.accepted();
    }
}

#[tokio::test]
async fn a_key_used_for_another_body_or_verb_is_refused_and_does_nothing() {
    let shop = Shop::open().await;
    let key = Uuid::now_v7();
    let path = shop.stock_path("beans");
    let first = shop.put_with(key, &path, &[], json!({"on_hand": 10, "reason": "count"})).await.is(201);
    shop.put_with(key, &path, &[], json!({"on_hand": 11, "reason": "count"}))
        .await
        .refuses(422, "idempotency-key-reused");
    shop.put_with(key, &path, &[], json!({"on_hand": 10})).await.refuses(422, "idempotency-key-reused");
    // Told before the fields, the version and the rules.
    shop.put_with(key, &path, &[], json!({"on_hand": -1})).await.refuses(422, "idempotency-key-reused");
    let headers = [("if-match", "\"99\"")];
    shop.put_with(key, &path, &headers, json!({"on_hand": 12})).await.refuses(422, "idempotency-key-reused");
    let order = shop.post("/v1/orders", shop.order_of("beans", 1, 1, None)).await.is(201).text("order_id");
    let key = Uuid::now_v7();
    shop.post_as(key, &format!("/v1/orders/{order}/deliver"), json!({})).await.refuses(409, "order-not-deliverable");
    shop.post_as(key, &format!("/v1/orders/{order}/ship"), json!({})).await.refuses(422, "idempotency-key-reused");
    assert_eq!(shop.get(&path).await.essence().4, first.body);
}

#[tokio::test]
async fn the_fingerprint_is_the_json_value_and_headers_are_no_part_of_it() {
    let shop = Shop::open().await;
    let key = id();
    let path = shop.stock_path("beans");
    let write = async |headers: &[(&str, &str)], body: &'static str| {
        let mut all = vec![("idempotency-key", key.as_str()), ("content-type", "application/json")];
        all.extend_from_slice(headers);
        shop.client().send_bytes(Method::PUT, &path, &all, body.as_bytes().to_vec()).await.expect("an answer")
    };
    let first = write(&[("docket-actor", "ada")], r#"{"on_hand":10,"reason":"count"}"#).await.is(201);
    let again =
        write(&[("docket-actor", "bob"), ("if-match", "\"77\"")], " {\"reason\" : \"c\\u006funt\",\n \"on_hand\": 10}")
            .await;
    assert!(again.is_replayed(), "{again:?}");
    assert_eq!(again.essence(), first.essence());
}

#[tokio::test]
async fn the_same_key_addresses_each_resource_anew() {
    let shop = Shop::open().await;
    let key = Uuid::now_v7();
    shop.put_with(key, &shop.stock_path("beans"), &[], json!({"on_hand": 1})).await.is(201);
    let other = shop.put_with(key, &shop.stock_path("rice"), &[], json!({"on_hand": 2})).await.is(201);
    assert!(!other.is_replayed());
    let known = shop.get(&format!("/v1/commands/{key}")).await.is(200).body;
    let resources: BTreeSet<_> = known["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| crate::platform::text(&item["resource"]))
        .collect();
    assert_eq!(resources, BTreeSet::from([shop.stock_path("beans"), shop.stock_path("rice")]));
}

#[tokio::test]
async fn an_id_left_out_follows_from_the_key_and_another_id_is_another_command() {
    let shop = Shop::open().await;
    let key = Uuid::now_v7();
    let body = shop.order_of("beans", 1, 100, None);
    let first = shop.post_as(key, "/v1/orders", body.clone()).await.is(201);
    let derived = first.text("order_id");
    assert_eq!(first.header("location"), Some(format!("/v1/orders/{derived}").as_str()));
    let mut named = body.clone();
    let mine = id();
    named["order_id"] = json!(mine.to_uppercase());
    let other = shop.post_as(key, "/v1/orders", named.clone()).await.is(201);
    assert!(!other.is_replayed());
    assert_eq!(other.text("order_id"), mine, "any case in, lower case out");
    assert_eq!(shop.post_as(key, "/v1/orders", body).await.text("order_id"), derived);
    shop.post("/v1/orders", named).await.refuses(409, "order-already-exists");
}

#[tokio::test]
async fn invalid_fields_are_not_remembered() {
    let shop = Shop::open().await;
    let key = Uuid::now_v7();
    let path = shop.stock_path("beans");
    shop.put_with(key, &path, &[], json!({"on_hand": -1})).await.refuses(422, "invalid-fields");
    shop.get(&format!("/v1/commands/{key}")).await.says(404, "command-not-found");
    let first = shop.put_with(key, &path, &[], json!({"on_hand": 1})).await.is(201);
    assert!(!first.is_replayed());
}

#[tokio::test]
async fn faults_are_told_in_their_order() {
    let shop = Shop::open().await;
    shop.count("beans", 1).await;
    let path = shop.stock_path("beans");
    let key = id();
    let long = vec![b' '; 256 * 1024 + 1];
    let send = async |method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        shop.client().send_bytes(method, path, headers, body.to_vec()).await.expect("an answer")
    };
    let (accept, media) = (("accept", "text/csv"), ("content-type", "text/plain"));
    let (good, json) = (("idempotency-key", key.as_str()), ("content-type", "application/json"));
    let (bad, version) = (("idempotency-key", "x"), ("if-match", "\"99\""));
    send(Method::DELETE, "/v1/nothing", &[accept, media], &long).await.says(404, "no-such-route");
    send(Method::DELETE, &path, &[accept, media], &long).await.says(405, "method-not-allowed");
    send(Method::PUT, &path, &[accept, media, bad], &long).await.says(406, "not-acceptable");
    send(Method::PUT, &path, &[media], &long).await.says(400, "idempotency-key-missing");
    send(Method::PUT, &path, &[media, bad], &long).await.says(400, "idempotency-key-malformed");
    send(Method::PUT, &path, &[media, good], &long).await.says(415, "unsupported-media-type");
    send(Method::PUT, &path, &[json, good, version], &long).await.says(413, "body-too-large");
    send(Method::PUT, &path, &[json, good, version], b"{").await.says(400, "malformed-body");
    send(Method::PUT, &path, &[json, good, version], b"{\"on_hand\":-1}").await.says(422, "invalid-fields");
    shop.post(&shop.reservations_path(), reservation(&[("beans", 1)], None)).await.is(201);
    let stock = shop.get(&path).await.header("etag").expect("an ETag").to_owned();
    send(Method::PUT, &path, &[json, good, version], b"{\"on_hand\":0}").await.says(412, "version-mismatch");
    let fresh = id();
    let right = ("if-match", stock.as_str());
    send(Method::PUT, &path, &[json, ("idempotency-key", &fresh), right], b"{\"on_hand\":0}")
        .await
        .says(409, "stock-below-reserved");
}

#[tokio::test]
async fn a_command_takes_effect_only_on_a_version_it_means() {
    let shop = Shop::open().await;
    let path = shop.stock_path("beans");
    let put = async |headers: &[(&str, &str)], on_hand: i64| {
        shop.put_with(Uuid::now_v7(), &path, headers, json!({"on_hand": on_hand})).await
    };
    put(&[("if-match", "*")], 1).await.refuses(412, "version-mismatch");
    assert_eq!(put(&[("if-none-match", "*")], 10).await.is(201).header("etag"), Some("\"1\""));
    let refused = put(&[("if-none-match", "*")], 11).await.refuses(412, "version-mismatch");
    assert_eq!(refused.body["current_version"], 1, "{}", refused.body);
    assert_eq!(put(&[("if-match", "\"1\"")], 20).await.is(200).header("etag"), Some("\"2\""));
    assert_eq!(put(&[("if-match", "\"1\"")], 21).await.refuses(412, "version-mismatch").body["current_version"], 2);
    assert_eq!(put(&[("if-match", "W/\"2\"")], 21).await.refuses(412, "version-mismatch").body["current_version"], 2);
    put(&[("if-match", "\"7\", \"2\"")], 30).await.is(200);
    put(&[("if-match", "\"7\""), ("if-match", "\"3\"")], 40).await.is(200);
    put(&[("if-match", "*")], 50).await.is(200);
    put(&[("if-match", "\"other\"")], 60).await.refuses(412, "version-mismatch");
    assert_eq!(shop.counters("beans").await.0, 50);
    // After 412 the key is spent: the answer stays.
    let key = Uuid::now_v7();
    let stale = [("if-match", "\"1\"")];
    let first = shop.put_with(key, &path, &stale, json!({"on_hand": 70})).await.refuses(412, "version-mismatch");
    let again = shop.put_with(key, &path, &[("if-match", "\"5\"")], json!({"on_hand": 70})).await;
    assert!(again.is_replayed());
    assert_eq!(again.essence(), first.essence());
}

#[tokio::test]
async fn the_same_key_fifty_times_at_once_has_one_effect_and_fifty_equal_answers() {
    let shop = Arc::new(Shop::open().await);
    shop.count("beans", 100).await;
    let receive = format!("{}/receive", shop.stock_path("beans"));
    let pay = payment(4200, "tok_ok");
    let order = shop.order_of("beans", 2, 150, Some("tok_ok"));
    for (path, body, wait) in [
        (receive.as_str(), json!({"quantity": 7}), None),
        ("/v1/payments", pay, None),
        ("/v1/orders", order, Some("wait=20")),
    ] {
        let key = Uuid::now_v7();
        let asking = (0..50).map(|_| {
            let (shop, path, body) = (Arc::clone(&shop), path.to_owned(), body.clone());
            tokio::spawn(async move {
                let headers: Vec<(&str, &str)> = wait.map(|wait| ("prefer", wait)).into_iter().collect();
                shop.post_with(key, &path, &headers, body).await
            })
        });
        let answers: Vec<_> =
            futures::future::join_all(asking).await.into_iter().map(|it| it.expect("no panic")).collect();
        let first = answers.iter().filter(|answer| !answer.is_replayed()).collect::<Vec<_>>();
        assert_eq!(first.len(), 1, "one effect");
        for answer in &answers {
            assert_eq!(answer.essence(), first[0].essence(), "{path}");
        }
    }
    assert_eq!(shop.counters("beans").await, (105, 0, 105));
    let orders = shop.client().list("/v1/orders").await.expect("a list");
    assert_eq!(orders.iter().filter(|order| order["location_id"] == shop.location).count(), 1);
}

#[tokio::test]
async fn answers_are_remembered_across_a_kill() {
    let shop = Shop::alone().await;
    let location = shop.location.clone();
    shop.count("beans", 10).await;
    let mut told = Vec::new();
    let mut ask = async |path: String, body: Value| {
        let key = Uuid::now_v7();
        let reply = shop.post_as(key, &path, body.clone()).await;
        told.push((key, path, body, reply));
    };
    ask("/v1/orders".to_owned(), shop.order_of("beans", 2, 100, None)).await;
    ask("/v1/payments".to_owned(), payment(100, "tok_ok")).await;
    ask(shop.reservations_path(), reservation(&[("beans", 4)], None)).await;
    ask(shop.reservations_path(), reservation(&[("beans", 40)], None)).await;
    ask(format!("{}/receive", shop.stock_path("beans")), json!({"quantity": 1})).await;
    ask(format!("{}/receive", shop.stock_path("nothing")), json!({"quantity": 1})).await;
    let server = shop.server().kill_and_start_again().await;
    let shop = Shop::at(Arc::new(server));
    for (key, path, body, first) in told {
        let again = shop.post_as(key, &path, body).await;
        assert!(again.is_replayed(), "{path} {again:?}");
        assert_eq!(again.essence(), first.essence(), "{path}");
    }
    let stock = shop.get(&format!("/v1/stock/{location}/beans")).await.is(200).body;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(11), &json!(4)));
    shop.is_sound().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_has_its_command_done() {
    let shop = Shop::open().await;
    let mut keys = Vec::new();
    for number in 0..20 {
        let key = id();
        let body = json!({"on_hand": number}).to_string();
        let path = shop.stock_path(&format!("sku-{number}"));
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let address = shop.address().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        // Gone before any answer could have been read.
        drop(stream);
        keys.push((key, path, number));
    }
    for (key, path, number) in keys {
        let stock = shop.until(&path, |_| true).await;
        assert_eq!(stock["on_hand"], number);
        let known = shop.get(&format!("/v1/commands/{key}")).await.is(200).body;
        assert_eq!(known["items"][0]["outcome"], "accepted");
    }
}

#[tokio::test]
async fn a_command_that_breaks_off_is_not_carried_out() {
    let shop = Shop::open().await;
    let captured = shop.post("/v1/payments", payment(100, "tok_ok")).await.is(201).text("payment_id");
    // Each is a whole command by itself, and is not all that was to come.
    for part in ["", "{}", "{\"amount\":{\"amount\":1,\"currency\":\"EUR\"}}"] {
        for length in
            ["Content-Length: 200\r\n\r\n".to_owned(), format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", 200)]
        {
            let key = id();
            let request = format!(
                "POST /v1/payments/{captured}/capture HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\n{length}{part}"
            );
            let address = shop.address().trim_start_matches("http://").to_owned();
            let mut stream = TcpStream::connect(address).await.expect("the server listens");
            stream.write_all(request.as_bytes()).await.expect("the server reads");
            stream.shutdown().await.expect("it can say that no more comes");
            let mut answer = Vec::new();
            // The server has seen the end when it closes too, with an answer or without.
            let _ = stream.read_to_end(&mut answer).await;
            shop.get(&format!("/v1/commands/{key}")).await.says(404, "command-not-found");
        }
    }
    assert_eq!(shop.get(&format!("/v1/payments/{captured}")).await.text("status"), "authorized");
}

#[tokio::test]
async fn what_became_of_a_command_can_be_asked_of_all() {
    let shop = Shop::open().await;
    let (accepted, rejected) = (Uuid::now_v7(), Uuid::now_v7());
    let order = shop.post_as(accepted, "/v1/orders", shop.order_of("beans", 1, 1, None)).await.is(201);
    let path = format!("/v1/orders/{}/ship", order.text("order_id"));
    let refused = shop.post_as(rejected, &path, json!({})).await.refuses(409, "order-not-shippable");
    for (key, outcome, status, answer) in [(accepted, "accepted", 201, &order), (rejected, "rejected", 409, &refused)] {
        for spelling in [key.to_string(), key.to_string().to_uppercase()] {
            let known = shop.get(&format!("/v1/commands/{spelling}")).await.is(200);
            let items = known.body["items"].as_array().expect("a list").clone();
            assert_eq!(items.len(), 1);
            assert_eq!(items[0]["command_id"], key.to_string());
            assert_eq!(items[0]["resource"], format!("/v1/orders/{}", order.text("order_id")));
            assert_eq!((&items[0]["outcome"], &items[0]["status"]), (&json!(outcome), &json!(status)));
            assert_eq!(items[0]["position"].as_str(), answer.header("docket-position"));
            assert!(items[0]["recorded_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{items:?}");
        }
    }
    for nobody in [id(), "no-uuid".to_owned()] {
        shop.get(&format!("/v1/commands/{nobody}")).await.says(404, "command-not-found");
    }
}

#[tokio::test]
async fn who_and_why_are_kept_with_a_record_and_with_all_that_it_causes() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let key = Uuid::now_v7();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("docket-actor", "ad%C3%A8le"),
        ("docket-reason", "order 7%25"),
        ("traceparent", trace),
        ("prefer", "wait=20"),
    ];
    let body = shop.order_of("beans", 1, 100, Some("tok_ok"));
    let order = shop.post_with(key, "/v1/orders", &headers, body).await.is(201).text("order_id");
    let events = shop.client().list(&format!("/v1/streams/order-{order}/events")).await.expect("a list");
    assert_eq!(events.len(), 3);
    let told = shop.client().list(&format!("/v1/streams/checkout-{order}/events")).await.expect("a list");
    for event in events.iter().chain(&told) {
        assert_eq!((&event["actor"], &event["reason"]), (&json!("adèle"), &json!("order 7%")), "{event}");
        assert_eq!(event["correlation_id"], key.to_string(), "{event}");
    }
    assert_eq!(events[0]["command_id"], key.to_string());
    assert_eq!(events[0]["causation_id"], Value::Null);
    assert!(events[0]["traceparent"].as_str().is_some_and(|kept| kept.contains("0af7651916cd43dd8448eb211c80319c")));
    assert!(events[2]["causation_id"].is_string(), "{}", events[2]);
}

#[tokio::test]
async fn a_header_that_cannot_be_understood_is_told_and_never_ignored() {
    let shop = Shop::open().await;
    let (actor, reason) = ("a".repeat(201), "r".repeat(501));
    let path = shop.stock_path("beans");
    let headers = [("docket-actor", actor.as_str()), ("docket-reason", reason.as_str())];
    let both = shop.put_with(Uuid::now_v7(), &path, &headers, json!({"on_hand": 1})).await.refuses(400, "bad-header");
    let told: Vec<String> = both.faults().into_iter().map(|(header, _)| header.to_lowercase()).collect();
    assert_eq!(told, ["docket-actor", "docket-reason"]);
    for broken in ["%", "%4", "%zz", "%ff"] {
        let headers = [("docket-actor", broken)];
        shop.put_with(Uuid::now_v7(), &path, &headers, json!({"on_hand": 1})).await.refuses(400, "bad-header");
    }
    let (actor, reason) = ("%C3%A4".repeat(200), "r".repeat(500));
    let headers = [("docket-actor", actor.as_str()), ("docket-reason", reason.as_str())];
    shop.put_with(Uuid::now_v7(), &path, &headers, json!({"on_hand": 1})).await.is(201);
}

#[tokio::test]
async fn what_created_is_remembered_for_ever_by_what_it_created() {
    let server = Server::start(&[]).await;
    let shop = Shop::at(Arc::new(server));
    shop.count("beans", 5).await;
    let key = Uuid::now_v7();
    let body = reservation(&[("beans", 2)], None);
    let made = shop.post_as(key, &shop.reservations_path(), body.clone()).await.is(201);
    let mut named = body;
    named["reservation_id"] = made.body["reservation_id"].clone();
    // The same id and lines under another key: as it now is; other lines are another promise.
    let again = shop.post(&shop.reservations_path(), named.clone()).await.is(200);
    assert_eq!(again.body, made.body);
    named["lines"] = json!([{"sku": "beans", "quantity": 1}]);
    shop.post(&shop.reservations_path(), named).await.refuses(409, "reservation-already-exists");
    assert_eq!(shop.counters("beans").await, (5, 2, 3));
}

#[tokio::test]
async fn a_second_try_waits_for_the_first_which_still_runs() {
    let shop = Arc::new(Shop::open().await);
    let key = Uuid::now_v7();
    let asking = (0..2).map(|_| {
        let shop = Arc::clone(&shop);
        tokio::spawn(async move { shop.post_as(key, "/v1/payments", payment(100, "tok_slow_700")).await })
    });
    let began = std::time::Instant::now();
    let answers: Vec<_> = futures::future::join_all(asking).await.into_iter().map(|it| it.expect("no panic")).collect();
    assert!(began.elapsed() >= Duration::from_millis(700));
    for answer in &answers {
        assert_eq!(answer.clone().is(201).text("status"), "authorized");
        assert_eq!(answer.body["in_flight"], Value::Null);
    }
    assert_eq!(answers[0].essence(), answers[1].essence());
    assert_eq!(answers.iter().filter(|answer| answer.is_replayed()).count(), 1);
}

#[tokio::test]
async fn a_uuid_v7_older_than_what_is_remembered_is_refused_rather_than_run_again() {
    let shop = Shop::open().await;
    // Of the year 2020.
    let old = Uuid::new_v7(uuid::Timestamp::from_unix_time(1_577_836_800, 0, 0, 0));
    shop.post_as(old, "/v1/orders", shop.order_of("beans", 1, 1, None)).await.refuses(409, "command-expired");
    // Young ones, and ids that tell no time, are taken.
    for young in [Uuid::now_v7(), Uuid::new_v4()] {
        shop.post_as(young, "/v1/orders", shop.order_of("beans", 1, 1, None)).await.is(201);
    }
}
