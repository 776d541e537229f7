//! The write side without HTTP and without views: a node of the shop over the embedded log on a real directory, laid out as
//! `docket dev` does, so that the product can be started on what was made here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::Shop;
use engine::log::Log;
use engine::message::{Answer, CommandId, Envelope, Fingerprint, Precondition, Provenance};
use engine::ports::Clock;
use engine::position::{LogId, Offset, Partition};
use engine::record::{FORMAT, Genesis, PLACEMENT_RULE, Record};
use engine::stream::{StreamName, Tenant};
use engine_embedded::{EmbeddedLog, Options};
use engine_runtime::node::{Node, NodeOptions, Parts};
use engine_runtime::outside::NoOutside;
use engine_runtime::store::{StateStore, StoreOptions};
use engine_runtime::system::{SystemChance, SystemClock};
use schemas::command::ShopCommand;
use schemas::event::order::Line;
use schemas::id::{CustomerId, LocationId, OrderId, Sku, stock_stream};
use schemas::money::Money;
use uuid::Uuid;

use crate::ground::PARTITIONS;
use crate::times::Times;
use crate::{Done, How};

/// Callers that make a history.
const CALLERS: u64 = 512;

/// A new log.
pub(crate) fn founding() -> Genesis {
    Genesis {
        log: LogId(Uuid::now_v7()),
        partitions: PARTITIONS,
        placement_rule: PLACEMENT_RULE,
        format: FORMAT,
        fingerprint_key: [7; 32],
        created_at: SystemClock.now(),
    }
}

/// The write side, open.
pub(crate) struct House {
    pub(crate) node: Node<Shop>,
    log: Arc<EmbeddedLog>,
}

impl House {
    /// Opens what is in `root`, or founds it.
    pub(crate) async fn open(root: &Path) -> Done<Self> {
        let log = Arc::new(EmbeddedLog::open(root.join("log"), Options::or_found(founding()))?.0);
        // The one it was founded with, if that was earlier.
        let genesis = *log.genesis();
        let decider = Arc::new(Shop);
        let (store, _) =
            StateStore::open(&root.join("state"), genesis.log, PARTITIONS, decider.clone(), StoreOptions::default())?;
        let node = Node::start(Parts {
            log: Arc::<EmbeddedLog>::clone(&log),
            genesis,
            store: Arc::new(store),
            decider,
            outside: Arc::new(NoOutside),
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
            node_name: "benches".to_owned(),
            address: String::new(),
            wanted: engine_runtime::wanted::all(PARTITIONS),
            peers: Arc::new(engine_runtime::peers::Alone),
            options: NodeOptions::default(),
        })
        .await?;
        Ok(Self { node, log })
    }

    /// Places orders of three lines, each caller the next when its last is answered, until `over` says so of the number
    /// asked for. Tells how long answers took.
    pub(crate) async fn place(
        &self,
        callers: u64,
        over: impl Fn(u64) -> bool + Clone + Send + Sync + 'static,
    ) -> Done<Times> {
        self.place_as(callers, Provenance::default(), over).await
    }

    /// The same, with a reason in each record.
    pub(crate) async fn place_because(
        &self,
        callers: u64,
        reason: &Arc<str>,
        over: impl Fn(u64) -> bool + Clone + Send + Sync + 'static,
    ) -> Done<Times> {
        let because = Provenance { reason: Some(Arc::clone(reason)), ..Provenance::default() };
        self.place_as(callers, because, over).await
    }

    /// Makes streams long, `events` each: the stock of one SKU at each of so many locations, received piece by piece.
    pub(crate) async fn receive(&self, callers: u64, streams: u64, events: u64) -> Done<()> {
        // Where nothing was ever counted nothing is received.
        let count = |number| {
            stocked(number, |location_id, sku| ShopCommand::CountStock { location_id, sku, on_hand: 0, reason: None })
        };
        self.submit_all(callers, count, move |number| number >= streams).await?;
        let receive = |location_id, sku| ShopCommand::ReceiveStock { location_id, sku, quantity: 1 };
        let make = move |number| stocked(number % streams, receive);
        self.submit_all(callers, make, move |number| number >= streams * (events - 1)).await?;
        Ok(())
    }

    async fn place_as(
        &self,
        callers: u64,
        provenance: Provenance,
        over: impl Fn(u64) -> bool + Clone + Send + Sync + 'static,
    ) -> Done<Times> {
        let goods = Goods::new()?;
        self.submit_all(callers, move |number| goods.order(number, provenance.clone()), over).await
    }

