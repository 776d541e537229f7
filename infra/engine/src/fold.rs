//! The accept rule: a pure fold over a partition's records that *every* reader runs. It alone decides which records
//! count, so zombies, duplicates, reorderings and late retries are dropped by all readers alike, on every log.
//!
//! A claim counts if its epoch is the current plus one. Another record counts if its epoch and nonce are current and its
//! seq is next. A release closes the term. `Genesis` counts at offset 0 only, where nothing else does.

use crate::position::{Checkpoint, Epoch, Offset, Seq};
use crate::record::{Header, Kind};

/// Whether a record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts, for every reader and for ever.
    Effective,
    /// It never will.
    Ignored,
}

impl Checkpoint {
    /// Folds the record at `next_offset` and moves on to the one after.
    pub fn accept(&mut self, header: &Header) -> Verdict {
        let at_start = self.next_offset == Offset(0);
        self.next_offset = self.next_offset.next();
        let counts = match header.kind {
            Kind::Genesis => at_start,
            _ if at_start => false,
            Kind::Claim => header.epoch == Epoch(self.epoch.0 + 1) && header.seq == Seq(0),
            Kind::Commit | Kind::Barrier | Kind::Release => {
                self.open && header.epoch == self.epoch && header.nonce == self.nonce && header.seq == self.next_seq
            }
        };
        if !counts {
            return Verdict::Ignored;
        }
        match header.kind {
            Kind::Genesis => {}
            Kind::Claim => {
                self.epoch = header.epoch;
                self.nonce = header.nonce;
                self.next_seq = Seq(1);
                self.open = true;
            }
            Kind::Commit | Kind::Barrier => self.next_seq = Seq(self.next_seq.0 + 1),
            Kind::Release => {
                self.next_seq = Seq(self.next_seq.0 + 1);
                self.open = false;
            }
        }
        Verdict::Effective
    }
}
