//! Clients that no broker is left to. A broker whose controller has fenced every broker (the only one was frozen, or a whole
//! cluster comes back) answers that there are none, and librdkafka then lets go of all that it knows, those it was
//! started with as well. Mostly it begins with these again; but if its last connection ends before it is through with
//! that very answer, never (confluentinc/librdkafka#5301, in 2.12.1). There is no word for it, only what the client
//! tells of itself, and no mend but another client.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{counter, describe_counter};
use rdkafka::statistics::Statistics;

/// Whether a client was seen without a broker.
#[derive(Debug)]
pub(crate) struct Stranding {
    client: &'static str,
    seen: AtomicBool,
}

impl Stranding {
    /// Of a client of this name.
    pub(crate) fn new(client: &'static str) -> Self {
        Self { client, seen: AtomicBool::new(false) }
    }

    /// Looks at what the client tells of itself. Whether it has to be replaced, now or since a look before.
    pub(crate) fn look(&self, statistics: &Statistics) -> bool {
        if !has_brokers(statistics) && !self.seen.swap(true, Ordering::SeqCst) {
            tracing::warn!(
                client = self.client,
                "the brokers said that there are none, and this client has let go of all it knew: it is replaced"
            );
            describe_counter!(
                "docket_log_clients_stranded_total",
                "Clients that lost every broker when the brokers said that there are none, and were replaced"
            );
            counter!("docket_log_clients_stranded_total", "client" => self.client).increment(1);
        }
        self.seen()
    }

    /// Whether it has to be replaced.
    pub(crate) fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }
}

/// Whether there is a broker that the client could ask anything. The group's coordinator ("logical") is one only as long as
/// another stands for it.
fn has_brokers(statistics: &Statistics) -> bool {
    statistics.brokers.values().any(|broker| matches!(broker.source.as_str(), "learned" | "configured"))
}

/// Ends a client that was replaced. That takes its time, in which others must not wait.
pub(crate) fn end(client: impl Send + 'static, then: impl FnOnce() + Send + 'static) {
    let ending = std::thread::Builder::new().name("docket-kafka-ending".to_owned());
    let ended = ending.spawn(move || {
        drop(client);
        then();
    });
    if let Err(error) = ended {
        tracing::error!(%error, "a client that was replaced cannot be ended");
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;

    use super::*;

    fn statistics(sources: &[&str]) -> Statistics {
        let broker = |source: &&str| {
            let broker = Broker { source: (*source).to_owned(), state: "DOWN".to_owned(), ..Broker::default() };
            (format!("{source} broker"), broker)
        };
        Statistics { brokers: sources.iter().map(broker).collect(), ..Statistics::default() }
    }

    #[test]
    fn a_client_is_stranded_when_no_broker_is_left_that_it_could_ask() {
        for enough in [&["configured"][..], &["learned"], &["logical", "learned"]] {
            assert!(!Stranding::new("test").look(&statistics(enough)), "{enough:?}");
        }
        for nobody in [&[][..], &["logical"], &["internal", "logical"]] {
            assert!(Stranding::new("test").look(&statistics(nobody)), "{nobody:?}");
        }
    }

    #[test]
    fn who_was_stranded_is_replaced_whatever_it_says_next() {
        let stranding = Stranding::new("test");
        assert!(!stranding.seen());
        assert!(stranding.look(&statistics(&["logical"])));
        assert!(stranding.look(&statistics(&["learned"])) && stranding.seen());
    }
}
