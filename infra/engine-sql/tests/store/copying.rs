//! Rows that are new are copied into PostgreSQL: they must be the very rows that would have been upserted, a hint that was
//! wrong must do no harm, and what a transaction promises must hold for them too.

use engine::read_store::{Batch, ReadStore, StoreFault};
use engine::view::Row;
use engine_sql::SqlReadStore;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

use crate::kit::*;

/// Enough to be copied.
const MANY: u64 = 300;

fn many(rows: impl IntoIterator<Item = (String, Row)>, was: Option<u64>, next: u64) -> Batch {
    let rows = rows.into_iter().map(|(name, row)| (key(&name), Some(row))).collect::<Vec<_>>();
    Batch { new: rows.len(), rows, checkpoints: vec![(P0, was.map(checkpoint), checkpoint(next))] }
}

fn numbered(from: u64, version: u64) -> impl Iterator<Item = (String, Row)> {
    (from..from + MANY).map(move |n| (format!("row-{n:05}"), order("open", version)))
}

/// Notes every statement that adds orders.
async fn overhear(place: &Place) {
    place
        .alter(
            "CREATE TABLE said (what text); \
             CREATE FUNCTION overhear() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS \
             'BEGIN INSERT INTO said VALUES (current_query()); RETURN NULL; END'; \
             CREATE TRIGGER overhear AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION overhear()",
        )
        .await;
}

async fn heard(place: &Place) -> Vec<String> {
    let Place::Postgres { schema, .. } = place else { unreachable!() };
    let said = format!("SELECT left(what, 6) FROM {schema}.said ORDER BY 1");
    let rows = sqlx::query(AssertSqlSafe(said)).fetch_all(&mut place.connection().await).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

async fn all_of(store: &SqlReadStore) -> Vec<(String, Row)> {
    store.list(all()).await.unwrap()
}

#[tokio::test]
async fn what_is_copied_is_what_would_have_been_upserted() {
    let (Some(one), Some(other)) = (Place::postgres(), Place::postgres()) else { return };
    let (copied, upserted) = (one.open().await, other.open().await);
    overhear(&one).await;
    overhear(&other).await;
    let mut texts =
        ["\t", "\n", "\r", "\\", "\\N", "\\.", "N", "\0", "\u{1}", "\u{1}\0\u{2}", "'", "\"", "", "\u{feff}"]
            .map(str::to_owned)
            .to_vec();
    texts.extend(["NULL", "\\x41", "a\tb\nc", "žluťoučký 🐎", "\u{10ffff}", "\u{d7ff}\u{e000}"].map(str::to_owned));
    texts.push("long ".repeat(50_000));
    let mut runner = TestRunner::deterministic();
    let hostile = "[\u{0}-\u{3}\t\n\r\\\\N.a]{0,8}|\\PC{0,20}";
    for _ in 0..1_500 {
        texts.push(hostile.new_tree(&mut runner).unwrap().current());
    }
    let rows = texts.iter().enumerate().map(|(n, text)| {
        let integer = [i64::MIN, i64::MAX, 0, -1, n as i64][n % 5];
        let columns = match n % 3 {
            // No index takes that.
            _ if text.len() > 500 => vec![Value::Null, Value::Null, Value::Null],
            0 => vec![json!(text), Value::Null, Value::Null],
            1 => vec![Value::Null, json!(text), json!(integer)],
            _ => vec![json!(text), json!(text), json!(integer)],
        };
        let version = if n % 7 == 0 { i64::MAX as u64 } else { n as u64 };
        (
            format!("{n:05}{}", text.chars().take(100).collect::<String>()),
            Row { version, doc: json!({ "text": text }).into(), columns },
        )
    });
    let rows = rows.collect::<Vec<_>>();
    copied.commit(many(rows.clone(), None, 1)).await.unwrap();
    upserted.commit(Batch { new: 0, ..many(rows.clone(), None, 1) }).await.unwrap();
    assert_eq!(heard(&one).await, ["COPY \""]);
    assert_eq!(heard(&other).await, ["INSERT"]);
    // As we read them, and as the server has them.
    let mut expected = rows;
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(all_of(&copied).await, expected);
    assert_eq!(all_of(&upserted).await, expected);
    let (Place::Postgres { schema: a, .. }, Place::Postgres { schema: b, .. }) = (&one, &other) else { unreachable!() };
    let columns = "key, version, doc::text, status, customer, placed_at";
    let differ = format!(
        "SELECT count(*) FROM ((SELECT {columns} FROM {a}.orders EXCEPT SELECT {columns} FROM {b}.orders) UNION ALL \
         (SELECT {columns} FROM {b}.orders EXCEPT SELECT {columns} FROM {a}.orders)) AS differ"
    );
    let row = sqlx::query(AssertSqlSafe(differ)).fetch_one(&mut one.connection().await).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn a_row_that_was_there_all_the_same_is_replaced() {
    for place in Place::each() {
        let store = place.open().await;
        store.commit(batch([("row-00100", Some(order("older", 1)))], None, checkpoint(1))).await.unwrap();
        store.commit(many(numbered(0, 2), Some(1), 2)).await.unwrap();
        let rows = all_of(&store).await;
        assert_eq!(rows.len() as u64, MANY);
        assert!(rows.iter().all(|(_, row)| *row == order("open", 2)));
        assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(2))].into());
    }
}

