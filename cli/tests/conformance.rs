//! Stripe-shaped events that this project did not write, through the whole system: every one is accepted, stored once,
//! and led to facts or is named as carrying none; the books balance, tie out, and end the same in any order.
//!
//! The events are where STRIPE_FIXTURES says (`make conformance`); without it the test is skipped, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;

use fanledger_cli::commands::seed::wait_until_read;
use fanledger_cli::output::Output;
use fanledger_cli::roles::{self, Listeners, Role, Running};
use fanledger_cli::settings::{Secret, Settings};
use fanledger_cli::stripe::events::{self, EventBody};
use fanledger_cli::stripe::fresh_ids::freshen;
use fanledger_cli::stripe::replay::{self, Counts, Options};
use fanledger_devkit::TestDatabase;
use fanledger_devkit::stripe::StandIn;
use fanledger_domain::event::Event;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::Metrics;
use fanledger_gateway::read::{self, AsOf, By, InboxFilter};
use fanledger_gateway_api::{InboxStatus, MinorNumber, TrialBalance};
use fanledger_journal::database;
use fanledger_journal::event::Position;
use fanledger_journal::reader::Reader;
use fanledger_journal::verify::{VerifyOptions, verify};
use sqlx::PgPool;

const SECRET: &str = "whsec_conformance_conformance";
/// The same fresh ids in every run, so that the runs can be compared.
const ID_SEED: u64 = 2026;

/// The whole system over an empty journal of its own, without NATS, whose absence costs latency only.
struct System {
    running: Running,
    gateway_url: String,
    pool: PgPool,
    database: TestDatabase,
    _stand_in: StandIn,
}

impl System {
    async fn start() -> Self {
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        rustls::crypto::ring::default_provider().install_default().ok();
        let metrics = METRICS.get_or_init(|| Metrics::install().unwrap()).clone();
        let database = TestDatabase::create().await;
        // It knows none of the balance transactions that the events name: they are asked for, and then awaited.
        let stand_in = StandIn::start("sk_test_conformance").await.unwrap();
        let data_dir = std::env::temp_dir().join(format!("fanledger-conformance-{}", uuid::Uuid::now_v7()));
        let environment = BTreeMap::from([
            ("DATABASE_URL", database.url().to_owned()),
            ("NATS_URL", "nats://127.0.0.1:1".to_owned()),
            ("LISTEN", "127.0.0.1:0".to_owned()),
            ("METRICS_LISTEN", "127.0.0.1:0".to_owned()),
            ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()),
            ("STRIPE_API_BASE", stand_in.base_url()),
            ("STRIPE_API_KEY", "sk_test_conformance".to_owned()),
            ("VAULT_KEY", "11".repeat(32)),
            ("JWT_KEY", "22".repeat(32)),
            ("DATA_DIR", data_dir.to_str().unwrap().to_owned()),
        ]);
        let settings = Settings::parse("", environment).unwrap();
        let parts = [Role::Gateway, Role::Projector, Role::Manager];
        let listeners = Listeners::bind(&settings, &parts).await.unwrap();
        let gateway_url = format!("http://{}", listeners.gateway.as_ref().unwrap().local_addr().unwrap());
        let running =
            roles::start(&settings, &parts, listeners, metrics).await.map_err(|f| f.error().to_string()).unwrap();
        let pool = database::connect(&database.url_for("fanledger_operator"), 2).await.unwrap();
        Self { running, gateway_url, pool, database, _stand_in: stand_in }
    }

    async fn send(&self, events: Vec<EventBody>, extra: u32, shuffle: Option<u64>) -> Counts {
        let options = Options {
            gateway_url: self.gateway_url.clone(),
            secret: Secret::new(SECRET.to_owned()),
            concurrency: 8,
            rate: None,
        };
        let deliveries = replay::arrange(events, extra, shuffle.is_some(), shuffle.unwrap_or_default());
        let report = replay::send(deliveries, &options, || {}).await.unwrap();
        assert!(report.refusals.is_empty(), "{:?}", report.refusals);
        wait_until_read(&self.pool, report.position, Output::new(true)).await.unwrap();
        report.counts
    }

    async fn head(&self) -> Position {
        Reader::new(self.pool.clone()).head().await.unwrap().position
    }

    async fn trial_balance(&self, as_of: AsOf) -> TrialBalance<MinorNumber> {
        read::trial_balance(&self.pool, as_of, By::Occurred, None).await.unwrap().value
    }

    /// What must not depend on the order: every balance now and as of each instant at which something occurred, and what
    /// became of each event.
    async fn end_state(&self, instants: &BTreeSet<Timestamp>) -> EndState {
        let mut balances = BTreeMap::from([("now".to_owned(), balances(&self.trial_balance(AsOf::Latest).await))]);
        for instant in instants {
            balances.insert(instant.to_string(), self::balances(&self.trial_balance(AsOf::Instant(*instant)).await));
        }
        let inbox = read::inbox(&self.pool, &InboxFilter::default(), None, 10_000).await.unwrap().value.items;
        let reasons = inbox.into_iter().map(|item| (item.id, item.reason)).collect();
        EndState { balances, reasons }
    }

    /// Each currency sums to zero, and clearing is the sum of the nets of the balance transactions seen, counted here
    /// anew from the journal; and `journal verify` finds nothing.
    async fn check_books(&self) {
        let balance = self.trial_balance(AsOf::Latest).await;
        let mut nets: BTreeMap<String, BTreeMap<String, i128>> = BTreeMap::new();
        let reader = Reader::new(self.pool.clone());
        let mut position = Position::START;
        loop {
            let page = reader.after(position, 1000, 8 << 20).await.unwrap();
            let Some(last) = page.last() else { break };
            position = last.position;
            for event in &page {
                if let Ok(Event::BalanceTransactionObserved(seen)) =
                    Event::decode(&event.event_type, &event.event_version, &event.payload)
                {
                    let of_currency = nets.entry(seen.transaction.currency.to_string()).or_default();
                    of_currency.insert(seen.transaction.id.to_string(), i128::from(seen.transaction.net));
                }
            }
        }
        for currency in &balance.currencies {
            assert_eq!(
                currency.accounts.iter().map(|account| account.balance_minor.0).sum::<i128>(),
                0,
                "{}",
                currency.currency
            );
            let clearing: i128 = currency
                .accounts
                .iter()
                .filter(|account| account.account == "assets:stripe:clearing")
                .map(|account| account.balance_minor.0)
                .sum();
            let net: i128 = nets.remove(&currency.currency).unwrap_or_default().values().sum();
            assert_eq!(clearing, net, "clearing in {}", currency.currency);
        }
        assert!(nets.is_empty(), "balance transactions without books: {nets:?}");
        let mut connection = self.pool.acquire().await.unwrap();
        let report = verify(&mut connection, VerifyOptions::default(), None, &mut |_| {}).await.unwrap();
        drop(connection);
        assert_eq!(report.first_divergence, None);
    }

    async fn stop(self) {
        self.running.stop().await;
        self.pool.close().await;
        drop(self.database);
    }
}

