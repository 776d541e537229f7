//! What goes through: every member of an envelope, every answer, everything known of an id.

use std::sync::Arc;

use engine::event::{ContentType, EncodedEvent};
use engine::message::{
    Answer, CommandId, Envelope, FieldError, Fingerprint, NoAnswer, Outcome, Precondition, Provenance,
};
use engine::position::{Offset, Partition, Position, Version};
use engine::record::{Commit, StreamEvents};
use engine::stream::{Tenant, partition_of};
use engine::time::Timestamp;
use engine_runtime::node::KnownCommand;
use engine_runtime::peers::Peers;
use uuid::Uuid;

use crate::door::{Answered, LONG, Noted, PARTITIONS, Site, Wish, home, note, peers, site, stream};

async fn ask(site: &Site, envelope: Envelope<Wish>) -> Answered {
    let partition = home(&envelope);
    peers().submit(&site.owner, partition, envelope, LONG).await
}

#[tokio::test]
async fn a_command_is_decided_by_its_owner_and_told_with_its_state() {
    let site = site().await;
    let envelope = note("beans");
    let Ok(Answer::Decided(told)) = ask(&site, envelope.clone()).await else { panic!("not decided") };
    assert_eq!(told.outcome, Outcome { status: 201, ..Outcome::default() });
    assert_eq!(told.position, Position { partition: home(&envelope), offset: Offset((1 << 53) - 1) });
    assert_eq!(told.recorded_at, Timestamp(1_795_000_000_123_456));
    assert_eq!(told.version, Version(12));
    assert_eq!(told.state.as_deref(), Some(&Noted("beans".to_owned())));
    assert!(!told.replayed);
}

