//! What lies on the disk can be looked into without a node: verified, shown and diagnosed, beside a running node and after
//! it, be it the log itself or a node's copy of one in Kafka.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::platform::{Ground, Server, Shop, Told};

fn docket(arguments: &[&str]) -> Output {
    Command::new(kit::docket::binary()).args(arguments).output().expect("the binary runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The exit code, and what it told in JSON.
fn verified(directory: &Path) -> (Option<i32>, Value) {
    let output = docket(&["log", "verify", directory.to_str().expect("UTF-8"), "--output", "json"]);
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    (output.status.code(), told)
}

fn shown(directory: &Path, more: &[&str]) -> Vec<Value> {
    let directory = directory.to_str().expect("UTF-8");
    let output = docket(&[&["log", "show", directory], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}

/// Where the segments are.
fn segments(data: &Path) -> PathBuf {
    let name = if crate::GROUND == Ground::Dev { "log" } else { "copy" };
    data.join(name)
}

fn names(told: &Value) -> Vec<&str> {
    told["findings"].as_array().expect("findings").iter().filter_map(|finding| finding["name"].as_str()).collect()
}

#[tokio::test]
async fn a_log_is_verified_and_shown_beside_its_node_and_after_it_and_damage_is_told_with_its_place() {
    let shop = Shop::at(Arc::new(Server::start(&[]).await));
    shop.count("b", 10).await;
    let order = shop.ordered("b", 1, 100, "tok_ok").await.text("order_id");
    shop.saga_until(&order, "completed").await;
    let data = shop.data();

    let (code, running) = verified(&data);
    assert_eq!((code, &running["verdict"]), (Some(0), &Value::from("whole")), "{running}");
    assert_eq!(names(&running), ["in-use"], "{running}");
    assert!(running["commands"].as_u64() > Some(3) && running["streams"].as_u64() > Some(3), "{running}");
    let stream = format!("order-{order}");
    let of_order = shown(&data, &["--stream", &stream]);
    let placed = of_order.iter().find(|record| record["streams"][0]["events"][0]["type"] == "OrderPlaced");
    let placed = placed.unwrap_or_else(|| panic!("{of_order:?}"));
    assert_eq!((&placed["effective"], &placed["status"]), (&Value::from(true), &Value::from(201)), "{placed}");
    assert_eq!(placed["streams"][0]["first_version"], 1);

    let server = shop.server();
    server.docket.terminate().await;
    let (code, stopped) = verified(&data);
    assert_eq!((code, names(&stopped).len()), (Some(0), 0), "{stopped}");
    assert!(stopped["records"].as_u64() >= running["records"].as_u64());
    let claims = shown(&data, &["--kind", "claim", "--partition", "0"]);
    assert!(claims.iter().all(|claim| claim["position"].as_str().is_some_and(|at| at.starts_with("0:"))), "{claims:?}");
    assert!(claims.iter().any(|claim| claim["effective"] == true));

    // One bit of the first order's bytes, far from the end.
    let segment = segments(&data).join("0000000000.segment");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(11).position(|window| window == b"OrderPlaced").expect("it is there");
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).expect("written");
    let (code, damaged) = verified(&data);
    assert_eq!((code, names(&damaged)), (Some(1), vec!["group-damaged"]), "{damaged}");
    let finding = &damaged["findings"][0];
    assert_eq!(finding["file"], segment.display().to_string());
    let byte = finding["byte"].as_u64().expect("a number");
    assert!(byte < at as u64 && finding["mend"].is_string(), "{finding}");
    let show = docket(&["log", "show", data.to_str().expect("UTF-8"), "--output", "table"]);
    assert_eq!(show.status.code(), Some(1));
    assert!(said(&show).contains("genesis") && said(&show).contains("docket log verify"), "{}", said(&show));
}

#[test]
fn where_no_log_is_nothing_is_verified_and_the_exit_code_says_so() {
    let empty = TempDir::new().expect("a folder");
    for command in ["verify", "show"] {
        let output = docket(&["log", command, empty.path().to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("there is no log in"), "{}", said(&output));
    }
}

#[tokio::test]
async fn the_doctor_knows_what_lies_in_a_data_directory_and_what_does_not_fit() {
    if crate::GROUND != Ground::Dev {
        return;
    }
    let shop = Shop::at(Arc::new(Server::start(&[]).await));
    shop.count("b", 10).await;
    let examined = |data: &Path| {
        let data = format!("data={}", data.display());
        let output = docket(&["doctor", "--output", "json", "--set", &data, "--set", "listen.http=127.0.0.1:0"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        (output.status.code(), told["items"].clone())
    };
    let of = |items: &Value, name: &str| {
        let found = items.as_array().expect("items").iter().find(|item| item["check"] == name).cloned();
        found.unwrap_or_else(|| panic!("{name} in {items}"))
    };
    let data = shop.data();
    let (code, running) = examined(&data);
    assert_eq!(code, Some(0), "{running}");
    assert!(of(&running, "log")["what"].as_str().is_some_and(|what| what.contains("has it open")), "{running}");
    let server = shop.server();
    server.docket.terminate().await;
    let (code, well) = examined(&data);
    assert_eq!(code, Some(0), "{well}");
    for name in ["flush", "room", "clock", "open-files", "memory", "address-space", "file-size"] {
        assert_ne!(of(&well, name)["state"], "failed", "{well}");
    }
    for name in ["log", "state", "views"] {
        assert_eq!(of(&well, name)["state"], "ok", "{well}");
    }
    assert!(of(&well, "state")["what"].as_str().is_some_and(|what| what.ends_with(" 0 records behind it")), "{well}");

    // The log of another day under the states and rows of this one.
    let other = Shop::at(Arc::new(Server::start(&[]).await));
    let other_data = other.data();
    let other_server = other.server();
    other_server.docket.terminate().await;
    std::fs::remove_dir_all(data.join("log")).expect("removed");
    std::fs::rename(other_data.join("log"), data.join("log")).expect("moved");
    let (code, ill) = examined(&data);
    assert_eq!((code, of(&ill, "views")["state"].as_str()), (Some(1), Some("failed")), "{ill}");
    assert!(of(&ill, "state")["mend"].as_str().is_some_and(|mend| mend.contains("folded afresh")), "{ill}");
}
