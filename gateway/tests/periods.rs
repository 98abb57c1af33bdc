//! Months over HTTP: closed and opened by the right persons, refused by name, and read as their closes fixed them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{Answer, TestApp, token_of};
use fanledger_gateway::Role;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database;
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::runner::{RunnerContext, catch_up};
use fanledger_journal::writer::{Writer, WriterOptions};
use serde_json::{Value, json};

const LEDGER: &str = "/api/v1/ledger";

struct Books {
    app: TestApp,
    writer: Writer,
    context: RunnerContext,
    entries: AtomicU64,
}

impl Books {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let writer = Writer::start(WriterOptions::new(app.database.url_for("fanledger_command"))).await.unwrap();
        let pool = database::connect(&app.database.url_for("fanledger_projector"), 2).await.unwrap();
        let books = Self { app, writer, context: RunnerContext::without_feed(pool), entries: AtomicU64::new(0) };
        books.catch_up().await;
        books
    }

    async fn catch_up(&self) {
        for mut projection in fanledger_projections::all() {
            catch_up(&self.context, projection.as_mut()).await.unwrap();
        }
    }

    /// Posts an entry that occurred and counts at `at`, as a journal may hold it.
    async fn post(&self, at: &str, minor: u64) {
        let number = self.entries.fetch_add(1, Ordering::Relaxed);
        let line =
            |account: &str, side: &str| json!({"account": account, "side": side, "minor": minor, "currency": "usd"});
        let payload = json!({
            "entry_id": format!("mne_{number}:1:x"), "cause": {"object": format!("mne_{number}"), "facts": []},
            "description": "by hand", "occurred_at": at, "effective_at": at,
            "postings": [line("assets:bank", "debit"), line("liabilities:suspense:unattributed", "credit")]
        });
        let event = NewEvent {
            event_type: "EntryPosted".to_owned(),
            event_version: "1".to_owned(),
            payload: payload.to_string(),
        };
        let stream = StreamId::new("manual_entry", format!("mne_{number}"));
        let command = Command::new(stream, 0, Metadata::default(), vec![event]);
        assert!(matches!(self.writer.append(command).await.unwrap(), Outcome::Appended { .. }));
        self.catch_up().await;
    }

    async fn get(&self, path: &str) -> Answer {
        self.app.get(&format!("{LEDGER}{path}")).role(Role::Finance).send().await
    }

    async fn act(&self, person: &str, act: &str, body: Value) -> Answer {
        let token = token_of(person, &[Role::Finance]);
        let answer = self.app.post(&format!("{LEDGER}/periods/{act}")).token(&token).json(&body).send().await;
        self.catch_up().await;
        answer
    }
}

#[tokio::test]
async fn a_month_is_closed_by_one_person_and_opened_by_another() {
    let books = Books::new().await;
    let none = books.get("/periods").await.json();
    assert_eq!((&none["first_open"], &none["periods"]), (&Value::Null, &json!([])));

    let closed = books.act("ada", "2026-01/close", json!({})).await;
    assert_eq!(closed.status, 200, "{closed:?}");
    let position = closed.json()["position"].as_u64().unwrap();
    assert_eq!(closed.json(), json!({"period": "2026-01", "state": "closed", "position": position}));
    assert_eq!(closed.header("journal-position"), Some(&*position.to_string()));
    let told = books.get("/periods").await.json();
    assert_eq!((&told["first_open"], &told["next"]), (&json!("2026-02-01T00:00:00Z"), &json!("2026-02")));
    let act = &told["periods"][0]["acts"][0];
    assert_eq!(
        (&act["act"], &act["by"], &act["close"], &act["position"]),
        (&json!("closed"), &json!("ada"), &json!(1), &json!(position))
    );

    let why = json!({"reason": "a statement came late"});
    books.act("ada", "2026-01/reopen", why.clone()).await.problem(409, "second-person-needed");
    let opened = books.act("bel", "2026-01/reopen", why).await.json();
    assert_eq!((&opened["period"], &opened["state"]), (&json!("2026-01"), &json!("open")));
    let told = books.get("/periods").await.json();
    assert_eq!(
        (&told["first_open"], &told["next"]),
        (&Value::Null, &Value::Null),
        "with the first month, everything is"
    );
    assert_eq!(told["periods"][0]["state"], "open");
    assert_eq!(told["periods"][0]["acts"][1]["reason"], "a statement came late");
}

