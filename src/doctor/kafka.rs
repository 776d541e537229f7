//! Brokers, topics and their settings, as the log itself looks at them before it is opened.

use engine_kafka::{KafkaOptions, check};

use super::{Finding, clocks};

/// Looks at them. Waits for the brokers.
pub(super) fn look(options: &KafkaOptions) -> Vec<Finding> {
    let found = check(options);
    if found.is_empty() {
        let what = format!("{} and {} are as they should be", options.brokers, options.topic());
        return [vec![Finding::ok("kafka", what)], times(options)].concat();
    }
    // Brokers that cannot be used as they are need not be asked for the time.
    let times = if found.iter().any(|finding| finding.fatal) { Vec::new() } else { times(options) };
    let told = found.into_iter().map(|finding| {
        let what = format!("{}: {}", finding.name, finding.what);
        match finding.fatal {
            true => Finding::failed("kafka", what, finding.mend),
            false => Finding::note("kafka", what, finding.mend),
        }
    });
    told.chain(times).collect()
}

/// The brokers' clocks.
fn times(options: &KafkaOptions) -> Vec<Finding> {
    let brokers = match engine_kafka::clocks(options) {
        Ok(brokers) => brokers,
        Err(fault) => {
            let what = format!("the brokers' clocks cannot be compared: {fault}");
            return vec![Finding::note("clocks", what, "let this user write to the owners' topic, or look there")];
        }
    };
    let told = brokers.iter().map(|clock| {
        let whose = format!("broker {}", clock.broker);
        clock.ahead_s.map_or_else(
            || {
                let what = format!("{whose} does not stamp what comes, so its clock cannot be compared");
                let setting = "--add-config message.timestamp.type=LogAppendTime";
                let mend = format!("kafka-configs.sh --alter --topic docket.owners.{} {setting}", options.name);
                Finding::note("clocks", what, mend)
            },
            |ahead_s| clocks(&whose, ahead_s),
        )
    });
    told.collect()
}
