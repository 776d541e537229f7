//! The read store on SQL: rows of views and the checkpoints they reflect, in SQLite now and in Postgres next. What is to
//! be done is written once (`work`, `list`, `tables`); how a database says it lies in `dialect`, how it is
//! reached in `connection`.
//!
//! Everything in a read store is a fold of the log. So its tables are not migrated: when their specification changes
//! they are dropped together with the checkpoints, and the projection fills them again from the start of the log. For
//! the same reason a commit need not reach the disk before it is answered: after a power cut rows and checkpoints are
//! older *together*.

mod connection;
mod dialect;
mod list;
mod store;
mod tables;
mod work;

pub use store::{Options, Snapshot, SqlReadStore};
pub use tables::Index;
