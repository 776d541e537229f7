//! PROJ-1: what anyone reads is the fold of the log, by id and in lists, to the version.

use serde_json::{Value, json};

use super::{Evidence, Findings};
use crate::log::Told;

pub(super) fn judge(told: &Told, evidence: &Evidence, findings: &mut Findings) {
    for stream in told.streams.keys() {
        let expected = told.fold(stream);
        let row = evidence.rows.get(stream);
        let Some(row) = row else {
            findings.add("PROJ-1", format!("{stream} is in the log and cannot be read"));
            continue;
        };
        compare(stream, "GET shows", &expected, &row.body, findings);
        let etag = format!("\"{}\"", expected["version"]);
        findings.unless(row.etag.as_deref() == Some(&etag), "PROJ-1", || {
            format!("{stream} is at {etag}, its ETag is {:?}", row.etag)
        });
        if is_listed(stream) {
            match evidence.listed.get(stream) {
                Some(body) => compare(stream, "its list shows", &expected, body, findings),
                None => findings.add("PROJ-1", format!("{stream} is in the log and in no list")),
            }
        }
    }
    for stream in evidence.listed.keys().chain(evidence.rows.keys()) {
        findings.unless(told.streams.contains_key(stream), "PROJ-1", || format!("{stream} is read and is in no log"));
    }
}

fn is_listed(stream: &str) -> bool {
    ["order-", "stock-", "checkout-"].iter().any(|prefix| stream.starts_with(prefix))
}

fn compare(stream: &str, where_from: &str, expected: &Value, shown: &Value, findings: &mut Findings) {
    let pairs: Vec<(&str, Value)> = if stream.starts_with("order-") {
        vec![
            ("status", shown["status"].clone()),
            ("customer_id", shown["customer_id"].clone()),
            ("total", shown["total"]["amount"].clone()),
            ("lines", json!(shown["lines"].as_array().map_or(0, Vec::len))),
            ("paid", shown["paid"]["amount"].clone()),
            ("refunded", shown["refunded"]["amount"].clone()),
            ("payment_id", shown["payment_id"].clone()),
            ("saga_id", shown["saga_id"].clone()),
            ("cancellation", shown["cancellation"]["reason"].clone()),
        ]
    } else if stream.starts_with("stock-") {
        let available = shown["on_hand"].as_i64().unwrap_or(0) - shown["reserved"].as_i64().unwrap_or(0);
        findings.unless(shown["available"] == available, "PROJ-1", || {
            format!("{stream}: {where_from} {shown}, which does not add up")
        });
        vec![("on_hand", shown["on_hand"].clone()), ("reserved", shown["reserved"].clone())]
    } else if stream.starts_with("reservation-") {
        vec![("status", shown["status"].clone())]
    } else if stream.starts_with("payment-") {
        findings.unless(shown["in_flight"].is_null(), "PROJ-1", || {
            format!("{stream}: {where_from} {} in flight at rest", shown["in_flight"])
        });
        vec![
            ("status", shown["status"].clone()),
            ("authorized", shown["authorized"]["amount"].clone()),
            ("captured", shown["captured"]["amount"].clone()),
            ("refunded", shown["refunded"]["amount"].clone()),
        ]
    } else {
        vec![("settled", shown["state"].clone())]
    };
    for (field, shown) in pairs.into_iter().chain([("version", shown["version"].clone())]) {
        findings.unless(expected[field] == shown, "PROJ-1", || {
            format!("{stream}: {where_from} {field} = {shown}, the log says {}", expected[field])
        });
    }
}
