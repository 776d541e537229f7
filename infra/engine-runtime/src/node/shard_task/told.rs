//! What a shard tells the metrics of its answers.

use engine::message::{Answer, NoAnswer};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;

/// Counters, made once: looking them up costs more than counting.
pub(super) struct Told {
    accepted: Counter,
    rejected: Counter,
    invalid: Counter,
    reused: Counter,
    expired: Counter,
    unheard: Counter,
    unknown: Counter,
    replayed: Counter,
    /// Of what was not begun because too much is going on already.
    pub(super) held_back: Counter,
    seconds: Histogram,
}

impl Told {
    pub(super) fn new() -> Self {
        let outcome = |outcome: &'static str| counter!("docket_commands_total", "outcome" => outcome);
        Self {
            accepted: outcome("accepted"),
            rejected: outcome("rejected"),
            invalid: outcome("invalid"),
            reused: outcome("reused"),
            expired: outcome("expired"),
            unheard: outcome("unheard"),
            unknown: outcome("unknown"),
            replayed: counter!("docket_commands_replayed_total"),
            held_back: counter!("docket_sagas_turned_away_total"),
            seconds: histogram!("docket_command_seconds"),
        }
    }

    pub(super) fn count<S>(&self, answer: &Result<Answer<S>, NoAnswer>, since: Instant) {
        match answer {
            Ok(Answer::Decided(decided)) => {
                if decided.replayed {
                    self.replayed.increment(1);
                }
                if decided.outcome.is_accepted() { &self.accepted } else { &self.rejected }
            }
            Ok(Answer::Invalid(_)) => &self.invalid,
            Ok(Answer::Reused) => &self.reused,
            Ok(Answer::Expired) => &self.expired,
            Ok(Answer::Unheard) => &self.unheard,
            Err(_) => &self.unknown,
        }
        .increment(1);
        self.seconds.record(since.elapsed());
    }
}
