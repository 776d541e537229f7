//! The checks are shown to find what they are there to find.

use std::sync::Arc;

use uuid::Uuid;

use super::books::{Booked, OrderSeen, Seen, StockSeen, differences};
use super::pace::Pace;
use super::tally::{Ending, Sent, Tally, note};
use super::workload::Workload;
use super::*;
use crate::output::Paint;

const BEFORE: u64 = 1_000;
const LATE_GRACE: Duration = Duration::from_secs(10);

fn arguments(profile: Profile) -> LoadArguments {
    LoadArguments {
        profile,
        clients: None,
        also: Vec::new(),
        rate: None,
        lasting: None,
        count: Some(20),
        warmup: Duration::ZERO,
        locations: 2,
        skus: 3,
        stock: BEFORE,
        declined: 10,
        give_up: Duration::from_secs(1),
        late_for: LATE_GRACE,
        settle_within: Duration::from_secs(1),
        skip_checks: false,
    }
}

/// A run of 20 requests after which everything adds up.
fn honest(profile: Profile) -> (Workload, Vec<Sent>, Seen) {
    let workload = Workload::new(&arguments(profile), "load-1".to_owned());
    let mut seen = Seen::default();
    for location in 0..2 {
        for sku in 0..3 {
            seen.stock.insert((location, sku), StockSeen { on_hand: BEFORE as i64, reserved: 0 });
        }
    }
    let mut sent = Vec::new();
    for number in 0..20 {
        let id = Uuid::now_v7();
        sent.push(Sent { number, id, ending: Ending::Accepted, settled: true });
        let asked = workload.asked(number);
        let total = asked.total() as i64;
        if profile == Profile::HotStock {
            seen.stock.get_mut(&(asked.location, asked.lines[0].sku)).unwrap().reserved += 1;
            continue;
        }
        let payment = Uuid::now_v7();
        let confirmed = profile == Profile::Checkout && asked.good_card;
        if confirmed {
            for (sku, quantity) in asked.quantities() {
                seen.stock.get_mut(&(asked.location, sku)).unwrap().on_hand -= quantity as i64;
            }
            seen.books.insert(payment, Booked { captured: total, refunded: 0 });
        }
        let status = match (profile, confirmed) {
            (Profile::Place, _) => "placed",
            (_, true) => "confirmed",
            (_, false) => "cancelled",
        };
        let paid = if confirmed { total } else { 0 };
        let order = OrderSeen { status: status.to_owned(), total, paid, refunded: 0, payment: Some(payment) };
        seen.orders.insert(id, order);
    }
    (workload, sent, seen)
}

fn found(profile: Profile, spoil: impl FnOnce(&mut Vec<Sent>, &mut Seen)) -> Vec<String> {
    let (workload, mut sent, mut seen) = honest(profile);
    spoil(&mut sent, &mut seen);
    differences(&workload, &sent, BEFORE, &seen)
}

#[test]
fn what_adds_up_passes() {
    for profile in [Profile::Place, Profile::Checkout, Profile::HotStock] {
        assert_eq!(found(profile, |_, _| {}), Vec::<String>::new(), "{profile:?}");
    }
}

#[test]
fn a_wrong_ledger_is_found() {
    let first = |seen: &Seen| *seen.books.keys().next().unwrap();
    let spoilt: [fn(&mut Booked); 3] =
        [|booked| booked.captured += 1, |booked| booked.captured *= 2, |booked| booked.refunded = 1];
    for spoil in spoilt {
        let found = found(Profile::Checkout, |_, seen| spoil(seen.books.get_mut(&first(seen)).unwrap()));
        assert!(found.iter().any(|told| told.contains("the gateway took")), "{found:?}");
    }
    let found = found(Profile::Checkout, |_, seen| {
        seen.books.remove(&first(seen));
    });
    assert!(found.iter().any(|told| told.contains("the gateway took 0")), "{found:?}");
}

#[test]
fn a_cancelled_order_that_was_paid_for_is_found() {
    let found = found(Profile::Checkout, |_, seen| {
        let cancelled = seen.orders.values().find(|order| order.status == "cancelled").unwrap();
        let booked = Booked { captured: cancelled.total, refunded: 0 };
        seen.books.insert(cancelled.payment.unwrap(), booked);
    });
    assert!(found.iter().any(|told| told.contains("is cancelled; the gateway took")), "{found:?}");
}

