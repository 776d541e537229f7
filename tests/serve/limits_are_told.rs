//! docs/limits.md is true: its keys are keys, its constants are in the code, its metrics are in /metrics of the real
//! program once it has worked a little, and no key that bounds something is missing in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use kit::Docket;
use serde_json::Value;
use uuid::Uuid;

const PAGE: &str = include_str!("../../docs/limits.md");

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
