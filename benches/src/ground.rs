//! What several nodes stand on, real Kafka brokers and a real PostgreSQL, and the nodes: `docket serve` as an operator starts
//! it. All of it ends when it is dropped, and also when this process dies, however it dies; nothing is left behind.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use xtask::kafka::Kafka;
use xtask::node::Node;
use xtask::ports::{self, Port};
use xtask::postgres::Postgres;
use xtask::process::{Life, Recipe, Running, Signal};

use crate::child::{cpu_s, peak_rss_mb};
use crate::generator::{self, Cost, Found, Loop, Profile};
use crate::{Done, How, wire};

/// Partitions of a log: as many as users get.
pub(crate) const PARTITIONS: u16 = 12;
/// How long a node may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to drain and end: it allows itself 10 s.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at something that has no better way to tell.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Why there can be none of this here, with the mend; `None` if there can.
pub(crate) fn missing() -> Option<String> {
    xtask::kafka::missing().or_else(xtask::postgres::missing)
}

/// Brokers and a database.
pub(crate) struct Ground {
    pub(crate) kafka: Kafka,
    postgres: Postgres,
    names: Cell<u32>,
    // Last: files go after those who write them.
    _directories: [TempDir; 2],
}

impl Ground {
    /// Starts one broker or three, and a database, on the disk that is measured.
    pub(crate) fn start(how: &How, brokers: u8) -> Done<Self> {
        let directories = [how.scratch()?, how.scratch()?];
        open_up(directories[1].path())?;
        let kafka = Kafka::start_measured(directories[0].path(), brokers)?;
        let postgres = Postgres::start_in(&directories[1].path().join("postgres"), Life::Ours)?;
        Ok(Self { kafka, postgres, names: Cell::new(0), _directories: directories })
    }

    /// `one broker`, `3 brokers`.
    pub(crate) fn brokers(&self) -> String {
        counted(usize::from(self.kafka.brokers()), "broker")
    }

    /// A name for a log that nobody has used here.
    pub(crate) fn new_log(&self) -> String {
        self.names.set(self.names.get() + 1);
        format!("bench-{}", self.names.get())
    }

    /// CPU seconds of the brokers.
    pub(crate) fn brokers_cpu_s(&self) -> Done<f64> {
        let brokers = (1..=self.kafka.brokers()).filter_map(|id| self.kafka.process(id));
        brokers.map(|broker| cpu_s(broker.pid.unsigned_abs())).sum()
    }

    /// CPU seconds of the database.
    pub(crate) fn database_cpu_s(&self) -> Done<f64> {
        let first = self.postgres.process().ok_or("the database is gone")?;
        // One that has just ended is in its parent's account.
        let children = first.children().into_iter().filter_map(|child| cpu_s(child.pid.unsigned_abs()).ok());
        Ok(cpu_s(first.pid.unsigned_abs())? + children.sum::<f64>())
    }
}

/// The user postgres has to reach what lies below.
fn open_up(directory: &Path) -> Done<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711))?)
}

/// `one node`, `3 nodes`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("one {what}") } else { format!("{count} {what}s") }
}

/// A node that is to be, or is, or was.
struct Seat {
    node: Node,
    address: SocketAddr,
    running: Option<Running>,
    _ports: Vec<Port>,
}

/// Some nodes on one log and one database.
pub(crate) struct Nodes<'a> {
    ground: &'a Ground,
    docket: PathBuf,
    seats: Vec<Seat>,
    // Last: files go after those who write them.
    directory: TempDir,
}

impl<'a> Nodes<'a> {
    /// So many on a new log and an empty database, all serving.
    pub(crate) fn start(how: &How, ground: &'a Ground, count: usize) -> Done<Self> {
        let directory = how.scratch()?;
        let (log, rows) = (ground.new_log(), ground.postgres.new_database());
        let mut seats = Vec::new();
        for number in 1..=count {
            let name = format!("node-{number}");
            let ports = ports::take(2)?;
            let node = Node {
                http: ports[0].address(),
                grpc: ports[1].address(),
                advertise: None,
                data: directory.path().join(&name),
                name,
                roles: Vec::new(),
                kafka: Some((ground.kafka.bootstrap(), ground.kafka.brokers())),
                log: log.clone(),
                partitions: PARTITIONS,
                read_store: rows.clone(),
                more: Vec::new(),
            };
            seats.push(Seat { address: node.http.parse()?, node, running: None, _ports: ports });
        }
        let mut nodes = Self { ground, docket: how.docket()?, seats, directory };
        nodes.start_dead()?;
        Ok(nodes)
    }

