//! `Idempotency-Key`: one effect and one answer, whoever asks how often.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Answer, Call, TestApp, token_of};
use fanledger_gateway::Role;
use serde_json::json;

const PAUSE: &str = "/api/v1/ops/projections/balances/pause";
const RESUME: &str = "/api/v1/ops/projections/balances/resume";

fn pause(app: &TestApp, key: &str) -> Call {
    app.post(PAUSE).role(Role::Operator).key(key)
}

fn replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

async fn paused(app: &TestApp) -> bool {
    let query = "SELECT paused FROM control.runners WHERE name = 'balances'";
    sqlx::query_scalar(query).fetch_one(&app.superuser).await.unwrap()
}

#[tokio::test]
async fn the_same_request_gets_the_first_answer_and_does_nothing_again() {
    let app = TestApp::with().with_runners().build().await;
    let first = pause(&app, "k").send().await;
    assert_eq!((first.status.as_u16(), replayed(&first)), (200, false));
    assert_eq!(first.json(), json!({"name": "balances", "paused": true}));
    assert_eq!(app.post(RESUME).role(Role::Operator).send().await.status, 200);

    let again = pause(&app, "k").send().await;
    assert_eq!((again.status.as_u16(), replayed(&again)), (200, true));
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("journal-position"), first.header("journal-position"));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert!(!paused(&app).await, "the repetition paused it again");
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let app = TestApp::with().with_runners().build().await;
    assert_eq!(pause(&app, "k").send().await.status, 200);
    pause(&app, "k").json(&json!({})).send().await.problem(422, "idempotency-key-reused");
    let other_runner = app.post("/api/v1/ops/projections/postings/pause").role(Role::Operator).key("k").send().await;
    other_runner.problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn a_key_is_its_subject_s_and_its_route_s() {
    let app = TestApp::with().with_runners().build().await;
    assert_eq!(pause(&app, "k").send().await.status, 200);
    let other = app.post(PAUSE).token(&token_of("someone-else", &[Role::Operator])).key("k").send().await;
    assert_eq!((other.status.as_u16(), replayed(&other)), (200, false));
    let resumed = app.post(RESUME).role(Role::Operator).key("k").send().await;
    assert_eq!((resumed.status.as_u16(), replayed(&resumed)), (200, false));
}

#[tokio::test]
async fn what_is_mended_may_come_under_the_same_key() {
    let app = TestApp::with().with_runners().build().await;
    for _ in 0..2 {
        let wrong = pause(&app, "k").json(&json!({"name": "balances"})).send().await;
        wrong.problem(422, "parameters-invalid");
        assert!(!replayed(&wrong));
    }
    let mended = pause(&app, "k").send().await;
    assert_eq!((mended.status.as_u16(), replayed(&mended)), (200, false));
    assert!(paused(&app).await);
}

#[tokio::test]
async fn what_is_not_there_may_be_there_later() {
    let app = TestApp::new().await;
    pause(&app, "k").send().await.problem(404, "not-found");
    app.add_runner("balances").await;
    let again = pause(&app, "k").send().await;
    assert_eq!((again.status.as_u16(), replayed(&again)), (200, false));
    assert!(paused(&app).await);
}

#[tokio::test]
async fn while_the_first_runs_the_second_is_told_so() {
    let app = TestApp::with().with_runners().build().await;
    let mut held = app.superuser.begin().await.unwrap();
    sqlx::query("SELECT FROM control.runners FOR UPDATE").execute(&mut *held).await.unwrap();
    let first = tokio::spawn(pause(&app, "k").send());
    common::until(|| async { app.waiting_on_locks().await == 1 }).await;
    let second = pause(&app, "k").send().await;
    second.problem(409, "idempotency-in-flight");
    assert!(second.header("retry-after").is_some());
    pause(&app, "k").json(&json!({})).send().await.problem(422, "idempotency-key-reused");
    held.rollback().await.unwrap();
    assert_eq!(first.await.unwrap().status, 200);
    assert!(replayed(&pause(&app, "k").send().await));
}

#[tokio::test]
async fn of_many_at_once_one_runs() {
    let app = TestApp::with().with_runners().build().await;
    let answers = futures::future::join_all((0..16).map(|_| pause(&app, "k").send())).await;
    let ran = answers.iter().filter(|answer| answer.status == 200 && !replayed(answer)).count();
    assert_eq!(ran, 1);
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 409));
}

