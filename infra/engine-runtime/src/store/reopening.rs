//! A database that met a full disk, or found no file descriptor left. What it was writing is half there, so it writes
//! nothing more, and the store waits: not for the next start, only for room. Then the files are opened again, which cuts
//! the half that is there, and it goes on with the last save that was whole. What a disk failed for another reason is not
//! gone on from: its cache may show what is not on it. Such a store is condemned, and the next opening folds it afresh.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::saga::Reactor;
use fjall::LsmError;
use rustix::io::Errno;

use super::persisting::Persister;
use super::tables::{self, Tables, check_room};
use super::{StateStore, StoreFault, StoreOptions};

/// How long readers may take to let go of what they read before it is tried again later: looks, and the time between two.
const CLOSE_LOOKS_MAX: u32 = 1_000;
const CLOSE_STEP: Duration = Duration::from_millis(1);

/// The database while it is open.
pub(super) struct Open {
    /// Before the database: it stops before that closes.
    _persister: Persister,
    tables: Arc<Tables>,
}

impl Open {
    /// Shows it to everybody, and syncs it now and then.
    pub(super) fn start(
        directory: &Path,
        tables: Tables,
        is_dirty: &Arc<AtomicBool>,
        options: &StoreOptions,
    ) -> io::Result<Self> {
        let condemned = directory.to_owned();
        let failed = move |error: &fjall::Error| {
            // Nobody else hears what it was: the database only says that it met something.
            if is_doubtful(error) && !is_full(error) && !matches!(error, fjall::Error::Poisoned) {
                tables::condemn(&condemned);
            }
        };
        let persister = Persister::start(tables.database.clone(), Arc::clone(is_dirty), options.persist_every, failed)?;
        Ok(Self { _persister: persister, tables: Arc::new(tables) })
    }
}

/// Whether there was no room, or no file descriptor, as opposed to a disk that failed.
fn is_full(error: &fjall::Error) -> bool {
    matches!(os_error(error), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::MFILE | Errno::NFILE))
}

/// Whether the files may not hold what was put there: they are damaged, or a disk that failed shows what is only in its
/// cache. What else a system says is about the system, or about us.
pub(super) fn is_doubtful(error: &fjall::Error) -> bool {
    use fjall::Error;
    match error {
        Error::Io(source) | Error::Storage(LsmError::Io(source)) => {
            let contradicts = matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
            );
            contradicts || os_error(error) == Some(Errno::IO)
        }
        Error::Locked | Error::KeyspaceDeleted => false,
        _ => true,
    }
}

fn os_error(error: &fjall::Error) -> Option<Errno> {
    let (fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error))) = error else { return None };
    error.raw_os_error().map(Errno::from_raw_os_error)
}

impl<R: Reactor> StateStore<R> {
    /// The tables, open; held only as long as something is read from them.
    pub(super) fn tables(&self) -> Result<Arc<Tables>, StoreFault> {
        let opened = self.opened.read();
        opened.as_ref().map(|open| Arc::clone(&open.tables)).ok_or_else(|| self.full())
    }

    /// Sets the gauges of what it holds in memory: to be called by whoever renders metrics, right before.
    pub fn measure(&self) {
        // While it is opened again, which may take a while, they stay as they were.
        let tables = self.opened.try_read().and_then(|opened| Some(Arc::clone(&opened.as_ref()?.tables)));
        if let Some(tables) = tables {
            tables.measure();
        }
    }

    fn full(&self) -> StoreFault {
        let free_bytes = rustix::fs::statvfs(&self.directory).map_or(0, |room| room.f_bavail * room.f_frsize);
        StoreFault::Full { directory: self.directory.clone(), free_bytes }
    }

    /// What it means that a batch was not written: after a full disk the same can be tried again, on a database that is
    /// opened again first.
    pub(super) fn written<T>(&self, result: Result<T, StoreFault>) -> Result<T, StoreFault> {
        let error = match &result {
            Err(StoreFault::Database(error)) => error,
            Err(fault) => {
                self.was_short.fetch_or(matches!(fault, StoreFault::Full { .. }), Ordering::AcqRel);
                return result;
            }
            Ok(_) => {
                self.was_short.store(false, Ordering::Release);
                return result;
            }
        };
        // A database that had met a fault in the background does not say which. It writes tables and opens files there,
        // also while saves wait for room, so that there may be some again when the next one comes.
        let lacks = || check_room(&self.directory, &self.options).is_err() || File::open(&self.directory).is_err();
        let had_no_room = matches!(**error, fjall::Error::Poisoned)
            && !self.is_condemned()
            && (self.was_short.load(Ordering::Acquire) || lacks());
        if is_full(error) || had_no_room {
            self.is_broken.store(true, Ordering::Release);
            return Err(self.full());
        }
        if is_doubtful(error) {
            tables::condemn(&self.directory);
        }
        result
    }

    /// Opens the database again if it met a full disk and there is room now.
    ///
    /// # Errors
    /// [`StoreFault::Full`] if that has to wait; [`StoreFault::Damaged`] if what is found is not what was saved.
    pub(super) fn reopen_if_broken(&self) -> Result<(), StoreFault> {
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one_at_a_time = self.reopening.lock();
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        check_room(&self.directory, &self.options)?;
        for _ in 0..CLOSE_LOOKS_MAX {
            // Held until it is open again: who wants to read meanwhile waits.
            let mut opened = self.opened.write();
            let is_ours = opened.as_mut().is_none_or(|open| Arc::get_mut(&mut open.tables).is_some());
            if is_ours {
                drop(opened.take());
                *opened = Some(self.open_again()?);
                self.is_broken.store(false, Ordering::Release);
                tracing::warn!("the disk had no room for states; there is some now, and the state store goes on");
                return Ok(());
            }
            drop(opened);
            std::thread::sleep(CLOSE_STEP);
        }
        Err(self.full())
    }

    fn open_again(&self) -> Result<Open, StoreFault> {
        let found = tables::reopen(&self.directory, &self.identity, &self.options);
        let (tables, remains) = match found {
            Ok(Ok(found)) => found,
            // It may be that there is no room again.
            Err(StoreFault::Directory { .. } | StoreFault::Locked(_)) => return Err(self.full()),
            Err(fault) => return Err(fault),
            Ok(Err(reason)) => return self.checked_fault(Err(StoreFault::Damaged(reason))),
        };
        let mut progress = self.progress.write();
        let has_all = remains.progress.iter().zip(progress.iter());
        if !has_all.into_iter().all(|(found, saved)| found.checkpoint.next_offset >= saved.checkpoint.next_offset) {
            return self.checked_fault(Err(StoreFault::Damaged("what was saved before is gone".to_owned())));
        }
        tables.show_buckets(&remains.calendar, &self.options)?;
        *progress = remains.progress;
        *self.forgotten_before.write() = remains.calendar.forgotten_before();
        *self.calendar.lock() = remains.calendar;
        Open::start(&self.directory, tables, &self.is_dirty, &self.options)
            .map_err(|source| StoreFault::Directory { directory: self.directory.clone(), source: Arc::new(source) })
    }
}
