//! What the log tells: events as `GET /v1/events` gives them, and the judge's own fold of them. It is written from
//! http.md alone and shares no code with the product, so that both would have to be wrong in the same way.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

/// One event, with what the judge looks at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) position: (u64, u64),
    pub(crate) index: u64,
    pub(crate) command: Option<Uuid>,
    pub(crate) data: Value,
}

impl Event {
    /// Reads one, or says what is missing.
    pub(crate) fn of(told: &Value) -> Result<Self, String> {
        let text = |field: &str| told[field].as_str().map(str::to_owned).ok_or_else(|| format!("no {field} in {told}"));
        let number = |field: &str| told[field].as_u64().ok_or_else(|| format!("no {field} in {told}"));
        let position = text("position")?;
        let position = position
            .split_once(':')
            .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)))
            .ok_or_else(|| format!("no position in {told}"))?;
        Ok(Self {
            kind: text("type")?,
            stream: text("stream")?,
            version: number("version")?,
            position,
            index: number("index")?,
            command: told["command_id"].as_str().and_then(|id| id.parse().ok()),
            data: told["data"].clone(),
        })
    }

    pub(crate) fn amount(&self) -> i64 {
        self.data["amount"]["amount"].as_i64().unwrap_or(0)
    }
}

/// The log, as streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<Event>,
    /// Where each stream's events are, in the order of the log.
    pub(crate) streams: BTreeMap<String, Vec<usize>>,
    /// Where each command's events are.
    pub(crate) commands: BTreeMap<Uuid, Vec<usize>>,
    /// Where the reservations made for each order are.
    made_for: BTreeMap<String, Vec<usize>>,
}

impl Told {
    pub(crate) fn of(told: &[Value]) -> Result<Self, String> {
        let mut this = Self::default();
        for event in told {
            this.add(Event::of(event)?);
        }
        Ok(this)
    }

    pub(crate) fn add(&mut self, event: Event) {
        let place = self.events.len();
        self.streams.entry(event.stream.clone()).or_default().push(place);
        if let Some(command) = event.command {
            self.commands.entry(command).or_default().push(place);
        }
        if event.kind == "ReservationMade"
            && let Some(order) = event.data["order_id"].as_str()
        {
            self.made_for.entry(order.to_owned()).or_default().push(place);
        }
        self.events.push(event);
    }

    pub(crate) fn stream(&self, name: &str) -> impl DoubleEndedIterator<Item = &Event> {
        self.streams.get(name).into_iter().flatten().map(|&place| &self.events[place])
    }

    pub(crate) fn of_command(&self, key: Uuid) -> impl Iterator<Item = &Event> {
        self.commands.get(&key).into_iter().flatten().map(|&place| &self.events[place])
    }

    /// Streams whose name begins so, and what follows.
    pub(crate) fn named<'a>(&'a self, prefix: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let streams = self.streams.keys();
        streams.filter_map(move |name| Some((name.as_str(), name.strip_prefix(prefix)?)))
    }

    /// The reservations that an order's checkout made at a location.
    pub(crate) fn reservations_of(&self, order: &str, location: &str) -> Vec<(&str, &Event)> {
        let at = format!("reservation-{location}~");
        let streams = self.made_for.get(order).into_iter().flatten();
        let made = streams.filter(|&&place| self.events[place].stream.starts_with(&at));
        made.map(|&place| (self.events[place].stream.as_str(), &self.events[place])).collect()
    }

    /// What a stream's resource must show after all of it, in the fields the judge holds it to.
    pub(crate) fn fold(&self, stream: &str) -> Value {
        let mut row = json!({});
        for event in self.stream(stream) {
            evolve(&mut row, event);
        }
        row
    }
}

