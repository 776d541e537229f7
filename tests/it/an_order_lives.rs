//! From placing to delivery and back: each station of an order, what it moves in stock and money, every way in which a
//! card can misbehave, and every no that an order can get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kit::Clock;
use kit::shop::{card, line, order};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Server, Shop, Told, at, id, step_of, text};

fn euros(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

#[tokio::test]
async fn an_order_without_payment_is_only_placed_and_waits() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let body = shop.order_of("beans", 2, 1999, None);
    let placed = shop.post_with(Uuid::now_v7(), "/v1/orders", &[("prefer", "wait=5")], body).await.is(201);
    assert_eq!(placed.header("preference-applied"), Some("wait=5"), "with nothing to wait for, at once");
    assert_eq!(placed.header("etag"), Some("\"1\""));
    let shown = &placed.body;
    let id = placed.text("order_id");
    assert_eq!(placed.header("location"), Some(format!("/v1/orders/{id}").as_str()));
    assert_eq!((&shown["status"], &shown["version"]), (&json!("placed"), &json!(1)));
    assert_eq!((&shown["total"], &shown["paid"], &shown["refunded"]), (&euros(3998), &euros(0), &euros(0)));
    assert_eq!(
        (&shown["payment_id"], &shown["saga_id"], &shown["cancellation"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!((&shown["customer_id"], &shown["location_id"]), (&json!("c-17"), &json!(shop.location)));
    assert_eq!(
        shown["lines"],
        json!([{"sku": "beans", "quantity": 2, "unit_price": euros(1999), "location_id": shop.location}])
    );
    assert_eq!(shown["placed_at"], shown["updated_at"]);
    let at = text(&shown["placed_at"]);
    assert!(at.ends_with('Z') && at.len() == "2026-11-21T10:00:00.123456Z".len(), "{at}");
    assert_eq!(shop.get(&format!("/v1/orders/{id}")).await.is(200).body, *shown);
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    shop.get(&format!("/v1/sagas/{id}")).await.says(404, "saga-not-found");
}

#[tokio::test]
async fn checkout_later_confirms_ships_delivers_and_refunds() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let id = shop.post("/v1/orders", shop.order_of("beans", 2, 1999, None)).await.is(201).text("order_id");
    let path = format!("/v1/orders/{id}");
    let checkout = json!({"payment": card("tok_ok")});
    let confirmed =
        shop.post_with(Uuid::now_v7(), &format!("{path}/checkout"), &[("prefer", "wait=20")], checkout).await.is(200);
    assert_eq!(confirmed.text("status"), "confirmed");
    assert_eq!(confirmed.header("preference-applied"), Some("wait=20"));
    assert_eq!(confirmed.body["saga_id"], id, "a checkout's saga id is its order's");
    assert_eq!((&confirmed.body["paid"], &confirmed.body["version"]), (&euros(3998), &json!(3)));
    let payment = confirmed.text("payment_id");
    assert_eq!(&payment[payment.len() - 4..], &id[id.len() - 4..], "it lies where its order lies");
    assert_eq!(shop.counters("beans").await, (8, 0, 8));
    let paid = shop.get(&format!("/v1/payments/{payment}")).await.is(200).body;
    assert_eq!((&paid["status"], &paid["captured"], &paid["order_id"]), (&json!("captured"), &euros(3998), &json!(id)));
    let saga = shop.get(&format!("/v1/sagas/{id}")).await.is(200).body;
    assert_eq!(
        (&saga["state"], &saga["kind"], &saga["order_id"]),
        (&json!("completed"), &json!("checkout"), &json!(id))
    );
    let steps: Vec<_> = saga["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| (text(&step["name"]), text(&step["state"])))
        .collect();
    let names = ["reserve_stock", "authorize_payment", "commit_stock", "capture_payment", "confirm_order"];
    assert_eq!(steps, names.map(|name| at(name, "done")));

    let shipped = shop.post(&format!("{path}/ship"), json!({"carrier": "bike", "tracking": "T-1"})).await.is(200);
    assert_eq!((shipped.text("status"), shipped.header("etag")), ("shipped".to_owned(), Some("\"4\"")));
    assert_eq!(shop.post(&format!("{path}/deliver"), json!({})).await.is(200).text("status"), "delivered");
    for amount in [1000, 2000] {
        shop.post(&format!("{path}/refund"), json!({"amount": euros(amount), "reason": "late"})).await.is(200);
    }
    shop.post(&format!("{path}/refund"), json!({"amount": euros(999), "reason": "late"}))
        .await
        .refuses(409, "refund-exceeds-paid");
    shop.post(&format!("{path}/refund"), json!({"amount": euros(998), "reason": "late"})).await.is(200);
    let refunded = shop.until(&path, |order| order["refunded"] == euros(3998)).await;
    assert_eq!((&refunded["paid"], &refunded["status"]), (&euros(3998), &json!("delivered")));
    assert_eq!(shop.money(&payment).await, [3998, 3998, 0, 3998]);
    shop.post(&format!("{path}/refund"), json!({"amount": euros(1), "reason": "late"}))
        .await
        .refuses(409, "refund-exceeds-paid");
    shop.is_sound().await;
}

#[tokio::test]
async fn every_well_behaved_or_clumsy_card_ends_confirmed_and_paid_once() {
    let shop = Shop::open().await;
    shop.count("beans", 100).await;
    let tokens = [
        "tok_ok",
        "tok_slow_50",
        "tok_flaky_1",
        "tok_flaky_3",
        "tok_lost_answer",
        "tok_twice",
        "tok_capture_fails_1",
        "tok_capture_fails_3",
    ];
    let orders = tokens.map(|token| shop.ordered("beans", 1, 250, token));
    for (order, token) in futures::future::join_all(orders).await.into_iter().zip(tokens) {
        assert_eq!(order.text("status"), "confirmed", "{token}");
        assert_eq!(shop.money(&order.text("payment_id")).await, [250, 250, 0, 0], "{token}");
    }
    let sold = tokens.len() as i64;
    assert_eq!(shop.counters("beans").await, (100 - sold, 0, 100 - sold));
    shop.is_sound().await;
}

#[tokio::test]
async fn every_refused_card_ends_cancelled_with_the_stock_back() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let told = [
        ("tok_declined", "declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_of_nobody", "unknown_token"),
    ];
    for (token, reason) in told {
        let order = shop.ordered("beans", 3, 250, token).await;
        assert_eq!(order.text("status"), "cancelled", "{token}");
        assert_eq!(order.body["cancellation"]["reason"], "payment_declined", "{token}");
        assert_eq!(order.body["paid"], euros(0));
        let payment = shop.get(&format!("/v1/payments/{}", order.text("payment_id"))).await.is(200).body;
        assert_eq!((&payment["status"], &payment["decline"]["reason"]), (&json!("declined"), &json!(reason)));
        assert_eq!(shop.counters("beans").await, (10, 0, 10), "{token}");
        let saga = shop.get(&format!("/v1/sagas/{}", order.text("order_id"))).await.is(200).body;
        assert_eq!(saga["state"], "compensated");
    }
    shop.is_sound().await;
}

#[tokio::test]
async fn a_capture_refused_for_good_returns_the_stock() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let order = shop.ordered("beans", 3, 250, "tok_capture_refused").await;
    assert_eq!(order.text("status"), "cancelled");
    assert_eq!(order.body["cancellation"]["reason"], "payment_declined");
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    let [authorized, captured, voided, refunded] = shop.money(&order.text("payment_id")).await;
    assert_eq!((captured, authorized - voided, refunded), (0, 0, 0), "nothing is held any more");
    let id = order.text("order_id");
    let returned = shop.types(&format!("stock-{}~beans", shop.location)).await;
    assert!(returned.contains(&"StockReturned".to_owned()), "{returned:?}");
    assert_eq!(shop.get(&format!("/v1/sagas/{id}")).await.body["state"], "compensated");
    shop.is_sound().await;
}

#[tokio::test]
async fn a_gateway_that_is_down_is_asked_until_it_is_healed() {
    let shop = Shop::alone().await;
    shop.count("beans", 10).await;
    let order = shop.post("/v1/orders", shop.order_of("beans", 1, 100, Some("tok_down"))).await.is(201);
    let id = order.text("order_id");
    let retrying = shop.saga_until(&id, "retrying").await;
    let step = step_of(&retrying, "authorize_payment");
    assert_eq!(step["state"], "retrying");
    assert!(step["last_error"].is_string() && retrying["next_attempt_at"].is_string(), "{retrying}");
    // Known before the gateway answers: reserved, not yet taken.
    assert_eq!(shop.counters("beans").await, (10, 1, 9));
    let path = format!("/v1/orders/{id}/cancel");
    let impatient =
        shop.post("/v1/orders", shop.order_of("beans", 1, 100, Some("tok_down"))).await.is(201).text("order_id");
    shop.send(reqwest::Method::POST, "/dev/gateway/heal", &[], None).await.is(200);
    let confirmed = shop.until(&format!("/v1/orders/{id}"), |order| order["status"] == "confirmed").await;
    assert_eq!(confirmed["paid"], euros(100));
    shop.until(&format!("/v1/orders/{impatient}"), |order| order["status"] == "confirmed").await;
    shop.post(&path, json!({"reason": "customer"})).await.is(200);
    shop.saga_until(&id, "compensated").await;
    assert_eq!(shop.counters("beans").await, (9, 0, 9));
    shop.is_sound().await;
}

#[tokio::test]
async fn too_little_stock_ends_cancelled_before_any_money_is_asked_for() {
    let shop = Shop::open().await;
    shop.count("beans", 2).await;
    for (sku, quantity) in [("beans", 3), ("nobody-knows-it", 1)] {
        let order = shop.ordered(sku, quantity, 100, "tok_ok").await;
        assert_eq!(order.text("status"), "cancelled");
        assert_eq!(order.body["cancellation"]["reason"], "stock_insufficient");
        if let Some(payment) = order.body["payment_id"].as_str() {
            let held = shop.ledger(payment).await;
            assert!(held.is_none_or(|row| row["authorized"] == 0), "nobody was asked for money");
        }
    }
    assert_eq!(shop.counters("beans").await, (2, 0, 2));
    shop.is_sound().await;
}

#[tokio::test]
async fn a_customer_may_cancel_at_every_stage_before_shipping() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let cancel = async |id: &str, reason: &str| {
        let body = json!({"reason": reason, "detail": "changed my mind"});
        shop.post_with(Uuid::now_v7(), &format!("/v1/orders/{id}/cancel"), &[("prefer", "wait=20")], body).await.is(200)
    };
    let cancelled_for = |order: &Value, reason: &str| {
        assert_eq!(order["status"], "cancelled");
        assert_eq!(order["cancellation"], json!({"reason": reason, "detail": "changed my mind"}));
    };
    // Only placed.
    let id = shop.post("/v1/orders", shop.order_of("beans", 2, 500, None)).await.is(201).text("order_id");
    let cancelled = cancel(&id, "customer").await;
    cancelled_for(&cancelled.body, "customer");
    assert_eq!(cancelled.header("preference-applied"), Some("wait=20"), "nothing to undo");
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    // While the gateway takes its time.
    let id =
        shop.post("/v1/orders", shop.order_of("beans", 2, 500, Some("tok_slow_400"))).await.is(201).text("order_id");
    shop.until(&shop.stock_path("beans"), |stock| stock["reserved"] == 2).await;
    cancelled_for(&cancel(&id, "fraud").await.body, "fraud");
    shop.saga_until(&id, "compensated").await;
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    let payment = shop.get(&format!("/v1/orders/{id}")).await.text("payment_id");
    if let Some(row) = shop.ledger(&payment).await {
        assert_eq!((&row["captured"], &row["authorized"]), (&json!(0), &row["voided"]), "{row}");
    }
    // Confirmed: the goods come back, the money goes back.
    let confirmed = shop.ordered("beans", 2, 500, "tok_ok").await;
    let id = confirmed.text("order_id");
    let cancelled = cancel(&id, "operator").await;
    cancelled_for(&cancelled.body, "operator");
    assert_eq!((&cancelled.body["paid"], &cancelled.body["refunded"]), (&euros(1000), &euros(1000)));
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    assert_eq!(shop.money(&confirmed.text("payment_id")).await, [1000, 1000, 0, 1000]);
    assert_eq!(shop.get(&format!("/v1/sagas/{id}")).await.body["state"], "compensated");
    // Partly refunded before: the rest goes back.
    let confirmed = shop.ordered("beans", 2, 500, "tok_ok").await;
    let id = confirmed.text("order_id");
    shop.post(&format!("/v1/orders/{id}/refund"), json!({"amount": euros(300), "reason": "late"})).await.is(200);
    cancel(&id, "other").await;
    shop.until(&format!("/v1/orders/{id}"), |order| order["refunded"] == euros(1000)).await;
    assert_eq!(shop.money(&confirmed.text("payment_id")).await, [1000, 1000, 0, 1000]);
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    shop.is_sound().await;
}

