//! A month is closed over the API while webhooks go on: what comes late counts at the first open instant with both dates kept, and
//! the closed month is printed again unchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use e2e::finish;
use e2e::platform::Platform;
use fanledger_devkit::history;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database::Role;
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::writer::{Writer, WriterOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

const CLOSE: [&str; 4] = ["ledger", "close", "2026-01", "--json"];
const JANUARY: &str = "ledger trial-balance --period 2026-01";
const FEBRUARY_BEGINS: i64 = 1_769_904_000;

/// Entries that occurred in January and count in February, and those that were recorded after `position` and count in January.
async fn late_and_misplaced(pool: &PgPool, position: u64) -> (i64, i64) {
    sqlx::query_as(
        "SELECT count(*) FILTER (WHERE occurred_at < '2026-02-01Z' AND effective_at = '2026-02-01Z'),
                count(*) FILTER (WHERE position > $1 AND effective_at < '2026-02-01Z')
         FROM read.entries",
    )
    .bind(position.cast_signed())
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_is_printed_again_unchanged_whatever_comes_late() {
    let history = history::random(11, 40);
    let platform = Platform::start(&history.balance_transactions).await;
    let pool = platform.site.superuser().await;
    // What returned money comes late; so do all webhooks of February and March.
    let is_early = |event: &&Value| {
        let kind = event["type"].as_str().unwrap();
        let returns = kind.contains("refund") || kind.contains("dispute");
        !returns && event["created"].as_i64().unwrap() < FEBRUARY_BEGINS
    };
    let early: Vec<Value> = history.events.iter().filter(is_early).cloned().collect();
    let late: Vec<Value> = history.events.iter().filter(|event| !is_early(event)).cloned().collect();
    platform.receive(&early).await;

    // What is open is shown, and does not stop the close.
    let dry = platform.as_finance("ada", &["ledger", "close", "2026-01", "--dry-run", "--json"]).await.json(0);
    assert_eq!(dry["closing"], Value::Null);
    assert!(!dry["open"].as_array().unwrap().is_empty(), "{dry}");
    let never = platform.site.run(JANUARY).await;
    assert_eq!(never.code, 2);
    assert!(never.stderr.contains("never closed"), "{}", never.stderr);
    let closed = platform.as_finance("ada", &CLOSE).await.json(0);
    let closing = closed["closing"].clone();
    assert_eq!(
        (&closing["period"], &closing["close"], &closing["closed_by"]),
        (&json!("2026-01"), &json!(1), &json!("ada"))
    );
    let position = closing["position"].as_u64().unwrap();
    let head = platform.json(&format!("journal show {position}")).await;
    assert_eq!((&head["event_type"], &head["chain"]), (&json!("PeriodClosed"), &closing["chain"]));
    let january = platform.json(JANUARY).await;
    assert_eq!((&january["closing"], &january["position"]), (&closing, &json!(position)));
    let printed = finish(platform.site.command(JANUARY.split(' '))).await.stdout;
    assert!(printed.contains(closing["digest"].as_str().unwrap()), "{printed}");
    assert_eq!(closing["digest"], json!(digest_by_sql(&pool, &closing).await), "as docs/period-close.md says");

    // Late facts keep both dates.
    platform.receive(&late).await;
    let (moved, misplaced) = late_and_misplaced(&pool, position).await;
    assert!(moved > 0 && misplaced == 0, "{moved} moved, {misplaced} misplaced");
    assert_eq!(platform.json(JANUARY).await, january);
    assert_eq!(finish(platform.site.command(JANUARY.split(' '))).await.stdout, printed);
    assert_eq!(platform.json("journal verify").await["ok"], true);

    what_is_against_the_rules_is_refused(&platform).await;
    let second = reopened_and_closed_again(&platform, &pool, &january).await;
    statements_of_the_closed_month(&platform, &second).await;
    what_is_slipped_in_is_found(&platform).await;
    assert!(platform.all.terminate().await.success());
}

/// The rules, as people meet them.
async fn what_is_against_the_rules_is_refused(platform: &Platform) {
    for (person, arguments, code, said) in [
        ("ada", &["ledger", "close", "2026-01"][..], 2, "closed already"),
        ("ada", &["ledger", "close", "2026-03"], 2, "2026-02"),
        ("ada", &["ledger", "close", "9999-01"], 2, "2026-02"),
        ("ada", &["ledger", "close", "2026-1"], 2, "2026-10"),
        ("ada", &["ledger", "reopen", "2026-01", "--reason", "why not"], 2, "closed by ada"),
        ("bel", &["ledger", "reopen", "2026-02", "--reason", "why not"], 2, "2026-01"),
        ("bel", &["ledger", "reopen", "2026-01", "--reason", " "], 2, "reason"),
        ("ada", &["ledger", "trial-balance", "--period", "2026-01", "--as-of", "1"], 2, "cannot be used with"),
        ("ada", &["ledger", "trial-balance", "--period", "2026-01", "--close", "2"], 2, "its last is 1"),
        ("ada", &["ledger", "account", "assets:bank", "--from", "2026-02-02", "--to", "2026-02-01"], 2, "after"),
        ("ada", &["ledger", "awaited", "--as-of", "1"], 2, "unexpected argument"),
    ] {
        let refused = platform.as_finance(person, arguments).await;
        assert_eq!(refused.code, code, "{arguments:?}: {}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains(said), "{arguments:?}: {}", refused.stderr);
    }
}

/// Opened by another person, something is booked into it, and it is closed again: both closes stay to be read.
async fn reopened_and_closed_again(platform: &Platform, pool: &PgPool, january: &Value) -> Value {
    let reopen = ["ledger", "reopen", "2026-01", "--reason", "a charge is whose?"];
    let reopened = platform.as_finance("bel", &reopen).await;
    assert_eq!(reopened.code, 0, "{}", reopened.stderr);
    assert!(reopened.stdout.contains("--period 2026-01 --close 1."), "what it tells works: {}", reopened.stdout);
    platform.site.read(platform.site.head().await).await;
    let refused = platform.run(JANUARY).await;
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("was reopened and is open"), "{}", refused.stderr);
    let charge: String = sqlx::query_scalar(
        "SELECT object FROM read.suspense WHERE since < '2026-02-01Z' AND account LIKE '%:unattributed' ORDER BY object LIMIT 1",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let attribute = ["ledger", "attribute", &charge, "--creator", "crt_found", "--reason", "the fan said so"];
    let attributed = platform.as_finance("ada", &attribute).await;
    assert_eq!(attributed.code, 0, "{}", attributed.stderr);
    platform.site.read(platform.site.head().await).await;
    assert_eq!(platform.as_finance("ada", &CLOSE).await.json(0)["closing"]["close"], 2);
    let second = platform.json(JANUARY).await;
    assert_ne!(second["currencies"], january["currencies"]);
    assert!(second.to_string().contains("crt_found") && !january.to_string().contains("crt_found"));
    assert_eq!(platform.json(&format!("{JANUARY} --close 1")).await, *january);
    assert_eq!(platform.json("journal verify").await["ok"], true);
    let periods = platform.json("ledger periods").await;
    let acts = periods["periods"][0]["acts"].as_array().unwrap();
    let told: Vec<_> = acts.iter().map(|act| (act["act"].as_str().unwrap(), act["by"].as_str().unwrap())).collect();
    assert_eq!(told, [("closed", "ada"), ("reopened", "bel"), ("closed", "ada")]);
    second
}

/// The closing balance of each account's statement is that of the trial balance.
async fn statements_of_the_closed_month(platform: &Platform, january: &Value) {
    let accounts = january["currencies"][0]["accounts"].as_array().unwrap();
    for account in accounts.iter().take(4) {
        let name = account["account"].as_str().unwrap();
        let currency = &january["currencies"][0]["currency"];
        let statement = platform.json(&format!("ledger account {name} --period 2026-01")).await;
        let of_currency = |part: &&Value| &part["currency"] == currency;
        let part = statement.as_array().unwrap().iter().find(of_currency).unwrap();
        assert_eq!(part["balance_minor"], account["balance_minor"], "{name}");
        assert_eq!(part["opening_minor"], 0, "nothing was before January");
    }
}

/// An entry that somebody slips into the closed month, past the executor: our check finds it, and the one for strangers does.
async fn what_is_slipped_in_is_found(platform: &Platform) {
    assert_eq!(strangers_verdict(platform, 0).await["ok"], true);
    let writer = Writer::start(WriterOptions::new(platform.site.settings().database_url_for(Role::Command).unwrap()));
    let line = |account: &str, side: &str| json!({"account": account, "side": side, "minor": 1, "currency": "usd"});
    let at = "2026-01-31T23:59:59.999999Z";
    let payload = json!({
        "entry_id": "mne_1:1:x", "cause": {"object": "mne_1", "facts": []}, "description": "slipped in", "occurred_at": at,
        "effective_at": at, "postings": [line("assets:bank", "debit"), line("income:other", "credit")]
    });
    let event =
        NewEvent { event_type: "EntryPosted".to_owned(), event_version: "1".to_owned(), payload: payload.to_string() };
    let command = Command::new(StreamId::new("manual_entry", "mne_1"), 0, Metadata::default(), vec![event]);
    let Outcome::Appended { last, .. } = writer.await.unwrap().append(command).await.unwrap() else {
        panic!("not appended")
    };
    for verdict in [platform.site.run("journal verify").await.json(1), strangers_verdict(platform, 1).await] {
        let found = &verdict["first_divergence"];
        assert_eq!((&found["position"], &found["kind"]), (&json!(last.get()), &json!("balance")), "{verdict}");
        assert!(found["detail"].as_str().unwrap().contains("closed"), "{verdict}");
    }
}

async fn strangers_verdict(platform: &Platform, code: i32) -> Value {
    let file = platform.site.directory().join(format!("journal-{code}.jsonl"));
    let exported = finish(platform.site.command(["journal", "export", "--out", file.to_str().unwrap()])).await;
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    let mut verify = tokio::process::Command::new("python3");
    verify.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verify.py")).arg("journal").arg(file);
    finish(verify).await.json(code)
}

/// The digest of what the documentation's query gives.
async fn digest_by_sql(pool: &PgPool, closing: &Value) -> String {
    let text = |name: &str| closing[name].as_str().unwrap().to_owned();
    let document = include_str!("../../docs/period-close.md");
    let query = document.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let query =
        query.replace("81234", &closing["position"].to_string()).replace("2026-11-01T00:00:00Z", &text("first_open"));
    let balances: Option<String> = sqlx::query_scalar(&query).fetch_one(pool).await.unwrap();
    let lines = balances.map_or_else(String::new, |balances| format!("{balances}\n"));
    let canonical = format!(
        "fanledger closing balances v1\nperiod {}\nposition {}\nchain {}\n{lines}",
        text("period"),
        closing["position"],
        text("chain")
    );
    sqlx::query_scalar("SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')")
        .bind(canonical)
        .fetch_one(pool)
        .await
        .unwrap()
}
