//! A small explicit-state model of the writers' protocol (DESIGN §4): two writers that crash, pause and time out at any
//! point, sends that land late or never, a log that repeats records. Every state within the bounds is visited, and in
//! each one holds: what was acknowledged is effective (I1), and what is effective was decided on exactly what was
//! effective before it (I2). What counts is decided by the real `Checkpoint::accept`.
//!
//! The same search finds each of the mistakes that the protocol is there to avoid: a model that finds nothing anywhere
//! would prove nothing.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;

use engine::fold::Verdict;
use engine::position::{Checkpoint, Epoch, Nonce, Seq};
use engine::record::{Header, Kind};
use xxhash_rust::xxh3::Xxh3;

/// The protocol, or one with a mistake in it.
#[derive(Clone, Copy)]
struct Protocol {
    accept: fn(&mut Checkpoint, &Header) -> Verdict,
    /// An acknowledgement counts only if no other record can lie between, or after reading what does.
    checks_contiguity: bool,
    /// A new leader starts from the fold up to its own claim, not from what it knew when it claimed.
    reads_up_to_own_claim: bool,
    /// Whoever does not know what became of a send claims again.
    claims_again_after_a_timeout: bool,
    /// The fold up to the own claim is asked whether that claim counted.
    minds_lost_claims: bool,
}

const PROTOCOL: Protocol = Protocol {
    accept: Checkpoint::accept,
    checks_contiguity: true,
    reads_up_to_own_claim: true,
    claims_again_after_a_timeout: true,
    minds_lost_claims: true,
};

/// How far the search goes.
#[derive(Clone, Copy)]
struct Bounds {
    log: usize,
    commands: u8,
    epochs: u64,
    crashes: u8,
    /// Records that are under way though nobody waits for them any more.
    abandoned: usize,
    /// Records that the log may repeat.
    repeats: u8,
    /// Sends of one writer that are not confirmed.
    window: usize,
}

/// Everything within these takes seconds.
const BOUNDS: Bounds = Bounds { log: 5, commands: 3, epochs: 3, crashes: 0, abandoned: 1, repeats: 0, window: 2 };
/// With a restart, which forgets and draws a new nonce.
const WITH_A_CRASH: Bounds = Bounds { log: 4, commands: 2, epochs: 2, crashes: 1, abandoned: 2, ..BOUNDS };
/// With a log that repeats a record.
const WITH_A_REPEAT: Bounds = Bounds { epochs: 2, repeats: 1, ..BOUNDS };
/// No search may take more states: a bound widened by mistake would take all memory.
const STATES_MAX: usize = 1_000_000;

/// The commands that are effective, in order: four bits each.
type History = u32;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Sent {
    is_claim: bool,
    epoch: u64,
    nonce: u8,
    seq: u64,
    command: u8,
    decided_on: History,
}

#[derive(Clone, Copy, Hash)]
enum Phase {
    Following,
    /// With what it knew, and where the claim landed once it has.
    Claiming(History, Option<usize>),
    /// With what it decides on, the next seq, and the offset below which everything is folded.
    Leading {
        epoch: u64,
        next_seq: u64,
        state: History,
        folded: usize,
    },
}

#[derive(Clone, Hash)]
struct Writer {
    phase: Phase,
    nonce: u8,
    /// On their way, in order.
    under_way: VecDeque<Sent>,
    /// In the log at these offsets, and the writer does not know yet.
    landed: VecDeque<(Sent, usize)>,
}

/// The log begins with a genesis, which is not kept here: record `n` of the model lies at offset `n + 1`.
#[derive(Clone, Hash)]
struct World {
    log: Vec<Sent>,
    writers: [Writer; 2],
    abandoned: Vec<Sent>,
    commands: u8,
    crashes: u8,
    repeats: u8,
}

/// What a search came to.
enum Found {
    /// All states within the bounds, and how many acknowledgements were seen on the way.
    Nothing {
        states: usize,
        acknowledged: usize,
    },
    Violation {
        what: String,
        steps: Vec<String>,
    },
}

impl Protocol {
    /// The fold of a prefix: the rule's state, and what is effective.
    fn fold(&self, log: &[Sent]) -> (Checkpoint, History) {
        let mut checkpoint = Checkpoint::default();
        let genesis = Header { kind: Kind::Genesis, epoch: Epoch(0), nonce: Nonce(0), seq: Seq(0) };
        (self.accept)(&mut checkpoint, &genesis);
        let mut history = 0;
        for sent in log {
            if (self.accept)(&mut checkpoint, &sent.header()) == Verdict::Effective && !sent.is_claim {
                history = history << 4 | History::from(sent.command);
            }
        }
        (checkpoint, history)
    }