#[tokio::test]
async fn every_verb_at_the_wrong_time_is_refused_by_its_name() {
    let shop = Shop::open().await;
    shop.count("beans", 100).await;
    let money = json!({"amount": euros(1), "reason": "late"});
    let verbs = |id: &str| {
        let path = |verb: &str| format!("/v1/orders/{id}/{verb}");
        [
            (path("checkout"), json!({"payment": card("tok_ok")}), "order-not-payable"),
            (path("cancel"), json!({"reason": "customer"}), "order-not-cancellable"),
            (path("ship"), json!({}), "order-not-shippable"),
            (path("deliver"), json!({}), "order-not-deliverable"),
            (path("refund"), money.clone(), "order-not-refundable"),
        ]
    };
    for (path, body, _) in verbs(&id()) {
        shop.post(&path, body).await.refuses(404, "order-not-found");
    }
    for (path, body, _) in verbs("no-uuid") {
        shop.post(&path, body).await.refuses(404, "order-not-found");
    }
    let placed = shop.post("/v1/orders", shop.order_of("beans", 1, 100, None)).await.text("order_id");
    let confirmed = shop.ordered("beans", 1, 100, "tok_ok").await.text("order_id");
    let shipped = shop.ordered("beans", 1, 100, "tok_ok").await.text("order_id");
    shop.post(&format!("/v1/orders/{shipped}/ship"), json!({})).await.is(200);
    let delivered = shop.ordered("beans", 1, 100, "tok_ok").await.text("order_id");
    for verb in ["ship", "deliver"] {
        shop.post(&format!("/v1/orders/{delivered}/{verb}"), json!({})).await.is(200);
    }
    let cancelled = shop.ordered("beans", 1, 100, "tok_declined").await.text("order_id");
    let refused: [(&str, &[&str]); 5] = [
        (&placed, &["ship", "deliver", "refund"]),
        (&confirmed, &["checkout", "deliver"]),
        (&shipped, &["checkout", "cancel", "ship"]),
        (&delivered, &["checkout", "cancel", "ship", "deliver"]),
        (&cancelled, &["checkout", "cancel", "ship", "deliver", "refund"]),
    ];
    for (id, refusing) in refused {
        let before = shop.get(&format!("/v1/orders/{id}")).await.is(200);
        for (path, body, code) in verbs(id) {
            if refusing.iter().any(|verb| path.ends_with(verb)) {
                shop.post(&path, body).await.refuses(409, code);
            }
        }
        let after = shop.get(&format!("/v1/orders/{id}")).await.is(200);
        assert_eq!((after.header("etag"), &after.body), (before.header("etag"), &before.body));
    }
}

