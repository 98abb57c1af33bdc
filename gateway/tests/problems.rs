//! Every error is a problem document; limits hold; the webhook's answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Method;
use common::{Behaviour, TestApp};
use fanledger_gateway::{RateLimit, Role};
use futures::StreamExt;
use serde_json::json;

const PAUSE: &str = "/api/v1/ops/projections/balances/pause";
const TRIAL_BALANCE: &str = "/api/v1/ledger/trial-balance";

#[tokio::test]
async fn what_is_not_there_and_what_it_does_not_know() {
    let app = TestApp::new().await;
    for path in ["/", "/nothing", "/api/v1", "/api/v1/ledger", "/api/v1/ledger/nothing", "/metrics"] {
        app.get(path).send().await.problem(404, "not-found");
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/healthz", "GET,HEAD"),
        (Method::POST, TRIAL_BALANCE, "GET,HEAD"),
        (Method::GET, "/webhooks/stripe", "POST"),
        (Method::from_bytes(b"PURGE").unwrap(), PAUSE, "POST"),
    ] {
        let answer = app.call(method, path).role(Role::Admin).send().await;
        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
}

#[tokio::test]
async fn parameters_are_judged_all_at_once() {
    let app = TestApp::new().await;
    let path = "/api/v1/ledger/trial-balance?as_of=yesterday&by=moon&currency=xxx&asof=1&by=recorded";
    let answer = app.get(path).role(Role::Finance).send().await;
    answer.problem(422, "parameters-invalid");
    let fields: Vec<String> = answer.errors().into_keys().collect();
    assert_eq!(fields, ["as_of", "asof", "by", "currency"]);

    for (query, field) in [
        ("as_of=99999999999999999999", "as_of"),
        ("as_of=9223372036854775808", "as_of"),
        ("as_of=", "as_of"),
        ("as_of=%2B5", "as_of"),
        ("as_of=2026-01-31T12:00:00", "as_of"),
        ("currency=usdx", "currency"),
        ("currency=", "currency"),
        ("currency=USD", "currency"),
        ("%00=1", "query"),
        ("as_of=%FF", "as_of"),
    ] {
        let answer = app.get(&format!("{TRIAL_BALANCE}?{query}")).role(Role::Finance).send().await;
        assert_eq!(answer.status, 422, "{query}: {answer:?}");
        answer.problem(422, "parameters-invalid");
        assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), [field], "{query}");
    }
    for bad in ["-1", "x", "", "18446744073709551615", "+1"] {
        let answer = app.get(TRIAL_BALANCE).role(Role::Finance).header("journal-min-position", bad).send().await;
        answer.problem(422, "parameters-invalid");
        assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), ["Journal-Min-Position"], "{bad}");
    }
}

#[tokio::test]
async fn a_command_s_body_is_judged() {
    let app = TestApp::with().with_runners().build().await;
    let call = || app.post(PAUSE).role(Role::Operator);
    call().body("x").send().await.problem(415, "media-type-unsupported");
    call().header("content-type", "text/plain").body("{}").send().await.problem(415, "media-type-unsupported");
    call().header("content-type", "application/json").body("{").send().await.problem(400, "request-malformed");
    call().json(&json!([])).send().await.problem(400, "request-malformed");
    let answer = call().json(&json!({"until": 5})).send().await;
    answer.problem(422, "parameters-invalid");
    assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), ["body"]);
    call().body(vec![b' '; 64 * 1024 + 1]).send().await.problem(413, "body-too-large");
    assert_eq!(call().header("content-type", "application/json; charset=utf-8").body("{}").send().await.status, 200);
    app.post("/api/v1/ops/projections/moon/pause").role(Role::Operator).send().await.problem(404, "not-found");
    app.post("/api/v1/ops/projections/Robert'%3B/pause").role(Role::Operator).send().await.problem(404, "not-found");
}

#[tokio::test]
async fn the_webhook_s_answers() {
    let app = TestApp::new().await;
    let call = || app.post("/webhooks/stripe").header("stripe-signature", "t=1,v1=ab").body("{}");
    let answer = call().send().await;
    assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("17")));
    assert_eq!(answer.json(), json!({"received": true, "position": 17, "duplicate": false}));
    app.behave(Behaviour::Conflict);
    assert_eq!(
        call().send().await.json(),
        json!({"received": true, "position": 17, "duplicate": true, "conflict": true})
    );
    app.behave(Behaviour::RefuseSignature);
    call().send().await.problem(400, "signature-invalid");
    app.behave(Behaviour::NoEventId);
    call().send().await.problem(400, "event-id-missing");
    app.behave(Behaviour::Unavailable);
    let answer = call().send().await;
    let problem = answer.problem(503, "unavailable");
    assert!(answer.header("retry-after").is_some());
    assert!(!problem.to_string().contains("secret"), "{problem}");
}

#[tokio::test]
async fn the_webhook_gets_the_header_and_body_as_they_came() {
    let app = TestApp::new().await;
    app.post("/webhooks/stripe").body("no header").send().await;
    app.post("/webhooks/stripe")
        .header("stripe-signature", "a")
        .header("stripe-signature", "b")
        .body("xyz")
        .send()
        .await;
    let seen = app.intake.seen.lock().unwrap().clone();
    assert_eq!(seen, [(None, 9), (Some(b"a,b".to_vec()), 3)]);
}

