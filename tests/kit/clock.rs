//! A wall clock that a test can set ahead for one process, by way of libfaketime (Debian: `faketime`). Only the time of day
//! moves, as it does when somebody sets a machine's clock; what measures how long something takes goes on as it was. Where
//! the library is missing the clock is the machine's, and a test has to wait as long as a user would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use xtask::set_up::faketime;

/// A process's wall clock.
#[derive(Debug)]
pub struct Clock {
    /// The library, and the folder with the file that it reads the time's offset from; `None` is the machine's clock.
    faked: Option<(&'static Path, TempDir)>,
}

impl Clock {
    /// A clock that tells the machine's time so far.
    ///
    /// # Panics
    /// When no scratch file can be written.
    pub fn new() -> Self {
        let faked =
            faketime().map(|library| (library, TempDir::with_prefix("docket-clock-").expect("a scratch folder")));
        let clock = Self { faked };
        clock.set_ahead(Duration::ZERO);
        clock
    }

    /// Whether it can be set.
    pub fn can_be_set(&self) -> bool {
        self.faked.is_some()
    }

    /// Sets it so much ahead of the machine's, from the next look at it on. Nothing happens to the machine's own.
    ///
    /// # Panics
    /// When the scratch file cannot be written.
    pub fn set_ahead(&self, by: Duration) {
        let Some((_, folder)) = &self.faked else { return };
        // Renamed into place: nobody reads half of it.
        let new = folder.path().join("new");
        std::fs::write(&new, format!("+{}s", by.as_secs())).expect("a scratch file");
        std::fs::rename(new, folder.path().join("ahead")).expect("a scratch file");
    }

    /// What a process needs in its environment to go by this clock.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let Some((library, folder)) = &self.faked else { return Vec::new() };
        vec![
            ("LD_PRELOAD", library.to_path_buf()),
            ("FAKETIME_TIMESTAMP_FILE", folder.path().join("ahead")),
            // Looked at every time, not every ten seconds.
            ("FAKETIME_NO_CACHE", "1".into()),
            // Both names: the library's versions differ.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
