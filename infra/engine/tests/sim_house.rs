//! Whole simulated nodes: many seeds, each another story of crashes, pauses, duels, lost answers, late calls, feeders that
//! overtake each other and clocks that jump, after which all must settle.
//!
//! To look at one seed: `cargo xtask sim --seed 17 --trace`.

use std::collections::BTreeMap;
use std::process::Command;

use engine::simulated::house::{Plan, Report, simulate};

/// Names the seed when an assertion of what is simulated fails in it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn run(seed: u64, tell: bool) -> Report {
    let _seed = Seed(seed);
    simulate(seed, Plan { tell, ..Plan::default() })
        .unwrap_or_else(|violation| panic!("{}\n{violation}", violation.trace.join("\n")))
}

/// Every promise holds in every seed, and enough happens for that to mean something.
fn promises_hold(seeds: std::ops::Range<u64>) {
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut requests = 0;
    for seed in seeds {
        let report = run(seed, false);
        requests += report.requests;
        for (what, count) in report.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{requests} requests: {counts:#?}");
    let of = |what: &str| counts.get(what).copied().unwrap_or(0);
    let judged = of("accepted") + of("refused") + of("invalid") + of("reused") + of("unheard");
    assert!(of("accepted") > judged / 2, "at least half is accepted");
    assert!(of("transfer done") > of("transfer undone") / 2, "a third of the transfers at least are done");
    for what in HAPPENS {
        assert!(of(what) > 0, "{what} never happened");
    }
}

/// What must have happened somewhere in each thousand seeds.
const HAPPENS: [&str; 75] = [
    // On the log.
    "answer lost",
    "append lost",
    "append lands late",
    "append duplicated",
    "append without offset",
    "append overtaken",
    "append to a full log",
    "record lost unsynced",
    "record ignored",
    // To nodes.
    "crash",
    "state store lost",
    "pause",
    "stop",
    "full",
    "hint moved",
    "lease moved",
    "clock jumped",
    "message lost",
    "answer lost on the way",
    "load failed",
    "held back",
    // Bounds.
    "crowded",
    "turned away",
    "begun once there was room",
    "went on while crowded",
    "undone while crowded",
    // Terms.
    "led",
    "claim lost",
    "fenced",
    "stepped down unknown",
    "stepped down full",
    "stepped down stopped",
    "released",
    "given back",
    "read back",
    "probed",
    // Answers.
    "refused",
    "invalid",
    "unheard",
    "replayed",
    "remembered by the aggregate",
    "not owner",
    "draining",
    "log full",
    "log stopped",
    // Sagas, timers, the gateway.
    "transfer done",
    "transfer undone",
    "standing order ended",
    "errand tried again",
    "errand put off",
    "timer due",
    "gateway called",
    "call lost",
    "call late",
    "call made twice",
    "call without answer",
    "call declined",
    "call put off",
    "paid back",
    "barred before it came",
    // Rows.
    "event parked",
    "parked tried again",
    "commit failed",
    "commit late",
    "commit fenced",
    "commit unknown",
    "commit in doubt was done",
    "load kept",
    "load not kept",
    "evicted",
    "served from the cache",
    "read waits",
    "row shown",
    "no row shown",
    "parked shown",
];

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let (once, again) = (run(seed, true), run(seed, true));
        assert!(once.trace.len() > 100, "seed {seed} tells little");
        assert_eq!(once, again, "seed {seed}");
        assert_eq!(once.trace_hash, run(seed, false).trace_hash, "seed {seed} goes another way when it is told");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_in_another_process() {
    let told = || {
        let this = std::env::current_exe().expect("a test is a program");
        let arguments = ["one_seed", "--exact", "--nocapture", "--test-threads", "1"];
        let output = Command::new(this).args(arguments).env("SIM_SEED", "7").output().expect("it starts");
        let text = String::from_utf8(output.stdout).expect("a trace is text");
        // Not how long the test took.
        text.lines().filter(|line| !line.starts_with("test result")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (once, again) = (told(), told());
    assert!(once.len() > 100, "little is told: {once:?}");
    assert_eq!(once, again);
}

#[test]
fn promises_hold_in_the_first_quarter() {
    promises_hold(0..5_000);
}

#[test]
fn promises_hold_in_the_second_quarter() {
    promises_hold(5_000..10_000);
}

#[test]
fn promises_hold_in_the_third_quarter() {
    promises_hold(10_000..15_000);
}

#[test]
fn promises_hold_in_the_fourth_quarter() {
    promises_hold(15_000..20_000);
}

/// Seeds beyond those above, if the environment names them: `cargo xtask sim`.
#[test]
#[expect(clippy::disallowed_methods, reason = "names the runs to be made; changes nothing in them")]
fn more_seeds() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number of seeds"));
    let (Some(from), Some(count)) = (number("SIM_FROM"), number("SIM_COUNT")) else { return };
    promises_hold(from..from + count);
}

/// One seed, told line by line, if the environment names one.
#[test]
#[expect(clippy::disallowed_methods, reason = "names the run to be told; changes nothing in it")]
fn one_seed() {
    let Ok(seed) = std::env::var("SIM_SEED") else { return };
    let Report { trace_hash, requests, counts, trace } = run(seed.parse().expect("SIM_SEED is a number"), true);
    println!("{}\n{requests} requests, trace {trace_hash:016x}: {counts:#?}", trace.join("\n"));
}
