//! A real Apache Kafka on loopback: one broker or three, each its own process that can be killed, paused and brought back.
//! Its timeouts are those of a cluster that wants to fail over in seconds; everything else that safety rests on is as we ask
//! of our users. Brokers are numbered from 1, which is also their node id.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::ports::{self, Port};
use crate::process::{Life, Recipe, Running, Signal};

mod jars;
mod secured;
mod wire;

pub use jars::VERSION;
pub use secured::Secured;

use jars::Haste;

/// How long brokers may take to answer: seconds on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How long a broker may take to end when asked to.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at something that has no better way to tell.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why there can be no Kafka here, with the mend; `None` if there can.
pub fn missing() -> Option<String> {
    jars::missing()
}

/// Fetches what a first start would fetch, so that no test waits for it.
///
/// # Errors
/// What is missing, and how to get it.
pub fn prepare() -> Result<(), String> {
    jars::home().map(drop)
}

/// A running cluster. Dropping it kills the brokers and removes their files, unless it was made with a directory.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    life: Life,
    // Last: files go after those who write them.
    _scratch: Option<TempDir>,
}

#[derive(Debug)]
struct Broker {
    recipe: Recipe,
    clients: Port,
    _controllers: Port,
    side: Option<Side>,
    running: Option<Running>,
}

/// A second door of a broker. It tells clients that come this way to come to another port: whoever listens there, and passes
/// on what it likes, stands between the broker and these clients and nobody else.
#[derive(Debug)]
struct Side {
    door: Port,
    advertised: Port,
}

impl Kafka {
    /// Starts one broker or three in a scratch directory and waits until all answer. They end when this is dropped, and also
    /// when the calling process dies.
    ///
    /// # Panics
    /// When they do not come to answer: what to install, or the end of a broker's log.
    pub fn start(brokers: u8) -> Self {
        Self::try_start(brokers).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// As [`Kafka::start`].
    ///
    /// # Errors
    /// What to install, or the end of a broker's log.
    pub fn try_start(brokers: u8) -> Result<Self, String> {
        let scratch =
            TempDir::with_prefix("docket-kafka-").map_err(|error| format!("no scratch directory: {error}"))?;
        let mut kafka = Self::start_in(scratch.path(), brokers, Life::Ours)?;
        kafka._scratch = Some(scratch);
        Ok(kafka)
    }

    /// Starts a new cluster whose files lie in `directory`. They stay there, unless it is [`Life::Ours`] and we die.
    ///
    /// # Errors
    /// What to install, or the end of a broker's log.
    pub fn start_in(directory: &Path, brokers: u8, life: Life) -> Result<Self, String> {
        Self::launch(&jars::home()?, "SharedArchiveFile", directory, brokers, life, Haste::Start)
    }

    /// As [`Kafka::start_in`], to be measured: Java compiles these brokers as it does an operator's, where others trade that
    /// for a quick start. They end when this is dropped, and also when the calling process dies.
    ///
    /// # Errors
    /// What to install, or the end of a broker's log.
    pub fn start_measured(directory: &Path, brokers: u8) -> Result<Self, String> {
        Self::launch(&jars::home()?, "SharedArchiveFile", directory, brokers, Life::Ours, Haste::Serve)
    }

    fn launch(
        home: &jars::Home,
        archive: &str,
        directory: &Path,
        brokers: u8,
        life: Life,
        haste: Haste,
    ) -> Result<Self, String> {
        if brokers != 1 && brokers != 3 {
            return Err(format!("{brokers} brokers: there are clusters of 1 and of 3"));
        }
        let count = usize::from(brokers);
        let (ports, controllers) = match life {
            Life::Ours => {
                let mut ports = ports::take(2 * count)?;
                let controllers = ports.split_off(count);
                (ports, controllers)
            }
            // People type them.
            Life::Detached => {
                let near = |digit: u16| {
                    (1..=u16::from(brokers))
                        .map(|id| ports::take_rather(19_090 + 100 * id + digit))
                        .collect::<Result<Vec<_>, _>>()
                };
                (near(2)?, near(3)?)
            }
        };
        let voters: Vec<String> =
            (1..).zip(&controllers).map(|(id, port)| format!("{id}@{}", port.address())).collect();
        let voters = voters.join(",");
        let cluster = cluster_id();
        let mut sides = match life {
            Life::Ours => ports::take(2 * count)?,
            Life::Detached => Vec::new(),
        };
        let mut kafka = Self { brokers: Vec::new(), life, _scratch: None };
        for (id, (clients, controllers)) in (1..=brokers).zip(ports.into_iter().zip(controllers)) {
            let own = directory.join(format!("broker-{id}"));
            let properties = lay_out(home, &own, id, &cluster)?;
            let side = sides.pop().zip(sides.pop()).map(|(door, advertised)| Side { door, advertised });
            let text = settings(id, brokers, &voters, &clients, &controllers, &own.join("log"), side.as_ref());
            fs::write(&properties, text).map_err(|error| format!("cannot write {}: {error}", properties.display()))?;
            let heap = if brokers == 1 { 384 } else { 256 };
            let mut recipe = Recipe::new(&home.java, &own, &own.join("broker.log"))
                .arguments(home.java(archive, haste))
                .arguments([format!("-Xms{heap}m"), format!("-Xmx{heap}m")])
                .arguments(["-cp", &home.classes, "kafka.Kafka"])
                .arguments([&properties]);
            recipe.left_behind = (life == Life::Ours).then(|| directory.to_owned());
            kafka.brokers.push(Broker { recipe, clients, _controllers: controllers, side, running: None });
        }
        for broker in &mut kafka.brokers {
            broker.running = Some(Running::start(&broker.recipe, life)?);
        }
        if let Err(fault) = kafka.wait_ready() {
            kafka.end_all();
            return Err(fault);
        }
        Ok(kafka)
    }

    /// For `bootstrap.servers`: all brokers, dead ones too.
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self.brokers.iter().map(|broker| broker.clients.address()).collect();
        all.join(",")
    }

