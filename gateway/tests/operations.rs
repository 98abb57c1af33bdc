//! What operators ask for over HTTP and a projector does: here, that it is taken in or refused, and told of.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{TestApp, UNREACHABLE};
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

#[tokio::test]
async fn a_skip_is_handed_on_with_who_wants_it_and_why() {
    let app = TestApp::with().with_runners().build().await;
    let skip = |body: serde_json::Value| app.post(&format!("{RUNNER}/skip")).role(Role::Operator).json(&body).send();
    let answer = skip(json!({"position": 7, "reason": "  typed by hand  "})).await;
    assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("101")), "{answer:?}");
    let told = json!({"name": "balances", "version": 3, "position": 7, "known": false, "halted": true});
    assert_eq!(answer.json(), told);
    let again = skip(json!({"position": 7, "reason": "once more"})).await.json();
    assert_eq!(again["known"], true);
    let seen = app.operators.seen.lock().unwrap().clone();
    assert_eq!((seen[0].0.as_str(), seen[0].1, seen[0].2.as_str()), ("balances", 7, "typed by hand"));
    assert!(!seen[0].3.is_empty(), "the token's subject");

    skip(json!({"position": 5, "reason": "late"})).await.problem(409, "already-applied");
    let beyond = skip(json!({"position": 101, "reason": "early"})).await;
    beyond.problem(422, "parameters-invalid");
    assert!(beyond.errors()["position"][0].contains("100"), "{beyond:?}");
    let away = skip(json!({"position": UNREACHABLE, "reason": "now"})).await;
    assert!(!away.problem(503, "unavailable").to_string().contains("secret"));
    for name in ["nobody", "Balances"] {
        let path = format!("/api/v1/ops/projections/{name}/skip");
        let body = json!({"position": 7, "reason": "why not"});
        app.post(&path).role(Role::Operator).json(&body).send().await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_skip_that_says_too_little_or_too_much_is_not_handed_on() {
    let app = TestApp::with().with_runners().build().await;
    let good = json!({"position": 7, "reason": "why"});
    for (field, value) in [
        ("position", json!(0)),
        ("position", json!(-1)),
        ("position", json!(1.5)),
        ("position", json!("7")),
        ("position", json!(null)),
        ("reason", json!("")),
        ("reason", json!(" \n ")),
        ("reason", json!("a\u{0}b")),
        ("reason", json!("x".repeat(501))),
        ("reason", json!(7)),
        ("force", json!(1)),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        let answer = app.post(&format!("{RUNNER}/skip")).role(Role::Operator).json(&body).send().await;
        answer.problem(422, "parameters-invalid");
        assert!(answer.errors().contains_key(field), "{field} {value}: {answer:?}");
    }
    let nothing = app.post(&format!("{RUNNER}/skip")).role(Role::Operator).send().await;
    nothing.problem(422, "parameters-invalid");
    assert_eq!(nothing.errors().len(), 2, "{nothing:?}");
    assert!(app.operators.seen.lock().unwrap().is_empty());
}
