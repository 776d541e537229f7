//! Clients: each asks one thing after the other, repeats what is not answered, and now and then what is, at any node.

use uuid::Uuid;

use super::bank::{AMOUNT_MAX, BankCommand};
use super::dice::Dice;
use super::referee::Key;
use crate::message::{CommandId, Envelope, Fingerprint, Precondition, Provenance};
use crate::position::{Offset, Version};
use crate::shard::Ticket;
use crate::stream::{StreamName, Tenant};

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// That it happens.
    Command,
    /// Whether its id is known, as for a body that can never be valid.
    Question,
    /// What is known under its id.
    Inquiry,
}

/// One thing that is asked until there is an answer.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) client: usize,
    pub(super) ask: Ask,
    pub(super) id: CommandId,
    pub(super) command: BankCommand,
    pub(super) precondition: Precondition,
    pub(super) fingerprint: Fingerprint,
    /// The furthest offset that anybody was answered from before this was first sent.
    pub(super) floor: Option<Offset>,
    /// Whether anybody was answered under this id before this was first sent.
    pub(super) known: bool,
    pub(super) sent: bool,
    pub(super) done: bool,
    /// The latest try.
    pub(super) ticket: Ticket,
}

impl Request {
    pub(super) fn key(&self) -> Key {
        (self.command.resource().clone(), self.id)
    }

    pub(super) fn envelope(&self) -> Envelope<BankCommand> {
        Envelope {
            id: self.id,
            tenant: Tenant::default(),
            resource: self.command.resource().clone(),
            fingerprint: self.fingerprint,
            precondition: self.precondition.clone(),
            provenance: Provenance::default(),
            command: (self.ask == Ask::Command).then(|| self.command.clone()),
        }
    }
}

/// The next thing a client asks: most often something new, else something about what was asked before.
pub(super) fn draw(dice: &mut Dice, client: usize, accounts: &[StreamName], before: &[Request]) -> Request {
    if !before.is_empty() && dice.chance(200) {
        let mut request = before[dice.below(before.len() as u64) as usize].clone();
        request.client = client;
        request.sent = false;
        request.done = false;
        match dice.below(4) {
            // The same again.
            0 | 1 => {}
            2 => {
                let other = BankCommand::Deposit(request.command.resource().clone(), dice.between(1, 50));
                request.fingerprint = other.fingerprint();
                request.command = other;
                request.precondition = Precondition::None;
            }
            _ => {}
        }
        request.ask = [Ask::Command, Ask::Command, Ask::Question, Ask::Inquiry][dice.below(4) as usize].clone();
        return request;
    }
    new(dice, client, accounts)
}

/// Opens an account.
pub(super) fn opening(dice: &mut Dice, client: usize, account: &StreamName) -> Request {
    let command = BankCommand::Open(account.clone());
    request(dice, client, command, Precondition::None)
}

fn new(dice: &mut Dice, client: usize, accounts: &[StreamName]) -> Request {
    let any = |dice: &mut Dice| accounts[dice.below(accounts.len() as u64) as usize].clone();
    let command = match dice.below(100) {
        0..4 => BankCommand::Open(any(dice)),
        4..62 => BankCommand::Deposit(any(dice), dice.between(1, 100)),
        62..78 => BankCommand::Transfer(any(dice), any(dice), dice.between(1, 60)),
        78..92 => BankCommand::Withdraw(any(dice), dice.between(1, 60)),
        92..96 => BankCommand::Note(any(dice), dice.below(3) as usize, 8),
        _ => BankCommand::Deposit(any(dice), AMOUNT_MAX + 1),
    };
    let precondition = match dice.below(20) {
        0 => Precondition::AnyOf(vec![Version(dice.below(12)), Version(dice.below(12))]),
        1 => Precondition::Exists,
        _ if matches!(command, BankCommand::Open(_)) => Precondition::Absent,
        _ => Precondition::None,
    };
    request(dice, client, command, precondition)
}

fn request(dice: &mut Dice, client: usize, command: BankCommand, precondition: Precondition) -> Request {
    // A precondition is part of what is asked.
    let asked = format!("{command:?} {precondition:?}");
    let fingerprint = Fingerprint(xxhash_rust::xxh3::xxh3_128(asked.as_bytes()).to_le_bytes());
    // Version 4: bits that happen to tell a time long past would expire.
    let random = Uuid::from_u64_pair(dice.any(), dice.any()).into_bytes();
    let id = CommandId(uuid::Builder::from_random_bytes(random).into_uuid());
    Request {
        client,
        ask: Ask::Command,
        id,
        command,
        precondition,
        fingerprint,
        floor: None,
        known: false,
        sent: false,
        done: false,
        ticket: Ticket(0),
    }
}
