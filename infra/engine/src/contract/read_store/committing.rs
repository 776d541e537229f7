//! Whose the store is; rows and checkpoints, together or not at all.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::tools::{LOG, checkpoint, everything, kettle, kettle_key};
use super::{CaseFuture, StoreCase, StoreFixture, async_cases};
use crate::position::{Checkpoint, Epoch, LogId, Nonce, Offset, Partition, Seq};
use crate::read_store::{Batch, StoreFault};
use crate::view::{Row, RowKey};

pub(super) fn cases() -> Vec<StoreCase> {
    async_cases![
        a_new_store_has_no_checkpoints,
        a_store_stays_with_its_log,
        a_store_of_another_log_is_refused,
        a_refused_log_changes_nothing,
        what_is_committed_can_be_loaded,
        only_the_rows_asked_for_are_loaded,
        rows_that_are_not_there_are_not_loaded,
        loading_nothing_gives_nothing,
        loading_a_row_twice_gives_it_once,
        many_rows_load_at_once,
        a_row_is_replaced_whole,
        a_row_can_be_removed,
        removing_what_is_not_there_is_no_fault,
        a_removed_row_can_come_back,
        tables_do_not_share_keys,
        a_table_without_columns_keeps_rows,
        null_columns_come_back_null,
        large_numbers_come_back_exactly,
        documents_come_back_as_they_went,
        keys_may_hold_anything,
        columns_may_hold_any_text,
        large_documents_come_back,
        an_empty_batch_is_taken,
        checkpoints_come_back_when_opened,
        every_part_of_a_checkpoint_comes_back,
        checkpoints_move_from_where_they_are,
        rows_and_checkpoints_are_committed_together,
        a_checkpoint_that_is_elsewhere_fences,
        a_checkpoint_that_is_there_already_fences,
        a_checkpoint_that_is_missing_fences,
        every_part_of_the_expected_checkpoint_counts,
        a_fenced_commit_writes_nothing,
        one_fenced_partition_stops_the_others,
        partitions_have_checkpoints_of_their_own,
        a_thousand_rows_are_committed_at_once,
        reopening_keeps_rows_and_checkpoints,
        reopening_keeps_the_log,
    ]
}

async fn a_new_store_has_no_checkpoints(fixture: StoreFixture) {
    assert_eq!(fixture.open().await, BTreeMap::new());
}

async fn a_store_stays_with_its_log(fixture: StoreFixture) {
    fixture.open().await;
    fixture.open().await;
}

async fn a_store_of_another_log_is_refused(fixture: StoreFixture) {
    fixture.open().await;
    let other = LogId(Uuid::from_u128(0xbad));
    match fixture.store.open(other).await {
        Err(StoreFault::ForeignLog { found, expected }) => assert_eq!((found, expected), (LOG, other)),
        other => panic!("another log's store was opened: {other:?}"),
    }
}

async fn a_refused_log_changes_nothing(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    fixture.advance(0, None, 5).await.expect("the checkpoint moves");
    assert!(fixture.store.open(LogId(Uuid::from_u128(0xbad))).await.is_err());
    assert_eq!(fixture.open().await, BTreeMap::from([(Partition(0), checkpoint(5))]));
    assert_eq!(fixture.kettle("a").await, Some(kettle("red", 1, 2)));
}

async fn what_is_committed_can_be_loaded(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    assert_eq!(fixture.kettle("a").await, Some(kettle("red", 1, 2)));
}

async fn only_the_rows_asked_for_are_loaded(fixture: StoreFixture) {
    let rows = ["a", "b", "c"].map(|key| (key, kettle("red", 1, 2)));
    let fixture = fixture.holding(&rows).await;
    let keys = vec![kettle_key("c"), kettle_key("a")];
    let found = fixture.store.load(keys.clone()).await.expect("rows load");
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [kettle_key("a"), kettle_key("c")]);
}

async fn rows_that_are_not_there_are_not_loaded(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    let found = fixture.store.load(vec![kettle_key("a"), kettle_key("b")]).await.expect("rows load");
    assert_eq!(found, BTreeMap::from([(kettle_key("a"), kettle("red", 1, 2))]));
}

