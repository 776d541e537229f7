//! A whole cluster for people: real brokers, a real database and nodes of the product on loopback, started in the background
//! with all their files in one directory. Who they are is kept there too, so that a later command finds exactly them again;
//! anyone of them can be killed, paused and brought back by name. `up` on a cluster that is there starts what is dead of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::kafka::Kafka;
use crate::node::Node;
use crate::ports;
use crate::postgres::Postgres;
use crate::process::{Life, Running, Signal, is_root};

mod member;

pub use member::{Kind, Member, State};

/// How long a node may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to drain and end: it allows itself 10 s.
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks at something that has no better way to tell.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Most nodes: their ports follow one another.
const NODES_MAX: u16 = 9;
const MEMBERS_FILE: &str = "cluster.json";

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Brokers: 1 or 3; 0 for nodes with logs of their own.
    pub brokers: u8,
    /// Nodes: up to 9.
    pub nodes: u16,
    /// Rows in PostgreSQL, else in a SQLite file per node.
    pub postgres: bool,
    /// Partitions of the log.
    pub partitions: u16,
    /// The product.
    pub binary: PathBuf,
}

/// A cluster, running or not.
#[derive(Clone, Debug)]
pub struct Cluster {
    directory: PathBuf,
    /// Brokers, database and nodes, in the order in which they are started.
    pub members: Vec<Member>,
}

