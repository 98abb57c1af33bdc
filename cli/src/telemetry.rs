//! What a process tells of itself while it runs: log lines always, traces where a collector is named.
//!
//! Traces are switched on by OpenTelemetry's own variables, as for any other program: `OTEL_EXPORTER_OTLP_ENDPOINT` (or
//! `…_TRACES_ENDPOINT`), `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and their like. Only spans with the target
//! [`trace::TARGET`] are exported, and no log line: what may stand in a trace is decided where such a span is made.
//!
//! Architecture Invariant: without a collector nothing of OpenTelemetry is set up, and a span costs one comparison.

use std::env;
use std::io::IsTerminal;

use async_trait::async_trait;
use fanledger_journal::trace;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, ParseError, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

use crate::settings::{Environment, Settings};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const OURS: &str = "http/protobuf";

/// Why a process cannot tell of itself.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is wrong.
    #[error("FANLEDGER_LOG must be a filter such as `info` or `info,fanledger_journal=debug`")]
    Log(#[source] ParseError),
    /// The collector is to be spoken to in another way than we can.
    #[error(
        "{variable} is {value:?}: traces are sent as {OURS}, so unset it, and name the collector's port for HTTP (4318 as a rule)"
    )]
    Protocol {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
    },
    /// The collector's address, or what else is set for it, cannot be used.
    #[error("set up the export of traces; is {ENDPOINT} a URL such as http://127.0.0.1:4318?")]
    Exporter(#[source] ExporterBuildError),
    /// No HTTP client can be made.
    #[error("make the HTTP client that sends traces")]
    Client(#[source] reqwest::Error),
}

/// What was started; ends with [`Telemetry::finish`].
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts the log, filtered by `FANLEDGER_LOG` or else by `usual`, and, for a process that serves (`traces`), the export of
    /// traces where the environment names a collector. Once per process.
    ///
    /// # Errors
    /// When the filter or what is set for OpenTelemetry cannot be used.
    pub fn start(settings: &Settings, usual: &'static str, traces: bool) -> Result<Self, TelemetryError> {
        let filter = settings.log.as_deref().unwrap_or(usual);
        let filter = EnvFilter::builder().parse(filter).map_err(TelemetryError::Log)?;
        let traces = if traces && is_wanted() { Some(provider()?) } else { None };
        let log = log(settings.environment);
        match &traces {
            None => tracing_subscriber::registry().with(log.with_filter(filter)).init(),
            Some(provider) => {
                let spans = tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer("fanledger"))
                    .with_location(false)
                    .with_threads(false)
                    .with_tracked_inactivity(false)
                    .with_target(false)
                    .with_level(false)
                    .with_filter(Targets::new().with_target(trace::TARGET, LevelFilter::DEBUG));
                tracing_subscriber::registry().with(log.with_filter(filter)).with(spans).init();
                trace::record();
                tracing::info!("exports traces");
            }
        }
        Ok(Self { traces })
    }

    /// Sends what has not been sent yet; gives up after some seconds.
    pub async fn finish(self) {
        let Some(provider) = self.traces else { return };
        // It waits for its own thread, which sends with the help of this runtime.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// JSON in production, where programs read it.
fn log(environment: Environment) -> Box<dyn Layer<Registry> + Send + Sync> {
    let log = fmt::layer().with_writer(std::io::stderr);
    match environment {
        Environment::Production => log.json().boxed(),
        Environment::Development => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    }
}

fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

fn is_wanted() -> bool {
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    !disabled && (set(ENDPOINT).is_some() || set(TRACES_ENDPOINT).is_some())
}

fn provider() -> Result<SdkTracerProvider, TelemetryError> {
    for variable in [TRACES_PROTOCOL, PROTOCOL] {
        if let Some(value) = set(variable).filter(|value| value != OURS) {
            return Err(TelemetryError::Protocol { variable, value });
        }
    }
    let client = reqwest::Client::builder().build().map_err(TelemetryError::Client)?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime { runtime: Handle::current(), client })
        .build()
        .map_err(TelemetryError::Exporter)?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())
}

fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let named = set("OTEL_SERVICE_NAME").is_some()
        || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    let builder = Resource::builder().with_attribute(version);
    if named { builder.build() } else { builder.with_service_name("fanledger").build() }
}

/// The exporter runs on a thread of its own, where reqwest has no runtime: its requests run on ours.
#[derive(Debug)]
struct OnRuntime {
    runtime: Handle,
    client: reqwest::Client,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
