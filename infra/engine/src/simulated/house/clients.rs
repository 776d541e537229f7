//! Clients: each asks one thing after the other, repeats what is not answered, and now and then what is, at any node. They
//! remember how far each partition was when they were told, and want to see nothing older.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::business::{AMOUNT_MAX, Card, Plan, Terms, Wish};
use super::node::ToNode;
use super::world::{Asker, Check, Event, Found, Told, World};
use crate::message::{Answer, CommandId, Envelope, Fingerprint, NoAnswer, Precondition, Provenance};
use crate::position::Offset;
use crate::shard::Ticket;
use crate::simulated::dice::Dice;
use crate::stream::{StreamName, Tenant};

/// Accounts of each bank.
const ACCOUNTS: usize = 2;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// That it happens.
    Command(Wish),
    /// Whether its id is known, as for a body that can never be valid.
    Question,
    /// To see its row.
    Row,
}

/// One thing that is asked until there is an answer.
#[derive(Clone, Debug)]
pub(super) struct Request {
    client: usize,
    ask: Ask,
    id: CommandId,
    stream: StreamName,
    fingerprint: Fingerprint,
    /// Whether anybody was answered under this id before this was first sent.
    known: bool,
    sent: bool,
    pub(super) done: bool,
    /// Whether it was told that there is too much.
    turned_away: bool,
    /// The latest try.
    pub(super) ticket: Ticket,
    /// For each try at a row: what must be in it.
    floors: BTreeMap<Ticket, Option<Offset>>,
}

/// Everybody, and what they have been told.
pub(super) struct Street {
    pub(super) accounts: Vec<StreamName>,
    banks: Vec<String>,
    opened: usize,
    started: Vec<StreamName>,
    /// By client and partition: the furthest that it was told of.
    told_to: Vec<Vec<Option<Offset>>>,
    /// By node, start and partition: the furthest that it told anybody of.
    told_by: BTreeMap<(usize, u64, usize), Offset>,
    answered: BTreeSet<CommandId>,
}

/// Where a stream lives.
pub(super) fn partition_of(stream: &StreamName, partitions: usize) -> usize {
    usize::from(crate::stream::partition_of(&Tenant::default(), stream, partitions as u16).0)
}

