//! A business small enough to be checked by hand: accounts of a bank, all of one bank in one partition, and transfers
//! between two of them in one record. Used by the simulation and the tests of the shard; not part of any product.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::decider::{Accepted, Context, Decider, Decision, Rejection, States};
use crate::event::{ContentType, EncodedEvent, Event, EventMeta, UnreadableEvent};
use crate::message::{CommandId, FieldError, Fingerprint};
use crate::position::Version;
use crate::stream::StreamName;

/// Most that moves at once; more can never be valid.
pub const AMOUNT_MAX: u64 = 1_000;

/// What can be asked of a bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BankCommand {
    /// Opens an account.
    Open(StreamName),
    /// Puts in.
    Deposit(StreamName, u64),
    /// Takes out what is there; the answer tells the balance after, so that it needs no state.
    Withdraw(StreamName, u64),
    /// Moves from the first to the second.
    Transfer(StreamName, StreamName, u64),
    /// Writes as many notes of as many bytes: a way to make large records.
    Note(StreamName, usize, usize),
}

impl BankCommand {
    /// What a keyed hash of verb and body would be: equal for equal commands.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(xxhash_rust::xxh3::xxh3_128(format!("{self:?}").as_bytes()).to_le_bytes())
    }

    /// The stream it addresses.
    pub fn resource(&self) -> &StreamName {
        match self {
            Self::Open(account)
            | Self::Deposit(account, _)
            | Self::Withdraw(account, _)
            | Self::Transfer(account, ..)
            | Self::Note(account, ..) => account,
        }
    }
}

/// What can happen at a bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BankEvent {
    /// An account came to be.
    Opened,
    /// Money came in.
    Deposited(u64),
    /// Money went out.
    Withdrawn(u64),
    /// Something was written down.
    Noted(String),
}

impl Event for BankEvent {
    fn encode(&self) -> EncodedEvent {
        let event_type = match self {
            Self::Opened => "Opened",
            Self::Deposited(_) => "Deposited",
            Self::Withdrawn(_) => "Withdrawn",
            Self::Noted(_) => "Noted",
        };
        let payload = serde_json::to_vec(self).expect("plain data is JSON");
        EncodedEvent {
            event_type: event_type.into(),
            schema_version: 1,
            content_type: ContentType::Json,
            payload: Bytes::from(payload),
        }
    }

    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        serde_json::from_slice(&stored.payload).map_err(|error| UnreadableEvent {
            event_type: stored.event_type.to_string(),
            schema_version: stored.schema_version,
            why: error.to_string(),
        })
    }
}

/// An account. Never overdrawn: what is taken out was put in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What is there.
    pub balance: u64,
    /// Who opened it: remembered for ever.
    pub opened_by: CommandId,
}

/// The business.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bank;

impl Decider for Bank {
    type Command = BankCommand;
    type Event = BankEvent;
    type State = Account;

    fn version(&self) -> u32 {
        1
    }

    fn streams(&self, command: &BankCommand) -> Vec<StreamName> {
        match command {
            BankCommand::Transfer(from, to, _) => vec![from.clone(), to.clone()],
            other => vec![other.resource().clone()],
        }
    }

    fn makes(&self, command: &BankCommand, _index: usize) -> bool {
        matches!(command, BankCommand::Open(_))
    }

    fn begins(&self, command: &BankCommand) -> bool {
        matches!(command, BankCommand::Open(_))
    }

    fn decide(&self, states: &States<'_, Account>, command: &BankCommand, _context: &Context) -> Decision<BankEvent> {
        if let BankCommand::Deposit(_, amount) | BankCommand::Withdraw(_, amount) | BankCommand::Transfer(.., amount) =
            command
            && *amount > AMOUNT_MAX
        {
            return Decision::Invalid(vec![FieldError::at("/amount", "too-much", "Nobody moves that much.")]);
        }
        if let BankCommand::Open(_) = command {
            return match states.at(0) {
                None => Decision::create(vec![(0, BankEvent::Opened)]),
                Some(_) => Decision::refuse("account-exists", "The account is open already."),
            };
        }
        let Some(account) = states.at(0) else {
            return Decision::absent("account-unknown", "There is no such account.");
        };
        match command {
            BankCommand::Open(_) => unreachable!("opened above"),
            BankCommand::Deposit(_, amount) => Decision::accept(vec![(0, BankEvent::Deposited(*amount))]),
            BankCommand::Withdraw(_, amount) | BankCommand::Transfer(.., amount) if account.balance < *amount => {
                Decision::Refuse(Rejection {
                    status: 409,
                    code: "balance-too-low",
                    detail: format!("There are {} left.", account.balance),
                    errors: Vec::new(),
                })
            }
            BankCommand::Withdraw(_, amount) => Decision::Accept(Accepted {
                status: 200,
                events: vec![(0, BankEvent::Withdrawn(*amount))],
                answer: Some(serde_json::json!({ "balance": account.balance - amount })),
            }),
            BankCommand::Transfer(..) if states.at(1).is_none() => {
                Decision::absent("account-unknown", "There is no such account to pay into.")
            }
            BankCommand::Transfer(from, to, amount) => {
                // To oneself: both at once, in one stream.
                let index = usize::from(from != to);
                Decision::accept(vec![(0, BankEvent::Withdrawn(*amount)), (index, BankEvent::Deposited(*amount))])
            }
            BankCommand::Note(_, count, bytes) => {
                Decision::accept(vec![(0, BankEvent::Noted("n".repeat(*bytes))); *count])
            }
        }
    }

    fn evolve(&self, state: Option<Account>, event: &BankEvent, meta: &EventMeta) -> Account {
        let mut account = state.unwrap_or(Account { balance: 0, opened_by: meta.command_id });
        match event {
            BankEvent::Opened => account.opened_by = meta.command_id,
            BankEvent::Deposited(amount) => account.balance += amount,
            BankEvent::Withdrawn(amount) => account.balance -= amount,
            BankEvent::Noted(_) => {}
        }
        account
    }

    fn remembers(&self, state: &Account, id: CommandId) -> Option<Version> {
        (state.opened_by == id).then_some(Version(1))
    }
}

/// The `number`-th account of a bank; all accounts of one bank share a partition.
pub fn account(bank: &str, number: u64) -> StreamName {
    StreamName::new(&format!("account-{bank}~{number}")).expect("a stream name")
}

/// A shared bank.
pub fn bank() -> Arc<Bank> {
    Arc::new(Bank)
}
