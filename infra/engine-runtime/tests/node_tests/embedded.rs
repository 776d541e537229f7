//! The same over the log on disk.

use std::sync::Arc;

use engine::record::Genesis;
use engine_embedded::{EmbeddedLog, Options};

use crate::business::Wish;
use crate::house::{House, LONG, add, asked, decided, genesis, id, jar, trip, until};

fn open(directory: &tempfile::TempDir, genesis: Genesis) -> Arc<EmbeddedLog> {
    let (log, _) = EmbeddedLog::open(directory.path().join("log"), Options::or_found(genesis)).unwrap();
    Arc::new(log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_the_log_was_opened_again() {
    let (directory, genesis) = (tempfile::tempdir().unwrap(), genesis());
    let mut house = House::over(open(&directory, genesis), genesis);
    let node = house.node().await;
    house.bell.be_silent();
    let start = asked(id(), Wish::StartTrip { trip: trip("a"), jar: jar("a") });
    decided(node.submit(start).await);
    let commands = (0..200).map(|number| asked(id(), add(&(number % 50).to_string(), 1))).collect::<Vec<_>>();
    let answers = futures::future::join_all(commands.iter().cloned().map(|command| node.submit(command))).await;
    let before = answers.into_iter().map(decided).collect::<Vec<_>>();
    node.abandon().await;
    drop(node);
    let node = house.node().await;
    assert!(node.drain(LONG).await);
    drop(node);
    // The old log goes before the new one is opened: a directory has one owner.
    house.log = Arc::new(engine::memory::MemoryLog::new(genesis));
    house.log = open(&directory, genesis);
    house.bell.answer_again();
    let node = house.node().await;
    for (command, before) in commands.into_iter().zip(before) {
        let again = decided(node.submit(command).await);
        assert_eq!((again.replayed, again.position, again.state), (true, before.position, before.state));
    }
    until(&node, &trip("a"), |thing| thing.rung().is_some()).await;
    assert!(node.drain(LONG).await);
}
