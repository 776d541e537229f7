//! Everything that happened, as anybody can read it: streams by name, the events of one as pages or lines, forward, backward
//! and on as it goes; and all events of all streams, filtered, from any point, to be taken up again where one left off.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use kit::shop::reservation;
use serde_json::{Value, json};

use crate::platform::{Shop, Told, text};

/// The lines of an answer as they come.
struct Lines {
    /// `Docket-Position` of the answer.
    position: String,
    bytes: futures::stream::BoxStream<'static, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Lines {
    async fn of(shop: &Shop, path: &str) -> Self {
        let request =
            reqwest::Client::new().get(format!("{}{path}", shop.address())).header("accept", "application/x-ndjson");
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let position = response.headers()["docket-position"].to_str().expect("digits").to_owned();
        let bytes = response.bytes_stream().map(|chunk| chunk.expect("the connection holds").to_vec());
        Self { position, bytes: bytes.boxed(), buffer: Vec::new() }
    }

    /// What it said to reflect before its first line.
    fn reflected(&self) -> BTreeMap<u64, u64> {
        let parse = |one: &str| {
            let (partition, offset) = one.trim().split_once(':').expect("partition and offset");
            (partition.parse().expect("a number"), offset.parse().expect("a number"))
        };
        self.position.split(',').map(parse).collect()
    }

    /// The next event; empty lines only say that the stream lives.
    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.len() > 1 {
                    return serde_json::from_slice(&line).expect("a line is JSON");
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(30), self.bytes.next()).await;
            self.buffer.extend(chunk.expect("an event comes").expect("the stream goes on"));
        }
    }
}

fn versions(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["version"].as_u64().expect("a version")).collect()
}

/// Partition and offset of an event.
fn position(event: &Value) -> (u64, u64) {
    let text = text(&event["position"]);
    let (partition, offset) = text.split_once(':').expect("partition and offset");
    (partition.parse().expect("a number"), offset.parse().expect("a number"))
}

/// A stock with this many events.
async fn counted(shop: &Shop, sku: &str, times: i64) -> String {
    for on_hand in 1..=times {
        shop.count(sku, on_hand).await;
    }
    format!("/v1/streams/stock-{}~{sku}/events", shop.location)
}

#[tokio::test]
async fn an_event_says_what_when_who_and_because_of_what() {
    let shop = Shop::open().await;
    let path = counted(&shop, "b", 1).await;
    let event = shop.get(&path).await.is(200).body["items"][0].clone();
    let mut names: Vec<&str> = event.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    let wanted = [
        "actor",
        "causation_id",
        "command_id",
        "correlation_id",
        "data",
        "event_id",
        "index",
        "position",
        "reason",
        "recorded_at",
        "schema_version",
        "stream",
        "traceparent",
        "type",
        "version",
    ];
    assert_eq!(names, wanted);
    assert_eq!((&event["type"], &event["version"], &event["index"]), (&json!("StockCounted"), &json!(1), &json!(0)));
    assert_eq!(event["stream"], format!("stock-{}~b", shop.location));
    assert_eq!(event["data"]["on_hand"], 1);
    assert_eq!(event["correlation_id"], event["command_id"]);
    let again = shop.get(&path).await.body["items"][0].clone();
    assert_eq!(again, event, "its id is the same for ever");
}

#[tokio::test]
async fn the_events_of_a_stream_come_in_pages_forward_and_backward() {
    let shop = Shop::open().await;
    let path = counted(&shop, "b", 10).await;
    let pages = async |query: &str| {
        let (mut events, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = shop.get(&format!("{path}?limit=3{query}{cursor}")).await.is(200).body;
            events.extend(page["items"].as_array().expect("a list").clone());
            pages += 1;
            let Some(next) = page["next_cursor"].as_str() else { return (versions(&events), pages) };
            cursor = format!("&cursor={next}");
        }
    };
    assert_eq!(pages("").await, ((1..=10).collect(), 4));
    assert_eq!(pages("&direction=backward").await, ((1..=10).rev().collect(), 4));
    assert_eq!(pages("&from_version=4&to_version=6").await, (vec![4, 5, 6], 1));
    assert_eq!(pages("&from_version=3&to_version=8&direction=backward").await, ((3..=8).rev().collect(), 2));
    assert_eq!(pages("&from_version=11").await, (vec![], 1));
    let page = shop.get(&path).await.is(200);
    assert!(!page.positions().is_empty() && page.header("vary").is_some(), "{page:?}");
    shop.get(&format!("{path}?follow=true")).await.says(422, "invalid-fields");
    shop.get(&format!("{path}?direction=sideways&from_version=0&to_version=x")).await.says(422, "invalid-fields");
    shop.get_with(&path, &[("accept", "text/csv")]).await.says(406, "not-acceptable");
}