#[tokio::test]
async fn what_cannot_be_closed_or_opened_is_refused_by_name() {
    let books = Books::new().await;
    books.act("ada", "9999-11/close", json!({})).await.problem(409, "period-not-ended");
    books.act("ada", "2026-01/close", json!({})).await;
    books.act("ada", "2026-01/close", json!({})).await.problem(409, "period-closed-already");
    books.act("ada", "2025-01/close", json!({})).await.problem(409, "period-closed-already");
    books.act("ada", "2026-03/close", json!({})).await.problem(409, "period-not-next");
    let why = json!({"reason": "why not"});
    books.act("bel", "2025-12/reopen", why.clone()).await.problem(409, "period-not-last");
    let head: i64 =
        sqlx::query_scalar("SELECT max(position) FROM journal.events").fetch_one(&books.app.superuser).await.unwrap();
    assert_eq!(head, 1, "a refusal is no event");
    for (act, body, field) in [
        ("2026-13/close", json!({}), "period"),
        ("2026-2/close", json!({}), "period"),
        ("latest/reopen", why, "period"),
        ("2026-02/close", json!({"reason": "x"}), "reason"),
        ("2026-01/reopen", json!({}), "reason"),
        ("2026-01/reopen", json!({"reason": ""}), "reason"),
        ("2026-01/reopen", json!({"reason": "x".repeat(501)}), "reason"),
        ("2026-01/reopen", json!({"reason": 7}), "reason"),
    ] {
        let answer = books.act("bel", act, body).await;
        answer.problem(422, "parameters-invalid");
        assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), [field], "{act}");
    }
}

/// An answer that was lost is asked for again under the same key, and the month is not closed twice.
#[tokio::test]
async fn the_same_close_under_the_same_key_is_one() {
    let books = Books::new().await;
    let close = async || {
        let call = books.app.post(&format!("{LEDGER}/periods/2026-01/close")).role(Role::Finance).key("close-january");
        call.send().await
    };
    let (first, again) = (close().await, close().await);
    assert_eq!((first.status.as_u16(), first.json()), (200, again.json()));
}

#[tokio::test]
async fn a_closed_month_is_read_as_it_was() {
    let books = Books::new().await;
    books.post("2026-01-31T23:59:59.999999Z", 100).await;
    books.post("2026-02-01T00:00:00Z", 30).await;
    books.act("ada", "2026-01/close", json!({})).await;
    let january = books.get("/trial-balance?period=2026-01").await.json();
    assert_eq!(january["currencies"][0]["debits_minor"], "100");
    assert_eq!((&january["closing"]["close"], &january["closing"]["closed_by"]), (&json!(1), &json!("ada")));

    books.act("bel", "2026-01/reopen", json!({"reason": "more came"})).await;
    books.post("2026-01-15T00:00:00Z", 7).await;
    books.get("/trial-balance?period=2026-01").await.problem(422, "as-of-out-of-range");
    assert_eq!(books.get("/trial-balance?period=2026-01&close=1").await.json(), january);
    books.act("bel", "2026-01/close", json!({})).await;
    let again = books.get("/trial-balance?period=2026-01").await.json();
    assert_eq!((&again["currencies"][0]["debits_minor"], &again["closing"]["close"]), (&json!("107"), &json!(2)));
    assert_eq!(books.get("/trial-balance?period=2026-01&close=1").await.json(), january);
    assert_ne!(again["closing"]["digest"], january["closing"]["digest"]);

    // Everything else that takes a period.
    for (close, minor, lines) in [(1, "100", 1), (2, "107", 2)] {
        let of = format!("period=2026-01&close={close}");
        let account = books.get(&format!("/accounts/assets:bank?{of}")).await.json();
        assert_eq!(account["currencies"][0]["balance_minor"], minor);
        let accounts = books.get(&format!("/accounts?{of}")).await.json();
        assert_eq!(accounts["items"][0]["balance_minor"], minor);
        let postings = books.get(&format!("/accounts/assets:bank/postings?{of}")).await.json();
        assert_eq!(postings["items"][0]["balance_minor"], minor);
        assert_eq!(postings["items"].as_array().unwrap().len(), lines);
        let suspense = books.get(&format!("/suspense?{of}")).await.json();
        assert_eq!(suspense["items"].as_array().unwrap().len(), lines);
    }
    let review = books.get("/periods/2026-02/review").await.json();
    let waits = json!({
        "kind": "suspense", "account": "liabilities:suspense:unattributed", "currency": "usd", "count": 3, "balance_minor": "-137"
    });
    assert_eq!(review["open"], json!([waits]));

    let before = books.get("/trial-balance?period=2025-12").await.json();
    let closing = (&before["closing"]["period"], &before["closing"]["closed_with"]);
    assert_eq!(closing, (&json!("2025-12"), &json!("2026-01")), "the first close closed it, too");
    for missing in ["2025-12&close=1", "2026-02", "2026-01&close=3"] {
        books.get(&format!("/trial-balance?period={missing}")).await.problem(422, "as-of-out-of-range");
    }
}

