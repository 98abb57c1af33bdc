//! `/metrics` in Prometheus' text form, on a listener of its own.

use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds in seconds. The interesting answers take milliseconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How often the recorder folds what was recorded, so that memory stays bounded though nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("install the metrics recorder; it can be installed once in a process")]
pub struct MetricsError(#[source] metrics_exporter_prometheus::BuildError);

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Makes this the process's recorder. Once per process.
    pub fn install() -> Result<Self, MetricsError> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .map_err(MetricsError)?;
        let handle = builder.install_recorder().map_err(MetricsError)?;
        describe();
        Ok(Self { handle })
    }

    /// What a scrape gets.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the recorder small until the token is cancelled.
    pub async fn upkeep(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(UPKEEP) => self.handle.run_upkeep(),
                () = shutdown.cancelled() => return,
            }
        }
    }

    pub(crate) fn router(self) -> Router {
        let scrape =
            move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.render()) };
        Router::new().route("/metrics", get(scrape))
    }
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "http_server_request_duration_seconds",
        Unit::Seconds,
        "Time to the answer, by method, route and status"
    );
    describe_gauge!("http_server_active_requests", "Requests under way");
    describe_gauge!("fanledger_gateway_streams", "Event streams under way");
    describe_counter!("fanledger_gateway_webhooks_turned_away_total", "Webhooks that the intake never saw, by reason");
    describe_counter!("fanledger_gateway_rate_limited_total", "Requests refused for their rate");
    describe_counter!("fanledger_gateway_overloaded_total", "Requests refused because too much was under way");
    describe_counter!("fanledger_gateway_tokens_refused_total", "Tokens that did not verify");
    describe_counter!("fanledger_gateway_panics_total", "Handlers that panicked");
}
