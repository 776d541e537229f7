//! docs/limits.md is true: its keys are keys, its constants are in the code, its metrics are in /metrics of the real
//! program once it has worked a little, and no key that bounds something is missing in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kit::Docket;
use serde_json::Value;
use uuid::Uuid;

const PAGE: &str = include_str!("../../docs/limits.md");

/// Events that are folded anew: more than there are partitions.
const EVENTS: usize = 40;

/// Everything between backticks.
fn named(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Keys of the configuration, as the program tells them.
fn keys() -> BTreeSet<String> {
    let arguments = ["config", "reference", "--output", "json"];
    let output = Command::new(kit::docket::binary()).args(arguments).output().expect("the binary runs");
    let told = serde_json::from_slice::<Value>(&output.stdout).expect("it tells JSON");
    let items = told["items"].as_array().expect("a list").iter();
    items.map(|key| key["key"].as_str().expect("a key").to_owned()).collect()
}

fn is_key(word: &str) -> bool {
    let begins = ["limits.", "timeouts.", "read_store.", "state_store.", "log."];
    word.contains('.') && begins.iter().any(|begin| word.starts_with(begin))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != "tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All the code that is no test.
fn code() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository");
    let mut files = Vec::new();
    for folder in ["src", "infra", "command-side", "projections", "query-side"] {
        sources(&root.join(folder), &mut files);
    }
    files.iter().map(|file| std::fs::read_to_string(file).expect("a file of the repository")).collect()
}

#[test]
fn every_key_and_constant_of_the_page_is_there_and_every_bound_that_can_be_set_is_on_it() {
    let (named, keys, code) = (named(PAGE), keys(), code());
    for word in &named {
        if is_key(word) {
            assert!(keys.contains(*word), "docs/limits.md names the key {word}, which is none");
        } else if word.ends_with("_MAX") {
            assert!(
                code.contains(&format!("const {word}: ")),
                "docs/limits.md names the constant {word}, which is none"
            );
        } else if word.ends_with("_max") && !word.starts_with("docket_") {
            assert!(code.contains(&format!("pub {word}: ")), "docs/limits.md names the option {word}, which is none");
        }
    }
    // All of these but what is no bound: where the read models are.
    let bounds = ["limits.", "timeouts.", "state_store.", "read_store."];
    let is_bound = |key: &&String| bounds.iter().any(|begin| key.starts_with(begin)) && *key != "read_store.url";
    for key in keys.iter().filter(is_bound).map(String::as_str).chain(["log.cache_mib"]) {
        assert!(named.contains(key), "docs/limits.md says nothing of {key}");
    }
}

#[tokio::test]
async fn every_metric_of_the_page_is_told_by_a_program_that_has_worked() {
    let (everywhere, on_kafka) = PAGE.split_once("## On Kafka only").expect("the page has this part");
    let scratch = tempfile::tempdir().expect("a directory");
    let docket = Docket::start(scratch.path(), &[]).await;
    let client = docket.client();
    let stock = client.put("/v1/stock/shop-1/beans", Uuid::new_v4(), &kit::shop::count(10)).await;
    assert!(stock.is_some_and(|reply| reply.status < 300));
    let order = kit::shop::order("c-17", "shop-1", vec![kit::shop::line("beans", 1, 100)], None);
    let placed = client.post("/v1/orders", Uuid::new_v4(), &order).await.expect("it answers");
    assert_eq!(placed.status, 201, "{placed:?}");
    let order = format!("/v1/orders/{}", placed.body["order_id"].as_str().expect("an id"));
    for path in [order.as_str(), order.as_str(), "/v1/orders", "/v1/events"] {
        let read = client.get(path).await.expect("it answers");
        assert_eq!(read.status, 200, "{read:?}");
    }
    let metrics = client.get("/metrics").await.expect("it answers").text;
    let told = metrics.lines().filter(|line| !line.starts_with('#'));
    let told = told.filter_map(|line| line.split(['{', ' ']).next()).collect::<BTreeSet<_>>();
    for name in named(everywhere).into_iter().filter(|word| word.starts_with("docket_")) {
        assert!(told.contains(name), "docs/limits.md names {name}, which is not among {told:#?}");
    }
    let code = code();
    for name in named(on_kafka).into_iter().filter(|word| word.starts_with("docket_")) {
        assert!(code.contains(&format!("\"{name}\"")), "docs/limits.md names {name}, which nobody counts");
    }
    assert!(metrics.contains("docket_cache_lookups_total{cache=\"rows\",result=\"hit\"} 1"), "{metrics}");
    docket.terminate().await;
}

/// The number behind this metric with this label.
fn told(metrics: &str, name: &str, label: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name) && line.contains(label));
    let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} of {label} in {metrics}"))
}