#[tokio::test]
async fn the_lines_of_an_account_are_read_from_one_instant_to_another() {
    let books = Books::new().await;
    for day in 1..=5 {
        books.post(&format!("2026-01-0{day}T00:00:00Z"), 10 * day).await;
    }
    let of = async |query: &str| -> Vec<(Value, Value)> {
        let page = books.get(&format!("/accounts/assets:bank/postings?{query}")).await.json();
        let items = page["items"].as_array().unwrap().clone();
        items.into_iter().map(|mut item| (item["amount_minor"].take(), item["balance_minor"].take())).collect()
    };
    let from_to = of("from=2026-01-02T00:00:00Z&to=2026-01-03T00:00:00Z&by=occurred").await;
    assert_eq!(from_to, [(json!("30"), json!("60")), (json!("20"), json!("30"))]);
    assert_eq!(of("from=2026-01-05T00:00:00Z").await, [(json!("50"), json!("150"))]);
    assert_eq!(of("from=2026-01-05T00:00:01Z").await, []);
    // A cursor holds for the same span, and ends where the span does.
    let path = "/accounts/assets:bank/postings?from=2026-01-03T00:00:00Z&limit=2";
    let first = books.get(path).await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = books.get(&format!("{path}&cursor={cursor}")).await.json();
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    let other =
        books.get(&format!("/accounts/assets:bank/postings?from=2026-01-01T00:00:00Z&limit=2&cursor={cursor}")).await;
    other.problem(400, "cursor-invalid");
}

