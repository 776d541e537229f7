//! Commands through the door: decided, repeated, asked about.

use engine::message::{Answer, CommandId, Envelope};
use engine::position::{Position, Version};
use engine::stream::Tenant;
use uuid::Uuid;

use crate::business::{Thing, Wish};
use crate::house::{House, add, asked, decided, id, jar, of_main, until};

#[tokio::test]
async fn a_command_is_decided_and_recorded() {
    let house = House::new();
    let node = house.node().await;
    let answer = decided(node.submit(asked(id(), add("a", 3))).await);
    assert_eq!((answer.outcome.status, answer.version, answer.replayed), (201, Version(1), false));
    assert_eq!(answer.state.as_deref(), Some(&Thing::Jar { filled: 3 }));
    let commit = node.history().record_at(answer.position).await.unwrap();
    assert_eq!(commit.resource, jar("a"));
    assert!(node.acknowledged(answer.position.partition).unwrap() >= answer.position.offset);
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_also_after_the_stream_moved_on() {
    let house = House::new();
    let node = house.node().await;
    let first = asked(id(), add("a", 3));
    let before = decided(node.submit(first.clone()).await);
    decided(node.submit(asked(id(), add("a", 4))).await);
    let again = decided(node.submit(first).await);
    assert!(again.replayed);
    assert_eq!((again.position, again.version, again.outcome), (before.position, before.version, before.outcome));
    assert_eq!(again.state, before.state);
}

#[tokio::test]
async fn a_refusal_is_repeated_word_for_word() {
    let house = House::new();
    let node = house.node().await;
    let command = asked(id(), add("a", 101));
    let first = decided(node.submit(command.clone()).await);
    assert_eq!(first.outcome.code.as_deref(), Some("jar-full"));
    let again = decided(node.submit(command).await);
    assert_eq!((again.outcome, again.position, again.replayed), (first.outcome, first.position, true));
}

#[tokio::test]
async fn an_id_is_not_taken_for_something_else() {
    let house = House::new();
    let node = house.node().await;
    let id = id();
    decided(node.submit(asked(id, add("a", 3))).await);
    assert!(matches!(node.submit(asked(id, add("a", 4))).await, Ok(Answer::Reused)));
}

#[tokio::test]
async fn what_can_never_be_valid_is_said_and_not_recorded() {
    let house = House::new();
    let node = house.node().await;
    let id = id();
    let answer = node.submit(asked(id, Wish::Nonsense { jar: jar("a") })).await;
    assert!(matches!(answer, Ok(Answer::Invalid(errors)) if errors.len() == 1));
    assert_eq!(node.inquire(Tenant::default(), id).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_fifty_times_at_once_has_one_effect_and_equal_answers() {
    let house = House::new();
    let node = house.node().await;
    let command = asked(id(), add("a", 2));
    let answers = futures::future::join_all((0..50).map(|_| tokio::spawn(node.submit(command.clone())))).await;
    let answers = answers.into_iter().map(|answer| decided(answer.unwrap())).collect::<Vec<_>>();
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    for answer in &answers {
        assert_eq!((answer.position, &answer.outcome), (answers[0].position, &answers[0].outcome));
        assert_eq!(answer.state.as_deref(), Some(&Thing::Jar { filled: 2 }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_commands_never_overfill() {
    let house = House::new();
    let node = house.node().await;
    let answers = futures::future::join_all((0..150).map(|_| node.submit(asked(id(), add("a", 1))))).await;
    let accepted = answers.into_iter().map(decided).filter(|answer| answer.outcome.is_accepted()).count();
    assert_eq!(accepted, 100);
}

#[tokio::test]
async fn a_future_dropped_before_it_is_polled_takes_effect_all_the_same() {
    let house = House::new();
    let node = house.node().await;
    drop(node.submit(asked(id(), add("a", 5))));
    let mut polled = Box::pin(node.submit(asked(id(), add("a", 6))));
    assert!(futures::poll!(&mut polled).is_pending());
    drop(polled);
    until(&node, &jar("a"), |thing| thing.filled() == 11).await;
}

#[tokio::test]
async fn a_restart_keeps_everything_with_and_without_the_state_store() {
    let house = House::new();
    let node = house.node().await;
    let mut asked_before = Vec::new();
    for number in 0..40 {
        let command = asked(id(), add(&format!("{}", number % 7), 1));
        asked_before.push((command.clone(), decided(node.submit(command).await)));
    }
    node.abandon().await;
    drop(node);
    for lose in [false, true] {
        if lose {
            house.lose_the_state();
        }
        let node = house.node().await;
        for (command, before) in &asked_before {
            let again = decided(node.submit(command.clone()).await);
            assert!(again.replayed);
            assert_eq!((again.position, again.state), (before.position, before.state.clone()));
        }
        assert!(node.drain(crate::house::LONG).await);
    }
}

#[tokio::test]
async fn an_id_is_found_on_whatever_it_was_used() {
    let house = House::new();
    let node = house.node().await;
    let id = id();
    let mut expected = Vec::new();
    for name in ["a", "b", "c"] {
        expected.push((jar(name), decided(node.submit(asked(id, add(name, 1))).await).position));
    }
    let found = |known: Vec<engine_runtime::node::KnownCommand>| {
        known.into_iter().map(|known| (known.resource, known.commit.unwrap().0)).collect::<Vec<(_, Position)>>()
    };
    assert_eq!(found(node.inquire(Tenant::default(), id).await.unwrap()), expected);
    node.abandon().await;
    drop(node);
    let node = house.node().await;
    assert_eq!(found(node.inquire(Tenant::default(), id).await.unwrap()), expected);
    assert_eq!(node.inquire(Tenant::default(), CommandId(Uuid::new_v4())).await.unwrap(), []);
    assert_eq!(node.inquire(Tenant::new("other").unwrap(), id).await.unwrap(), []);
}

#[tokio::test]
async fn a_bare_question_is_answered_by_the_record_or_unheard() {
    let house = House::new();
    let node = house.node().await;
    let command = asked(id(), add("a", 3));
    let bare = Envelope { command: None, ..command.clone() };
    assert!(matches!(node.submit(bare.clone()).await, Ok(Answer::Unheard)));
    let first = decided(node.submit(command).await);
    let told = decided(node.submit(bare).await);
    assert_eq!((told.position, told.replayed), (first.position, true));
}

#[tokio::test]
async fn a_watch_sees_what_is_and_what_comes() {
    let house = House::new();
    let node = house.node().await;
    let mut watch = node.watch(of_main(&jar("a"))).await.unwrap();
    assert!(watch.current().is_none());
    let answer = decided(node.submit(asked(id(), add("a", 3))).await);
    let seen = watch.changed().await.unwrap();
    assert_eq!((seen.version, seen.position, seen.state.filled()), (Version(1), answer.position, 3));
    let later = node.watch(of_main(&jar("a"))).await.unwrap();
    assert_eq!(later.current().unwrap().version, Version(1));
    node.abandon().await;
    assert!(watch.changed().await.is_none());
}

#[tokio::test]
async fn a_misplaced_command_harms_nobody() {
    let house = House::new();
    let node = house.node().await;
    let mut command = asked(id(), add("a", 3));
    command.resource = jar("b");
    assert!(node.submit(command).await.is_err());
    assert!(node.is_ready());
}