#[tokio::test]
async fn lines_tell_the_whole_range_and_go_on_if_asked() {
    let shop = Shop::open().await;
    let path = counted(&shop, "b", 600).await;
    let read = async |query: &str| versions(&shop.client().ndjson(&format!("{path}{query}")).await.expect("lines"));
    assert_eq!(read("").await, (1..=600).collect::<Vec<_>>());
    assert_eq!(read("?direction=backward&to_version=300").await, (1..=300).rev().collect::<Vec<_>>());
    assert_eq!(read("?from_version=599").await, [599, 600]);
    let mut lines = Lines::of(&shop, &format!("{path}?from_version=600&follow=true")).await;
    assert_eq!(lines.next().await["version"], 600);
    for version in 601..=605 {
        shop.count("b", version).await;
        assert_eq!(lines.next().await["version"], version);
    }
}

#[tokio::test]
async fn lines_say_what_they_reflect_before_the_first_of_them() {
    let shop = Shop::open().await;
    let path = counted(&shop, "b", 3).await;
    let made = shop.count("b", 4).await.positions()[0];
    let lines = async |path: &str, min_position: &str| {
        let headers = [("accept", "application/x-ndjson"), ("docket-min-position", min_position)];
        let reply = shop.get_with(path, &headers).await.is(200);
        assert_eq!(reply.header("vary"), Some("accept"));
        let events = reply.text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
        (reply.positions().into_iter().collect::<BTreeMap<_, _>>(), events.collect::<Vec<Value>>())
    };
    let min_position = format!("{}:{}", made.0, made.1);
    for query in ["", "?from_version=4", "?direction=backward", "?to_version=2", "?from_version=9"] {
        let (reflected, _) = lines(&format!("{path}{query}"), &min_position).await;
        assert_eq!(reflected.keys().collect::<Vec<_>>(), [&made.0], "a stream lies in one partition");
        assert!(reflected[&made.0] >= made.1, "{query}: {reflected:?} is older than {made:?}");
    }
    let mine = format!("/v1/events?stream_prefix=stock-{}", shop.location);
    let (reflected, events) = lines(&mine, &min_position).await;
    assert!(reflected[&made.0] >= made.1, "{reflected:?} is older than {made:?}");
    assert_eq!(versions(&events), [1, 2, 3, 4], "what is said to be reflected is told");
    // Also where nothing in it is wanted.
    let (reflected, events) = lines(&format!("{mine}&until=2001-01-01T00:00:00Z"), &min_position).await;
    assert!(reflected[&made.0] >= made.1 && events.is_empty(), "{reflected:?} {events:?}");
}

#[tokio::test]
async fn who_follows_from_the_end_is_told_where_that_is() {
    let shop = Shop::open().await;
    let made = shop.count("b", 1).await.positions()[0];
    let mine = format!("stream_prefix=stock-{}", shop.location);
    let mut lines = Lines::of(&shop, &format!("/v1/events?from=end&follow=true&{mine}")).await;
    let end = lines.reflected();
    assert!(end[&made.0] >= made.1, "{end:?} is older than {made:?}");
    shop.count("b", 2).await;
    let next = lines.next().await;
    assert_eq!(next["version"], 2);
    assert!(position(&next).1 > end[&made.0], "{next} was at the end already: {end:?}");
}

#[tokio::test]
async fn streams_are_listed_by_prefix() {
    let shop = Shop::open().await;
    counted(&shop, "b", 3).await;
    shop.count("a", 1).await;
    shop.post(&shop.reservations_path(), reservation(&[("b", 1)], None)).await.is(201);
    let prefix = format!("stock-{}~", shop.location);
    let page = shop
        .until(&format!("/v1/streams?prefix={prefix}"), |page| {
            page["items"].as_array().is_some_and(|items| items.len() == 2 && items[1]["version"] == 4)
        })
        .await;
    let items = page["items"].as_array().expect("a list");
    assert_eq!((&items[0]["stream"], &items[0]["version"]), (&json!(format!("{prefix}a")), &json!(1)));
    assert_eq!(items[1]["stream"], format!("{prefix}b"));
    assert!(items[0]["updated_at"].is_string());
    let all = shop.client().list(&format!("/v1/streams?prefix=reservation-{}", shop.location)).await.expect("a list");
    assert_eq!(all.len(), 1);
    assert_eq!(
        shop.get("/v1/streams?prefix=nothing-like-it").await.is(200).body,
        json!({"items": [], "next_cursor": null})
    );
}

