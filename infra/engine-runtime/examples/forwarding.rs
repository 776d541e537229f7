//! How many commands a second go from one node to another, by how many are under way at once. Both ends are in this process
//! and what decides answers at once, so this is the price of the way alone: serialising, HTTP/2, gRPC and back.
//!
//! `cargo run --release -p engine-runtime --example forwarding`

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a measurement, read by whoever runs it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::decider::{Context, Decider, Decision, States};
use engine::event::{ContentType, EncodedEvent, Event, EventMeta, UnreadableEvent};
use engine::message::{
    Answer, CommandId, Decided, Envelope, Fingerprint, NoAnswer, Outcome, Portable, Precondition, Provenance,
};
use engine::position::{LogId, Offset, Partition, Position, Version};
use engine::stream::{StreamName, Tenant};
use engine::time::Timestamp;
use engine_runtime::node::KnownCommand;
use engine_runtime::peers::{Owner, Peers};
use engine_runtime::remote::{GrpcPeers, LocalDoor, RemoteOptions, serve};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LOG: LogId = LogId(Uuid::from_u128(7));
const WITHIN: Duration = Duration::from_secs(30);
/// As long as an order of three lines is.
const TEXT_BYTES: usize = 400;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Text(String);

impl Portable for Text {
    const FORMAT: u32 = 1;
}

impl Event for Text {
    fn encode(&self) -> EncodedEvent {
        let payload = self.0.clone().into_bytes().into();
        EncodedEvent { event_type: "Text".into(), schema_version: 1, content_type: ContentType::Json, payload }
    }

    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        Ok(Self(String::from_utf8_lossy(&stored.payload).into_owned()))
    }
}

struct Texts;

impl Decider for Texts {
    type Command = Text;
    type Event = Text;
    type State = Text;

    fn version(&self) -> u32 {
        1
    }

    fn streams(&self, _: &Text) -> Vec<StreamName> {
        vec![stream()]
    }

    fn decide(&self, _: &States<'_, Text>, command: &Text, _: &Context) -> Decision<Text> {
        Decision::accept(vec![(0, command.clone())])
    }

    fn evolve(&self, _: Option<Text>, event: &Text, _: &EventMeta) -> Text {
        event.clone()
    }

    fn remembers(&self, _: &Text, _: CommandId) -> Option<Version> {
        None
    }
}

fn stream() -> StreamName {
    StreamName::new("text-1").unwrap()
}

/// Decides at once.
struct Door(Arc<Text>);

impl LocalDoor<Texts> for Door {
    fn log_id(&self) -> LogId {
        LOG
    }

    fn decider_version(&self) -> u32 {
        1
    }

    fn partition_of(&self, _: &Tenant, _: &StreamName) -> Partition {
        Partition(0)
    }

    fn submit_here(&self, _: Envelope<Text>, _: Duration) -> BoxFuture<'static, Result<Answer<Text>, NoAnswer>> {
        let answer = Answer::Decided(Decided {
            outcome: Outcome { status: 201, ..Outcome::default() },
            position: Position { partition: Partition(0), offset: Offset(1) },
            recorded_at: Timestamp(1),
            version: Version(1),
            state: Some(self.0.clone()),
            replayed: false,
        });
        async move { Ok(answer) }.boxed()
    }

    fn inquire_here(
        &self,
        _: Partition,
        _: Tenant,
        _: CommandId,
        _: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

fn envelope() -> Envelope<Text> {
    Envelope {
        id: CommandId(Uuid::now_v7()),
        tenant: Tenant::default(),
        resource: stream(),
        fingerprint: Fingerprint([9; 16]),
        precondition: Precondition::None,
        provenance: Provenance::default(),
        command: Some(Text("x".repeat(TEXT_BYTES))),
    }
}

#[tokio::main]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = Arc::new(Door(Arc::new(Text("y".repeat(TEXT_BYTES)))));
    let serving = serve::<Texts>(listener, door, RemoteOptions::default(), CancellationToken::new()).unwrap();
    let owner = Owner { node: "other".into(), address: serving.address().to_string().into() };
    let for_each = Duration::from_secs(std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3));
    let peers = Arc::new(GrpcPeers::new(LOG, &Texts, RemoteOptions::default()));
    for round in 0..3 {
        for in_flight in [1_u64, 16, 64, 128, 256, 512, 1_024] {
            let (done, busy, until) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now() + for_each);
            let (done, busy) = (Arc::new(done), Arc::new(busy));
            let began = Instant::now();
            let callers = (0..in_flight).map(|_| {
                let (peers, owner, done, busy) = (peers.clone(), owner.clone(), done.clone(), busy.clone());
                tokio::spawn(async move {
                    while Instant::now() < until {
                        match peers.submit(&owner, Partition(0), envelope(), WITHIN).await {
                            Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                            Err(_) => busy.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                })
            });
            for caller in callers.collect::<Vec<_>>() {
                caller.await.unwrap();
            }
            let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
            let busy = busy.load(Ordering::Relaxed);
            println!("round {round}  in flight {in_flight:>5}  {rate:>8.0}/s  not answered {busy}");
        }
    }
}