/// A webhook of a charge came, and its balance transaction did not.
#[tokio::test]
async fn what_is_awaited_is_listed_and_counted_before_a_close() {
    let books = Books::new().await;
    for (number, day) in [(1, 9), (2, 8), (3, 7)] {
        let id = format!("ch_{number}");
        let created = format!("2026-01-0{day}T00:00:00Z");
        let charge = json!({
            "id": id, "created": created, "currency": "usd", "amount": 100 * number, "amount_captured": 100 * number,
            "status": "succeeded", "captured": true, "offer": "silent"
        });
        let payload = json!({"stamp": {"created": created, "event": "evt_1"}, "charge": charge});
        let event = NewEvent {
            event_type: "ChargeObserved".to_owned(),
            event_version: "1".to_owned(),
            payload: payload.to_string(),
        };
        let command = Command::new(StreamId::new("stripe_charge", id), 0, Metadata::default(), vec![event]);
        assert!(matches!(books.writer.append(command).await.unwrap(), Outcome::Appended { .. }));
    }
    books.catch_up().await;
    let first = books.get("/awaited?limit=2").await.json();
    let path = format!("/awaited?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    let rest = books.get(&path).await.json();
    assert_eq!(rest["next_cursor"], Value::Null);
    let items = [&first["items"], &rest["items"]].map(|items| items.as_array().unwrap().clone()).concat();
    let told: Vec<_> = items.iter().map(|item| (&item["object"], &item["amount_minor"], &item["part"])).collect();
    let movement = json!("movement");
    assert_eq!(
        told,
        [
            (&json!("ch_3"), &json!("300"), &movement),
            (&json!("ch_2"), &json!("200"), &movement),
            (&json!("ch_1"), &json!("100"), &movement)
        ]
    );
    // Only what is awaited now is known.
    let refused = books.get("/awaited?as_of=2026-01-08T00:00:00Z").await;
    refused.problem(422, "parameters-invalid");
    assert_eq!(refused.errors().into_keys().collect::<Vec<_>>(), ["as_of"]);

    let review = books.get("/periods/2026-01/review").await;
    let awaited = json!([{"kind": "awaited", "currency": "usd", "count": 3, "balance_minor": "600"}]);
    assert_eq!((review.header("journal-position"), &review.json()["open"]), (Some("3"), &awaited));
    // While `awaited` rests, the review says how far it knows, and waits for no more than it is asked to.
    books.app.move_runners(&["awaited"], 2).await;
    assert_eq!(books.get("/periods/2026-01/review").await.header("journal-position"), Some("2"));
}

/// The balances are behind, and a moment later they are not: the client is told to come again, not that there is no answer.
#[tokio::test]
async fn a_closed_month_is_asked_for_again_while_its_balances_are_behind() {
    let books = Books::new().await;
    books.post("2026-01-01T00:00:00Z", 10).await;
    books.act("ada", "2026-01/close", json!({})).await;
    let behind = ["balances", "postings", "creator_activity"];
    books.app.move_runners(&behind, 1).await;
    for path in [
        "/trial-balance?period=2026-01",
        "/accounts?period=2026-01",
        "/accounts/assets:bank?period=2026-01",
        "/accounts/assets:bank/postings?period=2026-01",
        "/suspense?period=2026-01",
    ] {
        let answer = books.get(path).await;
        answer.problem(503, "position-not-reached");
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
    }
    // A position that only the client names may never be.
    books.get("/trial-balance?as_of=2").await.problem(422, "as-of-out-of-range");
    books.app.move_runners(&behind, 2).await;
    assert_eq!(books.get("/trial-balance?period=2026-01").await.status, 200);
}

/// The answer is of no later position than `periods`, by which it is a closed month's.
#[tokio::test]
async fn what_is_said_of_a_closed_month_is_no_newer_than_its_close_is_known() {
    let books = Books::new().await;
    books.post("2026-01-01T00:00:00Z", 10).await;
    books.act("ada", "2026-01/close", json!({})).await;
    books.post("2026-02-01T00:00:00Z", 10).await;
    books.app.move_runners(&["periods"], 2).await;
    let paths = [
        "/trial-balance?period=2026-01",
        "/accounts?period=2026-01",
        "/accounts/assets:bank?period=2026-01",
        "/accounts/assets:bank/postings?period=2026-01",
        "/accounts/assets:bank/postings?period=2026-01&limit=1",
        "/suspense?period=2026-01",
    ];
    for path in paths {
        let answer = books.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("2")), "{path}");
    }
    assert_eq!(books.get("/trial-balance").await.header("journal-position"), Some("3"));

    // Of what was fixed at position 2, all is known that there is up to 3.
    books.app.move_runners(&["periods"], 3).await;
    for path in paths {
        let call = books.app.get(&format!("{LEDGER}{path}")).role(Role::Finance);
        let answer = call.header("journal-min-position", "3").send().await;
        assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("3")), "{path}");
    }
}

/// What a question does not take is refused, not passed over.
#[tokio::test]
async fn a_time_that_a_question_does_not_take_is_refused() {
    let books = Books::new().await;
    books.post("2026-01-01T00:00:00Z", 10).await;
    books.act("ada", "2026-01/close", json!({})).await;
    for (path, field) in [
        ("/trial-balance?period=2026-01&as_of=1", "period"),
        ("/trial-balance?period=2026-01&by=occurred", "period"),
        ("/trial-balance?close=1", "close"),
        ("/trial-balance?period=2026-01&close=0", "close"),
        ("/trial-balance?period=january", "period"),
        ("/trial-balance?from=2026-01-01T00:00:00Z", "from"),
        ("/accounts/assets:bank/postings?period=2026-01&from=2026-01-01T00:00:00Z", "period"),
        ("/accounts/assets:bank/postings?to=2026-01-01T00:00:00Z&as_of=1", "to"),
        ("/accounts/assets:bank/postings?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/accounts/assets:bank/postings?from=2026-01-02T00:00:00Z&as_of=1", "from"),
        ("/accounts/assets:bank/postings?from=2026-01-02", "from"),
        ("/entries/mne_0:1:x?period=2026-01", "period"),
        ("/awaited?as_of=1", "as_of"),
        ("/periods?as_of=1", "as_of"),
    ] {
        let answer = books.get(path).await;
        answer.problem(422, "parameters-invalid");
        assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), [field], "{path}");
    }
    books.get("/suspense?as_of=2025-12-31T00:00:00Z").await.problem(422, "as-of-out-of-range");
    assert_eq!(books.get("/suspense?as_of=2026-01-01T00:00:00Z").await.json()["items"][0]["balance_minor"], "-10");
}
