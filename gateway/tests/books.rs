//! The books over HTTP: real events in a real journal, applied by the real projections.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Answer, TestApp};
use fanledger_domain::entry::{Activity, Cause, EntryPosted, Posting, Side, StatementLine};
use fanledger_domain::event::Event;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::money::Money;
use fanledger_domain::time::Timestamp;
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
}

impl Books {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let writer = Writer::start(WriterOptions::new(app.database.url_for("fanledger_command"))).await.unwrap();
        let pool = database::connect(&app.database.url_for("fanledger_projector"), 2).await.unwrap();
        let books = Self { app, writer, context: RunnerContext::without_feed(pool) };
        books.catch_up().await;
        books
    }

    async fn catch_up(&self) {
        for mut projection in fanledger_projections::all() {
            catch_up(&self.context, projection.as_mut()).await.unwrap();
        }
    }

    /// Posts an entry of its own object, `number` days after 2026-01-01, and answers its position.
    async fn post(&self, number: i64, minor: i64, currency: &str) -> u64 {
        let at = Timestamp::from_unix_seconds(1_767_225_600 + number * 86_400).unwrap();
        let object = format!("ch_{number}");
        let line = |account: &str, side| Posting {
            account: account.parse().unwrap(),
            side,
            money: Money::new(minor, currency.parse().unwrap()),
        };
        let event = Event::EntryPosted(EntryPosted {
            entry_id: format!("{object}:1:{}", at.compact()).parse().unwrap(),
            cause: Cause { object: object.parse().unwrap(), facts: Vec::new(), stripe_event: None, clears: None },
            description: "a charge".to_owned(),
            occurred_at: at,
            effective_at: at,
            postings: vec![line("assets:stripe:clearing", Side::Debit), line("income:platform-fees", Side::Credit)],
            activity: Vec::new(),
        });
        let new = NewEvent {
            event_type: event.type_name().to_owned(),
            event_version: event.version().to_owned(),
            payload: event.to_payload().unwrap(),
        };
        let stream = StreamId::new("stripe_charge", &object);
        match self.writer.append(Command::new(stream, 0, Metadata::default(), vec![new])).await.unwrap() {
            Outcome::Appended { first, .. } => first.get(),
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.app.get(&format!("{LEDGER}{path}")).role(Role::Finance).send().await
    }

    /// Follows a list from page to page.
    async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut next = path.to_owned();
        loop {
            let page = self.get(&next).await;
            assert_eq!(page.status, 200, "{page:?}");
            items.extend(page.json()["items"].as_array().unwrap().clone());
            let Some(cursor) = page.json()["next_cursor"].as_str().map(str::to_owned) else { return items };
            next = format!("{path}{}cursor={cursor}", if path.contains('?') { '&' } else { '?' });
        }
    }
}

#[tokio::test]
async fn an_empty_ledger_is_an_empty_list_and_before_the_first_entry_an_error() {
    let books = Books::new().await;
    let answer = books.get("/trial-balance").await;
    assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("0")));
    assert_eq!(answer.json(), json!({"position": 0, "as_of": null, "currencies": []}));
    books.get("/trial-balance?as_of=2026-01-01T00:00:00Z").await.problem(422, "as-of-out-of-range");
    books.post(1, 500, "usd").await;
    books.catch_up().await;
    for path in
        ["/trial-balance", "/accounts", "/accounts/assets:stripe:clearing", "/accounts/assets:stripe:clearing/postings"]
    {
        let answer = books.get(&format!("{path}?as_of=2026-01-01T00:00:00Z")).await;
        answer.problem(422, "as-of-out-of-range");
        assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), ["as_of"], "{path}");
        books.get(&format!("{path}?as_of=999")).await.problem(422, "as-of-out-of-range");
    }
}

