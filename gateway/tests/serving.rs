//! Connections: slow clients are let go, and a stop finishes what was accepted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Behaviour, TestApp};
use fanledger_gateway::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

async fn start(app: &TestApp) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, app.state.clone(), stop.clone()));
    (address, stop, serving)
}

/// Sends bytes and reads until the server closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_stop_finishes_what_was_accepted() {
    let app = TestApp::new().await;
    app.behave(Behaviour::WaitForPermission);
    let (address, stop, serving) = start(&app).await;
    let request = b"POST /webhooks/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    let client = tokio::spawn(exchange(address, request));
    app.intake.entered.notified().await;
    stop.cancel();
    // Nobody new is let in: refused, or closed without an answer.
    common::until(|| async { TcpStream::connect(address).await.is_err() }).await;
    app.intake.permission.notify_one();
    let answer = client.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"position\":17"), "{answer}");
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_is_bounded() {
    let app = TestApp::with().config(|config| config.drain_timeout = Duration::from_millis(100)).build().await;
    app.behave(Behaviour::Hang);
    let (address, stop, serving) = start(&app).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"POST /webhooks/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    app.intake.entered.notified().await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_a_stop() {
    let app = TestApp::with().with_runners().build().await;
    let (address, stop, serving) = start(&app).await;
    let token = common::token(&[fanledger_gateway::Role::Finance]);
    let request = format!("GET /api/v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    socket.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_dawdles_over_the_head_is_let_go() {
    let app = TestApp::with().config(|config| config.header_read_timeout = Duration::from_millis(100)).build().await;
    let (address, stop, serving) = start(&app).await;
    let answer = exchange(address, b"GET /healthz HTTP/1.1\r\nhost:").await;
    assert!(!answer.contains("200"), "{answer}");
    // An idle connection goes the same way, after its answer.
    let answer = exchange(address, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn who_takes_no_answers_is_let_go() {
    let app = TestApp::with().config(|config| config.write_timeout = Duration::from_millis(100)).build().await;
    let (address, stop, serving) = start(&app).await;
    let (mut answers, mut requests) = TcpStream::connect(address).await.unwrap().into_split();
    // Asks until nothing more fits on the way, and then until the server has had enough.
    let asking = async { while requests.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap();
    let mut rest = Vec::new();
    let _ended = tokio::time::timeout(Duration::from_secs(10), answers.read_to_end(&mut rest)).await.unwrap();
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let app = TestApp::new().await;
    let (address, stop, serving) = start(&app).await;
    let request = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-padding: {}\r\nconnection: close\r\n\r\n",
        "x".repeat(20 * 1024)
    );
    assert!(exchange(address, request.as_bytes()).await.starts_with("HTTP/1.1 200"));
    let many = "a: b\r\n".repeat(100);
    let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}connection: close\r\n\r\n");
    assert!(exchange(address, request.as_bytes()).await.starts_with("HTTP/1.1 431"));
    stop.cancel();
    serving.await.unwrap();
}
