//! Traces as a collector gets them: one webhook is one trace, from the request to what every projection made of it. And what
//! happens without a collector, with one that is away, and with one that cannot be spoken to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use e2e::{Process, SECRET, Site, finish, gateway_url};
use fanledger_devkit::stripe::sign;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Everything that may stand in a span; docs/monitoring/README.md lists the same.
const ATTRIBUTES: [&str; 14] = [
    "fanledger.batch_events",
    "fanledger.committed",
    "fanledger.event_type",
    "fanledger.events",
    "fanledger.outcome",
    "fanledger.position",
    "fanledger.projection",
    "fanledger.stream",
    "fanledger.correlation_id",
    "fanledger.request_id",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "messaging.system",
];
const NAME: &str = "Ada Lovelace";
const EMAIL: &str = "ada@example.org";
/// What a stranger would like the trace to be.
const STRANGERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A collector that keeps what it gets.
struct Collector {
    url: String,
    spans: watch::Receiver<Vec<Span>>,
}

impl Collector {
    async fn start() -> Self {
        let (keep, spans) = watch::channel(Vec::new());
        let keep = Arc::new(keep);
        let take = async move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            keep.send_modify(|spans| spans.extend(scopes.flat_map(|of| of.spans)));
        };
        let router = Router::new().route("/v1/traces", post(take));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, spans }
    }

    /// Waits until there is a span of each of these names.
    async fn wait_for(&mut self, names: &[&str]) {
        let all = |spans: &Vec<Span>| names.iter().all(|name| spans.iter().any(|span| span.name == *name));
        let came = tokio::time::timeout(e2e::PATIENCE, self.spans.wait_for(all)).await.is_ok();
        let seen: BTreeSet<String> = self.spans.borrow().iter().map(|span| span.name.clone()).collect();
        assert!(came, "of {names:?} only these came: {seen:?}");
    }
}

fn charge() -> String {
    json!({
        "id": "evt_traced", "object": "event", "type": "charge.succeeded", "api_version": "2026-10-28.endive",
        "created": 1_790_000_000, "livemode": false,
        "data": {"object": {
            "id": "ch_traced", "object": "charge", "amount": 1000, "amount_captured": 1000, "amount_refunded": 0,
            "balance_transaction": null, "captured": true, "created": 1_790_000_000, "currency": "usd", "livemode": false,
            "paid": true, "refunded": false, "status": "succeeded",
            "billing_details": {"name": NAME, "email": EMAIL},
            "metadata": {"creator_id": "crt_traced", "fan_id": "fan_traced", "creator_share_bps": "8000"},
        }},
    })
    .to_string()
}