#[tokio::test]
async fn bounds_that_are_set_are_held() {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = format!("data={}", scratch.path().display());
    let arguments = |sets: &[&str]| {
        let sets = [data.as_str(), "listen.http=127.0.0.1:0"].into_iter().chain(sets.iter().copied());
        sets.flat_map(|set| ["--set".to_owned(), set.to_owned()]).collect::<Vec<_>>()
    };
    let start = async |sets: &[&str]| {
        let arguments = arguments(sets);
        let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
        Docket::serve(&arguments).await.unwrap_or_else(|fault| panic!("{fault}"))
    };
    let docket = start(&[]).await;
    let client = docket.client();
    let mut position = BTreeMap::new();
    for number in 0..EVENTS {
        let path = format!("/v1/stock/shop-1/beans-{number}");
        let stock = client.put(&path, Uuid::new_v4(), &kit::shop::count(10)).await.expect("it answers");
        assert_eq!(stock.status, 201, "{stock:?}");
        position.extend(stock.positions());
    }
    let position = position.iter().map(|(partition, offset)| format!("{partition}:{offset}"));
    let position = position.collect::<Vec<_>>().join(",");
    docket.terminate().await;

    // Folded from the beginning: in a transaction or two, were it not for its bound.
    std::fs::remove_file(scratch.path().join("views.db")).expect("read models in a file");
    let docket = start(&[
        "log.cache_mib=8",
        "state_store.cache_mib=3",
        "read_store.readers=2",
        "limits.body_kib=16",
        "limits.batch_events=1",
    ])
    .await;
    let client = docket.client();
    let headers = [("docket-min-position", position.as_str()), ("prefer", "wait=30")];
    let all = client.get_with("/v1/stock/shop-1?limit=500", &headers).await.expect("it answers");
    assert_eq!(all.body["items"].as_array().map(Vec::len), Some(EVENTS), "{all:?}");
    let metrics = client.get("/metrics").await.expect("it answers").text;
    let mib = f64::from(1 << 20);
    for (cache, most) in [
        ("log-blocks", 4.0 * mib),
        ("log-indexes", 2.0 * mib),
        ("log-headers", mib),
        ("log-tail", mib),
        ("state-blocks", 3.0 * mib),
    ] {
        assert_eq!(told(&metrics, "docket_cache_bytes_max{", cache), most, "{cache}");
        assert!(told(&metrics, "docket_cache_bytes{", cache) <= most, "{cache}");
    }
    assert_eq!(told(&metrics, "docket_read_store_operations_max{", "doing=\"read\""), 2.0);
    assert!(told(&metrics, "docket_projection_commits_total", "") >= EVENTS as f64, "{metrics}");
    for (length, status) in [(16 << 10, 201), ((16 << 10) + 1, 413)] {
        let mut body = kit::shop::count(10).to_string().into_bytes();
        body.resize(length, b' ');
        let key = Uuid::new_v4().to_string();
        let headers = [("idempotency-key", key.as_str()), ("content-type", "application/json")];
        let path = format!("/v1/stock/shop-1/tea-{length}");
        let reply = client.send_bytes(reqwest::Method::PUT, &path, &headers, body).await.expect("an answer");
        assert_eq!(reply.status, status, "{reply:?}");
    }
    docket.terminate().await;
}
