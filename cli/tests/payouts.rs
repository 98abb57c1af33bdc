//! Paying creators with the built program, as two persons of finance do it: webhooks, release, dry run, proposal, approval, a
//! sender that is killed in the middle, a transfer that fails, and the run after.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use e2e::{Finished, Process, Site, eventually, finish, gateway_url};
use fanledger_devkit::stripe::Failure;
use serde_json::{Value, json};

/// A creator's connected account, as `account.updated` shows it.
fn account(creator: &str) -> Value {
    json!({
        "id": format!("evt_acct_{creator}"), "object": "event", "api_version": "2026-10-28.endive", "created": 1_790_000_000,
        "livemode": false, "type": "account.updated", "account": format!("acct_{creator}"),
        "data": { "object": {
            "id": format!("acct_{creator}"), "object": "account", "metadata": { "creator_id": format!("crt_{creator}") },
            "capabilities": { "transfers": "active" }, "payouts_enabled": true,
            "requirements": { "currently_due": [], "past_due": [], "disabled_reason": null },
        } },
    })
}

/// A tip that is wholly the creator's, and its balance transaction, which costs nothing.
fn tip(creator: &str, amount: i64) -> (Value, Value) {
    let charge = json!({
        "id": format!("ch_{creator}"), "object": "charge", "amount": amount, "amount_captured": amount, "captured": true,
        "created": 1_790_000_100, "currency": "usd", "livemode": false, "paid": true, "status": "succeeded",
        "balance_transaction": format!("txn_{creator}"),
        "metadata": { "creator_id": format!("crt_{creator}"), "creator_share_bps": "10000", "kind": "tip" },
    });
    let event = json!({
        "id": format!("evt_ch_{creator}"), "object": "event", "api_version": "2026-10-28.endive", "created": 1_790_000_100,
        "livemode": false, "type": "charge.succeeded", "data": { "object": charge },
    });
    let transaction = json!({
        "id": format!("txn_{creator}"), "object": "balance_transaction", "amount": amount, "available_on": 1_790_100_000,
        "created": 1_790_000_100, "currency": "usd", "fee": 0, "fee_details": [], "net": amount,
        "reporting_category": "charge", "source": format!("ch_{creator}"), "status": "available", "type": "charge",
    });
    (event, transaction)
}

