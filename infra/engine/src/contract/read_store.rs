//! The promises of a read store. An adapter calls [`read_store`] with a way to make a fresh store that has [`TABLES`],
//! and a way to run a future to its end, so that this crate needs no runtime.
//!
//! What the port leaves open between dialects is settled here: text compares by its UTF-8 bytes; null sorts before
//! everything else, equals null in `Is`, and is neither at least nor below anything; `StartsWith` takes its text
//! literally.

mod committing;
mod listing;
mod paging;
mod tools;

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Case, run_all};
use crate::read_store::ReadStore;
use crate::view::{Column, ColumnKind, Table};

/// The tables that a fixture's store has.
pub const TABLES: &[Table] = &[
    Table {
        name: "kettles",
        columns: &[
            Column { name: "colour", kind: ColumnKind::Text },
            Column { name: "litres", kind: ColumnKind::Integer },
            Column { name: "boiled_at", kind: ColumnKind::Integer },
        ],
    },
    Table { name: "cups", columns: &[Column { name: "owner", kind: ColumnKind::Text }] },
    Table { name: "spoons", columns: &[] },
];

/// A fresh store to judge.
pub struct StoreFixture {
    /// The store, with [`TABLES`] and nothing in them, opened by nobody; the only handle to it.
    pub store: Arc<dyn ReadStore>,
    /// How to close it and make it again from what it kept, if it outlives being closed.
    pub reopen: Option<ReopenStore>,
    /// Whatever must live as long as the store: its directory.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Closes a store by dropping what it is given (the only handle to it) and makes it again.
pub type ReopenStore = Box<dyn Fn(Arc<dyn ReadStore>) -> CaseFuture<Arc<dyn ReadStore>> + Send + Sync>;

/// What a case does.
pub type CaseFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A promise of a read store.
pub type StoreCase = Case<fn(StoreFixture) -> CaseFuture<()>>;

/// Every promise of a read store.
pub fn store_cases() -> Vec<StoreCase> {
    [committing::cases(), listing::cases(), paging::cases()].concat()
}

/// Holds a read store to every promise; `make` makes a fresh one for each, `block_on` runs a future to its end.
///
/// # Panics
/// If a promise is broken, with the names of all that are.
pub fn read_store(make: impl Fn() -> StoreFixture, block_on: impl Fn(CaseFuture<()>)) {
    run_all(&store_cases(), |run| block_on(run(make())));
}

/// Cases named as their async functions are.
macro_rules! async_cases {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::contract::Case {
            name: stringify!($name),
            run: (|fixture| Box::pin($name(fixture))) as fn(StoreFixture) -> CaseFuture<()>,
        }),*]
    };
}
use async_cases;
