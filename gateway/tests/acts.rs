//! What finance does over HTTP, into a real journal and back out of the real projections: who did it, who may not, what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Answer, Call, KEY, TestApp, VAULT_KEY, token_of};
use fanledger_commands::executor::Executor;
use fanledger_commands::stripe::intake::Intake;
use fanledger_commands::stripe::signature::Secret;
use fanledger_commands::vault::{Vault, VaultKey};
use fanledger_devkit::stripe::sign;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::platform::{ApplicationFee, Transfer};
use fanledger_domain::event::{ApplicationFeeObserved, ChargeObserved, Event, TransferObserved};
use fanledger_domain::facts::{
    ApplicationFeeSnapshot, ChargeSnapshot, ChargeStatus, EventStamp, Offer, TransferSnapshot,
};
use fanledger_domain::ledgered::LedgerCommand;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::Role;
use fanledger_journal::database;
use fanledger_journal::event::Metadata;
use fanledger_journal::runner::{RunnerContext, catch_up};
use fanledger_journal::writer::{Writer, WriterOptions};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const LEDGER: &str = "/api/v1/ledger";
const SECRET: &str = "whsec_of_the_test";
const CREATED: i64 = 1_770_000_000;

struct Desk {
    app: TestApp,
    executor: Executor,
    context: RunnerContext,
}

