//! The minimal handler on a topic with as many partitions and replicas as the product's log, in a process of its own; and how
//! a topic like that is made.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::record::Genesis;
use engine_kafka::{KafkaLog, KafkaOptions};
use tempfile::TempDir;
use xtask::ports::{self, Port};
use xtask::process::{Life, Recipe, Running};

use crate::child::{cpu_s, peak_rss_mb};
use crate::generator::{self, Cost, Found, Loop, Profile};
use crate::ground::Ground;
use crate::house::founding;
use crate::{Done, How, wire};

/// How long it may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// A new log on these brokers, its local copy in `scratch`.
pub(super) fn options(ground: &Ground, scratch: &TempDir) -> (KafkaOptions, Genesis) {
    let name = ground.new_log();
    let mut options = KafkaOptions::new(ground.kafka.bootstrap(), &name, scratch.path().join(&name));
    options.replication = u16::from(ground.kafka.brokers());
    (options, founding())
}

/// A topic made as the product makes its own, which nobody follows.
pub(super) fn topic(ground: &Ground, scratch: &TempDir) -> Done<String> {
    let (options, genesis) = options(ground, scratch);
    KafkaLog::open(&options, Some(&genesis))?.close();
    Ok(options.topic())
}

/// The minimal handler, running; killed when dropped.
pub(super) struct HttpFloor {
    running: Running,
    address: SocketAddr,
    _port: Vec<Port>,
    _scratch: TempDir,
}

impl HttpFloor {
    /// Starts it and waits until it serves.
    pub(super) fn start(how: &How, ground: &Ground) -> Done<Self> {
        let scratch = how.scratch()?;
        let topic = topic(ground, &scratch)?;
        let port = ports::take(1)?;
        let address = port[0].address();
        let log = scratch.path().join("floor.log");
        let recipe = Recipe::new(std::env::current_exe()?, scratch.path(), &log);
        let recipe = recipe.arguments(["serve-topic", &address, &ground.kafka.bootstrap(), &topic]);
        let running = Running::start(&recipe, Life::Ours)?;
        let address = address.parse()?;
        let began = Instant::now();
        while !matches!(wire::get(address, "/readyz"), Ok(reply) if reply.status == 200) {
            if running.has_ended() || began.elapsed() > READY_WITHIN {
                return Err(format!("the minimal handler does not serve; {}", recipe.tail()).into());
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
        Ok(Self { running, address, _port: port, _scratch: scratch })
    }

    /// Puts it under load.
    pub(super) fn load(&self, how: &How, ground: &Ground, profile: Profile, pace: Loop) -> Done<Found> {
        let pid = self.running.name().pid.unsigned_abs();
        generator::load(how, &[self.address.to_string()], profile, pace, || {
            let beside = vec![("brokers", ground.brokers_cpu_s()?)];
            Ok(Cost { cpu_s: cpu_s(pid)?, rss_mb: peak_rss_mb(pid)?, beside })
        })
    }

    /// What it is called in the table.
    pub(super) fn told(&self, ground: &Ground) -> String {
        format!("minimal handler on a producer, {}", ground.brokers())
    }
}
