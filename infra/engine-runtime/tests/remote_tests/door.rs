//! A business that only notes what it is asked, a door that answers what it is told to, and a way between two nodes that
//! can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use engine::decider::{Context, Decider, Decision, States};
use engine::event::{ContentType, EncodedEvent, Event, EventMeta, UnreadableEvent};
use engine::message::{
    Answer, CommandId, Decided, Envelope, Fingerprint, NoAnswer, Outcome, Portable, Precondition, Provenance,
};
use engine::position::{LogId, Offset, Partition, Position, Version};
use engine::stream::{StreamName, Tenant, partition_of};
use engine::time::Timestamp;
use engine_runtime::node::KnownCommand;
use engine_runtime::peers::Owner;
use engine_runtime::remote::{GrpcPeers, LocalDoor, RemoteOptions, Serving, serve};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const PARTITIONS: u16 = 4;
/// Longer than anything here takes: who waits for this waits in vain.
pub const LONG: Duration = Duration::from_secs(20);
pub const LOG: LogId = LogId(Uuid::from_u128(7));

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Wish {
    Note { stream: StreamName, text: String },
}

impl Portable for Wish {
    const FORMAT: u32 = 3;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noted(pub String);

impl Event for Noted {
    fn encode(&self) -> EncodedEvent {
        EncodedEvent {
            event_type: "Noted".into(),
            schema_version: 1,
            content_type: ContentType::Json,
            payload: serde_json::to_vec(self).unwrap().into(),
        }
    }

    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        Ok(serde_json::from_slice(&stored.payload).unwrap())
    }
}

pub struct Notes;

impl Decider for Notes {
    type Command = Wish;
    type Event = Noted;
    type State = Noted;

    fn version(&self) -> u32 {
        5
    }

    fn streams(&self, Wish::Note { stream, .. }: &Wish) -> Vec<StreamName> {
        vec![stream.clone()]
    }

    fn decide(&self, _: &States<'_, Noted>, Wish::Note { text, .. }: &Wish, _: &Context) -> Decision<Noted> {
        Decision::accept(vec![(0, Noted(text.clone()))])
    }

    fn evolve(&self, _: Option<Noted>, event: &Noted, _: &EventMeta) -> Noted {
        event.clone()
    }

    fn remembers(&self, _: &Noted, _: CommandId) -> Option<Version> {
        None
    }
}

pub type Answered = Result<Answer<Noted>, NoAnswer>;
type Speak = Box<dyn Fn(&Envelope<Wish>) -> Answered + Send + Sync>;

/// Answers what it is told to, once it is open, and notes what it was asked.
pub struct Door {
    pub log: LogId,
    pub decider_version: AtomicU32,
    pub speak: Mutex<Speak>,
    pub known: Mutex<Result<Vec<KnownCommand>, NoAnswer>>,
    open: watch::Sender<bool>,
    pub asked: watch::Sender<Vec<(Envelope<Wish>, Duration)>>,
    pub inquired: Mutex<Vec<(Partition, Tenant, CommandId)>>,
    pub finished: watch::Sender<u32>,
}

impl Door {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            log: LOG,
            decider_version: AtomicU32::new(5),
            speak: Mutex::new(Box::new(|envelope| Ok(Answer::Decided(decided(envelope))))),
            known: Mutex::new(Ok(Vec::new())),
            open: watch::channel(true).0,
            asked: watch::channel(Vec::new()).0,
            inquired: Mutex::default(),
            finished: watch::channel(0).0,
        })
    }

    pub fn says(&self, speak: impl Fn(&Envelope<Wish>) -> Answered + Send + Sync + 'static) {
        *self.speak.lock() = Box::new(speak);
    }

    pub fn close(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many commands have come to it.
    pub async fn until_asked(&self, times: usize) {
        self.asked.subscribe().wait_for(|asked| asked.len() >= times).await.unwrap();
    }

    pub async fn until_finished(&self, times: u32) {
        self.finished.subscribe().wait_for(|finished| *finished >= times).await.unwrap();
    }

    pub fn times_asked(&self) -> usize {
        self.asked.borrow().len()
    }
}

