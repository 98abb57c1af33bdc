//! `fanledger dev` from a signed webhook to the books over HTTP, and down again from a balance to the webhook; and that it
//! leaves nothing behind. `dev.rs` tries the same program's tools one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use e2e::load::{Gateways, Load};
use e2e::{
    Directory, Finished, PATIENCE, Process, SECRET, STOP_PATIENCE, Site, eventually, finish, gateway_url, program,
};
use fanledger_cli::state::DevState;
use fanledger_devkit::stripe::sign;
use serde_json::{Value, json};

/// A data directory, and the program over it.
struct Home {
    directory: Directory,
}

impl Home {
    fn new() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        Self { directory: Directory::new("home") }
    }

    fn settings(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("DATA_DIR", self.directory.path().join("data").to_str().unwrap().to_owned()),
            ("LISTEN", "127.0.0.1:0".to_owned()),
            ("METRICS_LISTEN", "127.0.0.1:0".to_owned()),
            ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()),
        ])
    }

    /// Runs a tool over this directory. `LISTEN` is the roles' alone: a tool would take it for the gateway's address.
    async fn run(&self, line: &str) -> Finished {
        let mut settings = self.settings();
        settings.remove("LISTEN");
        let mut command = program(settings, self.directory.path());
        command.args(line.split_whitespace());
        finish(command).await
    }

    /// The answer of a tool that must end well.
    async fn json(&self, line: &str) -> Value {
        self.run(&format!("{line} --json")).await.json(0)
    }

    /// A `dev` that is ready, and what it says of itself.
    async fn dev(&self) -> (Process, DevState) {
        let begun = Instant::now();
        let mut command = program(self.settings(), self.directory.path());
        command.args(["dev", "--json"]);
        let mut dev = Process::spawn("dev", command);
        dev.printed(|line| line.starts_with('{').then_some(())).await;
        assert!(begun.elapsed() < PATIENCE, "ready after {:?}", begun.elapsed());
        let state = DevState::of_running(&self.directory.path().join("data")).unwrap();
        (dev, state)
    }

    /// Waits until every runner is at `position` or past it and has nothing left to read.
    async fn read(&self, position: u64) {
        let mut quiet = 0;
        eventually("everything is read", async || {
            let runners = self.json("projections status").await;
            let read = runners.as_array().unwrap().iter().all(|runner| {
                let (at, head) = (runner["position"].as_u64().unwrap(), runner["head"].as_u64().unwrap());
                at >= head && at >= position
            });
            quiet = if read { quiet + 1 } else { 0 };
            quiet == 2
        })
        .await;
    }
}

/// The first worked example of the ledger's design: 10.99 USD, of it 0.87 tax, 83.33 % to the creator, fee 0.62.
fn charge() -> Value {
    json!({
        "id": "evt_endtoend", "object": "event", "type": "charge.succeeded", "api_version": "2026-10-28.endive",
        "created": 1_790_000_000, "livemode": false, "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null},
        "data": {"object": {
            "id": "ch_endtoend", "object": "charge", "amount": 1099, "amount_captured": 1099, "amount_refunded": 0,
            "balance_transaction": "txn_endtoend", "captured": true, "created": 1_790_000_000, "currency": "usd",
            "livemode": false, "paid": true, "refunded": false, "status": "succeeded", "payment_intent": "pi_endtoend",
            "metadata": {
                "creator_id": "crt_endtoend", "fan_id": "fan_endtoend", "creator_share_bps": "8333",
                "tax_minor": "87", "tax_jurisdiction": "us-ny",
            },
        }},
    })
}

fn balance_transaction() -> Value {
    json!({
        "id": "txn_endtoend", "object": "balance_transaction", "amount": 1099, "fee": 62, "net": 1037, "currency": "usd",
        "available_on": 1_790_200_000, "created": 1_790_000_000, "description": null, "exchange_rate": null,
        "fee_details": [{"amount": 62, "application": null, "currency": "usd", "description": "fees", "type": "stripe_fee"}],
        "reporting_category": "charge", "source": "ch_endtoend", "status": "pending", "type": "charge",
    })
}

const BOOKS: &[(&str, i64)] = &[
    ("assets:stripe:clearing", 1037),
    ("expenses:processing-fees:payments", 62),
    ("income:platform-fees", -169),
    ("liabilities:creators:crt_endtoend:pending", -843),
    ("liabilities:tax:us-ny", -87),
];

/// Accounts with a balance; amounts are integers in the CLI, strings over HTTP.
fn balances(trial_balance: &Value) -> Vec<(String, i64)> {
    let minor = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap();
    let accounts =
        trial_balance["currencies"].as_array().unwrap().iter().flat_map(|of| of["accounts"].as_array().unwrap());
    let mut balances: Vec<(String, i64)> = accounts
        .map(|account| (account["account"].as_str().unwrap().to_owned(), minor(&account["balance_minor"])))
        .filter(|(_, minor)| *minor != 0)
        .collect();
    balances.sort();
    balances
}

