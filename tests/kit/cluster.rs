//! Nodes of the product as an operator runs them: `docket serve` on real Kafka brokers and a real PostgreSQL, each node with
//! a name, addresses and a directory that it keeps when it dies and comes back. Brokers, database and nodes can be killed,
//! stopped and frozen one by one.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use xtask::kafka::Kafka;
use xtask::node::Node;
use xtask::ports::{self, Port};
use xtask::postgres::Postgres;

use crate::client::Client;
use crate::docket::{Docket, StartFault, binary};

/// Partitions of the log that nodes share: as many as users get.
pub const PARTITIONS: u16 = 12;

/// Why there can be no cluster here, with the mend; `None` if there can.
pub fn missing() -> Option<String> {
    xtask::kafka::missing().or_else(xtask::postgres::missing)
}

/// A node that is to be, or is, or was.
#[derive(Debug)]
pub struct Seat {
    /// How it is set up.
    pub node: Node,
    running: Option<Docket>,
    _ports: [Port; 2],
}

/// Some nodes and all that they stand on. Nodes are numbered from 1.
#[derive(Debug)]
pub struct Cluster {
    seats: Vec<Seat>,
    /// The brokers.
    pub kafka: Kafka,
    /// The database.
    pub postgres: Postgres,
    scratch: TempDir,
}

impl Cluster {
    /// Starts brokers, a database and nodes, and waits until all serve.
    ///
    /// # Panics
    /// When one does not, with all it printed.
    pub async fn start(brokers: u8, nodes: u8) -> Self {
        let mut cluster = Self::prepare(brokers, nodes).await;
        cluster.start_nodes().await;
        cluster
    }

    /// Brokers and a database, and seats for nodes that are not started yet.
    ///
    /// # Panics
    /// When brokers or database do not start.
    pub async fn prepare(brokers: u8, nodes: u8) -> Self {
        let started = tokio::task::spawn_blocking(move || {
            // Both are busy for seconds: side by side.
            let kafka = std::thread::spawn(move || Kafka::try_start(brokers));
            let postgres = Postgres::start();
            (kafka.join().expect("a start does not panic").unwrap_or_else(|fault| panic!("{fault}")), postgres)
        });
        let (kafka, postgres) = started.await.expect("brokers and database start");
        let scratch = TempDir::with_prefix("docket-cluster-").expect("a scratch directory");
        let mut cluster = Self { seats: Vec::new(), kafka, postgres, scratch };
        for _ in 0..nodes {
            cluster.add_seat();
        }
        cluster
    }

    /// A seat for one more node, which is not started; its number.
    pub fn add_seat(&mut self) -> usize {
        let number = self.seats.len() + 1;
        let kafka = (self.kafka.bootstrap(), self.kafka.brokers());
        let seat = seat(&format!("node-{number}"), self.scratch.path(), "main", Some(kafka), self.postgres.url());
        self.seats.push(seat);
        number
    }

    /// Changes how a node is set up; holds from its next start.
    pub fn set_up(&mut self, number: usize, change: impl FnOnce(&mut Node)) {
        change(&mut self.seats[number - 1].node);
    }

    /// How many nodes there are, dead ones too.
    pub fn nodes(&self) -> usize {
        self.seats.len()
    }

    /// A running node.
    ///
    /// # Panics
    /// When it does not run.
    pub fn node(&self, number: usize) -> &Docket {
        self.seats[number - 1].running.as_ref().unwrap_or_else(|| panic!("node-{number} does not run"))
    }

    /// Whether a node runs, as far as we ended none.
    pub fn runs(&self, number: usize) -> bool {
        self.seats[number - 1].running.is_some()
    }

    /// A client of a node, running or not: a node keeps its address.
    pub fn client(&self, number: usize) -> Client {
        Client::new(&format!("http://{}", self.seats[number - 1].node.http))
    }

    /// One client that asks all nodes in turn, dead ones too.
    pub fn client_of_all(&self) -> Client {
        let servers: Vec<String> = self.seats.iter().map(|seat| format!("http://{}", seat.node.http)).collect();
        Client::of_all(servers.iter().map(String::as_str))
    }

    /// Starts a node and waits until it serves.
    ///
    /// # Panics
    /// When it does not, with all it printed.
    pub async fn start_node(&mut self, number: usize) {
        self.try_start_node(number).await.unwrap_or_else(|fault| panic!("node-{number}: {fault}"));
    }

