//! What is measured: how long records take to be acknowledged, what waits in the producer, how full its requests are,
//! and how far the local copy is behind.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use rdkafka::statistics::Statistics;

/// Of the way out.
pub(crate) struct OutboxMeasures {
    pub(crate) append_seconds: Histogram,
    pub(crate) unknown: Counter,
    pub(crate) replaced: Counter,
    queue_records: Gauge,
    queue_bytes: Gauge,
    request_records: Gauge,
    request_bytes: Gauge,
}

impl OutboxMeasures {
    pub(crate) fn new() -> Self {
        describe_histogram!(
            "docket_append_seconds",
            Unit::Seconds,
            "From handing a record to the log until it is durable"
        );
        describe_counter!("docket_log_unknown_total", "Records whose fate was unknown when they were reported");
        describe_counter!("docket_log_producers_replaced_total", "Producers that failed for good and were replaced");
        describe_gauge!("docket_log_queue_records", "Records in the producer, not acknowledged yet");
        describe_gauge!("docket_log_queue_bytes", Unit::Bytes, "Bytes in the producer, not acknowledged yet");
        describe_gauge!("docket_log_request_records", "Records per batch, mean of the last seconds");
        describe_gauge!("docket_log_request_bytes", Unit::Bytes, "Bytes per batch, mean of the last seconds");
        Self {
            append_seconds: histogram!("docket_append_seconds"),
            unknown: counter!("docket_log_unknown_total"),
            replaced: counter!("docket_log_producers_replaced_total"),
            queue_records: gauge!("docket_log_queue_records"),
            queue_bytes: gauge!("docket_log_queue_bytes"),
            request_records: gauge!("docket_log_request_records"),
            request_bytes: gauge!("docket_log_request_bytes"),
        }
    }

    pub(crate) fn take(&self, statistics: &Statistics, topic: &str) {
        self.queue_records.set(statistics.msg_cnt as f64);
        self.queue_bytes.set(statistics.msg_size as f64);
        if let Some(topic) = statistics.topics.get(topic) {
            self.request_records.set(topic.batchcnt.avg as f64);
            self.request_bytes.set(topic.batchsize.avg as f64);
        }
    }
}

/// Of the local copy.
pub(crate) struct FollowerMeasures {
    lag_records: Vec<Gauge>,
    pub(crate) fetched: Counter,
    pub(crate) cuts: Counter,
}

impl FollowerMeasures {
    pub(crate) fn new(partitions: u16) -> Self {
        describe_gauge!("docket_log_follow_lag_records", "Records that Kafka has and the local copy has not");
        describe_counter!("docket_log_followed_total", "Records taken into the local copy");
        describe_counter!("docket_log_copy_cut_total", "Times the local copy was damaged and cut back");
        let lag = |partition: u16| gauge!("docket_log_follow_lag_records", "partition" => partition.to_string());
        Self {
            lag_records: (0..partitions).map(lag).collect(),
            fetched: counter!("docket_log_followed_total"),
            cuts: counter!("docket_log_copy_cut_total"),
        }
    }

    pub(crate) fn lag(&self, partition: usize, records: u64) {
        if let Some(gauge) = self.lag_records.get(partition) {
            gauge.set(records as f64);
        }
    }
}