    fn counts(&self, log: &[Sent], at: usize) -> bool {
        let (mut checkpoint, _) = self.fold(&log[..at]);
        (self.accept)(&mut checkpoint, &log[at].header()) == Verdict::Effective
    }
}

impl Sent {
    fn header(&self) -> Header {
        let kind = if self.is_claim { Kind::Claim } else { Kind::Commit };
        Header { kind, epoch: Epoch(self.epoch), nonce: Nonce(u64::from(self.nonce)), seq: Seq(self.seq) }
    }
}

fn holds(history: History, command: u8) -> bool {
    (0..8).any(|place| (history >> (4 * place)) & 0xf == History::from(command))
}

impl World {
    fn new() -> Self {
        let writer =
            |nonce| Writer { phase: Phase::Following, nonce, under_way: VecDeque::new(), landed: VecDeque::new() };
        let writers = [writer(1), writer(2)];
        Self { log: Vec::new(), writers, abandoned: Vec::new(), commands: 0, crashes: 0, repeats: 0 }
    }

    fn fingerprint(&self) -> u128 {
        let mut hash = Xxh3::new();
        self.hash(&mut hash);
        hash.digest128()
    }

    /// Puts a record at the end of the log; says what is wrong if it is effective and was decided on something else.
    fn append(&mut self, protocol: &Protocol, sent: Sent) -> Result<(), String> {
        let (mut checkpoint, history) = protocol.fold(&self.log);
        self.log.push(sent);
        let verdict = (protocol.accept)(&mut checkpoint, &sent.header());
        if verdict == Verdict::Effective && !sent.is_claim && sent.decided_on != history {
            let (command, on) = (sent.command, sent.decided_on);
            return Err(format!("I2: command {command} was decided on {on:x} and became effective after {history:x}"));
        }
        Ok(())
    }

    /// Whatever the writer had under way goes on without it. `None` beyond the bounds.
    fn let_go(&mut self, bounds: &Bounds, writer: usize) -> Option<()> {
        let writer = &mut self.writers[writer];
        writer.landed.clear();
        writer.phase = Phase::Following;
        self.abandoned.extend(writer.under_way.drain(..));
        self.abandoned.sort_unstable();
        (self.abandoned.len() <= bounds.abandoned).then_some(())
    }
}

/// Gathers what may come next.
struct Next<'a> {
    protocol: &'a Protocol,
    bounds: &'a Bounds,
    worlds: Vec<(String, World)>,
    acknowledged: usize,
    violation: Option<(String, String)>,
}

