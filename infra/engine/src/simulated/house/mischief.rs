//! What goes wrong beside the log: crashes, pauses, full disks, moved hints and leases, clocks that jump, desks that are
//! crowded, a gateway that is slow to answer, a view that cannot read an event. And the healing.

use super::node::ToNode;
use super::world::{Event, Found, World};
use crate::log::AppendError;
use crate::simulated::dice::Dice;
use crate::simulated::log::WriteFaults;

/// Least and most that clocks jump, in microseconds; either way.
const JUMP_US: (u64, u64) = (20_000, 3_600_000_000);

/// What goes wrong beside the log, in a thousand or in microseconds. Drawn for each seed.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub(super) writes: WriteFaults,
    pub(super) message_lost: u64,
    pub(super) answer_lost: u64,
    pub(super) load_fails: u64,
    pub(super) call_lost: u64,
    pub(super) call_answer_lost: u64,
    pub(super) call_late: u64,
    pub(super) call_twice: u64,
    pub(super) commit_fails: u64,
    pub(super) commit_unknown: u64,
    pub(super) commit_late: u64,
    /// The view cannot read what is marked.
    pub(super) poison: bool,
    /// Every so often something of this happens.
    pub(super) mischief_us: u64,
    crash: bool,
    pause: bool,
    log_crash: bool,
    full: bool,
    stop: bool,
    pub(super) duel: bool,
    move_hint: bool,
    move_lease: bool,
    clock_jumps: bool,
    crowd: bool,
}

impl Faults {
    pub(super) fn drawn(dice: &mut Dice, partitions: usize) -> Self {
        let mut rate = |most| if dice.chance(500) { dice.below(most) } else { 0 };
        let (message_lost, answer_lost, load_fails) = (rate(60), rate(100), rate(20));
        let (call_lost, call_answer_lost, call_late, call_twice) = (rate(200), rate(200), rate(200), rate(200));
        let (commit_fails, commit_unknown, commit_late) = (rate(100), rate(100), rate(60));
        let mischief_us = dice.between(4_000, 60_000) / partitions as u64;
        let mut armed = || dice.chance(500);
        let [poison, crash, pause, log_crash, full, stop, duel, move_hint, move_lease, clock_jumps, crowd] =
            std::array::from_fn(|_| armed());
        let writes = WriteFaults::drawn(dice);
        Self {
            writes,
            message_lost,
            answer_lost,
            load_fails,
            call_lost,
            call_answer_lost,
            call_late,
            call_twice,
            commit_fails,
            commit_unknown,
            commit_late,
            poison,
            mischief_us,
            crash,
            pause,
            log_crash,
            full,
            stop,
            duel,
            move_hint,
            move_lease,
            clock_jumps,
            crowd,
        }
    }

    pub(super) fn none() -> Self {
        Self {
            writes: WriteFaults::none(),
            message_lost: 0,
            answer_lost: 0,
            load_fails: 0,
            call_lost: 0,
            call_answer_lost: 0,
            call_late: 0,
            call_twice: 0,
            commit_fails: 0,
            commit_unknown: 0,
            commit_late: 0,
            poison: false,
            mischief_us: u64::MAX,
            crash: false,
            pause: false,
            log_crash: false,
            full: false,
            stop: false,
            duel: false,
            move_hint: false,
            move_lease: false,
            clock_jumps: false,
            crowd: false,
        }
    }
}

impl World {
    pub(super) fn mischief(&mut self) -> Result<(), Found> {
        if self.healed {
            return Ok(());
        }
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        let partition = self.dice.below(self.logs.len() as u64) as usize;
        let others_up = (0..self.nodes.len()).any(|other| other != node && self.nodes[other].up);
        match self.dice.below(10) {
            0 if self.faults.crash && self.nodes[node].up && others_up => self.crash(node),
            1 | 2 if self.faults.pause && self.nodes[node].up && !self.nodes[node].paused => {
                self.count("pause");
                self.tell(|| format!("node {node} pauses"));
                self.nodes[node].paused = true;
                let (delay, incarnation) = (self.dice.between(2_000, 80_000), self.nodes[node].incarnation);
                self.after(delay, Event::Resume(node, incarnation));
            }
            3 if self.faults.log_crash => self.crash_log(partition),
            4 if self.faults.full && !self.logs[partition].full => {
                self.count("full");
                self.tell(|| format!("partition {partition} is full"));
                self.logs[partition].full = true;
                let delay = self.dice.between(1_000, 20_000);
                self.after(delay, Event::HasRoom(partition));
            }
            5 if self.faults.stop && self.nodes[node].up => {
                self.count("stop");
                self.tell(|| format!("the log writer of node {node} stops"));
                self.nodes[node].stopped = true;
            }
            6 if self.faults.move_hint => {
                let before = std::mem::replace(&mut self.hints[partition], node);
                self.count("hint moved");
                self.tell(|| format!("node {node} should own partition {partition}"));
                if before != node && self.dice.chance(500) {
                    self.reach(before, 100, ToNode::Drain(partition));
                }
            }
            7 if self.faults.move_lease => {
                self.count("lease moved");
                self.tell(|| format!("node {node} should feed partition {partition}"));
                self.leases[partition] = node;
            }
            8 if self.faults.clock_jumps => {
                let jump = self.dice.between(JUMP_US.0, JUMP_US.1) as i64;
                self.clock_jump_us = if self.clock_jump_us == 0 && self.dice.chance(500) { jump } else { -jump / 2 };
                let jump = self.clock_jump_us;
                self.count("clock jumped");
                self.tell(|| format!("the clocks are {jump} µs wrong"));
            }
            9 if self.faults.crowd && self.nodes[node].up => self.crowd(node, partition),
            _ => {}
        }
        let delay = self.dice.between(1, self.faults.mischief_us);
        self.after(delay, Event::Mischief);
        Ok(())
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.count("crash");
        self.tell(|| format!("node {node} crashes"));
        let clearing = self.clearing;
        self.nodes[node].crash(clearing);
        if self.dice.chance(200) {
            self.count("state store lost");
            for desk in &mut self.nodes[node].desks {
                desk.store.lose();
            }
        }
        let delay = self.dice.between(500, 40_000);
        self.after(delay, Event::Restart(node));
    }

    fn crash_log(&mut self, partition: usize) {
        let lost = std::mem::take(&mut self.logs[partition].unsynced);
        self.tell(|| format!("the log crashes and loses {} records of partition {partition}", lost.len()));
        for write in lost {
            self.count("record lost unsynced");
            self.resolve(partition, write, Err(AppendError::Unknown));
        }
    }

    pub(super) fn restart(&mut self, node: usize) {
        if !self.nodes[node].up {
            self.tell(|| format!("node {node} starts"));
            self.nodes[node].up = true;
            self.reach(node, 0, ToNode::Tick);
        }
    }

    pub(super) fn resume(&mut self, node: usize) -> Result<(), Found> {
        if !self.nodes[node].paused {
            return Ok(());
        }
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

    /// Nothing goes wrong from now on; what has gone wrong already still comes.
    pub(super) fn heal(&mut self) -> Result<(), Found> {
        self.tell(|| "all is healed".to_owned());
        self.healed = true;
        self.faults = Faults::none();
        // Clocks go on from the furthest that any has shown: what was due by then is due now, and not in an hour.
        self.clock_jump_us = self.referee.clock_max - self.beginning_and_now();
        for log in &mut self.logs {
            log.full = false;
        }
        // The view that reads everything comes with a new start of those who fold it.
        self.restart_workers();
        for node in 0..self.nodes.len() {
            self.resume(node)?;
            self.restart(node);
        }
        Ok(())
    }
}
