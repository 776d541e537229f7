//! Pages: following `after` from page to page gives each row exactly once, in order, however it is sorted.

use serde_json::{Value, json};

use super::tools::{everything, kettle};
use super::{CaseFuture, StoreCase, StoreFixture, async_cases};
use crate::read_store::{Filter, Query};
use crate::view::Row;

pub(super) fn cases() -> Vec<StoreCase> {
    async_cases![
        pages_by_key_give_each_row_once,
        pages_by_key_backwards_give_each_row_once,
        pages_by_a_number_give_each_row_once,
        pages_by_a_number_backwards_give_each_row_once,
        pages_by_text_give_each_row_once,
        pages_by_text_backwards_give_each_row_once,
        pages_keep_to_their_filters,
        a_page_after_the_last_row_is_empty,
        a_page_goes_on_after_a_row_that_is_gone,
        rows_added_behind_do_not_show_again,
    ]
}

/// Forty rows with many equal columns and some nulls.
fn forty() -> Vec<(String, Row)> {
    let colours = [json!("red"), Value::Null, json!("blue"), json!("éclair"), json!("")];
    let litres = [json!(3), json!(-1), Value::Null, json!(0)];
    let row = |number: usize| {
        let (colour, litres) = (colours[number * 7 % 5].clone(), litres[number * 3 % 4].clone());
        (format!("k{:02}", number * 13 % 40), kettle(colour, litres, number as u64))
    };
    (0..40).map(row).collect()
}

async fn holding_forty(fixture: StoreFixture) -> StoreFixture {
    let rows = forty();
    fixture.holding(&rows.iter().map(|(key, row)| (key.as_str(), row.clone())).collect::<Vec<_>>()).await
}

/// The place of a row in the order of `query`.
fn place(query: &Query, key: &str, row: &Row) -> (Value, String) {
    let value = match query.sort {
        None => Value::Null,
        Some("colour") => row.columns[0].clone(),
        Some("litres") => row.columns[1].clone(),
        Some(other) => panic!("no case sorts by {other}"),
    };
    (value, key.to_owned())
}

/// Whatever the page's size, the pages together are the whole list.
async fn pages_are_the_whole(fixture: StoreFixture, query: Query) {
    let fixture = holding_forty(fixture).await;
    let whole = fixture.list(query.clone()).await;
    for limit in [1, 3, 7, 39, 40, 41] {
        let mut pages = Vec::new();
        let mut after = None;
        loop {
            let page = fixture.list(Query { after: after.take(), limit, ..query.clone() }).await;
            let Some((key, row)) = page.last() else { break };
            assert!(page.len() <= limit as usize, "a page of {} where {limit} were asked for", page.len());
            after = Some(place(&query, key, row));
            pages.extend(page);
            assert!(pages.len() <= whole.len(), "pages of {limit} go round in circles");
        }
        assert_eq!(pages, whole, "pages of {limit}");
    }
}

async fn pages_by_key_give_each_row_once(fixture: StoreFixture) {
    pages_are_the_whole(fixture, everything("kettles")).await;
}

async fn pages_by_key_backwards_give_each_row_once(fixture: StoreFixture) {
    pages_are_the_whole(fixture, Query { descending: true, ..everything("kettles") }).await;
}

async fn pages_by_a_number_give_each_row_once(fixture: StoreFixture) {
    pages_are_the_whole(fixture, Query { sort: Some("litres"), ..everything("kettles") }).await;
}

async fn pages_by_a_number_backwards_give_each_row_once(fixture: StoreFixture) {
    pages_are_the_whole(fixture, Query { sort: Some("litres"), descending: true, ..everything("kettles") }).await;
}

async fn pages_by_text_give_each_row_once(fixture: StoreFixture) {
    pages_are_the_whole(fixture, Query { sort: Some("colour"), ..everything("kettles") }).await;
}

async fn pages_by_text_backwards_give_each_row_once(fixture: StoreFixture) {
    pages_are_the_whole(fixture, Query { sort: Some("colour"), descending: true, ..everything("kettles") }).await;
}

async fn pages_keep_to_their_filters(fixture: StoreFixture) {
    let filters = vec![Filter::Below("boiled_at", json!(25)), Filter::OneOf("litres", vec![json!(0), json!(3)])];
    pages_are_the_whole(fixture, Query { filters, sort: Some("colour"), ..everything("kettles") }).await;
}

async fn a_page_after_the_last_row_is_empty(fixture: StoreFixture) {
    let fixture = holding_forty(fixture).await;
    let after = Some((Value::Null, "k39".to_owned()));
    assert_eq!(fixture.keys(Query { after, ..everything("kettles") }).await, Vec::<String>::new());
    let after = Some((Value::Null, "k00".to_owned()));
    assert_eq!(fixture.keys(Query { after, descending: true, ..everything("kettles") }).await, Vec::<String>::new());
}

async fn a_page_goes_on_after_a_row_that_is_gone(fixture: StoreFixture) {
    let fixture = holding_forty(fixture).await;
    fixture.write(vec![(super::tools::kettle_key("k20"), None)]).await;
    let after = Some((Value::Null, "k20".to_owned()));
    let page = fixture.keys(Query { after, limit: 2, ..everything("kettles") }).await;
    assert_eq!(page, ["k21", "k22"]);
}

async fn rows_added_behind_do_not_show_again(fixture: StoreFixture) {
    let fixture = holding_forty(fixture).await;
    fixture.put(&[("k10-later", kettle("red", 1, 2))]).await;
    let after = Some((Value::Null, "k20".to_owned()));
    let page = fixture.keys(Query { after, limit: 2, ..everything("kettles") }).await;
    assert_eq!(page, ["k21", "k22"]);
}