    async fn submit_all(
        &self,
        callers: u64,
        make: impl Fn(u64) -> Envelope<ShopCommand> + Send + Sync + 'static,
        over: impl Fn(u64) -> bool + Clone + Send + Sync + 'static,
    ) -> Done<Times> {
        let (next, make) = (Arc::new(AtomicU64::new(0)), Arc::new(make));
        let callers = (0..callers).map(|_| {
            let (node, next, make, over) = (self.node.clone(), next.clone(), make.clone(), over.clone());
            tokio::spawn(async move {
                let mut times = Times::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if over(number) {
                        return Ok::<_, String>(times);
                    }
                    let envelope = make(number);
                    let asked = Instant::now();
                    match node.submit(envelope).await {
                        Ok(Answer::Decided(decided)) if decided.outcome.is_accepted() => times.note(asked.elapsed()),
                        other => return Err(format!("a command was not accepted: {other:?}")),
                    }
                }
            })
        });
        let mut times = Times::new();
        for caller in callers.collect::<Vec<_>>() {
            times.add(&caller.await??);
        }
        Ok(times)
    }

    /// Settles and closes everything.
    pub(crate) async fn close(self) -> Done<()> {
        if !self.node.drain(Duration::from_secs(60)).await {
            return Err("the node did not drain".into());
        }
        let log = self.log;
        tokio::task::spawn_blocking(move || log.close()).await?;
        Ok(())
    }
}

/// What is ordered.
struct Goods {
    customer: CustomerId,
    location: LocationId,
    skus: Vec<Sku>,
    price: Money,
}

impl Goods {
    fn new() -> Done<Self> {
        let skus = (0..100).map(|number| Sku::new(&format!("sku-{number:04}"))).collect::<Result<_, _>>()?;
        let price = Money::new(1_999, "EUR".parse()?);
        Ok(Self { customer: CustomerId::new("benches")?, location: LocationId::new("benches-0")?, skus, price })
    }

    fn order(&self, number: u64, provenance: Provenance) -> Envelope<ShopCommand> {
        let id = Uuid::now_v7();
        let order_id = OrderId(id);
        let lines = (0..3).map(|line| Line {
            sku: self.skus[(number as usize * 7 + line * 31) % self.skus.len()].clone(),
            quantity: 1 + line as u32,
            unit_price: self.price,
            location_id: self.location.clone(),
        });
        let command = ShopCommand::PlaceOrder {
            order_id,
            customer_id: self.customer.clone(),
            location_id: self.location.clone(),
            lines: lines.collect(),
            payment: None,
        };
        envelope(CommandId(id), order_id.stream(), provenance, command)
    }
}

/// The location whose one shelf has this number.
pub(crate) fn shelf(number: u64) -> String {
    format!("shelf-{number}")
}

/// What lies there.
pub(crate) const ON_SHELF: &str = "bell";

/// A command for the stock on that shelf.
fn stocked(number: u64, command: impl Fn(LocationId, Sku) -> ShopCommand) -> Envelope<ShopCommand> {
    let location = LocationId::new(&shelf(number)).expect("a short word and a number");
    let sku = Sku::new(ON_SHELF).expect("a short word");
    let stream = stock_stream(&location, &sku);
    envelope(CommandId(Uuid::now_v7()), stream, Provenance::default(), command(location, sku))
}

fn envelope(
    id: CommandId,
    resource: StreamName,
    provenance: Provenance,
    command: ShopCommand,
) -> Envelope<ShopCommand> {
    let (fingerprint, precondition) = (Fingerprint([7; 16]), Precondition::None);
    Envelope { id, tenant: Tenant::default(), resource, fingerprint, precondition, provenance, command: Some(command) }
}

/// A data directory with many orders in it, closed.
pub(crate) struct History {
    pub(crate) root: tempfile::TempDir,
    pub(crate) orders: u64,
}

impl History {
    /// Places them all.
    pub(crate) async fn make(how: &How) -> Done<Self> {
        let (root, orders) = (how.scratch()?, how.orders());
        eprintln!("  placing {orders} orders");
        let began = Instant::now();
        let house = House::open(root.path()).await?;
        house.place(CALLERS, move |number| number >= orders).await?;
        house.close().await?;
        eprintln!("  placed after {:.0} s", began.elapsed().as_secs_f64());
        Ok(Self { root, orders })
    }

    /// Bytes of a directory in it.
    pub(crate) fn bytes(&self, name: &str) -> Done<u64> {
        bytes(&self.root.path().join(name))
    }
}

/// Bytes of a file, or of a directory with all that is in it.
pub(crate) fn bytes(path: &Path) -> Done<u64> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    std::fs::read_dir(path)?.map(|entry| bytes(&entry?.path())).sum()
}

/// Bytes read from a partition before the others have their turn: on disk their records lie side by side, so all of them
/// are then read from the same blocks.
const TURN_BYTES: usize = 64 << 10;

/// Records of the log, each decoded, from the beginning.
pub(crate) fn read_all(root: &Path) -> Done<u64> {
    let (log, _) = EmbeddedLog::open(root.join("log"), Options::existing())?;
    let mut records = 0;
    let mut open = (0..log.partitions()).map(|partition| (Partition(partition), Offset(0))).collect::<Vec<_>>();
    while !open.is_empty() {
        for (partition, from) in &mut open {
            let read = log.read(*partition, *from, TURN_BYTES)?;
            for stored in &read {
                Record::decode(&stored.bytes)?;
            }
            from.0 += read.len() as u64;
            records += read.len() as u64;
        }
        open.retain(|(partition, from)| *from < log.end(*partition));
    }
    log.close();
    Ok(records)
}
