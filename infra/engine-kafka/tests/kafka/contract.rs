//! The promises every log makes.

use std::sync::Arc;

use engine::contract::LogFixture;
use engine::log::Log;

use crate::support::{fresh_name, genesis, needs_kafka, open, options};

#[test]
fn it_is_a_log() {
    needs_kafka!();
    engine::contract::log(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let options = options(&fresh_name(), directory.path());
        let genesis = genesis(4);
        let log: Arc<dyn Log> = Arc::new(open(&options, Some(&genesis)));
        let reopen = move |log| {
            drop(log);
            let log: Arc<dyn Log> = Arc::new(open(&options, None));
            log
        };
        LogFixture { log, genesis, reopen: Some(Box::new(reopen)), keep: Box::new(directory) }
    });
}