impl Street {
    /// A bank in every partition.
    pub(super) fn new(partitions: usize, clients: usize) -> Self {
        let name = |text: &str| StreamName::new(text).expect("a stream name");
        let mut banks = Vec::new();
        for partition in 0..partitions {
            let mut names = (0..1_000).map(|number| format!("b{number}"));
            let lives_here = |bank: &String| partition_of(&name(&format!("account-{bank}~a")), partitions) == partition;
            banks.push(names.find(lives_here).expect("names are spread over all partitions"));
        }
        let accounts = (0..ACCOUNTS)
            .flat_map(|number| banks.iter().map(move |bank| format!("account-{bank}~a{number}")))
            .map(|text| name(&text))
            .collect();
        Self {
            accounts,
            banks,
            opened: 0,
            started: Vec::new(),
            told_to: vec![vec![None; partitions]; clients],
            told_by: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    fn any_account(&self, dice: &mut Dice) -> StreamName {
        self.accounts[dice.below(self.accounts.len() as u64) as usize].clone()
    }

    fn new_name(&mut self, dice: &mut Dice, kind: &str) -> StreamName {
        let bank = &self.banks[dice.below(self.banks.len() as u64) as usize];
        let number = self.started.len();
        let stream = StreamName::new(&format!("{kind}-{bank}~{kind}{number}")).expect("a stream name");
        self.started.push(stream.clone());
        stream
    }

    fn any_started(&self, dice: &mut Dice) -> Option<StreamName> {
        // Of the latest: what is long over is past asking.
        let back = dice.below(5) as usize;
        self.started.iter().rev().nth(back).cloned()
    }

    /// Something new to ask for.
    fn wish(&mut self, dice: &mut Dice) -> Wish {
        if let Some(account) = self.accounts.get(self.opened / 2).cloned() {
            // The accounts first, and something in them, so that most of what is asked can happen.
            self.opened += 1;
            let opens = self.opened % 2 == 1;
            return if opens { Wish::Open(account) } else { Wish::Deposit(account, dice.between(200, 600)) };
        }
        match dice.below(100) {
            0..3 => Wish::Open(self.any_account(dice)),
            3..22 => Wish::Deposit(self.any_account(dice), dice.between(1, 100)),
            22..26 => Wish::Mark(self.any_account(dice)),
            26..28 => Wish::Deposit(self.any_account(dice), AMOUNT_MAX + 1),
            28..68 => {
                let (from, to) = (self.any_account(dice), self.any_account(dice));
                let (amount, fee) = (dice.between(1, 80), dice.between(1, 9));
                let card = match dice.below(20) {
                    0..2 => Card::Declined,
                    2..4 => Card::FailsAtCapture,
                    4..8 => Card::Busy,
                    _ => Card::Good,
                };
                let confirm_within_us = if dice.chance(400) { Some(dice.between(4_000, 80_000)) } else { None };
                let terms = Terms { from, to, amount, fee, card, confirm_within_us };
                Wish::Start(self.new_name(dice, "transfer"), terms)
            }
            68..76 => {
                let account = self.any_account(dice);
                let (amount, times) = (dice.between(1, 20), dice.between(1, 4) as u32);
                let plan = Plan { account, amount, times, every_us: dice.between(2_000, 40_000) };
                Wish::Begin(self.new_name(dice, "standing"), plan)
            }
            number => match self.any_started(dice) {
                Some(stream) if number < 96 => Wish::Confirm(stream),
                Some(stream) => Wish::Cancel(stream),
                None => Wish::Deposit(self.any_account(dice), 1),
            },
        }
    }
}

impl World {
    pub(super) fn next_request(&mut self, client: usize) {
        if self.left[client] == 0 {
            return;
        }
        self.left[client] -= 1;
        let request = self.draw(client);
        if let Ask::Command(wish) = &request.ask {
            self.referee.ask(request.id, request.fingerprint, wish.clone());
        }
        self.requests.push(request);
        self.unanswered += 1;
        let index = self.requests.len() - 1;
        self.send(index);
        if self.dice.chance(80) {
            // Impatient: at once again, perhaps to another node.
            self.send(index);
        }
    }

    fn draw(&mut self, client: usize) -> Request {
        let all_opened = self.street.opened / 2 >= self.street.accounts.len();
        let (dice, street) = (&mut self.dice, &mut self.street);
        if all_opened && dice.chance(120) {
            let mut request = self.requests[dice.below(self.requests.len() as u64) as usize].clone();
            (request.client, request.sent, request.done) = (client, false, false);
            request.turned_away = false;
            request.floors.clear();
            if dice.chance(350) && request.ask != Ask::Row {
                request.ask = Ask::Question;
            }
            return request;
        }
        // Version 4: bits that happen to tell a time long past would expire.
        let random = Uuid::from_u64_pair(dice.any(), dice.any()).into_bytes();
        let id = CommandId(uuid::Builder::from_random_bytes(random).into_uuid());
        let (ask, stream, fingerprint) = if all_opened && dice.chance(250) {
            let started = if dice.chance(500) { street.any_started(dice) } else { None };
            let stream = started.unwrap_or_else(|| street.any_account(dice));
            (Ask::Row, stream, Fingerprint::default())
        } else {
            let wish = street.wish(dice);
            let (stream, print) = (wish.resource().clone(), wish.fingerprint());
            (Ask::Command(wish), stream, print)
        };
        let floors = BTreeMap::new();
        Request {
            client,
            ask,
            id,
            stream,
            fingerprint,
            known: false,
            sent: false,
            done: false,
            turned_away: false,
            ticket: Ticket(0),
            floors,
        }
    }

    pub(super) fn send(&mut self, index: usize) {
        let id = self.requests[index].id;
        let partition = self.partition_of(&self.requests[index].stream);
        let node = if self.dice.chance(700) { self.hints[partition] } else { self.any_node() };
        let incarnation = self.nodes[node].incarnation;
        let ticket = self.ticket(Asker::Client(index), id);
        let request = &mut self.requests[index];
        if !request.sent {
            request.sent = true;
            request.known = self.street.answered.contains(&id);
        }
        request.ticket = ticket;
        let stream = request.stream.clone();
        let told = self.street.told_to[request.client][partition].filter(|_| ticket.0.is_multiple_of(2));
        let input = match &request.ask {
            Ask::Row => {
                let by_node = self.street.told_by.get(&(node, incarnation, partition)).copied();
                request.floors.insert(ticket, told.max(by_node));
                ToNode::Look(ticket, stream, told)
            }
            Ask::Command(_) | Ask::Question => {
                let command = if let Ask::Command(wish) = &request.ask { Some(wish.clone()) } else { None };
                let envelope = Envelope {
                    id,
                    tenant: Tenant::default(),
                    resource: stream,
                    fingerprint: request.fingerprint,
                    precondition: Precondition::None,
                    provenance: Provenance::default(),
                    command,
                };
                ToNode::Submit(partition, ticket, envelope)
            }
        };
        self.tell(|| format!("client sends {ticket:?} to node {node}: {input:?}"));
        if self.dice.chance(self.faults.message_lost) {
            self.count("message lost");
        } else {
            let delay = self.dice.between(20, 800);
            // A row is asked of the process that is there now: another may know less.
            let of = if matches!(input, ToNode::Look(..)) { Some(incarnation) } else { None };
            self.after(delay, Event::at_node(node, of, input));
        }
        let patience = self.dice.between(15_000, 40_000);
        self.after(patience, Event::Try(index, ticket));
    }

    pub(super) fn told(&mut self, ticket: Ticket, told: Told) -> Result<(), Found> {
        self.note(ticket.0);
        self.tell(|| format!("{ticket:?} is told {told:?}"));
        let Asker::Client(index) = self.tickets[ticket.0 as usize].0 else { return Ok(()) };
        let request = &self.requests[index];
        let (stream, id, print, known) = (request.stream.clone(), request.id, request.fingerprint, request.known);
        let (client, told_before) = (request.client, request.done);
        match told {
            Told::Answer((node, incarnation), Ok(answer)) => {
                let partition = self.partition_of(&stream);
                self.referee.judge_answer(partition, &(stream, id), print, &answer, known)?;
                if let Answer::Decided(decided) = &answer {
                    let offset = decided.position.offset;
                    let told_to = &mut self.street.told_to[client][partition];
                    *told_to = (*told_to).max(Some(offset));
                    if !decided.replayed {
                        let told_by = self.street.told_by.entry((node, incarnation, partition)).or_insert(offset);
                        *told_by = (*told_by).max(offset);
                    }
                    self.street.answered.insert(id);
                }
                if !told_before {
                    self.count_answer(&answer);
                    let accepted = matches!(&answer, Answer::Decided(decided) if decided.outcome.is_accepted());
                    if accepted && self.requests[index].turned_away {
                        self.count("begun once there was room");
                    }
                    self.done(index);
                }
            }
            Told::Answer(_, Err(no_answer)) => {
                self.count(match no_answer {
                    NoAnswer::NotOwner => "not owner",
                    NoAnswer::Draining => "draining",
                    NoAnswer::Overloaded => "turned away",
                    NoAnswer::LogFull => "log full",
                    NoAnswer::LogStopped => "log stopped",
                    _ => "other without answer",
                });
                if !told_before {
                    self.requests[index].turned_away |= no_answer == NoAnswer::Overloaded;
                    let delay = self.dice.between(500, 4_000);
                    self.after(delay, Event::Try(index, ticket));
                }
            }
            Told::Row(row) => {
                let floor = self.requests[index].floors.get(&ticket).copied().flatten();
                self.referee.judge_row(&stream, row.as_ref(), floor)?;
                if !told_before {
                    self.count(if row.is_some() { "row shown" } else { "no row shown" });
                    self.done(index);
                }
            }
            Told::Parked => {
                if !self.referee.was_marked(&stream) {
                    return Err(Found::new(
                        Check::Reads,
                        format!("{stream} is called parked, and anybody can read it"),
                    ));
                }
                if !told_before {
                    self.count("parked shown");
                    self.done(index);
                }
            }
        }
        Ok(())
    }

    fn count_answer(&mut self, answer: &Answer<super::business::Thing>) {
        match answer {
            Answer::Decided(decided) => {
                self.count(if decided.outcome.is_accepted() { "accepted" } else { "refused" });
                if decided.replayed {
                    self.count("replayed");
                }
            }
            Answer::Invalid(_) => self.count("invalid"),
            Answer::Reused => self.count("reused"),
            Answer::Unheard => self.count("unheard"),
            Answer::Expired => self.count("expired"),
        }
    }

    fn done(&mut self, index: usize) {
        self.requests[index].done = true;
        self.unanswered -= 1;
        let delay = self.dice.between(10, 5_000);
        let client = self.requests[index].client;
        self.after(delay, Event::Next(client));
    }
}