#[tokio::test]
async fn a_client_that_goes_away_finds_the_answer_later() {
    let app = TestApp::with().with_runners().build().await;
    let mut held = app.superuser.begin().await.unwrap();
    sqlx::query("SELECT FROM control.runners FOR UPDATE").execute(&mut *held).await.unwrap();
    let first = tokio::spawn(pause(&app, "k").send());
    common::until(|| async { app.waiting_on_locks().await == 1 }).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    held.rollback().await.unwrap();
    common::until(|| async { pause(&app, "k").send().await.status == 200 }).await;
    assert!(replayed(&pause(&app, "k").send().await));
    assert!(paused(&app).await);
}

#[tokio::test]
async fn a_claim_whose_holder_died_is_taken_over_when_its_lease_ends() {
    let app = TestApp::with().with_runners().build().await;
    assert_eq!(pause(&app, "k").send().await.status, 200);
    let orphan = "UPDATE control.http_idempotency SET status = NULL, headers = NULL, body = NULL";
    sqlx::query(orphan).execute(&app.superuser).await.unwrap();
    pause(&app, "k").send().await.problem(409, "idempotency-in-flight");
    let ended = "UPDATE control.http_idempotency SET leased_until = now() - interval '1 second'";
    sqlx::query(ended).execute(&app.superuser).await.unwrap();
    let again = pause(&app, "k").send().await;
    assert_eq!((again.status.as_u16(), replayed(&again)), (200, false));
}

#[tokio::test]
async fn after_seven_days_a_key_is_new_again_and_forgotten() {
    let app = TestApp::with().with_runners().build().await;
    assert_eq!(pause(&app, "k").send().await.status, 200);
    let age = "UPDATE control.http_idempotency SET created_at = now() - interval '8 days', leased_until = now() - interval '8 days'";
    sqlx::query(age).execute(&app.superuser).await.unwrap();
    let again = pause(&app, "k").json(&json!({})).send().await;
    assert_eq!((again.status.as_u16(), replayed(&again)), (200, false));
    sqlx::query(age).execute(&app.superuser).await.unwrap();
    let forgotten: i64 = sqlx::query_scalar("SELECT control.http_forget(10)").fetch_one(&app.superuser).await.unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM control.http_idempotency").fetch_one(&app.superuser).await.unwrap();
    assert_eq!((forgotten, left), (1, 0));
}

#[tokio::test]
async fn a_key_has_a_form() {
    let app = TestApp::with().with_runners().build().await;
    for bad in ["", "with space", &"k".repeat(256)] {
        let answer = pause(&app, bad).send().await;
        answer.problem(422, "parameters-invalid");
        assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), ["Idempotency-Key"], "{bad}");
    }
    pause(&app, "a").key("b").send().await.problem(422, "parameters-invalid");
    assert_eq!(pause(&app, &"k".repeat(255)).send().await.status, 200);
}

#[tokio::test]
async fn nothing_of_the_caller_is_kept_in_the_clear() {
    let app = TestApp::with().with_runners().build().await;
    let subject = "alice|example.com";
    let answer = app.post(PAUSE).token(&token_of(subject, &[Role::Operator])).key("my-key").send().await;
    assert_eq!(answer.status, 200);
    let row: String = sqlx::query_scalar("SELECT kept::text FROM control.http_idempotency AS kept")
        .fetch_one(&app.superuser)
        .await
        .unwrap();
    assert!(!row.contains("alice") && !row.contains("my-key"), "{row}");
}

#[tokio::test]
async fn only_the_executor_may_touch_kept_answers() {
    let app = TestApp::new().await;
    for role in ["fanledger_gateway", "fanledger_projector", "fanledger_operator", "fanledger_finance"] {
        let pool = fanledger_journal::database::connect(&app.database.url_for(role), 1).await.unwrap();
        assert!(sqlx::query("SELECT control.http_forget(1)").execute(&pool).await.is_err(), "{role}");
        assert!(sqlx::query("SELECT * FROM control.http_idempotency").execute(&pool).await.is_err(), "{role}");
    }
    let pool = fanledger_journal::database::connect(&app.database.url_for("fanledger_command"), 1).await.unwrap();
    assert!(sqlx::query("SELECT * FROM control.http_idempotency").execute(&pool).await.is_err());
}
