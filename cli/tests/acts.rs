//! Finance acts on the books of the running system: money leaves suspense at its own date, what Stripe does not know is booked by
//! two persons where it must be, and whoever reads what a fan paid is remembered for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use e2e::books::{equal_a_fresh_rebuild, verified};
use e2e::platform::Platform;
use e2e::{Finished, finish};
use serde_json::{Value, json};

/// 10.99 USD that nobody's metadata claims, with a fee of 0.62; a refund of 3.33 follows a day later.
const CREATED: i64 = 1_780_000_000;
const DAY: i64 = 86_400;

fn event(id: &str, kind: &str, created: i64, object: &Value) -> Value {
    json!({
        "id": id, "object": "event", "type": kind, "api_version": "2026-10-28.endive", "created": created,
        "livemode": false, "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null}, "data": {"object": object},
    })
}

fn webhooks() -> [Value; 2] {
    let charge = json!({
        "id": "ch_acts", "object": "charge", "amount": 1099, "amount_captured": 1099, "amount_refunded": 0,
        "balance_transaction": "txn_acts", "captured": true, "created": CREATED, "currency": "usd", "livemode": false,
        "paid": true, "refunded": false, "status": "succeeded", "payment_intent": "pi_acts", "metadata": {},
        "billing_details": {"name": "Jane Doe"},
    });
    let refund = json!({
        "id": "re_acts", "object": "refund", "amount": 333, "charge": "ch_acts", "created": CREATED + DAY, "currency": "usd",
        "status": "succeeded", "balance_transaction": "txn_acts_refund", "payment_intent": "pi_acts", "metadata": {},
    });
    [
        event("evt_acts_1", "charge.succeeded", CREATED, &charge),
        event("evt_acts_2", "refund.created", CREATED + DAY, &refund),
    ]
}

fn balance_transaction(id: &str, source: &str, created: i64, amount: i64, fee: i64, category: &str) -> Value {
    json!({
        "id": id, "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee, "currency": "usd",
        "available_on": created + DAY, "created": created, "description": null, "exchange_rate": null, "fee_details": [],
        "reporting_category": category, "source": source, "status": "pending", "type": category,
    })
}

async fn start() -> Platform {
    let platform = Platform::start(&[
        balance_transaction("txn_acts", "ch_acts", CREATED, 1099, 62, "charge"),
        balance_transaction("txn_acts_refund", "re_acts", CREATED + DAY, -333, 0, "refund"),
    ])
    .await;
    platform.receive(&webhooks()).await;
    platform
}

/// The accounts that hold something as of an instant of occurrence.
async fn books(platform: &Platform, as_of: &str) -> Vec<(String, i64)> {
    let trial = platform.json(&format!("ledger trial-balance --as-of {as_of} --by occurred")).await;
    let accounts = trial["currencies"][0]["accounts"].as_array().unwrap();
    accounts
        .iter()
        .map(|account| (account["account"].as_str().unwrap().to_owned(), account["balance_minor"].as_i64().unwrap()))
        .filter(|(_, minor)| *minor != 0)
        .collect()
}

fn owned(books: &[(&str, i64)]) -> Vec<(String, i64)> {
    books.iter().map(|(account, minor)| ((*account).to_owned(), *minor)).collect()
}

/// What was done is read before the next question.
async fn done(platform: &Platform, finished: Finished) -> Value {
    let receipt = finished.json(0);
    platform.site.read(receipt["position"].as_u64().unwrap()).await;
    receipt
}

const ATTRIBUTE: [&str; 12] = [
    "ledger",
    "attribute",
    "ch_acts",
    "--creator",
    "crt_acts",
    "--share-bps",
    "8333",
    "--tax",
    "87",
    "--jurisdiction",
    "us-ny",
    "--json",
];

