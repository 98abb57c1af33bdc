//! Reading one's own writes, following along, and being ready.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use axum::body::BodyDataStream;
use common::{PROJECTIONS, TestApp, token};
use fanledger_gateway::{JwtKey, Role, mint};
use futures::StreamExt;
use serde_json::{Value, json};

const RUNNERS: &str = "/api/v1/ops/projections";

/// Reads events from a stream.
struct Events {
    body: BodyDataStream,
    rest: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    id: u64,
    name: String,
    data: Value,
}

impl Events {
    async fn open(app: &TestApp, last_event_id: Option<&str>) -> Self {
        let mut call = app.get("/api/v1/stream").role(Role::Operator);
        if let Some(id) = last_event_id {
            call = call.header("last-event-id", id);
        }
        let response = call.open().await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), rest: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.rest = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                if let (Some(id), Some(name), Some(data)) = (field("id"), field("event"), field("data")) {
                    let data = serde_json::from_str(data).unwrap();
                    return Some(Event { id: id.parse().unwrap(), name: name.to_owned(), data });
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.body.next()).await.unwrap()?;
            self.rest.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn the_stream_tells_where_things_stand_and_every_advance() {
    let app = TestApp::with().with_runners().build().await;
    app.move_runners(PROJECTIONS, 5).await;
    let mut events = Events::open(&app, None).await;
    let first = events.next().await.unwrap();
    assert_eq!((first.id, first.name.as_str(), &first.data["position"]), (5, "position", &json!(5)));
    // Every projection that there is: one that the gateway forgot would be missing here and in `/readyz`.
    let mut told: Vec<&str> = first.data["projections"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut there_are: Vec<&str> = fanledger_projections::all().iter().map(|projection| projection.name()).collect();
    told.sort_unstable();
    there_are.sort_unstable();
    assert_eq!(told, there_are);
    app.move_runners(&["balances"], 9).await;
    let second = events.next().await.unwrap();
    assert_eq!((second.id, &second.data["projections"]["balances"]), (5, &json!(9)));
    app.move_runners(PROJECTIONS, 9).await;
    assert_eq!(events.next().await.unwrap().id, 9);
}

#[tokio::test]
async fn a_client_resumes_where_it_was() {
    let app = TestApp::with().with_runners().build().await;
    app.move_runners(PROJECTIONS, 5).await;
    assert_eq!(Events::open(&app, Some("3")).await.next().await.unwrap().id, 5);
    // It has seen 5 already, so the first thing that it is told is what comes next.
    let mut events = Events::open(&app, Some("5")).await;
    app.move_runners(PROJECTIONS, 6).await;
    assert_eq!(events.next().await.unwrap().id, 6);
    // A position that is not reached (any more) is told at once: the history changed.
    assert_eq!(Events::open(&app, Some("99")).await.next().await.unwrap().id, 6);
    let bad = app.get("/api/v1/stream").role(Role::Operator).header("last-event-id", "x").send().await;
    bad.problem(422, "parameters-invalid");
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_the_gateway() {
    let app = TestApp::with().with_runners().build().await;
    let short = mint(&JwtKey::new(&common::KEY).unwrap(), &[Role::Finance], "s", Duration::from_secs(1)).unwrap();
    let response = app.get("/api/v1/stream").token(&short).open().await;
    let mut events = Events { body: response.into_body().into_data_stream(), rest: String::new() };
    assert!(events.next().await.is_some());
    assert_eq!(events.next().await, None);

    let mut events = Events::open(&app, None).await;
    assert!(events.next().await.is_some());
    app.stop.cancel();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn streams_are_bounded_and_their_place_is_given_back() {
    let app = TestApp::with().with_runners().config(|config| config.streams_max = 1).build().await;
    let first = Events::open(&app, None).await;
    app.get("/api/v1/stream").role(Role::Operator).send().await.problem(503, "overloaded");
    drop(first);
    assert!(Events::open(&app, None).await.next().await.is_some());
}

const SUSPENSE: &str = "/api/v1/ledger/suspense";

/// An empty table to read, as the projector would make it.
async fn with_empty_suspense(app: &TestApp) {
    let view = "SET ROLE fanledger_projector;
        CREATE VIEW read.suspense AS SELECT ''::text AS account, ''::text AS object, ''::text AS currency,
            0::numeric AS balance, now() AS since, 0::bigint AS last_position WHERE false;
        RESET ROLE";
    sqlx::raw_sql(view).execute(&app.superuser).await.unwrap();
}

#[tokio::test]
async fn a_read_waits_for_the_position_that_its_client_has_seen() {
    let app = TestApp::with().with_runners().build().await;
    with_empty_suspense(&app).await;
    app.move_runners(&["suspense"], 4).await;
    let read =
        |position: &'static str| app.get(SUSPENSE).role(Role::Finance).header("journal-min-position", position).send();
    let answer = read("4").await;
    assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("4")), "{answer:?}");
    assert_eq!(answer.json(), json!({"items": [], "next_cursor": null}));
    let waiting = tokio::spawn(read("7"));
    app.move_runners(&["suspense"], 7).await;
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("7")), "{answer:?}");
    // Only what this question is answered from counts.
    assert_eq!(app.get(SUSPENSE).role(Role::Finance).header("journal-min-position", "6").send().await.status, 200);
}

