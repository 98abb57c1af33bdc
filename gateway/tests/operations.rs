//! What operators ask for over HTTP and a projector does: here, that it is taken in or refused, and told of.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::TestApp;
use fanledger_gateway::Role;
use serde_json::json;

const RUNNER: &str = "/api/v1/ops/projections/balances";

#[tokio::test]
async fn an_operation_is_taken_in_once_and_told_of() {
    let app = TestApp::with().with_runners().build().await;
    let operation = || app.get(&format!("{RUNNER}/operation")).role(Role::Operator).send();
    operation().await.problem(404, "not-found");
    let ask = |what: &str| app.post(&format!("{RUNNER}/{what}")).role(Role::Operator);
    let asked = ask("rebuild").json(&json!({"confirmed": true})).send().await;
    assert_eq!((asked.status.as_u16(), asked.header("journal-position")), (202, Some("0")), "{asked:?}");
    let number = asked.json()["operation"].clone();
    assert_eq!(asked.json(), json!({"name": "balances", "kind": "rebuild", "operation": number}));

    let told = operation().await.json();
    assert_eq!((&told["operation"], &told["phase"], &told["kind"]), (&number, &json!("queued"), &json!("rebuild")));
    assert_eq!((&told["finished_at"], &told["error"], &told["outcome"]), (&json!(null), &json!(null), &json!(null)));
    let confirmed: bool =
        sqlx::query_scalar("SELECT confirmed FROM control.operations").fetch_one(&app.superuser).await.unwrap();
    assert!(confirmed);
    for what in ["rebuild", "verify", "retire"] {
        let problem = ask(what).send().await.problem(409, "operation-under-way");
        assert!(problem["detail"].as_str().unwrap().contains(&number.to_string()), "{problem}");
    }
    // Another runner is none of its business; and another key is another request.
    let other = app.post("/api/v1/ops/projections/entries/verify").role(Role::Operator).key("k").send().await;
    assert_eq!(other.status, 202);
    let again = app.post("/api/v1/ops/projections/entries/verify").role(Role::Operator).key("k").send().await;
    assert_eq!((again.status.as_u16(), again.json()), (202, other.json()), "the first answer again");
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused() {
    let app = TestApp::with().with_runners().build().await;
    app.post(&format!("{RUNNER}/rollback")).role(Role::Operator).send().await.problem(409, "nothing-kept");
    for name in ["nobody", "Balances", "x'--", &"b".repeat(41)] {
        for what in ["rebuild", "verify", "rollback", "retire"] {
            let path = format!("/api/v1/ops/projections/{name}/{what}");
            app.post(&path).role(Role::Operator).send().await.problem(404, "not-found");
        }
        let path = format!("/api/v1/ops/projections/{name}/operation");
        app.get(&path).role(Role::Operator).send().await.problem(404, "not-found");
    }
    let rebuild =
        |body: serde_json::Value| app.post(&format!("{RUNNER}/rebuild")).role(Role::Operator).json(&body).send();
    for (body, field) in [(json!({"confirmed": "yes"}), "confirmed"), (json!({"force": true}), "body")] {
        let answer = rebuild(body).await;
        answer.problem(422, "parameters-invalid");
        assert!(answer.errors().contains_key(field), "{answer:?}");
    }
    rebuild(json!([])).await.problem(400, "request-malformed");
    let verify =
        app.post(&format!("{RUNNER}/verify")).role(Role::Operator).json(&json!({"confirmed": true})).send().await;
    verify.problem(422, "parameters-invalid");
    let asked: i64 =
        sqlx::query_scalar("SELECT count(*) FROM control.operations").fetch_one(&app.superuser).await.unwrap();
    assert_eq!(asked, 0);
}