fn attribute(reason: &str) -> Vec<&str> {
    [ATTRIBUTE.as_slice(), &["--reason", reason]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_attributed_leaves_suspense_at_the_date_of_the_charge() {
    let platform = start().await;
    let at_the_charge = "2026-05-28T20:26:40Z";
    let before = books(&platform, at_the_charge).await;
    assert!(before.contains(&("liabilities:suspense:unattributed".to_owned(), -1099)), "{before:?}");
    let waiting = platform.json("ledger suspense").await;
    assert_eq!((&waiting[0]["object"], &waiting[0]["balance_minor"]), (&json!("ch_acts"), &json!(-766)));

    // Nobody, somebody who may not, and somebody who says what cannot be.
    let mut nobody = platform.site.command(attribute("the fan wrote"));
    nobody.env("FANLEDGER_GATEWAY_URL", &platform.url);
    let refused = finish(nobody).await;
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains("fanledger token mint --role finance --subject <you>"), "{}", refused.stderr);
    let mut operator = platform.site.command(attribute("the fan wrote"));
    operator.env("FANLEDGER_GATEWAY_URL", &platform.url).arg("--token").arg(platform.token("operator", "olga").await);
    let refused = finish(operator).await;
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains("finance, admin"), "{}", refused.stderr);
    for (arguments, says) in [
        (vec!["ledger", "attribute", "ch_acts", "--creator", "acts", "--reason", "x"], "crt_"),
        (vec!["ledger", "attribute", "po_1", "--creator", "crt_acts", "--reason", "x"], "po_1"),
        (vec!["ledger", "attribute", "ch_never", "--creator", "crt_acts", "--reason", "x"], "ch_never"),
        (
            vec!["ledger", "attribute", "ch_acts", "--creator", "crt_acts", "--tax", "1100", "--reason", "x"],
            "10.99 usd",
        ),
        (vec!["ledger", "attribute", "tr_1", "--creator", "crt_acts", "--tax", "1", "--reason", "x"], "--tax"),
    ] {
        let refused = platform.as_finance("ada", &arguments).await;
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }

    let receipt = done(&platform, platform.as_finance("ada", &attribute("the fan wrote")).await).await;
    assert_eq!((&receipt["object"], &receipt["changed"]), (&json!("ch_acts"), &json!(true)));
    // One entry for each instant at which the books differ: the charge, and its refund.
    assert_eq!(receipt["entries"].as_array().unwrap().len(), 2, "{receipt}");
    assert_eq!(platform.json("ledger suspense").await, json!([]));
    // Who said it, and why, stands with the entry and in the list.
    let entry = platform.run(&format!("ledger entry {}", receipt["entries"][0].as_str().unwrap())).await;
    assert!(entry.stdout.contains("said by    ada: the fan wrote"), "{}", entry.stdout);
    let said = platform.run("ledger attributions --object ch_acts").await.stdout;
    assert!(
        ["crt_acts", "8333 bps", "87 us-ny", "ada", "the fan wrote"].iter().all(|part| said.contains(part)),
        "{said}"
    );
    let nothing = platform.run("ledger attributions --object ch_other").await.stdout;
    assert!(nothing.contains("not said whose ch_other is. (read up to position "), "{nothing}");
    // The first worked example of the ledger's design, at the charge's own date and after the refund.
    let rest =
        [("assets:stripe:clearing", 1037), ("expenses:processing-fees:payments", 62), ("income:platform-fees", -169)];
    let owed = [("liabilities:creators:crt_acts:pending", -843), ("liabilities:tax:us-ny", -87)];
    assert_eq!(books(&platform, at_the_charge).await, owned(&[rest.as_slice(), &owed].concat()));
    assert_eq!(
        books(&platform, "2026-05-29T20:26:40Z").await,
        owned(&[
            ("assets:stripe:clearing", 704),
            ("expenses:processing-fees:payments", 62),
            ("income:platform-fees", -169),
            ("income:refunds", 52),
            ("liabilities:creators:crt_acts:pending", -588),
            ("liabilities:tax:us-ny", -61),
        ])
    );
    let again = platform.as_finance("grace", &attribute("once more")).await.json(0);
    assert_eq!((&again["changed"], &again["entries"]), (&json!(false), &json!([])));
    verified(&platform.site).await;
    assert!(platform.all.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_persons_book_by_hand_and_who_opens_a_webhook_is_remembered() {
    let platform = start().await;
    let position = platform.site.head().await;
    let post = |minor: &'static str| {
        let line = ["ledger", "post", "--currency", "usd", "--description", "interest of October", "--json"];
        let lines = ["--reason", "bank statement", "--occurred", "2026-06-30T00:00:00Z"];
        let sides = [format!("--debit=assets:bank={minor}"), format!("--credit=income:other={minor}")];
        (line, lines, sides)
    };
    let run = async |person: &str, minor: &'static str| {
        let (line, lines, sides) = post(minor);
        let arguments = [line.as_slice(), &lines, &[sides[0].as_str(), sides[1].as_str()]].concat();
        platform.as_finance(person, &arguments).await
    };
    let small = done(&platform, run("ada", "100000").await).await;
    assert_eq!((&small["state"], &small["needs_approval"]), (&json!("posted"), &json!(false)));
    let large = done(&platform, run("ada", "100001").await).await;
    assert_eq!((&large["state"], &large["entry_id"]), (&json!("proposed"), &json!(null)));
    let id = large["id"].as_str().unwrap();
    let refused = platform.as_finance("ada", &["ledger", "approve", id]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("somebody else must approve it"), "{}", refused.stderr);
    let open = platform.json("ledger manual-entries --state proposed").await;
    assert_eq!((&open[0]["id"], &open[0]["proposed_by"]), (&json!(id), &json!("ada")));
    let posted = done(&platform, platform.as_finance("grace", &["ledger", "approve", id, "--json"]).await).await;
    let entry_id = posted["entry_id"].as_str().unwrap();
    let shown = platform.run(&format!("ledger entry {entry_id}")).await;
    assert!(shown.stdout.contains("by hand    ada, approved by grace: bank statement"), "{}", shown.stdout);

    let reverse = ["ledger", "reverse", entry_id, "--reason", "booked twice", "--json"];
    let reversal = done(&platform, platform.as_finance("grace", &reverse).await).await;
    assert_eq!(reversal["state"], "proposed", "as much as the entry itself");
    let reversal = reversal["id"].as_str().unwrap();
    done(&platform, platform.as_finance("ada", &["ledger", "approve", reversal, "--json"]).await).await;
    let refused = platform.as_finance("ada", &reverse).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains(reversal), "names the first: {}", refused.stderr);
    let bank = platform.json("ledger account assets:bank").await;
    assert_eq!(bank[0]["balance_minor"], 100_000);

    // A file, and files that are none.
    let write = |name: &str, text: &str| {
        let path = platform.site.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let entry = json!({
        "description": "a gift card", "reason": "receipt 7", "occurred_at": "2026-07-01T00:00:00Z",
        "postings": [
            {"account": "expenses:contributions", "side": "debit", "amount_minor": "5", "currency": "usd"},
            {"account": "assets:stripe:clearing", "side": "credit", "amount_minor": 5, "currency": "usd"},
        ],
    });
    let file = write("clearing.json", &entry.to_string());
    let refused = platform.as_finance("ada", &["ledger", "post", "--file", &file]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("postings[1].account"), "{}", refused.stderr);
    let file = write("entry.json", &entry.to_string().replace("assets:stripe:clearing", "assets:bank"));
    let from_file =
        done(&platform, platform.as_finance("ada", &["ledger", "post", "--file", &file, "--json"]).await).await;
    assert_eq!(from_file["state"], "posted");
    for bad in [write("cut.json", "{\"description\":"), write("list.json", "[]"), "/nowhere/entry.json".to_owned()] {
        assert_eq!(platform.as_finance("ada", &["ledger", "post", "--file", &bad]).await.code, 2, "{bad}");
    }

    // What Stripe sent, exactly; and that it was read.
    let show = ["stripe", "show", "evt_acts_1", "--reason", "the fan asks"];
    let opened = platform.as_finance("ada", &show).await;
    assert_eq!(serde_json::from_str::<Value>(&opened.stdout).unwrap(), webhooks()[0]);
    assert!(opened.stderr.contains("opened by ada"), "{}", opened.stderr);
    let opened = done_opening(&platform, &show).await;
    assert_eq!(opened["body"]["data"]["object"]["billing_details"]["name"], "Jane Doe");
    let never = platform.as_finance("ada", &["stripe", "show", "evt_never", "--reason", "x"]).await;
    assert_eq!(never.code, 2, "{}", never.stderr);
    let log = platform.all.log();
    assert!(!log.contains("Jane Doe"), "no log has what was opened");

    assert!(platform.site.head().await > position);
    assert!(equal_a_fresh_rebuild(&platform.site).await > 0);
    verified(&platform.site).await;
    assert!(platform.all.terminate().await.success());
}

async fn done_opening(platform: &Platform, show: &[&str]) -> Value {
    let opened = platform.as_finance("ada", &[show, &["--json"]].concat()).await.json(0);
    platform.site.read(platform.site.head().await).await;
    opened
}
