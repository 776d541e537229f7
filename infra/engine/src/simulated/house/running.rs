//! What the runner of a shard does: feeds it, carries its effects out, keeps the state store, claims and reads back.

use std::sync::Arc;

use super::business::{Clearing, Thing, Wish};
use super::node::{Phase, ToNode};
use super::world::{Asker, Check, Event, Found, Mistake, Told, World};
use crate::decider::Decider;
use crate::message::{Answer, Decided, Fingerprint, NoAnswer};
use crate::position::{Offset, Partition, Position};
use crate::shard::{Effect, Effective, Input, Load, Loaded, StepDown, Ticket};

impl World {
    pub(super) fn at_node(&mut self, node: usize, input: ToNode) -> Result<(), Found> {
        match input {
            ToNode::Submit(partition, ..) => {
                let shard = &self.nodes[node].desks[partition].shard;
                // Now and then it comes all the same, as with a runner that takes several at once.
                if shard.is_leading() && !shard.can_take() && self.dice.chance(900) {
                    self.count("held back");
                    self.nodes[node].desks[partition].held.push_back(input);
                    return Ok(());
                }
                self.take(node, partition, input)?;
            }
            ToNode::Loaded(partition, load, loaded) => self.feed(node, partition, Input::Loaded(load, loaded))?,
            ToNode::LoadNow(partition, ticket, load) => {
                let loaded = self.look(node, partition, &load);
                self.feed(node, partition, Input::Loaded(ticket, Ok(loaded)))?;
            }
            ToNode::Delivered(partition, mut deliveries) => {
                if self.plan.mistake == Some(Mistake::AcknowledgesBeforeContiguity) {
                    self.assume_contiguous(node, partition, &mut deliveries);
                }
                self.feed(node, partition, Input::Delivered(deliveries))?;
            }
            ToNode::LogGrew(partition) => {
                self.await_claim(node, partition)?;
                self.read_back(node, partition)?;
            }
            ToNode::Save(partition) => self.save(node, partition)?,
            ToNode::Tick => self.tick(node)?,
            ToNode::Drain(partition) => self.feed(node, partition, Input::Drain)?,
            ToNode::Crowded(partition, crowded) => self.set_crowded(node, partition, crowded)?,
            ToNode::Errand(errand) => self.try_errand(node, errand)?,
            ToNode::Returned(errand, heard) => self.errand_heard(node, errand, heard, 0)?,
            ToNode::Own(ticket, answer) => self.own_answer(node, ticket, answer)?,
            ToNode::GiveUp(ticket) => self.own_answer(node, ticket, Err(NoAnswer::TimedOut))?,
            ToNode::Record(errand, heard, tries) => self.errand_heard(node, errand, heard, tries)?,
            ToNode::Fire(partition, stream, timer, tries) => self.fire(node, partition, stream, timer, tries),
            ToNode::Work(partition) => self.work(node, partition),
            ToNode::Read(partition, attempt, snapshot) => self.read_came(node, partition, attempt, snapshot),
            ToNode::Committed(partition, attempt, done) => self.commit_came(node, partition, attempt, done),
            ToNode::Tail(partition) => self.tail(node, partition),
            ToNode::Look(ticket, stream, floor) => self.look_up(node, ticket, stream, floor),
            ToNode::Found(looking, snapshot) => self.found(node, looking, snapshot),
        }
        for partition in 0..self.logs.len() {
            self.take_held(node, partition)?;
        }
        Ok(())
    }

    fn take_held(&mut self, node: usize, partition: usize) -> Result<(), Found> {
        loop {
            let Some(desk) = self.nodes[node].desks.get_mut(partition) else { return Ok(()) };
            if !desk.shard.can_take() && desk.shard.is_leading() {
                return Ok(());
            }
            let Some(input) = desk.held.pop_front() else { return Ok(()) };
            self.take(node, partition, input)?;
        }
    }

