//! Which remembered ids may be forgotten, and when. Ids lie in *buckets* by the day of their record (a full bucket is
//! followed by a further part of the same day), and a bucket is dropped whole.
//!
//! A day may be forgotten once the log has *run* for seven days after it. Running time is counted in slots of ten minutes
//! in which something was recorded, in whatever partition: a jump of the clock is one slot, not a year, and a stopped
//! system forgets nothing. Slots are a set, so the answer does not depend on the order in which partitions are folded:
//! replaying the log remembers exactly what following it did.
//!
//! Past a bound in bytes the oldest bucket goes early. The newest never goes.

use std::collections::BTreeMap;

use engine::message::CommandId;
use engine::time::Timestamp;

use super::keys;

/// Ten minutes, in microseconds: what one record at most adds to the running time.
const SLOT_MICROS: i64 = 600 * 1_000_000;
/// Slots of a day.
const SLOTS_A_DAY: i64 = 144;
/// Running slots after which a day may be forgotten: seven days, and one more because the last has only begun.
pub(super) const SLOTS_REMEMBERED: u32 = 7 * 144 + 1;
/// How much a sender's clock may be ahead and its UUIDv7 still be judged by its own time: an hour. Beyond it a wrong
/// clock somewhere would make everybody's ids look forgotten.
const CLOCK_AHEAD_MICROS: i64 = 3_600 * 1_000_000;
/// A bucket is full at this fraction of all bytes allowed: forgetting early then forgets an eighth.
const PARTS: u64 = 8;

/// A bucket: the day (since 1970) of its records, and which part of the day's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    pub(super) day: i32,
    pub(super) part: u32,
}

impl Bucket {
    /// The name of its keyspace.
    pub(super) fn keyspace(self) -> String {
        format!("{BUCKET_NAME}{}.{}", self.day, self.part)
    }
}

/// What the keyspaces of buckets are called, before day and part.
pub(super) const BUCKET_NAME: &str = "ids-";

/// What is known of a bucket beside its ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fill {
    /// Bytes of keys and values put in.
    pub(super) bytes: u64,
    /// The newest moment at which a UUIDv7 in it was made.
    pub(super) newest: Option<Timestamp>,
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    /// Ids of this day and earlier ones are gone for good.
    pub(super) day: Option<i32>,
    /// The newest moment at which a forgotten UUIDv7 was made.
    pub(super) newest: Option<Timestamp>,
}

/// Slots of one day, as bits.
pub(super) type Slots = [u64; 3];

/// What is remembered, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Calendar {
    pub(super) active: BTreeMap<i32, Slots>,
    pub(super) buckets: BTreeMap<Bucket, Fill>,
    pub(super) forgotten: Forgotten,
}

/// Something of the calendar that a batch has to write down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touched {
    Active(i32),
    Bucket(Bucket),
    Forgotten,
}

impl Calendar {
    /// Notes that something was recorded at `at`. Says so if that began a slot: days may have become old by it.
    pub(super) fn tick(&mut self, at: Timestamp) -> Option<Touched> {
        let (day, slot) = day_and_slot(at);
        if self.forgotten.day.is_some_and(|forgotten| day <= forgotten) {
            return None;
        }
        let word = &mut self.active.entry(day).or_default()[slot / 64];
        let bit = 1 << (slot % 64);
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        Some(Touched::Active(day))
    }

    /// The bucket that an id of a record of `at` goes into, `bytes` long; `None` if its day is forgotten already.
    pub(super) fn place(&mut self, id: CommandId, at: Timestamp, bytes: u64, bytes_max: u64) -> Option<Bucket> {
        let (day, _) = day_and_slot(at);
        let made_at = keys::made_at(id).map(|made_at| made_at.min(Timestamp(at.0.saturating_add(CLOCK_AHEAD_MICROS))));
        if self.forgotten.day.is_some_and(|forgotten| day <= forgotten) {
            self.forgotten.newest = self.forgotten.newest.max(made_at);
            return None;
        }
        let of_day = Bucket { day, part: 0 }..=Bucket { day, part: u32::MAX };
        let bucket = match self.buckets.range(of_day).next_back() {
            Some((bucket, fill)) if fill.bytes < bytes_max / PARTS => *bucket,
            Some((bucket, _)) => Bucket { day, part: bucket.part + 1 },
            None => Bucket { day, part: 0 },
        };
        let fill = self.buckets.entry(bucket).or_default();
        fill.bytes += bytes;
        fill.newest = fill.newest.max(made_at);
        Some(bucket)
    }

    /// Forgets the days after which the log has run long enough. Returns the buckets to drop, and the days.
    pub(super) fn forget_old(&mut self) -> (Vec<Bucket>, Vec<i32>) {
        let mut slots_after = 0;
        let mut old = None;
        for (&day, slots) in self.active.iter().rev() {
            if slots_after >= SLOTS_REMEMBERED {
                old = Some(day);
                break;
            }
            slots_after += slots.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        let Some(old) = old else { return (Vec::new(), Vec::new()) };
        let later_days = self.active.split_off(&(old + 1));
        let days = std::mem::replace(&mut self.active, later_days).into_keys().collect();
        let later_buckets = self.buckets.split_off(&Bucket { day: old + 1, part: 0 });
        let dropped = std::mem::replace(&mut self.buckets, later_buckets);
        self.forgotten.day = Some(old);
        for fill in dropped.values() {
            self.forgotten.newest = self.forgotten.newest.max(fill.newest);
        }
        (dropped.into_keys().collect(), days)
    }

    /// Forgets the oldest buckets until the rest fits `bytes_max`, but never the newest. Returns the buckets to drop.
    pub(super) fn forget_surplus(&mut self, bytes_max: u64) -> Vec<Bucket> {
        let mut dropped = Vec::new();
        while self.bytes() > bytes_max && self.buckets.len() > 1 {
            let Some((bucket, fill)) = self.buckets.pop_first() else { break };
            self.forgotten.newest = self.forgotten.newest.max(fill.newest);
            dropped.push(bucket);
        }
        dropped
    }

    /// Bytes of keys and values in all buckets.
    pub(super) fn bytes(&self) -> u64 {
        self.buckets.values().map(|fill| fill.bytes).sum()
    }

    /// A UUIDv7 from before this may have been forgotten.
    pub(super) fn forgotten_before(&self) -> Option<Timestamp> {
        self.forgotten.newest.map(|newest| Timestamp(newest.0.saturating_add(1)))
    }
}

fn day_and_slot(at: Timestamp) -> (i32, usize) {
    let slot = at.0.div_euclid(SLOT_MICROS);
    let day = i32::try_from(slot.div_euclid(SLOTS_A_DAY)).expect("no i64 of microseconds has more days than an i32");
    (day, usize::try_from(slot.rem_euclid(SLOTS_A_DAY)).expect("0..144"))
}
