//! What a runner does: feeds the shard, carries its effects out, keeps the state store, claims and reads back.

use super::bank::{Account, Bank};
use super::node::{Phase, ToNode};
use super::store::Store;
use super::world::{CLAIM_TIMEOUT_US, Event, Mistake, Told, World};
use crate::fold::Verdict;
use crate::log::Delivery;
use crate::message::{Answer, Decided, Fingerprint, NoAnswer};
use crate::position::{Epoch, Nonce, Offset, Position, Seq, Version};
use crate::record::{Claim, Header, Kind};
use crate::shard::Ticket;
use crate::shard::{Effect, Input, Load, Loaded, StepDown};
use crate::stream::Tenant;

impl World {
    pub(super) fn at_node(&mut self, node: usize, input: ToNode) -> Result<(), String> {
        match input {
            ToNode::Submit(..) | ToNode::Inquire(..) => {
                let shard = &self.nodes[node].shard;
                // Now and then it comes all the same, as with a runner that takes several at once.
                if shard.is_leading() && !shard.can_take() && self.dice.chance(900) {
                    self.count("held back");
                    self.nodes[node].held.push_back(input);
                    return Ok(());
                }
                self.take(node, input)?;
            }
            ToNode::Loaded(load, loaded) => self.feed(node, Input::Loaded(load, loaded))?,
            ToNode::LoadNow(ticket, load) => {
                let loaded = self.look(node, &load);
                self.feed(node, Input::Loaded(ticket, Ok(loaded)))?;
            }
            ToNode::Delivered(mut deliveries) => {
                if self.plan.mistake == Some(Mistake::AcknowledgesBeforeContiguity) {
                    self.assume_contiguous(node, &mut deliveries);
                }
                self.feed(node, Input::Delivered(deliveries))?;
            }
            ToNode::LogGrew => {
                self.await_claim(node)?;
                self.read_back(node)?;
            }
            ToNode::Save => self.save(node)?,
            ToNode::Tick => self.tick(node)?,
            ToNode::Drain => self.feed(node, Input::Drain)?,
        }
        while self.nodes[node].shard.can_take() || !self.nodes[node].shard.is_leading() {
            let Some(input) = self.nodes[node].held.pop_front() else { break };
            self.take(node, input)?;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, node: usize, input: ToNode) -> Result<(), String> {
        match input {
            ToNode::Submit(ticket, envelope) => self.feed(node, Input::Submit(ticket, envelope)),
            ToNode::Inquire(ticket, id) => self.feed(node, Input::Inquire(ticket, Tenant::default(), id)),
            _ => unreachable!("only submissions are taken"),
        }
    }

    pub(super) fn feed(&mut self, node: usize, input: Input<Bank>) -> Result<(), String> {
        let now = self.clock();
        let mut effects = Vec::new();
        self.nodes[node].shard.handle(now, input, &mut effects);
        for effect in effects {
            self.carry_out(node, effect)?;
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, node: usize, effect: Effect<Bank>) -> Result<(), String> {
        match effect {
            Effect::Load(ticket, load) => {
                let delay = if self.dice.chance(500) { 1 } else { self.dice.between(10, 4_000) };
                let input = if self.dice.chance(self.faults.load_fails) {
                    self.count("load failed");
                    ToNode::Loaded(ticket, Err(NoAnswer::LogDamaged))
                } else if self.dice.chance(500) {
                    // Read now, arriving later: news by then is not in it.
                    ToNode::Loaded(ticket, Ok(self.look(node, &load)))
                } else {
                    ToNode::LoadNow(ticket, load)
                };
                self.reach(node, delay, input);
            }
            Effect::Append(tag, bytes) => self.append(node, tag, bytes),
            Effect::Answer(ticket, answer) => self.say(ticket, Told::Answer(answer)),
            Effect::Replay(ticket, offset, fingerprint) => {
                let answer = self.replay(offset, fingerprint)?;
                self.say(ticket, Told::Answer(Ok(answer)));
            }
            Effect::ReplayVersion(ticket, _, stream, version, fingerprint) => {
                self.count("remembered by the aggregate");
                let offset = self.referee.by_version.get(&(stream, version)).copied();
                let offset = offset.ok_or("an aggregate remembers a record that is not there")?;
                let id = self.requests[self.tickets[&ticket]].id;
                if self.referee.commits[&offset].command_id != id {
                    return Err(format!("an aggregate remembers {id} at {offset}, which is another's"));
                }
                let answer = self.replay(offset, fingerprint)?;
                self.say(ticket, Told::Answer(Ok(answer)));
            }
            Effect::Inquired(ticket, known) => {
                let id = self.requests[self.tickets[&ticket]].id;
                let partition = self.home;
                let stored = (self.nodes[node].store.ids.iter()).filter(|((_, stored), _)| *stored == id).map(
                    |((resource, _), found)| (resource.clone(), Some(Position { partition, offset: found.offset })),
                );
                let own = known.into_iter().map(|known| (known.resource, known.commit.map(|(position, _)| position)));
                let known = own.chain(stored).collect();
                self.say(ticket, Told::Known(known));
            }
            Effect::Effective(effective) => {
                self.referee.judge_effective(&effective)?;
                let there = &mut self.nodes[node];
                there.to_save.push_back(effective);
                if !there.save_due {
                    there.save_due = true;
                    let delay = self.dice.between(50, 6_000);
                    self.reach(node, delay, ToNode::Save);
                }
                if self.plan.mistake == Some(Mistake::SaysSavedTooEarly) {
                    let next = self.log.end();
                    self.feed(node, Input::Saved(next))?;
                }
            }
            Effect::ReadBack(from) => {
                self.count("read back");
                self.nodes[node].read_from = Some(from);
                let delay = self.dice.between(10, 300);
                self.reach(node, delay, ToNode::LogGrew);
            }
            Effect::SteppedDown(stepped_down) => {
                self.tell(|| format!("node {node} steps down: {:?}", stepped_down.why));
                self.stand_by(node);
                match stepped_down.why {
                    StepDown::Fenced => self.count("fenced"),
                    StepDown::Unknown => self.count("stepped down unknown"),
                    StepDown::Full => self.count("stepped down full"),
                    StepDown::Stopped => {
                        self.count("stepped down stopped");
                        // A process whose log has stopped is started anew.
                        self.crash(node);
                    }
                    StepDown::Damaged(what) => return Err(format!("node {node} calls the log damaged: {what}")),
                }
                for (ticket, envelope) in stepped_down.unresolved {
                    self.count("given back");
                    let (delay, to) = (self.dice.between(100, 8_000), self.hint);
                    self.after(delay, Event::AtNode(to, None, ToNode::Submit(ticket, envelope)));
                }
            }
            Effect::Released => {
                self.count("released");
                self.tell(|| format!("node {node} released the partition"));
                self.stand_by(node);
            }
        }
        Ok(())
    }

    pub(super) fn stand_by(&mut self, node: usize) {
        let there = &mut self.nodes[node];
        there.phase = Phase::Standby;
        there.read_from = None;
        if self.plan.mistake != Some(Mistake::SavesAcrossTerms) {
            there.to_save.clear();
        }
    }

    pub(super) fn look(&mut self, node: usize, load: &Load) -> Loaded<Account> {
        let there = &self.nodes[node];
        let mut loaded = if self.dice.chance(300) {
            self.nodes[node].store.look(load, there.to_save.iter())
        } else {
            there.store.look(load, [].iter())
        };
        if self.plan.mistake == Some(Mistake::ForgetsIds) {
            loaded.remembered = None;
        }
        // Ids that the aggregate remembers need not be remembered here.
        if let Some(remembered) = loaded.remembered
            && self.dice.chance(500)
            && let Some(opened) = self.referee.by_version.get(&(load.resource.clone(), Version(1)))
            && *opened == remembered.offset
        {
            loaded.remembered = None;
        }
        loaded
    }

    pub(super) fn replay(&mut self, offset: Offset, fingerprint: Fingerprint) -> Result<Answer<Account>, String> {
        let commit = self.referee.commits.get(&offset);
        let commit = commit.ok_or_else(|| format!("nothing effective is at {offset} to be replayed"))?;
        if commit.fingerprint != fingerprint {
            return Ok(Answer::Reused);
        }
        Ok(Answer::Decided(Decided {
            outcome: commit.outcome.clone(),
            position: Position { partition: self.home, offset },
            recorded_at: commit.recorded_at,
            version: commit.resource_version,
            state: None,
            replayed: true,
        }))
    }

    pub(super) fn save(&mut self, node: usize) -> Result<(), String> {
        let count = self.dice.between(1, 4);
        let there = &mut self.nodes[node];
        there.save_due = false;
        for _ in 0..count {
            let Some(effective) = there.to_save.pop_front() else { break };
            there.store.save(&effective);
        }
        let saved = there.store.checkpoint.next_offset;
        if !there.to_save.is_empty() {
            there.save_due = true;
            let delay = self.dice.between(50, 6_000);
            self.reach(node, delay, ToNode::Save);
        }
        self.feed(node, Input::Saved(saved))
    }

    pub(super) fn tick(&mut self, node: usize) -> Result<(), String> {
        let delay = self.dice.between(500, 6_000);
        self.reach(node, delay, ToNode::Tick);
        if let Phase::Claiming { until, .. } = self.nodes[node].phase
            && self.now > until
        {
            self.nodes[node].phase = Phase::Standby;
        }
        if self.nodes[node].phase == Phase::Leading && self.dice.chance(150) {
            // Like a runner that saw the log grow by what is not its own.
            self.count("probed");
            self.feed(node, Input::Probe)?;
        }
        let duels = self.faults.duel && self.dice.chance(60);
        if self.nodes[node].phase == Phase::Standby && (self.hint == node || duels) {
            self.claim(node)?;
        }
        Ok(())
    }

    pub(super) fn claim(&mut self, node: usize) -> Result<(), String> {
        self.count("claimed");
        self.fold_store(node, |_| false);
        let nonce = Nonce(self.dice.any());
        let claim = Claim { node: "node".into(), address: "here".into(), claimed_at: self.clock() };
        let there = &mut self.nodes[node];
        let (tag, bytes) = there.shard.claim(&there.store.checkpoint, nonce, claim);
        let epoch = Header::decode(&bytes).expect("a claim").epoch;
        self.tell(|| format!("node {node} claims epoch {epoch}"));
        self.nodes[node].phase = Phase::Claiming { epoch, nonce, until: self.now + CLAIM_TIMEOUT_US };
        self.append(node, tag, bytes);
        Ok(())
    }

    /// Folds the log into the node's state store until `enough`, or to the end.
    pub(super) fn fold_store(&mut self, node: usize, enough: impl Fn(&Store<Bank>) -> bool) {
        let store = &mut self.nodes[node].store;
        while !enough(store) && store.checkpoint.next_offset < self.log.end() {
            store.fold(self.log.at(store.checkpoint.next_offset));
        }
    }

    pub(super) fn await_claim(&mut self, node: usize) -> Result<(), String> {
        let Phase::Claiming { epoch, nonce, .. } = self.nodes[node].phase else { return Ok(()) };
        if self.plan.mistake == Some(Mistake::ServesBeforeItsClaim) {
            return self.serve_at_once(node, epoch, nonce);
        }
        self.fold_store(node, |store| store.checkpoint.epoch >= epoch);
        let there = &mut self.nodes[node];
        let checkpoint = there.store.checkpoint;
        if checkpoint.epoch < epoch {
            return Ok(());
        }
        if checkpoint.nonce == nonce && checkpoint.open {
            let led = there.shard.lead(checkpoint, there.store.last_recorded_at);
            assert!(led, "the fold says so");
            there.phase = Phase::Leading;
            self.count("led");
            self.tell(|| format!("node {node} leads epoch {epoch}"));
            // What the state store had from before this term says nothing of it.
            let saved = checkpoint.next_offset;
            return self.feed(node, Input::Saved(saved));
        }
        there.phase = Phase::Standby;
        self.count("claim lost");
        Ok(())
    }

    pub(super) fn serve_at_once(&mut self, node: usize, epoch: Epoch, nonce: Nonce) -> Result<(), String> {
        let header = Header { kind: Kind::Claim, epoch, nonce, seq: Seq(0) };
        let at = (0..self.log.durable.len()).find(|&at| Header::decode(&self.log.durable[at]) == Ok(header));
        let Some(at) = at else { return Ok(()) };
        let there = &mut self.nodes[node];
        let mut checkpoint = there.store.checkpoint;
        checkpoint.next_offset = Offset(at as u64);
        if checkpoint.accept(&header) == Verdict::Effective
            && there.shard.lead(checkpoint, there.store.last_recorded_at)
        {
            there.phase = Phase::Leading;
        } else {
            there.phase = Phase::Standby;
        }
        Ok(())
    }

    pub(super) fn assume_contiguous(&mut self, node: usize, deliveries: &mut [Delivery]) {
        let there = &mut self.nodes[node];
        for delivery in deliveries {
            if let Ok(offset) = &mut delivery.result {
                // The first of a term says where it starts.
                if delivery.tag & 0xFF_FFFF == 0 {
                    there.assumed = offset.unwrap_or(there.assumed).next();
                } else {
                    *offset = Some(there.assumed);
                    there.assumed = there.assumed.next();
                }
            }
        }
    }

    pub(super) fn read_back(&mut self, node: usize) -> Result<(), String> {
        let Some(from) = self.nodes[node].read_from else { return Ok(()) };
        if self.log.end() > from {
            self.nodes[node].read_from = None;
            let count = self.dice.between(1, 5) as usize;
            let records = self.log.read(from, count);
            return self.feed(node, Input::ReadBack(records));
        }
        if self.dice.chance(200) {
            self.nodes[node].read_from = None;
            return self.feed(node, Input::ReadBack(Vec::new()));
        }
        Ok(())
    }

    pub(super) fn say(&mut self, ticket: Ticket, told: Told) {
        if self.dice.chance(self.faults.answer_lost) {
            self.count("answer to client lost");
            return;
        }
        let delay = self.dice.between(20, 1_000);
        self.after(delay, Event::Told(ticket, told));
    }
}
