//! What breaks on the way, and what may then be said.

use std::time::Duration;

use engine::message::{Answer, NoAnswer};
use engine::stream::Tenant;
use engine_runtime::peers::Peers;
use engine_runtime::remote::{GrpcPeers, RemoteOptions};
use tokio::net::TcpListener;

use crate::door::{LOG, LONG, Notes, Way, home, note, owner_at, peers, site, site_with};

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let owner = owner_at(listener.local_addr().unwrap());
    drop(listener);
    let (peers, envelope) = (peers(), note("x"));
    let told = peers.submit(&owner, home(&envelope), envelope.clone(), LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Unreachable);
    let told = peers.inquire(&owner, home(&envelope), Tenant::default(), envelope.id, LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Unreachable);
    for nonsense in ["", "nowhere", "http://", "a b:1", "127.0.0.1:99999"] {
        let owner = engine_runtime::peers::Owner { node: "b".into(), address: nonsense.into() };
        let told = peers.submit(&owner, home(&envelope), envelope.clone(), LONG).await;
        assert_eq!(told.unwrap_err(), NoAnswer::Unreachable, "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let site = site().await;
    let (peers, envelope) = (peers(), note("x"));
    let address = site.serving.address();
    peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG).await.unwrap();
    site.shutdown.cancel();
    site.serving.ended().await;
    let told = peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Unreachable);

    let listener = TcpListener::bind(address).await.unwrap();
    let door = std::sync::Arc::new(crate::door::Entrance(site.door.clone()));
    let shutdown = tokio_util::sync::CancellationToken::new();
    let _again = engine_runtime::remote::serve::<Notes>(listener, door, RemoteOptions::default(), shutdown).unwrap();
    peers.submit(&site.owner, home(&envelope), envelope, LONG).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_dies_with_the_command_leaves_it_unknown() {
    let site = site().await;
    let way = Way::to(site.serving.address()).await;
    site.door.close();
    let envelope = note("x");
    let asking = tokio::spawn(peers().submit(&way.owner, home(&envelope), envelope, LONG));
    site.door.until_asked(1).await;
    way.cut();
    assert_eq!(asking.await.unwrap().unwrap_err(), NoAnswer::Unconfirmed);
    // The command was not cancelled by that.
    site.door.open();
    site.door.until_finished(1).await;
}

#[tokio::test]
async fn a_peer_that_takes_the_command_and_says_nothing_leaves_it_unknown() {
    // Accepts and reads nothing, as a process that was stopped does.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let envelope = note("x");
    let within = Duration::from_millis(100);
    let told = peers().submit(&owner_at(listener.local_addr().unwrap()), home(&envelope), envelope, within).await;
    assert_eq!(told.unwrap_err(), NoAnswer::TimedOut);
}

#[tokio::test]
async fn a_connection_that_broke_while_unused_costs_no_command() {
    let site = site().await;
    let first = Way::to(site.serving.address()).await;
    let (peers, envelope) = (peers(), note("x"));
    peers.submit(&first.owner, home(&envelope), envelope.clone(), LONG).await.unwrap();
    first.cut();
    // The cut way no longer listens: whether or not the break was noticed yet, nothing was decided twice or wrongly.
    let told = peers.submit(&first.owner, home(&envelope), envelope.clone(), LONG).await.unwrap_err();
    assert!(matches!(told, NoAnswer::Unreachable | NoAnswer::Unconfirmed), "{told:?}");
    assert_eq!(site.door.times_asked(), 1);
}

#[tokio::test]
async fn no_time_left_asks_nobody() {
    let site = site().await;
    let (peers, envelope) = (peers(), note("x"));
    peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG).await.unwrap();
    let told = peers.submit(&site.owner, home(&envelope), envelope, Duration::ZERO).await;
    assert_eq!(told.unwrap_err(), NoAnswer::TimedOut);
    assert_eq!(site.door.times_asked(), 1);
}