fn expected() -> Vec<(String, i64)> {
    BOOKS.iter().map(|(account, minor)| ((*account).to_owned(), *minor)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_webhook_becomes_books_that_lead_back_to_it() {
    let home = Home::new();
    let (dev, state) = home.dev().await;
    let http = reqwest::Client::new();
    let taught = http
        .post(format!("{}/_stand_in/balance_transactions", state.stripe_api_base))
        .json(&[balance_transaction()])
        .send()
        .await
        .unwrap();
    assert!(taught.status().is_success());

    let body = charge().to_string();
    let post = |signature: String| {
        let request = http.post(format!("{}/webhooks/stripe", state.gateway_url));
        request.header("stripe-signature", signature).body(body.clone()).send()
    };
    let now = fanledger_cli::clock::unix_seconds();
    assert_eq!(post(sign("whsec_somebody_else", now, body.as_bytes())).await.unwrap().status(), 400);
    let received: Value = post(sign(SECRET, now, body.as_bytes())).await.unwrap().json().await.unwrap();
    assert_eq!(received, json!({"received": true, "position": 1, "duplicate": false}));
    let again: Value = post(sign(SECRET, now, body.as_bytes())).await.unwrap().json().await.unwrap();
    assert_eq!(again, json!({"received": true, "position": 1, "duplicate": true}));
    home.read(1).await;

    // Over HTTP, with a token, and with none.
    let url = format!("{}/api/v1/ledger/trial-balance", state.gateway_url);
    assert_eq!(http.get(&url).send().await.unwrap().status(), 401);
    let token = home.run("token mint --role finance").await;
    assert_eq!(token.code, 0);
    let answer = http.get(&url).bearer_auth(token.stdout.trim()).send().await.unwrap();
    assert!(answer.headers().contains_key("journal-position"));
    let over_http: Value = answer.json().await.unwrap();
    assert_eq!(balances(&over_http), expected());
    assert!(over_http["currencies"][0]["debits_minor"].is_string());
    assert_eq!(balances(&home.json("ledger trial-balance").await), expected());

    // From a balance to the entry, from the entry to the webhook's place in the journal.
    for (account, minor) in BOOKS {
        let statements = home.json(&format!("ledger account {account}")).await;
        assert_eq!(statements[0]["balance_minor"], *minor);
        let lines = statements[0]["postings"].as_array().unwrap();
        for line in lines {
            let entry = home.json(&format!("ledger entry {}", line["entry_id"].as_str().unwrap())).await;
            assert_eq!(entry["cause"]["object"], "ch_endtoend");
            assert!(entry["position"].as_u64() > entry["cause"]["facts"][0]["position"].as_u64());
        }
        if minor.is_negative() {
            // What the charge itself said; cash and fee are known by the balance transaction, which no webhook brought.
            let entry = home.json(&format!("ledger entry {}", lines[0]["entry_id"].as_str().unwrap())).await;
            assert_eq!(entry["cause"]["stripe_events"], json!([{"id": "evt_endtoend", "position": 1}]));
        }
    }
    let webhook = home.json("journal show 1").await;
    assert_eq!(
        (&webhook["event_type"], &webhook["stream"]),
        (&json!("StripeEventReceived"), &json!("stripe_event/evt_endtoend"))
    );
    assert_eq!(home.json("ledger awaited").await, json!([]));
    assert_eq!(home.json("journal verify").await["ok"], true);
    assert!(dev.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_dev_leaves_no_process_and_a_killed_one_is_recovered() {
    let home = Home::new();
    let (dev, state) = home.dev().await;
    let second = home.run("dev").await;
    assert_eq!(second.code, 3);
    assert!(second.stderr.contains("already running"), "{}", second.stderr);

    let history = fanledger_devkit::history::random(11, 15);
    let gateways = Gateways::new(vec![state.gateway_url.clone()].into());
    let acknowledged = Load::start(&history.events, gateways).finish().await;
    home.read(acknowledged.positions.values().max().copied().unwrap()).await;
    let books = home.json("ledger trial-balance").await;

    let family = Family::of(dev.pid());
    let begun = Instant::now();
    assert!(dev.terminate().await.success());
    assert!(begun.elapsed() < STOP_PATIENCE);
    assert_eq!(family.left(), BTreeSet::new(), "processes that are left");
    // Without it, tools say that they cannot run, and how they could.
    let alone = home.run("ledger trial-balance").await;
    assert_eq!(alone.code, 3);
    assert!(alone.stderr.contains("fanledger dev"), "{}", alone.stderr);
    let mut nowhere = home.settings();
    nowhere.insert("DATABASE_URL", "postgres://nobody:nothing@127.0.0.1:1/none".to_owned());
    let mut command = program(nowhere, home.directory.path());
    command.args(["journal", "verify"]);
    assert_eq!(finish(command).await.code, 3);

    let (dev, _) = home.dev().await;
    let family = Family::of(dev.pid());
    dev.kill().await;
    eventually("nothing is left of a killed dev", async || family.left().is_empty()).await;
    let (dev, _) = home.dev().await;
    home.read(0).await;
    assert_eq!(home.json("ledger trial-balance").await, books);
    assert_eq!(home.json("journal verify").await["ok"], true);
    assert!(dev.terminate().await.success());
}

/// The processes below one, by id and start, which no later process shares.
struct Family(BTreeSet<(i32, u64)>);

impl Family {
    fn of(parent: i32) -> Self {
        let all = processes();
        let mut family = BTreeSet::from([parent]);
        loop {
            let children: Vec<i32> =
                all.iter().filter(|(_, p)| family.contains(&p.parent)).map(|(pid, _)| *pid).collect();
            let known = family.len();
            family.extend(children);
            if family.len() == known {
                break;
            }
        }
        // The shell of a test on Linux sees at least Postgres and NATS; elsewhere there is no /proc to ask.
        assert!(all.is_empty() || family.len() > 2, "{family:?}");
        Self(family.iter().filter_map(|pid| Some((*pid, all.get(pid)?.started))).collect())
    }

    fn left(&self) -> BTreeSet<(i32, u64)> {
        let now: BTreeSet<(i32, u64)> =
            processes().into_iter().filter(|(_, p)| !p.ended).map(|(pid, p)| (pid, p.started)).collect();
        self.0.intersection(&now).copied().collect()
    }
}

struct Kin {
    parent: i32,
    /// In ticks since the machine's start.
    started: u64,
    /// Ended, and not yet waited for.
    ended: bool,
}

/// Everything that runs, from /proc.
fn processes() -> BTreeMap<i32, Kin> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let read = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may hold anything, in parentheses: state, parent, and 17 fields on, the start.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
        Some((pid, Kin { parent: parent.parse().ok()?, started: started.parse().ok()?, ended: *state == "Z" }))
    };
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Behind a load balancer everybody has its address; what it writes down tells them apart, and only where that is said.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_each_client_has_an_allowance_of_its_own() {
    let site = Site::start().await;
    let http = reqwest::Client::new();
    for (hops, second) in [("1", 401), ("0", 429)] {
        let mut command = site.command(["gateway"]);
        command.env("FANLEDGER_TRUSTED_HOPS", hops);
        command.env("FANLEDGER_RATE_LIMIT_PER_SECOND", "1").env("FANLEDGER_RATE_LIMIT_BURST", "1");
        let mut gateway = Process::spawn("gateway", command);
        let url = format!("{}/api/v1/ledger/trial-balance", gateway_url(&mut gateway).await);
        let call = async |client: &str| {
            let request = http.get(&url).header("x-forwarded-for", client);
            request.send().await.unwrap().status().as_u16()
        };
        // Connections wait in the listener's queue until it serves.
        assert_eq!(call("203.0.113.1").await, 401);
        assert_eq!(call("203.0.113.2").await, second, "{hops} hops");
        assert_eq!(call("203.0.113.2, 203.0.113.1").await, 429);
        assert!(gateway.terminate().await.success());
    }
}

/// Postgres may go at any moment of a start, also between the first question and the last: who starts waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_loses_postgres_while_it_looks_at_the_vault_starts_all_the_same() {
    let site = Site::start().await;
    let superuser = site.superuser().await;
    let mut holder = superuser.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE vault.keys").execute(&mut *holder).await.unwrap();
    let mut gateway = site.role("gateway");
    let url = gateway_url(&mut gateway).await;
    // What a shutdown of Postgres says to its sessions.
    eventually("the session that looks at the vault is ended", async || {
        let ended: Vec<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'vault.keys'::regclass AND NOT granted",
        )
        .fetch_all(&superuser)
        .await
        .unwrap();
        !ended.is_empty()
    })
    .await;
    holder.rollback().await.unwrap();
    let gateways = Gateways::new(vec![url].into());
    let event = json!({ "id": "evt_1", "object": "event", "type": "customer.created", "created": 1_790_000_000,
        "livemode": false, "data": { "object": { "id": "cus_1", "object": "customer" } } });
    assert_eq!(Load::start(&[event], gateways).finish().await.positions["evt_1"], 1);
    assert!(gateway.terminate().await.success());
    superuser.close().await;
}
