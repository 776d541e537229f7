//! A file that one process fills from nothing: quick and unsafe until it has caught up, and marked so that nobody takes
//! what a process left half-way for rows.

use std::path::{Path, PathBuf};

use engine::read_store::{ReadStore, StoreFault};
use engine_sql::{Options, SqlReadStore};

use crate::kit::*;

fn alone() -> Options {
    // One reader, which would be one too many as long as the file is filled.
    Options { alone: true, readers: 1, ..Options::default() }
}

/// What is beside the file: its write-ahead log, its mark.
fn beside(path: &Path) -> [bool; 2] {
    ["-wal", "-filling"].map(|suffix| PathBuf::from(format!("{}{suffix}", path.display())).exists())
}

async fn filling(place: &Place) -> SqlReadStore {
    let store = place.store(ORDERS, alone()).await.unwrap();
    assert!(store.open(LOG).await.unwrap().is_empty());
    store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    store
}

#[tokio::test]
async fn a_new_file_is_filled_without_a_write_ahead_log_and_written_as_always_once_it_has_caught_up() {
    let place = Place::new();
    let store = filling(&place).await;
    assert_eq!(beside(&place.path()), [false, true]);
    // A batch that fails leaves nothing, and readers see only what is committed.
    let wrong = store.commit(batch([("b", Some(order("open", 1)))], Some(checkpoint(7)), checkpoint(8))).await;
    assert!(matches!(wrong, Err(StoreFault::Fenced(P0))), "{wrong:?}");
    let found = store.load_with_checkpoints(vec![key("a"), key("b")]).await.unwrap();
    assert_eq!((found.found.len(), found.checkpoints), (1, [(P0, checkpoint(1))].into()));
    assert_eq!(beside(&place.path()), [false, true], "who reads has no connection of his own yet");

    store.feeder().unwrap().caught_up().await.unwrap();
    store.commit(batch([("b", Some(order("open", 1)))], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
    assert_eq!(beside(&place.path()), [true, false]);
    assert_eq!(load(&store, ["a", "b"]).await.len(), 2);
    store.close().await;

    // What has been filled once is not filled again.
    let store = place.store(ORDERS, alone()).await.unwrap();
    assert_eq!(beside(&place.path()), [true, false]);
    assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(2))].into());
}

#[tokio::test]
async fn a_file_that_a_process_left_unfinished_is_thrown_away_and_one_that_was_closed_is_gone_on_with() {
    let (place, killed) = (Place::new(), Place::new());
    let store = filling(&place).await;
    // As a kill would leave it.
    for suffix in ["", "-filling"] {
        let [from, to] = [&place, &killed].map(|place| format!("{}{suffix}", place.path().display()));
        std::fs::copy(from, to).unwrap();
    }
    for options in [Options::default(), alone()] {
        let again = killed.store(ORDERS, options).await.unwrap();
        assert!(again.open(OTHER_LOG).await.unwrap().is_empty());
        again.close().await;
    }
    assert_eq!(beside(&killed.path()), [false, false]);

    store.close().await;
    assert_eq!(beside(&place.path()), [false, false]);
    assert_eq!(place.open().await.open(LOG).await.unwrap(), [(P0, checkpoint(1))].into());
}

#[tokio::test]
async fn a_file_that_somebody_is_filling_is_nobody_elses() {
    let place = Place::new();
    let store = filling(&place).await;
    for options in [Options::default(), alone()] {
        let other = place.store(ORDERS, options).await;
        assert!(matches!(other, Err(StoreFault::Unavailable(_))), "{other:?}");
    }
    store.commit(batch([("b", Some(order("open", 1)))], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
    store.feeder().unwrap().caught_up().await.unwrap();
    let other = place.store(ORDERS, alone()).await.unwrap();
    assert_eq!(load(&other, ["a", "b"]).await.len(), 2);
}

#[tokio::test]
async fn rows_that_a_new_specification_drops_are_filled_in_the_same_way() {
    let place = Place::new();
    let store = place.open().await;
    store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    store.close().await;
    let store = place.store(ORDERS, Options { view_version: 2, ..alone() }).await.unwrap();
    assert_eq!(beside(&place.path()), [false, true]);
    assert!(store.open(LOG).await.unwrap().is_empty());
    store.commit(batch([("b", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    store.caught_up().await.unwrap();
    assert_eq!(keys(&store.list(all()).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn a_file_that_somebody_has_open_all_the_same_is_filled_as_it_is_always_written() {
    let place = Place::new();
    let first = place.store(ORDERS, Options::default()).await.unwrap();
    let store = filling(&place).await;
    assert_eq!(beside(&place.path()), [true, false]);
    assert_eq!(load(&first, ["a"]).await.len(), 1);
    store.caught_up().await.unwrap();
    store.commit(batch([("b", Some(order("open", 1)))], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
    assert_eq!(load(&first, ["a", "b"]).await.len(), 2);
}
