//! Several nodes under faults: real processes on real brokers and a real database, killed, frozen, cut off, away, restarted
//! one after the other, asked twice at once. The same load and the same judge as for one process alone: nothing acknowledged
//! is lost, nothing is done twice, versions have no gaps, money and stock add up, rows are the fold of the log.
//!
//! Knobs: `DOCKET_TEST_NODE_KILLS`, `DOCKET_TEST_SEED`; `DOCKET_BIN` names another binary.
#![allow(dead_code, reason = "what only a process alone is asked")]

mod history;
mod house;
mod judge;
mod load;
mod log;
mod nodes;

/// These tests measure times and fill the machine: one after the other.
async fn one_at_a_time() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}