#[test]
fn an_order_that_is_lost_doubled_or_made_up_is_found() {
    let lost = found(Profile::Place, |sent, seen| drop(seen.orders.remove(&sent[0].id)));
    assert!(lost.iter().any(|told| told.contains("is gone")), "{lost:?}");
    let doubled = found(Profile::Place, |sent, seen| {
        let again = seen.orders[&sent[0].id].clone();
        seen.orders.insert(Uuid::now_v7(), again);
    });
    assert!(doubled.iter().any(|told| told.contains("nobody asked for it")), "{doubled:?}");
    let risen = found(Profile::Place, |sent, _| sent[0].ending = Ending::Rejected);
    assert!(risen.iter().any(|told| told.contains("was rejected and exists")), "{risen:?}");
    let dearer = found(Profile::Place, |sent, seen| seen.orders.get_mut(&sent[0].id).unwrap().total += 1);
    assert!(dearer.iter().any(|told| told.contains("should cost")), "{dearer:?}");
}

#[test]
fn an_order_that_does_not_exist_must_not_be_paid_for() {
    let found = found(Profile::Checkout, |sent, seen| {
        let id = Uuid::now_v7();
        sent.push(Sent { number: 99, id, ending: Ending::Rejected, settled: true });
        seen.books.insert(schemas::id::OrderId(id).payment().0, Booked { captured: 5, refunded: 0 });
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("does not exist and was paid for"));
}

#[test]
fn an_unknown_ending_may_have_either_result() {
    let there = found(Profile::Place, |sent, _| sent[0].ending = Ending::Unknown);
    let absent = found(Profile::Place, |sent, seen| {
        sent[0].ending = Ending::Unknown;
        seen.orders.remove(&sent[0].id);
    });
    assert_eq!((there, absent), (vec![], vec![]));
}

#[test]
fn stock_that_is_off_by_one_is_found() {
    for profile in [Profile::Place, Profile::Checkout, Profile::HotStock] {
        for (on_hand, reserved) in [(1, 0), (-1, 0), (0, 1)] {
            let found = found(profile, |_, seen| {
                let stock = seen.stock.get_mut(&(1, 1)).unwrap();
                stock.on_hand += on_hand;
                stock.reserved += reserved;
            });
            assert_eq!(found.len(), 1, "{profile:?} {found:?}");
            assert!(found[0].contains("load-1-1~sku-0001"), "{found:?}");
        }
    }
}

#[test]
fn overselling_and_false_shortages_are_found() {
    let (workload, mut sent, mut seen) = honest(Profile::HotStock);
    // Exactly as many pieces as buyers, then one fewer.
    let least = seen.stock.values().map(|stock| stock.reserved).max().unwrap();
    for stock in seen.stock.values_mut() {
        stock.on_hand = least - 1;
    }
    let found = differences(&workload, &sent, (least - 1) as u64, &seen);
    assert!(found.iter().any(|told| told.contains("buyers were promised one")), "{found:?}");
    let (_, _, seen) = honest(Profile::HotStock);
    sent.push(Sent { number: 20, id: Uuid::now_v7(), ending: Ending::Rejected, settled: false });
    let found = differences(&workload, &sent, BEFORE, &seen);
    assert!(found.len() == 1 && found[0].contains("turned 1 buyers away"), "{found:?}");
}

#[test]
fn sagas_that_hang_and_the_servers_own_findings_are_told() {
    let found = found(Profile::Checkout, |sent, seen| {
        seen.unsettled.insert(sent[0].id);
        seen.violations.push("LOG-1 at order-1: a gap".to_owned());
    });
    assert!(found.iter().any(|told| told.contains("has not settled")));
    assert!(found.iter().any(|told| told.contains("LOG-1")));
}

#[test]
fn the_result_holds_the_figures_that_programs_read() {
    let mut arguments = arguments(Profile::Checkout);
    arguments.rate = Some(300.0);
    let workload = Workload::new(&arguments, "load-1".to_owned());
    let pace: Arc<Pace> = Pace::new(None, None, Some(1), Duration::ZERO);
    let mut tally = Tally::new();
    note(&mut tally.answers, Duration::from_micros(1500));
    note(&mut tally.settlements, Duration::from_micros(2500));
    tally.end(Ending::Accepted);
    let result = report::result(&arguments, &workload, &pace, &tally, Some(&["stock is gone".to_owned()]));
    assert_eq!(result["profile"], "checkout");
    assert_eq!(result["clients"], 64);
    assert_eq!(result["rate"], 300.0);
    assert_eq!(result["requests"], 1);
    assert_eq!(result["latency_ms"]["p50"], 1.5);
    assert_eq!(result["settled_ms"]["p99"], 2.501);
    assert_eq!(result["outcomes"]["accepted"], 1);
    assert_eq!(result["checks"], "failed");
    let page = report::table(&result, Paint::never());
    assert!(page.contains("p99.9") && page.contains("1 differences"), "{page}");
    assert!(report::failure(&["stock is gone".to_owned()]).to_string().contains("stock is gone"));
}

/// What a fake server was asked: the key, and whether to wait for the saga.
type AskedFor = Arc<std::sync::Mutex<Vec<(String, bool)>>>;

/// Answers the first of all requests with *unknown*, and every other as asked for.
async fn stumbling() -> (AskedFor, String) {
    use axum::extract::Request;
    use axum::http::HeaderMap;
    let seen = AskedFor::default();
    let keeping = Arc::clone(&seen);
    let app = axum::Router::new().fallback(move |request: Request| {
        let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
        let wait = request.headers().contains_key("prefer");
        let mut seen = keeping.lock().unwrap();
        seen.push((key, wait));
        let mut headers = HeaderMap::new();
        headers.insert("docket-position", "3:7".parse().unwrap());
        if wait {
            headers.insert("preference-applied", "wait=30".parse().unwrap());
        }
        let answer = match seen.len() {
            1 => (http::StatusCode::SERVICE_UNAVAILABLE, headers, r#"{"code":"unconfirmed","outcome":"unknown"}"#),
            _ => (http::StatusCode::CREATED, headers, "{}"),
        };
        async move { answer }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (seen, authority)
}

async fn worked(authority: &str, profile: Profile, count: u64, give_up: Duration) -> Tally {
    let workload = Arc::new(Workload::new(&arguments(profile), "load-1".to_owned()));
    let pace = Pace::new(None, None, Some(count), Duration::ZERO);
    pace.begin(LATE_GRACE);
    Worker::new(authority, workload, pace, give_up).run().await
}

#[tokio::test]
async fn an_unknown_outcome_is_repeated_under_the_same_key_until_it_is_definite() {
    let (seen, authority) = stumbling().await;
    let tally = worked(&authority, Profile::Place, 3, Duration::from_secs(30)).await;
    assert_eq!((tally.accepted, tally.unknown, tally.retries), (3, 0, 1));
    assert_eq!((tally.tries.len(), tally.turned_away, tally.lost), (3, 1, 0));
    assert_eq!((tally.answers.len(), tally.sent.len()), (3, 3));
    assert_eq!(tally.positions(), "3:7");
    let seen = seen.lock().unwrap();
    let keys = seen.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>();
    assert_eq!(keys.len(), 4);
    assert_eq!(keys[0], keys[1]);
    assert!(keys[1] != keys[2] && keys[2] != keys[3]);
    // The wait for the repeat counts.
    assert!(tally.answers.max() >= 75_000);
}

#[tokio::test]
async fn one_checkout_in_ten_is_answered_at_once_and_all_are_seen_to_settle() {
    let (seen, authority) = stumbling().await;
    let tally = worked(&authority, Profile::Checkout, 20, Duration::from_secs(30)).await;
    assert_eq!((tally.accepted, tally.answers.len(), tally.settlements.len()), (20, 2, 20));
    assert!(tally.sent.iter().all(|sent| sent.settled));
    let at_once = seen.lock().unwrap().iter().filter(|(_, wait)| !wait).count();
    assert_eq!(at_once, 3, "two, and the one that was repeated");
}

#[tokio::test]
async fn a_server_that_never_answers_leaves_the_outcome_unknown() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    drop(listener);
    let tally = worked(&authority, Profile::HotStock, 1, Duration::from_millis(50)).await;
    assert_eq!((tally.accepted, tally.rejected, tally.unknown), (0, 0, 1));
    assert!(tally.lost > 0 && tally.turned_away == 0);
    assert_eq!(tally.sent[0].ending, Ending::Unknown);
}
