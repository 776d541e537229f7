//! How many commands a second go from one node to another, by how many are under way at once. Both ends are in this process
//! and what decides answers at once, so this is the price of the way alone: serialising, HTTP/2, gRPC and back.
//!
//! `cargo run --release -p engine-runtime --example forwarding [SECONDS]`: so long for each, 3 by default.

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
use engine_runtime::remote::{GrpcPeers, LocalDoor, RemoteOptions, Serving, serve};
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

/// What the callers of one measurement came to.
pub(crate) struct Measured {
    pub(crate) answered: u64,
    pub(crate) not_answered: u64,
    pub(crate) took: Duration,
}

/// Two ends and a way between them.
pub(crate) struct Way {
    peers: Arc<GrpcPeers<Texts>>,
    owner: Owner,
    _serving: Serving,
}

impl Way {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Arc::new(Door(Arc::new(Text("y".repeat(TEXT_BYTES)))));
        let serving = serve::<Texts>(listener, door, RemoteOptions::default(), CancellationToken::new()).unwrap();
        let owner = Owner { node: "other".into(), address: serving.address().to_string().into() };
        let peers = Arc::new(GrpcPeers::new(LOG, &Texts, RemoteOptions::default()));
        Self { peers, owner, _serving: serving }
    }

    /// So many callers, each of whom sends one command after the other for so long, and one at least.
    pub(crate) async fn measure(&self, callers: u64, for_each: Duration) -> Measured {
        let began = Instant::now();
        let until = began + for_each;
        let (answered, not_answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let callers = (0..callers).map(|_| {
            let (peers, owner) = (self.peers.clone(), self.owner.clone());
            let (answered, not_answered) = (answered.clone(), not_answered.clone());
            tokio::spawn(async move {
                loop {
                    let asked = peers.submit(&owner, Partition(0), envelope(), WITHIN).await;
                    let count = if asked.is_ok() { &answered } else { &not_answered };
                    count.fetch_add(1, Ordering::Relaxed);
                    if Instant::now() >= until {
                        return;
                    }
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        let [answered, not_answered] = [answered, not_answered].map(|count| count.load(Ordering::Relaxed));
        Measured { answered, not_answered, took: began.elapsed() }
    }
}

#[tokio::main]
async fn main() {
    let for_each = std::env::args().nth(1).map_or(3.0, |text| text.parse().expect("seconds"));
    let way = Way::open().await;
    for round in 0..3 {
        for in_flight in [1, 16, 64, 128, 256, 512, 1_024] {
            let measured = way.measure(in_flight, Duration::from_secs_f64(for_each)).await;
            let (rate, busy) = (measured.answered as f64 / measured.took.as_secs_f64(), measured.not_answered);
            println!("round {round}  in flight {in_flight:>5}  {rate:>8.0}/s  not answered {busy}");
        }
    }
}
