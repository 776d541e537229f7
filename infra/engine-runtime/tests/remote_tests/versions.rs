//! Two versions of a business on one log, as in the middle of an upgrade: their states are written differently and neither
//! can read the other's. Whichever node takes a command, and whichever leads, the answer is whole.

use std::sync::Arc;

use engine::decider::{Context, Decider, Decision, States, StreamState};
use engine::event::EventMeta;
use engine::message::{Answer, CommandId, Envelope, Precondition};
use engine::position::{Partition, Version};
use engine::saga::{Agenda, Heard, Pending, Reactor, Timer};
use engine::stream::{StreamName, Tenant};
use engine::time::Timestamp;
use engine_runtime::node::{Node, PartitionStatus};
use engine_runtime::remote::{GrpcPeers, RemoteOptions, serve};
use engine_runtime::wanted;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::business::{Business, Happened, Thing, Wish};
use crate::house::{House, LONG, PARTITIONS, add, asked, id, jar};

/// The next version: it counts how often a stream was written, too.
struct LaterBusiness;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    thing: Thing,
    times: u64,
}

impl Decider for LaterBusiness {
    type Command = Wish;
    type Event = Happened;
    type State = Later;

    fn version(&self) -> u32 {
        Business.version() + 1
    }

    fn streams(&self, command: &Wish) -> Vec<StreamName> {
        Business.streams(command)
    }

    fn decide(&self, states: &States<'_, Later>, command: &Wish, context: &Context) -> Decision<Happened> {
        let before = states
            .iter()
            .map(|stream| StreamState {
                name: stream.name.clone(),
                version: stream.version,
                state: stream.state.as_ref().map(|state| Arc::new(state.thing.clone())),
            })
            .collect::<Vec<_>>();
        Business.decide(&States::new(&before), command, context)
    }

    fn evolve(&self, state: Option<Later>, event: &Happened, meta: &EventMeta) -> Later {
        let times = state.as_ref().map_or(0, |state| state.times) + 1;
        Later { thing: Business.evolve(state.map(|state| state.thing), event, meta), times }
    }

    fn remembers(&self, state: &Later, id: CommandId) -> Option<Version> {
        Business.remembers(&state.thing, id)
    }
}

impl Reactor for LaterBusiness {
    type Call = String;
    type Returned = String;

    fn react(&self, stream: &StreamName, version: Version, state: &Later) -> Agenda<Wish, String> {
        Business.react(stream, version, &state.thing)
    }

    fn heard(
        &self,
        stream: &StreamName,
        state: &Later,
        pending: &Pending<Wish, String>,
        heard: &Heard<String>,
        now: Timestamp,
    ) -> Option<(CommandId, Wish)> {
        Business.heard(stream, &state.thing, pending, heard, now)
    }

    fn fire(&self, stream: &StreamName, state: &Later, timer: &Timer) -> Wish {
        Business.fire(stream, &state.thing, timer)
    }
}

/// Moves a node of this version in beside `like`; it leads these.
async fn neighbour<R>(like: &House, decider: R, leads: [u16; 2]) -> (Node<R>, House, CancellationToken)
where
    R: Reactor<Command = Wish, Call = String, Returned = String>,
{
    let mut house = House::over(like.log.clone(), like.genesis);
    (house.bell, house.clock) = (like.bell.clone(), like.clock.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peers = Arc::new(GrpcPeers::new(house.genesis.log, &decider, RemoteOptions::default()));
    let wanted = wanted::only(leads.map(Partition));
    let node = house.try_node_of(decider, &address, &address, wanted, peers).await.unwrap();
    let shutdown = CancellationToken::new();
    serve::<R>(listener, Arc::new(node.clone()), RemoteOptions::default(), shutdown.clone()).unwrap();
    (node, house, shutdown)
}

async fn until_all_led<R: Reactor>(node: &Node<R>) {
    let led =
        |status: &PartitionStatus| matches!(status, PartitionStatus::Leading(_) | PartitionStatus::Following(Some(_)));
    tokio::time::timeout(LONG, node.until_status(|all| all.iter().all(led))).await.unwrap();
}

/// What a caller sees of an answer: the jar's contents, its version, and whether it was told before.
async fn told<R>(node: &Node<R>, envelope: Envelope<Wish>, filled: impl Fn(&R::State) -> u64) -> (u64, u64, bool)
where
    R: Reactor<Command = Wish>,
{
    match node.submit(envelope).await {
        Ok(Answer::Decided(decided)) => {
            assert!(decided.outcome.is_accepted(), "{decided:?}");
            (filled(&decided.state.unwrap()), decided.version.0, decided.replayed)
        }
        other => panic!("not decided: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_versions_take_commands_for_each_other() {
    let log = House::new();
    let (old, _old_house, _) = neighbour(&log, Business, [0, 1]).await;
    let (new, _new_house, _) = neighbour(&log, LaterBusiness, [2, 3]).await;
    until_all_led(&old).await;
    until_all_led(&new).await;
    let (by_old, by_new) = (Thing::filled, |later: &Later| later.thing.filled());
    for partition in (0..PARTITIONS).map(Partition) {
        let mut names = (0..).map(|number| format!("{number}-jar"));
        let name = names.find(|name| old.partition_of(&Tenant::default(), &jar(name)) == partition).unwrap();
        let (first, second) = (asked(id(), add(&name, 5)), asked(id(), add(&name, 7)));
        assert_eq!(told(&old, first.clone(), by_old).await, (5, 1, false));
        assert_eq!(told(&new, second.clone(), by_new).await, (12, 2, false));
        // A repeat is told as it was, not as it is.
        assert_eq!(told(&new, first, by_new).await, (5, 1, true));
        assert_eq!(told(&old, second, by_old).await, (12, 2, true));
        // What needs no state comes as it is, from either.
        let full = asked(id(), add(&name, 1_000));
        let late = Envelope { precondition: Precondition::AnyOf(vec![Version(1)]), ..asked(id(), add(&name, 1)) };
        for (refused, status) in [(full, 409), (late, 412)] {
            let Ok(Answer::Decided(first)) = old.submit(refused.clone()).await else { panic!("not decided") };
            let Ok(Answer::Decided(again)) = new.submit(refused.clone()).await else { panic!("not decided") };
            assert_eq!((first.outcome.status, &first.outcome), (status, &again.outcome));
            assert!(again.replayed && again.state.is_none() && first.state.is_none());
            for known in [
                old.inquire(Tenant::default(), refused.id).await.unwrap(),
                new.inquire(Tenant::default(), refused.id).await.unwrap(),
            ] {
                assert_eq!(known[0].commit.as_ref().unwrap().0, first.position);
            }
        }
    }
}
