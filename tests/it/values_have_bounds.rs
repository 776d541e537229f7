//! What may be said, to its bounds and one beyond: all faults of a body at once, each at its place, and nothing accepted
//! that is not understood.

use kit::shop::{line, order, reservation};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Shop, Told, at, id};

fn euros(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

fn places(reply: &kit::Reply) -> Vec<String> {
    reply.faults().into_iter().map(|(place, _)| place).collect()
}

#[tokio::test]
async fn all_faults_of_an_order_are_told_at_once_each_at_its_place() {
    let shop = Shop::open().await;
    let body = json!({
        "order_id": "x", "location_id": "..", "surprise": 1, "a/b~c": 2,
        "lines": [
            {"sku": "beans", "quantity": 0, "unit_price": {"amount": 1, "currency": "EUR"}},
            {"sku": "be ans", "quantity": 1.5, "unit_price": {"amount": -1, "currency": "EURO"}},
            {"quantity": "2", "unit_price": {"amount": 1, "currency": "USD"}, "note": "x"},
            7,
        ],
        "payment": {"method": "cash"},
    });
    let told = shop.post("/v1/orders", body).await.refuses(422, "invalid-fields");
    let wanted = [
        "/a~1b~0c",
        "/customer_id",
        "/lines/0/quantity",
        "/lines/1/quantity",
        "/lines/1/sku",
        "/lines/1/unit_price/amount",
        "/lines/1/unit_price/currency",
        "/lines/2/note",
        "/lines/2/quantity",
        "/lines/2/sku",
        "/lines/2/unit_price/currency",
        "/lines/3",
        "/location_id",
        "/order_id",
        "/payment/method",
        "/payment/token",
        "/surprise",
    ];
    assert_eq!(places(&told), wanted, "{}", told.body);
    let codes = told.faults();
    for fault in [
        at("/customer_id", "missing"),
        at("/surprise", "unknown-field"),
        at("/lines/0/quantity", "out-of-range"),
        at("/lines/2/quantity", "wrong-type"),
        at("/lines/1/unit_price/currency", "unknown-currency"),
    ] {
        assert!(codes.contains(&fault), "{fault:?} in {codes:?}");
    }
    for error in told.body["errors"].as_array().expect("a list") {
        assert!(error["detail"].is_string(), "{error}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_object_is_pointed_at_as_a_whole() {
    let shop = Shop::open().await;
    for body in [json!([]), json!("x"), json!(7), Value::Null, json!(true)] {
        let told = shop.post("/v1/orders", body).await.refuses(422, "invalid-fields");
        assert_eq!(told.faults(), [at("", "wrong-type")]);
    }
}

#[tokio::test]
async fn two_hundred_lines_are_taken_and_one_more_is_not() {
    let shop = Shop::open().await;
    let lines = |count: usize| (0..count).map(|number| line(&format!("sku-{number}"), 1, 1)).collect::<Vec<_>>();
    shop.post("/v1/orders", order("c", &shop.location, lines(200), None)).await.is(201);
    for count in [0, 201] {
        let told = shop
            .post("/v1/orders", order("c", &shop.location, lines(count), None))
            .await
            .refuses(422, "invalid-fields");
        assert_eq!(told.faults(), [at("/lines", "wrong-length")]);
    }
    shop.count("beans", 1_000).await;
    let promised = |count: usize| reservation(&vec![("beans", 1); count], None);
    shop.post(&shop.reservations_path(), promised(200)).await.is(201);
    let told = shop.post(&shop.reservations_path(), promised(201)).await.refuses(422, "invalid-fields");
    assert_eq!(told.faults(), [at("/lines", "wrong-length")]);
}

#[tokio::test]
async fn numbers_are_taken_at_their_bounds_and_not_beyond() {
    let shop = Shop::open().await;
    let beans = shop.stock_path("beans");
    shop.count("beans", 0).await;
    let trillion = 1_000_000_000_000_i64;
    let refused = async |method: Method, path: &str, body: Value, place: &str| {
        let reply =
            shop.send(method, path, &[("idempotency-key", &id())], Some(&body)).await.refuses(422, "invalid-fields");
        assert_eq!(places(&reply), [place], "{path} {body}");
    };
    for on_hand in [json!(-1), json!(trillion + 1), json!(1e30), json!("1"), json!(1.5)] {
        refused(Method::PUT, &beans, json!({"on_hand": on_hand}), "/on_hand").await;
    }
    shop.put(&beans, json!({"on_hand": trillion})).await.is(200);
    shop.put(&beans, json!({"on_hand": 0})).await.is(200);
    shop.post(&format!("{beans}/receive"), json!({"quantity": 1_000_000})).await.is(200);
    for quantity in [0, 1_000_001, -1] {
        refused(Method::POST, &format!("{beans}/receive"), json!({"quantity": quantity}), "/quantity").await;
        refused(
            Method::POST,
            &shop.reservations_path(),
            json!({"lines": [{"sku": "beans", "quantity": quantity}]}),
            "/lines/0/quantity",
        )
        .await;
        refused(Method::POST, "/v1/orders", json!({"customer_id": "c", "location_id": "l", "lines": [{"sku": "b", "quantity": quantity, "unit_price": euros(1)}]}), "/lines/0/quantity").await;
    }
    for delta in [-1_000_000, 1_000_000] {
        shop.post(&format!("{beans}/adjust"), json!({"delta": delta, "reason": "found"})).await.is(200);
    }
    for delta in [0, 1_000_001, -1_000_001] {
        refused(Method::POST, &format!("{beans}/adjust"), json!({"delta": delta, "reason": "found"}), "/delta").await;
    }
    for seconds in [0, 604_801] {
        refused(Method::POST, &shop.reservations_path(), reservation(&[("beans", 1)], Some(seconds)), "/expires_in_s")
            .await;
    }
    shop.post(&shop.reservations_path(), reservation(&[("beans", 1)], Some(604_800))).await.is(201);
    for amount in [0, trillion + 1, -5] {
        refused(
            Method::POST,
            "/v1/payments",
            json!({"amount": euros(amount), "method": "card", "token": "tok_ok"}),
            "/amount/amount",
        )
        .await;
    }
    for amount in [1, trillion] {
        shop.post("/v1/payments", kit::shop::payment(amount, "tok_ok")).await.is(201);
    }
    for price in [-1, trillion + 1] {
        refused(Method::POST, "/v1/orders", shop.order_of("beans", 1, price, None), "/lines/0/unit_price/amount").await;
    }
    for price in [0, trillion] {
        shop.post("/v1/orders", shop.order_of("beans", 1, price, None)).await.is(201);
    }
}

#[tokio::test]
async fn an_orders_total_stays_below_two_to_the_53rd() {
    let shop = Shop::open().await;
    // 9,007,199,254,740,991 = 2⁵³ − 1 in two lines.
    let lines = |last: i64| vec![line("a", 9_007, 1_000_000_000_000), line("b", 1, 199_254_740_000 + last)];
    let most = shop.post("/v1/orders", order("c", &shop.location, lines(991), None)).await.is(201);
    assert_eq!(most.body["total"]["amount"], 9_007_199_254_740_991_i64);
    let told =
        shop.post("/v1/orders", order("c", &shop.location, lines(992), None)).await.refuses(422, "invalid-fields");
    assert_eq!(places(&told), ["/lines"]);
}

#[tokio::test]
async fn every_differing_currency_is_pointed_at() {
    let shop = Shop::open().await;
    let lines = ["EUR", "USD", "EUR", "JPY"]
        .map(|currency| json!({"sku": "b", "quantity": 1, "unit_price": {"amount": 1, "currency": currency}}));
    let told =
        shop.post("/v1/orders", order("c", &shop.location, lines.to_vec(), None)).await.refuses(422, "invalid-fields");
    assert_eq!(places(&told), ["/lines/1/unit_price/currency", "/lines/3/unit_price/currency"]);
    for currency in ["eur", "EURO", "XX", ""] {
        let body = json!({"amount": {"amount": 1, "currency": currency}, "method": "card", "token": "tok_ok"});
        let told = shop.post("/v1/payments", body).await.refuses(422, "invalid-fields");
        assert_eq!(told.faults(), [at("/amount/currency", "unknown-currency")], "{currency}");
    }
}

#[tokio::test]
async fn names_are_of_sixty_four_plain_characters() {
    let shop = Shop::open().await;
    let longest = "Az09._-x".repeat(8);
    assert_eq!(longest.len(), 64);
    shop.post("/v1/orders", order(&longest, &longest, vec![line(&longest, 1, 1)], None)).await.is(201);
    for name in ["", ".", "..", "reservations", "history", "a b", "ä", "a/b", "a~b", &"x".repeat(65)] {
        let told = shop
            .post("/v1/orders", order(name, name, vec![line(name, 1, 1)], None))
            .await
            .refuses(422, "invalid-fields");
        assert_eq!(places(&told), ["/customer_id", "/lines/0/sku", "/location_id"], "{name}");
    }
}

#[tokio::test]
async fn texts_are_of_two_hundred_characters_without_controls() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let adjust = format!("{}/adjust", shop.stock_path("beans"));
    shop.post(&adjust, json!({"delta": 1, "reason": "ü".repeat(200)})).await.is(200);
    for reason in ["ü".repeat(201), "a\nb".to_owned(), "\u{0}".to_owned(), "\u{9f}".to_owned()] {
        let told = shop.post(&adjust, json!({"delta": 1, "reason": reason})).await.refuses(422, "invalid-fields");
        assert_eq!(places(&told), ["/reason"]);
    }
    let order = shop.post("/v1/orders", shop.order_of("beans", 1, 1, None)).await.text("order_id");
    let told =
        shop.post(&format!("/v1/orders/{order}/cancel"), json!({"reason": "bored", "detail": "x".repeat(201)})).await;
    assert_eq!(places(&told.refuses(422, "invalid-fields")), ["/detail", "/reason"]);
    // These reasons are the checkout's to give.
    for reason in ["stock_insufficient", "payment_declined", "payment_unreachable"] {
        let told = shop.post(&format!("/v1/orders/{order}/cancel"), json!({"reason": reason})).await;
        assert_eq!(places(&told.refuses(422, "invalid-fields")), ["/reason"]);
    }
    let told = shop.post(&format!("/v1/orders/{order}/ship"), json!({"carrier": "\t", "tracking": 7, "to": "x"})).await;
    assert_eq!(places(&told.refuses(422, "invalid-fields")), ["/carrier", "/to", "/tracking"]);
    let told = shop.post(&format!("/v1/orders/{order}/deliver"), json!({"to": "x"})).await;
    assert_eq!(told.refuses(422, "invalid-fields").faults(), [at("/to", "unknown-field")]);
    let told = shop
        .post(&format!("/v1/orders/{order}/checkout"), json!({"payment": {"method": "card", "token": 7, "cvc": "1"}}))
        .await;
    assert_eq!(places(&told.refuses(422, "invalid-fields")), ["/payment/cvc", "/payment/token"]);
}

#[tokio::test]
async fn a_body_may_have_256_kib_and_a_depth_of_32() {
    let shop = Shop::open().await;
    let path = shop.stock_path("beans");
    let send = async |body: Vec<u8>| {
        let key = id();
        let headers = [("idempotency-key", key.as_str()), ("content-type", "application/json")];
        shop.client().send_bytes(Method::PUT, &path, &headers, body).await.expect("an answer")
    };
    let padded = |length: usize| {
        let mut body = br#"{"on_hand":1}"#.to_vec();
        body.resize(length, b' ');
        body
    };
    send(padded(256 * 1024)).await.is(201);
    send(padded(256 * 1024 + 1)).await.refuses(413, "body-too-large");
    send(padded(1024 * 1024)).await.refuses(413, "body-too-large");
    // The outermost object is 1.
    let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1)).into_bytes();
    send(nested(32)).await.refuses(422, "invalid-fields");
    send(nested(33)).await.refuses(400, "malformed-body");
    send(nested(100_000)).await.refuses(400, "malformed-body");
}