async fn loading_nothing_gives_nothing(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    assert_eq!(fixture.store.load(Vec::new()).await.expect("rows load"), BTreeMap::new());
}

async fn loading_a_row_twice_gives_it_once(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    let found = fixture.store.load(vec![kettle_key("a"), kettle_key("a")]).await.expect("rows load");
    assert_eq!(found.len(), 1);
}

async fn many_rows_load_at_once(fixture: StoreFixture) {
    fixture.open().await;
    let keys = (0..3_000).map(|number| kettle_key(&format!("k{number:04}"))).collect::<Vec<_>>();
    fixture.write(keys.iter().step_by(2).map(|key| (key.clone(), Some(kettle("red", 1, 2)))).collect()).await;
    let found = fixture.store.load(keys.clone()).await.expect("rows load");
    assert_eq!(found.into_keys().collect::<Vec<_>>(), keys.into_iter().step_by(2).collect::<Vec<_>>());
}

async fn a_row_is_replaced_whole(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    let newer =
        Row { version: 2, doc: json!({ "only": "this" }).into(), columns: vec![Value::Null, json!(7), Value::Null] };
    fixture.put(&[("a", newer.clone())]).await;
    assert_eq!(fixture.kettle("a").await, Some(newer));
    assert_eq!(fixture.keys(everything("kettles")).await, ["a"]);
}

async fn a_row_can_be_removed(fixture: StoreFixture) {
    let rows = ["a", "b"].map(|key| (key, kettle("red", 1, 2)));
    let fixture = fixture.holding(&rows).await;
    fixture.write(vec![(kettle_key("a"), None)]).await;
    assert_eq!(fixture.kettle("a").await, None);
    assert_eq!(fixture.keys(everything("kettles")).await, ["b"]);
}

async fn removing_what_is_not_there_is_no_fault(fixture: StoreFixture) {
    fixture.open().await;
    fixture.write(vec![(kettle_key("a"), None)]).await;
    assert_eq!(fixture.kettle("a").await, None);
}

async fn a_removed_row_can_come_back(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    fixture.write(vec![(kettle_key("a"), None)]).await;
    fixture.put(&[("a", kettle("blue", 3, 4))]).await;
    assert_eq!(fixture.kettle("a").await, Some(kettle("blue", 3, 4)));
}

fn cup_key(key: &str) -> RowKey {
    RowKey { table: "cups", key: key.to_owned() }
}

async fn tables_do_not_share_keys(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2))]).await;
    let cup = Row { version: 9, doc: json!("cup").into(), columns: vec![json!("ann")] };
    fixture.write(vec![(cup_key("a"), Some(cup.clone()))]).await;
    let found = fixture.store.load(vec![cup_key("a"), kettle_key("a")]).await.expect("rows load");
    assert_eq!(found, BTreeMap::from([(cup_key("a"), cup), (kettle_key("a"), kettle("red", 1, 2))]));
    fixture.write(vec![(kettle_key("a"), None)]).await;
    assert_eq!(fixture.keys(everything("cups")).await, ["a"]);
    assert_eq!(fixture.keys(everything("kettles")).await, Vec::<String>::new());
}

async fn a_table_without_columns_keeps_rows(fixture: StoreFixture) {
    fixture.open().await;
    let key = RowKey { table: "spoons", key: "a".to_owned() };
    let row = Row { version: 1, doc: json!(1).into(), columns: vec![] };
    fixture.write(vec![(key.clone(), Some(row.clone()))]).await;
    let found = fixture.store.load(vec![key.clone()]).await.expect("rows load");
    assert_eq!(found.get(&key), Some(&row));
    assert_eq!(fixture.list(everything("spoons")).await, [("a".to_owned(), row)]);
}

async fn null_columns_come_back_null(fixture: StoreFixture) {
    let rows = [("a", kettle(Value::Null, Value::Null, Value::Null)), ("b", kettle(Value::Null, 0, Value::Null))];
    let fixture = fixture.holding(&rows).await;
    for (key, row) in rows {
        assert_eq!(fixture.kettle(key).await, Some(row));
    }
}