#[tokio::test]
async fn a_deadline_that_passes_while_it_is_decided_leaves_it_unknown_and_running() {
    let site = site().await;
    site.door.close();
    let envelope = note("x");
    let told = peers().submit(&site.owner, home(&envelope), envelope, Duration::from_secs(1)).await;
    assert_eq!(told.unwrap_err(), NoAnswer::TimedOut);
    site.door.until_asked(1).await;
    site.door.open();
    site.door.until_finished(1).await;
}

#[tokio::test]
async fn a_caller_that_disappears_does_not_cancel_the_command() {
    let site = site().await;
    site.door.close();
    let (peers, envelope) = (peers(), note("x"));
    let asking = tokio::spawn(peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG));
    site.door.until_asked(1).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    drop(peers);
    site.door.open();
    site.door.until_finished(1).await;
}

#[tokio::test]
async fn one_more_than_may_be_under_way_is_overloaded_at_once() {
    let site = site().await;
    site.door.close();
    let peers = GrpcPeers::new(LOG, &Notes, RemoteOptions { in_flight_max: 2, ..RemoteOptions::default() });
    let envelope = note("x");
    let ask = || peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG);
    let under_way = [tokio::spawn(ask()), tokio::spawn(ask())];
    site.door.until_asked(2).await;
    assert_eq!(ask().await.unwrap_err(), NoAnswer::Overloaded);
    assert_eq!(site.door.times_asked(), 2);
    site.door.open();
    for answer in under_way {
        assert!(matches!(answer.await.unwrap(), Ok(Answer::Decided(_))));
    }
    assert!(matches!(ask().await, Ok(Answer::Decided(_))), "the slots came back");
}

#[tokio::test]
async fn an_owner_that_has_taken_enough_is_overloaded_at_once() {
    let site = site_with(RemoteOptions { taken_in_flight_max: 1, ..RemoteOptions::default() }).await;
    site.door.close();
    let envelope = note("x");
    let taken = tokio::spawn(peers().submit(&site.owner, home(&envelope), envelope.clone(), LONG));
    site.door.until_asked(1).await;
    // Another node, with a connection of its own.
    let other = peers();
    let told = other.submit(&site.owner, home(&envelope), envelope.clone(), LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Overloaded);
    let told = other.inquire(&site.owner, home(&envelope), Tenant::default(), envelope.id, LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Overloaded);
    site.door.open();
    assert!(taken.await.unwrap().is_ok());
    assert_eq!(site.door.times_asked(), 1);
}

#[tokio::test]
async fn a_server_that_ends_answers_what_it_has_taken_and_takes_no_more() {
    let site = site().await;
    site.door.close();
    let (peers, envelope) = (peers(), note("x"));
    let taken = tokio::spawn(peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG));
    site.door.until_asked(1).await;
    site.shutdown.cancel();
    let ended = tokio::spawn(site.serving.ended());
    site.door.open();
    assert!(matches!(taken.await.unwrap(), Ok(Answer::Decided(_))));
    ended.await.unwrap();
    let told = peers.submit(&site.owner, home(&envelope), envelope, LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Unreachable);
}

#[tokio::test]
async fn a_panic_behind_the_door_leaves_the_command_unknown_and_the_server_running() {
    let site = site().await;
    let (peers, envelope) = (peers(), note("x"));
    site.door.says(|_| panic!("a bug"));
    let told = peers.submit(&site.owner, home(&envelope), envelope.clone(), LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Unconfirmed);
    site.door.says(|envelope| Ok(Answer::Decided(crate::door::decided(envelope))));
    assert!(peers.submit(&site.owner, home(&envelope), envelope, LONG).await.is_ok());
}

#[tokio::test]
async fn what_is_too_large_to_send_is_not_sent() {
    let site = site().await;
    let envelope = note(&"x".repeat(5 << 20));
    let told = peers().submit(&site.owner, home(&envelope), envelope, LONG).await;
    assert_eq!(told.unwrap_err(), NoAnswer::Unreachable);
    let envelope = note(&"x".repeat(3 << 20));
    let Ok(Answer::Decided(told)) = peers().submit(&site.owner, home(&envelope), envelope, LONG).await else {
        panic!("not decided")
    };
    assert_eq!(told.state.unwrap().0.len(), 3 << 20);
    assert_eq!(site.door.times_asked(), 1);
}