/// One event onto what a resource shows.
pub(crate) fn evolve(row: &mut Value, event: &Event) {
    let data = &event.data;
    row["version"] = json!(event.version);
    let bump = |row: &mut Value, field: &str, by: i64| row[field] = json!(row[field].as_i64().unwrap_or(0) + by);
    let quantity = data["quantity"].as_i64().unwrap_or(0);
    match event.kind.as_str() {
        "OrderPlaced" => {
            row["status"] = json!("placed");
            row["customer_id"] = data["customer_id"].clone();
            row["total"] = json!(total_of(&data["lines"]));
            row["lines"] = json!(data["lines"].as_array().map_or(0, Vec::len));
            row["paid"] = json!(0);
            row["refunded"] = json!(0);
            row["payment_id"] = Value::Null;
            row["saga_id"] = Value::Null;
            row["cancellation"] = Value::Null;
        }
        "CheckoutStarted" => {
            row["saga_id"] = data["saga_id"].clone();
            row["payment_id"] = data["payment_id"].clone();
        }
        "OrderConfirmed" => {
            row["status"] = json!("confirmed");
            row["paid"] = data["paid"]["amount"].clone();
        }
        "OrderPaid" => row["paid"] = json!(event.amount()),
        "OrderShipped" => row["status"] = json!("shipped"),
        "OrderDelivered" => row["status"] = json!("delivered"),
        "OrderCancelled" => {
            row["status"] = json!("cancelled");
            row["cancellation"] = data["reason"].clone();
        }
        "OrderRefunded" => bump(row, "refunded", event.amount()),

        "StockCounted" => {
            row["on_hand"] = data["on_hand"].clone();
            bump(row, "reserved", 0);
        }
        "StockReceived" => bump(row, "on_hand", quantity),
        "StockAdjusted" => bump(row, "on_hand", data["delta"].as_i64().unwrap_or(0)),
        "StockReserved" => bump(row, "reserved", quantity),
        "StockCommitted" => {
            bump(row, "reserved", -quantity);
            bump(row, "on_hand", -quantity);
        }
        "StockReleased" | "StockReservationExpired" => bump(row, "reserved", -quantity),
        "StockReturned" => bump(row, "on_hand", quantity),

        "ReservationMade" => row["status"] = json!("reserved"),
        "ReservationCommitted" => row["status"] = json!("committed"),
        "ReservationReleased" => row["status"] = json!("released"),
        "ReservationReturned" => row["status"] = json!("returned"),
        "ReservationExpired" => row["status"] = json!("expired"),

        "PaymentRequested" => {
            row["status"] = json!("pending");
            row["token"] = data["token"].clone();
            row["authorized"] = json!(event.amount());
            row["captured"] = json!(0);
            row["refunded"] = json!(0);
            row["open"] = json!(1);
        }
        "PaymentAuthorized" => {
            row["status"] = json!("authorized");
            bump(row, "open", -1);
        }
        "PaymentDeclined" => {
            row["status"] = json!("declined");
            bump(row, "open", -1);
        }
        // Giving up a payment that was not answered yet: from then on the void is what is open.
        "PaymentVoidRequested" if row["status"] == "pending" => row["open"] = json!(1),
        "PaymentCaptureRequested" | "PaymentVoidRequested" | "PaymentRefundRequested" => bump(row, "open", 1),
        "PaymentCaptured" => {
            row["status"] = json!("captured");
            row["captured"] = json!(event.amount());
            bump(row, "open", -1);
        }
        "PaymentVoided" => {
            row["status"] = json!("voided");
            bump(row, "open", -1);
        }
        "PaymentRefunded" => {
            bump(row, "refunded", event.amount());
            bump(row, "open", -1);
        }
        "PaymentCaptureFailed" | "PaymentVoidFailed" | "PaymentRefundFailed" => bump(row, "open", -1),
        "PaymentAuthorizationExpired" => {
            row["status"] = json!("expired");
            row["open"] = json!(0);
        }

        "CheckoutCompleted" => row["settled"] = json!("completed"),
        "CheckoutCompensated" => row["settled"] = json!("compensated"),
        // A cancelled order takes its finished saga up again.
        "CheckoutCompensationStarted" => row["settled"] = Value::Null,
        "CheckoutPlanned" => {
            row["token"] = data["token"].clone();
            row["settled"] = Value::Null;
        }
        "CheckoutStepRetried" => row["next_attempt_at"] = data["next_attempt_at"].clone(),
        _ => {}
    }
}

/// What lines cost together.
pub(crate) fn total_of(lines: &Value) -> i64 {
    let lines = lines.as_array().into_iter().flatten();
    lines.map(|line| line["quantity"].as_i64().unwrap_or(0) * line["unit_price"]["amount"].as_i64().unwrap_or(0)).sum()
}

/// How much of each SKU lines name together.
pub(crate) fn by_sku(lines: &Value) -> BTreeMap<String, i64> {
    let mut quantities = BTreeMap::new();
    for line in lines.as_array().into_iter().flatten() {
        *quantities.entry(line["sku"].as_str().unwrap_or_default().to_owned()).or_insert(0) +=
            line["quantity"].as_i64().unwrap_or(0);
    }
    quantities
}
