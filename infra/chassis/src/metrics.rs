//! Metrics in Prometheus' text format: one recorder per process, buckets in seconds, a route to scrape. Names and labels
//! belong to whoever counts; labels never hold ids.

use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Buckets of whatever ends in `_seconds`: from a decision in memory to a gateway that takes its time.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];
/// Buckets of everything else, such as records per group: powers of two.
pub const COUNT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0];
/// How often recorded values are folded into their buckets: unbounded memory otherwise if nobody scrapes. 1 s: a busy
/// server records tens of thousands in that time.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// The recorder's reading end. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Metrics are recorded by somebody else in this process already, or its buckets are wrong.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be installed")]
pub struct MetricsUnavailable(#[from] metrics_exporter_prometheus::BuildError);

impl Metrics {
    /// Makes the process record its metrics here. Once per process, before anything is counted.
    pub fn install() -> Result<Self, MetricsUnavailable> {
        Ok(Self(builder()?.install_recorder()?))
    }

    /// What is recorded so far, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps the recorder's memory bounded until `shutdown`; to be spawned.
    pub async fn upkeep(self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(UPKEEP_EVERY)).await.is_some() {
            self.0.run_upkeep();
        }
    }

    /// The route `/metrics`.
    pub fn routes(&self) -> Router {
        let metrics = self.clone();
        Router::new().route(
            "/metrics",
            get(move || {
                let response = metrics.answer();
                async move { response }
            }),
        )
    }

    fn answer(&self) -> Response {
        let mut response = self.render().into_response();
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, text);
        response
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new()
        .set_buckets(COUNT_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_counts_have_their_own_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let metrics = Metrics(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("docket_append_duration_seconds").record(0.0004);
            metrics::histogram!("docket_group_records").record(3.0);
            metrics::counter!("docket_commands_total", "outcome" => "accepted").increment(2);
        });
        let text = metrics.render();
        assert!(text.contains("docket_append_duration_seconds_bucket{le=\"0.0005\"} 1"), "{text}");
        assert!(text.contains("docket_group_records_bucket{le=\"4\"} 1"), "{text}");
        assert!(text.contains("docket_commands_total{outcome=\"accepted\"} 2"), "{text}");
    }
}