#[tokio::test]
async fn what_is_not_json_is_not_taken() {
    let shop = Shop::open().await;
    let path = shop.stock_path("beans");
    let send = async |headers: &[(&str, &str)], body: &[u8]| {
        let key = id();
        let headers = [&[("idempotency-key", key.as_str())], headers].concat();
        shop.client().send_bytes(Method::PUT, &path, &headers, body.to_vec()).await.expect("an answer")
    };
    let json = ("content-type", "application/json");
    for malformed in [
        &b""[..],
        b"{",
        b"{\"on_hand\":1}x",
        b"{'on_hand':1}",
        b"{\"on_hand\":1,}",
        b"\xff",
        b"{\"on_hand\":NaN}",
        b"{\"on_hand\":1,\"on_hand\":2}",
    ] {
        send(&[json], malformed).await.refuses(400, "malformed-body");
    }
    let body = br#"{"on_hand":1}"#;
    for media in [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "json",
    ] {
        send(&[("content-type", media)], body).await.refuses(415, "unsupported-media-type");
    }
    send(&[], body).await.refuses(415, "unsupported-media-type");
    for encoding in ["gzip", "br", "identity"] {
        send(&[json, ("content-encoding", encoding)], body).await.refuses(415, "unsupported-media-type");
    }
    send(&[("content-type", "Application/JSON; charset=UTF-8")], body).await.is(201);
    send(&[("content-type", "application/merge-patch+json")], body).await.is(200);
}

