//! A shelf in every partition: whoever leads a partition, and only they, can accept a delivery there. So they tell who leads
//! what, where each partition ends, and how soon one that was without a leader has one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::Done;
use crate::ground::{Nodes, PARTITIONS};
use crate::visible::{self, deliver};
use crate::wire::{self, Reply};

/// More shelves than it takes to find one in each partition.
const SHELVES_MAX: u64 = 400;
/// How long a delivery may take.
const DELIVERED_WITHIN: Duration = Duration::from_secs(5);
/// How long until nodes have shared the partitions among them.
const SHARED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at something that has no better way to tell.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The shelves, by partition.
pub(super) struct Shelves(BTreeMap<u16, String>);

impl Shelves {
    /// Puts them up.
    pub(super) fn find(nodes: &Nodes<'_>) -> Done<Self> {
        let server = nodes.addresses()[0];
        let mut shelves = BTreeMap::new();
        for number in 0..SHELVES_MAX {
            let shelf = visible::path(number);
            let reply = visible::put_up(server, &shelf)?;
            let (partition, _) = position(&reply).ok_or_else(|| format!("a shelf was not put up: {reply:?}"))?;
            shelves.entry(partition).or_insert(shelf);
            if shelves.len() == usize::from(PARTITIONS) {
                return Ok(Self(shelves));
            }
        }
        Err(format!("a partition without a shelf: {shelves:?}").into())
    }

    /// Shelf by shelf.
    pub(super) fn all(&self) -> impl Iterator<Item = (u16, &str)> + Clone {
        self.0.iter().map(|(partition, shelf)| (*partition, shelf.as_str()))
    }

    /// Who leads what, by number from 0. Only while nothing else is asked of the nodes: they count what they pass on.
    pub(super) fn leaders(&self, nodes: &Nodes<'_>) -> Done<BTreeMap<u16, usize>> {
        let (first, names) = (nodes.addresses()[0], nodes.names());
        let passed_on = || -> Done<Vec<f64>> {
            let page = wire::get(first, "/metrics")?.body;
            let count = |name: &&str| {
                let peer = format!("peer=\"{name}\"");
                let lines = page.lines().filter(|line| line.starts_with("docket_forwarded_total{"));
                let its = lines.filter(|line| line.contains(&peer));
                its.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
            };
            Ok(names.iter().map(count).collect())
        };
        let (mut leaders, mut before) = (BTreeMap::new(), passed_on()?);
        for (partition, shelf) in self.all() {
            deliver(first, shelf, DELIVERED_WITHIN)?;
            let after = passed_on()?;
            // What it passes on to nobody is its own.
            let leader = before.iter().zip(&after).position(|(before, after)| after > before);
            leaders.insert(partition, leader.unwrap_or_default());
            before = after;
        }
        Ok(leaders)
    }

    /// Waits until all nodes lead about as many, and still do after a moment; tells who leads what.
    pub(super) fn wait_shared(&self, nodes: &Nodes<'_>) -> Done<BTreeMap<u16, usize>> {
        let (began, count) = (Instant::now(), nodes.names().len());
        let mut before = BTreeMap::new();
        loop {
            // A partition that changes hands may not answer in time: then it is not shared yet.
            let found = self.leaders(nodes);
            if let Ok(leaders) = &found {
                let of = |node| leaders.values().filter(|leader| **leader == node).count();
                if *leaders == before && (0..count).all(|node| of(node) >= usize::from(PARTITIONS) / count) {
                    return Ok(before);
                }
                before.clone_from(leaders);
            }
            if began.elapsed() > SHARED_WITHIN {
                return Err(format!("the nodes do not share the partitions: {found:?}").into());
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    /// Where every partition ends, or a little before, as `Docket-Min-Position` takes it.
    pub(super) fn ends(&self, nodes: &Nodes<'_>) -> Done<String> {
        let server = nodes.addresses()[0];
        let ends = self.all().map(|(_, shelf)| deliver(server, shelf, DELIVERED_WITHIN));
        Ok(ends.collect::<Done<Vec<_>>>()?.join(", "))
    }
}

/// The first position that an answer tells.
fn position(reply: &Reply) -> Option<(u16, u64)> {
    let (partition, offset) = reply.header("docket-position")?.split(',').next()?.trim().split_once(':')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}
