//! What only the end shows: that money adds up over accounts and the gateway's books, that state stores and rows are the
//! fold of the log and caches say what rows say, and that everything begun has ended one way or the other.

use std::collections::BTreeMap;

use super::business::{Account, Happened, Held, Stage, Thing, Transfer};
use super::gateway::Charge;
use super::view::{THINGS, TOTALS};
use super::world::{Check, Found, World};
use crate::event::Event;
use crate::stream::StreamName;
use crate::view::{Row, RowKey};

impl World {
    pub(super) fn judge_end(&mut self) -> Result<(), Found> {
        self.judge_invalid()?;
        self.judge_money()?;
        self.judge_states()?;
        self.judge_rows()?;
        self.judge_caches()?;
        let ignored = self.referee.sides.iter().map(|side| side.ignored).sum::<u64>();
        *self.counts.entry("record ignored").or_default() += ignored;
        *self.counts.entry("record").or_default() += self.logs.iter().map(|log| log.durable.len() as u64).sum::<u64>();
        Ok(())
    }

    fn judge_invalid(&self) -> Result<(), Found> {
        for (partition, (resource, id), fingerprint) in &self.referee.invalid {
            let commits = self.referee.sides[*partition].commits.values();
            let mut same = commits.filter(|commit| commit.command_id == *id && commit.resource == *resource);
            if same.any(|commit| commit.fingerprint == *fingerprint && commit.outcome.is_accepted()) {
                return Err(Found::new(Check::Answers, format!("{id} was called invalid and took effect")));
            }
        }
        Ok(())
    }

    fn things(&self) -> BTreeMap<&StreamName, &Thing> {
        let streams = self.referee.sides.iter().flat_map(|side| &side.store.streams);
        streams.map(|(name, (_, state))| (name, &**state)).collect()
    }

    fn judge_money(&mut self) -> Result<(), Found> {
        let wrong = |what: String| Err(Found::new(Check::Money, what));
        let things = self.things();
        let account = |name: &StreamName| match things.get(name) {
            Some(Thing::Account(account)) => account.clone(),
            _ => Account::default(),
        };
        let mut ends = BTreeMap::<&'static str, u64>::new();
        let (mut there, mut fees) = (0, 0);
        let mut owed_to_accounts = self.deposited();
        for (name, thing) in &things {
            match thing {
                Thing::Account(account) => there += account.balance,
                Thing::Standing(standing) => {
                    let paid = account(&standing.plan.account).paid_in.get(*name).cloned().unwrap_or_default();
                    let times = (0..standing.plan.times).filter(|time| !standing.bounced.contains(time));
                    let each = times.map(|time| (time, standing.plan.amount)).collect::<BTreeMap<_, _>>();
                    if paid != each {
                        return wrong(format!("{name} has paid {paid:?}, not {each:?}"));
                    }
                    owed_to_accounts += each.values().sum::<u64>();
                    *ends.entry("standing order ended").or_default() += 1;
                }
                Thing::Transfer(transfer) => {
                    let (from, to) = (account(&transfer.terms.from), account(&transfer.terms.to));
                    self.judge_transfer(name, transfer, &from, &to)?;
                    let done = transfer.stage == Stage::Done;
                    *ends.entry(if done { "transfer done" } else { "transfer undone" }).or_default() += 1;
                    fees += if done { transfer.terms.fee } else { 0 };
                }
            }
        }
        if there != owed_to_accounts {
            return wrong(format!("{there} is in all accounts, and {owed_to_accounts} came in"));
        }
        let captured = self.gateway.books.values().filter(|entry| entry.charge == Charge::Captured);
        let captured = captured.map(|entry| entry.fee).sum::<u64>();
        if captured != fees {
            return wrong(format!("the gateway has captured {captured}, and {fees} are owed to it"));
        }
        for (what, count) in ends {
            *self.counts.entry(what).or_default() += count;
        }
        Ok(())
    }

