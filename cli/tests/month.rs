//! A month of the demo, run as finance would: suspense attributed, a doctored list of Stripe's explained, creators paid by two persons
//! with one transfer failing, the month closed, a refund of that month arriving late, and the closed month printed again unchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use e2e::platform::Platform;
use e2e::{eventually, finish};
use fanledger_devkit::history::{self, History};
use serde_json::{Value, json};

const OCTOBER: &str = "ledger trial-balance --period 2026-10";
/// 2026-10-01T00:00:00Z and the month after.
const OCTOBER_SECONDS: std::ops::Range<i64> = 1_790_812_800..1_793_491_200;

/// The demo as `fanledger seed` makes it, and the webhooks of its last refund, which come late.
fn demo() -> (History, Vec<Value>) {
    let end: DateTime<Utc> = "2026-11-01T00:00:00Z".parse().unwrap();
    let mut history = history::demo(1, end);
    let of_refund = |event: &Value| {
        let object = &event["data"]["object"];
        (object["object"] == "refund").then(|| object["id"].as_str().unwrap().to_owned())
    };
    let refund = history
        .events
        .iter()
        .filter(|event| OCTOBER_SECONDS.contains(&event["data"]["object"]["created"].as_i64().unwrap_or(0)))
        .filter(|event| event["data"]["object"]["status"] == "succeeded")
        .filter_map(of_refund)
        .next_back()
        .unwrap();
    let (late, early) = history.events.into_iter().partition(|event| event.to_string().contains(&refund));
    history.events = early;
    (history, late)
}

/// Stripe's list as its API gives it, with one fee changed, one line left out and one that nobody has seen.
fn doctored(transactions: &[&Value]) -> (Value, [String; 3]) {
    let id = |of: &Value| of["id"].as_str().unwrap().to_owned();
    let mut list: Vec<Value> = transactions.iter().map(|of| (*of).clone()).collect();
    let middle = list.len() / 2;
    let changed = &mut list[middle];
    changed["fee"] = json!(changed["fee"].as_i64().unwrap() + 1);
    changed["net"] = json!(changed["net"].as_i64().unwrap() - 1);
    let changed = id(changed);
    let left_out = id(&list.remove(middle + 1));
    let mut unseen = list[middle + 2].clone();
    unseen["id"] = json!("txn_nobodyhasseenthis");
    list.push(unseen);
    (
        json!({ "object": "list", "data": list, "has_more": false }),
        [changed, left_out, "txn_nobodyhasseenthis".to_owned()],
    )
}

async fn attribute_what_is_in_suspense(platform: &Platform) -> usize {
    let suspense = platform.json("ledger suspense").await;
    let unattributed: BTreeSet<&str> = suspense
        .as_array()
        .unwrap_or_else(|| panic!("{suspense}"))
        .iter()
        .filter(|item| item["account"].as_str().unwrap().ends_with(":unattributed"))
        .map(|item| item["object"].as_str().unwrap())
        .collect();
    for charge in &unattributed {
        let said = [
            "ledger",
            "attribute",
            charge,
            "--creator",
            "crt_aurora",
            "--kind",
            "tip",
            "--reason",
            "the fan wrote to us",
        ];
        let attributed = platform.as_finance("ada", &said).await;
        assert_eq!(attributed.code, 0, "{charge}: {}", attributed.stderr);
    }
    platform.site.read(platform.site.head().await).await;
    let left = platform.json("ledger suspense").await;
    assert!(!left.to_string().contains(":unattributed"), "{left}");
    unattributed.len()
}