#[tokio::test]
async fn every_member_of_an_envelope_arrives() {
    let site = site().await;
    let preconditions = [
        Precondition::None,
        Precondition::Exists,
        Precondition::Absent,
        Precondition::AnyOf(Vec::new()),
        Precondition::AnyOf(vec![Version(3), Version(u64::MAX)]),
    ];
    let provenances = [
        Provenance::default(),
        Provenance {
            actor: Some("anna".into()),
            reason: Some("".into()),
            correlation_id: Some(CommandId(Uuid::from_u128(1))),
            causation_id: Some(CommandId(Uuid::from_u128(2))),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        },
    ];
    for precondition in preconditions {
        for provenance in &provenances {
            for command in [None, note("x").command] {
                let sent = Envelope {
                    id: CommandId(Uuid::now_v7()),
                    tenant: Tenant::new("shop.2").unwrap(),
                    resource: stream("note-1"),
                    fingerprint: Fingerprint([3; 16]),
                    precondition: precondition.clone(),
                    provenance: provenance.clone(),
                    command: command.clone(),
                };
                ask(&site, sent.clone()).await.unwrap();
                let (got, within) = site.door.asked.borrow().last().unwrap().clone();
                assert_eq!(format!("{got:?}"), format!("{sent:?}"));
                assert!(within <= LONG && within > LONG / 2, "the deadline was not passed on: {within:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_answer_comes_back_as_it_was_given() {
    let site = site().await;
    let refused = Outcome {
        status: 409,
        code: Some("jar-full".into()),
        detail: Some("the jar is full".to_owned()),
        errors: vec![FieldError::at("/lines/0", "too-many", "at most 3").with("available", 3)],
        answer: Some(serde_json::json!({"on_hand": 3})),
    };
    let outcome = refused.clone();
    site.door.says(move |envelope| {
        let decided = crate::door::decided(envelope);
        Ok(Answer::Decided(engine::message::Decided {
            outcome: outcome.clone(),
            state: None,
            replayed: true,
            ..decided
        }))
    });
    let Ok(Answer::Decided(told)) = ask(&site, note("x")).await else { panic!("not decided") };
    assert_eq!((told.outcome, told.state, told.replayed), (refused, None, true));

    let errors = vec![FieldError::at("/sku", "too-long", "64 bytes"), FieldError::at("/n", "missing", "say how many")];
    let said = errors.clone();
    site.door.says(move |_| Ok(Answer::Invalid(said.clone())));
    assert!(matches!(ask(&site, note("x")).await, Ok(Answer::Invalid(told)) if told == errors));
    site.door.says(|_| Ok(Answer::Reused));
    assert!(matches!(ask(&site, note("x")).await, Ok(Answer::Reused)));
    site.door.says(|_| Ok(Answer::Expired));
    assert!(matches!(ask(&site, note("x")).await, Ok(Answer::Expired)));
    site.door.says(|_| Ok(Answer::Unheard));
    assert!(matches!(ask(&site, note("x")).await, Ok(Answer::Unheard)));
}

#[tokio::test]
async fn every_reason_for_no_answer_comes_back_as_it_was_given() {
    let site = site().await;
    let envelope = note("x");
    let peers = peers();
    for reason in [
        NoAnswer::Overloaded,
        NoAnswer::NotOwner,
        NoAnswer::Unreachable,
        NoAnswer::Draining,
        NoAnswer::Unconfirmed,
        NoAnswer::LogFull,
        NoAnswer::LogStopped,
        NoAnswer::LogDamaged,
        NoAnswer::TimedOut,
    ] {
        site.door.says(move |_| Err(reason));
        *site.door.known.lock() = Err(reason);
        let told = peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG).await;
        assert_eq!(told.unwrap_err(), reason);
        let told = peers.inquire(&site.owner, home(&envelope), Tenant::default(), envelope.id, LONG).await;
        assert_eq!(told.unwrap_err(), reason);
    }
}

#[tokio::test]
async fn all_that_is_known_of_an_id_comes_back() {
    let site = site().await;
    let id = CommandId(Uuid::now_v7());
    let (tenant, resource) = (Tenant::new("shop.2").unwrap(), stream("note-1"));
    let partition = partition_of(&tenant, &resource, PARTITIONS);
    let commit = Commit {
        command_id: id,
        tenant: tenant.clone(),
        resource: resource.clone(),
        resource_version: Version(2),
        fingerprint: Fingerprint([4; 16]),
        outcome: Outcome { status: 200, answer: Some(serde_json::json!({"n": 1})), ..Outcome::default() },
        provenance: Provenance { actor: Some("anna".into()), ..Provenance::default() },
        recorded_at: Timestamp(5),
        streams: vec![StreamEvents {
            name: resource.clone(),
            first_version: Version(2),
            events: vec![EncodedEvent {
                event_type: "Noted".into(),
                schema_version: 1,
                content_type: ContentType::Json,
                payload: bytes::Bytes::from_static(b"\"x\""),
            }],
        }],
    };
    let known = vec![
        KnownCommand {
            resource: resource.clone(),
            commit: Some((Position { partition, offset: Offset(9) }, Arc::new(commit))),
        },
        KnownCommand { resource: stream("note-2"), commit: None },
    ];
    *site.door.known.lock() = Ok(known.clone());
    let told = peers().inquire(&site.owner, partition, tenant.clone(), id, LONG).await.unwrap();
    assert_eq!(told, known);
    assert_eq!(*site.door.inquired.lock(), [(partition, tenant, id)]);

    *site.door.known.lock() = Ok(Vec::new());
    let told = peers().inquire(&site.owner, Partition(3), Tenant::default(), id, LONG).await.unwrap();
    assert_eq!(told, []);
}

#[tokio::test]
async fn many_commands_share_one_connection_and_each_gets_its_own_answer() {
    let site = site().await;
    let peers = Arc::new(peers());
    let asking = (0..500).map(|number| {
        let envelope = note(&number.to_string());
        peers.submit(&site.owner, home(&envelope), envelope, LONG)
    });
    for (number, answer) in futures::future::join_all(asking).await.into_iter().enumerate() {
        let Ok(Answer::Decided(told)) = answer else { panic!("not decided: {answer:?}") };
        assert_eq!(told.state.as_deref(), Some(&Noted(number.to_string())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_of_the_way_can_be_measured() {
    let way = crate::measurement::Way::open().await;
    // As many as may be under way, one command each.
    for callers in [1, 1_024] {
        let measured = way.measure(callers, std::time::Duration::ZERO).await;
        assert_eq!((measured.answered, measured.not_answered), (callers, 0));
    }
}