#[tokio::test]
async fn what_was_posted_is_read_by_time_position_and_currency() {
    let books = Books::new().await;
    let first = books.post(1, 1099, "usd").await;
    books.post(2, 500, "jpy").await;
    let last = books.post(3, i64::pow(2, 53) - 1, "usd").await;
    books.catch_up().await;

    let answer = books.get("/trial-balance").await;
    assert_eq!(answer.header("journal-position"), Some(&*last.to_string()));
    let usd = &answer.json()["currencies"][1];
    assert_eq!(
        (&usd["currency"], &usd["debits_minor"], &usd["credits_minor"]),
        (&json!("usd"), &json!("9007199254742090"), &json!("9007199254742090"))
    );
    assert_eq!(
        usd["accounts"][1],
        json!({"account": "income:platform-fees", "debits_minor": "0", "credits_minor": "9007199254742090", "balance_minor": "-9007199254742090"})
    );

    let yen = books.get("/trial-balance?currency=jpy").await.json();
    assert_eq!(yen["currencies"].as_array().unwrap().len(), 1);
    let then = books.get(&format!("/trial-balance?as_of={first}")).await.json();
    assert_eq!((&then["as_of"], &then["currencies"][0]["debits_minor"]), (&json!(first), &json!("1099")));
    for as_of in ["2026-01-02T00:00:00Z", "2026-01-02T02:00:00%2B02:00"] {
        for by in ["effective", "occurred"] {
            let then = books.get(&format!("/trial-balance?as_of={as_of}&by={by}")).await.json();
            assert_eq!(then["currencies"][0]["debits_minor"], "1099", "{as_of} {by}");
        }
    }
    books.get("/trial-balance?as_of=2026-01-02T00:00:00Z&by=recorded").await.problem(422, "as-of-out-of-range");

    let account = books.get("/accounts/assets:stripe:clearing").await.json();
    assert_eq!(
        account["currencies"][0],
        json!({"account": "assets:stripe:clearing", "currency": "jpy", "debits_minor": "500", "credits_minor": "0", "balance_minor": "500"})
    );
    books.get("/accounts/assets:bank").await.problem(404, "not-found");
    books.get("/accounts/assets:moon").await.problem(422, "parameters-invalid");
}

#[tokio::test]
async fn an_entry_is_read_by_its_id() {
    let books = Books::new().await;
    let position = books.post(1, 1099, "usd").await;
    books.catch_up().await;
    let entry = books.get("/entries/ch_1:1:20260102T000000Z").await.json();
    assert_eq!((&entry["position"], &entry["cause"]["object"]), (&json!(position), &json!("ch_1")));
    assert_eq!(entry["postings"][0]["amount_minor"], "1099");
    books.get("/entries/ch_1:1:20260102T000001Z").await.problem(404, "not-found");
    books.get("/entries/a%20b").await.problem(422, "parameters-invalid");
    books.get("/entries/ch_1:1:20260102T000000Z?as_of=2026-01-02T00:00:00Z").await.json();
    books.get("/entries/ch_1:1:20260102T000000Z?as_of=2026-01-01T23:59:59Z").await.problem(422, "as-of-out-of-range");
    books.get("/entries/ch_1:1:20260102T000000Z?as_of=0").await.problem(422, "as-of-out-of-range");
    books.get("/entries/ch_1:1:20260102T000000Z?as_of=999").await.problem(422, "as-of-out-of-range");
    books.post(2, 500, "usd").await;
    books.catch_up().await;
    books.get("/entries/ch_2:1:20260103T000000Z?as_of=2026-01-02T00:00:00Z").await.problem(404, "not-found");
    books.get("/entries/ch_1:1:20260102T000000Z?limit=1").await.problem(422, "parameters-invalid");
    books.app.get("/api/v1/ledger/stripe-events/evt_1").role(Role::Operator).send().await.problem(404, "not-found");
}

#[tokio::test]
async fn a_list_is_followed_to_its_end_once_each() {
    let books = Books::new().await;
    for number in 1..=7 {
        books.post(number, number * 100, "usd").await;
    }
    books.catch_up().await;
    let whole = books.all("/accounts/assets:stripe:clearing/postings").await;
    assert_eq!(whole.len(), 7);
    assert_eq!((&whole[0]["amount_minor"], &whole[0]["balance_minor"]), (&json!("700"), &json!("2800")));
    for limit in [1, 2, 3, 7] {
        let path = format!("/accounts/assets:stripe:clearing/postings?limit={limit}");
        assert_eq!(books.all(&path).await, whole, "limit {limit}");
        let accounts = books.all(&format!("/accounts?limit={limit}")).await;
        assert_eq!(
            accounts.iter().map(|account| &account["account"]).collect::<Vec<_>>(),
            ["assets:stripe:clearing", "income:platform-fees"]
        );
    }
    for limit in ["0", "501", "-1", "x", ""] {
        books.get(&format!("/accounts?limit={limit}")).await.problem(422, "parameters-invalid");
    }
}

