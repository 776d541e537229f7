//! What the SQL read store promises beyond the suite that all read stores pass: restarts, two workers on one file,
//! rebuilds, damage, callers that go away, and that nothing in a key or document is special.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod copying;
mod filling;
mod kit;
mod postgres;
mod rebuilding;
mod sharing;
mod shop;
mod suite;

use engine::position::{Offset, Partition};
use engine::read_store::{Batch, Filter, Query, ReadStore, StoreFault};
use engine::view::{Column, ColumnKind, Row, RowKey, Table};
use engine_sql::{Index, Options, SqlReadStore};
use kit::*;
use serde_json::{Value, json};

#[tokio::test]
async fn a_restart_finds_rows_and_checkpoints() {
    for place in Place::each() {
        let store = place.open().await;
        store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(7))).await.unwrap();
        store.close().await;

        let store = place.store(ORDERS, Options::default()).await.unwrap();
        assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(7))].into());
        assert_eq!(load(&store, ["a", "b"]).await, [("a".to_owned(), order("open", 1))]);
    }
}

#[tokio::test]
async fn of_two_workers_on_one_store_one_is_fenced() {
    for place in Place::each() {
        let (one, other) = (place.open().await, place.open().await);
        one.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();

        let late = other
            .commit(batch([("a", Some(order("late", 1))), ("b", Some(order("late", 1)))], None, checkpoint(1)))
            .await;
        assert!(matches!(late, Err(StoreFault::Fenced(P0))), "{late:?}");
        assert_eq!(load(&other, ["a", "b"]).await, [("a".to_owned(), order("open", 1))]);

        // It is fenced, not broken.
        other.commit(batch([("b", Some(order("open", 2)))], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
        let late = one.commit(batch([], Some(checkpoint(1)), checkpoint(2))).await;
        assert!(matches!(late, Err(StoreFault::Fenced(P0))), "{late:?}");
    }
}

#[tokio::test]
async fn every_part_of_a_checkpoint_fences() {
    for place in Place::each() {
        let store = place.open().await;
        let here = checkpoint(5);
        store.commit(batch([], None, here)).await.unwrap();
        let mut others = [here; 5];
        others[0].next_offset.0 += 1;
        others[1].epoch.0 += 1;
        others[2].nonce.0 ^= 1 << 63;
        others[3].next_seq.0 += 1;
        others[4].open = !here.open;
        for other in others {
            let wrong = store.commit(batch([], Some(other), checkpoint(6))).await;
            assert!(matches!(wrong, Err(StoreFault::Fenced(P0))), "{other:?}: {wrong:?}");
        }
        store.commit(batch([], Some(here), checkpoint(6))).await.unwrap();
    }
}

#[tokio::test]
async fn one_fenced_partition_holds_back_all() {
    for place in Place::each() {
        let store = place.open().await;
        let mut both = batch([("a", Some(order("open", 1)))], None, checkpoint(1));
        both.checkpoints.push((Partition(9), Some(checkpoint(3)), checkpoint(4)));
        assert!(matches!(store.commit(both).await, Err(StoreFault::Fenced(Partition(9)))));
        assert_eq!(load(&store, ["a"]).await, []);
        assert!(store.open(LOG).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_store_of_another_log_is_refused() {
    for place in Place::each() {
        drop(place.open().await);
        let store = place.store(ORDERS, Options::default()).await.unwrap();
        let refused = store.open(OTHER_LOG).await;
        assert!(matches!(refused, Err(StoreFault::ForeignLog { found: LOG, expected: OTHER_LOG })), "{refused:?}");
    }
}

#[tokio::test]
async fn nothing_in_a_key_a_column_or_a_document_is_special() {
    for place in Place::each() {
        let store = place.open().await;
        let strange = [
            "",
            "'",
            "\"",
            "\\",
            "%_*?",
            "a\0b",
            "\0",
            "\u{1}\n\r\t",
            "é",
            "e\u{301}",
            "日本語",
            "\u{10FFFF}",
            "\u{FEFF}x",
            "'; DROP TABLE orders; --",
            "\\u0000",
            "null",
            "[1]",
            "1",
            " ",
            "\u{2028}",
            "🦀🦀",
            "$1",
            "?1",
            "{\"a\":1}",
        ];
        let rows = strange.iter().map(|text| {
        let doc =
            json!({ (*text): [text, { "nested": text, "n": [0, -1, 1.5, 1e300, u64::MAX, i64::MIN, true, null] }] });
        (*text, Row { version: 1, doc: doc.into(), columns: vec![json!(text), Value::Null, json!(i64::MIN)] })
    });
        let rows = rows.collect::<Vec<_>>();
        let write = rows.iter().map(|(key, row)| (*key, Some(row.clone()))).collect::<Vec<_>>();
        store.commit(batch(write.clone(), None, checkpoint(1))).await.unwrap();
        store.commit(batch(write, Some(checkpoint(1)), checkpoint(2))).await.unwrap();
        let mut expected = rows.iter().map(|(key, row)| ((*key).to_owned(), row.clone())).collect::<Vec<_>>();
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(load(&store, strange).await, expected);
        assert_eq!(store.list(all()).await.unwrap(), expected);
        for text in strange {
            for filter in [
                Filter::Is("status", json!(text)),
                Filter::Is("key", json!(text)),
                Filter::OneOf("status", vec![json!(text), json!("missing")]),
            ] {
                let found = store.list(Query { filters: vec![filter.clone()], ..all() }).await.unwrap();
                assert_eq!(keys(&found), [text], "{filter:?}");
            }
            let filters = vec![Filter::StartsWith("status", text.to_owned())];
            let found = store.list(Query { filters, ..all() }).await.unwrap();
            let expected = expected.iter().map(|(key, _)| key).filter(|key| key.starts_with(text)).collect::<Vec<_>>();
            assert_eq!(keys(&found), expected, "{text:?}");
        }
        store.commit(batch(strange.map(|key| (key, None)), Some(checkpoint(2)), checkpoint(3))).await.unwrap();
        assert_eq!(store.list(all()).await.unwrap(), []);
    }
}

#[tokio::test]
async fn documents_may_be_any_json() {
    for place in Place::each() {
        let store = place.open().await;
        for (offset, doc) in
            [json!(null), json!("text"), json!(1.25), json!([]), json!({}), json!(true)].into_iter().enumerate()
        {
            let row = Row { doc: doc.into(), ..order("open", 1) };
            let was = (offset > 0).then(|| checkpoint(offset as u64));
            store.commit(batch([("a", Some(row.clone()))], was, checkpoint(offset as u64 + 1))).await.unwrap();
            assert_eq!(load(&store, ["a"]).await, [("a".to_owned(), row)]);
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_join_to_the_whole() {
    for place in Place::each() {
        let store = place.open().await;
        let values = [Value::Null, json!(-5), json!(0), json!(i64::MAX), json!(i64::MIN)];
        let rows = (0..40_usize).map(|n| {
            let columns = vec![json!(["open", "paid"][n % 2]), json!(format!("c{}", n % 3)), values[n % 5].clone()];
            (format!("k{:02}", n * 7 % 40), Row { version: 1, doc: json!(n).into(), columns })
        });
        let rows = rows.collect::<Vec<_>>();
        store
            .commit(batch(rows.iter().map(|(key, row)| (key.as_str(), Some(row.clone()))), None, checkpoint(1)))
            .await
            .unwrap();
        for sort in [None, Some("key"), Some("placed_at"), Some("customer")] {
            for descending in [false, true] {
                let filters = vec![Filter::Is("status", json!("open"))];
                let column = |row: &Row| match sort {
                    Some("placed_at") => row.columns[2].clone(),
                    Some("customer") => row.columns[1].clone(),
                    _ => Value::Null,
                };
                let mut expected = rows.iter().filter(|(_, row)| row.columns[0] == "open").cloned().collect::<Vec<_>>();
                expected.sort_by_key(|(key, row)| {
                    let value = column(row);
                    (value.as_i64(), value.as_str().map(str::to_owned), key.clone())
                });
                if descending {
                    expected.reverse();
                }
                for limit in [1, 3, 50] {
                    let mut found = Vec::new();
                    let mut after = None;
                    loop {
                        let query = Query { filters: filters.clone(), sort, descending, after, limit, ..all() };
                        let page = store.list(query).await.unwrap();
                        let Some((key, row)) = page.last() else { break };
                        after = Some((column(row), key.clone()));
                        found.extend(page);
                    }
                    assert_eq!(found, expected, "{sort:?} {descending} {limit}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_the_tables_do_not_have_is_misuse() {
    for place in Place::each() {
        let store = place.open().await;
        let queries = [
            Query { table: "nothing", ..all() },
            Query { sort: Some("doc\"; --"), ..all() },
            Query { filters: vec![Filter::Is("nothing", json!(1))], ..all() },
            Query { filters: vec![Filter::Is("status", json!(1))], ..all() },
            Query { filters: vec![Filter::StartsWith("placed_at", "1".to_owned())], ..all() },
        ];
        for query in queries {
            let found = store.list(query.clone()).await;
            assert!(matches!(found, Err(StoreFault::Misused(_))), "{query:?}: {found:?}");
        }
        let wrong = [
            Row { columns: vec![json!("open")], ..order("open", 1) },
            Row { columns: vec![json!(1), Value::Null, Value::Null], ..order("open", 1) },
            Row { columns: vec![Value::Null, Value::Null, json!(1.5)], ..order("open", 1) },
            Row { columns: vec![Value::Null, Value::Null, json!(u64::MAX)], ..order("open", 1) },
            Row { version: u64::MAX, ..order("open", 1) },
        ];
        for row in wrong {
            let done = store
                .commit(batch([("good", Some(order("open", 1))), ("wrong", Some(row.clone()))], None, checkpoint(1)))
                .await;
            assert!(matches!(done, Err(StoreFault::Misused(_))), "{row:?}: {done:?}");
        }
        assert!(store.open(LOG).await.unwrap().is_empty());
        assert_eq!(store.list(all()).await.unwrap(), []);
    }
}

#[tokio::test]
async fn names_that_cannot_stand_in_a_statement_are_refused() {
    for name in ["", "Orders", "o\"", "meta", "checkpoints", "sqlite_x", "1a", "a b"] {
        let tables = vec![Table { name, columns: &[] }];
        let opened = SqlReadStore::open("sqlite::memory:", &tables, Options::default()).await;
        assert!(matches!(opened, Err(StoreFault::Misused(_))), "{name:?}");
    }
}

#[tokio::test]
async fn changed_tables_are_emptied_with_their_checkpoints() {
    const WIDER: &[Table] = &[Table {
        name: "orders",
        columns: &[
            Column { name: "status", kind: ColumnKind::Text },
            Column { name: "total", kind: ColumnKind::Integer },
        ],
    }];
    const INDEXES: &[Index] = &[Index { table: "orders", columns: &["status", "placed_at"] }];
    let indexed = Options { indexes: INDEXES, readers: 1, ..Options::default() };
    let newer = Options { view_version: 2, ..Options::default() };
    for (tables, options) in [(WIDER, Options::default()), (ORDERS, newer), (ORDERS, indexed)] {
        for place in Place::each() {
            let old = place.open().await;
            old.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();

            let new = place.store(tables, options.clone()).await.unwrap();
            assert!(new.open(LOG).await.unwrap().is_empty());
            assert_eq!(new.list(all()).await.unwrap(), []);
            assert!(new.open(OTHER_LOG).await.is_err(), "it stays its log's");

            // A worker that outlived the change folds for tables that are gone.
            let late = old.commit(batch([("b", Some(order("open", 1)))], None, checkpoint(1))).await;
            assert!(matches!(late, Err(StoreFault::Fenced(P0))), "{late:?}");
        }
    }
}

#[tokio::test]
async fn a_store_of_newer_views_or_of_a_newer_program_is_refused() {
    for place in Place::each() {
        place.store(ORDERS, Options { view_version: 3, ..Options::default() }).await.unwrap().close().await;
        let older = place.store(ORDERS, Options { view_version: 2, ..Options::default() }).await;
        assert!(matches!(older, Err(StoreFault::TooNew { found: 3, known: 2 })), "{older:?}");

        place.alter(place.far_too_new()).await;
        let older = place.store(ORDERS, Options { view_version: 3, ..Options::default() }).await;
        assert!(matches!(older, Err(StoreFault::TooNew { found: 99, known: 2 })), "{older:?}");
    }
}

#[tokio::test]
async fn a_missing_table_takes_the_checkpoints_with_it() {
    for place in Place::each() {
        let store = place.open().await;
        store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
        store.close().await;
        place.alter("DROP TABLE orders").await;
        assert!(place.open().await.open(LOG).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_lost_file_is_a_new_store() {
    let place = Place::new();
    let store = place.open().await;
    store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    // The write-ahead log stays, as after a kill.
    std::fs::remove_file(place.path()).unwrap();
    let new = place.store(ORDERS, Options::default()).await.unwrap();
    assert!(new.open(OTHER_LOG).await.unwrap().is_empty());
    assert_eq!(new.list(all()).await.unwrap(), []);
}

#[tokio::test]
async fn a_damaged_file_says_so_and_what_to_do() {
    let place = Place::new();
    let store = place.open().await;
    let rows = (0..2_000).map(|n| (format!("key-{n}"), order("open", n))).collect::<Vec<_>>();
    store
        .commit(batch(rows.iter().map(|(key, row)| (key.as_str(), Some(row.clone()))), None, checkpoint(1)))
        .await
        .unwrap();
    store.close().await;
    let whole = std::fs::read(place.path()).unwrap();

    // Every page but the first few, which say what is in the file: it opens, and is found damaged when it is read.
    let mut torn = whole.clone();
    torn[32 * 1024..].fill(0x5a);
    std::fs::write(place.path(), torn).unwrap();
    let found = match place.store(ORDERS, Options::default()).await {
        Ok(store) => store.list(all()).await.map(|_| ()),
        Err(fault) => Err(fault),
    };
    let Err(StoreFault::Damaged(why)) = found else { panic!("{found:?}") };
    assert!(why.contains("read.sqlite") && why.contains("can be deleted"), "{why}");

    std::fs::write(place.path(), b"This is no database at all, but it is long enough to look like one.".repeat(99))
        .unwrap();
    let found = place.store(ORDERS, Options::default()).await;
    assert!(matches!(found, Err(StoreFault::Damaged(_))), "{found:?}");
}

#[tokio::test]
async fn a_database_of_another_program_is_left_alone() {
    for place in Place::each() {
        place.alter("CREATE TABLE theirs (a integer)").await;
        let found = place.store(ORDERS, Options::default()).await;
        assert!(matches!(found, Err(StoreFault::Damaged(_))), "{found:?}");
    }
}

#[tokio::test]
async fn rows_and_checkpoints_are_read_in_one_state() {
    for place in Place::each() {
        let store = std::sync::Arc::new(place.open().await);
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            let mut was = None;
            for n in 1..=300 {
                writer.commit(batch([("a", Some(order("open", n)))], was, checkpoint(n))).await.unwrap();
                was = Some(checkpoint(n));
            }
        });
        let mut seen = 0;
        while seen < 300 {
            let snapshot = store.load_with_checkpoints(vec![key("a")]).await.unwrap();
            let offset = snapshot.checkpoints.get(&P0).map_or(0, |checkpoint| checkpoint.next_offset.0);
            assert_eq!(snapshot.found.get(&key("a")).map_or(0, |row| row.version), offset);
            let listed = store.list_with_checkpoints(all()).await.unwrap();
            let later = listed.checkpoints.get(&P0).map_or(0, |checkpoint| checkpoint.next_offset.0);
            assert_eq!(listed.found.first().map_or(0, |(_, row)| row.version), later);
            assert!(seen <= offset && offset <= later);
            seen = later;
        }
        writing.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_nothing_half_done() {
    let places = Place::each().into_iter().map(Some);
    for place in places.chain([None]) {
        let store = match &place {
            Some(place) => place.open().await,
            None => memory(ORDERS).await,
        };
        let mut at = None;
        let mut landed = 0;
        for n in 1..=500_u64 {
            // Every batch writes all ten rows alike: a mixture would be half a batch.
            let rows = (0..10).map(|k| (format!("k{k}"), order("storm", n))).collect::<Vec<_>>();
            let rows = rows.iter().map(|(key, row)| (key.as_str(), Some(row.clone())));
            let polls = n * 7_919 % 5;
            let commit = dropped_after(polls, store.commit(batch(rows, at, checkpoint(n))));
            let load = dropped_after(n % 3, store.load_with_checkpoints(vec![key("k0"), key("k1")]));
            let list = dropped_after(n % 4, store.list(all()));
            tokio::join!(commit, load, list);

            let state = store.list_with_checkpoints(all()).await.unwrap();
            let now = state.checkpoints.get(&P0).copied();
            let version = now.map_or(0, |checkpoint| checkpoint.next_offset.0);
            assert!(state.found.iter().all(|(_, row)| row.version == version), "half a batch at {n}");
            assert_eq!(state.found.len(), if version == 0 { 0 } else { 10 });
            // A commit whose caller left may land after this look; then the next one is fenced, and this is its proof.
            landed += u64::from(now != at);
            at = now;
        }
        assert!(landed > 0, "no commit landed: the storm was none");
        // What is still under way may land first: then this one is fenced, and made again on top of it.
        let mut fenced = 0;
        loop {
            let at = store.open(LOG).await.unwrap().get(&P0).copied();
            match store.commit(batch([("after", Some(order("calm", 1)))], at, checkpoint(1_000))).await {
                Err(StoreFault::Fenced(_)) if fenced < 500 => fenced += 1,
                done => break done.unwrap(),
            }
        }
        assert_eq!(load(&store, ["after"]).await.len(), 1);
        assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(1_000))].into());
    }
}

#[tokio::test]
async fn in_memory_everything_is_gone_with_the_store() {
    let store = memory(ORDERS).await;
    store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    let other = memory(ORDERS).await;
    assert_eq!(other.list(all()).await.unwrap(), []);
    assert_eq!(load(&store, ["a"]).await.len(), 1);
}

#[tokio::test]
async fn a_batch_larger_than_a_statement_is_still_one_batch() {
    for place in Place::each() {
        let store = place.open().await;
        let rows = (0..10_000).map(|n| (format!("key-{n:05}"), order("open", n))).collect::<Vec<_>>();
        let writes = rows.iter().map(|(key, row)| (key.as_str(), Some(row.clone())));
        store.commit(batch(writes, None, checkpoint(1))).await.unwrap();
        assert_eq!(load(&store, rows.iter().map(|(key, _)| key.as_str())).await, rows);
        let deletes = rows.iter().skip(1).map(|(key, _)| (key.as_str(), None));
        store.commit(batch(deletes, Some(checkpoint(1)), checkpoint(2))).await.unwrap();
        assert_eq!(keys(&store.list(all()).await.unwrap()), ["key-00000"]);
    }
}

#[tokio::test]
async fn a_path_is_taken_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["plain", "a b", "ü?mode=memory", "100%25", "x#y"] {
        let path = directory.path().join(name);
        let url = format!("sqlite:{}", path.display());
        SqlReadStore::open(&url, ORDERS, Options::default()).await.unwrap().close().await;
        assert!(path.is_file(), "{name}");
    }
    let missing = directory.path().join("no/such/directory");
    let opened = SqlReadStore::open(&missing.display().to_string(), ORDERS, Options::default()).await;
    assert!(matches!(opened, Err(StoreFault::Unavailable(_))), "{opened:?}");
}

#[tokio::test]
async fn an_empty_batch_and_an_empty_load_are_nothing() {
    for place in Place::each() {
        let store = place.open().await;
        store.commit(Batch::default()).await.unwrap();
        assert!(store.load(vec![]).await.unwrap().is_empty());
        assert!(store.load(vec![RowKey { table: "nothing", key: String::new() }]).await.is_err());
        assert_eq!(Offset(0), checkpoint(0).next_offset);
    }
}
