//! The process itself: how it starts, what it says of itself, what it refuses, how it logs and counts, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kit::{Client, Docket};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::platform::{Server, Shop, Told};

/// Longest that a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the binary to its end.
fn run(arguments: &[&str]) -> Output {
    let mut child = spawn(arguments);
    let began = Instant::now();
    while child.try_wait().expect("a child can be asked").is_none() {
        if began.elapsed() > PATIENCE {
            // It serves although it should have refused.
            let _ = child.kill();
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("its output can be read")
}

fn spawn(arguments: &[&str]) -> Child {
    Command::new(kit::docket::binary())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Sends SIGTERM and gives the exit code.
fn terminate(child: &mut Child) -> Option<i32> {
    kill_process(Pid::from_child(child), Signal::TERM).expect("a running child can be signalled");
    child.wait().expect("a child can be waited for").code()
}

#[tokio::test]
async fn it_says_that_it_lives_and_is_ready_and_what_it_is() {
    let shop = Shop::open().await;
    assert_eq!(shop.get("/livez").await.is(200).text, "ok\n");
    let ready = shop.get("/readyz?verbose").await.is(200);
    assert!(ready.text.ends_with("ready\n") && ready.text.contains("commands"), "{}", ready.text);
    shop.get("/readyz").await.is(200);
    let version = shop.get("/version").await.is(200).body;
    assert_eq!((&version["name"], &version["version"]), (&json!("docket"), &json!(env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn it_counts_commands_appends_groups_lag_and_sagas() {
    let shop = Shop::alone().await;
    shop.count("b", 10).await;
    shop.ordered("b", 1, 100, "tok_ok").await;
    shop.ordered("b", 100, 100, "tok_ok").await;
    shop.post(&format!("{}/receive", shop.stock_path("nothing")), json!({"quantity": 1}))
        .await
        .refuses(404, "stock-not-found");
    shop.until("/v1/sagas?state=completed,compensated", |page| {
        page["items"].as_array().is_some_and(|items| items.len() == 2)
    })
    .await;
    let metrics = shop.get("/metrics").await.is(200);
    assert!(metrics.header("content-type").is_some_and(|media| media.starts_with("text/plain; version=0.0.4")));
    let value = |name: &str| {
        let line = metrics.text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("{name} in\n{}", metrics.text));
        line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).expect("a number")
    };
    assert!(value("docket_commands_total{outcome=\"accepted\"}") >= 3.0);
    assert!(value("docket_commands_total{outcome=\"rejected\"}") >= 1.0);
    assert!(value("docket_append_seconds_count") >= 1.0 && value("docket_append_seconds_sum") > 0.0);
    assert!(value("docket_group_records_count") >= 1.0);
    assert!(value("docket_sagas{state=\"completed\"}") == 1.0 && value("docket_sagas{state=\"compensated\"}") == 1.0);
    for name in ["docket_projection_lag_events", "docket_projection_lag_seconds"] {
        assert!(metrics.text.lines().any(|line| line.starts_with(name)), "{name} in\n{}", metrics.text);
    }
    for line in metrics.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.rsplit(' ').next().is_some_and(|number| number.parse::<f64>().is_ok()), "{line}");
    }
}

#[test]
fn it_greets_in_a_few_lines_logs_json_lines_and_ends_with_0() {
    let data = TempDir::new().expect("a folder");
    let mut child =
        spawn(&["dev", "--listen", "127.0.0.1:0", "--data", data.path().to_str().expect("UTF-8"), "--log", "json"]);
    let mut greeting = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let first = greeting.next().expect("a line").expect("text");
    assert!(first.starts_with("docket ") && first.contains(data.path().to_str().expect("UTF-8")), "{first}");
    let second = greeting.next().expect("a line").expect("text");
    assert!(second.contains("http://127.0.0.1:") && !second.contains(":0/"), "the port that it picked: {second}");
    let rest: Vec<String> =
        greeting.by_ref().map_while(Result::ok).take_while(|line| !line.contains(" --server ")).collect();
    assert!(rest.len() < 8, "{rest:?}");
    assert_eq!(terminate(&mut child), Some(0));
    let mut log = String::new();
    child.stderr.take().expect("stderr is piped").read_to_string(&mut log).expect("UTF-8");
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(entry.is_object() && entry["level"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn its_log_is_json_lines_also_when_things_go_wrong() {
    let server = Server::start(&["--log", "json"]).await;
    let shop = Shop::at(Arc::new(server));
    shop.count("b", 3).await;
    let server = shop.server();
    server.docket.kill9();
    for file in ["state", "views.db-wal", "views.db-shm"] {
        remove(&server.data.path().join(file));
    }
    std::fs::write(server.data.path().join("views.db"), b"no database").expect("a read store");
    let docket = Docket::start(server.data.path(), &["--log", "json"]).await;
    let printed = docket.terminate().await;
    let log: Vec<&str> = printed.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!log.is_empty(), "{printed}");
    for line in &log {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(entry["level"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn on_sigterm_it_finishes_what_it_began_and_loses_nothing() {
    let shop = Arc::new(Shop::alone().await);
    shop.count("b", 1_000).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move {
                let key = Uuid::now_v7();
                let body = json!({"quantity": 1});
                let path = format!("{}/receive", shop.stock_path("b"));
                shop.client().post(&path, key, &body).await.map(|reply| reply.status)
            })
        })
        .collect();
    let answers = futures::future::join_all(waiting).await;
    let accepted = answers.iter().filter(|status| matches!(status, Ok(Some(200)))).count() as i64;
    let path = shop.stock_path("b");
    let server = Arc::into_inner(shop).expect("nobody else holds it").server();
    server.docket.terminate().await;
    let docket = Docket::start(server.data.path(), &[]).await;
    let stock = docket.client().get(&path).await.expect("an answer").is(200);
    assert_eq!(stock.body["on_hand"], 1_000 + accepted);
    docket.terminate().await;
}

#[tokio::test]
async fn who_waits_for_what_follows_is_told_how_it_stands_when_it_drains() {
    let shop = Shop::alone().await;
    shop.count("b", 3).await;
    let (client, body) = (shop.client().clone(), shop.order_of("b", 1, 100, Some("tok_down")));
    let waiting = tokio::spawn(async move {
        let key = Uuid::now_v7().to_string();
        let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=30")];
        let reply = client.send(Method::POST, "/v1/orders", &headers, Some(&body)).await;
        (reply.expect("an answer"), Instant::now())
    });
    shop.until("/v1/sagas?state=retrying", |page| page["items"].as_array().is_some_and(|items| items.len() == 1)).await;
    let asked_to_end = Instant::now();
    shop.server().docket.terminate().await;
    let (reply, answered) = waiting.await.expect("a client does not panic");
    assert_eq!((reply.status, &reply.body["status"]), (201, &json!("placed")), "{reply:?}");
    assert_eq!(reply.header("preference-applied"), None, "nothing has settled: {reply:?}");
    assert!(answered - asked_to_end < PATIENCE / 4, "it was kept waiting");
}

#[tokio::test]
async fn who_follows_is_let_go_when_it_drains() {
    let server = Server::start(&[]).await;
    let shop = Shop::at(Arc::new(server));
    shop.count("b", 3).await;
    let request = reqwest::Client::new()
        .get(format!("{}/v1/events?follow=true", shop.address()))
        .header("accept", "application/x-ndjson");
    let mut following = request.send().await.expect("an answer");
    assert!(following.chunk().await.expect("an event").is_some());
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = following.chunk().await {} });
    shop.server().docket.terminate().await;
    reading.await.expect("the stream ends");
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused_and_told_the_firsts_pid() {
    let server = Server::start(&[]).await;
    let lock = server.docket.pid().to_string();
    let data = server.data.path().to_str().expect("UTF-8");
    let second = run(&["dev", "--listen", "127.0.0.1:0", "--data", data]);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert!(said(&second).contains(&lock), "{} names {lock}", said(&second));
    assert_eq!(server.docket.client().get("/readyz").await.map(|reply| reply.status), Some(200), "the first goes on");
}

#[tokio::test]
async fn two_on_other_directories_run_side_by_side() {
    let (first, second) = tokio::join!(Server::start(&[]), Server::start(&[]));
    assert_ne!(first.docket.address(), second.docket.address());
    let (first, second) = (Shop::at(Arc::new(first)), Shop::at(Arc::new(second)));
    first.count("b", 1).await;
    second.get(&first.stock_path("b")).await.says(404, "stock-not-found");
}

#[test]
fn it_listens_on_loopback_only() {
    let data = TempDir::new().expect("a folder");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = run(&["dev", "--listen", address, "--data", data.path().to_str().expect("UTF-8")]);
        assert_eq!(refused.status.code(), Some(1), "{address} {}", said(&refused));
        assert!(said(&refused).contains("other machines"), "{}", said(&refused));
    }
}

#[test]
fn an_address_that_is_taken_is_told() {
    let data = TempDir::new().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let refused = run(&["dev", "--listen", &address, "--data", data.path().to_str().expect("UTF-8")]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains(&address), "{}", said(&refused));
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_nobody_there_with_3() {
    assert_eq!(run(&["dev", "--frobnicate"]).status.code(), Some(2));
    assert_eq!(run(&["dev", "--memory", "--data", "x"]).status.code(), Some(2));
    // Bound and closed again: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
    let unreachable = run(&["--server", &format!("http://{closed}"), "order", "list"]);
    assert_eq!(unreachable.status.code(), Some(3), "{}", said(&unreachable));
}

#[tokio::test]
async fn in_memory_it_serves_the_same_and_keeps_nothing() {
    let mut child = spawn(&["dev", "--memory", "--listen", "127.0.0.1:0"]);
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines().map_while(Result::ok);
    let address = lines
        .find_map(|line| Some(line.split_once("http://")?.1.split('/').next()?.to_owned()))
        .expect("it prints where it listens");
    let client = Client::new(&format!("http://{address}"));
    let key = Uuid::now_v7();
    client.put("/v1/stock/here/b", key, &json!({"on_hand": 3})).await.expect("an answer").is(201);
    let body = kit::shop::order("c", "here", vec![kit::shop::line("b", 1, 100)], Some("tok_ok"));
    let key = Uuid::now_v7().to_string();
    let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=20")];
    let order =
        client.send(reqwest::Method::POST, "/v1/orders", &headers, Some(&body)).await.expect("an answer").is(201);
    assert_eq!(order.text("status"), "confirmed");
    assert_eq!(client.get("/v1/stock/here/b").await.expect("an answer").body["on_hand"], 2);
    assert_eq!(terminate(&mut child), Some(0));
}

/// How often a stream of the demo's catalogue was counted.
async fn seedings(client: &Client) -> Vec<Value> {
    client.ndjson("/v1/events?type=StockCounted").await.expect("lines")
}

#[tokio::test]
async fn the_demo_started_twice_seeds_once() {
    let data = TempDir::new().expect("a folder");
    let trade = async |docket: &Docket, orders: usize| {
        let client = docket.client();
        let began = Instant::now();
        while client.list("/v1/orders").await.expect("a list").len() < orders {
            assert!(began.elapsed() < PATIENCE, "the demo does not trade");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        seedings(&client).await
    };
    let docket = Docket::start(data.path(), &["--demo", "shop"]).await;
    let first = trade(&docket, 1).await;
    assert!(first.len() >= 12, "{} shelves", first.len());
    let orders = docket.client().list("/v1/orders").await.expect("a list").len();
    docket.terminate().await;
    let docket = Docket::start(data.path(), &["--demo", "shop"]).await;
    assert_eq!(trade(&docket, orders + 1).await, first);
    docket.terminate().await;
}

#[tokio::test]
async fn everything_but_the_log_can_be_thrown_away() {
    let server = Server::start(&[]).await;
    let shop = Shop::at(Arc::new(server));
    shop.count("b", 10).await;
    let order = shop.ordered("b", 1, 100, "tok_ok").await;
    let (stock, order_path) = (shop.stock_path("b"), format!("/v1/orders/{}", order.text("order_id")));
    let before = [shop.get(&stock).await.body, shop.get(&order_path).await.body];
    let server = shop.server();
    server.docket.terminate().await;
    remove(&server.data.path().join("state"));
    for file in ["views.db", "views.db-wal", "views.db-shm"] {
        remove(&server.data.path().join(file));
    }
    let docket = Docket::start(server.data.path(), &[]).await;
    let client = docket.client();
    for (path, before) in [stock, order_path].iter().zip(before) {
        assert_eq!(client.get(path).await.expect("an answer").is(200).body, before);
    }
    docket.terminate().await;
}

fn remove(path: &Path) {
    if path.is_dir() {
        std::fs::remove_dir_all(path).expect("a folder can be removed");
    } else if path.exists() {
        std::fs::remove_file(path).expect("a file can be removed");
    }
}