impl Next<'_> {
    fn may(&mut self, step: impl Fn() -> String, world: World, result: Result<(), String>) {
        match result {
            Ok(()) => self.worlds.push((step(), world)),
            Err(what) => self.violation = Some((step(), what)),
        }
    }

    fn after(&mut self, world: &World) {
        if world.log.len() < self.bounds.log {
            for at in 0..world.abandoned.len() {
                let mut next = world.clone();
                let sent = next.abandoned.remove(at);
                let result = next.append(self.protocol, sent);
                self.may(|| format!("an abandoned send lands: {}", told(&sent)), next, result);
            }
            if world.repeats < self.bounds.repeats {
                for sent in world.log.iter().rev().take(2) {
                    let mut next = world.clone();
                    next.repeats += 1;
                    let result = next.append(self.protocol, *sent);
                    self.may(|| format!("the log repeats {}", told(sent)), next, result);
                }
            }
        }
        for writer in 0..world.writers.len() {
            self.sending(world, writer);
            self.failing(world, writer);
            self.hearing(world, writer);
        }
    }

    fn sending(&mut self, world: &World, who: usize) {
        let writer = &world.writers[who];
        if let (Some(&sent), true) = (writer.under_way.front(), world.log.len() < self.bounds.log) {
            let mut next = world.clone();
            let at = next.log.len();
            let result = next.append(self.protocol, sent);
            let landing = &mut next.writers[who];
            landing.under_way.pop_front();
            match &mut landing.phase {
                Phase::Claiming(_, landed) if sent.is_claim => *landed = Some(at),
                _ => landing.landed.push_back((sent, at)),
            }
            self.may(|| format!("writer {who}'s send lands: {}", told(&sent)), next, result);
        }
        match writer.phase {
            Phase::Following => {
                let (checkpoint, history) = self.protocol.fold(&world.log);
                let epoch = checkpoint.epoch.0 + 1;
                if epoch <= self.bounds.epochs {
                    let mut next = world.clone();
                    let claimant = &mut next.writers[who];
                    claimant.phase = Phase::Claiming(history, None);
                    let nonce = claimant.nonce;
                    let claim = Sent { is_claim: true, epoch, nonce, seq: 0, command: 0, decided_on: 0 };
                    claimant.under_way.push_back(claim);
                    self.may(|| format!("writer {who} claims epoch {epoch}"), next, Ok(()));
                }
            }
            Phase::Leading { epoch, next_seq, state, folded } => {
                let unconfirmed = writer.under_way.len() + writer.landed.len();
                if world.commands < self.bounds.commands && unconfirmed < self.bounds.window {
                    let mut next = world.clone();
                    next.commands += 1;
                    let command = next.commands;
                    let leader = &mut next.writers[who];
                    let nonce = leader.nonce;
                    let sent = Sent { is_claim: false, epoch, nonce, seq: next_seq, command, decided_on: state };
                    leader.under_way.push_back(sent);
                    let state = state << 4 | History::from(command);
                    leader.phase = Phase::Leading { epoch, next_seq: next_seq + 1, state, folded };
                    self.may(|| format!("writer {who} decides command {command}"), next, Ok(()));
                }
            }
            Phase::Claiming(..) => {}
        }
    }

    fn failing(&mut self, world: &World, who: usize) {
        let writer = &world.writers[who];
        let waits = !writer.under_way.is_empty() || !writer.landed.is_empty();
        if world.crashes < self.bounds.crashes && (waits || !matches!(writer.phase, Phase::Following)) {
            let mut next = world.clone();
            next.crashes += 1;
            next.writers[who].nonce += 2;
            if next.let_go(self.bounds, who).is_some() {
                self.may(|| format!("writer {who} crashes"), next, Ok(()));
            }
        }
        if waits {
            let mut next = world.clone();
            if next.let_go(self.bounds, who).is_some() {
                if let (Phase::Leading { epoch, .. }, false) =
                    (writer.phase, self.protocol.claims_again_after_a_timeout)
                {
                    let (checkpoint, state) = self.protocol.fold(&next.log);
                    if checkpoint.epoch.0 == epoch && checkpoint.nonce.0 == u64::from(writer.nonce) {
                        let (next_seq, folded) = (checkpoint.next_seq.0, next.log.len());
                        next.writers[who].phase = Phase::Leading { epoch, next_seq, state, folded };
                    }
                }
                self.may(|| format!("writer {who} waits no longer"), next, Ok(()));
            }
        }
    }

    fn hearing(&mut self, world: &World, who: usize) {
        let writer = &world.writers[who];
        if let Phase::Claiming(known, Some(at)) = writer.phase {
            let mut next = world.clone();
            let claim = world.log[at];
            let (_, history) = self.protocol.fold(&world.log[..=at]);
            let counts = self.protocol.counts(&world.log, at) || !self.protocol.minds_lost_claims;
            let state = if self.protocol.reads_up_to_own_claim { history } else { known };
            next.writers[who].phase = if counts {
                Phase::Leading { epoch: claim.epoch, next_seq: 1, state, folded: at + 1 }
            } else {
                Phase::Following
            };
            self.may(|| format!("writer {who} reads up to its claim: counts {counts}"), next, Ok(()));
        }
        if let (Some(&(sent, at)), Phase::Leading { epoch, next_seq, state, folded }) =
            (writer.landed.front(), writer.phase)
        {
            let mut next = world.clone();
            let is_next = at == folded;
            let (checkpoint, _) = self.protocol.fold(&world.log[..=at]);
            // Mine is the term, and something of mine with this number counted: at this offset or, repeated, before.
            let counted = checkpoint.epoch == Epoch(sent.epoch)
                && checkpoint.nonce == Nonce(u64::from(sent.nonce))
                && Seq(sent.seq) < checkpoint.next_seq;
            if is_next || counted || !self.protocol.checks_contiguity {
                let leader = &mut next.writers[who];
                leader.landed.pop_front();
                leader.phase = Phase::Leading { epoch, next_seq, state, folded: at + 1 };
                self.acknowledged += 1;
                let (_, effective) = self.protocol.fold(&world.log);
                let kept = holds(effective, sent.command);
                let lost = || format!("I1: command {} was acknowledged and is not in {effective:x}", sent.command);
                let result = if kept { Ok(()) } else { Err(lost()) };
                self.may(|| format!("writer {who} acknowledges command {}", sent.command), next, result);
            } else if next.let_go(self.bounds, who).is_some() {
                self.may(|| format!("writer {who} finds itself fenced"), next, Ok(()));
            }
        }
    }
}

fn told(sent: &Sent) -> String {
    let Sent { epoch, nonce, seq, command, .. } = sent;
    if sent.is_claim {
        format!("claim of epoch {epoch} by {nonce}")
    } else {
        format!("command {command} as ({epoch}, {nonce}, {seq})")
    }
}

