//! The real clock and real dice, behind the engine's ports.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::ports::{Chance, Clock};
use engine::position::Nonce;
use engine::time::Timestamp;
use rand::RngExt;

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            // A clock set to before 1970 still tells an order.
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Timestamp(micros)
    }
}

/// The machine's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn nonce(&self) -> Nonce {
        Nonce(rand::rng().random())
    }

    fn below(&self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { rand::rng().random_range(0..limit) }
    }
}
