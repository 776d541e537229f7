//! Whole simulated nodes: many seeds, each another story of crashes, pauses, duels, lost answers, late calls and stale
//! rows, that must settle; and mistakes planted in them, each of which some check must see.
//!
//! To look at one seed: `cargo xtask sim --seed 17 --trace`.

use std::collections::BTreeMap;

use engine::simulated::house::{Check, Mistake, Plan, Report, simulate};

/// Names the seed when an assertion fails in it.
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
}

#[test]
fn promises_hold_in_the_first_quarter() {
    promises_hold(0..300);
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

/// How many seeds it takes to find a mistake, and which check finds it.
fn seeds_to_find(mistake: Mistake) -> Option<(u64, Check, String)> {
    let plan = Plan { mistake: Some(mistake), tell: false };
    (0..600).find_map(|seed| match std::panic::catch_unwind(|| simulate(seed, plan)) {
        Ok(Ok(_)) => None,
        Ok(Err(violation)) => Some((seed, violation.by, violation.what)),
        // Assertions of the shard find some: that is what they are for.
        Err(_) => Some((seed, Check::Assertion, String::new())),
    })
}

#[test]
fn planted_mistakes_are_found() {
    for mistake in Mistake::ALL {
        println!("{mistake:?} is found in seed {:?}", seeds_to_find(mistake));
    }
}
