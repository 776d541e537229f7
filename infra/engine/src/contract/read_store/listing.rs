//! Filters and order.

use serde_json::{Value, json};

use super::tools::{everything, kettle, kettles_where};
use super::{CaseFuture, StoreCase, StoreFixture, async_cases};
use crate::read_store::{Filter, Query};
use crate::view::Row;

pub(super) fn cases() -> Vec<StoreCase> {
    async_cases![
        an_empty_table_lists_nothing,
        a_list_gives_whole_rows,
        a_list_is_in_order_of_keys,
        keys_are_ordered_by_their_bytes,
        a_list_can_go_backwards,
        a_limit_is_kept,
        a_filter_of_equality_finds_text,
        a_filter_of_equality_finds_numbers,
        a_filter_of_equality_finds_null,
        a_filter_of_equality_finds_the_key,
        equality_minds_case_and_accents,
        one_of_several_is_enough,
        one_of_several_numbers_is_enough,
        one_of_none_finds_nothing,
        at_least_includes_its_bound,
        below_excludes_its_bound,
        a_range_takes_two_filters,
        ranges_of_text_go_by_bytes,
        ranges_of_keys_are_found,
        null_is_in_no_range,
        a_start_of_text_is_found,
        a_start_of_a_key_is_found,
        a_start_is_taken_literally,
        a_start_minds_case,
        an_empty_start_finds_all_text,
        several_filters_must_all_hold,
        filters_find_what_looks_like_sql,
        sorting_by_a_number_is_by_its_value,
        sorting_by_text_is_by_its_bytes,
        equal_columns_are_in_order_of_keys,
        sorting_backwards_turns_keys_too,
        null_sorts_first,
        null_sorts_last_backwards,
        filters_and_order_may_differ,
        a_changed_row_is_found_by_its_new_columns,
    ]
}

