//! The port to a read store: rows of views and the checkpoints they reflect, committed together or not at all. Methods
//! return boxed futures, so that stores of any kind stand behind one `dyn ReadStore`. **No future of a store may be
//! dropped before it ends**: run them in spawned tasks (DESIGN R3).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::log::WakerGuard;
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

    /// The rows that exist among these, and the checkpoints of the same state. A store that cannot tell both of one
    /// state is `Misused`.
    fn load_at(&self, _keys: Vec<RowKey>) -> StoreFuture<'_, RowsAt> {
        Box::pin(async { Err(StoreFault::Misused("it does not tell rows and checkpoints of one state".to_owned())) })
    }

    /// Counts how often other tables came into use, as far as this process knows. What was read before it rose may be
    /// of tables that are not in use any more: whoever keeps copies of rows forgets them then.
    fn generation(&self) -> i64 {
        0
    }

    /// Calls `waker` after [`generation`](Self::generation) rose, until the guard is dropped; `None` if it never does.
    /// The waker must be quick and must not call the store.
    fn on_switched(&self, _waker: Arc<dyn Fn() + Send + Sync>) -> Option<WakerGuard> {
        None
    }

    /// A handle for one who feeds the tables: it stays with those that are in use when it is opened, and is `Fenced`
    /// once others are. `None` if nothing else can come into use.
    fn feeder(&self) -> Option<Arc<dyn ReadStore>> {
        None
    }

    /// Whoever feeds the store says so when little is left to fold: the time for what is cheaper done once, at the end.
    /// May be said any number of times.
    fn caught_up(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// Rows of one state, and how far every partition was folded in it.
pub type RowsAt = (BTreeMap<RowKey, Row>, BTreeMap<Partition, Checkpoint>);

/// A store that can hold a second set of its tables beside the one in use, with checkpoints of its own.
pub trait SideBySide: ReadStore {
    /// What is in use and what is beside it.
    fn standing(&self) -> StoreFuture<'_, Standing>;

    /// Drops what is beside and makes an empty set there, bound to the same log.
    fn begin_beside(&self) -> StoreFuture<'_, Beside>;

    /// A handle on what is beside, to feed and to read; `Fenced` once it is something else.
    fn beside(&self, beside: Beside) -> Arc<dyn ReadStore>;

    /// Brings what is beside into use, in one transaction, if it reflects at least what the one in use does; that one is
    /// kept beside. Whoever fed either is fenced.
    fn switch(&self, beside: Beside) -> StoreFuture<'_, Switch>;

    /// Drops what is beside. False if there was nothing.
    fn discard_beside(&self) -> StoreFuture<'_, bool>;

    /// Replaces a row of the set in use if it still is as it `was`, and has everybody who feeds begin anew from what the
    /// store holds. The generation that they begin with; `None` if the row was another.
    fn amend(&self, key: RowKey, was: Row, becomes: Option<Row>) -> StoreFuture<'_, Option<i64>>;
}

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Rises whenever other tables come into use.
    pub generation: i64,
    /// What is beside those in use.
    pub beside: Option<Beside>,
}

/// What is beside the tables in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Where it comes from.
    pub origin: Origin,
    /// Tells it from all that was there before and will be there after.
    pub token: i64,
}

/// Where a second set of tables comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Folded anew from the log.
    Rebuilt,
    /// In use before the last switch.
    Kept,
}

/// What became of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Done: the generation now in use.
    Done(i64),
    /// Not done: of this partition the set in use reflects more, or what is beside is not ready to be read.
    Behind(Partition),
    /// Not done: something else is beside, or nothing.
    Gone,
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