#[tokio::test]
async fn a_refund_in_another_currency_is_pointed_at() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let order = shop.ordered("beans", 1, 100, "tok_ok").await.text("order_id");
    let body = json!({"amount": {"amount": 1, "currency": "USD"}, "reason": "late"});
    let told = shop.post(&format!("/v1/orders/{order}/refund"), body).await.refuses(422, "invalid-fields");
    assert_eq!(told.faults()[0].0, "/amount/currency");
}

#[tokio::test]
async fn an_order_of_several_locations_reserves_at_each_and_comes_back_from_each() {
    let shop = Shop::open().await;
    let (first, second) = (shop.location.clone(), format!("{}-b", shop.location));
    let there = format!("/v1/stock/{second}/rice");
    shop.count("beans", 10).await;
    shop.put(&there, json!({"on_hand": 5})).await.is(201);
    let body = |rice: u64, token: &str| {
        let mut rice = line("rice", rice, 100);
        rice["location_id"] = json!(second);
        order("c-17", &first, vec![line("beans", 2, 100), rice], Some(token))
    };
    let place = async |rice: u64, token: &str| {
        shop.post_with(Uuid::now_v7(), "/v1/orders", &[("prefer", "wait=20")], body(rice, token)).await.is(201)
    };
    let confirmed = place(1, "tok_ok").await;
    assert_eq!(confirmed.text("status"), "confirmed");
    let id = confirmed.text("order_id");
    let saga = shop.get(&format!("/v1/sagas/{id}")).await.body;
    let mut names: Vec<_> = saga["steps"].as_array().expect("a list").iter().map(|step| text(&step["name"])).collect();
    names.sort();
    let mut wanted = vec!["authorize_payment".to_owned(), "capture_payment".to_owned(), "confirm_order".to_owned()];
    for location in [&first, &second] {
        wanted.extend([format!("commit_stock@{location}"), format!("reserve_stock@{location}")]);
    }
    wanted.sort();
    assert_eq!(names, wanted);
    // Every partition that took part is told.
    let mut written = std::collections::BTreeSet::new();
    for stream in [format!("order-{id}"), format!("stock-{first}~beans"), format!("stock-{second}~rice")] {
        let events = shop.client().list(&format!("/v1/streams/{stream}/events")).await.expect("a list");
        let (partition, _) = text(&events.last().expect("an event")["position"])
            .split_once(':')
            .map(|(p, o)| (p.to_owned(), o.to_owned()))
            .expect("a position");
        written.insert(partition.parse::<u64>().expect("a number"));
    }
    let told: std::collections::BTreeSet<u64> =
        confirmed.positions().into_iter().map(|(partition, _)| partition).collect();
    assert_eq!(told, written);
    // The second place has too little: the first gets its goods back.
    let short = place(50, "tok_ok").await;
    assert_eq!(short.body["cancellation"]["reason"], "stock_insufficient");
    assert_eq!(place(1, "tok_declined").await.body["cancellation"]["reason"], "payment_declined");
    assert_eq!(place(1, "tok_capture_refused").await.text("status"), "cancelled");
    assert_eq!(shop.counters("beans").await, (8, 0, 8));
    let rice = shop.get(&there).await.body;
    assert_eq!((&rice["on_hand"], &rice["reserved"]), (&json!(4), &json!(0)));
    let undone = shop
        .post_with(
            Uuid::now_v7(),
            &format!("/v1/orders/{id}/cancel"),
            &[("prefer", "wait=20")],
            json!({"reason": "customer"}),
        )
        .await
        .is(200);
    assert_eq!(undone.body["refunded"], euros(300));
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    assert_eq!(shop.get(&there).await.body["on_hand"], 5);
    shop.is_sound().await;
}