#[tokio::test]
async fn all_events_come_once_and_per_partition_in_order() {
    let shop = Shop::open().await;
    shop.count("b", 50).await;
    for token in ["tok_ok", "tok_declined", "tok_twice"] {
        shop.ordered("b", 1, 100, token).await;
    }
    let (mut events, mut from) = (Vec::new(), "start".to_owned());
    loop {
        let page = shop.get(&format!("/v1/events?limit=7&from={from}")).await.is(200).body;
        let items = page["items"].as_array().expect("a list");
        events.extend(items.iter().cloned());
        from = text(&page["next_cursor"]);
        // The other tests go on; ours is told as soon as its last order is.
        if items.len() < 7 || events.len() > 20_000 {
            break;
        }
    }
    let (mut last, mut next) = (BTreeMap::new(), BTreeMap::new());
    for event in &events {
        let position = text(&event["position"]);
        let (partition, offset) = position.split_once(':').expect("partition and offset");
        let place = (offset.parse::<u64>().expect("a number"), event["index"].as_u64().expect("a number"));
        let before = last.insert(partition.to_owned(), place);
        assert!(before.is_none_or(|before| before < place), "{before:?} before {event}");
        let version: &mut u64 = next.entry(text(&event["stream"])).or_default();
        *version += 1;
        assert_eq!(event["version"], *version, "{event}");
    }
    // Taken up again where one left off: nothing twice, nothing left out.
    let before = shop.get(&format!("/v1/events?from={from}")).await.is(200);
    shop.count("new", 1).await;
    let position = shop.count("new", 2).await.header("docket-position").expect("a position").to_owned();
    let after = shop
        .get_with(
            &format!("/v1/events?from={}&limit=500&stream_prefix=", before.text("next_cursor")),
            &[("docket-min-position", &position)],
        )
        .await;
    assert!([200, 400].contains(&after.status), "another filter is another list");
}

#[tokio::test]
async fn all_events_can_be_sifted_by_type_stream_and_time() {
    let shop = Shop::open().await;
    let mine = format!("stock-{}", shop.location);
    counted(&shop, "b", 3).await;
    shop.post(&format!("{}/receive", shop.stock_path("b")), json!({"quantity": 1})).await.is(200);
    shop.post(&format!("{}/adjust", shop.stock_path("b")), json!({"delta": 1, "reason": "found"})).await.is(200);
    let read = async |query: &str| {
        shop.client().ndjson(&format!("/v1/events?stream_prefix={mine}{query}")).await.expect("lines")
    };
    let all = read("").await;
    assert_eq!(versions(&all), [1, 2, 3, 4, 5]);
    let types: Vec<String> =
        read("&type=StockReceived,StockAdjusted").await.iter().map(|event| text(&event["type"])).collect();
    assert_eq!(types, ["StockReceived", "StockAdjusted"]);
    let time = text(&all[2]["recorded_at"]);
    assert_eq!(versions(&read(&format!("&since={time}")).await), [3, 4, 5], "since ≤ recorded_at");
    assert_eq!(versions(&read(&format!("&until={time}")).await), [1, 2], "recorded_at < until");
    let page = shop.get(&format!("/v1/events?stream_prefix={mine}&limit=2")).await.is(200).body;
    assert_eq!(versions(page["items"].as_array().expect("a list")), [1, 2]);
    let told = shop.get("/v1/events?type=NoSuchEvent&since=x&limit=0").await.says(422, "invalid-fields");
    assert_eq!(told.faults().len(), 3, "{}", told.body);
    shop.get("/v1/events?follow=true").await.says(422, "invalid-fields");
    shop.get("/v1/events?from=nowhere").await.says(400, "bad-cursor");
}

#[tokio::test]
async fn from_the_end_only_what_comes_is_told() {
    let shop = Shop::open().await;
    let mine = format!("stream_prefix=stock-{}", shop.location);
    let made = shop.count("b", 1).await;
    let position = made.header("docket-position").expect("a position").to_owned();
    let end =
        shop.get_with(&format!("/v1/events?from=end&{mine}"), &[("docket-min-position", &position)]).await.is(200);
    assert_eq!(end.body["items"], json!([]));
    shop.count("b", 2).await;
    let position = shop.count("b", 3).await.header("docket-position").expect("a position").to_owned();
    let page = shop
        .get_with(&format!("/v1/events?from={}&{mine}", end.text("next_cursor")), &[("docket-min-position", &position)])
        .await
        .is(200);
    assert_eq!(versions(page.body["items"].as_array().expect("a list")), [2, 3]);
    assert!(page.body["next_cursor"].is_string(), "never null here");
    let nothing = shop.get(&format!("/v1/events?from={}&{mine}", page.text("next_cursor"))).await.is(200);
    assert_eq!(nothing.body["items"], json!([]));
}

#[tokio::test]
async fn who_follows_all_events_hears_each_as_it_happens() {
    let shop = Shop::open().await;
    let mine = format!("stream_prefix=stock-{}", shop.location);
    shop.count("b", 1).await;
    let mut lines = Lines::of(&shop, &format!("/v1/events?follow=true&{mine}")).await;
    assert_eq!(lines.next().await["version"], 1);
    for version in 2..=6 {
        shop.count("b", version).await;
        assert_eq!(lines.next().await["version"], version);
    }
}
