//! The simulator's books: one row per payment, and what was answered under which key. Each change is a line in a journal
//! beside the log; reading the journal again gives the same books. Nothing here waits or knows a token.

use std::collections::BTreeMap;

use engine::message::CommandId;
use engine::time::Timestamp;
use schemas::command::{GatewayAnswer, GatewayCall};
use schemas::id::PaymentId;
use schemas::ledger::LedgerRow;
use schemas::money::{Currency, Money};
use serde::{Deserialize, Serialize};

/// How long an authorization holds: 7 days, as card schemes have it.
pub(super) const AUTHORIZATION_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// All payments the gateway ever heard of.
#[derive(Debug, Default)]
pub struct Books {
    accounts: BTreeMap<PaymentId, Account>,
}

/// What the books know of one payment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    key: Option<CommandId>,
    token: Option<Box<str>>,
    currency: Option<Currency>,
    authorized: i64,
    captured: i64,
    voided: i64,
    refunded: i64,
    /// Given up: nothing can be authorized or captured here any more.
    barred: bool,
    calls: u32,
    failures: BTreeMap<Verb, u32>,
    answers: BTreeMap<CommandId, Said>,
    /// Calls on their way, which nobody here has heard of yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    flights: BTreeMap<CommandId, Line>,
}

/// What a payment can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// To promise.
    Authorize,
    /// To cash.
    Capture,
    /// To give up.
    Void,
    /// To give back.
    Refund,
}

/// An answer as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Done; until when, after an authorization.
    Done(Option<Timestamp>),
    /// No; why.
    Refused(String),
}

impl From<Said> for GatewayAnswer {
    fn from(said: Said) -> Self {
        match said {
            Said::Done(expires_at) => Self::Done { expires_at },
            Said::Refused(reason) => Self::Refused { reason },
        }
    }
}

/// One line of the journal: a call and what came of it. Without `said` the call failed on purpose and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// On which payment.
    pub payment_id: PaymentId,
    /// Under which key.
    pub key: CommandId,
    /// What was asked.
    pub verb: Verb,
    /// How much, if an amount was named.
    pub amount: Option<Money>,
    /// With which token, on the first call that names one.
    pub token: Option<String>,
    /// What was answered.
    pub said: Option<Said>,
    /// Whether it has only set out: then nothing has come of it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sets_out: bool,
}

impl Line {
    /// The call that it is about, if it can be one.
    pub(super) fn call(&self) -> Option<GatewayCall> {
        let payment_id = self.payment_id;
        Some(match self.verb {
            Verb::Authorize => GatewayCall::Authorize { payment_id, amount: self.amount?, token: self.token.clone()? },
            Verb::Capture => GatewayCall::Capture { payment_id, amount: self.amount? },
            Verb::Void => GatewayCall::Void { payment_id, token: self.token.clone()? },
            Verb::Refund => GatewayCall::Refund { payment_id, amount: self.amount? },
        })
    }
}

/// The books cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum BooksFault {
    /// The journal cannot be opened or read.
    #[error("the gateway simulator's books in {path} cannot be opened")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The URL of the books is none.
    #[error("the gateway simulator's books cannot be kept there: {0}")]
    Url(String),
    /// A line of the journal is not one.
    #[error(
        "the gateway simulator's books in {path} are damaged at line {line}; move the file away to begin new books"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
    },
}

/// What a call is about.
pub(super) fn parts(call: &GatewayCall) -> (PaymentId, Verb, Option<Money>, Option<&str>) {
    match call {
        GatewayCall::Authorize { payment_id, amount, token } => {
            (*payment_id, Verb::Authorize, Some(*amount), Some(token))
        }
        GatewayCall::Capture { payment_id, amount } => (*payment_id, Verb::Capture, Some(*amount), None),
        GatewayCall::Void { payment_id, token } => (*payment_id, Verb::Void, None, Some(token)),
        GatewayCall::Refund { payment_id, amount } => (*payment_id, Verb::Refund, Some(*amount), None),
    }
}

impl Books {
    /// The books of these payments alone.
    pub(super) fn of(accounts: BTreeMap<PaymentId, Account>) -> Self {
        Self { accounts }
    }

    /// What they know of each payment.
    pub(super) fn into_accounts(self) -> BTreeMap<PaymentId, Account> {
        self.accounts
    }

