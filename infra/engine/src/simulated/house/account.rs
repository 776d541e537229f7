//! What an account decides, and what it becomes.

use super::business::{AMOUNT_MAX, Account, Happened, Held, Thing, Wish};
use crate::decider::Decision;
use crate::event::EventMeta;
use crate::message::FieldError;
use crate::stream::StreamName;

pub(super) fn release(thing: Option<&Thing>, transfer: &StreamName) -> Decision<Happened> {
    match thing {
        Some(Thing::Account(account)) if account.holds.get(transfer) == Some(&Held::Back) => Decision::nothing(),
        None | Some(Thing::Account(_)) => Decision::accept(vec![(0, Happened::Released(transfer.clone()))]),
        Some(_) => Decision::refuse("no-account", "This is no account."),
    }
}

pub(super) fn at_account(account: &Account, wish: &Wish) -> Decision<Happened> {
    let happens = |event| Decision::accept(vec![(0, event)]);
    match wish {
        Wish::Deposit(_, amount) if *amount > AMOUNT_MAX => {
            Decision::Invalid(vec![FieldError::at("/amount", "too-much", "Nobody moves that much.")])
        }
        Wish::Deposit(_, amount) => happens(Happened::Deposited(*amount)),
        Wish::Mark(_) => happens(Happened::Marked),
        Wish::Hold(_, transfer, amount) => match account.holds.get(transfer) {
            Some(Held::Aside(_) | Held::Gone(_)) => Decision::nothing(),
            Some(Held::Back) => Decision::refuse("given-back", "It was given back."),
            None if account.balance < *amount => Decision::refuse("balance-too-low", "There is less."),
            None => happens(Happened::Held(transfer.clone(), *amount)),
        },
        Wish::Keep(_, transfer) => match account.holds.get(transfer) {
            Some(Held::Aside(_)) => happens(Happened::Kept(transfer.clone())),
            Some(Held::Gone(_)) => Decision::nothing(),
            Some(Held::Back) | None => Decision::refuse("not-held", "Nothing is set aside for it."),
        },
        // Each time once is not looked at here: that is what the ids of steps are for.
        Wish::PayIn(_, payer, time, amount) => happens(Happened::PaidIn(payer.clone(), *time, *amount)),
        _ => Decision::refuse("an-account", "This is an account."),
    }
}

impl Account {
    pub(super) fn evolve(&mut self, event: &Happened, meta: &EventMeta) {
        match event {
            Happened::Deposited(amount) => self.balance += amount,
            Happened::Held(transfer, amount) => {
                self.balance -= amount;
                self.holds.insert(transfer.clone(), Held::Aside(*amount));
            }
            Happened::Kept(transfer) => {
                if let Some(Held::Aside(amount)) = self.holds.get(transfer).copied() {
                    self.holds.insert(transfer.clone(), Held::Gone(amount));
                }
            }
            Happened::Released(transfer) => {
                if let Some(Held::Aside(amount) | Held::Gone(amount)) = self.holds.insert(transfer.clone(), Held::Back)
                {
                    self.balance += amount;
                }
            }
            Happened::PaidIn(payer, time, amount) => {
                self.balance += amount;
                *self.paid_in.entry(payer.clone()).or_default().entry(*time).or_default() += amount;
            }
            _ => {}
        }
        if !matches!(event, Happened::Deposited(_) | Happened::Marked) {
            self.steps.insert(meta.command_id, meta.version);
        }
    }
}
