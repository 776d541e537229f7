//! The thread that syncs the store to the disk every second or so, so that a power cut costs little folding. Nobody waits
//! for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{Database, PersistMode};
use parking_lot::{Condvar, Mutex};

/// Runs until dropped.
pub(super) struct Persister {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Persister {
    /// Syncs `database` every `every`, if `is_dirty`, until that fails: then `failed` is told why.
    pub(super) fn start(
        database: Database,
        is_dirty: Arc<AtomicBool>,
        every: Duration,
        failed: impl Fn(&fjall::Error) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("state-store-persist".to_owned()).spawn(move || {
            let (is_stopped, woken) = &*seen;
            let mut is_stopped = is_stopped.lock();
            while !*is_stopped {
                woken.wait_for(&mut is_stopped, every);
                if !is_dirty.swap(false, Ordering::AcqRel) {
                    continue;
                }
                // Saves fail from here on and tell their callers; the log has everything.
                if let Err(error) = database.persist(PersistMode::SyncData) {
                    tracing::error!(error = &error as &dyn std::error::Error, "the state store cannot be synced");
                    failed(&error);
                    return;
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Persister {
    fn drop(&mut self) {
        let (is_stopped, woken) = &*self.stop;
        *is_stopped.lock() = true;
        woken.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told where it happened.
            let _ = thread.join();
        }
    }
}