/// Visits every state within the bounds, nearest first, so that a violation is told in the fewest steps.
fn search(protocol: Protocol, bounds: Bounds) -> Found {
    let start = World::new();
    let mut seen = BTreeSet::from([start.fingerprint()]);
    let mut came_from = vec![(0_usize, String::new())];
    let mut frontier = VecDeque::from([(0_usize, start)]);
    let mut acknowledged = 0;
    let steps_to = |came_from: &[(usize, String)], mut at: usize| {
        let mut steps = Vec::new();
        while at != 0 {
            steps.push(came_from[at].1.clone());
            at = came_from[at].0;
        }
        steps.reverse();
        steps
    };
    while let Some((at, world)) = frontier.pop_front() {
        assert!(seen.len() <= STATES_MAX, "the bounds are too wide for a test that runs every time");
        let mut next =
            Next { protocol: &protocol, bounds: &bounds, worlds: Vec::new(), acknowledged: 0, violation: None };
        next.after(&world);
        acknowledged += next.acknowledged;
        if let Some((step, what)) = next.violation {
            let mut steps = steps_to(&came_from, at);
            steps.push(step);
            return Found::Violation { what, steps };
        }
        for (step, world) in next.worlds {
            if seen.insert(world.fingerprint()) {
                came_from.push((at, step));
                frontier.push_back((came_from.len() - 1, world));
            }
        }
    }
    Found::Nothing { states: seen.len(), acknowledged }
}

/// Asserts that the search finds nothing, and that it looked at enough to mean something.
fn keeps_its_promises(bounds: Bounds, states_min: usize) {
    match search(PROTOCOL, bounds) {
        Found::Nothing { states, acknowledged } => {
            println!("{states} states, {acknowledged} acknowledgements");
            assert!(states >= states_min, "only {states} states");
            assert!(acknowledged > states / 100, "only {acknowledged} acknowledgements in {states} states");
        }
        Found::Violation { what, steps } => panic!("{what}\n  {}", steps.join("\n  ")),
    }
}

/// Asserts that the search finds the mistake, as a violation of this invariant.
fn is_found(mistaken: Protocol, bounds: Bounds, invariant: &str) {
    match search(mistaken, bounds) {
        Found::Nothing { states, .. } => panic!("the mistake was not found in {states} states"),
        Found::Violation { what, steps } => {
            println!("{what}\n  {}", steps.join("\n  "));
            assert!(what.starts_with(invariant), "{what}");
        }
    }
}

#[test]
fn the_protocol_keeps_its_promises() {
    keeps_its_promises(BOUNDS, 200_000);
}

#[test]
fn the_protocol_keeps_its_promises_across_a_restart() {
    keeps_its_promises(WITH_A_CRASH, 200_000);
}

#[test]
fn the_protocol_keeps_its_promises_on_a_log_that_repeats_records() {
    keeps_its_promises(WITH_A_REPEAT, 100_000);
}

#[test]
fn to_acknowledge_whatever_landed_is_found() {
    is_found(Protocol { checks_contiguity: false, ..PROTOCOL }, BOUNDS, "I1");
}

#[test]
fn to_lead_without_reading_up_to_the_own_claim_is_found() {
    is_found(Protocol { reads_up_to_own_claim: false, ..PROTOCOL }, BOUNDS, "I2");
}

#[test]
fn to_accept_by_epoch_alone_is_found() {
    let mistaken = Protocol { accept: accept_by_epoch, ..PROTOCOL };
    is_found(mistaken, Bounds { abandoned: 2, ..BOUNDS }, "I2");
    is_found(mistaken, Bounds { abandoned: 0, ..WITH_A_REPEAT }, "I2");
}

#[test]
fn to_use_an_epoch_again_after_a_timeout_is_found() {
    let mistaken = Protocol { claims_again_after_a_timeout: false, ..PROTOCOL };
    is_found(mistaken, BOUNDS, "I1");
    is_found(mistaken, Bounds { abandoned: 2, ..BOUNDS }, "I2");
}

#[test]
fn to_lead_on_a_claim_that_did_not_count_is_found() {
    is_found(Protocol { minds_lost_claims: false, ..PROTOCOL }, BOUNDS, "I1");
}

/// A rule that looks at the epoch alone.
fn accept_by_epoch(checkpoint: &mut Checkpoint, header: &Header) -> Verdict {
    let is_current = header.kind == Kind::Commit && header.epoch == checkpoint.epoch;
    let verdict = checkpoint.accept(header);
    if is_current { Verdict::Effective } else { verdict }
}
