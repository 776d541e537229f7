//! The port to a read store: rows of views and the checkpoints they reflect, committed together or not at all. Methods
//! return boxed futures, so that stores of any kind stand behind one `dyn ReadStore`. **No future of a store may be
//! dropped before it ends**: run them in spawned tasks (DESIGN R3).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::position::{Checkpoint, LogId, Offset, Partition};
use crate::view::{Row, RowKey};

/// A boxed future of a store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreFault>> + Send + 'a>>;

/// A read store that holds one projection's tables.
pub trait ReadStore: Send + Sync + 'static {
    /// Binds the store to a log: a new store takes its id, one of another log refuses. Then the checkpoints, one for
    /// each partition that has one.
    fn open(&self, log: LogId) -> StoreFuture<'_, BTreeMap<Partition, Checkpoint>>;

    /// The rows that exist among these.
    fn load(&self, keys: Vec<RowKey>) -> StoreFuture<'_, BTreeMap<RowKey, Row>>;

    /// Writes rows and moves checkpoints in one transaction, if every checkpoint is still where the batch expects it;
    /// else nothing, and `Fenced`.
    fn commit(&self, batch: Batch) -> StoreFuture<'_, ()>;

    /// The same of a batch that its sender keeps, to send it again: a store that only looks at batches need not copy it.
    fn commit_shared(&self, batch: Arc<Batch>) -> StoreFuture<'_, ()> {
        self.commit(Arc::unwrap_or_clone(batch))
    }

    /// Finds rows.
    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(String, Row)>>;
}

/// What one commit changes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Rows and what they become; `None` removes. No key twice.
    pub rows: Vec<(RowKey, Option<Row>)>,
    /// How many of the rows, from the first on, are not there yet as far as is known. Only a hint that may make writing
    /// them cheaper: one that is there all the same is replaced like any other.
    pub new: usize,
    /// Checkpoints: where each must be now (`None`: not there yet), and where it goes.
    pub checkpoints: Vec<(Partition, Option<Checkpoint>, Checkpoint)>,
}

/// What a store that several nodes share tells of itself, for those who do not feed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Each partition's next offset in the store. It may go back: a database restored from a backup is older.
    pub next: BTreeMap<Partition, Offset>,
    /// Rises when rows of a table may have changed that the store was told to watch.
    pub watched: u64,
    /// Why nothing is known of the store at present.
    pub trouble: Option<String>,
}

/// A question to one table: rows that match all filters, in order of `(sort, key)`. In every dialect text compares by its
/// UTF-8 bytes and null sorts before everything else.
#[derive(Clone, Debug)]
pub struct Query {
    /// The table.
    pub table: &'static str,
    /// What must hold.
    pub filters: Vec<Filter>,
    /// The column to sort by before the key; `None` sorts by key alone.
    pub sort: Option<&'static str>,
    /// Largest first.
    pub descending: bool,
    /// Only rows after this place in the order: the sort column's value (null where `sort` is `None`) and the key.
    pub after: Option<(Value, String)>,
    /// At most this many.
    pub limit: u32,
}

/// What must hold of a column. `key` is a column too. Null is equal to null and neither at least nor below anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Equal.
    Is(&'static str, Value),
    /// One of these.
    OneOf(&'static str, Vec<Value>),
    /// At least.
    AtLeast(&'static str, Value),
    /// Less than.
    Below(&'static str, Value),
    /// Text that starts so, taken literally.
    StartsWith(&'static str, String),
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// Somebody else moved a checkpoint: this worker is not the one any more.
    #[error("another worker moved the checkpoint of partition {0}")]
    Fenced(Partition),
    /// The store belongs to another log.
    #[error("the read store belongs to log {found}, not to {expected}")]
    ForeignLog {
        /// What the store says.
        found: LogId,
        /// What was asked for.
        expected: LogId,
    },
    /// The store was written by a newer version of this program.
    #[error("the read store has format {found}; this program knows up to {known}")]
    TooNew {
        /// What the store says.
        found: i64,
        /// The newest this program knows.
        known: i64,
    },
    /// It does not answer, for a reason that may pass.
    #[error("the read store does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller asked for what its tables do not have, or wrote what does not fit them: a mistake in the program.
    #[error("the read store was misused: {0}")]
    Misused(String),
    /// What it holds cannot be right.
    #[error("the read store is damaged: {0}")]
    Damaged(String),
}
