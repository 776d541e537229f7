//! Nodes that do not understand each other: another log, another version, nonsense. Refused before anything is decided.
//! Requests are made by hand here, as another version of the program may send them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use engine::message::{Answer, NoAnswer};
use engine::position::LogId;
use engine::stream::{Tenant, partition_of};
use engine_runtime::peers::Peers;
use engine_runtime::remote::{GrpcPeers, RemoteOptions};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::door::{LOG, LONG, Notes, PARTITIONS, Site, home, note, peers, site, stream};

#[derive(Clone, PartialEq, prost::Message)]
struct Terms {
    #[prost(bytes = "bytes", tag = "1")]
    log_id: Bytes,
    #[prost(uint32, tag = "2")]
    format: u32,
    #[prost(uint32, tag = "3")]
    decider_version: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Submit {
    #[prost(message, optional, tag = "1")]
    terms: Option<Terms>,
    #[prost(uint32, tag = "2")]
    partition: u32,
    #[prost(bytes = "bytes", tag = "3")]
    command_id: Bytes,
    #[prost(string, tag = "4")]
    tenant: String,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(bytes = "bytes", tag = "6")]
    fingerprint: Bytes,
    #[prost(message, optional, tag = "7")]
    precondition: Option<Demand>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    command: Option<Bytes>,
    /// Of a later version.
    #[prost(string, tag = "900")]
    later: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Demand {
    #[prost(bool, optional, tag = "1")]
    exists: Option<bool>,
    /// Of a later version.
    #[prost(bool, optional, tag = "9")]
    signed_by_the_boss: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(message, optional, tag = "1")]
    decided: Option<Decided>,
    #[prost(int32, optional, tag = "6")]
    no_answer: Option<i32>,
    #[prost(message, optional, tag = "7")]
    refusal: Option<Refusal>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Decided {
    #[prost(bytes = "bytes", tag = "1")]
    outcome: Bytes,
    #[prost(uint64, tag = "5")]
    version: u64,
    #[prost(bytes = "bytes", optional, tag = "6")]
    state: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refusal {
    #[prost(int32, tag = "1")]
    reason: i32,
    #[prost(string, tag = "2")]
    detail: String,
}

const FOREIGN_LOG: i32 = 1;
const UNSUPPORTED: i32 = 2;
const MALFORMED: i32 = 3;

fn sent() -> Submit {
    Submit {
        terms: Some(Terms { log_id: Bytes::copy_from_slice(LOG.0.as_bytes()), format: 3, decider_version: 5 }),
        partition: u32::from(partition_of(&Tenant::default(), &stream("note-1"), PARTITIONS).0),
        command_id: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()),
        tenant: "main".to_owned(),
        resource: "note-1".to_owned(),
        fingerprint: Bytes::from_static(&[0; 16]),
        precondition: None,
        command: Some(Bytes::from_static(br#"{"Note":{"stream":"note-1","text":"x"}}"#)),
        later: String::new(),
    }
}

async fn call(site: &Site, request: Request<Submit>, path: &'static str) -> Result<Reply, Status> {
    let channel = Endpoint::new(format!("http://{}", site.owner.address)).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Submit, Reply>::default();
    client.unary(request, PathAndQuery::from_static(path), codec).await.map(tonic::Response::into_inner)
}

async fn submit(site: &Site, request: Submit) -> Reply {
    call(site, Request::new(request), "/docket.shards.v1.Shards/Submit").await.unwrap()
}

#[tokio::test]
async fn what_a_later_version_adds_is_passed_over() {
    let site = site().await;
    let reply = submit(&site, Submit { later: "news".to_owned(), ..sent() }).await;
    assert!(reply.decided.is_some());
    assert_eq!(site.door.times_asked(), 1);
}

#[tokio::test]
async fn an_older_command_format_is_read() {
    let site = site().await;
    let terms = Terms { format: 1, ..sent().terms.unwrap() };
    assert!(submit(&site, Submit { terms: Some(terms), ..sent() }).await.decided.is_some());
}

#[tokio::test]
async fn a_node_whose_states_are_of_another_version_is_served_without_the_state() {
    let site = site().await;
    for (decider_version, is_told) in [(5, true), (6, false), (4, false)] {
        let terms = Terms { decider_version, ..sent().terms.unwrap() };
        let decided = submit(&site, Submit { terms: Some(terms), ..sent() }).await.decided.unwrap();
        assert_eq!(decided.state.is_some(), is_told, "{decider_version}");
        assert_eq!((decided.version, &decided.outcome[..]), (12, &br#"{"status":201}"#[..]));
    }
    assert_eq!(site.door.times_asked(), 3);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_not_decided() {
    let site = site().await;
    let terms = || sent().terms.unwrap();
    let id = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let elsewhere = (sent().partition + 1) % u32::from(PARTITIONS);
    let no_demand = Demand { exists: None, signed_by_the_boss: Some(true) };
    let cases = [
        (FOREIGN_LOG, Submit { terms: Some(Terms { log_id: id(&[1; 16]), ..terms() }), ..sent() }),
        (FOREIGN_LOG, Submit { partition: elsewhere, ..sent() }),
        (UNSUPPORTED, Submit { terms: Some(Terms { format: 4, ..terms() }), ..sent() }),
        (UNSUPPORTED, Submit { terms: Some(Terms { format: 0, ..terms() }), ..sent() }),
        (MALFORMED, Submit { terms: None, ..sent() }),
        (MALFORMED, Submit { command_id: id(&[1; 15]), ..sent() }),
        (MALFORMED, Submit { fingerprint: Bytes::new(), ..sent() }),
        (MALFORMED, Submit { tenant: String::new(), ..sent() }),
        (MALFORMED, Submit { resource: "Note".to_owned(), ..sent() }),
        (MALFORMED, Submit { precondition: Some(no_demand), ..sent() }),
        (MALFORMED, Submit { command: Some(id(b"")), ..sent() }),
        (MALFORMED, Submit { command: Some(id(b"{\"Note\":{\"stream\":\"note-1\"")), ..sent() }),
        (MALFORMED, Submit { command: Some(id(b"{\"Burn\":{\"stream\":\"note-1\"}}")), ..sent() }),
        (
            MALFORMED,
            Submit { command: Some(id(br#"{"Note":{"stream":"note-1","text":"secret","loud":true}}"#)), ..sent() },
        ),
    ];
    for (reason, request) in cases {
        let reply = submit(&site, request.clone()).await;
        let refusal = reply.refusal.unwrap_or_else(|| panic!("not refused: {request:?}"));
        assert_eq!(refusal.reason, reason, "{}: {request:?}", refusal.detail);
        assert!(!refusal.detail.is_empty() && !refusal.detail.contains("secret") && !refusal.detail.contains("Burn"));
    }
    assert_eq!(site.door.times_asked(), 0);
}

#[tokio::test]
async fn a_command_whose_time_has_passed_is_not_begun() {
    let site = site().await;
    let mut request = Request::new(sent());
    request.metadata_mut().insert("grpc-timeout", "0n".parse().unwrap());
    match call(&site, request, "/docket.shards.v1.Shards/Submit").await {
        // Whichever of the two clocks is looked at first.
        Ok(reply) => assert_eq!(reply.no_answer, Some(9)),
        Err(status) => assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}"),
    }
    // The next is answered after whatever the first did.
    assert!(submit(&site, sent()).await.decided.is_some());
    assert_eq!(site.door.times_asked(), 1);
}

#[tokio::test]
async fn what_is_not_served_is_not_decided() {
    let site = site().await;
    let status = call(&site, Request::new(sent()), "/docket.shards.v1.Shards/Decree").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(site.door.times_asked(), 0);
}

#[tokio::test]
async fn whoever_is_refused_hears_that_nobody_led_it_there() {
    let site = site().await;
    let envelope = note("x");
    let foreign = GrpcPeers::new(LogId(Uuid::from_u128(8)), &Notes, RemoteOptions::default());
    let told = foreign.submit(&site.owner, home(&envelope), envelope.clone(), LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::NotOwner);
    let told = foreign.inquire(&site.owner, home(&envelope), Tenant::default(), envelope.id, LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::NotOwner);
    assert_eq!((site.door.times_asked(), site.door.inquired.lock().len()), (0, 0));

    let told = peers().submit(&site.owner, home(&envelope), envelope.clone(), LONG).await;
    assert!(matches!(told, Ok(Answer::Decided(decided)) if !decided.lacks_state()));
    site.door.decider_version.store(6, Ordering::SeqCst);
    let told = peers().submit(&site.owner, home(&envelope), envelope.clone(), LONG).await;
    assert!(matches!(told, Ok(Answer::Decided(decided)) if decided.lacks_state()));
    assert!(peers().inquire(&site.owner, home(&envelope), Tenant::default(), envelope.id, LONG).await.is_ok());
}