#[tokio::test]
async fn the_same_sku_on_two_lines_counts_together_and_both_stay() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let place = async |quantities: [u64; 2]| {
        let lines = quantities.map(|quantity| line("beans", quantity, 100)).to_vec();
        let body = order("c-17", &shop.location, lines, Some("tok_ok"));
        shop.post_with(Uuid::now_v7(), "/v1/orders", &[("prefer", "wait=20")], body).await.is(201)
    };
    let refused = place([3, 3]).await;
    assert_eq!(refused.body["cancellation"]["reason"], "stock_insufficient");
    let confirmed = place([2, 3]).await;
    assert_eq!(confirmed.text("status"), "confirmed");
    assert_eq!(confirmed.body["lines"].as_array().map(Vec::len), Some(2));
    assert_eq!(shop.counters("beans").await, (0, 0, 0));
}

#[tokio::test]
async fn without_time_to_wait_the_order_is_told_as_it_is() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let body = shop.order_of("beans", 1, 100, Some("tok_slow_1500"));
    for prefer in ["wait=0", "wait=1"] {
        let placed = shop.post_with(Uuid::now_v7(), "/v1/orders", &[("prefer", prefer)], body.clone()).await.is(201);
        assert_eq!((placed.text("status").as_str(), placed.header("preference-applied")), ("placed", None), "{prefer}");
        assert_eq!(placed.body["saga_id"], placed.body["order_id"]);
    }
    let key = Uuid::now_v7();
    let placed = shop.post_as(key, "/v1/orders", body.clone()).await.is(201);
    assert_eq!(placed.text("status"), "placed");
    // A repeat that wants to wait waits, and is told the order as it then is.
    let again = shop.post_with(key, "/v1/orders", &[("prefer", "wait=20")], body.clone()).await.is(201);
    assert!(again.is_replayed());
    assert_eq!((again.text("status").as_str(), again.header("preference-applied")), ("confirmed", Some("wait=20")));
    let first = shop.post_as(key, "/v1/orders", body).await;
    assert_eq!(first.essence(), placed.essence());
}

