//! Golden samples: records as version 1 of the format wrote them. Every later version must read each as the value below
//! and write that value as the same bytes (or, once a newer format is written, still read it). **Samples are never
//! edited**: they are how we keep our word. A new kind of content is a new sample.
//!
//! Beside each sample lies a text that takes it apart. It is made by the few lines at the end of this file, which know
//! the layout only from `docs/record-format.md` and share no code with the codec. `GOLDEN=write` adds what is missing
//! and touches nothing that is there.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use engine::event::{ContentType, EncodedEvent};
use engine::message::{At, CommandId, FieldError, Fingerprint, Outcome, Provenance};
use engine::position::{Epoch, LogId, Nonce, Seq, Version};
use engine::record::{Body, Claim, Commit, Genesis, Header, Kind, Record, Section, StreamEvents};
use engine::stream::{StreamName, Tenant};
use engine::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

const ORDER: &str = "order-0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b";
const PAYMENT: &str = "payment-0199a1b2-c3d4-7e5f-8a6b-000000001a2b";
const COMMAND: CommandId = CommandId(Uuid::from_u128(0x0199_a1b2_ffff_7000_8000_0000_0000_0001));
const RECORDED_AT: Timestamp = Timestamp(1_795_255_200_000_001);

fn header(kind: Kind, seq: u64) -> Header {
    Header { kind, epoch: Epoch(3), nonce: Nonce(0xfeed_face_cafe_beef), seq: Seq(seq) }
}

fn event(event_type: &str, schema_version: u16, payload: &'static [u8]) -> EncodedEvent {
    let payload = Bytes::from_static(payload);
    EncodedEvent { event_type: event_type.into(), schema_version, content_type: ContentType::Json, payload }
}

/// A command on the order that was accepted and changed nothing.
fn commit() -> Commit {
    Commit {
        command_id: COMMAND,
        tenant: Tenant::default(),
        resource: StreamName::new(ORDER).unwrap(),
        resource_version: Version(1),
        fingerprint: Fingerprint(*b"0123456789abcdef"),
        outcome: Outcome { status: 200, ..Outcome::default() },
        provenance: Provenance::default(),
        recorded_at: RECORDED_AT,
        streams: Vec::new(),
    }
}