async fn large_numbers_come_back_exactly(fixture: StoreFixture) {
    let row = Row { version: (1 << 53) - 1, ..kettle("red", i64::MAX, i64::MIN) };
    let fixture = fixture.holding(&[("a", row.clone()), ("b", kettle("red", -1, 0))]).await;
    assert_eq!(fixture.kettle("a").await, Some(row));
    assert_eq!(fixture.kettle("b").await, Some(kettle("red", -1, 0)));
}

async fn documents_come_back_as_they_went(fixture: StoreFixture) {
    let docs = [
        Value::Null,
        json!(true),
        json!(0),
        json!(""),
        json!([]),
        json!({}),
        json!({ "z": 1, "a": { "nested": [1, "two", null, { "three": 3 }] }, "": "empty name" }),
        json!({ "large": i64::MAX, "small": i64::MIN, "half": 0.5 }),
        json!("quotes ' \" \\ and \u{1} \n \t"),
        json!("ünïcödé 漢字 🫖"),
    ];
    fixture.open().await;
    for doc in docs {
        let row = Row { doc: doc.into(), ..kettle("red", 1, 2) };
        fixture.put(&[("a", row.clone())]).await;
        let found = fixture.kettle("a").await.expect("the row is there");
        assert_eq!(found, row);
        // The order of members is what a GET shows: it must not change with the store.
        assert_eq!(found.doc.value().to_string(), row.doc.value().to_string());
    }
}

/// Texts that a store could take for something else.
const ODD_TEXTS: &[&str] = &[
    " ",
    "a b",
    "'",
    "\"",
    "\\",
    "%",
    "_",
    ";--",
    "null",
    "0",
    "007",
    "1e3",
    "é",
    "e\u{301}",
    "漢字",
    "🫖",
    "A",
    "a",
    "line\nbreak",
    "stock-shop-1~beans",
];

async fn keys_may_hold_anything(fixture: StoreFixture) {
    let rows = ODD_TEXTS.iter().zip(0..).map(|(key, number)| (*key, kettle("red", number, 0))).collect::<Vec<_>>();
    let fixture = fixture.holding(&rows).await;
    for (key, row) in &rows {
        assert_eq!(fixture.kettle(key).await.as_ref(), Some(row), "key {key:?}");
    }
    let long = "k".repeat(400);
    fixture.put(&[(&long, kettle("red", 1, 2))]).await;
    assert_eq!(fixture.kettle(&long).await, Some(kettle("red", 1, 2)));
    assert_eq!(fixture.keys(everything("kettles")).await.len(), ODD_TEXTS.len() + 1);
}

async fn columns_may_hold_any_text(fixture: StoreFixture) {
    let rows =
        ODD_TEXTS.iter().chain([&""]).map(|text| (*text, kettle(*text, 1, 2))).filter(|(key, _)| !key.is_empty());
    let rows = rows.chain([("empty", kettle("", 1, 2))]).collect::<Vec<_>>();
    let fixture = fixture.holding(&rows).await;
    for (key, row) in rows {
        assert_eq!(fixture.kettle(key).await, Some(row), "key {key:?}");
    }
}

async fn large_documents_come_back(fixture: StoreFixture) {
    let lines = (0..20_000).map(|line| json!({ "line": line, "text": "twenty bytes of text" })).collect::<Vec<_>>();
    let row = Row { doc: json!({ "lines": lines }).into(), ..kettle("red", 1, 2) };
    let fixture = fixture.holding(&[("a", row.clone())]).await;
    assert!(fixture.kettle("a").await == Some(row), "the large document came back otherwise");
}

async fn an_empty_batch_is_taken(fixture: StoreFixture) {
    fixture.open().await;
    fixture.store.commit(Batch::default()).await.expect("nothing is written");
    assert_eq!(fixture.open().await, BTreeMap::new());
}

async fn checkpoints_come_back_when_opened(fixture: StoreFixture) {
    fixture.open().await;
    for partition in [0, 1, 11, 1_023] {
        fixture.advance(partition, None, 10 + u64::from(partition)).await.expect("the checkpoint moves");
    }
    let expected = [0, 1, 11, 1_023].map(|partition| (Partition(partition), checkpoint(10 + u64::from(partition))));
    assert_eq!(fixture.open().await, BTreeMap::from(expected));
}

