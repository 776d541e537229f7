//! The suite that every read store passes: on a file, in memory and in PostgreSQL.

use std::sync::Arc;

use engine::contract::read_store::{CaseFuture, StoreFixture, TABLES, read_store};
use engine::read_store::ReadStore;
use engine_sql::{Options, SqlReadStore};
use tokio::runtime::Runtime;

use crate::kit::Place;

async fn open(url: String) -> Arc<dyn ReadStore> {
    Arc::new(SqlReadStore::open(&url, TABLES, Options::default()).await.unwrap())
}

#[test]
fn a_store_in_a_file_keeps_every_promise() {
    let runtime = Runtime::new().unwrap();
    let make = || {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("read.sqlite").display());
        let store = runtime.block_on(open(url.clone()));
        let reopen = move |store: Arc<dyn ReadStore>| -> CaseFuture<Arc<dyn ReadStore>> {
            drop(store);
            Box::pin(open(url.clone()))
        };
        StoreFixture { store, reopen: Some(Box::new(reopen)), keep: Box::new(directory) }
    };
    read_store(make, |case| runtime.block_on(case));
}

#[test]
fn a_store_in_memory_keeps_every_promise() {
    let runtime = Runtime::new().unwrap();
    let make = || {
        let store = runtime.block_on(open("sqlite::memory:".to_owned()));
        StoreFixture { store, reopen: None, keep: Box::new(()) }
    };
    read_store(make, |case| runtime.block_on(case));
}

#[test]
fn a_store_in_postgres_keeps_every_promise() {
    if Place::postgres().is_none() {
        return;
    }
    let runtime = Runtime::new().unwrap();
    let make = || {
        let url = Place::postgres().unwrap().url();
        let store = runtime.block_on(open(url.clone()));
        let reopen = move |store: Arc<dyn ReadStore>| -> CaseFuture<Arc<dyn ReadStore>> {
            drop(store);
            Box::pin(open(url.clone()))
        };
        StoreFixture { store, reopen: Some(Box::new(reopen)), keep: Box::new(()) }
    };
    read_store(make, |case| runtime.block_on(case));
}
