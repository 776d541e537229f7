//! Desks that are crowded for a while. Their shards begin nothing more: what would is turned away, has had no effect and may
//! come again. What was begun goes on, undoing too.

use bytes::Bytes;

use super::business::Wish;
use super::node::ToNode;
use super::world::{Check, Found, Mistake, World};
use crate::record::{Body, Record};
use crate::shard::{Input, Ticket};

/// Least and most that a desk stays crowded, in microseconds.
const CROWDED_US: (u64, u64) = (2_000, 60_000);

impl World {
    /// From now on, and for a while.
    pub(super) fn crowd(&mut self, node: usize, partition: usize) {
        self.count("crowded");
        self.reach(node, 1, ToNode::Crowded(partition, true));
        let delay = self.dice.between(CROWDED_US.0, CROWDED_US.1);
        self.reach(node, delay, ToNode::Crowded(partition, false));
    }

    pub(super) fn set_crowded(&mut self, node: usize, partition: usize, crowded: bool) -> Result<(), Found> {
        let now = if crowded { "is" } else { "is no longer" };
        self.tell(|| format!("node {node} {now} crowded in partition {partition}"));
        self.nodes[node].desks[partition].crowded = crowded;
        if self.plan.mistake == Some(Mistake::BeginsWhileCrowded) {
            return Ok(());
        }
        self.feed(node, partition, Input::Crowded(crowded))
    }

    /// What a shard that is crowded hands to the log.
    pub(super) fn judge_handed(&mut self, bytes: &Bytes) -> Result<(), Found> {
        let Ok(Record { body: Body::Commit(commit), .. }) = Record::decode(bytes) else { return Ok(()) };
        // What the business refuses is refused for good, crowded or not.
        let wish = self.referee.wish_of(&commit).filter(|_| commit.outcome.is_accepted());
        match wish {
            Some(wish) if wish.begins() => {
                return Err(Found::new(Check::Bounds, format!("{wish:?} is begun by a shard that is crowded")));
            }
            Some(Wish::Release(..)) => self.count("undone while crowded"),
            Some(Wish::Hold(..) | Wish::Keep(..) | Wish::PayIn(..) | Wish::Hear(..)) => {
                self.count("went on while crowded");
            }
            _ => {}
        }
        Ok(())
    }

    /// Who submitted this under a ticket is told that there is too much.
    pub(super) fn judge_turned_away(&mut self, node: usize, partition: usize, ticket: Ticket) -> Result<(), Found> {
        let wrong = |what: String| Err(Found::new(Check::Bounds, what));
        // A question has joined the command that it asks for, or is answered.
        let Some(wish) = self.referee.submitted(ticket) else {
            return wrong(format!("{ticket:?} is turned away, and nobody sent a command under its id"));
        };
        if !wish.begins() {
            return wrong(format!("{wish:?} begins nothing, and is turned away"));
        }
        if !self.nodes[node].desks[partition].crowded {
            return wrong(format!("{wish:?} is turned away, and there is room"));
        }
        self.referee.turn_away(partition, ticket)
    }
}