#[tokio::test]
async fn a_cursor_holds_for_its_own_list_only() {
    let books = Books::new().await;
    for number in 1..=3 {
        books.post(number, 100, "usd").await;
    }
    books.catch_up().await;
    let page = books.get("/accounts/assets:stripe:clearing/postings?limit=1").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let with = |path: &str| format!("{path}{}cursor={cursor}", if path.contains('?') { '&' } else { '?' });
    // Another page size is the same list; another filter or path is not.
    assert_eq!(books.get(&with("/accounts/assets:stripe:clearing/postings?limit=2")).await.status, 200);
    for other in [
        "/accounts/income:platform-fees/postings",
        "/accounts/assets:stripe:clearing/postings?by=occurred",
        "/accounts/assets:stripe:clearing/postings?currency=usd",
        "/accounts",
        "/suspense",
        "/awaited",
        "/stripe-events",
    ] {
        books.get(&with(other)).await.problem(400, "cursor-invalid");
    }
    for bad in
        ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &cursor[1..], &cursor[..cursor.len() - 1], &format!("{cursor}A")]
    {
        books
            .get(&format!("/accounts/assets:stripe:clearing/postings?cursor={bad}"))
            .await
            .problem(400, "cursor-invalid");
    }
}

#[tokio::test]
async fn a_client_reads_its_own_write_as_soon_as_the_projection_has_it() {
    let books = Books::new().await;
    let position = books.post(1, 100, "usd").await;
    let path = format!("{LEDGER}/trial-balance");
    let call = books.app.get(&path).role(Role::Finance).header("journal-min-position", &position.to_string());
    let waiting = tokio::spawn(call.send());
    books.catch_up().await;
    let answer = waiting.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("journal-position")),
        (200, Some(&*position.to_string())),
        "{answer:?}"
    );
    let journal = books.app.get("/api/v1/ops/journal").role(Role::Operator).send().await;
    assert_eq!(
        (&journal.json()["head"], journal.header("journal-position")),
        (&json!(position), Some(&*position.to_string()))
    );
    let runners = books.app.get("/api/v1/ops/projections").role(Role::Operator).send().await;
    assert!(
        runners.json()["items"].as_array().unwrap().iter().all(|runner| runner["position"] == position),
        "{runners:?}"
    );
}

/// A creator whose sale of 1000 was refunded by half a month later, and another who was paid by hand.
async fn with_creators(books: &Books) {
    let day = |number: i64| Timestamp::from_unix_seconds(1_767_225_600 + number * 86_400).unwrap();
    let entry = |object: &str, number: i64, lines: &[(&str, i64)], said: &[(StatementLine, i64)]| {
        let at = day(number);
        Event::EntryPosted(EntryPosted {
            entry_id: format!("{object}:1:{}", at.compact()).parse().unwrap(),
            cause: Cause { object: object.parse().unwrap(), facts: Vec::new(), stripe_event: None, clears: None },
            description: "a charge".to_owned(),
            occurred_at: at,
            effective_at: at,
            postings: lines
                .iter()
                .map(|(account, minor)| Posting {
                    account: account.parse().unwrap(),
                    side: if *minor > 0 { Side::Debit } else { Side::Credit },
                    money: Money::new(minor.abs(), "usd".parse().unwrap()),
                })
                .collect(),
            activity: said
                .iter()
                .map(|(line, minor)| Activity {
                    creator: "crt_1".parse().unwrap(),
                    line: *line,
                    kind: Some(PaymentKind::Tip),
                    minor: *minor,
                    currency: "usd".parse().unwrap(),
                })
                .collect(),
        })
    };
    let (clearing, pending, fees) =
        ("assets:stripe:clearing", "liabilities:creators:crt_1:pending", "income:platform-fees");
    let sold = [(StatementLine::Sales, 1000), (StatementLine::PlatformFees, -200)];
    for (object, event) in [
        ("ch_1", entry("ch_1", 1, &[(clearing, 1000), (pending, -800), (fees, -200)], &sold)),
        (
            "re_1",
            entry("re_1", 40, &[(clearing, -500), (pending, 400), (fees, 100)], &[(StatementLine::Refunds, -400)]),
        ),
        ("mne_1", entry("mne_1", 41, &[("assets:bank", 7), ("liabilities:creators:crt_2:available", -7)], &[])),
    ] {
        let new = NewEvent {
            event_type: event.type_name().to_owned(),
            event_version: event.version().to_owned(),
            payload: event.to_payload().unwrap(),
        };
        let stream = StreamId::new("stripe_charge", object);
        books.writer.append(Command::new(stream, 0, Metadata::default(), vec![new])).await.unwrap();
    }
    books.catch_up().await;
}