impl Desk {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let writer = Writer::start(WriterOptions::new(app.database.url_for("fanledger_command"))).await.unwrap();
        let executor = Executor::new(app.command_pool.clone(), writer);
        let pool = database::connect(&app.database.url_for("fanledger_projector"), 2).await.unwrap();
        let desk = Self { app, executor, context: RunnerContext::without_feed(pool) };
        desk.catch_up().await;
        desk
    }

    async fn catch_up(&self) {
        for mut projection in fanledger_projections::all() {
            catch_up(&self.context, projection.as_mut()).await.unwrap();
        }
    }

    fn call(&self, path: &str, subject: &str) -> Call {
        self.app.post(&format!("{LEDGER}{path}")).token(&token_of(subject, &[Role::Finance]))
    }

    async fn post(&self, path: &str, subject: &str, body: Value) -> Answer {
        self.call(path, subject).json(&body).send().await
    }

    async fn get(&self, path: &str) -> Value {
        self.catch_up().await;
        let answer = self.app.get(&format!("{LEDGER}{path}")).role(Role::Finance).send().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// The balance of an account, in minor units; nothing where nothing was ever posted to it.
    async fn balance(&self, account: &str) -> Option<String> {
        let trial = self.get("/trial-balance").await;
        let accounts = trial["currencies"][0]["accounts"].as_array().cloned().unwrap_or_default();
        let found = accounts.iter().find(|found| found["account"] == account)?;
        found["balance_minor"].as_str().map(str::to_owned)
    }

    async fn events(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM journal.events").fetch_one(&self.app.superuser).await.unwrap()
    }

    async fn webhook(&self, id: &str) -> String {
        let body = json!({"id": id, "object": "event", "type": "charge.succeeded", "api_version": "2024-06-20",
            "created": CREATED, "livemode": false, "data": {"object": {"id": "ch_9", "object": "charge", "amount": 1.50,
            "billing_details": {"name": "Jane Doe"}}}})
        .to_string();
        let vault = Vault::new(VaultKey::new(VAULT_KEY), self.app.command_pool.clone());
        let intake = Intake::new(self.executor.clone(), vault, vec![Secret::new(SECRET).unwrap()]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        intake.receive(Some(sign(SECRET, now, body.as_bytes()).as_bytes()), body.as_bytes()).await.unwrap();
        body
    }

    async fn see(&self) {
        let at = Timestamp::from_unix_seconds(CREATED).unwrap();
        let stamp = EventStamp { created: at, event: "evt_1".parse().unwrap() };
        let learn = |fact: Event| LedgerCommand::Learn { facts: vec![fact], stripe_event: None };
        let metadata = Metadata::default();
        let charge = ChargeSnapshot {
            id: "ch_1".parse().unwrap(),
            created: at,
            currency: "usd".parse().unwrap(),
            amount: 1000,
            amount_captured: 1000,
            status: ChargeStatus::Succeeded,
            captured: true,
            payment_intent: None,
            invoice: None,
            balance_transaction: None,
            failure_balance_transaction: None,
            offer: Offer::Silent,
        };
        let fact = learn(ChargeObserved { stamp: stamp.clone(), charge }.into());
        self.executor.execute::<Charge>(&"ch_1".parse().unwrap(), fact, &metadata).await.unwrap();
        let transfer = TransferSnapshot {
            id: "tr_1".parse().unwrap(),
            created: at,
            currency: "usd".parse().unwrap(),
            amount: 700,
            amount_reversed: 0,
            reversals: Vec::new(),
            destination: None,
            balance_transaction: None,
            offer: Offer::Silent,
        };
        let fact = learn(TransferObserved { stamp: stamp.clone(), transfer }.into());
        self.executor.execute::<Transfer>(&"tr_1".parse().unwrap(), fact, &metadata).await.unwrap();
        let fee = ApplicationFeeSnapshot {
            id: "fee_1".parse().unwrap(),
            created: at,
            currency: "usd".parse().unwrap(),
            amount: 300,
            amount_refunded: 0,
            refunds: Vec::new(),
            account: None,
            originating_transaction: Some("ch_2".parse().unwrap()),
            balance_transaction: None,
        };
        let fact = learn(ApplicationFeeObserved { stamp, fee }.into());
        self.executor.execute::<ApplicationFee>(&"fee_1".parse().unwrap(), fact, &metadata).await.unwrap();
    }
}

fn line(account: &str, side: &str, amount: impl Into<Value>) -> Value {
    json!({"account": account, "side": side, "amount_minor": amount.into(), "currency": "usd"})
}

fn entry(minor: &str) -> Value {
    json!({
        "description": "interest of October", "reason": "bank statement", "occurred_at": "2025-10-31T00:00:00Z",
        "postings": [line("assets:bank", "debit", minor), line("income:other", "credit", minor)],
    })
}

#[tokio::test]
async fn a_charge_is_attributed_and_suspense_goes_to_zero_at_its_date() {
    let desk = Desk::new().await;
    desk.see().await;
    assert_eq!(desk.get("/suspense").await["items"].as_array().unwrap().len(), 3);
    let said = json!({"creator": "crt_a", "fan": "fan_1", "kind": "tip", "creator_share_bps": 9000, "tax_minor": "100",
        "tax_jurisdiction": "us-ny", "reason": "the fan wrote"});
    let answer = desk.post("/charges/ch_1/attribution", "ada", said.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let receipt = answer.json();
    assert_eq!((&receipt["object"], &receipt["changed"]), (&json!("ch_1"), &json!(true)));
    assert_eq!(receipt["creator_is_new"], true);
    let position: i64 = answer.header("journal-position").unwrap().parse().unwrap();
    assert_eq!(position, desk.events().await, "the position of what it led to");
    assert_eq!(desk.balance("liabilities:suspense:unattributed").await.as_deref(), Some("0"));
    assert_eq!(desk.balance("liabilities:creators:crt_a:pending").await.as_deref(), Some("-810"));
    assert_eq!(desk.balance("liabilities:tax:us-ny").await.as_deref(), Some("-100"));
    // At the date of the charge, which is the first there is.
    let entry = desk.get(&format!("/entries/{}", receipt["entries"][0].as_str().unwrap())).await;
    assert_eq!(entry["occurred_at"], Timestamp::from_unix_seconds(CREATED).unwrap().to_string());
    let (by, reason): (String, String) = sqlx::query_as(
        "SELECT payload ->> 'by', payload ->> 'reason' FROM journal.events WHERE event_type = 'CreatorAttributed'",
    )
    .fetch_one(&desk.app.superuser)
    .await
    .unwrap();
    assert_eq!((by.as_str(), reason.as_str()), ("ada", "the fan wrote"));

    let before = desk.events().await;
    let again = desk.post("/charges/ch_1/attribution", "grace", said).await;
    assert_eq!((again.status.as_u16(), again.json()["changed"].clone()), (200, json!(false)));
    assert_eq!(again.json()["creator_is_new"], false);
    assert_eq!(desk.events().await, before);

    // A transfer and an application fee, likewise.
    for (path, balance) in [("/transfers/tr_1", Some("700")), ("/application-fees/fee_1", Some("400"))] {
        let said = json!({"creator": "crt_b", "reason": "by the bank account"});
        let answer = desk.post(&format!("{path}/attribution"), "ada", said).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(desk.balance("liabilities:creators:crt_b:available").await.as_deref(), balance);
    }
    assert_eq!(desk.get("/suspense").await["items"], json!([]));

    // Who said it, when and why, is read where an auditor looks: at the entry, and in a list, newest first.
    let act = json!({"proposed_by": "ada", "approved_by": null, "reason": "the fan wrote", "reverses": null});
    assert_eq!(entry["cause"]["act"], act);
    let of_charge = desk.get("/accounts/liabilities:suspense:unattributed/postings").await["items"].clone();
    let unattributed =
        of_charge.as_array().unwrap().iter().find(|line| line["entry_id"].as_str().unwrap().starts_with("ch_1:1:"));
    let path = format!("/entries/{}", unattributed.unwrap()["entry_id"].as_str().unwrap());
    assert_eq!(desk.get(&path).await["cause"].get("act"), None, "what Stripe told is nobody's word");
    let all = desk.get("/attributions?limit=2").await;
    assert_eq!((&all["items"][0]["object"], &all["items"][1]["object"]), (&json!("fee_1"), &json!("tr_1")));
    let rest = desk.get(&format!("/attributions?cursor={}", all["next_cursor"].as_str().unwrap())).await;
    assert_eq!(desk.get("/attributions?object=ch_1").await["items"], rest["items"]);
    let mut said = rest["items"][0].clone();
    let at = said.as_object_mut().unwrap().remove("said_at").unwrap();
    assert!(at.as_str().unwrap().ends_with('Z'), "{at}");
    let position = entry["cause"]["facts"][0]["position"].clone();
    assert_eq!(
        said,
        json!({"object": "ch_1", "creator": "crt_a", "fan": "fan_1", "kind": "tip", "creator_share_bps": 9000,
        "tax_minor": "100", "tax_jurisdiction": "us-ny", "said_by": "ada", "reason": "the fan wrote", "position": position})
    );
    let wrong = desk.app.get(&format!("{LEDGER}/attributions?object=a%20b")).role(Role::Finance).send().await;
    wrong.problem(422, "parameters-invalid");
}

#[tokio::test]
async fn an_attribution_that_cannot_be_is_refused_with_everything_that_is_wrong() {
    let desk = Desk::new().await;
    desk.see().await;
    let before = desk.events().await;
    let bad = json!({"creator": "nobody", "fan": "crt_1", "kind": "gift", "creator_share_bps": 10001, "tax_minor": "-1",
        "tax_jurisdiction": "US", "reason": " ", "amount": 5});
    let answer = desk.post("/charges/ch_1/attribution", "ada", bad).await;
    let problem = answer.problem(422, "parameters-invalid");
    let fields: Vec<String> = answer.errors().into_keys().collect();
    assert_eq!(
        fields,
        ["amount", "creator", "creator_share_bps", "fan", "kind", "reason", "tax_jurisdiction", "tax_minor"]
    );
    assert!(!problem.to_string().contains("nobody"), "no value is told back: {problem}");
    for missing in [json!({"reason": "x"}), json!({"creator": null, "reason": "x"})] {
        let answer = desk.post("/charges/ch_1/attribution", "ada", missing).await;
        assert_eq!(answer.errors()["creator"], ["is missing"], "{answer:?}");
    }
    let good = json!({"creator": "crt_a", "reason": "x"});
    desk.post("/charges/ch_unheard/attribution", "ada", good.clone()).await.problem(404, "not-found");
    desk.post("/transfers/tr_unheard/attribution", "ada", good.clone()).await.problem(404, "not-found");
    for path in ["/charges/tr_1", "/transfers/ch_1", "/application-fees/ch_1", "/charges/a%20b"] {
        let answer = desk.post(&format!("{path}/attribution"), "ada", good.clone()).await;
        answer.problem(422, "parameters-invalid");
    }
    let tax = json!({"creator": "crt_a", "tax_minor": 1001, "reason": "x"});
    let answer = desk.post("/charges/ch_1/attribution", "ada", tax).await;
    answer.problem(422, "parameters-invalid");
    assert!(answer.errors()["tax_minor"][0].contains("10.00 usd"), "{answer:?}");
    // Of a transfer only the creator can be said.
    let answer = desk
        .post("/transfers/tr_1/attribution", "ada", json!({"creator": "crt_a", "kind": "tip", "reason": "x"}))
        .await;
    assert!(answer.errors().contains_key("kind"), "{answer:?}");
    desk.post("/charges/ch_1/attribution", "ada", json!([])).await.problem(400, "request-malformed");
    desk.call("/charges/ch_1/attribution", "ada").body("{}").send().await.problem(415, "media-type-unsupported");
    assert_eq!(desk.events().await, before, "nothing was written");
}

#[tokio::test]
async fn an_entry_by_hand_within_the_limit_is_posted_and_tells_who_and_why() {
    let desk = Desk::new().await;
    let answer = desk.post("/manual-entries", "ada", entry("100000")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let receipt = answer.json();
    assert_eq!((&receipt["state"], &receipt["needs_approval"]), (&json!("posted"), &json!(false)));
    let entry_id = receipt["entry_id"].as_str().unwrap();
    let id = receipt["id"].as_str().unwrap();
    let posted = desk.get(&format!("/entries/{entry_id}")).await;
    assert_eq!(
        (&posted["description"], &posted["stream"]),
        (&json!("interest of October"), &json!(format!("manual_entry/{id}")))
    );
    let act = json!({"proposed_by": "ada", "approved_by": null, "reason": "bank statement", "reverses": null});
    assert_eq!(posted["cause"]["act"], act);
    assert_eq!(posted["cause"]["facts"][0]["fact"], "ManualEntryProposed");
    let listed = desk.get("/manual-entries").await;
    assert_eq!(listed["items"][0], desk.get(&format!("/manual-entries/{id}")).await);
    let item = &listed["items"][0];
    assert_eq!(
        (&item["entry_id"], &item["state"], &item["decided_by"]),
        (&json!(entry_id), &json!("posted"), &json!(null))
    );
    assert_eq!(item["postings"], entry("100000")["postings"]);
    assert_eq!(desk.balance("assets:bank").await.as_deref(), Some("100000"));
    let missing = desk.app.get(&format!("{LEDGER}/manual-entries/mne_none")).role(Role::Finance).send().await;
    missing.problem(404, "not-found");
    for query in ["state=open", "limit=0", "sort=up"] {
        let path = format!("{LEDGER}/manual-entries?{query}");
        desk.app.get(&path).role(Role::Finance).send().await.problem(422, "parameters-invalid");
    }
}

#[tokio::test]
async fn above_the_limit_it_waits_for_another_person() {
    let desk = Desk::new().await;
    let receipt = desk.post("/manual-entries", "ada", entry("100001")).await.json();
    assert_eq!((&receipt["state"], &receipt["entry_id"]), (&json!("proposed"), &json!(null)));
    let id = receipt["id"].as_str().unwrap().to_owned();
    assert_eq!(desk.balance("assets:bank").await, None);
    let act = |what: &str| format!("/manual-entries/{id}/{what}");
    // The same person, whatever else they are.
    let both = token_of("ada", &[Role::Finance, Role::Admin]);
    let refused = desk.app.post(&format!("{LEDGER}{}", act("approve"))).token(&both).send().await;
    assert!(refused.problem(409, "second-person-needed")["detail"].as_str().unwrap().contains("somebody else"));
    desk.post(&act("approve"), "grace", json!({"force": true})).await.problem(422, "parameters-invalid");
    assert_eq!(desk.get("/manual-entries?state=proposed").await["items"][0]["id"], json!(id));

    let answer = desk.call(&act("approve"), "grace").send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("posted")), "{answer:?}");
    let entry_id = answer.json()["entry_id"].as_str().unwrap().to_owned();
    assert_eq!(desk.balance("assets:bank").await.as_deref(), Some("100001"));
    let posted = desk.get(&format!("/entries/{entry_id}")).await;
    assert_eq!(
        (&posted["cause"]["act"]["proposed_by"], &posted["cause"]["act"]["approved_by"]),
        (&json!("ada"), &json!("grace"))
    );
    desk.call(&act("approve"), "hopper").send().await.problem(409, "already-decided");
    desk.post(&act("reject"), "hopper", json!({"reason": "late"})).await.problem(409, "already-decided");

    let id = desk.post("/manual-entries", "ada", entry("100001")).await.json()["id"].as_str().unwrap().to_owned();
    let reject = format!("/manual-entries/{id}/reject");
    desk.post(&reject, "ada", json!({})).await.problem(422, "parameters-invalid");
    let rejected = desk.post(&reject, "ada", json!({"reason": "a slip"})).await;
    assert_eq!(rejected.json()["state"], "rejected");
    let item = desk.get(&format!("/manual-entries/{id}")).await;
    assert_eq!((&item["rejection_reason"], &item["decided_by"]), (&json!("a slip"), &json!("ada")));
    desk.call(&format!("/manual-entries/{id}/approve"), "grace").send().await.problem(409, "already-decided");
    desk.call("/manual-entries/mne_none/approve", "grace").send().await.problem(404, "not-found");
}

/// Two second persons at once: one posts it, the other hears that it is posted.
#[tokio::test]
async fn two_approvals_at_once_post_one_entry() {
    let desk = Desk::new().await;
    let id = desk.post("/manual-entries", "ada", entry("100001")).await.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/manual-entries/{id}/approve");
    let (one, other) = tokio::join!(desk.call(&path, "grace").send(), desk.call(&path, "hopper").send());
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{one:?} {other:?}");
    assert_eq!(desk.balance("assets:bank").await.as_deref(), Some("100001"));
}

#[tokio::test]
async fn a_wrong_entry_by_hand_is_told_everything_that_is_wrong_with_it() {
    let desk = Desk::new().await;
    let before = desk.events().await;
    let bad = json!({
        "description": "", "reason": "", "occurred_at": "2125-01-01T00:00:00Z",
        "postings": [line("assets:nowhere", "debit", 0), line("assets:stripe:clearing", "left", "-1")],
    });
    let answer = desk.post("/manual-entries", "ada", bad).await;
    answer.problem(422, "parameters-invalid");
    let fields: Vec<String> = answer.errors().into_keys().collect();
    assert_eq!(
        fields,
        [
            "description",
            "occurred_at",
            "postings[0].account",
            "postings[0].amount_minor",
            "postings[1].account",
            "postings[1].amount_minor",
            "postings[1].side",
            "reason"
        ]
    );
    let mut unbalanced = entry("100");
    unbalanced["postings"][1]["amount_minor"] = json!("99");
    let answer = desk.post("/manual-entries", "ada", unbalanced).await;
    assert!(answer.errors()["postings"][0].contains("usd does not sum to zero"), "{answer:?}");
    let shapes = [
        (json!({}), "postings"),
        (json!({"postings": {}}), "postings"),
        (json!({"postings": [7]}), "postings[0]"),
        (json!({"postings": [{"account": 7}]}), "postings[0].account"),
        (json!({"postings": [{"note": "x"}]}), "postings[0].note"),
        (json!({"postings": [], "currency": "usd"}), "currency"),
    ];
    for (shape, field) in shapes {
        let answer = desk.post("/manual-entries", "ada", shape).await;
        answer.problem(422, "parameters-invalid");
        assert!(answer.errors().contains_key(field), "{field}: {answer:?}");
    }
    assert_eq!(desk.events().await, before, "nothing was written");
}

/// Who looked over the first of two amounts did not look over the second.
#[tokio::test]
async fn what_is_said_twice_is_refused() {
    let desk = Desk::new().await;
    let body =
        entry("100").to_string().replacen(r#""amount_minor":"100""#, r#""amount_minor":"1","amount_minor":"100""#, 1);
    let answer = desk.call("/manual-entries", "ada").header("content-type", "application/json").body(body).send().await;
    let problem = answer.problem(400, "request-malformed");
    assert!(problem["detail"].as_str().unwrap().contains("twice"), "{problem}");
}

/// A small request never makes a large answer.
#[tokio::test]
async fn of_very_many_faults_some_are_told_and_the_rest_counted() {
    let desk = Desk::new().await;
    let lines = vec![json!({"account": "assets:nowhere", "side": "left", "amount_minor": "x", "currency": "?"}); 700];
    let bad = json!({"description": "", "reason": "", "occurred_at": "?", "postings": lines});
    let answer = desk.call("/manual-entries", "ada").json(&bad).send().await;
    assert_eq!(answer.status, 422);
    assert!(answer.body.len() < 20_000, "{} bytes", answer.body.len());
    let untold = &answer.errors()["body"];
    assert_eq!(untold.len(), 1);
    assert!(untold[0].ends_with("more faults are not told"), "{untold:?}");
}

/// Whoever gets no answer asks again with the same key, even where the first answer was lost before it was kept.
#[tokio::test]
async fn one_key_is_one_entry_though_its_answer_was_lost() {
    let desk = Desk::new().await;
    let first = desk.call("/manual-entries", "ada").key("k-1").json(&entry("100")).send().await;
    assert_eq!(first.status, 200, "{first:?}");
    sqlx::query("DELETE FROM control.http_idempotency").execute(&desk.app.superuser).await.unwrap();
    let again = desk.call("/manual-entries", "ada").key("k-1").json(&entry("100")).send().await;
    assert_eq!(again.json(), first.json());
    assert_eq!(desk.balance("assets:bank").await.as_deref(), Some("100"));
    sqlx::query("DELETE FROM control.http_idempotency").execute(&desk.app.superuser).await.unwrap();
    let other = desk.call("/manual-entries", "ada").key("k-1").json(&entry("101")).send().await;
    other.problem(422, "idempotency-key-reused");
    // Another person's key is another key.
    let theirs = desk.call("/manual-entries", "grace").key("k-1").json(&entry("100")).send().await;
    assert_ne!(theirs.json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn an_entry_is_taken_back_once_unless_the_books_of_an_object_posted_it() {
    let desk = Desk::new().await;
    desk.see().await;
    let posted = desk.post("/manual-entries", "ada", entry("500")).await.json();
    let path = format!("/entries/{}/reverse", posted["entry_id"].as_str().unwrap());
    desk.post(&path, "ada", json!({"reason": ""})).await.problem(422, "parameters-invalid");
    let early = json!({"reason": "twice", "occurred_at": "2025-10-30T00:00:00Z"});
    assert!(desk.post(&path, "ada", early).await.errors().contains_key("occurred_at"));
    let receipt = desk.post(&path, "grace", json!({"reason": "booked twice"})).await.json();
    assert_eq!(receipt["state"], "posted", "{receipt}");
    assert_eq!(desk.balance("assets:bank").await.as_deref(), Some("0"));
    let reversal = desk.get(&format!("/entries/{}", receipt["entry_id"].as_str().unwrap())).await;
    let act =
        json!({"proposed_by": "grace", "approved_by": null, "reason": "booked twice", "reverses": posted["entry_id"]});
    assert_eq!(reversal["cause"]["act"], act);
    let reversed = desk.get(&format!("/entries/{}", posted["entry_id"].as_str().unwrap())).await;
    assert_eq!(reversed["reversed_by"], receipt["id"]);
    let again = desk.post(&path, "ada", json!({"reason": "once more"})).await.problem(409, "already-reversed");
    assert!(again["detail"].as_str().unwrap().contains(receipt["id"].as_str().unwrap()), "names the first: {again}");

    desk.post("/entries/ch_1:9:x/reverse", "ada", json!({"reason": "x"})).await.problem(404, "not-found");
    desk.post("/entries/a%20b/reverse", "ada", json!({"reason": "x"})).await.problem(422, "parameters-invalid");
    // The charge's entry, and what an attribution led to, which the charge's books hold as theirs.
    let suspense = desk.get("/accounts/liabilities:suspense:unattributed/postings").await;
    let of_stripe = suspense["items"][0]["entry_id"].as_str().unwrap();
    let refused = desk.post(&format!("/entries/{of_stripe}/reverse"), "ada", json!({"reason": "x"})).await;
    assert!(refused.problem(422, "not-by-hand")["detail"].as_str().unwrap().contains("attribute"));
    let said = json!({"creator": "crt_a", "reason": "the fan wrote"});
    let attributed = desk.post("/charges/ch_1/attribution", "ada", said).await.json();
    let path = format!("/entries/{}/reverse", attributed["entries"][0].as_str().unwrap());
    let refused = desk.post(&path, "ada", json!({"reason": "a test"})).await.problem(422, "not-by-hand");
    assert!(refused["detail"].as_str().unwrap().contains("attribute ch_1"), "{refused}");
    assert_eq!(desk.balance("liabilities:suspense:unattributed").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn an_entry_by_hand_clears_the_suspense_of_the_object_that_it_names() {
    let desk = Desk::new().await;
    desk.see().await;
    let waits = async |desk: &Desk, query: &str| -> Vec<Value> {
        let open = desk.get(&format!("/suspense{query}")).await["items"].as_array().unwrap().clone();
        open.into_iter().filter(|item| item["account"] == "liabilities:suspense:unattributed").collect()
    };
    let before = waits(&desk, "").await;
    assert_eq!((before.len(), &before[0]["object"], &before[0]["balance_minor"]), (1, &json!("ch_1"), &json!("-1000")));
    let moves = |clears: Value| {
        json!({
            "description": "whose it was", "reason": "a test", "occurred_at": "2026-03-01T00:00:00Z", "clears": clears,
            "postings": [
                line("liabilities:suspense:unattributed", "debit", "1000"),
                line("liabilities:creators:crt_a:available", "credit", "1000"),
            ],
        })
    };
    let fault = |answer: Answer| answer.problem(422, "parameters-invalid")["errors"].clone();
    let wrong = fault(desk.post("/manual-entries", "ada", moves(json!("no id"))).await);
    assert_eq!((wrong.as_array().unwrap().len(), &wrong[0]["field"]), (1, &json!("clears")));
    let mut nothing = entry("100");
    nothing["clears"] = json!("ch_1");
    let wrong = fault(desk.post("/manual-entries", "ada", nothing).await);
    assert!(wrong[0]["message"].as_str().unwrap().contains("no line moves suspense"), "{wrong}");

    let posted = desk.post("/manual-entries", "ada", moves(json!("ch_1"))).await.json();
    assert_eq!(waits(&desk, "").await, Vec::<Value>::new());
    let head = desk.events().await;
    assert_eq!(waits(&desk, &format!("?as_of={head}")).await, Vec::<Value>::new());
    assert_eq!(waits(&desk, &format!("?as_of={}", head - 2)).await, before);
    let proposed = desk.get(&format!("/manual-entries/{}", posted["id"].as_str().unwrap())).await;
    let told = desk.get(&format!("/entries/{}", posted["entry_id"].as_str().unwrap())).await;
    assert_eq!((&proposed["clears"], &told["cause"]["act"]["clears"]), (&json!("ch_1"), &json!("ch_1")));
    let line = &desk.get("/accounts/liabilities:suspense:unattributed/postings").await["items"][0];
    assert_eq!((&line["entry_id"], &line["cause"]["object"]), (&posted["entry_id"], &json!("ch_1")));

    // Taken back, it waits again where it waited.
    let path = format!("/entries/{}/reverse", posted["entry_id"].as_str().unwrap());
    desk.post(&path, "ada", json!({"reason": "not so"})).await.json();
    let again = waits(&desk, "").await;
    assert_eq!((again.len(), &again[0]["object"], &again[0]["balance_minor"]), (1, &json!("ch_1"), &json!("-1000")));
}

#[tokio::test]
async fn a_reversal_above_the_limit_waits_and_gives_way_once_rejected() {
    let desk = Desk::new().await;
    let id = desk.post("/manual-entries", "ada", entry("100001")).await.json()["id"].as_str().unwrap().to_owned();
    let posted = desk.call(&format!("/manual-entries/{id}/approve"), "grace").send().await.json();
    let path = format!("/entries/{}/reverse", posted["entry_id"].as_str().unwrap());
    let proposed = desk.post(&path, "ada", json!({"reason": "wrong"})).await.json();
    assert_eq!(proposed["state"], "proposed");
    let reversal = proposed["id"].as_str().unwrap();
    let waits = desk.post(&path, "grace", json!({"reason": "wrong"})).await.problem(409, "already-reversed");
    assert!(waits["detail"].as_str().unwrap().contains("once it is approved"), "it stands still: {waits}");
    let stands = desk.get(&format!("/entries/{}", posted["entry_id"].as_str().unwrap())).await;
    assert_eq!((&stands["reversed_by"], &stands["reversal_state"]), (&proposed["id"], &json!("proposed")));
    desk.call(&format!("/manual-entries/{reversal}/approve"), "ada").send().await.problem(409, "second-person-needed");
    desk.post(&format!("/manual-entries/{reversal}/reject"), "grace", json!({"reason": "it is right"})).await;
    let reversed = desk.get(&format!("/entries/{}", posted["entry_id"].as_str().unwrap())).await;
    assert_eq!(reversed.get("reversed_by"), None, "a rejected reversal takes nothing back");
    let anew = desk.post(&path, "grace", json!({"reason": "it is wrong after all"})).await.json();
    assert_eq!((&anew["id"], &anew["state"]), (&proposed["id"], &json!("proposed")));
    let item = desk.get(&format!("/manual-entries/{reversal}")).await;
    assert_eq!(
        (&item["state"], &item["proposed_by"], &item["decided_by"]),
        (&json!("proposed"), &json!("grace"), &json!(null))
    );
    let said = (&item["rejected_by"], &item["rejection_reason"]);
    assert_eq!(said, (&json!("grace"), &json!("it is right")), "that somebody said no stays to be seen");
    let done = desk.call(&format!("/manual-entries/{reversal}/approve"), "ada").send().await;
    assert_eq!(done.json()["state"], "posted", "{done:?}");
    assert_eq!(desk.balance("assets:bank").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_webhook_is_opened_in_a_person_s_name_and_kept_nowhere() {
    let desk = Desk::new().await;
    let body = desk.webhook("evt_9").await;
    let open = |subject: &str| desk.call("/stripe-events/evt_9/open", subject).json(&json!({"reason": "the fan asks"}));
    let answer = open("ada").key("k-1").send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("cache-control")),
        (200, Some("no-store")),
        "{:?}",
        answer.status
    );
    let opened = answer.json();
    assert_eq!((&opened["opened_by"], &opened["bytes"]), (&json!("ada"), &json!(body.len())));
    // Byte for byte, numbers as they were written.
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains(&body), "the exact body");
    let digest: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(opened["sha256"], json!(digest));
    // Personal data is not kept for whoever uses the key again: it is opened again, and that is recorded.
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM control.http_idempotency WHERE convert_from(coalesce(body, ''), 'UTF8') LIKE '%Jane%'",
    )
    .fetch_one(&desk.app.superuser)
    .await
    .unwrap();
    assert_eq!(kept, 0);
    assert_eq!(open("ada").key("k-1").send().await.status, 200);
    open("grace").send().await;
    let item = desk.get("/stripe-events/evt_9").await;
    let seen: Vec<&Value> = item["openings"].as_array().unwrap().iter().map(|opening| &opening["by"]).collect();
    assert_eq!(seen, ["ada", "ada", "grace"]);
    assert_eq!(item["openings"][0]["reason"], "the fan asks");
    assert_eq!((&item["facts"], &item["status"]), (&json!(0), &json!("pending")), "an opening is no fact");

    for reason in [json!({}), json!({"reason": "  "}), json!({"reason": "x".repeat(501)})] {
        desk.post("/stripe-events/evt_9/open", "ada", reason).await.problem(422, "parameters-invalid");
    }
    desk.post("/stripe-events/evt_none/open", "ada", json!({"reason": "x"})).await.problem(404, "not-found");
}

#[tokio::test]
async fn an_erased_webhook_says_so_and_nothing_is_recorded() {
    let desk = Desk::new().await;
    desk.webhook("evt_9").await;
    sqlx::query("SELECT vault.destroy(ARRAY['stripe_event'], ARRAY['evt_9'])")
        .execute(&desk.app.command_pool)
        .await
        .unwrap();
    let before = desk.events().await;
    let answer = desk.post("/stripe-events/evt_9/open", "ada", json!({"reason": "the fan asks"})).await;
    assert!(answer.problem(410, "body-erased")["detail"].as_str().unwrap().contains("erased"));
    assert_eq!(desk.events().await, before);
}

/// Not as an erased one, and not as a failure that says nothing: who asks tells operators, who know what to restore.
#[tokio::test]
async fn a_webhook_whose_key_the_vault_has_lost_is_refused_with_what_to_do() {
    let desk = Desk::new().await;
    desk.webhook("evt_9").await;
    sqlx::query("DELETE FROM vault.keys").execute(&desk.app.superuser).await.unwrap();
    let before = desk.events().await;
    let answer = desk.post("/stripe-events/evt_9/open", "ada", json!({"reason": "the fan asks"})).await;
    let detail = answer.problem(503, "body-key-missing")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("evt_9") && detail.contains("restored to an earlier time"), "{detail}");
    assert_eq!(desk.events().await, before, "nothing was opened, and nothing says so");
}

/// Whoever has the key may sign what we would not mint: an act is remembered with an id, or not done.
#[tokio::test]
async fn a_subject_that_is_no_id_does_not_act() {
    let desk = Desk::new().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |sub: &str| {
        json!({"sub": sub, "roles": ["finance", "operator"], "iss": "fanledger", "aud": "fanledger-api", "exp": now + 60, "nbf": now,
            "iat": now, "jti": "1"})
    };
    let signed = |sub: &str| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "HS256"})), part(&claims(sub)));
        let mut mac = Hmac::<Sha256>::new_from_slice(&KEY).unwrap();
        mac.update(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    };
    let post =
        |sub: &str| desk.app.post(&format!("{LEDGER}/manual-entries")).token(&signed(sub)).json(&entry("1")).send();
    for sub in ["Ada Lovelace", "ada\n", &"a".repeat(129)] {
        post(sub).await.problem(401, "token-invalid");
        let skip = desk.app.post("/api/v1/ops/projections/balances/skip").token(&signed(sub));
        let skip = skip.json(&json!({"position": 7, "reason": "why"})).send().await;
        skip.problem(401, "token-invalid");
    }
    assert_eq!(desk.events().await, 0);
    assert_eq!(post("ada").await.status, 200);
}
