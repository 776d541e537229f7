//! Which of the two sets a handle on a store means: whatever is in use, what was in use when it was opened, or what is
//! beside. All of them go to the same database through the same connections.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use engine::position::{Checkpoint, LogId, Partition};
use engine::read_store::StoreFault;

use super::{LOOKS_MAX, SqlReadStore, settle};
use crate::connection::Access;
use crate::sets::{InUse, Pin};
use crate::work;

/// Which tables a handle means.
#[derive(Clone, Debug)]
pub(super) enum Aim {
    /// Whatever is in use.
    Readers,
    /// What was in use when it was opened.
    Feeder(Arc<OnceLock<InUse>>),
    /// What is beside, under this token.
    Beside(i64),
}

impl SqlReadStore {
    /// Which tables this handle means now.
    pub(super) fn pin(&self) -> Result<Pin, StoreFault> {
        let in_use = self.inner.in_use()?;
        Ok(match &self.aim {
            Aim::Readers => Pin::InUse(in_use),
            Aim::Feeder(pinned) => Pin::InUse(pinned.get().copied().unwrap_or(in_use)),
            // After a switch it is another set; but then the token is another, too.
            Aim::Beside(token) => Pin::Beside { set: in_use.set.other(), token: *token },
        })
    }

    /// Binds what this handle means to a log; a feeder then stays with it.
    pub(super) async fn open_now(&self, log: LogId) -> Result<BTreeMap<Partition, Checkpoint>, StoreFault> {
        let mut looks = 0;
        loop {
            let pin = self.pin()?;
            let done = self
                .write(move |inner| async move {
                    let mut session = inner.database.begin(Access::Write).await?;
                    let done = work::open(&mut session, log, pin, inner.tables(pin.set())).await;
                    settle(session, done).await
                })
                .await;
            let may_move = match &self.aim {
                Aim::Readers => true,
                Aim::Feeder(pinned) => pinned.get().is_none(),
                Aim::Beside(_) => false,
            };
            match done {
                Err(StoreFault::Fenced(_)) if may_move && looks < LOOKS_MAX => {
                    looks += 1;
                    self.look_again().await?;
                }
                Ok(checkpoints) => {
                    if let (Aim::Feeder(pinned), Pin::InUse(in_use)) = (&self.aim, pin) {
                        let _ = pinned.set(in_use);
                    }
                    return Ok(checkpoints);
                }
                done => return done,
            }
        }
    }
}
