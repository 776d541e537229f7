//! How a store is opened, and what holds unless somebody says otherwise.

use std::time::Duration;

use crate::tables::Index;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The version of the views' folds. To be raised when a view makes other rows of the same events: older rows and
    /// checkpoints are then dropped, and a store of a higher version is refused.
    pub view_version: u32,
    /// Indexes of tables whose lists filter by one column and sort by another.
    pub indexes: &'static [Index],
    /// Connections that read at once, 1 or more.
    pub readers: u32,
    /// SQLite: pages the writing connection caches, in KiB; a reading one caches half as many.
    pub cache_kib: u32,
    /// SQLite: nobody else opens the file. If nothing has been folded into it yet, it is filled without a write-ahead log
    /// and without syncing, until it has caught up with the log; readers take turns with the writer until then. A process
    /// that dies meanwhile leaves a mark, and whoever opens the file next throws it away and begins again. If somebody has
    /// the file open all the same, it is written as always.
    pub alone: bool,
    /// How long an operation waits for its turn before it is `Unavailable`; in PostgreSQL 2 s at most for one that reads.
    pub wait_max: Duration,
    /// PostgreSQL: transactions that write at once, 1 or more; one more connection keeps leases.
    pub writers: u32,
    /// PostgreSQL: longest statement of an operation that reads. One and a half seconds later it ends in any case, should
    /// the server itself have stopped.
    pub read_max: Duration,
    /// PostgreSQL: longest statement of one that writes, and how long a transaction may lie idle.
    pub write_max: Duration,
    /// PostgreSQL: longest wait for a lock.
    pub lock_max: Duration,
    /// PostgreSQL: tables whose changes raise [`Progress::watched`](engine::read_store::Progress::watched).
    pub watched: &'static [&'static str],
    /// PostgreSQL: open even if the database does not answer, and be `Unavailable` until it does.
    pub wait_for_database: bool,
}

impl Default for Options {
    /// 4 readers: more than the cores of a small machine, so that a slow list does not hold up reads by key. 4 MiB: the
    /// inner pages of a million rows. 10 s: longer than any batch takes, shorter than a client waits. 4 writers:
    /// more gain nothing on most servers. 3 s for a read: who lists is still there. 15 s for a statement that writes five
    /// thousand rows, which takes a twentieth of a second where nothing is wrong; 5 s for a lock.
    fn default() -> Self {
        Self {
            view_version: 1,
            indexes: &[],
            readers: 4,
            cache_kib: 4 * 1024,
            alone: false,
            wait_max: Duration::from_secs(10),
            writers: 4,
            read_max: Duration::from_secs(3),
            write_max: Duration::from_secs(15),
            lock_max: Duration::from_secs(5),
            watched: &[],
            wait_for_database: false,
        }
    }
}
