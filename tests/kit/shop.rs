//! What the shop is asked, as JSON: bodies for the common commands, so that a test reads as a story and not as punctuation.

use serde_json::{Value, json};

/// Money in minor units of euros.
pub fn euros(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

/// A card that behaves as its token says.
pub fn card(token: &str) -> Value {
    json!({"method": "card", "token": token})
}

/// One line of an order.
pub fn line(sku: &str, quantity: u64, unit_price: i64) -> Value {
    json!({"sku": sku, "quantity": quantity, "unit_price": euros(unit_price)})
}

/// The body of `POST /v1/orders`; with a token, checkout starts at once.
pub fn order(customer: &str, location: &str, lines: Vec<Value>, token: Option<&str>) -> Value {
    let mut body = json!({"customer_id": customer, "location_id": location, "lines": lines});
    if let Some(token) = token {
        body["payment"] = card(token);
    }
    body
}

/// The body of `POST /v1/payments`.
pub fn payment(amount: i64, token: &str) -> Value {
    json!({"amount": euros(amount), "method": "card", "token": token})
}

/// The body of `POST /v1/stock/{location}/reservations`.
pub fn reservation(lines: &[(&str, u64)], expires_in_s: Option<u64>) -> Value {
    let lines: Vec<Value> = lines.iter().map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity})).collect();
    let mut body = json!({"lines": lines});
    if let Some(seconds) = expires_in_s {
        body["expires_in_s"] = json!(seconds);
    }
    body
}

/// The body of `PUT /v1/stock/{location}/{sku}`.
pub fn count(on_hand: i64) -> Value {
    json!({"on_hand": on_hand})
}