/// a red 1, b blue 2, c red 3, d none 4, e green –.
fn five() -> [(&'static str, Row); 5] {
    [
        ("a", kettle("red", 1, 50)),
        ("b", kettle("blue", 2, 40)),
        ("c", kettle("red", 3, 30)),
        ("d", kettle(Value::Null, 4, 20)),
        ("e", kettle("green", Value::Null, 10)),
    ]
}

/// Asserts that the filters find exactly these of the five.
async fn finds(fixture: StoreFixture, filters: Vec<Filter>, keys: &[&str]) {
    let fixture = fixture.holding(&five()).await;
    assert_eq!(fixture.keys(kettles_where(filters)).await, keys);
}

fn by(sort: &'static str) -> Query {
    Query { sort: Some(sort), ..everything("kettles") }
}

async fn an_empty_table_lists_nothing(fixture: StoreFixture) {
    fixture.open().await;
    assert_eq!(fixture.list(everything("kettles")).await, []);
    assert_eq!(fixture.list(by("litres")).await, []);
}

async fn a_list_gives_whole_rows(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    let expected = five().map(|(key, row)| (key.to_owned(), row));
    assert_eq!(fixture.list(everything("kettles")).await, expected);
}

async fn a_list_is_in_order_of_keys(fixture: StoreFixture) {
    let rows = ["m", "a", "z", "c"].map(|key| (key, kettle("red", 1, 2)));
    let fixture = fixture.holding(&rows).await;
    assert_eq!(fixture.keys(everything("kettles")).await, ["a", "c", "m", "z"]);
}

/// In the order of their bytes, which is no language's.
const BY_BYTES: [&str; 10] = ["-", "10", "9", "B", "Z", "_", "a", "z", "é", "漢"];

async fn keys_are_ordered_by_their_bytes(fixture: StoreFixture) {
    let mut rows = BY_BYTES.map(|key| (key, kettle("red", 1, 2)));
    rows.reverse();
    let fixture = fixture.holding(&rows).await;
    assert_eq!(fixture.keys(everything("kettles")).await, BY_BYTES);
}

async fn a_list_can_go_backwards(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    let backwards = Query { descending: true, ..everything("kettles") };
    assert_eq!(fixture.keys(backwards).await, ["e", "d", "c", "b", "a"]);
}

async fn a_limit_is_kept(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    for limit in 0..=6 {
        let keys = fixture.keys(Query { limit, ..everything("kettles") }).await;
        assert_eq!(keys, ["a", "b", "c", "d", "e"][..5.min(limit as usize)]);
    }
}

async fn a_filter_of_equality_finds_text(fixture: StoreFixture) {
    finds(fixture, vec![Filter::Is("colour", json!("red"))], &["a", "c"]).await;
}

async fn a_filter_of_equality_finds_numbers(fixture: StoreFixture) {
    finds(fixture, vec![Filter::Is("litres", json!(2))], &["b"]).await;
}

async fn a_filter_of_equality_finds_null(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    assert_eq!(fixture.keys(kettles_where(vec![Filter::Is("colour", Value::Null)])).await, ["d"]);
    assert_eq!(fixture.keys(kettles_where(vec![Filter::Is("litres", Value::Null)])).await, ["e"]);
}

async fn a_filter_of_equality_finds_the_key(fixture: StoreFixture) {
    finds(fixture, vec![Filter::Is("key", json!("c"))], &["c"]).await;
}

async fn equality_minds_case_and_accents(fixture: StoreFixture) {
    let rows = ["red", "Red", "réd", "red "].map(|colour| (colour, kettle(colour, 1, 2)));
    let fixture = fixture.holding(&rows).await;
    for (colour, _) in &rows {
        assert_eq!(fixture.keys(kettles_where(vec![Filter::Is("colour", json!(colour))])).await, [*colour]);
    }
}

async fn one_of_several_is_enough(fixture: StoreFixture) {
    let wanted = vec![json!("blue"), json!("green"), json!("purple")];
    finds(fixture, vec![Filter::OneOf("colour", wanted)], &["b", "e"]).await;
}

async fn one_of_several_numbers_is_enough(fixture: StoreFixture) {
    finds(fixture, vec![Filter::OneOf("litres", vec![json!(4), json!(1)])], &["a", "d"]).await;
}

async fn one_of_none_finds_nothing(fixture: StoreFixture) {
    finds(fixture, vec![Filter::OneOf("colour", vec![])], &[]).await;
}

async fn at_least_includes_its_bound(fixture: StoreFixture) {
    finds(fixture, vec![Filter::AtLeast("litres", json!(3))], &["c", "d"]).await;
}

async fn below_excludes_its_bound(fixture: StoreFixture) {
    finds(fixture, vec![Filter::Below("litres", json!(3))], &["a", "b"]).await;
}

async fn a_range_takes_two_filters(fixture: StoreFixture) {
    finds(
        fixture,
        vec![Filter::AtLeast("boiled_at", json!(20)), Filter::Below("boiled_at", json!(50))],
        &["b", "c", "d"],
    )
    .await;
}

async fn ranges_of_text_go_by_bytes(fixture: StoreFixture) {
    let rows = BY_BYTES.map(|text| (text, kettle(text, 1, 2)));
    let fixture = fixture.holding(&rows).await;
    for (index, bound) in BY_BYTES.iter().enumerate() {
        let at_least = kettles_where(vec![Filter::AtLeast("colour", json!(bound))]);
        assert_eq!(fixture.keys(at_least).await, BY_BYTES[index..]);
        let below = kettles_where(vec![Filter::Below("colour", json!(bound))]);
        assert_eq!(fixture.keys(below).await, BY_BYTES[..index]);
    }
}

async fn ranges_of_keys_are_found(fixture: StoreFixture) {
    finds(fixture, vec![Filter::AtLeast("key", json!("b")), Filter::Below("key", json!("d"))], &["b", "c"]).await;
}

async fn null_is_in_no_range(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    let at_least = |column, value| kettles_where(vec![Filter::AtLeast(column, value)]);
    let below = |column, value| kettles_where(vec![Filter::Below(column, value)]);
    assert_eq!(fixture.keys(at_least("litres", json!(i64::MIN))).await, ["a", "b", "c", "d"]);
    assert_eq!(fixture.keys(below("litres", json!(i64::MAX))).await, ["a", "b", "c", "d"]);
    assert_eq!(fixture.keys(at_least("colour", json!(""))).await, ["a", "b", "c", "e"]);
    assert_eq!(fixture.keys(below("colour", json!("zzz"))).await, ["a", "b", "c", "e"]);
}

async fn a_start_of_text_is_found(fixture: StoreFixture) {
    finds(fixture, vec![Filter::StartsWith("colour", "re".to_owned())], &["a", "c"]).await;
}

async fn a_start_of_a_key_is_found(fixture: StoreFixture) {
    let rows = ["shop-1~beans", "shop-1~milk", "shop-10~beans", "shop-2~beans"].map(|key| (key, kettle("red", 1, 2)));
    let fixture = fixture.holding(&rows).await;
    let found = fixture.keys(kettles_where(vec![Filter::StartsWith("key", "shop-1~".to_owned())])).await;
    assert_eq!(found, ["shop-1~beans", "shop-1~milk"]);
}

async fn a_start_is_taken_literally(fixture: StoreFixture) {
    let texts = ["%a", "*a", "?a", "[a]", "\\a", "_a", "aa", "漢字"];
    let rows = texts.map(|text| (text, kettle(text, 1, 2)));
    let fixture = fixture.holding(&rows).await;
    for (start, expected) in [
        ("%", "%a"),
        ("_", "_a"),
        ("*", "*a"),
        ("?", "?a"),
        ("[a]", "[a]"),
        ("\\", "\\a"),
        ("漢", "漢字"),
        ("aa", "aa"),
    ] {
        let found = fixture.keys(kettles_where(vec![Filter::StartsWith("colour", start.to_owned())])).await;
        assert_eq!(found, [expected], "start {start:?}");
    }
}

async fn a_start_minds_case(fixture: StoreFixture) {
    finds(fixture, vec![Filter::StartsWith("colour", "RE".to_owned())], &[]).await;
}

async fn an_empty_start_finds_all_text(fixture: StoreFixture) {
    finds(fixture, vec![Filter::StartsWith("colour", String::new())], &["a", "b", "c", "e"]).await;
}

async fn several_filters_must_all_hold(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    fixture.put(&[("f", kettle("red", 5, 0))]).await;
    // Each of them keeps out one that the other two would let in.
    let filters = vec![
        Filter::Is("colour", json!("red")),
        Filter::AtLeast("litres", json!(2)),
        Filter::OneOf("key", vec![json!("a"), json!("c"), json!("d")]),
    ];
    assert_eq!(fixture.keys(kettles_where(filters)).await, ["c"]);
}

async fn filters_find_what_looks_like_sql(fixture: StoreFixture) {
    let odd = "x' OR '1'='1";
    let fixture = fixture.holding(&[("a", kettle(odd, 1, 2)), ("b", kettle("red", 1, 2))]).await;
    assert_eq!(fixture.keys(kettles_where(vec![Filter::Is("colour", json!(odd))])).await, ["a"]);
    let none = kettles_where(vec![Filter::Is("key", json!("' OR 1=1 --"))]);
    assert_eq!(fixture.keys(none).await, Vec::<String>::new());
}

async fn sorting_by_a_number_is_by_its_value(fixture: StoreFixture) {
    let rows =
        [("a", 10), ("b", 9), ("c", -1), ("d", 100), ("e", 0)].map(|(key, litres)| (key, kettle("red", litres, 0)));
    let fixture = fixture.holding(&rows).await;
    assert_eq!(fixture.keys(by("litres")).await, ["c", "e", "b", "a", "d"]);
}

async fn sorting_by_text_is_by_its_bytes(fixture: StoreFixture) {
    let keys = ["j", "i", "h", "g", "f", "e", "d", "c", "b", "a"];
    let rows = keys.iter().zip(BY_BYTES).map(|(key, text)| (*key, kettle(text, 1, 2))).collect::<Vec<_>>();
    let fixture = fixture.holding(&rows).await;
    assert_eq!(fixture.keys(by("colour")).await, keys);
}

async fn equal_columns_are_in_order_of_keys(fixture: StoreFixture) {
    let rows = [("c", 1), ("a", 2), ("d", 1), ("b", 2)].map(|(key, litres)| (key, kettle("red", litres, 0)));
    let fixture = fixture.holding(&rows).await;
    assert_eq!(fixture.keys(by("litres")).await, ["c", "d", "a", "b"]);
}

async fn sorting_backwards_turns_keys_too(fixture: StoreFixture) {
    let rows = [("c", 1), ("a", 2), ("d", 1), ("b", 2)].map(|(key, litres)| (key, kettle("red", litres, 0)));
    let fixture = fixture.holding(&rows).await;
    assert_eq!(fixture.keys(Query { descending: true, ..by("litres") }).await, ["b", "a", "d", "c"]);
}

async fn null_sorts_first(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    assert_eq!(fixture.keys(by("colour")).await, ["d", "b", "e", "a", "c"]);
    assert_eq!(fixture.keys(by("litres")).await, ["e", "a", "b", "c", "d"]);
}

async fn null_sorts_last_backwards(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    assert_eq!(fixture.keys(Query { descending: true, ..by("colour") }).await, ["c", "a", "e", "b", "d"]);
    assert_eq!(fixture.keys(Query { descending: true, ..by("litres") }).await, ["d", "c", "b", "a", "e"]);
}

async fn filters_and_order_may_differ(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    let query = Query { filters: vec![Filter::AtLeast("litres", json!(2))], ..by("boiled_at") };
    assert_eq!(fixture.keys(query).await, ["d", "c", "b"]);
}

async fn a_changed_row_is_found_by_its_new_columns(fixture: StoreFixture) {
    let fixture = fixture.holding(&five()).await;
    fixture.put(&[("a", kettle("blue", 9, 50))]).await;
    assert_eq!(fixture.keys(kettles_where(vec![Filter::Is("colour", json!("red"))])).await, ["c"]);
    assert_eq!(fixture.keys(kettles_where(vec![Filter::Is("colour", json!("blue"))])).await, ["a", "b"]);
    assert_eq!(fixture.keys(by("litres")).await, ["e", "b", "c", "d", "a"]);
}
