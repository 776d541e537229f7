//! The real shard on the simulated log: many seeds, each another story of crashes, pauses, duels and lost answers.
//!
//! To look at one seed: `SIM_SEED=17 cargo test -p engine --test sim_partition one_seed -- --nocapture`.

use std::collections::BTreeMap;

use engine::simulated::{Mistake, Plan, Report, simulate};

/// Names the seed when an assertion of the shard fails in it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn run(seed: u64) -> Report {
    let _seed = Seed(seed);
    simulate(seed, Plan::default()).unwrap_or_else(|violation| panic!("{violation}"))
}

/// Every promise holds in every seed, and enough happens for that to mean something.
fn promises_hold(seeds: std::ops::Range<u64>) {
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut requests = 0;
    for seed in seeds {
        let report = run(seed);
        requests += report.requests;
        for (what, count) in report.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{requests} requests: {counts:#?}");
    let of = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert!(of("accepted") > requests / 2, "at least half is accepted");
    for what in [
        "answer lost",
        "append lost",
        "append lands late",
        "append duplicated",
        "append without offset",
        "append overtaken",
        "append to a full log",
        "record lost unsynced",
        "record ignored",
        "crash",
        "state store lost",
        "pause",
        "stop",
        "full",
        "hint moved",
        "message lost",
        "answer to client lost",
        "load failed",
        "held back",
        "claim lost",
        "fenced",
        "stepped down unknown",
        "stepped down full",
        "stepped down stopped",
        "released",
        "given back",
        "read back",
        "probed",
        "refused",
        "invalid",
        "reused",
        "unheard",
        "replayed",
        "inquiry answered",
        "remembered by the aggregate",
        "not owner",
        "draining",
        "log full",
        "log stopped",
    ] {
        assert!(of(what) > 0, "{what} never happened");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn promises_hold_in_the_first_quarter() {
    promises_hold(0..2_500);
}

#[test]
fn promises_hold_in_the_second_quarter() {
    promises_hold(2_500..5_000);
}

#[test]
fn promises_hold_in_the_third_quarter() {
    promises_hold(5_000..7_500);
}

#[test]
fn promises_hold_in_the_fourth_quarter() {
    promises_hold(7_500..10_000);
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
    let seed = seed.parse().expect("SIM_SEED is a number");
    let _seed = Seed(seed);
    match simulate(seed, Plan { tell: true, ..Plan::default() }) {
        Ok(report) => println!("{report:#?}"),
        Err(violation) => panic!("{}\n{violation}", violation.trace.join("\n")),
    }
}

/// How many seeds it takes to find a mistake.
fn seeds_to_find(mistake: Mistake) -> Option<u64> {
    let plan = Plan { mistake: Some(mistake), tell: false };
    (0..1_000).find(|seed| {
        // Assertions of the shard find some: that is what they are for.
        let run = std::panic::catch_unwind(|| simulate(*seed, plan));
        !matches!(run, Ok(Ok(_)))
    })
}

#[test]
fn planted_mistakes_are_found() {
    for mistake in [
        Mistake::AcknowledgesBeforeContiguity,
        Mistake::ServesBeforeItsClaim,
        Mistake::ForgetsIds,
        Mistake::SaysSavedTooEarly,
        Mistake::SavesAcrossTerms,
    ] {
        let seed = seeds_to_find(mistake);
        println!("{mistake:?} is found in seed {seed:?}");
        assert!(seed.is_some(), "{mistake:?} is not found");
    }
}