#[tokio::test]
async fn few_rows_and_known_ones_are_upserted_in_the_same_batch() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open().await;
    store.commit(many(numbered(0, 1), None, 1)).await.unwrap();
    overhear(&place).await;
    // New ones first, then those that are known, one of which goes.
    let mut mixed = many(numbered(1_000, 2).chain(numbered(0, 2)), Some(1), 2);
    mixed.new = MANY as usize;
    mixed.rows.last_mut().unwrap().1 = None;
    store.commit(mixed).await.unwrap();
    assert_eq!(heard(&place).await, ["COPY \"", "INSERT"]);
    assert_eq!(all_of(&store).await.len() as u64, 2 * MANY - 1);
    store.commit(many(numbered(2_000, 1).take(3), Some(2), 3)).await.unwrap();
    assert_eq!(heard(&place).await, ["COPY \"", "INSERT", "INSERT"]);
}

#[tokio::test]
async fn a_fenced_copy_writes_nothing() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open().await;
    store.commit(many(numbered(0, 1), None, 1)).await.unwrap();
    let fenced = store.commit(many(numbered(1_000, 1), Some(7), 8)).await;
    assert!(matches!(fenced, Err(StoreFault::Fenced(P0))), "{fenced:?}");
    // What cannot be kept takes the rows before it along.
    let misfit = Row { columns: vec![json!(1)], ..order("open", 1) };
    let refused = store.commit(many(numbered(1_000, 1).chain([("z".to_owned(), misfit)]), Some(1), 2)).await;
    assert!(matches!(refused, Err(StoreFault::Misused(_))), "{refused:?}");
    assert_eq!(all_of(&store).await.len() as u64, MANY);
    assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(1))].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_caller_goes_away_is_done_or_never_begun() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open().await;
    let mut done = 0;
    for round in 0..60 {
        let was = (done > 0).then_some(done);
        dropped_after(round % 20 * 3, store.commit(many(numbered(done * 1_000, 1), was, done + 1))).await;
        // One that began goes on; after all writers had their turn it has ended.
        for _ in 0..4 {
            let found = store.open(LOG).await.unwrap();
            done = found.get(&P0).map_or(0, |checkpoint| checkpoint.next_offset.0);
        }
    }
    // A last commit waits for whatever is still under way, or is fenced by it.
    loop {
        let found = store.open(LOG).await.unwrap();
        done = found.get(&P0).map_or(0, |checkpoint| checkpoint.next_offset.0);
        let was = (done > 0).then_some(done);
        match store.commit(many(numbered(done * 1_000, 1), was, done + 1)).await {
            Ok(()) => break,
            Err(StoreFault::Fenced(_)) => {}
            Err(fault) => panic!("{fault:?}"),
        }
    }
    // Rows and checkpoint together, whatever happened to the callers.
    assert_eq!(all_of(&store).await.len() as u64, (done + 1) * MANY);
}
