//! `/metrics` in Prometheus' text form, on a listener of its own.

use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds in seconds. The interesting answers take milliseconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Of batches, in commands or events: powers of two up to what one can hold.
const COMMANDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const EVENTS: [f64; 7] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];
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
        // Without buckets the exporter makes summaries, whose quantiles cannot be added up over processes.
        let mut builder = PrometheusBuilder::new();
        for (suffix, buckets) in [("_seconds", &SECONDS[..]), ("_commands", &COMMANDS), ("_events", &EVENTS)] {
            builder =
                builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets).map_err(MetricsError)?;
        }
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

/// Tells the process's recorder what each metric of ours means, those of the crates below included, and begins counters at
/// zero. [`Metrics::install`] does it; `docs/metrics.md` is written from it.
pub fn describe() {
    fanledger_commands::metrics::describe();
    crate::sampler::describe();
    describe_gauge!("fanledger_build_info", "Always 1; the `version` of the program");
    gauge!("fanledger_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    describe_histogram!(
        "http_server_request_duration_seconds",
        Unit::Seconds,
        "Time to the answer, by `method`, `route` and `status`; 499 is a client that went away before the answer"
    );
    describe_gauge!("http_server_active_requests", "Requests under way");
    describe_gauge!("fanledger_gateway_streams", "Event streams under way");
    describe_counter!(
        "fanledger_gateway_webhooks_turned_away_total",
        "Webhooks that the intake never saw, by `reason`: `overloaded`, `timed_out` and `unread`"
    );
    describe_counter!("fanledger_gateway_rate_limited_total", "Requests refused for their rate");
    describe_counter!("fanledger_gateway_overloaded_total", "Requests refused because too much was under way");
    describe_counter!("fanledger_gateway_tokens_refused_total", "Tokens that did not verify");
    describe_counter!("fanledger_gateway_panics_total", "Handlers that panicked");
    for reason in ["overloaded", "timed_out", "unread"] {
        counter!("fanledger_gateway_webhooks_turned_away_total", "reason" => reason).increment(0);
    }
    for name in [
        "fanledger_gateway_rate_limited_total",
        "fanledger_gateway_overloaded_total",
        "fanledger_gateway_tokens_refused_total",
        "fanledger_gateway_panics_total",
    ] {
        counter!(name).increment(0);
    }
    gauge!("fanledger_gateway_streams").set(0.0);
}