#[tokio::test]
async fn the_positions_of_a_settled_checkout_let_every_read_see_it_all() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let order = shop.ordered("beans", 1, 100, "tok_ok").await;
    let position = order.header("docket-position").expect("positions").to_owned();
    let headers = [("docket-min-position", position.as_str())];
    let stock = shop.get_with(&shop.stock_path("beans"), &headers).await.is(200).body;
    assert_eq!(stock["on_hand"], 4);
    let listed = shop.get_with(&format!("/v1/sagas?order_id={}", order.text("order_id")), &headers).await.is(200).body;
    assert_eq!(listed["items"][0]["state"], "completed");
}

#[tokio::test]
async fn an_order_is_paid_for_once_at_a_time() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let id =
        shop.post("/v1/orders", shop.order_of("beans", 1, 100, Some("tok_slow_500"))).await.is(201).text("order_id");
    let path = format!("/v1/orders/{id}/checkout");
    shop.post(&path, json!({"payment": card("tok_ok")})).await.refuses(409, "order-not-payable");
    shop.until(&format!("/v1/orders/{id}"), |order| order["status"] == "confirmed").await;
    shop.post(&path, json!({"payment": card("tok_ok")})).await.refuses(409, "order-not-payable");
    assert_eq!(shop.counters("beans").await, (4, 0, 4));
}

