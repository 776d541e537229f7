//! What a record's bytes promise at the least: they come back as they went.

use bytes::Bytes;
use engine::event::{ContentType, EncodedEvent};
use engine::message::{CommandId, FieldError, Fingerprint, Outcome, Provenance};
use engine::position::{Epoch, LogId, Nonce, Seq, Version};
use engine::record::{Body, Claim, Commit, Genesis, Header, Kind, Record, StreamEvents};
use engine::stream::{StreamName, Tenant};
use engine::time::Timestamp;
use uuid::Uuid;

fn records() -> Vec<Record> {
    let header = |kind| Header { kind, epoch: Epoch(3), nonce: Nonce(u64::MAX), seq: Seq(300) };
    let event = EncodedEvent {
        event_type: "OrderPlaced".into(),
        schema_version: 1,
        content_type: ContentType::Json,
        payload: Bytes::from_static(br#"{"total":1999}"#),
    };
    let commit = Commit {
        command_id: CommandId(Uuid::from_u128(7)),
        tenant: Tenant::default(),
        resource: StreamName::new("order-1").unwrap(),
        resource_version: Version(2),
        fingerprint: Fingerprint([9; 16]),
        outcome: Outcome { status: 201, ..Outcome::default() },
        provenance: Provenance::default(),
        recorded_at: Timestamp(1_700_000_000_000_000),
        streams: vec![
            StreamEvents {
                name: StreamName::new("order-1").unwrap(),
                first_version: Version(1),
                events: vec![event.clone(), event.clone()],
            },
            StreamEvents {
                name: StreamName::new("payment-1").unwrap(),
                first_version: Version(4),
                events: vec![event],
            },
        ],
    };
    let refusal = Commit {
        outcome: Outcome {
            status: 409,
            code: Some("insufficient-stock".into()),
            detail: Some("only 2 are left".to_owned()),
            errors: vec![FieldError::at("/lines/0/quantity", "too-many", "only 2 are left").with("available", 2)],
            answer: Some(serde_json::Value::Null),
        },
        provenance: Provenance {
            actor: Some("ann".into()),
            reason: Some("".into()),
            correlation_id: Some(CommandId(Uuid::nil())),
            causation_id: Some(CommandId(Uuid::max())),
            traceparent: Some("00-1".into()),
        },
        streams: vec![],
        ..commit.clone()
    };
    vec![
        Record::genesis(Genesis {
            log: LogId(Uuid::from_u128(1)),
            partitions: 12,
            placement_rule: 1,
            format: 1,
            fingerprint_key: [5; 32],
            created_at: Timestamp(1),
        }),
        Record::new(
            header(Kind::Claim),
            Body::Claim(Claim { node: "a".into(), address: "".into(), claimed_at: Timestamp(-1) }),
        ),
        Record::new(header(Kind::Commit), Body::Commit(Box::new(commit))),
        Record::new(header(Kind::Commit), Body::Commit(Box::new(refusal))),
        Record::new(header(Kind::Barrier), Body::Barrier),
        Record::new(header(Kind::Release), Body::Release),
    ]
}

#[test]
fn records_come_back_as_they_went() {
    for record in records() {
        let bytes = record.encode();
        assert_eq!(Header::decode(&bytes).unwrap(), record.header);
        assert_eq!(Record::decode(&bytes).unwrap(), record);
    }
}
