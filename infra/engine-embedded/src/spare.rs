//! The next segment, made before it is needed. Writing zeros first halves what a flush costs later, because the file
//! system then has nothing of its own to write; doing it on another thread keeps the writer from waiting. The same thread
//! writes the indexes of sealed segments.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::position::LogId;
use parking_lot::{Condvar, Mutex};

use crate::block::read_up_to;
use crate::disk::Disk;
use crate::files::SPARE;
use crate::index::SegmentIndex;
use crate::store::write_index;

/// Zeros written between two flushes: so much, and no more, can a group's flush find in its way.
const ZEROS_BYTES: usize = 256 << 10;
/// Between two such writes, unless the writer waits for the segment: a group's flush then rarely finds one in its way.
/// 2 ms: a segment of 64 MiB takes most of a second, and half a segment is left to be written when it is begun.
const PAUSE: Duration = Duration::from_millis(2);

/// A file of durable zeros.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) bytes: u64,
}

/// The thread that makes spares.
pub(crate) struct Spares {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Make(u64),
    KeepIndex(u64, SegmentIndex),
}

struct Shared {
    directory: PathBuf,
    log: LogId,
    disk: Arc<dyn Disk>,
    slot: Mutex<Slot>,
    changed: Condvar,
    closing: AtomicBool,
    /// Whether the writer waits for what is being made.
    awaited: AtomicBool,
}

enum Slot {
    Empty,
    Making,
    Ready(Spare),
    Failed(io::Error),
}

impl Spares {
    pub(crate) fn start(directory: PathBuf, log: LogId, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            directory,
            log,
            disk,
            slot: Mutex::new(Slot::Empty),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
        });
        let (jobs, received) = channel();
        let thread = std::thread::Builder::new().name("docket-log-spare".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                for job in received {
                    match job {
                        Job::Make(bytes) => shared.make(bytes),
                        Job::KeepIndex(segment, index) => write_index(&shared.directory, shared.log, segment, &index),
                    }
                }
            }
        })?;
        Ok(Self { shared, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has a spare made unless there is one, one is being made, or making one failed: then it is tried again when it is
    /// needed, not with every group until then.
    pub(crate) fn prepare(&self, bytes: u64) {
        let mut slot = self.shared.slot.lock();
        if matches!(*slot, Slot::Empty) {
            *slot = Slot::Making;
            self.send(Job::Make(bytes));
        }
    }

    /// A spare of at least `bytes`, waiting for it if need be. It is the caller's from now on.
    pub(crate) fn take(&self, bytes: u64) -> io::Result<Spare> {
        let mut slot = self.shared.slot.lock();
        let mut asked = false;
        self.shared.awaited.store(true, Ordering::Relaxed);
        loop {
            match std::mem::replace(&mut *slot, Slot::Empty) {
                Slot::Ready(spare) if spare.bytes >= bytes => {
                    self.shared.awaited.store(false, Ordering::Relaxed);
                    return Ok(spare);
                }
                Slot::Failed(error) if asked => {
                    self.shared.awaited.store(false, Ordering::Relaxed);
                    return Err(error);
                }
                Slot::Making => {
                    *slot = Slot::Making;
                    self.shared.changed.wait(&mut slot);
                }
                Slot::Empty | Slot::Ready(_) | Slot::Failed(_) => {
                    asked = true;
                    *slot = Slot::Making;
                    self.send(Job::Make(bytes));
                }
            }
        }
    }

    /// Has the index of a sealed segment written beside it.
    pub(crate) fn keep_index(&self, segment: u64, index: SegmentIndex) {
        self.send(Job::KeepIndex(segment, index));
    }

    fn send(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("jobs are sent only before the drop");
        jobs.send(job).expect("the thread lives until the drop");
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that makes segments panicked");
        }
    }
}

impl Shared {
    fn make(&self, bytes: u64) {
        let path = self.directory.join(SPARE);
        let made = match reuse(&path, bytes) {
            Some(spare) => Ok(spare),
            None => make_zeros_between(&*self.disk, &path, bytes, &self.closing, || {
                if !self.awaited.load(Ordering::Relaxed) {
                    std::thread::sleep(PAUSE);
                }
            }),
        };
        *self.slot.lock() = match made {
            Ok(spare) => Slot::Ready(spare),
            Err(error) => Slot::Failed(error),
        };
        self.changed.notify_all();
    }
}

/// Takes over what an earlier process left, if it is what we would make. That it is on the disk is seen to when it is
/// used: its header is flushed, and everything before that with it.
fn reuse(path: &Path, bytes: u64) -> Option<Spare> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    if file.metadata().ok()?.len() != bytes {
        return None;
    }
    let zeros = vec![0; ZEROS_BYTES];
    let mut chunk = vec![0; ZEROS_BYTES];
    let mut position = 0;
    while position < bytes {
        let len = read_up_to(&file, &mut chunk, position, bytes).ok()?;
        if len == 0 || chunk[..len] != zeros[..len] {
            return None;
        }
        position += len as u64;
    }
    Some(Spare { path: path.to_owned(), file, bytes })
}

/// Makes a file of durable zeros. Leaves nothing behind if it fails.
pub(crate) fn make_zeros(disk: &dyn Disk, path: &Path, bytes: u64, closing: &AtomicBool) -> io::Result<Spare> {
    make_zeros_between(disk, path, bytes, closing, || {})
}

/// The same, with a pause after each write.
fn make_zeros_between(
    disk: &dyn Disk,
    path: &Path,
    bytes: u64,
    closing: &AtomicBool,
    pause: impl Fn(),
) -> io::Result<Spare> {
    let made = fill(disk, path, bytes, closing, pause);
    if made.is_err()
        && let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "a half-made segment could not be removed");
    }
    made
}

fn fill(disk: &dyn Disk, path: &Path, bytes: u64, closing: &AtomicBool, pause: impl Fn()) -> io::Result<Spare> {
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    disk.reserve(&file, bytes)?;
    let zeros = vec![0; ZEROS_BYTES];
    let mut position = 0;
    while position < bytes {
        if closing.load(Ordering::Relaxed) {
            return Err(io::Error::other("the log is being closed"));
        }
        let len = zeros.len().min(usize::try_from(bytes - position).unwrap_or(usize::MAX));
        disk.write_all_at(&file, &zeros[..len], position)?;
        disk.sync_data(&file)?;
        position += len as u64;
        if position < bytes {
            pause();
        }
    }
    Ok(Spare { path: path.to_owned(), file, bytes })
}