async fn reconcile(platform: &Platform, history: &History) {
    let seen: Vec<String> = sqlx::query_scalar("SELECT id FROM read.balance_transactions")
        .fetch_all(&platform.site.superuser().await)
        .await
        .unwrap();
    let seen: BTreeSet<String> = seen.into_iter().collect();
    let of_october: Vec<&Value> = history
        .balance_transactions
        .iter()
        .filter(|of| seen.contains(of["id"].as_str().unwrap()))
        .filter(|of| OCTOBER_SECONDS.contains(&of["created"].as_i64().unwrap()))
        .collect();
    let file = platform.site.directory().join("stripe.json");
    let line = format!(
        "ledger reconcile --balance-transactions {} --since 2026-10-01T00:00:00Z --until 2026-11-01T00:00:00Z --json",
        file.display()
    );
    std::fs::write(&file, json!(of_october).to_string()).unwrap();
    let same = platform.run(&line).await;
    assert_eq!(same.code, 0, "{}{}", same.stdout, same.stderr);
    let (list, [changed, left_out, unseen]) = doctored(&of_october);
    std::fs::write(&file, list.to_string()).unwrap();
    let report = platform.run(&line).await.json(1);
    let ids = |of: &str| report[of].as_array().unwrap().iter().map(|item| item["id"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (ids("different"), ids("missing_there"), ids("missing_here")),
        (vec![json!(changed)], vec![json!(left_out)], vec![json!(unseen)]),
        "{report}"
    );
    assert!(report["different"][0]["explanation"].as_str().unwrap().contains("fee"), "{report}");
}

/// The run as it stands. The program's exit code says that a transfer of it failed, once one has.
async fn run_of(platform: &Platform) -> Value {
    let shown = platform.run("ledger payouts show por_1 --json").await;
    serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{}{}", shown.stdout, shown.stderr))
}

/// Two persons pay what is available; Stripe refuses one of the transfers.
async fn pay_creators(platform: &Platform) {
    let released = platform.json("ledger release --through 2026-10-31").await;
    assert!(released["released"].as_u64().unwrap() > 100, "{released}");
    platform.site.read(platform.site.head().await).await;
    let dry = platform.json("ledger payouts propose --dry-run").await;
    let lines = dry["lines"].as_array().unwrap();
    assert!(lines.len() > 2 && !dry["withheld"].as_array().unwrap().is_empty(), "{dry}");
    let refused = lines[0]["destination"].as_str().unwrap();
    platform.site.stand_in.restrict(&[refused]);
    let to_refused = lines.iter().filter(|line| line["destination"] == refused).count();
    let proposed = platform.as_finance("ada", &["ledger", "payouts", "propose", "--json"]).await.json(0);
    platform.site.read(platform.site.head().await).await;
    assert_eq!(proposed["run"], "por_1");
    let run = run_of(platform).await;
    assert_eq!(run["lines"].as_array().unwrap().len(), lines.len(), "{run}");
    assert_eq!(run["needs_approval"], true, "the demo moves more than one person may alone");
    let alone = platform.as_finance("ada", &["ledger", "payouts", "approve", "por_1"]).await;
    assert_eq!(alone.code, 2, "{}", alone.stderr);
    // Who looks before approving sees who is held by now.
    let creator = lines.last().unwrap()["creator"].as_str().unwrap();
    let say = async |what: &str| {
        let said = ["ledger", "payouts", what, creator, "--reason", "a claim", "--json"];
        platform.as_finance("ada", &said).await.json(0)
    };
    let held = say("hold").await;
    platform.site.read(held["position"].as_u64().unwrap()).await;
    assert_eq!(held["creator_is_new"], false);
    let shown = platform.run("ledger payouts show por_1").await.stdout;
    assert!(shown.contains("held: nothing is sent of it"), "{shown}");
    let holds = platform.run("ledger payouts holds").await.stdout;
    assert!(holds.contains(creator) && holds.contains("a claim"), "{holds}");
    let resumed = say("resume").await;
    platform.site.read(resumed["position"].as_u64().unwrap()).await;
    assert_eq!(platform.json("ledger payouts holds").await, json!([]));
    assert_eq!(platform.json("ledger payouts holds --all").await[0]["resumed_by"], "ada");
    let approved = platform.as_finance("bel", &["ledger", "payouts", "approve", "por_1"]).await;
    assert_eq!(approved.code, 0, "{}", approved.stderr);
    eventually("every transfer is made or refused", async || run_of(platform).await["state"] == "finished").await;
    platform.site.read(platform.site.head().await).await;
    let run = run_of(platform).await;
    assert_eq!(run["failed"], json!(to_refused), "{run}");
    assert_eq!(run["sent"], json!(lines.len() - to_refused), "{run}");
    let listed = platform.run("ledger payouts list").await.stdout;
    assert!(listed.contains("planned") && listed.contains("sent in all") && listed.contains("finished"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_the_demo_as_finance_runs_it() {
    let (history, late) = demo();
    let platform = Platform::start(&history.balance_transactions).await;
    platform.receive(&history.events).await;

    let attributed = attribute_what_is_in_suspense(&platform).await;
    assert!(attributed > 0, "the demo has money that is nobody's yet");
    reconcile(&platform, &history).await;
    pay_creators(&platform).await;

    let closed = platform.as_finance("ada", &["ledger", "close", "2026-10", "--json"]).await.json(0);
    let printed = platform.run(OCTOBER).await;
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    assert!(printed.stdout.contains(closed["closing"]["digest"].as_str().unwrap()), "{}", printed.stdout);

    platform.receive(&late).await;
    platform.site.read(platform.site.head().await).await;
    let (entries, misdated): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE occurred_at >= '2026-11-01Z' OR effective_at <> '2026-11-01Z')
         FROM read.entries WHERE position > $1",
    )
    .bind(closed["closing"]["position"].as_i64().unwrap())
    .fetch_one(&platform.site.superuser().await)
    .await
    .unwrap();
    assert!(
        entries > 0 && misdated == 0,
        "{entries} entries of the late refund, {misdated} with other dates than both"
    );
    assert_eq!(platform.run(OCTOBER).await.stdout, printed.stdout);
    let now = finish(platform.site.command(["ledger", "trial-balance"])).await.stdout;
    assert_ne!(now, printed.stdout);
    assert_eq!(platform.json("journal verify").await["ok"], true);
    println!(
        "{} webhooks; {attributed} charges attributed; October closed at position {}; {entries} entries came late",
        history.events.len(),
        closed["closing"]["position"]
    );
}