#[tokio::test]
async fn a_cancelled_checkout_whose_gateway_is_down_has_its_stock_back_and_waits_for_the_void() {
    let shop = Shop::alone().await;
    shop.count("beans", 5).await;
    let id = shop.post("/v1/orders", shop.order_of("beans", 2, 100, Some("tok_down"))).await.is(201).text("order_id");
    shop.saga_until(&id, "retrying").await;
    shop.post(&format!("/v1/orders/{id}/cancel"), json!({"reason": "customer"})).await.is(200);
    shop.until(&shop.stock_path("beans"), |stock| stock["available"] == 5).await;
    shop.saga_until(&id, "stuck-compensating").await;
    let payment = shop.get(&format!("/v1/orders/{id}")).await.text("payment_id");
    assert_eq!(shop.ledger(&payment).await, None, "nobody has reached it");
    // Started anew it knows nothing of the payment, and is as far away.
    let shop = Shop::at(Arc::new(shop.server().kill_and_start_again().await));
    let attempts = |saga: &Value| step_of(saga, "authorize_payment")["attempts"].as_u64().expect("a number");
    let before = attempts(&shop.get(&format!("/v1/sagas/{id}")).await.body);
    shop.until(&format!("/v1/sagas/{id}"), |saga| attempts(saga) > before).await;
    assert_eq!(shop.get(&format!("/v1/payments/{payment}")).await.body["in_flight"], "void");
    assert_eq!(shop.ledger(&payment).await, None, "nobody has reached it");
    shop.is_sound().await;
    shop.send(reqwest::Method::POST, "/dev/gateway/heal", &[], None).await.is(200);
    shop.saga_until(&id, "compensated").await;
    assert_eq!(shop.get(&format!("/v1/payments/{payment}")).await.body["status"], "voided");
    assert_eq!(shop.money(&payment).await, [0, 0, 0, 0], "nothing came late");
    shop.is_sound().await;
}

/// Microseconds from one time to another, less than a day apart.
fn micros_between(earlier: &Value, later: &Value) -> u64 {
    const DAY: u64 = 24 * 60 * 60 * 1_000_000;
    let of_day = |time: &Value| {
        // 2026-11-21T13:42:09.474140Z
        let time = text(time);
        let digits: String = time[11..].chars().filter(char::is_ascii_digit).collect();
        let number = |from: usize, to: usize| digits[from..to].parse::<u64>().expect("digits");
        ((number(0, 2) * 60 + number(2, 4)) * 60 + number(4, 6)) * 1_000_000 + number(6, 12)
    };
    (of_day(later) + DAY - of_day(earlier)) % DAY
}