    fn take(&mut self, node: usize, partition: usize, input: ToNode) -> Result<(), Found> {
        let ToNode::Submit(_, ticket, envelope) = input else { unreachable!("only submissions are taken") };
        if self.plan.mistake == Some(Mistake::ZombieAnswers)
            && envelope.command.is_none()
            && self.nodes[node].desks[partition].shard.is_leading()
            && !self.nodes[node].desks[partition].store.ids.contains_key(&(envelope.resource.clone(), envelope.id))
        {
            return self.say(node, partition, ticket, Ok(Answer::Unheard));
        }
        self.referee.comes(ticket, &envelope);
        self.feed(node, partition, Input::Submit(ticket, envelope))
    }

    pub(super) fn feed(&mut self, node: usize, partition: usize, input: Input<Clearing>) -> Result<(), Found> {
        let now = self.clock(node);
        let mut effects = Vec::new();
        self.nodes[node].desks[partition].shard.handle(now, input, &mut effects);
        for effect in effects {
            self.carry_out(node, partition, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, partition: usize, effect: Effect<Clearing>) -> Result<(), Found> {
        match effect {
            Effect::Load(ticket, load) => {
                let delay = if self.dice.chance(500) { 1 } else { self.dice.between(10, 4_000) };
                let input = if self.dice.chance(self.faults.load_fails) {
                    self.count("load failed");
                    ToNode::Loaded(partition, ticket, Err(NoAnswer::LogDamaged))
                } else if self.dice.chance(500) {
                    // Read now, arriving later: news by then is not in it.
                    ToNode::Loaded(partition, ticket, Ok(self.look(node, partition, &load)))
                } else {
                    ToNode::LoadNow(partition, ticket, load)
                };
                self.reach(node, delay, input);
            }
            Effect::Append(tag, bytes) => {
                if self.plan.mistake == Some(Mistake::CallsWithoutRecordedIntent) {
                    self.call_at_once(node, partition, &bytes);
                }
                if self.nodes[node].desks[partition].crowded {
                    self.judge_handed(&bytes)?;
                }
                self.append(node, partition, tag, bytes);
            }
            Effect::Answer(ticket, answer) => self.say(node, partition, ticket, answer)?,
            Effect::Replay(ticket, offset, fingerprint) => {
                let answer = self.replay(partition, offset, fingerprint)?;
                self.say(node, partition, ticket, Ok(answer))?;
            }
            Effect::ReplayVersion(ticket, _, stream, version, fingerprint) => {
                self.count("remembered by the aggregate");
                let offset = self.referee.offset_of(partition, &stream, version);
                let wrong = || {
                    Found::new(Check::Answers, format!("{stream} remembers a record at {version} that is not there"))
                };
                let offset = offset.ok_or_else(wrong)?;
                let id = self.tickets[ticket.0 as usize].1;
                if self.referee.commit_at(partition, offset).map(|commit| commit.command_id) != Some(id) {
                    return Err(Found::new(
                        Check::Answers,
                        format!("{stream} remembers {id} at {offset}, which is another's"),
                    ));
                }
                let answer = self.replay(partition, offset, fingerprint)?;
                self.say(node, partition, ticket, Ok(answer))?;
            }
            Effect::Inquired(..) => {}
            Effect::Effective(effective) => self.effective(node, partition, effective)?,
            Effect::ReadBack(from) => {
                self.count("read back");
                self.nodes[node].desks[partition].read_from = Some(from);
                let delay = self.dice.between(10, 300);
                self.reach(node, delay, ToNode::LogGrew(partition));
            }
            Effect::SteppedDown(stepped_down) => {
                self.tell(|| format!("node {node} steps down from partition {partition}: {:?}", stepped_down.why));
                self.stand_by(node, partition);
                match stepped_down.why {
                    StepDown::Fenced => self.count("fenced"),
                    StepDown::Unknown => self.count("stepped down unknown"),
                    StepDown::Full => self.count("stepped down full"),
                    StepDown::Stopped => {
                        self.count("stepped down stopped");
                        // A process whose log has stopped is started anew.
                        self.crash(node);
                    }
                    StepDown::Damaged(what) => {
                        return Err(Found::new(Check::Assertion, format!("node {node} calls the log damaged: {what}")));
                    }
                }
                for (ticket, envelope) in stepped_down.unresolved {
                    self.count("given back");
                    let (delay, to) = (self.dice.between(100, 8_000), self.hints[partition]);
                    self.after(delay, Event::at_node(to, None, ToNode::Submit(partition, ticket, envelope)));
                }
            }
            Effect::Released => {
                self.count("released");
                self.tell(|| format!("node {node} released partition {partition}"));
                self.stand_by(node, partition);
            }
        }
        Ok(())
    }

    /// Tells everybody of an effective record: saver, errands, timers.
    fn effective(&mut self, node: usize, partition: usize, effective: Arc<Effective<Clearing>>) -> Result<(), Found> {
        self.referee.judge_effective(partition, &effective)?;
        let desk = &mut self.nodes[node].desks[partition];
        desk.to_save.push_back(effective.clone());
        desk.acknowledged = desk.acknowledged.max(Some(effective.position.offset));
        if !desk.save_due {
            desk.save_due = true;
            let delay = self.dice.between(50, 6_000);
            self.reach(node, delay, ToNode::Save(partition));
        }
        for changed in &effective.changed {
            self.owes(node, partition, &changed.name, changed.version, &changed.state);
        }
        if self.plan.mistake == Some(Mistake::SaysSavedTooEarly) {
            let next = self.logs[partition].end();
            self.feed(node, partition, Input::Saved(next))?;
        }
        Ok(())
    }

    fn stand_by(&mut self, node: usize, partition: usize) {
        let desk = &mut self.nodes[node].desks[partition];
        desk.phase = Phase::Standby;
        desk.read_from = None;
        desk.open.clear();
        if self.plan.mistake != Some(Mistake::SavesAcrossTerms) {
            desk.to_save.clear();
        }
    }

    fn look(&mut self, node: usize, partition: usize, load: &Load) -> Loaded<Thing> {
        let cached = self.dice.chance(300);
        let desk = &self.nodes[node].desks[partition];
        let mut loaded =
            if cached { desk.store.look(load, desk.to_save.iter()) } else { desk.store.look(load, [].iter()) };
        if let Some(Mistake::ForgetsIds | Mistake::DedupsAfterDeciding) = self.plan.mistake {
            loaded.remembered = None;
        }
        // Ids that the aggregate remembers need not be remembered here.
        let stored = self.nodes[node].desks[partition].store.streams.get(&load.resource);
        let by_aggregate = stored.and_then(|(_, state)| self.clearing.remembers(state, load.id)).is_some();
        if by_aggregate && self.dice.chance(500) {
            loaded.remembered = None;
        }
        loaded
    }

    fn replay(&mut self, partition: usize, offset: Offset, print: Fingerprint) -> Result<Answer<Thing>, Found> {
        let wrong = || Found::new(Check::Answers, format!("nothing effective is at {offset} to be replayed"));
        let commit = self.referee.commit_at(partition, offset).ok_or_else(wrong)?;
        if commit.fingerprint != print {
            return Ok(Answer::Reused);
        }
        Ok(Answer::Decided(Decided {
            outcome: commit.outcome.clone(),
            position: Position { partition: Partition(partition as u16), offset },
            recorded_at: commit.recorded_at,
            version: commit.resource_version,
            state: None,
            replayed: true,
        }))
    }

    fn save(&mut self, node: usize, partition: usize) -> Result<(), Found> {
        let count = self.dice.between(1, 4);
        let desk = &mut self.nodes[node].desks[partition];
        desk.save_due = false;
        self.save_some(node, partition, count)?;
        let desk = &mut self.nodes[node].desks[partition];
        if !desk.to_save.is_empty() && !desk.save_due {
            desk.save_due = true;
            let delay = self.dice.between(50, 6_000);
            self.reach(node, delay, ToNode::Save(partition));
        }
        Ok(())
    }

    pub(super) fn save_some(&mut self, node: usize, partition: usize, count: u64) -> Result<(), Found> {
        let desk = &mut self.nodes[node].desks[partition];
        for _ in 0..count {
            let Some(effective) = desk.to_save.pop_front() else { break };
            desk.store.save(&effective);
        }
        let saved = desk.store.checkpoint.next_offset;
        self.feed(node, partition, Input::Saved(saved))
    }

    fn tick(&mut self, node: usize) -> Result<(), Found> {
        let delay = self.dice.between(1_000, 8_000);
        self.reach(node, delay, ToNode::Tick);
        for partition in 0..self.logs.len() {
            let incarnation = self.nodes[node].incarnation;
            if let Phase::Claiming { until, .. } = self.nodes[node].desks[partition].phase
                && self.now > until
            {
                self.nodes[node].desks[partition].phase = Phase::Standby;
            }
            if self.nodes[node].desks[partition].phase == Phase::Leading && !self.healed && self.dice.chance(100) {
                // Like a runner that saw the log grow by what is not its own.
                self.count("probed");
                self.feed(node, partition, Input::Probe)?;
            }
            let duels = self.faults.duel && self.dice.chance(40);
            let standby = self.nodes[node].desks[partition].phase == Phase::Standby;
            if standby && (self.hints[partition] == node || duels) {
                self.claim(node, partition);
            }
            if self.nodes[node].desks[partition].phase == Phase::Leading {
                self.look_for_timers(node, partition)?;
            }
            if !self.is_there(node, incarnation) {
                return Ok(());
            }
            self.look_at_lease(node, partition);
        }
        Ok(())
    }

    /// An answer on its way to who asked.
    fn say(
        &mut self,
        node: usize,
        partition: usize,
        ticket: Ticket,
        mut answer: Result<Answer<Thing>, NoAnswer>,
    ) -> Result<(), Found> {
        if self.plan.mistake == Some(Mistake::TurnsAwayTooLate)
            && self.nodes[node].desks[partition].crowded
            && matches!(&answer, Ok(Answer::Decided(decided)) if decided.outcome.is_accepted())
            && self.referee.submitted(ticket).is_some_and(Wish::begins)
        {
            answer = Err(NoAnswer::Overloaded);
        }
        if let Err(NoAnswer::Overloaded) = answer {
            self.judge_turned_away(node, partition, ticket)?;
        }
        if self.plan.mistake == Some(Mistake::DedupsAfterDeciding) {
            self.look_again(node, partition, ticket, &mut answer);
        }
        if self.dice.chance(self.faults.answer_lost) {
            self.count("answer lost on the way");
            return Ok(());
        }
        let delay = self.dice.between(20, 1_000);
        let event = match self.tickets[ticket.0 as usize].0 {
            Asker::Client(_) => {
                Event::Told(ticket, Box::new(Told::Answer((node, self.nodes[node].incarnation), answer)))
            }
            Asker::Node(asker, incarnation) => Event::at_node(asker, Some(incarnation), ToNode::Own(ticket, answer)),
        };
        self.after(delay, event);
        Ok(())
    }

    /// The answer of the first record under the id, if there was one before (planted).
    fn look_again(&self, node: usize, partition: usize, ticket: Ticket, answer: &mut Result<Answer<Thing>, NoAnswer>) {
        let id = self.tickets[ticket.0 as usize].1;
        let Ok(Answer::Decided(decided)) = answer else { return };
        let ids = &self.nodes[node].desks[partition].store.ids;
        let first = ids.iter().find(|((_, other), _)| *other == id).map(|(_, remembered)| remembered.offset);
        if let Some(offset) = first
            && let Some(commit) = self.referee.commit_at(partition, offset)
        {
            decided.outcome = commit.outcome.clone();
            decided.position.offset = offset;
            decided.recorded_at = commit.recorded_at;
            decided.version = commit.resource_version;
            decided.state = None;
        }
    }
}
