//! Real nodes on one log that reach one another over gRPC: whichever takes a command, its answer is the owner's, also
//! while partitions move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::message::{Answer, CommandId, Envelope, NoAnswer, Precondition};
use engine::position::{Partition, Version};
use engine::stream::Tenant;
use engine_runtime::node::{Node, PartitionStatus};
use engine_runtime::remote::{GrpcPeers, RemoteOptions, Serving, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::business::{Business, Wish};
use crate::house::{House, LONG, PARTITIONS, add, asked, decided, id, jar, of_main};

struct Neighbour {
    node: Node<Business>,
    hint: watch::Sender<Arc<BTreeSet<Partition>>>,
    serving: Serving,
    shutdown: CancellationToken,
    // Its directory lives as long as the node.
    _house: House,
}

impl Neighbour {
    /// Moves in beside `like` and leads these.
    async fn new(like: &House, wanted: &[u16]) -> Self {
        let mut house = House::over(like.log.clone(), like.genesis);
        (house.bell, house.clock) = (like.bell.clone(), like.clock.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peers = Arc::new(GrpcPeers::new(house.genesis.log, &Business, RemoteOptions::default()));
        let (hint, hinted) = watch::channel(set(wanted));
        let node = house.try_node_with(&address, &address, hinted, peers).await.unwrap();
        let shutdown = CancellationToken::new();
        let door = Arc::new(node.clone());
        let serving = serve::<Business>(listener, door, RemoteOptions::default(), shutdown.clone()).unwrap();
        Self { node, hint, serving, shutdown, _house: house }
    }

    fn wants(&self, wanted: &[u16]) {
        self.hint.send_replace(set(wanted));
    }

    /// Waits until it leads these and knows who leads the others.
    async fn leads(&self, wanted: &[u16]) {
        let wanted = set(wanted);
        let reached = self.node.until_status(|all| {
            (0..).map(Partition).zip(all).all(|(partition, status)| match status {
                PartitionStatus::Leading(_) => wanted.contains(&partition),
                PartitionStatus::Following(Some(_)) => !wanted.contains(&partition),
                _ => false,
            })
        });
        let reached = tokio::time::timeout(LONG, reached).await;
        assert!(reached.is_ok(), "it stands like this: {:?}", self.node.status());
    }
}

fn set(numbers: &[u16]) -> Arc<BTreeSet<Partition>> {
    Arc::new(numbers.iter().copied().map(Partition).collect())
}

async fn two() -> (House, Neighbour, Neighbour) {
    let house = House::new();
    let (left, right) = (Neighbour::new(&house, &[0, 1]).await, Neighbour::new(&house, &[2, 3]).await);
    left.leads(&[0, 1]).await;
    right.leads(&[2, 3]).await;
    (house, left, right)
}

/// A jar in each partition.
fn jars(node: &Node<Business>) -> Vec<String> {
    let of = |partition| {
        let mut names = (0..).map(|number| format!("{number}-jar"));
        names.find(|name| node.partition_of(&Tenant::default(), &jar(name)) == Partition(partition)).unwrap()
    };
    (0..PARTITIONS).map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_any_command() {
    let (_log, left, right) = two().await;
    for name in jars(&left.node) {
        for (times, neighbour) in [&left, &right, &left].into_iter().enumerate() {
            let told = decided(neighbour.node.submit(asked(id(), add(&name, 5))).await);
            assert_eq!(told.state.unwrap().filled(), 5 * (times as u64 + 1));
            assert_eq!(told.version, Version(times as u64 + 1));
        }
        // What the business says no to, and what was demanded of the version, come back alike.
        for neighbour in [&left, &right] {
            let told = decided(neighbour.node.submit(asked(id(), add(&name, 1_000))).await);
            assert!(!told.outcome.is_accepted());
            let late = Envelope { precondition: Precondition::AnyOf(vec![Version(1)]), ..asked(id(), add(&name, 1)) };
            assert_eq!(decided(neighbour.node.submit(late).await).outcome.status, 412);
            let invalid = asked(id(), Wish::Nonsense { jar: jar(&name) });
            assert!(matches!(neighbour.node.submit(invalid).await, Ok(Answer::Invalid(_))));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_through_another_node_is_told_the_same() {
    let (_log, left, right) = two().await;
    for name in jars(&left.node) {
        let command = asked(id(), add(&name, 7));
        let first = decided(left.node.submit(command.clone()).await);
        let again = decided(right.node.submit(command.clone()).await);
        assert!(again.replayed);
        assert_eq!(
            (again.position, again.version, again.recorded_at),
            (first.position, first.version, first.recorded_at)
        );
        assert_eq!(again.outcome, first.outcome);
        assert_eq!(again.state, first.state);
        let other = Envelope { id: command.id, ..asked(id(), add(&name, 8)) };
        assert!(matches!(right.node.submit(other.clone()).await, Ok(Answer::Reused)));
        assert!(matches!(left.node.submit(other).await, Ok(Answer::Reused)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_knows_what_became_of_an_id() {
    let (_log, left, right) = two().await;
    for name in jars(&left.node) {
        let command = asked(id(), add(&name, 7));
        let told = decided(left.node.submit(command.clone()).await);
        for neighbour in [&left, &right] {
            let known = neighbour.node.inquire(Tenant::default(), command.id).await.unwrap();
            let [known] = &known[..] else { panic!("known once: {known:?}") };
            let (position, commit) = known.commit.as_ref().unwrap();
            assert_eq!((*position, commit.command_id), (told.position, command.id));
            assert_eq!(neighbour.node.inquire(Tenant::default(), id()).await.unwrap(), []);
            let unheard = Envelope { command: None, ..asked(id(), add(&name, 1)) };
            assert!(matches!(neighbour.node.submit(unheard).await, Ok(Answer::Unheard)));
        }
    }
}

/// Callers that fill jars of all partitions through one node until told to stop. Each try is answered, or asked again
/// with the same id; what was told adds up to what is there.
async fn load(through: Node<Business>, over: Arc<AtomicBool>, caller: usize, unknown: bool) -> Vec<(String, u64)> {
    let mut filled = jars(&through).into_iter().map(|name| (format!("{name}-{caller}"), 0)).collect::<Vec<_>>();
    'all: for round in 0.. {
        for (name, filled) in &mut filled {
            let command = asked(id(), add(&format!("{name}-{}", round / 100), 1));
            loop {
                match through.submit(command.clone()).await {
                    Ok(Answer::Decided(told)) => {
                        assert!(told.outcome.is_accepted(), "{told:?}");
                        *filled += 1;
                        break;
                    }
                    Err(no) if unknown && no != NoAnswer::Draining => {}
                    other => panic!("{name}: {other:?}"),
                }
            }
            if over.load(Ordering::SeqCst) {
                break 'all;
            }
        }
    }
    filled
}

async fn adds_up(at: &Node<Business>, told: Vec<(String, u64)>) -> u64 {
    let mut all = 0;
    for (name, told) in told {
        let mut filled = 0;
        for round in 0.. {
            let command = Envelope {
                command: None,
                ..asked(CommandId(uuid::Uuid::new_v4()), add(&format!("{name}-{round}"), 1))
            };
            // The owner has answered: what it knows is in the log that this node follows.
            at.submit(command).await.unwrap();
            let stream = of_main(&jar(&format!("{name}-{round}")));
            let current = at.watch(stream).await.unwrap().current();
            let Some(current) = current else { break };
            filled += current.state.filled();
        }
        assert_eq!(filled, told, "{name}");
        all += filled;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_in_order_costs_no_caller_an_answer() {
    let (_log, left, right) = two().await;
    let over = Arc::new(AtomicBool::new(false));
    let callers = (0..8).map(|caller| tokio::spawn(load(left.node.clone(), over.clone(), caller, false)));
    let callers = callers.collect::<Vec<_>>();
    right.wants(&[]);
    left.wants(&[0, 1, 2, 3]);
    left.leads(&[0, 1, 2, 3]).await;
    assert!(right.node.drain(LONG).await);
    right.shutdown.cancel();
    right.serving.ended().await;
    over.store(true, Ordering::SeqCst);
    for caller in callers {
        assert!(adds_up(&left.node, caller.await.unwrap()).await > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_loses_and_doubles_nothing() {
    let (_log, left, right) = two().await;
    let over = Arc::new(AtomicBool::new(false));
    let callers = (0..8).map(|caller| tokio::spawn(load(left.node.clone(), over.clone(), caller, true)));
    let callers = callers.collect::<Vec<_>>();
    // Some of each partition first.
    for name in jars(&left.node) {
        decided(left.node.submit(asked(id(), add(&name, 1))).await);
    }
    right.node.abandon().await;
    right.shutdown.cancel();
    right.serving.ended().await;
    left.wants(&[0, 1, 2, 3]);
    left.leads(&[0, 1, 2, 3]).await;
    over.store(true, Ordering::SeqCst);
    for caller in callers {
        assert!(adds_up(&left.node, caller.await.unwrap()).await > 0);
    }
}
