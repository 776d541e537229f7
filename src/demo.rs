//! The demo shop: a catalogue that is seeded once, and customers who order something every second through the public API,
//! as anybody could. Not all of it goes well, on purpose: cards are declined, the gateway stumbles, shelves run empty,
//! people change their minds, parcels come back. What is done follows from a count, so two starts do the same.
//!
//! The demo is a guest: whatever fails here is logged at debug and tried no further.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::{Client, Command, CommandTrouble, Server};

mod script;

use script::{Script, Visit};

/// One order a second: fast enough to watch, slow enough to read.
const PERIOD: Duration = Duration::from_secs(1);
/// Orders whose parcels are still looked after.
const FOLLOWED_MAX: usize = 32;
/// Below this many available pieces a shelf is filled up.
const LOW: i64 = 20;
/// By how many.
const REFILL: u32 = 50;
/// Every so many orders somebody walks along the shelves.
const ROUND_EVERY: u64 = 10;

/// Runs the shop until `shutdown`.
pub(crate) async fn run(server: SocketAddr, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(trade(server)).await;
}

async fn trade(address: SocketAddr) {
    let Ok(server) = format!("http://{address}").parse::<Server>() else { return };
    let client = Client::new(server).acting_as(Some("demo"), None).quiet();
    let mut shop = Shop { client, followed: VecDeque::new() };
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Err(trouble) = shop.seed().await {
        tracing::debug!(why = %trouble, "the demo cannot stock its shelves yet");
        tick.tick().await;
    }
    let mut script = Script::new();
    loop {
        tick.tick().await;
        let visit = script.next();
        if let Err(trouble) = shop.serve(&visit).await {
            tracing::debug!(why = %trouble, "the demo's order came to nothing");
        }
        if visit.number % ROUND_EVERY == ROUND_EVERY - 1
            && let Err(trouble) = shop.refill().await
        {
            tracing::debug!(why = %trouble, "the demo's shelves stay empty");
        }
    }
}

struct Shop {
    client: Client,
    /// Orders on their way, oldest first.
    followed: VecDeque<(Visit, String)>,
}

impl Shop {
    /// Puts the catalogue on the shelves, once in the life of a log: what is there is left alone.
    async fn seed(&self) -> Result<(), CommandTrouble> {
        for (location, product) in script::shelves() {
            let url = self.client.url(&["v1", "stock", location, product.sku]);
            let body = json!({"on_hand": product.on_hand, "reason": "opening"});
            let command = Command::put(url, Uuid::now_v7(), body).must_be_new();
            match self.client.command(&command).await {
                Err(there) if there.trouble.status() == Some(412) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// A customer orders; those who ordered before are looked after.
    async fn serve(&mut self, visit: &Visit) -> Result<(), CommandTrouble> {
        let lines = visit.lines.iter().map(|(product, quantity)| {
            let unit_price = json!({"amount": product.price_minor, "currency": "EUR"});
            json!({"sku": product.sku, "quantity": quantity, "unit_price": unit_price})
        });
        let body = json!({
            "customer_id": visit.customer,
            "location_id": visit.location,
            "lines": lines.collect::<Vec<_>>(),
            "payment": {"method": "card", "token": visit.card.token()},
        });
        let order = self.post(&["v1", "orders"], body).await?;
        if let Some(id) = order["order_id"].as_str() {
            self.followed.push_back((visit.clone(), id.to_owned()));
            self.followed.truncate(FOLLOWED_MAX);
        }
        // Parcels leave a few seconds after the order, and arrive a few seconds later.
        if let Some((earlier, id)) = self.ago(visit.number, 3).cloned() {
            if earlier.changes_mind {
                self.post(&["v1", "orders", &id, "cancel"], json!({"reason": "customer"})).await?;
            } else if self.status(&id).await == "confirmed" {
                self.post(&["v1", "orders", &id, "ship"], json!({"carrier": "bike"})).await?;
            }
        }
        if let Some((earlier, id)) = self.ago(visit.number, 8).cloned()
            && self.status(&id).await == "shipped"
        {
            self.post(&["v1", "orders", &id, "deliver"], json!({})).await?;
            if earlier.sends_back {
                let (product, _) = earlier.lines[0];
                let amount = json!({"amount": product.price_minor, "currency": "EUR"});
                let body = json!({"amount": amount, "reason": "one piece came back"});
                self.post(&["v1", "orders", &id, "refund"], body).await?;
            }
        }
        while self.followed.front().is_some_and(|(earlier, _)| earlier.number + 8 <= visit.number) {
            self.followed.pop_front();
        }
        Ok(())
    }

    /// Fills up what runs low.
    async fn refill(&self) -> Result<(), CommandTrouble> {
        for (location, product) in script::shelves() {
            let stock = self.read(&["v1", "stock", location, product.sku]).await;
            if stock["available"].as_i64().is_some_and(|available| available < LOW) {
                self.post(&["v1", "stock", location, product.sku, "receive"], json!({"quantity": REFILL})).await?;
            }
        }
        Ok(())
    }

    fn ago(&self, number: u64, visits: u64) -> Option<&(Visit, String)> {
        self.followed.iter().find(|(earlier, _)| earlier.number + visits == number)
    }

    async fn status(&self, id: &str) -> String {
        self.read(&["v1", "orders", id]).await["status"].as_str().unwrap_or_default().to_owned()
    }

    async fn read(&self, path: &[&str]) -> Value {
        self.client.read(self.client.url(path)).await.map(|answer| answer.body).unwrap_or_default()
    }

    async fn post(&self, path: &[&str], body: Value) -> Result<Value, CommandTrouble> {
        let command = Command::post(self.client.url(path), Uuid::now_v7(), body);
        Ok(self.client.command(&command).await?.body)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::{Request, State};
    use axum::http::StatusCode;
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::*;

    /// Takes everything, and says of all stock that it is there already.
    #[derive(Clone, Default)]
    struct Server {
        seen: Arc<Mutex<Vec<String>>>,
        ordered: Arc<Notify>,
    }

    async fn answer(State(server): State<Server>, request: Request) -> (StatusCode, String) {
        let new = request.headers().contains_key("if-none-match");
        server.seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        if new {
            return (StatusCode::PRECONDITION_FAILED, r#"{"code":"version-mismatch"}"#.to_owned());
        }
        server.ordered.notify_one();
        (StatusCode::CREATED, r#"{"order_id":"0198"}"#.to_owned())
    }

    #[tokio::test]
    async fn a_shop_that_is_there_is_not_seeded_again_and_trades_until_told_to_stop() {
        let server = Server::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let stop = CancellationToken::new();
        let demo = tokio::spawn(run(address, stop.clone()));
        server.ordered.notified().await;
        stop.cancel();
        demo.await.unwrap();
        let seen = server.seen.lock().unwrap().clone();
        let seeded = seen.iter().filter(|line| line.starts_with("PUT /v1/stock/")).count();
        assert_eq!(seeded, script::shelves().count());
        assert!(seen.contains(&"POST /v1/orders".to_owned()));
    }
}