fn samples() -> Vec<(&'static str, Record)> {
    let committed = |seq, commit| Record::new(header(Kind::Commit, seq), Body::Commit(Box::new(commit)));
    let genesis = Genesis {
        log: LogId(Uuid::from_u128(0x0199_a1b2_0000_7000_8000_0000_0000_0000)),
        partitions: 12,
        placement_rule: 1,
        format: 1,
        fingerprint_key: *b"a key of thirty-two bytes, fixed",
        created_at: Timestamp(1_795_255_199_000_000),
    };
    let claim = Claim {
        node: "docket-0".into(),
        address: "http://docket-0.docket:7400".into(),
        claimed_at: Timestamp(1_795_255_199_500_000),
    };
    let accepted = Commit {
        resource_version: Version(2),
        outcome: Outcome { status: 201, ..Outcome::default() },
        streams: vec![
            StreamEvents {
                name: StreamName::new(ORDER).unwrap(),
                first_version: Version(1),
                events: vec![
                    event("OrderPlaced", 1, br#"{"total":{"amount":1999,"currency":"EUR"}}"#),
                    event("OrderConfirmed", 300, b"{}"),
                ],
            },
            StreamEvents {
                name: StreamName::new(PAYMENT).unwrap(),
                first_version: Version(200),
                events: vec![event("PaymentCaptured", 2, br#"{"amount":1999}"#)],
            },
        ],
        ..commit()
    };
    let refused = Commit {
        tenant: Tenant::new("acme").unwrap(),
        resource: StreamName::new("stock-shop-1~beans").unwrap(),
        resource_version: Version(0),
        outcome: Outcome {
            status: 409,
            code: Some("insufficient-stock".into()),
            detail: Some("Only 2 of “beans” are left.".to_owned()),
            errors: vec![
                FieldError::at("/lines/0/quantity", "too-many", "only 2 are left").with("available", 2),
                FieldError { at: At::Header("If-Match".to_owned()), ..FieldError::at("", "stale", "") },
            ],
            answer: Some(json!({ "on_hand": 2, "reserved": 0 })),
        },
        provenance: Provenance {
            actor: Some("ann".into()),
            reason: Some("".into()),
            correlation_id: Some(CommandId(Uuid::from_u128(1))),
            causation_id: Some(CommandId(Uuid::from_u128(2))),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        },
        ..commit()
    };
    let octets = EncodedEvent { content_type: ContentType::Octets, ..event("LabelPrinted", 65_535, &[0, 0x80, 0xff]) };
    let of_octets = Commit {
        streams: vec![StreamEvents {
            name: StreamName::new(PAYMENT).unwrap(),
            first_version: Version(1 << 40),
            events: vec![octets],
        }],
        ..commit()
    };
    let later = Section { number: 100, content: Bytes::from_static(b"said by a later version") };
    vec![
        ("genesis", Record::genesis(genesis)),
        ("claim", Record::new(header(Kind::Claim, 0), Body::Claim(claim))),
        ("commit-accepted", committed(1, accepted)),
        ("commit-refused", committed(2, refused)),
        ("commit-nothing", committed(300, commit())),
        ("commit-octets", committed(u64::MAX, of_octets)),
        ("barrier", Record::new(header(Kind::Barrier, 4), Body::Barrier)),
        ("release", Record::new(header(Kind::Release, 5), Body::Release)),
        ("barrier-later", Record { later: vec![later], ..Record::new(header(Kind::Barrier, 6), Body::Barrier) }),
    ]
}

fn place(file: String) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

/// The sample as it lies there.
fn golden(file: String, made: &[u8]) -> Vec<u8> {
    let place = place(file);
    if !place.exists() && std::env::var_os("GOLDEN").is_some_and(|what| what == "write") {
        fs::write(&place, made).unwrap();
    }
    fs::read(&place).unwrap_or_else(|wrong| panic!("{}: {wrong}", place.display()))
}

#[test]
fn every_sample_is_read_as_what_it_was() {
    for (name, record) in samples() {
        let bytes = Bytes::from(golden(format!("{name}.bin"), &record.encode()));
        assert_eq!(Record::decode(&bytes).unwrap(), record, "{name}");
        assert_eq!(Header::decode(&bytes).unwrap(), record.header, "{name}");
    }
}

#[test]
fn every_sample_is_written_as_it_was() {
    for (name, record) in samples() {
        let bytes = record.encode();
        assert_eq!(bytes, golden(format!("{name}.bin"), &bytes), "{name}");
    }
}

#[test]
fn the_layout_written_down_takes_every_sample_apart() {
    for (name, record) in samples() {
        let told = taken_apart(&golden(format!("{name}.bin"), &record.encode()));
        assert_eq!(told.as_bytes(), golden(format!("{name}.txt"), told.as_bytes()), "{name}");
    }
}

#[test]
fn every_file_is_a_sample_that_is_tried() {
    let mut found = fs::read_dir(place(String::new()))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|file| file != "README.md")
        .collect::<Vec<_>>();
    found.sort_unstable();
    let mut known =
        samples().iter().flat_map(|(name, _)| ["bin", "txt"].map(|end| format!("{name}.{end}"))).collect::<Vec<_>>();
    known.sort_unstable();
    assert_eq!(found, known);
}

/// A record in words, by `docs/record-format.md` alone.
fn taken_apart(record: &[u8]) -> String {
    let number = |from: usize, bytes: usize| {
        record[from..from + bytes].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let mut told = String::new();
    for (name, from, bytes) in [
        ("format", 4, 1),
        ("kind", 5, 1),
        ("flags", 6, 2),
        ("epoch", 8, 8),
        ("nonce", 16, 8),
        ("seq", 24, 8),
        ("length", 32, 4),
        ("checksum", 36, 4),
    ] {
        let number = number(from, bytes);
        writeln!(told, "{from:4} {name} {number} (0x{number:x})").unwrap();
    }
    let mut at = 40;
    while at < record.len() {
        let (start, tag) = (at, record[at]);
        at += 1;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = record[at];
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let critical = if tag >= 0x80 { ", critical" } else { "" };
        writeln!(told, "{start:4} section {}{critical}, {length} bytes", tag & 0x7f).unwrap();
        for line in record[at..at + length].chunks(16) {
            let hex = line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
            let text =
                line.iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' });
            writeln!(told, "{at:9} {hex:48} {}", text.collect::<String>()).unwrap();
            at += line.len();
        }
    }
    told
}