impl Cluster {
    /// Starts a new cluster in a directory that must not hold one.
    ///
    /// # Errors
    /// What is missing or does not start; then what was started is ended again.
    pub fn up(directory: &Path, plan: &Plan) -> Result<Self, String> {
        if plan.nodes > NODES_MAX {
            return Err(format!("{} nodes: at most {NODES_MAX}", plan.nodes));
        }
        if plan.brokers == 0 && plan.nodes > 1 {
            return Err("several nodes need a log that they share: --brokers 1 or 3".to_owned());
        }
        if directory.join(MEMBERS_FILE).exists() {
            return Err(format!("there is a cluster in {} already", directory.display()));
        }
        fs::create_dir_all(directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let directory = directory.canonicalize().map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut cluster = Self { directory, members: Vec::new() };
        match cluster.fill(plan).and_then(|()| cluster.keep()) {
            Ok(()) => Ok(cluster),
            Err(fault) => {
                for member in cluster.members.iter().rev() {
                    // The first fault is what matters.
                    let _ = member.name.kill();
                }
                Err(fault)
            }
        }
    }

    /// The cluster that was started in this directory.
    ///
    /// # Errors
    /// When there is none, or its file cannot be read.
    pub fn find(directory: &Path) -> Result<Self, String> {
        let file = directory.join(MEMBERS_FILE);
        let text = fs::read_to_string(&file)
            .map_err(|_| format!("there is no cluster in {}: cargo xtask cluster up", directory.display()))?;
        let members = member::read(&text).ok_or_else(|| format!("{} cannot be read", file.display()))?;
        Ok(Self { directory: directory.to_owned(), members })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A member by name.
    ///
    /// # Errors
    /// When there is no such member: who there is.
    pub fn member(&self, who: &str) -> Result<&Member, String> {
        let known = || self.members.iter().map(|member| member.who.as_str()).collect::<Vec<_>>().join(", ");
        self.members
            .iter()
            .find(|member| member.who == who)
            .ok_or_else(|| format!("nobody is called {who}: {}", known()))
    }

    /// Starts who is dead and waits until all serve; gives their names back.
    ///
    /// # Errors
    /// When one does not come to serve.
    pub fn start_dead(&mut self) -> Result<Vec<String>, String> {
        let mut started = Vec::new();
        for member in &mut self.members {
            if !member.name.is_alive() {
                member.name = Running::start(&member.recipe, Life::Detached)?.name();
                started.push(member.who.clone());
            }
        }
        self.keep()?;
        for member in &self.members {
            wait_serving(member)?;
        }
        Ok(started)
    }

    /// Ends all: nodes in good order, then database and brokers at once. Their files go too, unless they are to be kept.
    ///
    /// # Errors
    /// When one does not end, or files cannot be removed.
    pub fn down(self, keep_files: bool) -> Result<(), String> {
        for member in &self.members {
            // What is paused would not hear the next.
            let _ = member.name.resume();
        }
        let nodes: Vec<&Member> = self.members.iter().filter(|member| member.kind == Kind::Node).collect();
        for node in &nodes {
            // Dead already is as good.
            let _ = node.name.signal(Signal::TERM);
        }
        for node in nodes {
            if let Err(fault) = node.name.wait_gone(STOPS_WITHIN) {
                eprintln!("xtask: {} does not end ({fault}); killed", node.who);
            }
        }
        for member in self.members.iter().rev() {
            member.name.kill()?;
        }
        if keep_files {
            return Ok(());
        }
        for member in self.members.iter().filter(|member| member.kind == Kind::Postgres) {
            remove(&member.recipe.directory)?;
        }
        remove(&self.directory)
    }

    fn fill(&mut self, plan: &Plan) -> Result<(), String> {
        if plan.brokers > 0 {
            let kafka = Kafka::start_in(&self.directory.join("kafka"), plan.brokers, Life::Detached)?;
            for id in 1..=plan.brokers {
                let name = kafka.process(id).ok_or("a broker that was started is gone")?;
                let (who, address) = (format!("broker-{id}"), kafka.address(id));
                self.members.push(Member { who, kind: Kind::Broker, address, name, recipe: kafka.recipe(id).clone() });
            }
        }
        let mut rows = None;
        if plan.postgres {
            let postgres = Postgres::start_in(&self.postgres_directory(), Life::Detached)?;
            let name = postgres.process().ok_or("a database that was started is gone")?;
            rows = Some(postgres.url());
            let recipe = postgres.recipe().clone();
            let (who, address) = ("postgres".to_owned(), postgres.address());
            self.members.push(Member { who, kind: Kind::Postgres, address, name, recipe });
        }
        let bootstrap: Vec<&str> =
            self.members.iter().filter(|one| one.kind == Kind::Broker).map(|one| one.address.as_str()).collect();
        let kafka = (plan.brokers > 0).then(|| (bootstrap.join(","), plan.brokers));
        let mut ports = Vec::new();
        for id in 1..=plan.nodes {
            ports.push((ports::take_rather(8_100 + id)?, ports::take_rather(7_100 + id)?));
        }
        let mut nodes = Vec::new();
        for (id, (http, grpc)) in (1..).zip(&ports) {
            let name = format!("node-{id}");
            let data = self.directory.join(&name);
            let read_store = rows.clone().unwrap_or_else(|| format!("sqlite:{}", data.join("views.db").display()));
            let node = Node {
                name: name.clone(),
                http: http.address(),
                grpc: grpc.address(),
                advertise: None,
                data,
                roles: Vec::new(),
                kafka: kafka.clone(),
                log: "shop".to_owned(),
                partitions: plan.partitions,
                read_store,
                more: Vec::new(),
            };
            let recipe = node.recipe(&plan.binary, &self.directory)?;
            nodes.push((name, node.http, recipe));
        }
        // The ports are the nodes' from here on.
        drop(ports);
        for (who, address, recipe) in nodes {
            let name = Running::start(&recipe, Life::Detached)?.name();
            self.members.push(Member { who, kind: Kind::Node, address, name, recipe });
        }
        self.members.iter().filter(|member| member.kind == Kind::Node).try_for_each(wait_serving)
    }

    /// Beside everything else where the user `postgres` can reach that, else in the system's scratch directory.
    fn postgres_directory(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let open = |folder: &Path| fs::metadata(folder).is_ok_and(|about| about.permissions().mode() & 0o001 != 0);
        if !is_root() || self.directory.ancestors().all(open) {
            return self.directory.join("postgres");
        }
        std::env::temp_dir().join(format!("docket-cluster-postgres-{}", std::process::id()))
    }

    fn keep(&self) -> Result<(), String> {
        let file = self.directory.join(MEMBERS_FILE);
        fs::write(&file, member::write(&self.members))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))
    }
}

/// Waits until a member serves: a node that it is ready, the others that they take connections.
fn wait_serving(member: &Member) -> Result<(), String> {
    let began = Instant::now();
    while member.state() != State::Serving {
        if !member.name.is_alive() {
            return Err(format!("{} ended while it started; {}", member.who, member.recipe.tail()));
        }
        if began.elapsed() > READY_WITHIN {
            let (who, tail) = (&member.who, member.recipe.tail());
            return Err(format!("{who} does not serve after {} s; {tail}", READY_WITHIN.as_secs()));
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}
