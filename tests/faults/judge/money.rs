//! Money: the log and the gateway's books agree to the cent, and every order has what its status says (MONEY-1 to MONEY-4,
//! SAGA-1).

use std::collections::BTreeMap;

use serde_json::Value;

use super::Findings;
use crate::log::{Told, by_sku};

pub(super) fn judge(told: &Told, ledger: &[Value], findings: &mut Findings) {
    payments(told, ledger, findings);
    orders(told, findings);
    for (stream, _) in told.named("checkout-") {
        let saga = told.fold(stream);
        findings.unless(!saga["settled"].is_null(), "SAGA-1", || format!("{stream} is not settled: {saga}"));
    }
}

/// MONEY-4: our payments, row by row, beside the gateway's.
fn payments(told: &Told, ledger: &[Value], findings: &mut Findings) {
    let mut books = BTreeMap::new();
    for row in ledger {
        let id = row["payment_id"].as_str().unwrap_or_default();
        findings.unless(books.insert(id, row).is_none(), "MONEY-4", || format!("the books have {id} twice"));
        findings.unless(told.streams.contains_key(&format!("payment-{id}")), "MONEY-4", || {
            format!("the gateway was asked for {id}, of which the log knows nothing: {row}")
        });
    }
    for (stream, id) in told.named("payment-") {
        let ours = told.fold(stream);
        findings.unless(ours["open"] == 0, "SAGA-1", || format!("{stream} waits for the gateway at rest: {ours}"));
        let amount = |value: &Value| value.as_i64().unwrap_or(0);
        let theirs = books.get(id).copied().cloned().unwrap_or_default();
        let (authorized, captured) = (amount(&theirs["authorized"]), amount(&theirs["captured"]));
        let (voided, refunded) = (amount(&theirs["voided"]), amount(&theirs["refunded"]));
        let agrees = captured == amount(&ours["captured"])
            && refunded == amount(&ours["refunded"])
            && match ours["status"].as_str() {
                Some("authorized") => authorized == amount(&ours["authorized"]) && voided == 0 && captured == 0,
                Some("captured") => authorized == amount(&ours["authorized"]) && voided == authorized - captured,
                // Nothing is held any more, whatever had been promised.
                Some("voided" | "declined") => voided == authorized && captured == 0,
                Some("expired") => captured == 0,
                _ => false,
            };
        findings.unless(agrees, "MONEY-4", || format!("{stream} is {ours}, the books say {theirs}"));
        findings.unless(refunded <= captured, "MONEY-2", || format!("{id}: {refunded} of {captured} were given back"));
        let counted = |kind: &str| told.stream(stream).filter(|event| event.kind == kind).count();
        for once in ["PaymentAuthorized", "PaymentDeclined", "PaymentCaptured", "PaymentVoided"] {
            findings.unless(counted(once) <= 1, "MONEY-4", || format!("{stream} has {} {once}", counted(once)));
        }
    }
}

/// MONEY-1, MONEY-3, STOCK-2: what an order says, its payment and its goods are one story.
fn orders(told: &Told, findings: &mut Findings) {
    for (stream, id) in told.named("order-") {
        let order = told.fold(stream);
        let total = order["total"].as_i64().unwrap_or(0);
        let payment = order["payment_id"].as_str().map(|id| told.fold(&format!("payment-{id}")));
        let number = |field: &str| payment.as_ref().and_then(|payment| payment[field].as_i64()).unwrap_or(0);
        let (captured, refunded) = (number("captured"), number("refunded"));
        let right = match order["status"].as_str() {
            Some("confirmed" | "shipped" | "delivered") => captured == total && refunded <= captured,
            Some("cancelled") => captured == refunded,
            // Only what was never to be paid may stay.
            Some("placed") => order["saga_id"].is_null() && captured == 0,
            _ => false,
        };
        findings.unless(right, "MONEY-1", || {
            format!("{stream} is {order}, its payment {}", payment.clone().unwrap_or_default())
        });
        let paid = (order["paid"].as_i64(), order["refunded"].as_i64());
        findings.unless(paid == (Some(captured), Some(refunded)), "MONEY-1", || {
            format!("{stream} shows {paid:?} paid and refunded, its payment has {captured} and {refunded}")
        });
        goods(told, id, &order, findings);
    }
}

/// What left the shelves for an order is what it bought, and nothing if it is cancelled.
fn goods(told: &Told, id: &str, order: &Value, findings: &mut Findings) {
    let Some(placed) = told.stream(&format!("order-{id}")).next() else { return };
    let kept = matches!(order["status"].as_str(), Some("confirmed" | "shipped" | "delivered"));
    let mut bought = BTreeMap::<String, i64>::new();
    if kept {
        for line in placed.data["lines"].as_array().into_iter().flatten() {
            let location = line["location_id"].as_str().or(placed.data["location_id"].as_str()).unwrap_or_default();
            let sku = line["sku"].as_str().unwrap_or_default();
            *bought.entry(format!("{location}~{sku}")).or_default() += line["quantity"].as_i64().unwrap_or(0);
        }
    }
    let mut gone = BTreeMap::<String, i64>::new();
    for location in locations(&placed.data) {
        for (stream, _) in told.reservations_of(id, &location) {
            if told.fold(stream)["status"] == "committed"
                && let Some(made) = told.stream(stream).next()
            {
                for (sku, quantity) in by_sku(&made.data["lines"]) {
                    *gone.entry(format!("{location}~{sku}")).or_default() += quantity;
                }
            }
        }
    }
    findings.unless(gone == bought, "STOCK-2", || format!("order {id} bought {bought:?}, {gone:?} left the shelves"));
}

fn locations(placed: &Value) -> Vec<String> {
    let lines = placed["lines"].as_array().into_iter().flatten();
    let named = lines.map(|line| line["location_id"].as_str().or(placed["location_id"].as_str()).unwrap_or_default());
    let all: std::collections::BTreeSet<String> = named.map(str::to_owned).collect();
    all.into_iter().collect()
}