#[tokio::test]
async fn a_webhook_over_a_mebibyte_is_refused_and_one_of_it_is_not() {
    let app = TestApp::new().await;
    let send = |bytes: usize| app.post("/webhooks/stripe").body(vec![b'x'; bytes]).send();
    assert_eq!(send(1024 * 1024).await.status, 200);
    send(1024 * 1024 + 1).await.problem(413, "body-too-large");
    let announced = app.post("/webhooks/stripe").header("content-length", "99999999999").send().await;
    announced.problem(413, "body-too-large");
    assert_eq!(app.intake.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn who_dribbles_large_webhooks_holds_up_no_small_one() {
    let app = TestApp::with().config(|config| config.webhooks_in_flight_max = 1).build().await;
    let (asked, mut is_read) = tokio::sync::mpsc::channel::<()>(1);
    let dribble =
        futures::stream::once(async move { asked.send(()).await }).map(|_| Ok::<_, std::io::Error>(Bytes::new()));
    let endless = Body::from_stream(dribble.chain(futures::stream::pending()));
    let dribbler = tokio::spawn(app.post("/webhooks/stripe").body(endless).send());
    is_read.recv().await.unwrap();
    let small = app.post("/webhooks/stripe").body("{}").send();
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), small).await.unwrap().status, 200);
    dribbler.abort();
}

#[tokio::test]
async fn a_panic_is_a_problem_and_not_the_end() {
    let app = TestApp::new().await;
    app.behave(Behaviour::Panic);
    let problem = app.post("/webhooks/stripe").send().await.problem(500, "internal");
    assert!(!problem.to_string().contains("as the test wants it"), "{problem}");
    app.behave(Behaviour::Accept);
    assert_eq!(app.post("/webhooks/stripe").send().await.status, 200);
}

#[tokio::test]
async fn what_takes_too_long_is_answered_all_the_same() {
    let app = TestApp::with()
        .with_runners()
        .config(|config| {
            config.request_timeout = Duration::from_millis(100);
            config.body_read_timeout = Duration::from_millis(100);
        })
        .build()
        .await;
    app.behave(Behaviour::Hang);
    app.post("/webhooks/stripe").send().await.problem(503, "timed-out");
    let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    app.post("/webhooks/stripe").body(endless).send().await.problem(408, "request-timeout");

    let mut held = app.superuser.begin().await.unwrap();
    sqlx::query("SELECT FROM control.runners FOR UPDATE").execute(&mut *held).await.unwrap();
    let answer = app.post(PAUSE).role(Role::Operator).send().await;
    answer.problem(503, "timed-out");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn too_many_requests_of_one_client_are_refused_and_webhooks_never() {
    let app = TestApp::with().config(|config| config.rate_limit = RateLimit { per_second: 1, burst: 3 }).build().await;
    for _ in 0..3 {
        app.get(TRIAL_BALANCE).send().await.problem(401, "token-missing");
    }
    let answer = app.get(TRIAL_BALANCE).role(Role::Finance).send().await;
    answer.problem(429, "rate-limited");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // No hop is trusted, so nobody writes themselves another address.
    app.get(TRIAL_BALANCE).header("x-forwarded-for", "203.0.113.1").send().await.problem(429, "rate-limited");
    for _ in 0..20 {
        assert_eq!(app.post("/webhooks/stripe").send().await.status, 200);
        assert_eq!(app.get("/healthz").send().await.status, 200);
    }
}

#[tokio::test]
async fn a_trusted_hop_tells_clients_apart() {
    let app = TestApp::with()
        .config(|config| {
            config.rate_limit = RateLimit { per_second: 1, burst: 1 };
            config.trusted_hops = 1;
        })
        .build()
        .await;
    let call = |from: &'static str| app.get(TRIAL_BALANCE).header("x-forwarded-for", from).send();
    call("203.0.113.1").await.problem(401, "token-missing");
    call("203.0.113.2").await.problem(401, "token-missing");
    call("198.51.100.9, 203.0.113.1").await.problem(429, "rate-limited");
}

#[tokio::test]
async fn too_much_at_once_is_refused() {
    let app = TestApp::with().with_runners().config(|config| config.in_flight_max = 1).build().await;
    let mut held = app.superuser.begin().await.unwrap();
    sqlx::query("SELECT FROM control.runners FOR UPDATE").execute(&mut *held).await.unwrap();
    let first = tokio::spawn(app.post(PAUSE).role(Role::Operator).send());
    common::until(|| async { app.waiting_on_locks().await == 1 }).await;
    let answer = app.get(TRIAL_BALANCE).role(Role::Finance).send().await;
    answer.problem(503, "overloaded");
    assert!(answer.header("retry-after").is_some());
    held.rollback().await.unwrap();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn ids_are_taken_over_where_they_are_sane() {
    let app = TestApp::new().await;
    let answer = app.get("/healthz").header("x-request-id", "req-1").header("x-correlation-id", "cor:2").send().await;
    assert_eq!((answer.header("x-request-id"), answer.header("x-correlation-id")), (Some("req-1"), Some("cor:2")));
    for bad in ["a b", "x\"y", &"x".repeat(65), ""] {
        let answer = app.get("/healthz").header("x-request-id", bad).send().await;
        assert_ne!(answer.header("x-request-id"), Some(bad));
        assert_eq!(answer.header("x-request-id"), answer.header("x-correlation-id"));
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let app = TestApp::new().await;
    for path in ["/healthz", "/docs", "/openapi.json", "/nothing", TRIAL_BALANCE] {
        let answer = app.get(path).send().await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"), "{path}");
    }
}
