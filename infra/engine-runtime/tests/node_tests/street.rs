//! Several houses on one street: nodes that share a log, find one another by address, and are told what to lead. The way
//! of each to the log can be made to lag, as that of a process that was paused and does not know it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::log::{Appender, Delivery, DeliverySink, Log, LogFault, Stored, WakerGuard};
use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::position::{LogId, Offset, Partition};
use engine::stream::Tenant;
use engine_runtime::node::{KnownCommand, Node, PartitionStatus, StartFault};
use engine_runtime::peers::{Owner, Peers};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::business::{Business, Thing, Wish};
use crate::house::{House, LONG, PARTITIONS};

/// Everybody's address.
#[derive(Clone, Default)]
pub struct Street {
    nodes: Arc<Mutex<BTreeMap<String, Node<Business>>>>,
    /// Commands that went from node to node.
    pub forwarded: Arc<Mutex<u64>>,
}

impl Street {
    fn node(&self, owner: &Owner) -> Option<Node<Business>> {
        self.nodes.lock().get(&*owner.address).cloned()
    }
}

impl Peers<Business> for Street {
    fn submit(
        &self,
        owner: &Owner,
        _: Partition,
        envelope: Envelope<Wish>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer<Thing>, NoAnswer>> {
        *self.forwarded.lock() += 1;
        let Some(node) = self.node(owner) else { return Box::pin(async { Err(NoAnswer::Unreachable) }) };
        Box::pin(node.submit_here(envelope, within))
    }

    fn inquire(
        &self,
        owner: &Owner,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>> {
        let Some(node) = self.node(owner) else { return Box::pin(async { Err(NoAnswer::Unreachable) }) };
        Box::pin(async move { node.inquire_here(partition, tenant, id, within).await })
    }
}

/// A house on the street, its node, and what it is told to lead.
pub struct Neighbour {
    pub house: House,
    pub node: Node<Business>,
    pub way: Arc<Way>,
    address: String,
    hint: watch::Sender<Arc<BTreeSet<Partition>>>,
    street: Street,
}

pub fn all() -> BTreeSet<Partition> {
    (0..PARTITIONS).map(Partition).collect()
}

impl Neighbour {
    /// Moves in and leads these.
    pub async fn new(street: &Street, like: &House, name: &str, wanted: BTreeSet<Partition>) -> Self {
        Self::try_new(street, like, name, wanted).await.unwrap()
    }

    async fn try_new(
        street: &Street,
        like: &House,
        name: &str,
        wanted: BTreeSet<Partition>,
    ) -> Result<Self, StartFault> {
        let mut house = House::over(like.log.clone(), like.genesis);
        (house.bell, house.clock, house.options) = (like.bell.clone(), like.clock.clone(), like.options.clone());
        Self::try_in_house(street, house, name, name, wanted).await
    }

    /// Bears the name of another one, and lives elsewhere.
    pub async fn namesake(
        street: &Street,
        like: &House,
        name: &str,
        address: &str,
        wanted: BTreeSet<Partition>,
    ) -> Self {
        let mut house = House::over(like.log.clone(), like.genesis);
        (house.bell, house.clock, house.options) = (like.bell.clone(), like.clock.clone(), like.options.clone());
        Self::try_in_house(street, house, name, address, wanted).await.unwrap()
    }

    /// Moves into this very house, where it may find what an earlier one left.
    pub async fn in_house(street: &Street, house: House, name: &str, wanted: BTreeSet<Partition>) -> Self {
        Self::try_in_house(street, house, name, name, wanted).await.unwrap()
    }

    async fn try_in_house(
        street: &Street,
        mut house: House,
        name: &str,
        address: &str,
        wanted: BTreeSet<Partition>,
    ) -> Result<Self, StartFault> {
        let way = Arc::new(Way::new(house.log.clone()));
        house.log = way.clone();
        let (hint, hinted) = watch::channel(Arc::new(wanted));
        let node = house.try_node_with(name, address, hinted, Arc::new(street.clone())).await?;
        street.nodes.lock().insert(address.to_owned(), node.clone());
        Ok(Self { house, node, way, address: address.to_owned(), hint, street: street.clone() })
    }

    pub fn wants(&self, wanted: BTreeSet<Partition>) {
        self.hint.send_replace(Arc::new(wanted));
    }

    /// Dies at once: what it had under way is lost with it.
    pub async fn die(&self) {
        self.street.nodes.lock().remove(&self.address);
        self.node.abandon().await;
    }

    pub async fn drain(&self) -> bool {
        let drained = self.node.drain(LONG).await;
        self.street.nodes.lock().remove(&self.address);
        drained
    }

    /// Waits until it leads exactly these, and knows who leads the others.
    pub async fn leads(&self, partitions: &BTreeSet<Partition>) {
        let reached = self.node.until_status(|all| {
            (0..).map(Partition).zip(all).all(|(partition, status)| match status {
                PartitionStatus::Leading(_) => partitions.contains(&partition),
                PartitionStatus::Following(Some(_)) => !partitions.contains(&partition),
                _ => false,
            })
        });
        let reached = tokio::time::timeout(LONG, reached).await;
        assert!(reached.is_ok(), "{} stands like this: {:?}", self.address, self.node.status());
    }
}

/// One node's way to the shared log.
pub struct Way {
    log: Arc<dyn Log>,
    state: Arc<Mutex<WayState>>,
}

type Waker = Arc<dyn Fn() + Send + Sync>;
/// Deliveries, and whom they are for.
type Held = (Arc<dyn DeliverySink>, Vec<Delivery>);

#[derive(Default)]
struct WayState {
    /// While paused: where the log ended, and what is to be delivered.
    paused: Option<(Vec<Offset>, Vec<Held>)>,
    wakers: Vec<Waker>,
    /// Every so many deliveries say no offset.
    forgets_every: u64,
    delivered: u64,
}

impl Way {
    pub fn new(log: Arc<dyn Log>) -> Self {
        Self { log, state: Arc::default() }
    }

    /// From now on the node hears nothing of what happens; what it writes is written.
    pub fn pause(&self) {
        let mut state = self.state.lock();
        let ends = (0..self.log.partitions()).map(|partition| self.log.end(Partition(partition))).collect();
        state.paused = Some((ends, Vec::new()));
    }

    /// Hears all of it at once.
    pub fn resume(&self) {
        let held = self.state.lock().paused.take();
        for (sink, deliveries) in held.into_iter().flat_map(|(_, held)| held) {
            sink.delivered(deliveries);
        }
        let wakers = self.state.lock().wakers.clone();
        wakers.into_iter().for_each(|waker| waker());
    }

    /// Every so many deliveries do not say where the record is.
    pub fn forget_offsets(&self, every: u64) {
        self.state.lock().forgets_every = every;
    }

    /// Deliveries that wait for the end of the pause.
    pub fn held(&self) -> usize {
        self.state.lock().paused.as_ref().map_or(0, |(_, held)| held.iter().map(|(_, all)| all.len()).sum())
    }
}

struct WaySink(Arc<dyn DeliverySink>, Arc<Mutex<WayState>>);

impl DeliverySink for WaySink {
    fn delivered(&self, mut deliveries: Vec<Delivery>) {
        let mut state = self.1.lock();
        for delivery in &mut deliveries {
            state.delivered += 1;
            if state.forgets_every > 0 && state.delivered.is_multiple_of(state.forgets_every) && delivery.result.is_ok()
            {
                delivery.result = Ok(None);
            }
        }
        match &mut state.paused {
            Some((_, held)) => held.push((self.0.clone(), deliveries)),
            None => {
                drop(state);
                self.0.delivered(deliveries);
            }
        }
    }
}

struct WayAppender(Box<dyn Appender>);

impl Appender for WayAppender {
    fn append(&mut self, tag: u64, record: Bytes) {
        self.0.append(tag, record);
    }
}

impl Log for Way {
    fn id(&self) -> LogId {
        self.log.id()
    }
    fn partitions(&self) -> u16 {
        self.log.partitions()
    }
    fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender> {
        Box::new(WayAppender(self.log.appender(partition, Arc::new(WaySink(sink, self.state.clone())))))
    }
    fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, LogFault> {
        let end = self.end(partition);
        let read = self.log.read(partition, from, bytes_max)?;
        Ok(read.into_iter().take_while(|stored| stored.offset < end).collect())
    }
    fn end(&self, partition: Partition) -> Offset {
        let state = self.state.lock();
        let paused = state.paused.as_ref().map(|(ends, _)| ends[usize::from(partition.0)]);
        paused.unwrap_or_else(|| self.log.end(partition))
    }
    fn catch_up_end(&self, partition: Partition) -> Result<Offset, LogFault> {
        Ok(self.log.end(partition))
    }
    fn on_append(&self, waker: Waker) -> WakerGuard {
        self.state.lock().wakers.push(waker.clone());
        let state = self.state.clone();
        self.log.on_append(Arc::new(move || {
            if state.lock().paused.is_none() {
                waker();
            }
        }))
    }
}
