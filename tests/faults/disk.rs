//! A disk for a test alone: an XFS image on a loop device, whose power can be cut and whose room can be taken. Where none
//! can be mounted the tests that want one print a line and are skipped.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// What is written right before a cut and never forced to the disk.
const CANARY: &[u8] = b"sings";
/// How often a busy file system is asked again to let go: the process that held it has just died.
const UNMOUNTS_MAX: usize = 100;
/// Room is given in blocks of this size.
const BLOCK_BYTES: u64 = 4_096;

/// A file system of its own.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Makes one of so many bytes (300 MiB or more) and mounts it; why not, where that is impossible.
    pub(crate) fn make(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = Self { folder };
        let image = std::fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(bytes).map_err(|error| error.to_string())?;
        std::fs::create_dir(disk.mount_point()).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.xfs").arg("-q").arg(disk.image()))?;
        run(Command::new("xfs_io").arg("-V"))?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.xfs")
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Where a house may live on it.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount_point().join("docket")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.mount_point()))
    }

    /// A file written right before a cut and not forced to the disk.
    fn canary(&self, cut: u64) -> PathBuf {
        self.mount_point().join(format!("canary-{cut}"))
    }

    /// Forces everything to the disk.
    ///
    /// # Panics
    /// When that is refused.
    pub(crate) fn flush(&self) {
        run(Command::new("sync").arg("-f").arg(self.mount_point())).expect("a file system can be flushed");
    }

    /// Cuts the power: what was not forced to the disk is gone.
    ///
    /// # Panics
    /// When that is refused.
    pub(crate) fn cut(&self, cut: u64) {
        std::fs::write(self.canary(cut), CANARY).expect("a file can be written");
        // Without -f the file system's own log is not flushed either.
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.mount_point()))
            .expect("the power can be cut");
    }

    /// Whether what was written right before this cut, and never forced to the disk, is gone: then it was a real one. Its
    /// name may have come to the disk with somebody else's flush; what was in it cannot have.
    pub(crate) fn has_forgotten(&self, cut: u64) -> bool {
        std::fs::read(self.canary(cut)).ok().as_deref() != Some(CANARY)
    }

    /// Takes the dead file system away and mounts it again, which replays its log.
    ///
    /// # Panics
    /// When it does not come back.
    pub(crate) fn bring_back(&self) {
        self.unmount().expect("a dead file system can be unmounted");
        self.mount().expect("a file system comes back after a power cut");
    }

    /// Bytes that are free.
    fn free_bytes(&self) -> u64 {
        let room = rustix::fs::statvfs(self.mount_point()).expect("a mounted file system knows its room");
        room.f_bavail * room.f_frsize
    }

    /// Takes room away until at most `left_bytes` are free; with 0, until nothing more can be had.
    ///
    /// # Panics
    /// When it cannot be taken for another reason than that there is none.
    pub(crate) fn fill(&self, left_bytes: u64) {
        let ballast = OpenOptions::new().create(true).append(true).open(self.ballast()).expect("a file can be made");
        let mut step = self.free_bytes().saturating_sub(left_bytes);
        while step >= BLOCK_BYTES && self.free_bytes() > left_bytes {
            let from = ballast.metadata().expect("a file has a length").len();
            match rustix::fs::fallocate(&ballast, FallocateFlags::empty(), from, step) {
                Ok(()) => step = step.min(self.free_bytes().saturating_sub(left_bytes)),
                // The file system keeps some for itself.
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => panic!("{step} bytes cannot be taken: {error}"),
            }
        }
    }

    /// Gives back what [`Self::fill`] took.
    ///
    /// # Panics
    /// When nothing was taken.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("a file can be removed");
    }

    fn ballast(&self) -> PathBuf {
        self.mount_point().join("ballast")
    }

    fn unmount(&self) -> Result<(), String> {
        let mut last = Ok(());
        for _ in 0..UNMOUNTS_MAX {
            last = run(Command::new("umount").arg(self.mount_point()));
            if last.is_ok() || !is_mounted(&self.mount_point()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        last
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if is_mounted(&self.mount_point())
            && let Err(why) = self.unmount()
        {
            eprintln!("{} stays mounted: {why}", self.mount_point().display());
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == point.to_str())
}

fn run(command: &mut Command) -> Result<(), String> {
    let Output { status, stderr, .. } = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&stderr);
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}: {}", said.trim())) }
}
