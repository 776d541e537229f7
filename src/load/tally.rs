//! What a run has seen: how long answers took, how requests ended, and which positions the answers named.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use uuid::Uuid;

/// Longest time kept apart, in microseconds; longer ones count as this.
const LONGEST_US: u64 = 600_000_000;

/// How a request ended, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It took effect.
    Accepted,
    /// It never will.
    Rejected,
    /// Repeated until patience ran out.
    Unknown,
}

/// One request, as the checks need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Which: what it asked for follows from this.
    pub(super) number: u64,
    /// The id it gave to what it made.
    pub(super) id: Uuid,
    /// How it ended.
    pub(super) ending: Ending,
    /// Whether its saga is known to have settled.
    pub(super) settled: bool,
}

/// Latencies and endings of a client, or of all clients.
#[derive(Debug)]
pub(super) struct Tally {
    /// From when it was due to when it was answered.
    pub(super) answers: Histogram<u64>,
    /// From when it was due to when its saga had settled.
    pub(super) settlements: Histogram<u64>,
    /// Measured requests that were accepted.
    pub(super) accepted: u64,
    /// Measured requests that were rejected.
    pub(super) rejected: u64,
    /// Measured requests whose outcome was left unknown.
    pub(super) unknown: u64,
    /// Tries after the first, warm-up included.
    pub(super) retries: u64,
    /// From when a try was sent to when it was accepted, warm-up included: what those feel who are not turned away.
    pub(super) tries: Histogram<u64>,
    /// Tries that were told to come back, warm-up included.
    pub(super) turned_away: u64,
    /// Of these, those that were not told when.
    pub(super) told_no_time: u64,
    /// Tries without an answer, warm-up included.
    pub(super) lost: u64,
    /// Problem codes of what was rejected, warm-up included.
    pub(super) refusals: BTreeMap<String, u64>,
    /// Every request there was, warm-up included.
    pub(super) sent: Vec<Sent>,
    /// When the last measured request ended.
    pub(super) last: Option<Instant>,
    positions: BTreeMap<u64, u64>,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let histogram = || Histogram::new_with_max(LONGEST_US, 3).expect("three digits up to ten minutes can be kept");
        Self {
            answers: histogram(),
            settlements: histogram(),
            accepted: 0,
            rejected: 0,
            unknown: 0,
            retries: 0,
            tries: histogram(),
            turned_away: 0,
            told_no_time: 0,
            lost: 0,
            refusals: BTreeMap::new(),
            sent: Vec::new(),
            last: None,
            positions: BTreeMap::new(),
        }
    }

    /// One more measured request has ended.
    pub(super) fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Accepted => self.accepted += 1,
            Ending::Rejected => self.rejected += 1,
            Ending::Unknown => self.unknown += 1,
        }
        self.last = Some(Instant::now());
    }

    /// All that another client has seen.
    pub(super) fn add(&mut self, other: Self) {
        // Both have the same bounds.
        self.answers += other.answers;
        self.settlements += other.settlements;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
        self.retries += other.retries;
        self.tries += other.tries;
        self.turned_away += other.turned_away;
        self.told_no_time += other.told_no_time;
        self.lost += other.lost;
        for (code, times) in other.refusals {
            *self.refusals.entry(code).or_default() += times;
        }
        self.sent.extend(other.sent);
        self.last = self.last.max(other.last);
        for (partition, offset) in other.positions {
            self.reach(partition, offset);
        }
    }

    /// Takes in a `Docket-Position`: `3:1042, 5:77`.
    pub(super) fn reach_all(&mut self, positions: &str) {
        for position in positions.split(',') {
            let parsed = position.trim().split_once(':').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
            if let Some((partition, offset)) = parsed {
                self.reach(partition, offset);
            }
        }
    }

    fn reach(&mut self, partition: u64, offset: u64) {
        let reached = self.positions.entry(partition).or_default();
        *reached = offset.max(*reached);
    }

    /// The latest of all positions seen, as `Docket-Min-Position` has it.
    pub(super) fn positions(&self) -> String {
        let positions = self.positions.iter().map(|(partition, offset)| format!("{partition}:{offset}"));
        positions.collect::<Vec<_>>().join(", ")
    }
}

/// Notes a time.
pub(super) fn note(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_gathered_per_partition() {
        let mut tally = Tally::new();
        tally.reach_all("3:1042, 5:77");
        let mut other = Tally::new();
        other.reach_all("5:80");
        other.reach_all("3:7,nonsense");
        tally.add(other);
        assert_eq!(tally.positions(), "3:1042, 5:80");
    }

    #[test]
    fn percentiles_are_those_of_all_clients_together() {
        let mut all = Tally::new();
        for client in 0..10_u64 {
            let mut tally = Tally::new();
            for request in 0..100 {
                note(&mut tally.answers, Duration::from_micros(client * 100 + request + 1));
                tally.end(Ending::Accepted);
            }
            all.add(tally);
        }
        assert_eq!((all.accepted, all.answers.len()), (1000, 1000));
        assert_eq!(all.answers.value_at_quantile(0.5), 500);
        assert_eq!(all.answers.value_at_quantile(0.99), 990);
        assert_eq!(all.answers.max(), 1000);
        note(&mut all.answers, Duration::from_secs(7200));
        assert!(all.answers.max() >= LONGEST_US);
    }
}
