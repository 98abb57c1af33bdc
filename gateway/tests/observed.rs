//! What the gateway tells operators: one log line and one measurement per request, and nothing that must not be told.
//!
//! One test, since a process has one recorder and one subscriber.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::{Behaviour, TestApp, token_of};
use fanledger_gateway::{Metrics, Role, serve_metrics};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_request_leaves_one_line_and_one_measurement_and_no_secret() {
    let captured = Captured::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG).with_writer(captured.clone());
    subscriber.init();
    let metrics = Metrics::install().unwrap();
    assert!(Metrics::install().is_err(), "a second recorder");
    let app = TestApp::with().with_runners().build().await;
    captured.0.lock().unwrap().clear();

    let token = token_of("alice|example.com", &[Role::Operator]);
    let paths = ["/api/v1/ops/projections?secret=s3cret", "/api/v1/ops/projections/balances/pause", "/nothing/s3cret"];
    app.get(paths[0]).token(&token).header("x-request-id", "r-1").header("x-correlation-id", "c-1").send().await;
    app.post(paths[1]).token(&token).key("s3cret").send().await;
    app.get(paths[2]).send().await;
    app.behave(Behaviour::Panic);
    app.post("/webhooks/stripe").header("stripe-signature", "s3cret").body("s3cret").send().await;

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    for secret in ["s3cret", "alice", &token, token.rsplit('.').next().unwrap()] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let access: Vec<&Value> = lines.iter().filter(|line| line["target"] == "fanledger_gateway::access").collect();
    let told: Vec<(&str, u64)> = access
        .iter()
        .map(|line| (line["fields"]["route"].as_str().unwrap(), line["fields"]["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("/api/v1/ops/projections", 422),
            ("/api/v1/ops/projections/{name}/pause", 200),
            ("unmatched", 404),
            ("/webhooks/stripe", 500)
        ]
    );
    assert_eq!(
        (&access[0]["fields"]["request_id"], &access[0]["fields"]["correlation_id"]),
        (&"r-1".into(), &"c-1".into())
    );
    assert!(access.iter().all(|line| line["fields"]["duration_us"].is_u64()));

    // As Prometheus gets it, from a listener of its own that has nothing else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve_metrics(listener, metrics, stop.clone()));
    let scrape = async |path: &str| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = scrape("/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for wanted in [
        r#"http_server_request_duration_seconds_count{method="GET",route="/api/v1/ops/projections",status="422"} 1"#,
        r#"http_server_request_duration_seconds_count{method="GET",route="unmatched",status="404"} 1"#,
        r#"http_server_request_duration_seconds_bucket{method="POST",route="/webhooks/stripe",status="500",le="10"} 1"#,
        "http_server_active_requests 0",
        "fanledger_gateway_panics_total 1",
    ] {
        assert!(text.contains(wanted), "{wanted} not in {text}");
    }
    assert!(scrape("/api/v1/ops/projections").await.starts_with("HTTP/1.1 404"));
    stop.cancel();
    serving.await.unwrap();
}