    /// Where one broker listens for clients: `127.0.0.1:port`.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn address(&self, broker: u8) -> String {
        self.brokers[Self::place(broker)].clients.address()
    }

    /// The side doors, broker by broker: the port where somebody has to listen who stands between (clients that come that way
    /// are told to come there), and the address to which that one passes on. None if it was made for people.
    pub fn side_doors(&self) -> Vec<(u16, String)> {
        let sides = self.brokers.iter().filter_map(|broker| broker.side.as_ref());
        sides.map(|side| (side.advertised.number(), side.door.address())).collect()
    }

    /// How many brokers there are, dead ones too.
    pub fn brokers(&self) -> u8 {
        u8::try_from(self.brokers.len()).expect("one or three")
    }

    /// The process of a broker, if it was not killed.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn process(&self, broker: u8) -> Option<crate::process::Name> {
        self.brokers[Self::place(broker)].running.as_ref().map(Running::name)
    }

    /// How a broker was started.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn recipe(&self, broker: u8) -> &Recipe {
        &self.brokers[Self::place(broker)].recipe
    }

    /// Kills a broker with SIGKILL. Its files stay.
    ///
    /// # Panics
    /// If there is no such broker.
    pub fn kill(&mut self, broker: u8) {
        if let Some(mut running) = self.brokers[Self::place(broker)].running.take() {
            running.kill();
        }
    }

    /// Stops a broker in good order: it hands its partitions over first.
    ///
    /// # Panics
    /// If there is no such broker, or it does not end.
    pub fn stop(&mut self, broker: u8) {
        if let Some(running) = self.brokers[Self::place(broker)].running.take() {
            running.end(Signal::TERM, STOPS_WITHIN).unwrap_or_else(|fault| panic!("broker {broker}: {fault}"));
        }
    }

    /// Freezes a broker with SIGSTOP: its connections stay open and nothing comes out of them.
    ///
    /// # Panics
    /// If it is not running.
    pub fn pause(&self, broker: u8) {
        self.signal(broker, Signal::STOP);
    }

    /// Lets a paused broker go on.
    ///
    /// # Panics
    /// If it is not running.
    pub fn resume(&self, broker: u8) {
        self.signal(broker, Signal::CONT);
    }

    /// Starts a broker on its own files, killing it first if it runs, and waits until it answers and is known to all that
    /// run.
    ///
    /// # Panics
    /// When it does not come to answer.
    pub fn restart(&mut self, broker: u8) {
        self.kill(broker);
        self.restart_dead();
    }

    /// Starts all brokers that are dead, and waits until all answer.
    ///
    /// # Panics
    /// When they do not come to answer.
    pub fn restart_dead(&mut self) {
        for broker in self.brokers.iter_mut().filter(|broker| broker.running.is_none()) {
            broker.running = Some(Running::start(&broker.recipe, self.life).unwrap_or_else(|fault| panic!("{fault}")));
        }
        self.wait_ready().unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// The broker that leads a partition, as another running one knows it; `None` while there is none, or no such topic.
    pub fn leader_of(&self, topic: &str, partition: i32) -> Option<u8> {
        let leader = self.partition(topic, partition)?.leader?;
        u8::try_from(leader).ok()
    }

    /// The brokers that have all of a partition, sorted.
    pub fn in_sync(&self, topic: &str, partition: i32) -> Vec<u8> {
        let ids = self.partition(topic, partition).map(|known| known.in_sync).unwrap_or_default();
        let mut ids: Vec<u8> = ids.into_iter().filter_map(|id| u8::try_from(id).ok()).collect();
        ids.sort_unstable();
        ids
    }

    /// All topics.
    pub fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> =
            self.ask_any().map(|known| known.partitions.into_iter().map(|one| one.topic).collect()).unwrap_or_default();
        topics.sort();
        topics.dedup();
        topics
    }

    /// Waits until all brokers have all of every partition: after one was away, the next may go.
    ///
    /// # Panics
    /// When they do not within 90 s.
    pub fn wait_in_sync(&self) {
        let began = Instant::now();
        let all = self.brokers.len();
        loop {
            let known = self.ask_any();
            let behind = known.as_ref().is_none_or(|known| {
                known.brokers.len() < all || known.partitions.iter().any(|one| one.in_sync.len() < all)
            });
            if !behind {
                return;
            }
            assert!(began.elapsed() < READY_WITHIN, "brokers do not catch up: {known:?}");
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    fn partition(&self, topic: &str, partition: i32) -> Option<wire::Partition> {
        self.ask_any()?.partitions.into_iter().find(|known| known.topic == topic && known.index == partition)
    }

    /// What the first broker says that answers. One that is paused is not asked: it would take its time.
    fn ask_any(&self) -> Option<wire::Metadata> {
        self.brokers
            .iter()
            .filter(|broker| broker.running.as_ref().is_some_and(|running| !running.name().is_paused()))
            .find_map(|broker| wire::ask(&broker.clients.address()).ok())
    }

    fn wait_ready(&self) -> Result<(), String> {
        let began = Instant::now();
        let running: Vec<&Broker> = self.brokers.iter().filter(|broker| broker.running.is_some()).collect();
        for broker in &running {
            loop {
                let known = wire::ask(&broker.clients.address());
                let all = known
                    .as_ref()
                    .is_ok_and(|known| known.brokers.len() >= running.len() && known.controller.is_some());
                if all {
                    break;
                }
                if broker.running.as_ref().is_some_and(Running::has_ended) {
                    return Err(format!("a broker ended while it started; {}", broker.recipe.tail()));
                }
                if began.elapsed() > READY_WITHIN {
                    let tail = broker.recipe.tail();
                    return Err(format!(
                        "a broker is not ready after {} s ({known:?}); {tail}",
                        READY_WITHIN.as_secs()
                    ));
                }
                std::thread::sleep(LOOK_AGAIN_AFTER);
            }
        }
        Ok(())
    }

    fn end_all(&mut self) {
        for running in self.brokers.iter_mut().filter_map(|broker| broker.running.as_mut()) {
            running.kill();
        }
    }

    fn signal(&self, broker: u8, signal: Signal) {
        let running = self.brokers[Self::place(broker)].running.as_ref();
        let running = running.unwrap_or_else(|| panic!("broker {broker} is dead"));
        running.name().signal(signal).unwrap_or_else(|fault| panic!("broker {broker}: {fault}"));
    }

    fn place(broker: u8) -> usize {
        usize::from(broker).checked_sub(1).expect("brokers are numbered from 1")
    }
}

/// Runs a broker once so that Java keeps the classes it loads.
fn archive_classes(home: &jars::Home) -> Result<(), String> {
    let scratch = TempDir::with_prefix("docket-kafka-").map_err(|error| format!("no scratch directory: {error}"))?;
    let mut kafka = Kafka::launch(home, "ArchiveClassesAtExit", scratch.path(), 1, Life::Ours, Haste::Start)?;
    let running = kafka.brokers[0].running.take().ok_or("a broker that was started is gone")?;
    running.end(Signal::TERM, STOPS_WITHIN)
}

/// Makes a broker's directory from the template; the path of its properties, which are still to be written.
fn lay_out(home: &jars::Home, own: &Path, id: u8, cluster: &str) -> Result<PathBuf, String> {
    let fault = |error: std::io::Error| format!("cannot make {}: {error}", own.display());
    let log = own.join("log");
    fs::create_dir_all(&log).map_err(fault)?;
    for entry in fs::read_dir(&home.template).map_err(fault)? {
        let from = entry.map_err(fault)?;
        let to = log.join(from.file_name());
        if from.file_name() == "meta.properties" {
            let text = fs::read_to_string(from.path()).map_err(fault)?;
            let lines = text.lines().map(|line| match line.split_once('=') {
                Some(("node.id", _)) => format!("node.id={id}\n"),
                Some(("cluster.id", _)) => format!("cluster.id={cluster}\n"),
                // Any other than its neighbours': the first letter is one of base64, and never '-'.
                Some(("directory.id", old)) => format!("directory.id={}{}\n", char::from(b'A' + id), &old[1..]),
                _ => format!("{line}\n"),
            });
            fs::write(to, lines.collect::<String>()).map_err(fault)?;
        } else {
            fs::copy(from.path(), to).map_err(fault)?;
        }
    }
    Ok(own.join("broker.properties"))
}

/// 22 letters of base64 that are this cluster's: a client of one that is gone is refused by the next on its ports.
fn cluster_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let whole = format!("{:x}{:x}", u64::from(std::process::id()), now);
    let start = jars::CLUSTER_ID.len().saturating_sub(2).min(whole.len());
    // The last letter stands for 4 bits and stays 'A'.
    format!("{:d<21}A", &whole[whole.len() - start..])
}

fn settings(
    id: u8,
    brokers: u8,
    voters: &str,
    clients: &Port,
    controllers: &Port,
    log: &Path,
    side: Option<&Side>,
) -> String {
    let (clients, controllers, log) = (clients.address(), controllers.address(), log.display());
    let in_sync = brokers.min(2);
    let (side_door, side_advertised) = side.map_or_else(Default::default, |side| {
        (format!(",SIDE://{}", side.door.address()), format!(",SIDE://{}", side.advertised.address()))
    });
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{clients},CONTROLLER://{controllers}{side_door}
advertised.listeners=PLAINTEXT://{clients}{side_advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SIDE:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={log}
auto.create.topics.enable=false
unclean.leader.election.enable=false
default.replication.factor={brokers}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=1
offsets.topic.replication.factor={brokers}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={brokers}
transaction.state.log.min.isr={in_sync}
# Fail over in seconds.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=3000
replica.socket.timeout.ms=3000
controller.socket.timeout.ms=3000
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
controller.quorum.request.timeout.ms=1500
# Groups form at once, and members may ask for short sessions.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
group.consumer.min.session.timeout.ms=500
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
# A small heap.
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
"
    )
}

#[cfg(test)]
mod tests;
