//! The log: what is durable and in which order, and what is on its way there.

use bytes::Bytes;

use super::dice::Dice;
use crate::log::{AppendError, Stored};
use crate::position::Offset;

/// What goes wrong with one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteFault {
    /// It lands, and its outcome is reported as unknown.
    AnswerLost,
    /// It never lands, and its outcome is reported as unknown.
    Lost,
    /// Reported as unknown, and lands long after.
    LandsLate,
    /// It lands twice.
    Duplicated,
    /// It lands twice and the second place is reported.
    DuplicatedReportedLast,
    /// It is durable and nobody says where.
    NoOffset,
    /// It is overtaken by later ones.
    Overtaken,
}

/// How often what goes wrong, in a thousand. Drawn for each seed: some seeds know one fault only, some all.
#[derive(Clone, Debug)]
pub(super) struct WriteFaults {
    pub(super) rates: Vec<(WriteFault, u64)>,
    pub(super) delay_us_max: u64,
}

impl WriteFaults {
    pub(super) fn drawn(dice: &mut Dice) -> Self {
        use WriteFault::{AnswerLost, Duplicated, DuplicatedReportedLast, LandsLate, Lost, NoOffset, Overtaken};
        let rates = [AnswerLost, Lost, LandsLate, Duplicated, DuplicatedReportedLast, NoOffset, Overtaken]
            .into_iter()
            .map(|fault| (fault, if dice.chance(400) { dice.between(5, 60) } else { 0 }))
            .collect();
        Self { rates, delay_us_max: [200, 1_000, 5_000][dice.below(3) as usize] }
    }

    pub(super) fn none() -> Self {
        Self { rates: Vec::new(), delay_us_max: 500 }
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> Option<WriteFault> {
        self.rates.iter().find(|(_, rate)| *rate > 0 && dice.chance(*rate)).map(|(fault, _)| *fault)
    }
}

/// One append.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) node: usize,
    pub(super) incarnation: u64,
    pub(super) tag: u64,
    pub(super) bytes: Bytes,
    /// Copies that have not landed.
    pub(super) copies: u32,
    pub(super) fault: Option<WriteFault>,
    pub(super) report: Option<Result<Option<Offset>, AppendError>>,
}

impl Write {
    /// What the log reports when a copy becomes durable at `offset`, if it then does.
    pub(super) fn on_durable(&self, offset: Offset) -> Option<Result<Option<Offset>, AppendError>> {
        match self.fault {
            _ if self.report.is_some() => None,
            Some(WriteFault::AnswerLost | WriteFault::Lost | WriteFault::LandsLate) => None,
            Some(WriteFault::DuplicatedReportedLast) if self.copies > 0 => None,
            Some(WriteFault::NoOffset) => Some(Ok(None)),
            _ => Some(Ok(Some(offset))),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct SimulatedLog {
    pub(super) durable: Vec<Bytes>,
    /// Landed and not synced: lost if the log crashes.
    pub(super) unsynced: Vec<usize>,
    pub(super) writes: Vec<Write>,
    pub(super) full: bool,
    pub(super) sync_due: bool,
}

impl SimulatedLog {
    pub(super) fn end(&self) -> Offset {
        Offset(self.durable.len() as u64)
    }

    pub(super) fn at(&self, offset: Offset) -> &Bytes {
        &self.durable[offset.0 as usize]
    }

    pub(super) fn read(&self, from: Offset, count: usize) -> Vec<Stored> {
        (from.0..).zip(self.durable.iter().skip(from.0 as usize)).take(count).map(stored).collect()
    }
}

fn stored((offset, bytes): (u64, &Bytes)) -> Stored {
    Stored { offset: Offset(offset), bytes: bytes.clone() }
}
