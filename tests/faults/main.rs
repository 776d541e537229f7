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

use tokio::sync::{Semaphore, SemaphorePermit};

/// Two at once: most of these tests wait most of the time.
static PLACES: Semaphore = Semaphore::const_new(2);

/// For a test that may run beside another.
async fn beside_another() -> SemaphorePermit<'static> {
    PLACES.acquire().await.expect("it is never closed")
}

/// For a test that measures times, makes a load or runs out of memory.
async fn one_at_a_time() -> SemaphorePermit<'static> {
    PLACES.acquire_many(2).await.expect("it is never closed")
}