#[tokio::test]
async fn unknown_and_malformed_parameters_are_refused_by_name() {
    let shop = Shop::open().await;
    let order = shop.post("/v1/orders", shop.order_of("b", 1, 1, None)).await.text("order_id");
    let told = shop.get("/v1/orders?limit=0&stauts=placed&status=odd&placed_after=yesterday&customer_id=%C3%A4").await;
    let told = told.says(422, "invalid-fields");
    assert_eq!(places(&told), ["customer_id", "limit", "placed_after", "status", "stauts"]);
    assert!(told.body["errors"][0]["parameter"].is_string() && told.body["outcome"].is_null(), "{}", told.body);
    for (query, parameter) in [
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("customer_id=%ff", "customer_id"),
        ("customer_id=a%00b", "customer_id"),
        ("customer_id=%zz", "customer_id"),
        ("customer_id=a&customer_id=b", "customer_id"),
    ] {
        assert_eq!(
            places(&shop.get(&format!("/v1/orders?{query}")).await.says(422, "invalid-fields")),
            [parameter],
            "{query}"
        );
    }
    for path in [
        format!("/v1/orders/{order}?x=1"),
        format!("/v1/stock/{}?x=1", shop.location),
        "/v1/sagas?x=1".to_owned(),
        "/v1/streams?x=1".to_owned(),
        format!("/v1/streams/order-{order}/events?x=1"),
        "/v1/events?x=1".to_owned(),
        format!("/v1/commands/{order}?x=1"),
    ] {
        assert_eq!(places(&shop.get(&path).await.says(422, "invalid-fields")), ["x"], "{path}");
    }
    for limit in [1, 500] {
        shop.get(&format!("/v1/orders?limit={limit}")).await.is(200);
    }
    // On a command too.
    let told = shop
        .put(&format!("{}?force=1", shop.stock_path("b")), json!({"on_hand": 1}))
        .await
        .refuses(422, "invalid-fields");
    assert_eq!(places(&told), ["force"]);
    let told = shop.post("/v1/orders?dry_run=1", json!({"lines": []})).await.refuses(422, "invalid-fields");
    assert!(places(&told).contains(&"dry_run".to_owned()), "{}", told.body);
}

#[tokio::test]
async fn an_id_may_come_in_any_case_and_goes_out_in_lower() {
    let shop = Shop::open().await;
    let order = shop.post("/v1/orders", shop.order_of("b", 1, 1, None)).await.text("order_id");
    assert_eq!(order, order.to_lowercase());
    for spelling in [order.to_uppercase(), order.clone()] {
        assert_eq!(shop.get(&format!("/v1/orders/{spelling}")).await.is(200).text("order_id"), order);
    }
    for spelling in [
        "x".to_owned(),
        order.replace('-', ""),
        format!("{{{order}}}"),
        format!("urn:uuid:{order}"),
        format!("%20{order}"),
        "%ff".to_owned(),
    ] {
        let reply = shop.get(&format!("/v1/orders/{spelling}")).await;
        assert_eq!(reply.status, 404, "{spelling} {reply:?}");
    }
    let version = Uuid::parse_str(&order).expect("a UUID").get_version_num();
    assert!([5, 7].contains(&version), "{version}");
}
