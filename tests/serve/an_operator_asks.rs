//! One node by its configuration: what it refuses, what it serves, what it does not, and how it ends.

use std::path::Path;
use std::process::{Command, Output};

use kit::docket::binary;
use kit::{Docket, shop};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// Runs a command of the command line to its end.
pub(crate) fn docket(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary runs")
}

/// What a command said on both streams.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn set(folder: &Path) -> [String; 2] {
    ["listen.http=127.0.0.1:0".to_owned(), format!("data={}", folder.display())]
}

/// A node on an embedded log with these settings beside.
async fn node(folder: &Path, more: &[&str]) -> Docket {
    let set = set(folder);
    let mut arguments = vec![];
    for one in set.iter().map(String::as_str).chain(more.iter().copied()) {
        arguments.extend(["--set", one]);
    }
    Docket::serve(&arguments).await.unwrap_or_else(|fault| panic!("{fault}"))
}

#[test]
fn a_slip_in_the_configuration_is_told_with_what_was_meant_and_where_it_is() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("docket.toml");
    std::fs::write(&file, "roles = ['query', 'cook']\n[log]\nknd = 'kafka'\n").expect("a file");
    let output = docket(&["serve", "--config", &file.display().to_string(), "--set", "limits.connections=0"]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    for told in [
        "log.knd: no such key; did you mean log.kind? (set by file",
        "roles: must be a list of",
        "(set by --set limits.connections)",
    ] {
        assert!(said.contains(told), "{told}\n{said}");
    }
}

#[test]
fn what_is_shown_of_a_configuration_tells_its_sources_and_no_password() {
    let output = Command::new(binary())
        .args(["config", "show", "--sources", "--output", "json", "--set", "node.name=a"])
        .env("DOCKET_READ_STORE__URL", "postgres://me:hush@db/docket")
        .output()
        .expect("the binary runs");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |key: &str| {
        let items = shown["items"].as_array().expect("items");
        items.iter().find(|item| item["key"] == key).expect("the key").clone()
    };
    assert_eq!(of("node.name")["source"], "--set node.name");
    assert_eq!(of("read_store.url")["source"], "DOCKET_READ_STORE__URL");
    assert_eq!(of("read_store.url")["value"], "postgres://me:***@db/docket");
    assert_eq!(of("log.kind")["source"], "default");
    assert!(!said(&output).contains("hush"));
}

#[tokio::test]
async fn an_order_settles_and_outlives_the_process() {
    let folder = TempDir::new().expect("a folder");
    let node_1 = node(folder.path(), &[]).await;
    let client = node_1.client();
    client.put("/v1/stock/shop-1/beans", Uuid::now_v7(), &shop::count(10)).await.expect("stock");
    let body = shop::order("c-1", "shop-1", vec![shop::line("beans", 2, 500)], Some("tok_ok"));
    let key = Uuid::now_v7().to_string();
    let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=10")];
    let placed = client.send(Method::POST, "/v1/orders", &headers, Some(&body)).await.expect("an answer");
    assert_eq!((placed.status, placed.body["status"].as_str()), (201, Some("confirmed")), "{}", placed.body);
    node_1.terminate().await;
    let node_1 = node(folder.path(), &[]).await;
    let path = format!("/v1/orders/{}", placed.body["order_id"].as_str().expect("an id"));
    assert_eq!(node_1.client().get(&path).await.expect("an answer").body, placed.body);
    let repeated = node_1.client().send(Method::POST, "/v1/orders", &headers, Some(&body)).await.expect("an answer");
    assert!(repeated.is_replayed());
    node_1.terminate().await;
}

#[tokio::test]
async fn what_is_for_tests_is_served_only_where_it_is_asked_for() {
    let folder = TempDir::new().expect("a folder");
    let quiet = node(folder.path(), &[]).await;
    for path in ["/dev/invariants", "/dev/gateway/ledger"] {
        assert_eq!(quiet.client().get(path).await.expect("an answer").status, 404, "{path}");
    }
    quiet.terminate().await;
    let open = node(folder.path(), &["dev_routes=true"]).await;
    assert_eq!(open.client().get("/dev/invariants").await.expect("an answer").body["violations"], json!([]));
    open.terminate().await;
}

#[tokio::test]
async fn a_node_without_the_query_role_says_so_instead_of_denying_what_is_there() {
    let folder = TempDir::new().expect("a folder");
    let node = node(folder.path(), &["roles=command,projection"]).await;
    let client = node.client();
    let key = Uuid::now_v7();
    let counted = client.put("/v1/stock/shop-1/beans", key, &shop::count(10)).await.expect("an answer");
    assert_eq!(counted.status, 201);
    for path in ["/v1/stock/shop-1/beans", "/v1/orders", "/v1/streams", "/v1/events"] {
        let reply = client.get(path).await.expect("an answer");
        assert_eq!((reply.status, reply.code()), (421, Some("not-served-here")), "{path}");
    }
    let known = client.get(&format!("/v1/commands/{key}")).await.expect("an answer");
    assert_eq!(known.body["items"][0]["outcome"], "accepted");
    let nowhere = client.post("/v1/nowhere", Uuid::now_v7(), &json!({})).await.expect("an answer");
    assert_eq!(nowhere.code(), Some("no-such-route"));
    assert_eq!(client.get("/problems/not-served-here").await.expect("an answer").status, 200);
    node.terminate().await;
}

#[test]
fn the_doctor_finds_what_a_node_would_stumble_over() {
    let folder = TempDir::new().expect("a folder");
    let data = format!("data={}", folder.path().display());
    let well = docket(&["doctor", "--output", "json", "--set", &data, "--set", "listen.http=127.0.0.1:0"]);
    assert_eq!(well.status.code(), Some(0), "{}", said(&well));
    let ill = docket(&[
        "doctor",
        "--output",
        "json",
        "--set",
        &data,
        "--set",
        "read_store.url=postgres://me:hush@127.0.0.1:1/docket",
    ]);
    assert_eq!(ill.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&ill.stdout).expect("JSON");
    let failed: Vec<&Value> =
        found["items"].as_array().expect("items").iter().filter(|item| item["state"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{found}");
    assert_eq!(failed[0]["check"], "postgres");
    assert!(failed[0]["mend"].is_string());
    assert!(!said(&ill).contains("hush"));
}