#[tokio::test]
async fn a_gateway_that_stays_down_for_five_minutes_ends_the_order_as_payment_unreachable() {
    let clock = Clock::new();
    // Without a clock that can be set it takes the five minutes that it takes.
    let within = Duration::from_secs(if clock.can_be_set() { 30 } else { 330 });
    let began = Instant::now();
    let shop = Shop::at(Arc::new(Server::start_by(&clock).await));
    shop.count("beans", 5).await;
    let id = shop.post("/v1/orders", shop.order_of("beans", 2, 100, Some("tok_down"))).await.is(201).text("order_id");
    let (order, saga) = (format!("/v1/orders/{id}"), format!("/v1/sagas/{id}"));
    let attempts = |saga: &Value| step_of(saga, "authorize_payment")["attempts"].as_u64().expect("a number");
    // As if ten seconds had passed between tries, which is the longest wait.
    for (number, ahead_s) in (5..=9).zip((0..).step_by(10)) {
        clock.set_ahead(Duration::from_secs(ahead_s));
        shop.until(&saga, |saga| attempts(saga) >= number).await;
    }
    assert_eq!(shop.counters("beans").await, (5, 2, 3), "promised meanwhile");
    // Four minutes and a half after it was asked.
    clock.set_ahead(Duration::from_secs(270).saturating_sub(began.elapsed()));
    let retrying = shop.until(&saga, |saga| attempts(saga) >= 10).await;
    assert_eq!((&retrying["state"], &shop.get(&order).await.body["status"]), (&json!("retrying"), &json!("placed")));
    clock.set_ahead(Duration::from_secs(301));
    let cancelled = shop.until_within(within, &order, |order| order["status"] == "cancelled").await;
    assert_eq!(cancelled["cancellation"], json!({"reason": "payment_unreachable", "detail": null}));
    shop.until(&shop.stock_path("beans"), |stock| stock["available"] == 5).await;

    let events = async |stream: String| {
        shop.client().list(&format!("/v1/streams/{stream}/events")).await.unwrap_or_else(|why| panic!("{why}"))
    };
    let asked = &events(format!("payment-{}", text(&cancelled["payment_id"]))).await[0]["recorded_at"];
    let ended = &cancelled["updated_at"];
    assert!(micros_between(asked, ended) >= 300_000_000, "given up at {ended}, asked for at {asked}");
    let events = events(format!("checkout-{id}")).await;
    let called_off = events.iter().position(|event| event["type"] == "CheckoutCompensationStarted").expect("an event");
    let waits: Vec<u64> = events[..called_off]
        .iter()
        .filter(|event| event["type"] == "CheckoutStepRetried")
        .inspect(|event| assert!(micros_between(asked, &event["recorded_at"]) < 300_000_000, "too late: {event}"))
        .map(|event| micros_between(&event["recorded_at"], &event["data"]["next_attempt_at"]) / 1_000)
        .collect();
    assert_eq!(waits[..8], [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000]);
    assert!(waits[8..].iter().all(|wait| *wait == 10_000), "{waits:?}");

    shop.send(reqwest::Method::POST, "/dev/gateway/heal", &[], None).await.is(200);
    shop.saga_until(&id, "compensated").await;
    shop.is_sound().await;
}

#[tokio::test]
async fn a_free_order_is_confirmed_without_money() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let order = shop.ordered("beans", 1, 0, "tok_ok").await;
    assert_eq!((order.text("status").as_str(), &order.body["paid"]), ("confirmed", &euros(0)), "{}", order.body);
    let id = order.text("order_id");
    shop.post(&format!("/v1/orders/{id}/refund"), json!({"amount": euros(1), "reason": "late"}))
        .await
        .refuses(409, "order-not-refundable");
    shop.is_sound().await;
}

#[tokio::test]
async fn what_a_customer_orders_settles_although_the_process_is_killed() {
    let shop = Shop::alone().await;
    shop.count("beans", 50).await;
    let location = shop.location.clone();
    let mut orders = Vec::new();
    for token in ["tok_slow_300", "tok_flaky_2", "tok_lost_answer", "tok_declined", "tok_capture_fails_2", "tok_ok"] {
        let body = shop.order_of("beans", 1, 100, Some(token));
        orders.push(shop.post("/v1/orders", body).await.is(201).text("order_id"));
    }
    let server = shop.server().kill_and_start_again().await;
    let shop = Shop::at(Arc::new(server));
    let mut sold = 0;
    for id in orders {
        let settled = shop.until(&format!("/v1/orders/{id}"), |order| order["status"] != "placed").await;
        sold += i64::from(settled["status"] == "confirmed");
        shop.until(&format!("/v1/sagas/{id}"), |saga| {
            ["completed", "compensated"].contains(&saga["state"].as_str().unwrap_or_default())
        })
        .await;
    }
    assert_eq!(sold, 5);
    let stock = shop.get(&format!("/v1/stock/{location}/beans")).await.is(200).body;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(45), &json!(0)));
    shop.is_sound().await;
}