async fn every_part_of_a_checkpoint_comes_back(fixture: StoreFixture) {
    fixture.open().await;
    let checkpoints = [
        Checkpoint::default(),
        Checkpoint {
            next_offset: Offset((1 << 53) - 1),
            epoch: Epoch((1 << 53) - 1),
            nonce: Nonce(u64::MAX),
            next_seq: Seq((1 << 53) - 1),
            open: true,
        },
        Checkpoint { next_offset: Offset(3), epoch: Epoch(2), nonce: Nonce(1 << 63), next_seq: Seq(1), open: false },
    ];
    for (checkpoint, partition) in checkpoints.into_iter().zip(0..) {
        let moved = vec![(Partition(partition), None, checkpoint)];
        fixture.store.commit(Batch { checkpoints: moved, ..Batch::default() }).await.expect("the checkpoint moves");
    }
    assert_eq!(fixture.open().await.into_values().collect::<Vec<_>>(), checkpoints);
}

async fn checkpoints_move_from_where_they_are(fixture: StoreFixture) {
    fixture.open().await;
    fixture.advance(0, None, 1).await.expect("the checkpoint moves");
    for from in 1..20 {
        fixture.advance(0, Some(from), from + 1).await.expect("the checkpoint moves");
    }
    assert_eq!(fixture.open().await, BTreeMap::from([(Partition(0), checkpoint(20))]));
}

async fn rows_and_checkpoints_are_committed_together(fixture: StoreFixture) {
    fixture.open().await;
    let batch = Batch {
        rows: vec![(kettle_key("a"), Some(kettle("red", 1, 2))), (kettle_key("b"), Some(kettle("blue", 3, 4)))],
        checkpoints: vec![(Partition(0), None, checkpoint(5)), (Partition(1), None, checkpoint(6))],
        new: 2,
    };
    fixture.store.commit(batch).await.expect("the batch is written");
    assert_eq!(fixture.keys(everything("kettles")).await, ["a", "b"]);
    let expected = BTreeMap::from([(Partition(0), checkpoint(5)), (Partition(1), checkpoint(6))]);
    assert_eq!(fixture.open().await, expected);
}

fn assert_fenced(result: Result<(), StoreFault>, partition: u16) {
    match result {
        Err(StoreFault::Fenced(found)) => assert_eq!(found, Partition(partition)),
        other => panic!("partition {partition} should be fenced: {other:?}"),
    }
}

async fn a_checkpoint_that_is_elsewhere_fences(fixture: StoreFixture) {
    fixture.open().await;
    fixture.advance(3, None, 5).await.expect("the checkpoint moves");
    assert_fenced(fixture.advance(3, Some(4), 6).await, 3);
    assert_fenced(fixture.advance(3, Some(6), 7).await, 3);
    assert_eq!(fixture.open().await, BTreeMap::from([(Partition(3), checkpoint(5))]));
}

async fn a_checkpoint_that_is_there_already_fences(fixture: StoreFixture) {
    fixture.open().await;
    fixture.advance(3, None, 5).await.expect("the checkpoint moves");
    assert_fenced(fixture.advance(3, None, 5).await, 3);
    assert_fenced(fixture.advance(3, None, 6).await, 3);
    assert_eq!(fixture.open().await, BTreeMap::from([(Partition(3), checkpoint(5))]));
}

async fn a_checkpoint_that_is_missing_fences(fixture: StoreFixture) {
    fixture.open().await;
    assert_fenced(fixture.advance(3, Some(5), 6).await, 3);
    assert_eq!(fixture.open().await, BTreeMap::new());
}

async fn every_part_of_the_expected_checkpoint_counts(fixture: StoreFixture) {
    fixture.open().await;
    fixture.advance(0, None, 5).await.expect("the checkpoint moves");
    let is = checkpoint(5);
    let wrong = [
        Checkpoint { epoch: Epoch(2), ..is },
        Checkpoint { nonce: Nonce(1), ..is },
        Checkpoint { next_seq: Seq(10), ..is },
        Checkpoint { open: false, ..is },
    ];
    for expected in wrong {
        let checkpoints = vec![(Partition(0), Some(expected), checkpoint(6))];
        assert_fenced(fixture.store.commit(Batch { checkpoints, ..Batch::default() }).await, 0);
    }
}