    /// One transfer, whole or not at all, in both accounts and at the gateway.
    fn judge_transfer(
        &self,
        name: &StreamName,
        transfer: &Transfer,
        from: &Account,
        to: &Account,
    ) -> Result<(), Found> {
        let terms = &transfer.terms;
        let entries = self.gateway.books.values().filter(|entry| entry.transfer == *name);
        let charged = entries.filter(|entry| {
            matches!(entry.charge, Charge::Authorized | Charge::Captured)
                || (entry.charge == Charge::CaptureFailed && transfer.stage != Stage::Undone)
        });
        let charged = charged.map(|entry| (entry.charge, entry.fee)).collect::<Vec<_>>();
        let held = from.holds.get(name).copied();
        let paid = to.paid_in.get(name).cloned().unwrap_or_default();
        let whole = match transfer.stage {
            Stage::Done => {
                held == Some(Held::Gone(terms.amount))
                    && paid == BTreeMap::from([(0, terms.amount)])
                    && charged == [(Charge::Captured, terms.fee)]
            }
            Stage::Undone => matches!(held, None | Some(Held::Back)) && paid.is_empty() && charged.is_empty(),
            _ => false,
        };
        if whole {
            return Ok(());
        }
        let what = format!("{name} is half done: {held:?} {paid:?} {charged:?}, {transfer:?}");
        Err(Found::new(Check::Money, what))
    }

    /// What clients put in, as the log has it.
    fn deposited(&self) -> u64 {
        let commits = self.referee.sides.iter().flat_map(|side| side.commits.values());
        let events = commits.flat_map(|commit| &commit.streams).flat_map(|written| &written.events);
        events
            .map(|event| match Happened::decode(event) {
                Ok(Happened::Deposited(amount)) => amount,
                _ => 0,
            })
            .sum()
    }

    /// Every state store ends as the fold of the log, whatever it has been through.
    fn judge_states(&mut self) -> Result<(), Found> {
        for node in 0..self.nodes.len() {
            for partition in 0..self.logs.len() {
                let desk = &mut self.nodes[node].desks[partition];
                for effective in std::mem::take(&mut desk.to_save) {
                    desk.store.save(&effective);
                }
                self.fold_store(node, partition, |_| false);
                let (store, real) = (&self.nodes[node].desks[partition].store, &self.referee.sides[partition].store);
                if store.streams != real.streams || store.ids != real.ids {
                    let what = format!("the state store of node {node} is not the fold of partition {partition}");
                    return Err(Found::new(Check::States, what));
                }
            }
        }
        Ok(())
    }

    /// All rows, and no others.
    fn judge_rows(&self) -> Result<(), Found> {
        let mut real = BTreeMap::<RowKey, Row>::new();
        for (partition, side) in self.referee.sides.iter().enumerate() {
            for (stream, rows) in &side.rows {
                let Some((_, row)) = rows.last() else { continue };
                real.insert(RowKey { table: THINGS, key: stream.to_string() }, row.clone());
            }
            if side.events > 0 {
                let row = Row { version: side.events, doc: crate::view::Doc::of(&side.events), columns: Vec::new() };
                real.insert(RowKey { table: TOTALS, key: partition.to_string() }, row);
            }
        }
        let all = real.keys().chain(self.read_store.rows.keys());
        for key in all {
            let (row, fold) = (self.read_store.rows.get(key), real.get(key));
            if row != fold {
                let what = format!("the row of {} ends as {row:?}, and its fold is {fold:?}", key.key);
                return Err(Found::new(Check::Rows, what));
            }
        }
        Ok(())
    }

    /// What a cache would serve once its tail has told it all.
    fn judge_caches(&mut self) -> Result<(), Found> {
        for node in 0..self.nodes.len() {
            for partition in 0..self.logs.len() {
                while self.nodes[node].desks[partition].tail.next_offset < self.logs[partition].end() {
                    self.tail(node, partition);
                }
            }
            let there = &self.nodes[node];
            for key in there.shelf.0.keys() {
                let Some(shown) = there.gate.serve(key, &there.shelf) else { continue };
                if shown.row.as_ref() != self.read_store.rows.get(key) {
                    let what = format!("node {node} keeps {shown:?} of {}", key.key);
                    return Err(Found::new(Check::Reads, what));
                }
            }
        }
        Ok(())
    }
}
