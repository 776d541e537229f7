//! What was said stays said: every event type has a sample of every schema version, and each is still read. Those of the
//! newest version are also written as they were.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, as it should")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use engine::event::{ContentType, EncodedEvent, Event};
use schemas::event::ShopEvent;
use serde_json::Value;

fn samples() -> Vec<(String, u16, Value)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"));
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (event_type, version) = name.split_once(".v").unwrap();
        let value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        samples.push((event_type.to_owned(), version.parse().unwrap(), value));
    }
    samples
}

#[test]
fn every_version_of_every_event_type_has_a_sample() {
    let there = samples().into_iter().map(|(event_type, version, _)| (event_type, version)).collect::<BTreeSet<_>>();
    let needed =
        ShopEvent::TYPES.iter().flat_map(|(name, newest)| (1..=*newest).map(|each| ((*name).to_owned(), each)));
    assert_eq!(there, needed.collect::<BTreeSet<_>>());
}

#[test]
fn every_sample_is_read_and_the_newest_are_written_alike() {
    for (event_type, schema_version, value) in samples() {
        let stored = EncodedEvent {
            event_type: event_type.as_str().into(),
            schema_version,
            content_type: ContentType::Json,
            payload: Bytes::from(serde_json::to_vec(&value).unwrap()),
        };
        let event = ShopEvent::decode(&stored).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(event.event_type(), event_type);
        let written = event.encode();
        if written.schema_version == schema_version {
            let payload = serde_json::from_slice::<Value>(&written.payload).unwrap();
            assert_eq!(payload, value, "{event_type} v{schema_version}");
        }
    }
}

#[test]
fn what_is_not_known_is_not_read() {
    let mut stored = samples_of("OrderPlaced");
    stored.schema_version = 2;
    assert!(ShopEvent::decode(&stored).is_err());
    stored = samples_of("OrderPlaced");
    stored.event_type = "OrderLost".into();
    assert!(ShopEvent::decode(&stored).is_err());
}

fn samples_of(event_type: &str) -> EncodedEvent {
    let (_, schema_version, value) = samples().into_iter().find(|(name, ..)| name == event_type).unwrap();
    EncodedEvent {
        event_type: event_type.into(),
        schema_version,
        content_type: ContentType::Json,
        payload: Bytes::from(serde_json::to_vec(&value).unwrap()),
    }
}
