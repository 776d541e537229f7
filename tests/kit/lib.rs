//! The test platform: starts the real `docket` binary on a directory, waits until it serves, talks to it as any HTTP
//! client would, and ends it gently or not. It knows routes and JSON, and nothing of what is behind them: whatever a test
//! finds out through this kit, a user could have found out too.

pub mod client;
pub mod clock;
pub mod cluster;
pub mod dice;
pub mod docket;
pub mod proxy;
pub mod shop;

pub use client::{Client, Reply};
pub use clock::Clock;
pub use cluster::Cluster;
pub use dice::Dice;
pub use docket::{Docket, StartFault};
pub use proxy::Proxy;

/// A number from the environment, for the knobs of the proofs (`DOCKET_TEST_KILLS`, `DOCKET_TEST_SEED`, …).
///
/// # Panics
/// When the variable is set to something that is no number: a mistyped knob must not pass for its default.
pub fn knob(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