#[tokio::test]
async fn a_creator_s_statement_leads_to_its_entries() {
    let books = Books::new().await;
    with_creators(&books).await;
    let answer = books.get("/creators/crt_1/statement?period=2026-02").await;
    assert_eq!((answer.status.as_u16(), answer.header("journal-position")), (200, Some("3")));
    let statement = answer.json();
    assert_eq!((&statement["period"], &statement["closed"]), (&json!("2026-02"), &json!(false)));
    let usd = &statement["currencies"][0];
    assert_eq!((&usd["opening_minor"], &usd["closing_minor"]), (&json!("800"), &json!("400")));
    let closing = json!({"pending_minor": "400", "available_minor": "0", "held_minor": "0", "receivable_minor": "0"});
    assert_eq!(usd["closing"], closing);
    let names: Vec<&str> = usd["lines"].as_array().unwrap().iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(names, ["sales", "platform_fees", "refunds", "disputes", "payouts", "adjustments"]);
    let refunds = json!({"line": "refunds", "amount_minor": "-400", "entries": 1,
        "kinds": [{"kind": "tip", "amount_minor": "-400", "entries": 1}]});
    assert_eq!(usd["lines"][2], refunds);
    let behind = books.all("/creators/crt_1/activity?period=2026-02&line=refunds&kind=tip&currency=usd&limit=1").await;
    assert_eq!(behind.len(), 1);
    let entry = behind[0]["entry_id"].as_str().unwrap();
    assert_eq!((&behind[0]["amount_minor"], &behind[0]["cause"]["object"]), (&json!("-400"), &json!("re_1")));
    assert_eq!(books.get(&format!("/entries/{entry}")).await.status, 200);
    // All of them, newest first; and what finance booked by hand.
    let all = books.all("/creators/crt_1/activity?limit=2").await;
    let amounts: Vec<&str> = all.iter().map(|item| item["amount_minor"].as_str().unwrap()).collect();
    assert_eq!(amounts, ["-400", "-200", "1000"]);
    let by_hand = books.all("/creators/crt_2/activity?kind=none&line=adjustments").await;
    assert_eq!((by_hand.len(), &by_hand[0]["amount_minor"], &by_hand[0]["kind"]), (1, &json!("7"), &Value::Null));

    let creators = books.all("/creators?limit=1").await;
    let shown: Vec<_> = creators
        .iter()
        .map(|has| (has["creator"].clone(), has["pending_minor"].clone(), has["balance_minor"].clone()))
        .collect();
    assert_eq!(shown, [(json!("crt_1"), json!("400"), json!("400")), (json!("crt_2"), json!("0"), json!("7"))]);
}

#[tokio::test]
async fn a_statement_that_cannot_be_meant_is_refused_by_field() {
    let books = Books::new().await;
    with_creators(&books).await;
    for (path, field) in [
        ("/creators/ada/statement", "creator"),
        ("/creators/crt_/activity", "creator"),
        ("/creators/crt_1/statement?period=2026-13", "period"),
        ("/creators/crt_1/statement?period=2026-01&from=2026-01-01T00:00:00Z", "period"),
        ("/creators/crt_1/statement?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("/creators/crt_1/statement?line=sales", "line"),
        ("/creators/crt_1/activity?line=income", "line"),
        ("/creators/crt_1/activity?kind=gift", "kind"),
        ("/creators?as_of=3", "as_of"),
    ] {
        let answer = books.get(path).await;
        answer.problem(422, "parameters-invalid");
        assert_eq!(answer.errors().into_keys().collect::<Vec<_>>(), [field], "{path}");
    }
    for path in ["/creators/crt_9/statement", "/creators/crt_9/activity", "/creators/crt_9/statement?period=2026-01"] {
        books.get(path).await.problem(404, "not-found");
    }
    for path in [
        "/creators/crt_1/statement?to=2025-12-31T00:00:00Z",
        "/creators/crt_1/statement?period=2025-12",
        "/creators/crt_2/activity?as_of=1",
        "/creators/crt_1/statement?as_of=99",
        "/creators/crt_1/statement?period=2026-01&close=1",
    ] {
        books.get(path).await.problem(422, "as-of-out-of-range");
    }
}