#[derive(Debug, PartialEq)]
struct EndState {
    balances: BTreeMap<String, BTreeMap<(String, String), i128>>,
    reasons: BTreeMap<String, Option<String>>,
}

/// By currency and account, without those that came back to zero: turnover depends on the order.
fn balances(balance: &TrialBalance<MinorNumber>) -> BTreeMap<(String, String), i128> {
    let of = |currency: &str, account: &str| (currency.to_owned(), account.to_owned());
    balance
        .currencies
        .iter()
        .flat_map(|currency| {
            currency.accounts.iter().map(|account| (of(&currency.currency, &account.account), account.balance_minor.0))
        })
        .filter(|(_, minor)| *minor != 0)
        .collect()
}

fn fixtures() -> Option<Vec<EventBody>> {
    let folder = std::env::var_os("STRIPE_FIXTURES").map(PathBuf::from)?;
    let found = events::read(&[folder]).unwrap();
    let values: Vec<_> = found.events.iter().map(|event| serde_json::from_str(&event.body).unwrap()).collect();
    let fresh = freshen(&values, ID_SEED).into_iter().map(|event| event.to_string());
    Some(found.events.into_iter().zip(fresh).map(|(event, body)| EventBody { body, ..event }).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_we_did_not_write_end_in_the_same_books_in_any_order() {
    let Some(events) = fixtures() else {
        println!(
            "skipped: STRIPE_FIXTURES is not set; run `make conformance STRIPE_FIXTURES=<folder of Stripe events>`"
        );
        return;
    };
    let count = events.len() as u64;

    let system = System::start().await;
    assert_eq!(
        system.send(events.clone(), 0, None).await,
        Counts { sent: count, accepted: count, duplicate: 0, conflict: 0, refused: 0 }
    );
    let inbox = read::inbox(&system.pool, &InboxFilter::default(), None, 10_000).await.unwrap().value.items;
    assert_eq!(inbox.len() as u64, count, "each event is stored once");
    for item in &inbox {
        let event_type = item.event_type.as_deref().unwrap_or("?");
        match item.status {
            InboxStatus::Translated => println!("{event_type}: {} facts, {} entries", item.facts, item.entries),
            InboxStatus::Known => println!("{event_type}: its facts were known already"),
            InboxStatus::NotTranslated => {
                let (reason, detail) = (item.reason.as_deref().unwrap(), item.detail.as_deref().unwrap());
                println!("{event_type}: no facts, {reason}: {detail}");
            }
            InboxStatus::Pending => panic!("{event_type} was not translated"),
        }
    }
    system.check_books().await;
    let head = system.head().await;
    assert_eq!(
        system.send(events.clone(), 0, None).await,
        Counts { sent: count, accepted: 0, duplicate: count, conflict: 0, refused: 0 }
    );
    assert_eq!(system.head().await, head, "sent again, they change nothing");

    let instants: BTreeSet<Timestamp> =
        sqlx::query_scalar::<_, chrono::DateTime<chrono::Utc>>("SELECT DISTINCT occurred_at FROM read.entries")
            .fetch_all(&system.pool)
            .await
            .unwrap()
            .into_iter()
            .map(|instant| Timestamp::from_chrono(instant).unwrap())
            .collect();
    let expected = system.end_state(&instants).await;
    system.stop().await;

    let seeds = if std::env::var_os("FANLEDGER_FULL_COUNTS").is_some() { 100 } else { 12 };
    for seed in 0..seeds {
        let system = System::start().await;
        let counts = system.send(events.clone(), 2, Some(seed)).await;
        assert_eq!(counts, Counts { sent: 3 * count, accepted: count, duplicate: 2 * count, conflict: 0, refused: 0 });
        assert_eq!(system.end_state(&instants).await, expected, "order of seed {seed}");
        system.check_books().await;
        system.stop().await;
    }
    println!("{count} events, then {seeds} orders of them three times each, each on an empty journal: the same books");
}