#[tokio::test]
async fn a_position_that_does_not_come_is_a_503() {
    let wait = Duration::from_millis(200);
    let app = TestApp::with().with_runners().config(move |config| config.min_position_wait = wait).build().await;
    with_empty_suspense(&app).await;
    let asked = Instant::now();
    let answer = app.get(SUSPENSE).role(Role::Finance).header("journal-min-position", "1").send().await;
    let problem = answer.problem(503, "position-not-reached");
    assert!(problem["detail"].as_str().unwrap().contains("suspense is at position 0"), "{problem}");
    assert!(answer.header("retry-after").is_some());
    assert!(asked.elapsed() >= wait);
    let ahead_of_the_journal = app.get(RUNNERS).role(Role::Operator).header("journal-min-position", "1").send().await;
    ahead_of_the_journal.problem(503, "position-not-reached");
}

#[tokio::test]
async fn what_is_not_built_yet_says_so() {
    let app = TestApp::new().await;
    let problem = app.get(SUSPENSE).role(Role::Finance).send().await.problem(503, "unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("fanledger projector"), "{problem}");
}

#[tokio::test]
async fn ready_when_everything_is_and_each_check_says_what_to_do() {
    let app = TestApp::new().await;
    assert_eq!(app.get("/healthz").send().await.json(), json!({"status": "ok"}));
    let answer = app.get("/readyz").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (503, Some("application/json")));
    let check = |document: &Value, name: &str| {
        document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap().clone()
    };
    let projections = check(&answer.json(), "projections");
    assert_eq!(projections["ready"], false);
    assert!(projections["detail"].as_str().unwrap().contains("balances (not begun)"), "{projections}");
    for name in ["process", "postgres", "schema", "nats"] {
        assert_eq!(check(&answer.json(), name)["ready"], true, "{name}: {answer:?}");
    }

    for name in PROJECTIONS {
        app.add_runner(name).await;
    }
    common::until(|| async { app.get("/readyz").send().await.status == 200 }).await;
    app.stop.cancel();
    common::until(|| async { app.get("/readyz").send().await.status == 503 }).await;
    assert_eq!(check(&app.get("/readyz").send().await.json(), "process")["ready"], false);
}