    /// The token a payment was first asked with.
    pub fn token_of(&self, payment: PaymentId) -> Option<&str> {
        self.accounts.get(&payment)?.token.as_deref()
    }

    /// What was answered under this key before.
    pub fn answered(&self, payment: PaymentId, key: CommandId) -> Option<&Said> {
        self.accounts.get(&payment)?.answers.get(&key)
    }

    /// How often this verb failed on purpose on this payment.
    pub fn failures(&self, payment: PaymentId, verb: Verb) -> u32 {
        self.accounts.get(&payment).and_then(|account| account.failures.get(&verb)).copied().unwrap_or(0)
    }

    /// What the rules of the books answer to a call seen for the first time. `no` is a refusal that the token demands.
    pub fn judge(&self, call: &GatewayCall, no: Option<&str>, now: Timestamp) -> Said {
        let (payment_id, verb, amount, _) = parts(call);
        let nothing = Account::default();
        let account = self.accounts.get(&payment_id).unwrap_or(&nothing);
        let amount = amount.map_or(0, |money| money.amount);
        let refused = |reason: &str| Said::Refused(reason.to_owned());
        match verb {
            Verb::Authorize if account.barred => refused("voided"),
            Verb::Authorize => match no {
                Some(reason) => refused(reason),
                None => Said::Done(Some(now.plus_ms(AUTHORIZATION_MS))),
            },
            Verb::Capture if account.barred => refused("voided"),
            Verb::Capture if account.captured > 0 => refused("already_captured"),
            Verb::Capture if amount > account.authorized => refused("not_authorized"),
            Verb::Capture => match no {
                Some(reason) => refused(reason),
                None => Said::Done(None),
            },
            Verb::Void if account.captured > 0 => refused("already_captured"),
            Verb::Void => Said::Done(None),
            Verb::Refund if account.refunded + amount > account.captured => refused("exceeds_capture"),
            Verb::Refund => Said::Done(None),
        }
    }

    /// Enters a line.
    pub fn enter(&mut self, line: &Line) {
        let account = self.accounts.entry(line.payment_id).or_default();
        if line.sets_out {
            account.flights.insert(line.key, line.clone());
            return;
        }
        account.flights.remove(&line.key);
        account.calls += 1;
        account.currency = account.currency.or(line.amount.map(|money| money.currency));
        if account.token.is_none() {
            account.token = line.token.as_deref().map(Into::into);
        }
        if line.verb == Verb::Authorize {
            account.key.get_or_insert(line.key);
        }
        let Some(said) = &line.said else {
            *account.failures.entry(line.verb).or_default() += 1;
            return;
        };
        if account.answers.contains_key(&line.key) {
            // Asked again under a known key: told again, done once.
            return;
        }
        account.answers.insert(line.key, said.clone());
        if !matches!(said, Said::Done(_)) {
            return;
        }
        let amount = line.amount.map_or(0, |money| money.amount);
        match line.verb {
            Verb::Authorize => account.authorized = amount,
            Verb::Capture => {
                account.captured = amount;
                account.voided = account.authorized - amount;
            }
            Verb::Void => {
                account.barred = true;
                account.voided = account.authorized;
            }
            Verb::Refund => account.refunded += amount,
        }
    }

    /// Calls on their way.
    pub fn flights(&self) -> impl Iterator<Item = &Line> {
        self.accounts.values().flat_map(|account| account.flights.values())
    }

    /// Whether this call is on its way.
    pub fn is_on_its_way(&self, payment: PaymentId, key: CommandId) -> bool {
        self.accounts.get(&payment).is_some_and(|account| account.flights.contains_key(&key))
    }

    /// Takes back a call that never set out.
    pub fn turn_back(&mut self, payment: PaymentId, key: CommandId) {
        if let Some(account) = self.accounts.get_mut(&payment) {
            account.flights.remove(&key);
        }
    }

    /// All rows, by payment. What is only on its way has none.
    pub fn rows(&self) -> Vec<LedgerRow> {
        self.accounts
            .iter()
            .filter(|(_, account)| account.calls > 0)
            .map(|(payment_id, account)| LedgerRow {
                payment_id: *payment_id,
                key: account.key,
                authorized: account.authorized,
                captured: account.captured,
                voided: account.voided,
                refunded: account.refunded,
                currency: account.currency,
                calls: account.calls,
            })
            .collect()
    }
}