/// The program in a person's hands.
struct Finance {
    site: Site,
    gateway: String,
    tokens: [(&'static str, String); 2],
}

impl Finance {
    async fn run(&self, who: &str, line: &str) -> Finished {
        let mut command = self.site.command(line.split_whitespace().chain(["--json"]));
        command.env("FANLEDGER_GATEWAY_URL", &self.gateway);
        if let Some((_, token)) = self.tokens.iter().find(|(name, _)| *name == who) {
            command.env("FANLEDGER_TOKEN", token);
        }
        finish(command).await
    }

    async fn json(&self, who: &str, line: &str) -> Value {
        self.run(who, line).await.json(0)
    }

    /// As [`Site::read`], while the program runs.
    async fn read(&self) {
        self.site.read(self.site.head().await).await;
    }
}

async fn start(site: &Site) -> (Process, String) {
    let mut all = site.role("all");
    let gateway = gateway_url(&mut all).await;
    (all, gateway)
}

async fn site_with_money() -> (Process, Finance) {
    let site = Site::start().await;
    let (all, gateway) = start(&site).await;
    let mut events = Vec::new();
    for (creator, amount) in [("ada", 90_000), ("bee", 30_000), ("cid", 500)] {
        let (event, transaction) = tip(creator, amount);
        site.stand_in.put(transaction);
        events.extend([account(creator), event]);
    }
    let file = site.directory().join("webhooks.json");
    std::fs::write(&file, Value::Array(events).to_string()).unwrap();
    let mut tokens = [("anna", String::new()), ("bela", String::new())];
    for (subject, token) in &mut tokens {
        let minted = finish(site.command(["token", "mint", "--role", "finance", "--subject", subject])).await;
        *token = minted.stdout.trim().to_owned();
    }
    let finance = Finance { site, gateway, tokens };
    let sent = finance.json("", &format!("stripe replay {}", file.display())).await;
    assert_eq!((&sent["accepted"], &sent["refused"]), (&json!(6), &json!(0)), "{sent}");
    finance.read().await;
    let early = finance.run("", "ledger release --through 9999-10-31").await;
    assert!(early.code == 2 && early.stderr.contains("is not over"), "{}", early.stderr);
    let released = finance.json("", "ledger release --through 2026-10-31").await;
    assert_eq!(released["released"], 3, "{released}");
    finance.read().await;
    (all, finance)
}

fn available(balance: &Value, creator: &str) -> i64 {
    let name = format!("liabilities:creators:crt_{creator}:available");
    let accounts = balance["currencies"][0]["accounts"].as_array().unwrap();
    let account = accounts.iter().find(|account| account["account"] == name.as_str()).unwrap();
    -account["balance_minor"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_run_as_finance_does_it() {
    let (all, mut finance) = site_with_money().await;
    let head = finance.site.head().await;
    let dry = finance.json("", "ledger payouts propose --dry-run").await;
    assert_eq!(dry["totals"], json!([{"currency": "usd", "amount_minor": 120_000, "lines": 2}]));
    assert_eq!(
        dry["withheld"],
        json!([{"creator": "crt_cid", "amount_minor": 500, "currency": "usd", "reason": "below_minimum"}])
    );
    assert_eq!(finance.site.head().await, head, "a dry run writes nothing");

    // Who acts must say who they are; and one person is not two.
    let nobody = finance.run("", "ledger payouts propose").await;
    assert!(nobody.code == 3 && nobody.stderr.contains("token mint"), "{}", nobody.stderr);
    assert_eq!(finance.json("anna", "ledger payouts propose").await["run"], "por_1");
    let second = finance.run("bela", "ledger payouts propose").await;
    assert!(second.code == 2 && second.stderr.contains("por_1"), "{}", second.stderr);
    let alone = finance.run("anna", "ledger payouts approve por_1").await;
    assert!(alone.code == 2 && alone.stderr.contains("somebody else"), "{}", alone.stderr);
    assert_eq!(finance.run("", "ledger payouts show por_9").await.code, 2);
    assert_eq!(finance.run("", "ledger payouts show 1").await.code, 2);

    // Stripe makes the first transfer and the answer is lost; refuses the second; and this program is killed meanwhile.
    finance.site.stand_in.restrict(&["acct_bee"]);
    finance.site.stand_in.fail_next_for("acct_ada", 1, Failure::AnswerLost);
    finance.site.stand_in.fail_next_for("acct_ada", 3, Failure::Status(503));
    assert_eq!(finance.json("bela", "ledger payouts approve por_1").await["state"], "approved");
    eventually("the first transfer is made and its answer lost", async || {
        !finance.site.stand_in.transfers().is_empty()
    })
    .await;
    all.kill().await;
    assert_eq!(finance.site.stand_in.transfers().len(), 1);
    let (all, gateway) = start(&finance.site).await;
    finance.gateway = gateway;
    eventually("the run has ended", async || {
        let run = finance.run("", "ledger payouts show por_1").await;
        run.stdout.contains("\"finished\"")
    })
    .await;
    finance.read().await;
    let run = finance.run("", "ledger payouts show por_1").await.json(1);
    let of = |line: usize, name: &str| run["lines"][line][name].clone();
    assert_eq!(
        (of(0, "creator"), of(0, "state"), of(0, "amount_minor")),
        (json!("crt_ada"), json!("confirmed"), json!(90_000))
    );
    assert_eq!((of(1, "creator"), of(1, "state")), (json!("crt_bee"), json!("failed")));
    assert_eq!(of(1, "code"), "insufficient_capabilities_for_transfer");
    assert_eq!(finance.site.stand_in.transfers().len(), 1, "killed, and paid once");

    let balance = finance.json("", "ledger trial-balance").await;
    assert_eq!((available(&balance, "ada"), available(&balance, "bee")), (0, 30_000));
    assert_eq!(finance.json("", "journal verify").await["ok"], true);

    // The next run takes what was refused; below the limit the proposer may approve it.
    finance.site.stand_in.restrict(&[]);
    assert_eq!(finance.json("anna", "ledger payouts propose").await["run"], "por_2");
    finance.json("anna", "ledger payouts approve por_2").await;
    eventually("the second run has ended", async || {
        finance.run("", "ledger payouts show por_2").await.stdout.contains("\"confirmed\"")
    })
    .await;
    assert_eq!(finance.site.stand_in.transfers().len(), 2);
    let runs = finance.json("", "ledger payouts list").await;
    assert_eq!((&runs[0]["run"], &runs[0]["sent"], &runs[1]["failed"]), (&json!("por_2"), &json!(1), &json!(1)));

    // Nothing is left but what is below the minimum.
    let nothing = finance.run("anna", "ledger payouts propose").await;
    assert!(nothing.code == 2 && nothing.stderr.contains("nothing to pay"), "{}", nothing.stderr);
    let held = finance.json("anna", "ledger payouts hold crt_cid --reason claim").await;
    assert_eq!(held["held"], true);
    assert_eq!(finance.run("anna", "ledger payouts hold crt_cid --reason claim").await.code, 2);
    assert_eq!(finance.json("bela", "ledger payouts resume crt_cid --reason settled").await["held"], false);
    assert!(all.terminate().await.success());
}

/// One person is enough to stop what two have begun; the run is open until the sender has ended it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_approved_is_stopped_by_one_person() {
    let (all, finance) = site_with_money().await;
    for account in ["acct_ada", "acct_bee"] {
        finance.site.stand_in.fail_next_for(account, 100_000, Failure::Status(503));
    }
    finance.json("anna", "ledger payouts propose").await;
    finance.json("bela", "ledger payouts approve por_1").await;
    eventually("Stripe is asked for a transfer", async || {
        finance.site.stand_in.calls().iter().any(|call| call.method == "POST")
    })
    .await;
    let stopped = finance.json("anna", "ledger payouts cancel por_1 --reason restored").await;
    assert_eq!((&stopped["run"], &stopped["state"]), (&json!("por_1"), &json!("stopping")));
    // The sender waits, so not everybody comes to the head.
    eventually("the run is seen to be stopped", async || {
        finance.run("", "ledger payouts show por_1").await.stdout.contains("\"stopping\"")
    })
    .await;
    let run = finance.json("", "ledger payouts show por_1").await;
    assert_eq!(
        (&run["state"], &run["stopped_by"], &run["decided_by"]),
        (&json!("stopping"), &json!("anna"), &json!("bela"))
    );
    let shown = finish(finance.site.command(["ledger", "payouts", "show", "por_1"])).await;
    assert!(shown.stdout.contains("approved ") && shown.stdout.contains("by anna: restored"), "{}", shown.stdout);
    let open = finance.run("anna", "ledger payouts propose").await;
    assert!(open.code == 2 && open.stderr.contains("por_1 is stopped"), "{}", open.stderr);
    assert_eq!(finance.site.stand_in.transfers().len(), 0);
    all.kill().await;
}