/// After a restore a projection may stand past the journal's head, on events that are no more.
#[tokio::test]
async fn what_is_left_of_a_lost_history_is_not_ready_and_not_waited_for() {
    let app = TestApp::with().with_runners().build().await;
    common::until(|| async { app.get("/readyz").send().await.status == 200 }).await;
    let halted = r#"UPDATE control.runners SET position = 7,
        error = '{"kind": "history_changed", "message": "x", "at": "2026-01-01T00:00:00Z"}' WHERE name = 'balances'"#;
    sqlx::raw_sql(halted).execute(&app.superuser).await.unwrap();
    common::until(|| async { app.get("/readyz").send().await.status == 503 }).await;
    let found = app.get("/readyz").send().await;
    assert!(String::from_utf8_lossy(&found.body).contains("balances (halted"), "{found:?}");
    let read = app.get("/api/v1/ledger/trial-balance").role(Role::Finance).header("journal-min-position", "7");
    read.send().await.problem(503, "position-not-reached");
}

#[tokio::test]
async fn pausing_and_resuming_reach_the_runner() {
    let app = TestApp::with().with_runners().build().await;
    let state = async || {
        let answer = app.get(RUNNERS).token(&token(&[Role::Operator])).send().await;
        let runners = answer.json()["items"].clone();
        runners.as_array().unwrap().iter().find(|runner| runner["name"] == "balances").unwrap()["state"].clone()
    };
    assert_eq!(state().await, "live");
    assert_eq!(app.post("/api/v1/ops/projections/balances/pause").role(Role::Operator).send().await.status, 200);
    assert_eq!(state().await, "paused");
    assert_eq!(app.post("/api/v1/ops/projections/balances/resume").role(Role::Operator).send().await.status, 200);
    assert_eq!(state().await, "live");
}

#[tokio::test]
async fn not_ready_below_the_schema_that_it_needs() {
    let app = TestApp::with().with_runners().schema_version(9999).build().await;
    let answer = app.get("/readyz").send().await;
    assert_eq!(answer.status, 503);
    assert!(String::from_utf8_lossy(&answer.body).contains("9999 is needed. Run `fanledger migrate`."), "{answer:?}");
}

#[tokio::test]
async fn not_ready_while_a_projection_is_further_behind_than_the_bound() {
    let app = TestApp::with().with_runners().config(|config| config.lag_seconds_max = 5).build().await;
    common::until(|| async { app.get("/readyz").send().await.status == 200 }).await;
    // An event of an hour ago that nobody has applied. The guards let nobody append it: the test is the superuser.
    let event = "SET session_replication_role = replica;
        ALTER TABLE journal.events DISABLE TRIGGER guard;
        ALTER TABLE journal.batches DISABLE TRIGGER guard;
        INSERT INTO journal.events VALUES (1, 'stripe_event', 'evt_1', 1, 'StripeEventReceived', '1', '{}', '{}',
            gen_random_uuid(), now() - interval '1 hour', decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'));
        INSERT INTO journal.batches VALUES (1, 1, now() - interval '1 hour', decode(repeat('00', 32), 'hex'));";
    sqlx::raw_sql(event).execute(&app.superuser).await.unwrap();
    let (behind, others) = PROJECTIONS.split_first().unwrap();
    app.move_runners(others, 1).await;
    common::until(|| async { app.get("/readyz").send().await.status == 503 }).await;
    let answer = app.get("/readyz").send().await;
    assert!(
        String::from_utf8_lossy(&answer.body).contains(&format!("Behind: {behind} (catching_up, 1 events behind).")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn without_postgres_reads_and_commands_are_503_and_the_process_lives() {
    let app = TestApp::with().with_runners().build().await;
    app.query_pool.close().await;
    app.command_pool.close().await;
    for path in [SUSPENSE, RUNNERS] {
        let answer = app.get(path).role(Role::Admin).send().await;
        answer.problem(503, "unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    let pause = || app.post("/api/v1/ops/projections/balances/pause").role(Role::Operator);
    pause().send().await.problem(503, "unavailable");
    pause().key("k").send().await.problem(503, "unavailable");
    assert_eq!(app.get("/readyz").send().await.status, 503);
    assert_eq!(app.get("/healthz").send().await.status, 200);
}
