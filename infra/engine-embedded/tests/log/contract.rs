//! The promises every log makes.

use std::sync::Arc;

use engine::contract::LogFixture;
use engine::log::Log;
use engine_embedded::Options;

use crate::support::{genesis, open, small};

fn fixture(options: impl Fn() -> Options + 'static) -> LogFixture {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    let log: Arc<dyn Log> = Arc::new(open(&path, options()).0);
    LogFixture {
        log,
        genesis: genesis(4),
        reopen: Some(Box::new(move |log| {
            drop(log);
            Arc::new(open(&path, options()).0)
        })),
        keep: Box::new(directory),
    }
}

#[test]
fn it_is_a_log() {
    engine::contract::log(|| fixture(|| Options::or_found(genesis(4))));
}

#[test]
fn it_is_a_log_with_segments_that_are_always_full() {
    engine::contract::log(|| fixture(|| small(4)));
}
