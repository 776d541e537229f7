//! Brokers, topics and their settings, as the log itself looks at them before it is opened.

use engine_kafka::{KafkaOptions, check};

use super::Finding;

/// Looks at them. Waits for the brokers.
pub(super) fn look(options: &KafkaOptions) -> Vec<Finding> {
    let found = check(options);
    if found.is_empty() {
        return vec![Finding::ok(
            "kafka",
            format!("{} and {} are as they should be", options.brokers, options.topic()),
        )];
    }
    let told = found.into_iter().map(|finding| {
        let what = format!("{}: {}", finding.name, finding.what);
        match finding.fatal {
            true => Finding::failed("kafka", what, finding.mend),
            false => Finding::note("kafka", what, finding.mend),
        }
    });
    told.collect()
}
