//! Where a node keeps what: one directory with the log and everything folded from it, or nothing but a scratch directory
//! that goes with the process. Read models may be elsewhere: in a file of their own or in a database that nodes share.

use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::failure::Failure;

/// A data directory, or none.
pub(crate) struct Data {
    root: PathBuf,
    rows: Rows,
    kept: bool,
}

/// Where the read models are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Nowhere but in this process.
    Memory,
    /// In a SQLite file of this node.
    File(PathBuf),
    /// In a database that nodes share, at this URL.
    Shared(String),
}

impl Rows {
    /// As the read store takes it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Memory => "sqlite::memory:".to_owned(),
            Self::File(path) => format!("sqlite:{}", path.display()),
            Self::Shared(url) => url.clone(),
        }
    }
}

impl Data {
    /// Keeps everything in this directory, made if need be; the read models too unless they are elsewhere.
    pub(crate) fn keep(directory: &Path, rows: Option<Rows>) -> Result<Self, Failure> {
        make(directory)?;
        let rows = rows.unwrap_or_else(|| Rows::File(directory.join("views.db")));
        Ok(Self { root: directory.to_owned(), rows, kept: true })
    }

    /// Keeps nothing: a scratch directory that goes when this is dropped.
    pub(crate) fn forget() -> Result<Self, Failure> {
        let root = std::env::temp_dir().join(format!("docket-{}", Uuid::now_v7()));
        make(&root)?;
        Ok(Self { root, rows: Rows::Memory, kept: false })
    }

    /// Where the log's segments are: the only thing that cannot be made again.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where the copy of a log that is elsewhere is.
    #[cfg(feature = "kafka")]
    pub(crate) fn copy(&self) -> PathBuf {
        self.root.join("copy")
    }

    /// Where folded states are kept.
    pub(crate) fn states(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Where the gateway simulator's books are; `None` if nothing is kept.
    pub(crate) fn gateway(&self) -> Option<PathBuf> {
        self.kept.then(|| self.root.join("gateway.ndjson"))
    }

    /// Where a check of the read models folds the log to, for as long as it takes.
    pub(crate) fn check(&self) -> PathBuf {
        self.root.join("check.db")
    }

    /// Where the read models are.
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Moves the read models away, to be looked at, and says where to.
    pub(super) fn set_rows_aside(&self) -> Result<PathBuf, Failure> {
        let Rows::File(file) = &self.rows else { return Err(Failure::plain("there is no file to set aside")) };
        let named = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
        let aside = named(file, &format!(".unusable-{}", Uuid::now_v7()));
        for suffix in ["", "-wal", "-shm"] {
            match std::fs::rename(named(file, suffix), named(&aside, suffix)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::of("cannot set the read models aside", &error)),
            }
        }
        Ok(aside)
    }
}

fn make(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|error| {
        Failure::of(format!("cannot make the directory {}", directory.display()), &error)
            .next("choose another with --data DIR")
    })
}

impl Drop for Data {
    fn drop(&mut self) {
        if !self.kept {
            // A scratch directory that stays behind is untidy, not wrong.
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kept {
            write!(f, "data in {} (delete it to start over)", self.root.display())
        } else {
            f.write_str("data in memory only")
        }
    }
}
