//! What the log asks of a disk when it writes. The real one is [`RealDisk`]; tests put another in its place that fails
//! a flush, runs out of room, or remembers what was flushed and loses the rest. Reads need no such seam: what they can
//! suffer, a test can do to the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How the log writes. Every method has the real thing as its default, so that a faulty disk says only what it does
/// differently.
pub trait Disk: Send + Sync + 'static {
    /// Writes all of `bytes` at `position`.
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        file.write_all_at(bytes, position)
    }

    /// Returns once what was written to `file` is on the disk.
    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Asks for room for the first `bytes` of `file`, so that a full disk is met before anything is written.
    fn reserve(&self, file: &File, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // Some file systems cannot reserve. The zeros written next find out as well, only later.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a file another name in the same directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// Returns once the names in `directory` are on the disk.
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// The disk as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// Whether an error means that there is no room, as opposed to a disk that failed.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG)
    )
}

/// Whether the process has no file descriptor left: nothing was done, and it passes when somebody closes a file.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
    )
}