    /// Starts those that do not run, at once.
    pub(crate) fn launch(&mut self) -> Done<()> {
        for seat in self.seats.iter_mut().filter(|seat| seat.running.is_none()) {
            let mut recipe = seat.node.recipe(&self.docket, self.directory.path())?;
            recipe.left_behind = Some(self.directory.path().to_owned());
            seat.running = Some(Running::start(&recipe, Life::Ours)?);
        }
        Ok(())
    }

    /// Starts those that do not run, and waits until all serve.
    pub(crate) fn start_dead(&mut self) -> Done<()> {
        self.launch()?;
        let began = Instant::now();
        for seat in &self.seats {
            while !matches!(wire::get(seat.address, "/readyz"), Ok(reply) if reply.status == 200) {
                let ended = seat.running.as_ref().is_none_or(Running::has_ended);
                if ended || began.elapsed() > READY_WITHIN {
                    let log = self.directory.path().join(format!("{}.log", seat.node.name));
                    let tail = Recipe::new("", self.directory.path(), &log).tail();
                    return Err(format!("{} does not serve; {tail}", seat.node.name).into());
                }
                std::thread::sleep(LOOK_AGAIN_AFTER);
            }
        }
        Ok(())
    }

    /// More of them, which do not run yet: up to `count`, each with a directory of its own that is still empty.
    pub(crate) fn join(&mut self, count: usize) -> Done<()> {
        for number in self.seats.len() + 1..=count {
            let ports = ports::take(2)?;
            let name = format!("node-{number}");
            let node = Node {
                http: ports[0].address(),
                grpc: ports[1].address(),
                data: self.directory.path().join(&name),
                name,
                ..self.seats[0].node.clone()
            };
            self.seats.push(Seat { address: node.http.parse()?, node, running: None, _ports: ports });
        }
        self.start_dead()
    }

    /// Ends all in good order.
    pub(crate) fn stop(&mut self) -> Done<()> {
        let running = self.seats.iter_mut().filter_map(|seat| seat.running.take()).collect::<Vec<_>>();
        for one in &running {
            one.name().signal(Signal::TERM)?;
        }
        for one in running {
            // Asked before; again does no harm, and one that is gone already has nothing to hear.
            one.name().wait_gone(STOPS_WITHIN)?;
        }
        Ok(())
    }

    /// Kills one with SIGKILL and does not wait until it is gone; it can be started again.
    pub(crate) fn kill(&mut self, at: usize) -> Done<Running> {
        let running = self.seats[at].running.take().ok_or("it does not run")?;
        running.name().signal(Signal::KILL)?;
        Ok(running)
    }

    /// Gives them an empty database when they start again.
    pub(crate) fn rows_anew(&mut self) {
        let rows = self.ground.postgres.new_database();
        for seat in &mut self.seats {
            seat.node.read_store.clone_from(&rows);
        }
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.seats.iter().map(|seat| seat.address).collect()
    }

    /// What they are called.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.seats.iter().map(|seat| seat.node.name.as_str()).collect()
    }

    /// Sum of a figure of `/metrics` over all of them; who does not answer has none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let pages = self.seats.iter().filter_map(|seat| wire::get(seat.address, "/metrics").ok());
        pages.map(|page| wire::metric(&page.body, name)).sum()
    }

    /// `one node, 3 brokers`.
    pub(crate) fn told(&self) -> String {
        format!("{}, {}", counted(self.seats.len(), "node"), self.ground.brokers())
    }

    /// What they have cost so far, and what they stand on.
    pub(crate) fn cost(&self) -> Done<Cost> {
        let (mut spent, mut rss_mb) = (0.0, 0.0_f64);
        for running in self.seats.iter().filter_map(|seat| seat.running.as_ref()) {
            let pid = running.name().pid.unsigned_abs();
            spent += cpu_s(pid)?;
            rss_mb = rss_mb.max(peak_rss_mb(pid)?);
        }
        let beside = vec![("brokers", self.ground.brokers_cpu_s()?), ("database", self.ground.database_cpu_s()?)];
        Ok(Cost { cpu_s: spent, rss_mb, beside })
    }

    /// Puts all of them under load.
    pub(crate) fn load(&self, how: &How, profile: Profile, pace: Loop) -> Done<Found> {
        generator::load(how, &self.servers(), profile, pace, || self.cost())
    }

    /// A load in the background, until it is dropped.
    pub(crate) fn load_beside(&self, how: &How, profile: Profile, pace: Loop, lasting: &str) -> Done<Running> {
        let command = generator::command(how, &self.servers(), profile, pace, lasting)?;
        let directory = self.directory.path();
        let recipe = Recipe::new(command.get_program(), directory, &directory.join("load.log"));
        Ok(Running::start(&recipe.arguments(command.get_args()), Life::Ours)?)
    }

    fn servers(&self) -> Vec<String> {
        self.seats.iter().map(|seat| seat.node.http.clone()).collect()
    }
}
