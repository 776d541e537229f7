//! Brings a run's stock before, and gathers after it what the checks need: waits until its sagas have settled, then reads
//! orders, the gateway's books, stock and the server's own invariants, all no older than what the answers told.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use schemas::ledger::LedgerRow;
use schemas::resource::order::{Order, OrderStatus};
use schemas::resource::saga::SagaState;
use schemas::resource::stock::Stock;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Profile;
use super::books::{self, Booked, OrderSeen, Seen, StockSeen};
use super::tally::{Ending, Sent, Tally};
use super::workload::Workload;
use crate::client::{Client, Command, Trouble};
use crate::failure::Failure;
use crate::output::text;

/// Requests under way at once where order does not matter: enough to keep a server busy, too few to swamp it.
const AT_ONCE: usize = 16;
/// How long until a saga that has not settled is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The largest page there is.
const PAGE: &str = "500";

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct SagaSeen {
    state: SagaState,
}

/// Puts `on_hand` pieces of every SKU on the shelves.
pub(super) async fn seed(client: &Client, workload: &Workload, on_hand: u64) -> Result<(), Failure> {
    let places = (0..workload.locations).flat_map(|location| (0..workload.skus).map(move |sku| (location, sku)));
    stream::iter(places)
        .map(|(location, sku)| async move {
            let url = client.url(&["v1", "stock", &workload.location(location), &workload.sku(sku)]);
            let command = Command::put(url, Uuid::now_v7(), json!({"on_hand": on_hand, "reason": "load"}));
            client.command(&command).await.map(drop)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// What does not add up.
pub(super) async fn audit(
    client: &Client,
    workload: &Workload,
    tally: &mut Tally,
    on_hand_before: u64,
    settle_within: Duration,
) -> Result<Vec<String>, Failure> {
    let mut seen = Seen::default();
    if workload.profile == Profile::Checkout {
        settle(client, tally, settle_within, &mut seen).await?;
    }
    let positions = tally.positions();
    if workload.profile != Profile::HotStock {
        orders(client, workload, &positions, &mut seen).await?;
        let rows: Page<LedgerRow> = client.read_long(client.url(&["dev", "gateway", "ledger"])).await?.body;
        seen.books = rows.items.into_iter().map(booked).collect();
    }
    stock(client, workload, &positions, &mut seen).await?;
    let judged: Value = client.read_long(client.url(&["dev", "invariants"])).await?.body;
    let violations = judged["violations"].as_array().map_or(&[][..], Vec::as_slice);
    seen.violations = violations
        .iter()
        .map(|found| format!("{} at {}: {}", text(&found["invariant"]), text(&found["stream"]), text(&found["detail"])))
        .collect();
    Ok(books::differences(workload, &tally.sent, on_hand_before, &seen))
}

fn booked(row: LedgerRow) -> (Uuid, Booked) {
    (row.payment_id.0, Booked { captured: row.captured, refunded: row.refunded })
}

/// Waits for the sagas that are not known to have settled.
async fn settle(client: &Client, tally: &mut Tally, within: Duration, seen: &mut Seen) -> Result<(), Failure> {
    let deadline = Instant::now() + within;
    let open = tally.sent.iter().filter(|sent| !sent.settled && sent.ending != Ending::Rejected).copied();
    let open = open.collect::<Vec<Sent>>();
    let looks = stream::iter(open).map(|sent| async move {
        loop {
            let url = client.url(&["v1", "sagas", &sent.id.to_string()]);
            match client.read_fresh::<SagaSeen>(url, "").await {
                Ok(answer) if answer.body.state.is_settled() => {
                    let positions = answer.headers.get("docket-position").and_then(|value| value.to_str().ok());
                    return Ok((sent.id, true, positions.unwrap_or_default().to_owned()));
                }
                // Never known to be accepted, and not there: then there is nothing to wait for.
                Err(trouble) if trouble.status() == Some(404) && sent.ending == Ending::Unknown => {
                    return Ok((sent.id, true, String::new()));
                }
                Err(trouble) if trouble.status() != Some(404) => return Err(trouble),
                Ok(_) | Err(_) => {}
            }
            if Instant::now() >= deadline {
                return Ok((sent.id, false, String::new()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
    let looked = looks.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await.map_err(Failure::from)?;
    for (id, settled, positions) in looked {
        tally.reach_all(&positions);
        if !settled {
            seen.unsettled.insert(id);
        }
    }
    Ok(())
}

/// Reads all orders of the run.
async fn orders(client: &Client, workload: &Workload, positions: &str, seen: &mut Seen) -> Result<(), Failure> {
    let filter = [("customer_id", workload.run.as_str())];
    pages::<Order>(client, &["v1", "orders"], &filter, positions, |order| {
        let status = OrderStatus::ALL.iter().find(|(_, status)| *status == order.status);
        let order_seen = OrderSeen {
            status: status.map_or("?", |(name, _)| name).to_owned(),
            total: order.total.amount,
            paid: order.paid.amount,
            refunded: order.refunded.amount,
            payment: order.payment_id.map(|id| id.0),
        };
        seen.orders.insert(order.order_id.0, order_seen);
    })
    .await
    .map_err(Failure::from)
}

/// Reads all stock of the run.
async fn stock(client: &Client, workload: &Workload, positions: &str, seen: &mut Seen) -> Result<(), Failure> {
    for location in 0..workload.locations {
        pages::<Stock>(client, &["v1", "stock", &workload.location(location)], &[], positions, |stock| {
            if let Some(sku) = workload.sku_number(stock.sku.as_str()) {
                let stock = StockSeen { on_hand: stock.on_hand, reserved: stock.reserved };
                seen.stock.insert((location, sku), stock);
            }
        })
        .await?;
    }
    Ok(())
}

/// Reads all pages of a list.
async fn pages<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &[&str],
    filters: &[(&str, &str)],
    positions: &str,
    mut take: impl FnMut(T),
) -> Result<(), Trouble> {
    let mut cursor = None::<String>;
    loop {
        let mut url = client.url(path);
        url.query_pairs_mut().extend_pairs(filters).append_pair("limit", PAGE);
        if let Some(cursor) = &cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let page: Page<T> = client.read_fresh(url, positions).await?.body;
        page.items.into_iter().for_each(&mut take);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}
