//! Where `docket dev` keeps what: one directory with the log and everything folded from it, or nothing but a scratch
//! directory for `--memory`.

use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::failure::Failure;

/// A data directory, or none.
pub(super) struct Data {
    states: PathBuf,
    rows: String,
    files: Option<Files>,
    root: PathBuf,
}

/// What is kept.
pub(super) struct Files {
    /// The log: the only thing that cannot be made again.
    pub(super) log: PathBuf,
    /// The gateway simulator's books.
    pub(super) gateway: PathBuf,
    /// The read models.
    rows: PathBuf,
}

impl Data {
    /// Makes the directory; for `memory`, a scratch directory that goes when this is dropped.
    pub(super) fn choose(directory: &Path, memory: bool) -> Result<Self, Failure> {
        let root =
            if memory { std::env::temp_dir().join(format!("docket-{}", Uuid::now_v7())) } else { directory.to_owned() };
        std::fs::create_dir_all(&root).map_err(|error| {
            Failure::of(format!("cannot make the directory {}", root.display()), &error)
                .next("choose another with --data DIR")
        })?;
        let states = root.join("state");
        if memory {
            return Ok(Self { states, rows: "sqlite::memory:".to_owned(), files: None, root });
        }
        let rows = root.join("views.db");
        let files = Files { log: root.join("log"), gateway: root.join("gateway.ndjson"), rows: rows.clone() };
        Ok(Self { states, rows: rows.display().to_string(), files: Some(files), root })
    }

    /// Where folded states are kept.
    pub(super) fn states(&self) -> &Path {
        &self.states
    }

    /// Where the read models are kept, as the read store takes it.
    pub(super) fn rows(&self) -> &str {
        &self.rows
    }

    /// What is kept; `None` if nothing is.
    pub(super) fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    /// Moves the read models away, to be looked at, and says where to.
    pub(super) fn set_rows_aside(&self) -> Result<PathBuf, Failure> {
        let Some(files) = &self.files else { return Err(Failure::plain("there is no file to set aside")) };
        let aside = self.root.join(format!("views.db.unusable-{}", Uuid::now_v7()));
        for suffix in ["", "-wal", "-shm"] {
            let named = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            match std::fs::rename(named(&files.rows), named(&aside)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::of("cannot set the read models aside", &error)),
            }
        }
        Ok(aside)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.files.is_none() {
            // A scratch directory that stays behind is untidy, not wrong.
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.files.is_some() {
            write!(f, "data in {} (delete it to start over)", self.root.display())
        } else {
            f.write_str("data in memory only")
        }
    }
}