async fn a_fenced_commit_writes_nothing(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2)), ("b", kettle("red", 1, 2))]).await;
    fixture.advance(0, None, 5).await.expect("the checkpoint moves");
    let batch = Batch {
        rows: vec![
            (kettle_key("a"), Some(kettle("blue", 3, 4))),
            (kettle_key("b"), None),
            (kettle_key("c"), Some(kettle("blue", 3, 4))),
        ],
        checkpoints: vec![(Partition(0), Some(checkpoint(4)), checkpoint(6))],
        ..Batch::default()
    };
    assert_fenced(fixture.store.commit(batch).await, 0);
    let expected = ["a", "b"].map(|key| (key.to_owned(), kettle("red", 1, 2)));
    assert_eq!(fixture.list(everything("kettles")).await, expected);
}

async fn one_fenced_partition_stops_the_others(fixture: StoreFixture) {
    fixture.open().await;
    fixture.advance(0, None, 5).await.expect("the checkpoint moves");
    fixture.advance(2, None, 5).await.expect("the checkpoint moves");
    let batch = Batch {
        rows: vec![(kettle_key("a"), Some(kettle("red", 1, 2)))],
        checkpoints: vec![
            (Partition(0), Some(checkpoint(5)), checkpoint(6)),
            (Partition(1), None, checkpoint(6)),
            (Partition(2), Some(checkpoint(4)), checkpoint(6)),
        ],
        ..Batch::default()
    };
    assert_fenced(fixture.store.commit(batch).await, 2);
    let expected = BTreeMap::from([(Partition(0), checkpoint(5)), (Partition(2), checkpoint(5))]);
    assert_eq!(fixture.open().await, expected);
    assert_eq!(fixture.kettle("a").await, None);
}

async fn partitions_have_checkpoints_of_their_own(fixture: StoreFixture) {
    fixture.open().await;
    fixture.advance(0, None, 5).await.expect("the checkpoint moves");
    fixture.advance(1, None, 7).await.expect("the checkpoint moves");
    fixture.advance(0, Some(5), 6).await.expect("the checkpoint moves");
    let expected = BTreeMap::from([(Partition(0), checkpoint(6)), (Partition(1), checkpoint(7))]);
    assert_eq!(fixture.open().await, expected);
}

async fn a_thousand_rows_are_committed_at_once(fixture: StoreFixture) {
    fixture.open().await;
    let key = |number| kettle_key(&format!("k{number:04}"));
    fixture.write((0..1_000).map(|number| (key(number), Some(kettle("red", number, 0)))).collect()).await;
    let second = (500..1_500).map(|number| (key(number), (number % 2 == 0).then(|| kettle("blue", number, 0))));
    fixture.write(second.collect()).await;
    let found = fixture.list(everything("kettles")).await;
    assert_eq!(found.len(), 500 + 500);
    for (name, row) in found {
        let number = name[1..].parse::<i64>().expect("keys end in numbers");
        assert_eq!(row, kettle(if number < 500 { "red" } else { "blue" }, number, 0));
    }
}

async fn reopening_keeps_rows_and_checkpoints(fixture: StoreFixture) {
    let fixture = fixture.holding(&[("a", kettle("red", 1, 2)), ("b", kettle("blue", 3, 4))]).await;
    fixture.advance(4, None, 5).await.expect("the checkpoint moves");
    let Some(fixture) = fixture.reopened().await else { return };
    assert_eq!(fixture.open().await, BTreeMap::from([(Partition(4), checkpoint(5))]));
    assert_eq!(fixture.kettle("a").await, Some(kettle("red", 1, 2)));
    fixture.advance(4, Some(5), 6).await.expect("the checkpoint moves");
}

async fn reopening_keeps_the_log(fixture: StoreFixture) {
    fixture.open().await;
    let Some(fixture) = fixture.reopened().await else { return };
    let other = fixture.store.open(LogId(Uuid::from_u128(0xbad))).await;
    assert!(matches!(other, Err(StoreFault::ForeignLog { .. })), "another log's store was opened");
    fixture.open().await;
}
