//! Mistakes planted in the simulated nodes, each of which some check must see: this shows that the simulation looks, more
//! than the number of its seeds does. The table that the test prints is kept in docs/simulation.md.

use std::collections::BTreeMap;

use engine::simulated::house::{Check, Mistake, Plan, simulate};

/// Seeds that every mistake is looked for in, to tell how well it is seen.
const SEEDS: u64 = 100;
/// Seeds after which a mistake that was not found is not seen.
const SEEDS_MAX: u64 = 5_000;

/// Where a mistake was seen.
#[derive(Default)]
struct Seen {
    first: Option<u64>,
    seeds: u64,
    by: BTreeMap<Check, u64>,
}

fn look_for(mistake: Mistake) -> Seen {
    let mut seen = Seen::default();
    for seed in 0..SEEDS_MAX {
        if seed >= SEEDS && seen.first.is_some() {
            break;
        }
        let plan = Plan { mistake: Some(mistake), tell: false };
        let by = match std::panic::catch_unwind(|| simulate(seed, plan)) {
            Ok(Ok(_)) => continue,
            Ok(Err(violation)) => violation.by,
            // Assertions of the shard find some: that is what they are for.
            Err(_) => Check::Assertion,
        };
        seen.first.get_or_insert(seed);
        seen.seeds += 1;
        *seen.by.entry(by).or_default() += 1;
    }
    seen
}

#[test]
fn planted_mistakes_are_found() {
    // The assertions that are meant to fail need not tell of it; nothing else runs in this process.
    let tells = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = Mistake::ALL.map(|mistake| (mistake, look_for(mistake)));
    std::panic::set_hook(tells);

    println!("| mistake | first seed | of {SEEDS} seeds | found by |\n|---|---|---|---|");
    for (mistake, Seen { first, seeds, by }) in &found {
        let mut by = by.iter().map(|(check, seeds)| (*seeds, format!("{check:?}"))).collect::<Vec<_>>();
        by.sort_by(|one, other| other.cmp(one));
        let by = by.iter().map(|(seeds, check)| format!("{check} {seeds}")).collect::<Vec<_>>().join(", ");
        let first = first.map_or("-".to_owned(), |first| first.to_string());
        println!("| {mistake:?} | {first} | {seeds} | {by} |");
    }
    for (mistake, seen) in &found {
        assert!(seen.first.is_some(), "{mistake:?} is not found in {SEEDS_MAX} seeds");
    }
}

#[test]
fn every_mistake_is_told_of_in_the_documentation() {
    let page = include_str!("../../../docs/simulation.md");
    for mistake in Mistake::ALL {
        let row = format!("| `{mistake:?}` |");
        assert!(page.contains(&row), "docs/simulation.md has no row that begins {row:?}");
    }
}
