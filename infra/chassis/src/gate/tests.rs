//! Who gets a turn, in which order, and who is turned away.

use super::*;

fn gate(places_max: usize) -> Gate {
    Gate::new("test", places_max, Duration::from_millis(500))
}

/// Comes to the gate and waits there.
async fn comes(gate: &Gate) -> tokio::task::JoinHandle<Option<Place>> {
    let before = gate.state().waiting.len();
    let gate_of_task = gate.clone();
    let task = tokio::spawn(async move { gate_of_task.enter().await });
    while gate.state().waiting.len() == before {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_waits_until_one_is_given_back() {
    let gate = gate(2);
    let first = gate.enter().await.unwrap();
    let _second = gate.enter().await.unwrap();
    let third = comes(&gate).await;
    drop(first);
    let third = third.await.unwrap().unwrap();
    assert_eq!(gate.state().taken, 2);
    drop(third);
    assert_eq!(gate.state().taken, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_is_allowed() {
    let gate = gate(1);
    let _held = gate.enter().await.unwrap();
    let began = Instant::now();
    assert!(gate.enter().await.is_none());
    assert_eq!(began.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn who_came_first_goes_first_while_waits_are_short() {
    let gate = gate(1);
    let held = gate.enter().await.unwrap();
    let (first, second) = (comes(&gate).await, comes(&gate).await);
    drop(held);
    let first = first.await.unwrap().unwrap();
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn who_came_last_goes_first_once_waits_are_long() {
    let gate = gate(1);
    let held = gate.enter().await.unwrap();
    let first = comes(&gate).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let last = comes(&gate).await;
    drop(held);
    let place = last.await.unwrap();
    assert!(place.is_some() && !first.is_finished());
    assert!(first.await.unwrap().is_none(), "the place was not given back in time");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_something_else_has_left_its_place() {
    let gate = gate(1);
    let turned = Turn::new(Some(gate.clone()), None);
    turned
        .scope(async {
            turn().await.unwrap();
            assert_eq!(gate.state().taken, 1);
            leave();
            assert_eq!(gate.state().taken, 0);
            leave();
        })
        .await;
    assert_eq!(gate.state().taken, 0);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_no_place_behind() {
    let gate = gate(1);
    let held = gate.enter().await.unwrap();
    for _ in 0..100 {
        comes(&gate).await.abort();
    }
    tokio::task::yield_now().await;
    drop(held);
    while gate.state().taken > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.state().waiting.len(), 0);
    assert!(gate.enter().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_gives_its_place_back() {
    let gate = gate(1);
    let long = gate.clone();
    let task = tokio::spawn(Turn::new(Some(long), None).scope(async {
        turn().await.unwrap();
        // Again is no second place.
        turn().await.unwrap();
        tokio::time::sleep(HELD_MAX * 3).await;
    }));
    tokio::time::sleep(HELD_MAX / 2).await;
    assert_eq!(gate.state().taken, 1);
    tokio::time::sleep(HELD_MAX).await;
    assert_eq!(gate.state().taken, 0);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_not_begun() {
    let gate = gate(1);
    let held = gate.enter().await.unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    let turned = Turn::new(Some(gate.clone()), Some(Arc::clone(&gone)));
    let task = tokio::spawn(turned.scope(async { turn().await.is_ok() }));
    while gate.state().waiting.is_empty() {
        tokio::task::yield_now().await;
    }
    gone.store(true, Ordering::Relaxed);
    drop(held);
    assert!(!task.await.unwrap());
    assert_eq!(gate.state().taken, 0);
}

#[tokio::test]
async fn what_has_come_whole_is_begun_where_there_is_a_place_whoever_hears_of_it() {
    let gone = Arc::new(AtomicBool::new(true));
    let turned = Turn::new(Some(gate(1)), Some(gone));
    assert!(turned.scope(async { turn().await.is_ok() }).await);
}

#[test]
fn who_looks_how_it_is_needs_no_turn() {
    let gates = Gates::new(&GateLimits::DEFAULT);
    for path in ["/metrics", "/livez", "/readyz", "/problems/overloaded", "/version"] {
        assert!(gates.before(&Method::GET, path).is_none(), "{path}");
    }
    let same = |one: Option<Gate>, other: &Gate| Arc::ptr_eq(&one.unwrap().0, &other.0);
    assert!(same(gates.before(&Method::POST, "/v1/orders"), &gates.commands));
    assert!(same(gates.before(&Method::GET, "/v1/orders"), &gates.reads));
}
