//! Who should feed what, as every node works it out for itself from the same tables. Shares differ by one at most and add
//! up to all partitions; a node with more than its share gives back, one with less takes what is free. Pure.

use std::collections::{BTreeMap, BTreeSet};

use engine::position::Partition;

/// What one node does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Holds and goes on holding.
    pub(super) keep: BTreeSet<Partition>,
    /// Takes: nobody holds it.
    pub(super) take: BTreeSet<Partition>,
    /// Gives back: others have too little.
    pub(super) give: BTreeSet<Partition>,
}

/// `members`: all that live, `me` among them. `held`: by whom, where the lease has not run out.
pub(super) fn plan(partitions: u16, me: &str, members: &BTreeSet<String>, held: &BTreeMap<Partition, String>) -> Plan {
    let count = members.len().max(1);
    let rank = members.iter().position(|member| member == me).unwrap_or(0);
    let share = usize::from(partitions) / count + usize::from(rank < usize::from(partitions) % count);
    let all = (0..partitions).map(Partition);
    let mut keep = all.clone().filter(|at| held.get(at).is_some_and(|by| by == me)).collect::<BTreeSet<_>>();
    let give = match keep.iter().nth(share).copied() {
        Some(first) => keep.split_off(&first),
        None => BTreeSet::new(),
    };
    let free = all.filter(|at| !held.contains_key(at));
    let take = free.take(share - keep.len()).collect();
    Plan { keep, take, give }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("n{number:02}")).collect()
    }

    #[test]
    fn alone_a_node_takes_everything() {
        let plan = plan(4, "n00", &names(1), &BTreeMap::new());
        assert_eq!(plan.take, (0..4).map(Partition).collect());
    }

    #[test]
    fn what_others_hold_is_left_to_them() {
        let held = BTreeMap::from([(Partition(0), "n01".to_owned())]);
        let plan = plan(3, "n00", &names(2), &held);
        assert_eq!(plan.take, [Partition(1), Partition(2)].into());
    }

    proptest! {
        /// Whatever is held at first, and in whatever order nodes look: soon everything is fed by one node, shares differ
        /// by one at most, and nothing moves any more.
        #[test]
        fn nodes_come_to_rest_with_even_shares(
            partitions in 0_u16..40,
            count in 1_usize..6,
            held in prop::collection::btree_map((0_u16..40).prop_map(Partition), 0_usize..7, 0..40),
            order in prop::collection::vec(0_usize..6, 40),
        ) {
            let members = names(count);
            // Some are held by nodes that are gone: those leases have run out.
            let mut held = held.into_iter().map(|(at, by)| (at, format!("n{by:02}"))).collect::<BTreeMap<_, _>>();
            held.retain(|at, by| at.0 < partitions && members.contains(by));
            let looks = order.into_iter().chain((0..4).flat_map(|_| 0..count));
            for look in looks {
                let me = format!("n{:02}", look % count);
                let next = plan(partitions, &me, &members, &held);
                held.retain(|at, _| !next.give.contains(at));
                held.extend(next.take.into_iter().map(|at| (at, me.clone())));
            }
            prop_assert_eq!(held.len(), usize::from(partitions));
            let shares = members.iter().map(|me| held.values().filter(|by| *by == me).count()).collect::<Vec<_>>();
            prop_assert!(shares.iter().max().unwrap_or(&0) - shares.iter().min().unwrap_or(&0) <= 1, "{shares:?}");
            for me in &members {
                let next = plan(partitions, me, &members, &held);
                prop_assert!(next.take.is_empty() && next.give.is_empty());
            }
        }
    }
}
