//! Arbitrary records, and bytes that are sealed as records are.
#![allow(dead_code, reason = "each test file uses what it needs")]

use bytes::Bytes;
use engine::event::{ContentType, EncodedEvent};
use engine::message::{At, CommandId, FieldError, Fingerprint, Outcome, Provenance};
use engine::position::{Epoch, LogId, Nonce, PARTITIONS_MAX, Seq, Version};
use engine::record::{Body, Claim, Commit, Genesis, HEADER_BYTES, Header, Kind, Record, Section, StreamEvents};
use engine::stream::{StreamName, Tenant};
use engine::time::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};
use uuid::Uuid;

pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    let body = prop_oneof![
        1 => any_genesis().prop_map(Body::Genesis),
        1 => any_claim().prop_map(Body::Claim),
        6 => any_commit().prop_map(|commit| Body::Commit(Box::new(commit))),
        1 => Just(Body::Barrier),
        1 => Just(Body::Release),
    ];
    (body, any::<[u64; 3]>(), any_later()).prop_map(|(body, [epoch, nonce, seq], later)| {
        let header = Header { kind: kind_of(&body), epoch: Epoch(epoch), nonce: Nonce(nonce), seq: Seq(seq) };
        Record { header, body, later }
    })
}

pub(crate) fn kind_of(body: &Body) -> Kind {
    match body {
        Body::Genesis(_) => Kind::Genesis,
        Body::Claim(_) => Kind::Claim,
        Body::Commit(_) => Kind::Commit,
        Body::Barrier => Kind::Barrier,
        Body::Release => Kind::Release,
    }
}

/// Sections of later versions, with numbers that no kind of record uses yet.
fn any_later() -> impl Strategy<Value = Vec<Section>> {
    let content = vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop_oneof![
        4 => Just(Vec::new()),
        1 => proptest::collection::btree_map(100_u8..128, content, 0..4).prop_map(|sections| {
            sections.into_iter().map(|(number, content)| Section { number, content }).collect()
        }),
    ]
}

fn any_genesis() -> impl Strategy<Value = Genesis> {
    let partitions = 1..=PARTITIONS_MAX;
    (any_uuid(), partitions, any::<[u8; 32]>(), any::<i64>()).prop_map(
        |(log, partitions, fingerprint_key, created_at)| {
            let created_at = Timestamp(created_at);
            Genesis { log: LogId(log), partitions, placement_rule: 1, format: 1, fingerprint_key, created_at }
        },
    )
}

fn any_claim() -> impl Strategy<Value = Claim> {
    (any_text(), any_text(), any::<i64>()).prop_map(|(node, address, claimed_at)| Claim {
        node: node.into(),
        address: address.into(),
        claimed_at: Timestamp(claimed_at),
    })
}

fn any_commit() -> impl Strategy<Value = Commit> {
    let names = (any_uuid(), "[A-Za-z0-9._-]{1,64}", any_name());
    let numbers = (any::<u64>(), any::<[u8; 16]>(), any::<i64>());
    (names, numbers, any_outcome(), any_provenance(), vec((any::<bool>(), any_stream()), 0..4)).prop_map(
        |((id, tenant, resource), (version, fingerprint, recorded_at), outcome, provenance, streams)| {
            let streams = streams.into_iter().map(|(is_resource, stream)| {
                let name = if is_resource { resource.clone() } else { stream.name };
                StreamEvents { name, ..stream }
            });
            Commit {
                command_id: CommandId(id),
                tenant: Tenant::new(&tenant).unwrap(),
                streams: streams.collect(),
                resource,
                resource_version: Version(version),
                fingerprint: Fingerprint(fingerprint),
                outcome,
                provenance,
                recorded_at: Timestamp(recorded_at),
            }
        },
    )
}

fn any_stream() -> impl Strategy<Value = StreamEvents> {
    (any_name(), 1..u64::MAX - 10, vec(any_event(), 1..4)).prop_map(|(name, first_version, events)| StreamEvents {
        name,
        first_version: Version(first_version),
        events,
    })
}

fn any_event() -> impl Strategy<Value = EncodedEvent> {
    let content_type = prop_oneof![Just(ContentType::Json), Just(ContentType::Octets)];
    ("[A-Z][A-Za-z]{0,30}", any::<u16>(), content_type, vec(any::<u8>(), 0..300)).prop_map(
        |(event_type, schema_version, content_type, payload)| EncodedEvent {
            event_type: event_type.into(),
            schema_version,
            content_type,
            payload: payload.into(),
        },
    )
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let code = option::of("[a-z][a-z-]{0,30}");
    (any::<u16>(), code, option::of(any_text()), vec(any_field_error(), 0..3), option::of(any_json())).prop_map(
        |(status, code, detail, errors, answer)| Outcome { status, code: code.map(Into::into), detail, errors, answer },
    )
}

fn any_field_error() -> impl Strategy<Value = FieldError> {
    let at = (0..3, any_text()).prop_map(|(which, text)| match which {
        0 => At::Pointer(text),
        1 => At::Parameter(text),
        _ => At::Header(text),
    });
    // Names that problem documents use themselves cannot be used again for further members.
    let more = proptest::collection::btree_map("m[a-z_]{0,8}", any_json(), 0..3);
    (at, "[a-z-]{1,20}", any_text(), more).prop_map(|(at, code, detail, more)| FieldError {
        at,
        code: code.into(),
        detail,
        more: more.into_iter().collect(),
    })
}

fn any_provenance() -> impl Strategy<Value = Provenance> {
    let texts = (option::of(any_text()), option::of(any_text()), option::of(any_text()));
    (texts, option::of(any_uuid()), option::of(any_uuid())).prop_map(
        |((actor, reason, traceparent), correlation_id, causation_id)| Provenance {
            actor: actor.map(Into::into),
            reason: reason.map(Into::into),
            correlation_id: correlation_id.map(CommandId),
            causation_id: causation_id.map(CommandId),
            traceparent: traceparent.map(Into::into),
        },
    )
}

/// JSON without fractions: answers hold counters, amounts in minor units and texts.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any_text(), inner), 0..4).prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = StreamName> {
    "[a-z]{1,12}-[!-~]{1,60}".prop_map(|name| StreamName::new(&name).unwrap())
}

fn any_text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn any_uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// These bytes with the length and checksum that a record of these bytes has.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let length = u32::try_from(bytes.len() - HEADER_BYTES).unwrap();
    bytes[32..36].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..36]), &bytes[HEADER_BYTES..]);
    bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
    bytes.into()
}

/// A header of this kind code, to be sealed with what follows.
pub(crate) fn header_of(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(b"DKT\x1e");
    bytes[4] = 1;
    bytes[5] = kind;
    bytes
}
