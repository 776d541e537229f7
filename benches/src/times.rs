//! How long things took.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest time kept apart, in microseconds; longer ones count as this.
const LONGEST_US: u64 = 600_000_000;

/// Times, to be asked for percentiles.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_max(LONGEST_US, 3).expect("three digits up to ten minutes can be kept"))
    }

    pub(crate) fn note(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}
