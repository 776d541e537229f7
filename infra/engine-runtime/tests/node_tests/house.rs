//! What the tests live in: a log that outlives its nodes, a directory for the state store, an outside that can be told to
//! be silent, and a clock that can be moved.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use engine::log::Log;
use engine::memory::MemoryLog;
use engine::message::{Answer, CommandId, Decided, Envelope, Fingerprint, NoAnswer, Precondition, Provenance};
use engine::ports::Clock;
use engine::position::LogId;
use engine::record::{FORMAT, Genesis, PLACEMENT_RULE};
use engine::saga::Reactor;
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;
use engine_runtime::node::{Node, NodeOptions, Parts, StartFault};
use engine_runtime::outside::Outside;
use engine_runtime::peers::Peers;
use engine_runtime::store::{StateStore, StoreOptions};
use engine_runtime::system::SystemChance;
use engine_runtime::wanted::Wanted;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::business::{Business, Thing, Wish};

pub const PARTITIONS: u16 = 4;
/// Longer than anything here takes: who waits for this waits in vain.
pub const LONG: Duration = Duration::from_secs(20);

/// The real time, moved by what the test says.
pub struct MovedClock(AtomicI64);

impl MovedClock {
    pub fn forward(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        Timestamp(engine_runtime::system::SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// A bell outside.
pub struct Bell {
    open: watch::Sender<bool>,
    failures: AtomicU64,
    pub calls: Arc<Mutex<Vec<CommandId>>>,
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self { open: watch::channel(true).0, failures: AtomicU64::new(0), calls: Arc::default() })
    }

    pub fn be_silent(&self) {
        self.open.send_replace(false);
    }

    pub fn answer_again(&self) {
        self.open.send_replace(true);
    }

    pub fn fail(&self, times: u64) {
        self.failures.store(times, Ordering::SeqCst);
    }
}

impl Outside<String, String> for Bell {
    fn call(&self, id: CommandId, call: String) -> BoxFuture<'static, Result<String, String>> {
        self.calls.lock().push(id);
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let mut open = self.open.subscribe();
        Box::pin(async move {
            open.wait_for(|open| *open).await.map_err(|_| "gone".to_owned())?;
            if fails { Err("nobody there".to_owned()) } else { Ok(format!("{call}: done")) }
        })
    }
}

pub struct House {
    pub log: Arc<dyn Log>,
    pub genesis: Genesis,
    pub directory: Arc<tempfile::TempDir>,
    pub bell: Arc<Bell>,
    pub clock: Arc<MovedClock>,
    pub options: NodeOptions,
    stores: AtomicU64,
}

pub fn genesis() -> Genesis {
    Genesis {
        log: LogId(Uuid::new_v4()),
        partitions: PARTITIONS,
        placement_rule: PLACEMENT_RULE,
        format: FORMAT,
        fingerprint_key: [7; 32],
        created_at: Timestamp(0),
    }
}

impl House {
    pub fn new() -> Self {
        let genesis = genesis();
        Self::over(Arc::new(MemoryLog::new(genesis)), genesis)
    }

    pub fn over(log: Arc<dyn Log>, genesis: Genesis) -> Self {
        Self {
            log,
            genesis,
            directory: Arc::new(tempfile::tempdir().unwrap()),
            bell: Bell::new(),
            clock: Arc::new(MovedClock(AtomicI64::new(0))),
            options: NodeOptions::default(),
            stores: AtomicU64::new(0),
        }
    }

    /// From now on nodes begin with an empty state store.
    pub fn lose_the_state(&self) {
        self.stores.fetch_add(1, Ordering::SeqCst);
    }

    fn store_directory(&self) -> PathBuf {
        self.directory.path().join(format!("state-{}", self.stores.load(Ordering::SeqCst)))
    }

    /// Logs go to the test that causes them, which shows them if it fails.
    fn tell_logs() {
        let logs = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::WARN);
        // Only the first test of a process sets it.
        let _ = logs.try_init();
    }

    pub async fn try_node(&self) -> Result<Node<Business>, StartFault> {
        let wanted = engine_runtime::wanted::all(PARTITIONS);
        self.try_node_with("test", "test", wanted, Arc::new(engine_runtime::peers::Alone)).await
    }

    /// A node that is called so, and reached there.
    pub async fn try_node_with(
        &self,
        name: &str,
        address: &str,
        wanted: Wanted,
        peers: Arc<dyn Peers<Business>>,
    ) -> Result<Node<Business>, StartFault> {
        self.try_node_of(Business, name, address, wanted, peers).await
    }

    /// A node of another version of the business.
    pub async fn try_node_of<R: Reactor<Call = String, Returned = String>>(
        &self,
        decider: R,
        name: &str,
        address: &str,
        wanted: Wanted,
        peers: Arc<dyn Peers<R>>,
    ) -> Result<Node<R>, StartFault> {
        Self::tell_logs();
        let decider = Arc::new(decider);
        let options = StoreOptions::default();
        let (store, _) =
            StateStore::open(&self.store_directory(), self.genesis.log, PARTITIONS, decider.clone(), options).unwrap();
        Node::start(Parts {
            log: self.log.clone(),
            genesis: self.genesis,
            store: Arc::new(store),
            decider,
            outside: self.bell.clone(),
            clock: self.clock.clone(),
            chance: Arc::new(SystemChance),
            node_name: name.to_owned(),
            address: address.to_owned(),
            wanted,
            peers,
            options: self.options.clone(),
        })
        .await
    }

    pub async fn node(&self) -> Node<Business> {
        self.try_node().await.unwrap()
    }
}

pub fn jar(name: &str) -> StreamName {
    StreamName::new(&format!("jar-{name}")).unwrap()
}

pub fn trip(name: &str) -> StreamName {
    StreamName::new(&format!("trip-{name}")).unwrap()
}

pub fn of_main(name: &StreamName) -> StreamId {
    StreamId { tenant: Tenant::default(), name: name.clone() }
}

pub fn id() -> CommandId {
    CommandId(Uuid::new_v4())
}

/// An envelope around a wish, as a caller would make it.
pub fn asked(id: CommandId, wish: Wish) -> Envelope<Wish> {
    let resource = engine::decider::Decider::streams(&Business, &wish).remove(0);
    let text = format!("{wish:?}");
    Envelope {
        id,
        tenant: Tenant::default(),
        resource,
        fingerprint: Fingerprint(*Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).as_bytes()),
        precondition: Precondition::None,
        provenance: Provenance { actor: Some("a test".into()), ..Provenance::default() },
        command: Some(wish),
    }
}

pub fn add(to: &str, amount: u64) -> Wish {
    Wish::Add { jar: jar(to), amount }
}

pub fn decided(answer: Result<Answer<Thing>, NoAnswer>) -> Decided<Thing> {
    match answer {
        Ok(Answer::Decided(decided)) => decided,
        other => panic!("not decided: {other:?}"),
    }
}

/// Waits until the stream is as wanted.
pub async fn until(node: &Node<Business>, stream: &StreamName, wanted: impl Fn(&Thing) -> bool) -> Arc<Thing> {
    let mut watch = node.watch(of_main(stream)).await.unwrap();
    let reached = tokio::time::timeout(LONG, watch.until(|current| wanted(&current.state))).await;
    reached.expect("it takes too long").expect("the node runs").state
}
