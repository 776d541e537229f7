//! What an operator does when a row of the read models is wrong, altered behind the product's back: it is found and named,
//! what cannot be folded onto it is set aside, visibly, and a rebuild mends everything.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection};

use crate::a_read_model_is_rebuilt::{docket, told};
use crate::platform::{Server, Shop, Told, id};

/// Alters the file of the read models.
async fn alter(data: &Path, statement: &'static str, bind: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data.join("views.db"));
    let mut connection = options.connect().await.expect("the file is there");
    let altered = sqlx::query(statement).bind(bind).execute(&mut connection).await.expect("it can be altered");
    assert_eq!(altered.rows_affected(), 1, "{statement}");
    connection.close().await.expect("it can be closed");
}

#[tokio::test]
async fn a_row_altered_by_hand_is_named_by_fsck_and_mended_by_a_rebuild() {
    let server = Server::start(&[]).await;
    let data = server.data.path().to_owned();
    let shop = Shop::at(Arc::new(server));
    let mut orders = Vec::new();
    for number in 1..=20 {
        orders.push(shop.post("/v1/orders", shop.order_of("b", 1, number, None)).await.is(201).text("order_id"));
    }
    let altered = orders[7].as_str();
    let stream = format!("order-{altered}");
    assert_eq!(told(&shop, &["fsck", "--key", &stream]).await["rows"]["state"], "equal");
    let change = "UPDATE orders SET doc = json_replace(doc, '$.customer_id', 'mallory') WHERE \"key\" = $1";
    alter(&data, change, altered).await;
    for how in [&["--key", stream.as_str()][..], &["--whole"], &["--sample", "1000"]] {
        let output = docket(&shop, &[&["fsck"], how].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{how:?}");
        let told: Value = serde_json::from_slice(&output.stdout).expect("it is told as JSON");
        let found = &told["rows"]["difference"];
        assert_eq!((&found["table"], &found["key"]), (&json!("orders"), &json!(altered)), "{told}");
        assert_eq!(
            (&found["found"]["customer_id"], &found["expected"]["customer_id"]),
            (&json!("mallory"), &json!("c-17"))
        );
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(altered) && errors.contains("/customer_id"), "{errors}");
    }
    // The rebuilt rows are right, and those in use are not.
    told(&shop, &["projection", "rebuild"]).await;
    assert_eq!(docket(&shop, &["projection", "compare"]).await.status.code(), Some(1));
    told(&shop, &["projection", "switch"]).await;
    assert_eq!(told(&shop, &["fsck", "--whole"]).await["rows"]["state"], "equal");
    assert_eq!(shop.get(&format!("/v1/orders/{altered}")).await.is(200).body["customer_id"], "c-17");

    let shop = Shop::at(Arc::new(shop.server().kill_and_start_again().await));
    assert_eq!(told(&shop, &["fsck", "--whole"]).await["rows"]["state"], "equal");
    let kept = told(&shop, &["projection", "list"]).await;
    assert_eq!(kept["items"][0]["beside"]["state"], "kept", "{kept}");
}

#[tokio::test]
async fn a_parked_stream_is_listed_tried_again_and_dropped_and_never_shown_old_in_silence() {
    let shop = Shop::alone().await;
    let order = shop.post("/v1/orders", shop.order_of("b", 1, 5, None)).await.is(201).text("order_id");
    let path = format!("/v1/orders/{order}");
    let stream = format!("order-{order}");
    shop.get(&path).await.is(200);

    // Nothing can be folded onto a row like this. The process that is started then has nothing of it in memory.
    let server = shop.server();
    let data = server.data.path().to_owned();
    let server = server.kill_and_start_again().await;
    alter(&data, "UPDATE orders SET doc = '{\"odd\":true}' WHERE \"key\" = $1", &order).await;
    let shop = Shop::at(Arc::new(server));
    let cancelled = shop.post(&format!("{path}/cancel"), json!({"reason": "customer"})).await.is(200);
    shop.get(&path).await.says(503, "read-model-parked");
    let listed = told(&shop, &["projection", "parked", "list"]).await;
    let parked = &listed["items"][0];
    assert_eq!((&parked["stream"], &parked["version"], &parked["waiting"]), (&json!(stream), &json!(2), &json!(1)));
    assert_eq!(told(&shop, &["projection", "list"]).await["items"][0]["parked"], 1);

    // It is the row that is wrong: trying again does not help, and says so.
    assert_eq!(docket(&shop, &["projection", "parked", "retry", &stream]).await.status.code(), Some(1));
    shop.get(&path).await.says(503, "read-model-parked");
    let dropping = ["projection", "parked", "drop", &stream, "--because", "ticket-17", "--actor", "ada"];
    let dropped = told(&shop, &dropping).await;
    assert_eq!((&dropped["dropped"]["by"], &dropped["dropped"]["why"]), (&json!("ada"), &json!("ticket-17")));
    let shown = shop.get(&path).await.is(200);
    assert_eq!((shown.header("docket-dropped"), &shown.body), (Some("2"), &json!({"odd": true})));
    // Who asks for what came after is not shown what was before.
    let position = cancelled.header("docket-position").expect("a position").to_owned();
    shop.get_with(&path, &[("docket-min-position", &position)]).await.says(503, "read-model-parked");
    let listed = told(&shop, &["projection", "parked", "list"]).await;
    assert_eq!(listed["items"][0]["dropped"]["by"], "ada");

    // It stays dropped across a restart, and a rebuild folds it again from the start.
    let shop = Shop::at(Arc::new(shop.server().kill_and_start_again().await));
    shop.get(&path).await.is(200);
    told(&shop, &["projection", "rebuild", "--switch"]).await;
    let mended = shop.get_with(&path, &[("docket-min-position", &position)]).await.is(200);
    assert_eq!((&mended.body, mended.header("docket-dropped")), (&cancelled.body, None));
    assert_eq!(told(&shop, &["projection", "parked", "list"]).await["items"], json!([]));
    let nobody = format!("order-{}", id());
    assert_eq!(docket(&shop, &["projection", "parked", "retry", &nobody]).await.status.code(), Some(1));
}
