//! What goes wrong beside the log: crashes, pauses, full disks, moved hints. And the healing.

use super::dice::Dice;
use super::log::WriteFaults;
use super::node::ToNode;
use super::world::{Event, PARTITIONS, World};
use crate::log::AppendError;

/// What goes wrong beside the log, in a thousand or in microseconds. Drawn for each seed.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub(super) writes: WriteFaults,
    pub(super) message_lost: u64,
    pub(super) answer_lost: u64,
    pub(super) load_fails: u64,
    /// Every so often something of this happens.
    pub(super) mischief_us: u64,
    pub(super) crash: bool,
    pub(super) pause: bool,
    pub(super) log_crash: bool,
    pub(super) full: bool,
    pub(super) stop: bool,
    pub(super) duel: bool,
    pub(super) move_hint: bool,
}

impl Faults {
    pub(super) fn drawn(dice: &mut Dice) -> Self {
        let mut rate = |most| if dice.chance(500) { dice.below(most) } else { 0 };
        let (message_lost, answer_lost, load_fails) = (rate(60), rate(100), rate(20));
        let mischief_us = dice.between(4_000, 60_000);
        let mut armed = || dice.chance(500);
        let [crash, pause, log_crash, full, stop, duel, move_hint] = std::array::from_fn(|_| armed());
        let writes = WriteFaults::drawn(dice);
        Self {
            writes,
            message_lost,
            answer_lost,
            load_fails,
            mischief_us,
            crash,
            pause,
            log_crash,
            full,
            stop,
            duel,
            move_hint,
        }
    }

    pub(super) fn none() -> Self {
        Self {
            writes: WriteFaults::none(),
            message_lost: 0,
            answer_lost: 0,
            load_fails: 0,
            mischief_us: u64::MAX,
            crash: false,
            pause: false,
            log_crash: false,
            full: false,
            stop: false,
            duel: false,
            move_hint: false,
        }
    }
}

impl World {
    pub(super) fn mischief(&mut self) {
        if self.healed {
            return;
        }
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        let others_up = (0..self.nodes.len()).any(|other| other != node && self.nodes[other].up);
        match self.dice.below(7) {
            0 if self.faults.crash && self.nodes[node].up && others_up => self.crash(node),
            1 | 2 if self.faults.pause && self.nodes[node].up && !self.nodes[node].paused => {
                self.count("pause");
                self.tell(|| format!("node {node} pauses"));
                self.nodes[node].paused = true;
                let (delay, incarnation) = (self.dice.between(2_000, 120_000), self.nodes[node].incarnation);
                self.after(delay, Event::Resume(node, incarnation));
            }
            3 if self.faults.log_crash => self.crash_log(),
            4 if self.faults.full && !self.log.full => {
                self.count("full");
                self.tell(|| "the log is full".to_owned());
                self.log.full = true;
                let delay = self.dice.between(1_000, 20_000);
                self.after(delay, Event::HasRoom);
            }
            5 if self.faults.stop && self.nodes[node].up => {
                self.count("stop");
                self.tell(|| format!("the log writer of node {node} stops"));
                self.nodes[node].stopped = true;
            }
            6 if self.faults.move_hint => {
                let before = std::mem::replace(&mut self.hint, node);
                self.count("hint moved");
                self.tell(|| format!("node {node} should own the partition"));
                if before != node && self.dice.chance(500) {
                    self.reach(before, 100, ToNode::Drain);
                }
            }
            _ => {}
        }
        let delay = self.dice.between(1, self.faults.mischief_us);
        self.after(delay, Event::Mischief);
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.count("crash");
        self.tell(|| format!("node {node} crashes"));
        self.nodes[node].crash(self.home, PARTITIONS);
        if self.dice.chance(200) {
            self.count("state store lost");
            self.nodes[node].store = Default::default();
        }
        let delay = self.dice.between(500, 60_000);
        self.after(delay, Event::Restart(node));
    }

    pub(super) fn crash_log(&mut self) {
        let lost = std::mem::take(&mut self.log.unsynced);
        self.tell(|| format!("the log crashes and loses {} records", lost.len()));
        for write in lost {
            self.count("record lost unsynced");
            self.resolve(write, Err(AppendError::Unknown));
        }
    }

    pub(super) fn restart(&mut self, node: usize) {
        if !self.nodes[node].up {
            self.tell(|| format!("node {node} starts"));
            self.nodes[node].up = true;
            self.reach(node, 0, ToNode::Tick);
        }
    }

    pub(super) fn resume(&mut self, node: usize) -> Result<(), String> {
        self.tell(|| format!("node {node} resumes"));
        self.nodes[node].paused = false;
        for input in std::mem::take(&mut self.nodes[node].inbox) {
            // It may crash on the way: then the rest is lost with it.
            if self.nodes[node].up {
                self.at_node(node, input)?;
            }
        }
        Ok(())
    }

    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.tell(|| "all is healed".to_owned());
        self.healed = true;
        self.faults = Faults::none();
        self.log.full = false;
        for node in 0..self.nodes.len() {
            if self.nodes[node].paused {
                self.resume(node)?;
            }
            self.restart(node);
        }
        Ok(())
    }
}
