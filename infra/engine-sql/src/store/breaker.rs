//! While a server does not answer, every read would wait for it as long as it may, one after the other. So after a failure
//! reads fail at once for a moment; then one tries, and the others with it if it went well.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::read_store::StoreFault;
use tokio::time::Instant;

/// 500 ms: a server that came back is noticed soon, one that is gone is asked twice a second.
const OPEN_FOR: Duration = Duration::from_millis(500);

/// Remembers that a server did not answer.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open_until: Mutex<Option<Instant>>,
}

impl Breaker {
    /// Whether to ask now. The first one to ask after a failure's time is over asks alone.
    pub(super) fn check(&self) -> Result<(), StoreFault> {
        let mut open_until = self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match *open_until {
            Some(until) if now < until => {
                Err(StoreFault::Unavailable("the read store did not answer a moment ago".into()))
            }
            Some(_) => {
                *open_until = Some(now + OPEN_FOR);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether nothing is known to be wrong.
    pub(super) fn is_closed(&self) -> bool {
        self.open_until.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// It did not answer.
    pub(super) fn failed(&self) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + OPEN_FOR);
    }

    /// It did.
    pub(super) fn succeeded(&self) {
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
