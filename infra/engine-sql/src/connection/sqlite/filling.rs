//! A file that is filled from nothing. Until it has caught up with the log nothing is written twice: there is no
//! write-ahead log, what a rollback needs stays in memory, and nothing is synced. So a process that dies meanwhile leaves a
//! file that nobody can trust. A mark beside it says so, locked as long as that process lives: who finds one that is not
//! locked throws the file away and begins again, for all that was in it is in the log.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What the mark's name ends with.
const SUFFIX: &str = "-filling";
/// What is thrown away with a file.
const WITH_IT: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// The mark, held.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Mark {
    /// Marks a database, durably.
    pub(super) fn set(database: &Path) -> io::Result<Self> {
        let path = with(database, SUFFIX);
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        file.try_lock()?;
        file.sync_all()?;
        sync_directory(&path)?;
        Ok(Self { path, _file: file })
    }

    /// Takes it away: the database can be trusted.
    pub(super) fn lift(&self) -> io::Result<()> {
        remove(&self.path)?;
        sync_directory(&self.path)
    }
}

/// Throws away a database that was left unfinished. False if it was not.
///
/// # Errors
/// Also if another process is filling it.
pub(super) fn clear(database: &Path) -> io::Result<bool> {
    let mark = with(database, SUFFIX);
    let file = match File::options().write(true).open(&mark) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    file.try_lock()?;
    if !mark.exists() {
        // Lifted since it was opened: then the file is whole.
        return Ok(false);
    }
    for suffix in WITH_IT {
        remove(&with(database, suffix))?;
    }
    // Last, so that what could not be thrown away stays marked.
    sync_directory(&mark)?;
    remove(&mark)?;
    sync_directory(&mark)?;
    Ok(true)
}

fn with(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory(of: &Path) -> io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
