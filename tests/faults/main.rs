//! The real binary under faults: killed, cut off from power, crowded, its log torn. Whatever happens, a judge that knows
//! only what clients were told, what the log says and what the gateway's books say must find no broken promise.
//!
//! Knobs: `DOCKET_TEST_KILLS`, `DOCKET_TEST_CUTS`, `DOCKET_TEST_SEED`; `DOCKET_BIN` names another binary.

mod cuts;
mod disk;
mod forge;
mod full;
mod history;
mod house;
mod judge;
mod kills;
mod late;
mod lies;
mod load;
mod log;
mod log_calls;
mod opening;
mod preload;
mod races;
mod recovering;
mod rows_calls;
mod scarce;
mod state_calls;
mod state_tables;
mod stops;
mod strange;
mod times;
mod torn;

/// These tests measure times and fill the disk: one after the other.
async fn one_at_a_time() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}
