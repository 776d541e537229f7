//! Where time and chance come from. Thinking crates cannot reach them; they are handed in.

use crate::position::Nonce;
use crate::time::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time. May jump either way: nothing may rest on it for order.
    fn now(&self) -> Timestamp;
}

/// Throws dice.
pub trait Chance: Send + Sync + 'static {
    /// A nonce that no other process will draw.
    fn nonce(&self) -> Nonce;
    /// A number in `0..limit`, for jitter.
    fn below(&self, limit: u64) -> u64;
}