    /// Starts a node, or tells why it would not serve.
    ///
    /// # Errors
    /// When it ended, or did not serve within a minute.
    pub async fn try_start_node(&mut self, number: usize) -> Result<(), StartFault> {
        let seat = &mut self.seats[number - 1];
        seat.running = None;
        seat.running = Some(Docket::try_serve(&seat.node, self.scratch.path()).await?);
        Ok(())
    }

    /// Starts all nodes that do not run, at once, and waits until all serve.
    ///
    /// # Panics
    /// When one does not, with all it printed.
    pub async fn start_nodes(&mut self) {
        let scratch = self.scratch.path();
        let dead = self.seats.iter_mut().filter(|seat| seat.running.is_none());
        let starts = dead.map(async |seat| {
            let started = Docket::try_serve(&seat.node, scratch).await;
            seat.running = Some(started.unwrap_or_else(|fault| panic!("{}: {fault}", seat.node.name)));
        });
        futures::future::join_all(starts).await;
    }

    /// Takes a running node out, to be ended as the caller likes.
    ///
    /// # Panics
    /// When it does not run.
    pub fn take_node(&mut self, number: usize) -> Docket {
        self.seats[number - 1].running.take().unwrap_or_else(|| panic!("node-{number} does not run"))
    }

    /// All that running nodes printed, for a failing test.
    pub fn printed(&self) -> String {
        let running = self.seats.iter().filter_map(|seat| Some((&seat.node.name, seat.running.as_ref()?)));
        running.map(|(name, docket)| format!("--- {name} printed:\n{}\n", docket.printed())).collect()
    }

    /// Ends all nodes gently.
    ///
    /// # Panics
    /// When one takes longer than it may, or does not exit 0.
    pub async fn terminate_nodes(&mut self) {
        for seat in &mut self.seats {
            if let Some(docket) = seat.running.take() {
                docket.terminate().await;
            }
        }
    }
}

/// A node alone: with its own log or on brokers, its rows in a database.
#[derive(Debug)]
pub struct Alone {
    seat: Seat,
    directory: std::path::PathBuf,
}

impl Alone {
    /// A node that keeps its own in `directory`, on this log and this database.
    pub fn new(directory: &Path, log: &str, kafka: Option<(String, u8)>, read_store: String) -> Self {
        Self { seat: seat("node-1", directory, log, kafka, read_store), directory: directory.to_owned() }
    }

    /// The same with one more line for the top of its configuration.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.seat.node.more.push(line.to_owned());
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it does not, with all it printed.
    pub async fn start(&self) -> Docket {
        self.try_start().await.unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Starts it, or tells why it would not serve.
    ///
    /// # Errors
    /// When it ended, or did not serve within a minute.
    pub async fn try_start(&self) -> Result<Docket, StartFault> {
        Docket::try_serve(&self.seat.node, &self.directory).await
    }

    /// Starts it and waits only until it answers at all, see [`Docket::until_serving`].
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn begin(&self) -> Docket {
        let command = command(&self.seat.node, &self.directory).unwrap_or_else(|fault| panic!("{fault}"));
        Docket::begin(command, &self.seat.node.http).await
    }
}

fn seat(name: &str, scratch: &Path, log: &str, kafka: Option<(String, u8)>, read_store: String) -> Seat {
    let mut ports = ports::take(2).unwrap_or_else(|fault| panic!("{fault}")).into_iter();
    let ports = [(); 2].map(|()| ports.next().expect("two were asked for"));
    let node = Node {
        name: name.to_owned(),
        http: ports[0].address(),
        grpc: ports[1].address(),
        advertise: None,
        data: scratch.join(name),
        roles: Vec::new(),
        kafka,
        log: log.to_owned(),
        partitions: PARTITIONS,
        read_store,
        more: vec!["dev_routes = true".to_owned()],
    };
    Seat { node, running: None, _ports: ports }
}

impl Docket {
    /// Starts a node as it is set up, its configuration in `directory`.
    async fn try_serve(node: &Node, directory: &Path) -> Result<Self, StartFault> {
        let command = command(node, directory).map_err(|what| StartFault { what, printed: String::new() })?;
        Self::try_run(command).await
    }
}

/// What starts a node as it is set up, its configuration in `directory`.
fn command(node: &Node, directory: &Path) -> Result<Command, String> {
    let recipe = node.recipe(binary(), directory)?;
    let mut command = Command::new(&recipe.program);
    command.args(&recipe.arguments).current_dir(directory);
    Ok(command)
}