/// The door as others see it; an own type, so that what it does can borrow the door itself.
pub struct Entrance(pub Arc<Door>);

impl LocalDoor<Notes> for Entrance {
    fn log_id(&self) -> LogId {
        self.0.log
    }

    fn decider_version(&self) -> u32 {
        self.0.decider_version.load(Ordering::SeqCst)
    }

    fn partition_of(&self, tenant: &Tenant, stream: &StreamName) -> Partition {
        partition_of(tenant, stream, PARTITIONS)
    }

    fn submit_here(&self, envelope: Envelope<Wish>, within: Duration) -> BoxFuture<'static, Answered> {
        let door = self.0.clone();
        async move {
            door.asked.send_modify(|asked| asked.push((envelope.clone(), within)));
            door.open.subscribe().wait_for(|open| *open).await.unwrap();
            let answer = (door.speak.lock())(&envelope);
            door.finished.send_modify(|times| *times += 1);
            answer
        }
        .boxed()
    }

    fn inquire_here(
        &self,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>> {
        self.0.inquired.lock().push((partition, tenant, id));
        let known = self.0.known.lock().clone();
        async move { known }.boxed()
    }
}

pub fn decided(envelope: &Envelope<Wish>) -> Decided<Noted> {
    let text = match &envelope.command {
        Some(Wish::Note { text, .. }) => text.clone(),
        None => String::new(),
    };
    Decided {
        outcome: Outcome { status: 201, ..Outcome::default() },
        position: Position {
            partition: partition_of(&envelope.tenant, &envelope.resource, PARTITIONS),
            offset: Offset((1 << 53) - 1),
        },
        recorded_at: Timestamp(1_795_000_000_123_456),
        version: Version(12),
        state: Some(Arc::new(Noted(text))),
        replayed: false,
    }
}

pub fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

pub fn note(text: &str) -> Envelope<Wish> {
    Envelope {
        id: CommandId(Uuid::now_v7()),
        tenant: Tenant::default(),
        resource: stream("note-1"),
        fingerprint: Fingerprint([9; 16]),
        precondition: Precondition::None,
        provenance: Provenance::default(),
        command: Some(Wish::Note { stream: stream("note-1"), text: text.to_owned() }),
    }
}

pub fn home(envelope: &Envelope<Wish>) -> Partition {
    partition_of(&envelope.tenant, &envelope.resource, PARTITIONS)
}

/// A door that others can reach.
pub struct Site {
    pub door: Arc<Door>,
    pub owner: Owner,
    pub shutdown: CancellationToken,
    pub serving: Serving,
}

pub fn owner_at(address: SocketAddr) -> Owner {
    Owner { node: "b".into(), address: address.to_string().into() }
}

pub async fn site_with(options: RemoteOptions) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (door, shutdown) = (Door::new(), CancellationToken::new());
    let serving = serve::<Notes>(listener, Arc::new(Entrance(door.clone())), options, shutdown.clone()).unwrap();
    Site { door, owner: owner_at(serving.address()), shutdown, serving }
}

pub async fn site() -> Site {
    site_with(RemoteOptions::default()).await
}

pub fn peers() -> GrpcPeers<Notes> {
    GrpcPeers::new(LOG, &Notes, RemoteOptions::default())
}

/// A way to `to` that can be cut, as if the process there had died.
pub struct Way {
    pub owner: Owner,
    cut: CancellationToken,
}

impl Way {
    pub async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (owner, cut) = (owner_at(listener.local_addr().unwrap()), CancellationToken::new());
        let carrying = cut.clone();
        tokio::spawn(async move {
            while let Some(Ok((mut near, _))) = carrying.run_until_cancelled(listener.accept()).await {
                let carrying = carrying.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    carrying.run_until_cancelled(tokio::io::copy_bidirectional(&mut near, &mut far)).await
                });
            }
        });
        Self { owner, cut }
    }

    pub fn cut(&self) {
        self.cut.cancel();
    }
}
