//! The read store on SQL: rows of views and the checkpoints they reflect, in SQLite for one node, in PostgreSQL for
//! many. What is to
//! be done is written once (`work`, `list`, `tables`); how a database says it lies in `dialect`, how it is
//! reached in `connection`.
//!
//! In PostgreSQL several nodes feed one store. Who feeds which partition is agreed by leases in the database (`share`),
//! which are only a hint; what protects the rows is that a batch counts only from the checkpoint that it expects.
//!
//! Everything in a read store is a fold of the log. So its tables are not migrated: when their specification changes
//! they are dropped together with the checkpoints, and the projection fills them again from the start of the log. For
//! the same reason a commit need not reach the disk before it is answered: after a power cut rows and checkpoints are
//! older *together*.

mod connection;
mod dialect;
mod list;
mod sets;
mod share;
mod store;
mod tables;
mod work;

pub use share::{ShareOptions, Shared};
pub use store::{Options, Snapshot, SqlReadStore};
pub use tables::Index;