async fn send(gateway: &str, body: String) -> Value {
    let signature = sign(SECRET, fanledger_cli::clock::unix_seconds(), body.as_bytes());
    let answer = reqwest::Client::new()
        .post(format!("{gateway}/webhooks/stripe"))
        .header("stripe-signature", signature)
        .header("traceparent", format!("00-{STRANGERS_TRACE}-b7ad6b7169203331-01"))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn all(site: &Site, environment: &[(&str, &str)]) -> Process {
    let mut command = site.command(["all"]);
    command.envs(environment.iter().copied());
    Process::spawn("all", command)
}

fn text(value: &AnyValue) -> String {
    match value.value.as_ref().unwrap() {
        any_value::Value::StringValue(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_webhook_is_one_trace_up_to_every_projection() {
    let site = Site::start().await;
    let mut collector = Collector::start().await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let mut all = all(&site, &settings);
    let gateway = gateway_url(&mut all).await;
    let received = send(&gateway, charge()).await;
    assert_eq!(received["position"], 1);
    site.read(1).await;

    let names = [
        "POST /webhooks/stripe",
        "append",
        "publish",
        "apply stripe_translator",
        "translate",
        "apply stripe_inbox",
        "apply balances",
        "apply entries",
        "apply postings",
    ];
    collector.wait_for(&names).await;
    // The end flushes what is still on its way.
    assert!(all.terminate().await.success());
    let spans = collector.spans.borrow().clone();

    let root = spans.iter().find(|span| span.name == "POST /webhooks/stripe").unwrap();
    assert!(root.parent_span_id.is_empty(), "a stranger's traceparent is not honoured");
    assert_ne!(hex::encode(&root.trace_id), STRANGERS_TRACE);
    let trace: Vec<&Span> = spans.iter().filter(|span| span.trace_id == root.trace_id).collect();
    let ids: BTreeSet<&[u8]> = trace.iter().map(|span| span.span_id.as_slice()).collect();
    for name in names {
        assert!(trace.iter().any(|span| span.name == name), "no span {name} in the webhook's trace");
    }
    for span in &trace {
        assert!(span.parent_span_id.is_empty() == (span.span_id == root.span_id), "{} has no parent", span.name);
        assert!(
            span.span_id == root.span_id || ids.contains(span.parent_span_id.as_slice()),
            "{} is an orphan",
            span.name
        );
    }
    // What the translator appended is below its own span, which is below the append of the raw event.
    let by_id: BTreeMap<&[u8], &Span> = trace.iter().map(|span| (span.span_id.as_slice(), *span)).collect();
    let ancestors = |span: &Span| {
        let mut names = Vec::new();
        let mut at = by_id.get(span.parent_span_id.as_slice());
        while let Some(span) = at {
            names.push(span.name.clone());
            at = by_id.get(span.parent_span_id.as_slice());
        }
        names
    };
    let balances = trace.iter().find(|span| span.name == "apply balances").unwrap();
    assert_eq!(ancestors(balances), ["append", "translate", "append", "POST /webhooks/stripe"]);

    // Every event that the webhook led to says where it was made, in the journal as in NATS.
    let head = site.head().await;
    for position in 1..=head {
        let event = site.run(&format!("journal show {position}")).await.json(0);
        let traceparent = event["metadata"]["traceparent"].as_str().unwrap().to_owned();
        assert!(traceparent.contains(&hex::encode(&root.trace_id)), "{position}: {traceparent}");
    }

    let allowed: BTreeSet<&str> = ATTRIBUTES.into_iter().collect();
    for span in &spans {
        assert!(span.events.is_empty(), "log lines stay out of traces");
        for attribute in &span.attributes {
            assert!(allowed.contains(attribute.key.as_str()), "{}: {}", span.name, attribute.key);
            let value = text(attribute.value.as_ref().unwrap());
            for private in [NAME, EMAIL, SECRET, "crt_traced", "fan_traced"] {
                assert!(!value.contains(private), "{}: {} = {value}", span.name, attribute.key);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_nothing_but_its_traces_and_without_one_no_event_names_a_trace() {
    let site = Site::start().await;
    // Nobody listens there.
    let mut away =
        all(&site, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_BSP_SCHEDULE_DELAY", "50")]);
    let gateway = gateway_url(&mut away).await;
    assert_eq!(send(&gateway, charge()).await["position"], 1);
    site.read(1).await;
    assert!(away.terminate().await.success());

    let before = site.head().await;
    let mut off = all(&site, &[]);
    let gateway = gateway_url(&mut off).await;
    let another = charge().replace("evt_traced", "evt_untraced").replace("ch_traced", "ch_untraced");
    assert_eq!(send(&gateway, another).await["position"], before + 1);
    let head = site.read(before + 1).await;
    for position in before + 1..=head {
        let event = site.run(&format!("journal show {position}")).await.json(0);
        assert_eq!(event["metadata"]["traceparent"], Value::Null, "{event}");
    }
    assert!(off.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_neither_exported_nor_named_in_the_journal() {
    let site = Site::start().await;
    let collector = Collector::start().await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_TRACES_SAMPLER", "always_off")];
    let mut all = all(&site, &settings);
    let gateway = gateway_url(&mut all).await;
    assert_eq!(send(&gateway, charge()).await["position"], 1);
    let head = site.read(1).await;
    // The end flushes what there is.
    assert!(all.terminate().await.success());
    assert!(collector.spans.borrow().is_empty());
    for position in 1..=head {
        let event = site.run(&format!("journal show {position}")).await.json(0);
        assert_eq!(event["metadata"]["traceparent"], Value::Null, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_exported_to_is_said_at_the_start() {
    let site = Site::start().await;
    for (name, value, said) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "not a url", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ] {
        let mut command = site.command(["all"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env(name, value);
        let ended = finish(command).await;
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}
