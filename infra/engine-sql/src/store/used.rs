//! Which of the two sets this process takes to be in use, and who wants to be told when that changes. It may be behind
//! what the database says, never ahead of it: who reads or writes checks it there, and comes back here for the news.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::log::WakerGuard;
use engine::read_store::StoreFault;

use crate::sets::{InUse, Meta};

/// Called when other tables come into use.
type Waker = Arc<dyn Fn() + Send + Sync>;

/// Why a database that was reached cannot be used.
#[derive(Clone, Debug)]
enum Unusable {
    TooNew { found: i64, known: i64 },
    Damaged(String),
    Misused(String),
}

impl Unusable {
    /// `Err` gives back what may pass.
    fn of(fault: StoreFault) -> Result<Self, StoreFault> {
        match fault {
            StoreFault::TooNew { found, known } => Ok(Self::TooNew { found, known }),
            StoreFault::Damaged(why) => Ok(Self::Damaged(why)),
            StoreFault::Misused(why) => Ok(Self::Misused(why)),
            other => Err(other),
        }
    }

    fn fault(&self) -> StoreFault {
        match self.clone() {
            Self::TooNew { found, known } => StoreFault::TooNew { found, known },
            Self::Damaged(why) => StoreFault::Damaged(why),
            Self::Misused(why) => StoreFault::Misused(why),
        }
    }
}

/// What is in use, as far as is known.
#[derive(Default)]
pub(super) struct Used {
    /// `None` until the database was reached.
    known: Mutex<Option<Result<InUse, Unusable>>>,
    wakers: Arc<Mutex<Wakers>>,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    by_number: BTreeMap<u64, Waker>,
}

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Used").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Used {
    /// What is in use; `Unavailable` until the database was reached.
    pub(super) fn get(&self) -> Result<InUse, StoreFault> {
        match &*lock(&self.known) {
            Some(Ok(in_use)) => Ok(*in_use),
            Some(Err(unusable)) => Err(unusable.fault()),
            None => Err(StoreFault::Unavailable("the database was not reached yet since this node started".into())),
        }
    }

    /// What was found when the database was first reached. A fault that may pass is given back.
    pub(super) fn found(&self, found: Result<InUse, StoreFault>) -> Result<(), StoreFault> {
        let found = match found {
            Ok(in_use) => Ok(in_use),
            Err(fault) => Err(Unusable::of(fault)?),
        };
        let mut known = lock(&self.known);
        known.get_or_insert(found).as_ref().map(|_| ()).map_err(Unusable::fault)
    }

    /// Takes news from the database, whose tables are specified as `text`. True if they were any.
    pub(super) fn adopt(&self, meta: &Meta, text: impl FnOnce() -> String) -> Result<bool, StoreFault> {
        {
            let mut known = lock(&self.known);
            let Some(Ok(before)) = &mut *known else { return Ok(false) };
            if meta.in_use.generation <= before.generation {
                return Ok(false);
            }
            if meta.tables != text() {
                return Err(StoreFault::Damaged(
                    "its tables were made anew by another program since this one opened it: start this one again"
                        .to_owned(),
                ));
            }
            *before = meta.in_use;
        }
        tracing::info!(read_store.generation = meta.in_use.generation, "other tables are in use");
        let wakers = lock(&self.wakers).by_number.values().cloned().collect::<Vec<_>>();
        wakers.iter().for_each(|waker| waker());
        Ok(true)
    }

    /// Calls `waker` after every change.
    pub(super) fn watch(&self, waker: Waker) -> WakerGuard {
        let mut wakers = lock(&self.wakers);
        let number = wakers.next;
        wakers.next += 1;
        wakers.by_number.insert(number, waker);
        let registered = Arc::downgrade(&self.wakers);
        WakerGuard::new(move || {
            if let Some(wakers) = registered.upgrade() {
                lock(&wakers).by_number.remove(&number);
            }
        })
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is replaced whole: a panic elsewhere leaves nothing half-done.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
