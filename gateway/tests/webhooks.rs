//! The webhook through the real intake: signed in, and in the journal when it is answered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use common::{Answer, TestApp};
use fanledger_commands::executor::Executor;
use fanledger_commands::stripe::intake::Intake;
use fanledger_commands::stripe::signature::Secret;
use fanledger_commands::vault::{Vault, VaultKey};
use fanledger_devkit::stripe::sign;
use fanledger_gateway::{GatewayState, Parts, router};
use fanledger_journal::writer::{Writer, WriterOptions};
use serde_json::json;
use tower::ServiceExt;

const SECRET: &str = "whsec_of_the_test";

/// The same gateway with the real intake in the stand-in's place.
async fn real(app: &TestApp) -> Router {
    let writer = Writer::start(WriterOptions::new(app.database.url_for("fanledger_command"))).await.unwrap();
    let vault = Vault::new(VaultKey::new([3; 32]), app.command_pool.clone());
    let executor = Executor::new(app.command_pool.clone(), writer);
    let parts = Parts {
        config: app.state.config().clone(),
        query_pool: app.query_pool.clone(),
        command_pool: app.command_pool.clone(),
        intake: Arc::new(Intake::new(executor, vault, vec![Secret::new(SECRET).unwrap()])),
        operators: app.operators.clone(),
        desks: app.desks.clone(),
        schema_version: 1,
        probes: Vec::new(),
    };
    router(&GatewayState::new(parts).await.unwrap())
}

async fn post(router: &Router, signature: Option<&str>, body: &str) -> Answer {
    let mut request = Request::post("/webhooks/stripe");
    if let Some(signature) = signature {
        request = request.header("stripe-signature", signature);
    }
    let response = router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, headers: parts.headers, body: axum::body::to_bytes(body, usize::MAX).await.unwrap() }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

async fn signed(router: &Router, body: &str) -> Answer {
    post(router, Some(&sign(SECRET, now(), body.as_bytes())), body).await
}

#[tokio::test]
async fn new_again_and_with_another_body() {
    let app = TestApp::new().await;
    let router = real(&app).await;
    let body = json!({"id": "evt_1", "object": "event", "type": "charge.succeeded"}).to_string();
    let first = signed(&router, &body).await;
    assert_eq!((first.status.as_u16(), first.header("journal-position")), (200, Some("1")));
    assert_eq!(first.json(), json!({"received": true, "position": 1, "duplicate": false}));
    assert_eq!(signed(&router, &body).await.json(), json!({"received": true, "position": 1, "duplicate": true}));
    let other = signed(&router, &body.replace("succeeded", "failed")).await;
    assert_eq!(other.json(), json!({"received": true, "position": 1, "duplicate": true, "conflict": true}));
}

#[tokio::test]
async fn what_is_not_signed_for_us_leaves_nothing() {
    let app = TestApp::new().await;
    let router = real(&app).await;
    let body = r#"{"id": "evt_1"}"#;
    let stale = sign(SECRET, now() - 400, body.as_bytes());
    let future = sign(SECRET, now() + 400, body.as_bytes());
    let other = sign("whsec_else", now(), body.as_bytes());
    for signature in [None, Some(""), Some("t=1"), Some(&*stale), Some(&*future), Some(&*other)] {
        let problem = post(&router, signature, body).await.problem(400, "signature-invalid");
        assert!(!problem.to_string().contains("whsec"), "{problem}");
    }
    signed(&router, "not JSON").await.problem(400, "event-id-missing");
    signed(&router, "").await.problem(400, "event-id-missing");
    let events: i64 =
        sqlx::query_scalar("SELECT count(*) FROM journal.events").fetch_one(&app.superuser).await.unwrap();
    assert_eq!(events, 0);
}
