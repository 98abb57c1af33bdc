//! Payouts over HTTP, over the real projections, the real commands and a stand-in for Stripe's API: from the dry run to what
//! became of each transfer; and who may not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::{Answer, Call, TestApp, token_of};
use fanledger_commands::executor::Executor;
use fanledger_commands::payouts::sender::Sender;
use fanledger_commands::stripe::api::HttpStripeApi;
use fanledger_commands::vault::{Vault, VaultKey};
use fanledger_commands::{Dependencies, managers};
use fanledger_devkit::stripe::StandIn;
use fanledger_domain::entry::{Cause, EntryPosted, Posting, Side};
use fanledger_domain::event::{Event, TransferObserved};
use fanledger_domain::facts::{ConnectedAccountSnapshot, EventStamp, Offer, TransferSnapshot};
use fanledger_domain::money::Money;
use fanledger_domain::payout_run::ConnectedAccountObserved;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::Role;
use fanledger_journal::database;
use fanledger_journal::event::{Metadata, StreamId};
use fanledger_journal::generation::{RebuildOptions, rebuild};
use fanledger_journal::runner::{RunnerContext, catch_up};
use fanledger_journal::writer::{Writer, WriterOptions};
use serde_json::{Value, json};
use sqlx::PgPool;

const KEY: &str = "sk_test_payouts";

/// A gateway with its books, its managers, and Stripe.
struct Site {
    app: TestApp,
    executor: Executor,
    context: RunnerContext,
    stand_in: StandIn,
    entries: std::cell::Cell<u32>,
}

fn at() -> Timestamp {
    "2026-11-03T09:00:00Z".parse().unwrap()
}

impl Site {
    async fn start() -> Self {
        Self::over(TestApp::new().await).await
    }

    async fn over(app: TestApp) -> Self {
        let writer = Writer::start(WriterOptions::new(app.database.url_for("fanledger_command"))).await.unwrap();
        let executor = Executor::new(app.command_pool.clone(), writer);
        let projector = database::connect(&app.database.url_for("fanledger_projector"), 4).await.unwrap();
        let stand_in = StandIn::start(KEY).await.unwrap();
        stand_in.put(json!({
            "id": "txn_cash", "object": "balance_transaction", "amount": 10_000_000, "available_on": 1, "created": 1,
            "currency": "usd", "fee": 0, "fee_details": [], "net": 10_000_000, "reporting_category": "topup",
            "source": "tu_cash", "status": "available", "type": "topup",
        }));
        let site = Self {
            app,
            executor,
            context: RunnerContext::without_feed(projector),
            stand_in,
            entries: std::cell::Cell::new(0),
        };
        site.read().await;
        site
    }

    async fn append(&self, stream: StreamId, event: impl Into<Event>) {
        let event = event.into();
        let decide = |(): &(), _| Ok::<_, Infallible>(vec![event.clone()]);
        self.executor.act(&stream, &Metadata::default(), |(): &mut (), _| {}, decide).await.unwrap();
    }

    /// A creator with an account that can be paid, and money available.
    async fn creator(&self, creator: &str, available: i64) {
        self.account(&format!("acct_{creator}"), creator, true).await;
        self.earn(creator, "available", available).await;
    }

    async fn account(&self, account: &str, creator: &str, able: bool) {
        let event = format!("evt_{account}").parse().unwrap();
        let snapshot = ConnectedAccountSnapshot {
            id: account.parse().unwrap(),
            creator: Some(creator.parse().unwrap()),
            transfers_active: able,
            payouts_enabled: able,
            requirements_due: 0,
            disabled_reason: None,
        };
        let seen = ConnectedAccountObserved { stamp: EventStamp { created: at(), event }, account: snapshot };
        self.append(StreamId::new("stripe_account", account), seen).await;
    }

    async fn earn(&self, creator: &str, bucket: &str, minor: i64) {
        let number = self.entries.get() + 1;
        self.entries.set(number);
        let object = format!("mne_{number}");
        let usd = |minor: i64| Money::new(minor.abs(), "usd".parse().unwrap());
        let line = |account: &str, minor: i64| Posting {
            account: account.parse().unwrap(),
            side: if minor > 0 { Side::Debit } else { Side::Credit },
            money: usd(minor),
        };
        let postings =
            vec![line("assets:bank", minor), line(&format!("liabilities:creators:{creator}:{bucket}"), -minor)];
        let entry = EntryPosted {
            entry_id: format!("{object}:1:{}", at().compact()).parse().unwrap(),
            cause: Cause { object: object.parse().unwrap(), facts: Vec::new(), stripe_event: None, clears: None },
            description: "earned".to_owned(),
            occurred_at: at(),
            effective_at: at(),
            postings,
            activity: Vec::new(),
        };
        self.append(StreamId::new("manual_entry", object), entry).await;
    }

    /// The projections that answers here are made from read everything.
    async fn read(&self) {
        let asked = |name| {
            matches!(
                name,
                "attributions"
                    | "awaited"
                    | "balances"
                    | "creator_activity"
                    | "entries"
                    | "manual_entries"
                    | "payouts"
                    | "postings"
                    | "stripe_inbox"
            )
        };
        for mut projection in fanledger_projections::all().into_iter().filter(|projection| asked(projection.name())) {
            catch_up(&self.context, projection.as_mut()).await.unwrap();
        }
    }

    /// Managers act, and projections read what comes of it, until nothing more does.
    async fn settle(&self) {
        let api = HttpStripeApi::new(&self.stand_in.base_url(), KEY.to_owned()).unwrap();
        let dependencies = Dependencies {
            executor: self.executor.clone(),
            vault: Vault::new(VaultKey::new([3; 32]), self.app.command_pool.clone()),
            stripe: Some(Arc::new(api)),
            livemode: false,
        };
        // Twice: the fetcher comes before the sender, whose transfers name balance transactions.
        for _ in 0..2 {
            for mut manager in managers(&dependencies) {
                catch_up(&self.context, manager.as_mut()).await.unwrap();
            }
        }
        self.read().await;
    }

    fn post(&self, path: &str, subject: &str, body: &Value) -> Call {
        self.app.post(&format!("/api/v1/ledger/{path}")).token(&token_of(subject, &[Role::Finance])).json(body)
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.app.get(&format!("/api/v1/ledger/{path}")).role(Role::Finance).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn act(&self, path: &str, subject: &str, body: &Value) -> Answer {
        let answer = self.post(path, subject, body).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.read().await;
        answer
    }

    async fn head(&self) -> i64 {
        let head = sqlx::query_scalar("SELECT coalesce(max(last_position), 0) FROM journal.batches");
        head.fetch_one(&self.app.superuser).await.unwrap()
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn states(run: &Value) -> Vec<(&str, &str, &str)> {
    let lines = run["lines"].as_array().unwrap().iter();
    lines.map(|line| (text(line, "creator"), text(line, "amount_minor"), text(line, "state"))).collect()
}

fn left_out(proposal: &Value) -> BTreeMap<&str, &str> {
    let withheld = proposal["withheld"].as_array().unwrap();
    withheld.iter().map(|one| (one["creator"].as_str().unwrap(), one["reason"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_the_dry_run_to_the_end() {
    let site = Site::start().await;
    site.creator("crt_a", 90_000).await;
    site.creator("crt_b", 20_000).await;
    site.creator("crt_c", 500).await;
    site.creator("crt_d", -300).await;
    site.earn("crt_e", "available", 5_000).await;
    site.earn("crt_f", "available", 5_000).await;
    site.account("acct_f", "crt_f", false).await;
    site.read().await;

    let head = site.head().await;
    let dry = site.get("payouts/proposal").await;
    assert_eq!(site.head().await, head, "a dry run writes nothing");
    assert_eq!(
        (&dry["needs_approval"], &dry["open_run"], &dry["as_of_position"]),
        (&json!(true), &json!(null), &json!(head))
    );
    assert_eq!(dry["totals"], json!([{"currency": "usd", "amount_minor": "110000", "lines": 2}]));
    let claimed = json!([{"creator": "crt_d", "recovery": "claimed", "amount_minor": "300", "currency": "usd"}]);
    assert_eq!(dry["recoveries"], claimed);
    let expected =
        BTreeMap::from([("crt_c", "below_minimum"), ("crt_e", "no_account"), ("crt_f", "account_restricted")]);
    assert_eq!(left_out(&dry), expected);

    let proposed = site.act("payout-runs", "ada", &json!({})).await;
    assert_eq!(proposed.json(), json!({"run": "por_1", "state": "proposed", "needs_approval": true}));
    assert!(proposed.header("journal-position").is_some());
    assert_eq!(site.get("payouts/proposal").await["open_run"], "por_1");
    let open = site.post("payout-runs", "bob", &json!({})).send().await.problem(409, "payout-run-open");
    assert!(open["detail"].as_str().unwrap().contains("por_1"), "{open}");
    let alone =
        site.post("payout-runs/por_1/approve", "ada", &json!({})).send().await.problem(409, "second-person-needed");
    assert!(alone["detail"].as_str().unwrap().contains("somebody else"), "{alone}");
    assert_eq!(site.get("payout-runs/por_1").await["state"], "proposed");
    site.act("payout-runs/por_1/approve", "grace", &json!({})).await;
    site.post("payout-runs/por_1/approve", "grace", &json!({})).send().await.problem(409, "already-decided");
    site.post("payout-runs", "ada", &json!({})).send().await.problem(409, "payout-run-open");

    site.stand_in.restrict(&["acct_crt_b"]);
    site.settle().await;
    let run = site.get("payout-runs/por_1").await;
    assert_eq!(states(&run), [("crt_a", "90000", "confirmed"), ("crt_b", "20000", "failed")]);
    let late = json!({"reason": "too late"});
    site.post("payout-runs/por_1/cancel", "ada", &late).send().await.problem(409, "already-decided");
    assert_eq!(run["lines"][1]["code"], "insufficient_capabilities_for_transfer");
    assert_eq!((&run["state"], &run["sent"], &run["failed"]), (&json!("finished"), &json!(1), &json!(1)));
    assert_eq!((&run["proposed_by"], &run["decided_by"]), (&json!("ada"), &json!("grace")));
    assert_eq!(run["totals"], json!([{"currency": "usd", "amount_minor": "110000", "lines": 2}]));
    assert_eq!(run["sent_totals"], json!([{"currency": "usd", "amount_minor": "90000", "lines": 1}]));
    assert_eq!(left_out(&run), expected);
    let account = site.get("accounts/assets:creators:crt_d:receivable").await;
    assert_eq!(account["currencies"][0]["balance_minor"], "300");
    let line = site.get("accounts/assets:creators:crt_d:receivable/postings").await["items"][0].clone();
    let claim = site.get(&format!("entries/{}", text(&line, "entry_id"))).await;
    let act = json!({"proposed_by": "ada", "approved_by": "grace", "reason": "payout run por_1", "reverses": null});
    assert_eq!(claim["cause"]["act"], act, "who decided a claim is told with it");

    // The next run takes what was refused, and nothing twice.
    site.stand_in.restrict(&[]);
    let dry = site.get("payouts/proposal").await;
    assert_eq!((&dry["lines"][0]["creator"], dry["lines"].as_array().unwrap().len()), (&json!("crt_b"), 1));
    site.act("payout-runs", "ada", &json!({})).await;
    site.act("payout-runs/por_2/approve", "ada", &json!({})).await;
    site.settle().await;
    assert_eq!(states(&site.get("payout-runs/por_2").await), [("crt_b", "20000", "confirmed")]);
    let runs = site.get("payout-runs?limit=1").await;
    assert_eq!((&runs["items"][0]["run"], &runs["items"][0]["state"]), (&json!("por_2"), &json!("finished")));
    let next = runs["next_cursor"].as_str().unwrap();
    let rest = site.get(&format!("payout-runs?limit=1&cursor={next}")).await;
    assert_eq!(rest["items"][0]["run"], "por_1");
    let nothing = site.post("payout-runs", "ada", &json!({})).send().await.problem(422, "ledger-refused");
    assert!(nothing["detail"].as_str().unwrap().contains("nothing to pay"), "{nothing}");

    // What comes back later is seen on the line.
    for (reversed, state) in [(5_000, "partly_reversed"), (20_000, "reversed")] {
        let transfer = site.get("payout-runs/por_2").await["lines"][0]["transfer"].as_str().unwrap().to_owned();
        let seen = TransferObserved {
            stamp: EventStamp { created: at(), event: format!("evt_{reversed}").parse().unwrap() },
            transfer: TransferSnapshot {
                id: transfer.parse().unwrap(),
                created: at(),
                currency: "usd".parse().unwrap(),
                amount: 20_000,
                amount_reversed: reversed,
                reversals: Vec::new(),
                destination: Some("acct_crt_b".parse().unwrap()),
                balance_transaction: None,
                offer: Offer::Silent,
            },
        };
        site.append(StreamId::new("stripe_transfer", transfer), seen).await;
        site.read().await;
        let run = site.get("payout-runs/por_2").await;
        assert_eq!(states(&run), [("crt_b", "20000", state)]);
        assert_eq!(run["lines"][0]["reversed_minor"], reversed.to_string());
    }
    built_anew_it_is_the_same(&site).await;
}

/// Every row of the projection, in its live generation.
async fn rows(pool: &PgPool) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for table in ["accounts", "holds", "runs", "lines", "recoveries", "withheld", "transfers"] {
        let sql = format!("SELECT t::text FROM read.payout_{table} AS t ORDER BY 1");
        found.insert(table.to_owned(), sqlx::query_scalar(&sql).fetch_all(pool).await.unwrap());
    }
    found
}

async fn built_anew_it_is_the_same(site: &Site) {
    let before = rows(&site.app.superuser).await;
    assert!(before.iter().all(|(table, rows)| table == "holds" || !rows.is_empty()), "{before:?}");
    let mut projections = fanledger_projections::all().into_iter();
    let mut projection = projections.find(|projection| projection.name() == "payouts").unwrap();
    rebuild(&site.context, projection.as_mut(), &RebuildOptions::unattended()).await.unwrap();
    assert_eq!(rows(&site.app.superuser).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_is_held_and_resumed() {
    let site = Site::start().await;
    site.creator("crt_a", 5_000).await;
    site.read().await;
    let why = json!({"reason": "a claim is open"});
    assert_eq!(
        site.act("creators/crt_a/payouts/hold", "ada", &why).await.json(),
        json!({"creator": "crt_a", "held": true, "creator_is_new": false})
    );
    site.post("creators/crt_a/payouts/hold", "ada", &why).send().await.problem(409, "already-decided");
    let slip = site.act("creators/crt_b/payouts/hold", "grace", &json!({"reason": "moved"})).await;
    assert_eq!(slip.json()["creator_is_new"], true, "nothing was heard of crt_b");
    site.account("acct_z", "crt_z", true).await;
    site.read().await;
    let heard = site.act("creators/crt_z/payouts/hold", "grace", &json!({"reason": "moved"})).await;
    assert_eq!(heard.json()["creator_is_new"], false, "of crt_z an account was heard of, and nothing else");
    site.act("creators/crt_z/payouts/resume", "grace", &json!({"reason": "moved"})).await;
    let first = site.get("payouts/holds?limit=1").await;
    assert_eq!(first["items"][0]["creator"], "crt_b", "newest first");
    let rest = site.get(&format!("payouts/holds?cursor={}", text(&first, "next_cursor"))).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &json!(null)));
    let hold = &rest["items"][0];
    assert_eq!((&hold["creator"], &hold["held_by"], &hold["reason"]), (&json!("crt_a"), &json!("ada"), &why["reason"]));
    assert!(hold["held_at"].as_str().unwrap().ends_with('Z'), "{hold}");
    assert_eq!(hold["resumed_at"], json!(null));
    assert_eq!(left_out(&site.get("payouts/proposal").await), BTreeMap::from([("crt_a", "held")]));
    site.post("payout-runs", "ada", &json!({})).send().await.problem(422, "ledger-refused");
    assert_eq!(site.act("creators/crt_a/payouts/resume", "ada", &why).await.json()["held"], false);
    site.post("creators/crt_a/payouts/resume", "ada", &why).send().await.problem(409, "already-decided");
    assert_eq!(site.get("payouts/proposal").await["lines"][0]["amount_minor"], "5000");
    assert_eq!(site.get("payouts/holds").await["items"].as_array().unwrap().len(), 1);
    // Who ended a hold, and why, is known afterwards.
    let all = site.get("payouts/holds?all=true").await;
    let over: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|hold| (text(hold, "creator"), &hold["resumed_by"])).collect();
    assert_eq!(over, [("crt_z", &json!("grace")), ("crt_b", &json!(null)), ("crt_a", &json!("ada"))]);
    assert_eq!(all["items"][2]["resume_reason"], why["reason"]);
    site.app
        .get("/api/v1/ledger/payouts/holds?all=x")
        .role(Role::Finance)
        .send()
        .await
        .problem(422, "parameters-invalid");
    site.act("payout-runs", "ada", &json!({})).await;
    // Who looks before approving sees who is held meanwhile.
    assert_eq!(site.get("payout-runs/por_1").await["lines"][0]["held"], false);
    site.act("creators/crt_a/payouts/hold", "grace", &why).await;
    assert_eq!(site.get("payout-runs/por_1").await["lines"][0]["held"], true);
    site.act("creators/crt_a/payouts/resume", "grace", &why).await;
    // Money that went back since the proposal is not sent.
    site.earn("crt_a", "available", -1_000).await;
    site.read().await;
    let overtaken =
        site.post("payout-runs/por_1/approve", "ada", &json!({})).send().await.problem(422, "ledger-refused");
    assert!(overtaken["detail"].as_str().unwrap().contains("crt_a"), "{overtaken}");
    // A run that nobody approves is cancelled, with a reason, and another can follow.
    let canceled = site.act("payout-runs/por_1/cancel", "bob", &json!({"reason": "wrong month"})).await;
    assert_eq!(canceled.json(), json!({"run": "por_1", "state": "canceled"}));
    let run = site.get("payout-runs/por_1").await;
    assert_eq!(
        (&run["state"], &run["reason"], &run["decided_by"]),
        (&json!("canceled"), &json!("wrong month"), &json!("bob"))
    );
    assert_eq!(site.act("payout-runs", "ada", &json!({})).await.json()["run"], "por_2");
}

/// Many small runs of one person count together.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_person_pays_out_by_small_runs_needs_a_second_in_the_end() {
    let site = Site::start().await;
    site.creator("crt_a", 40_000).await;
    site.creator("crt_b", 30_000).await;
    site.read().await;
    site.stand_in.restrict(&["acct_crt_b"]);
    site.act("payout-runs", "ada", &json!({})).await;
    site.act("payout-runs/por_1/approve", "Ada", &json!({})).await;
    // Also while it is on its way, when nothing of it is refused yet; and of whoever writes the name otherwise next time.
    let dry = site.get("payouts/proposal").await;
    let ada = json!({"by": "ada", "currency": "usd", "amount_minor": "70000", "needs_approval": true});
    assert_eq!(dry["paid_alone"], json!([ada]));
    assert!(text(&dry, "alone_since").ends_with('Z'));
    site.settle().await;
    site.stand_in.restrict(&[]);
    site.account("acct_crt_b", "crt_b", false).await;
    // What was refused is not counted; what two persons agreed to neither.
    site.creator("crt_c", 60_000).await;
    site.read().await;
    let dry = site.get("payouts/proposal").await;
    let ada = json!({"by": "ada", "currency": "usd", "amount_minor": "40000", "needs_approval": false});
    assert_eq!((&dry["needs_approval"], &dry["paid_alone"]), (&json!(false), &json!([ada])));
    site.act("payout-runs", "ada", &json!({})).await;
    site.act("payout-runs/por_2/approve", "grace", &json!({})).await;
    site.settle().await;
    site.creator("crt_d", 60_001).await;
    site.read().await;
    let dry = site.get("payouts/proposal").await;
    let ada = json!({"by": "ada", "currency": "usd", "amount_minor": "40000", "needs_approval": true});
    assert_eq!((&dry["needs_approval"], &dry["paid_alone"]), (&json!(false), &json!([ada])));
    site.act("payout-runs", "ada", &json!({})).await;
    let run = site.get("payout-runs/por_3").await;
    let before = json!([{"currency": "usd", "amount_minor": "40000"}]);
    assert_eq!((&run["needs_approval"], &run["paid_alone"]), (&json!(true), &before));
    let alone =
        site.post("payout-runs/por_3/approve", "ADA", &json!({})).send().await.problem(409, "second-person-needed");
    assert!(alone["detail"].as_str().unwrap().contains("paid out 400.00 usd alone"), "{alone}");
    // Whoever paid out nothing alone may.
    site.act("payout-runs/por_3/cancel", "ada", &json!({"reason": "let grace do it"})).await;
    site.act("payout-runs", "grace", &json!({})).await;
    site.act("payout-runs/por_4/approve", "grace", &json!({})).await;
    site.read().await;
    let who = |dry: Value| -> Vec<String> {
        dry["paid_alone"].as_array().unwrap().iter().map(|paid| text(paid, "by").to_owned()).collect()
    };
    assert_eq!(who(site.get("payouts/proposal").await), ["ada", "grace"]);
    // And what was paid out long ago does not count: thirty days after it was sent, and not a day before.
    for (days, expected) in [(29, &["ada", "grace"][..]), (1, &["grace"])] {
        let ago = "UPDATE payouts_g1.payout_lines SET ended_at = ended_at - make_interval(days => $1) WHERE run = 1";
        sqlx::query(ago).bind(days).execute(&site.app.superuser).await.unwrap();
        assert_eq!(who(site.get("payouts/proposal").await), expected);
    }
}

/// One person is enough to stop money. What the sender then makes of it is seen on the run.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_approved_is_stopped() {
    let site = Site::start().await;
    site.creator("crt_a", 5_000).await;
    site.creator("crt_b", 6_000).await;
    site.read().await;
    site.act("payout-runs", "ada", &json!({})).await;
    site.act("payout-runs/por_1/approve", "grace", &json!({})).await;
    let why = json!({"reason": "the journal was restored"});
    let stopped = site.act("payout-runs/por_1/cancel", "ada", &why).await;
    assert_eq!(stopped.json(), json!({"run": "por_1", "state": "stopping"}));
    let run = site.get("payout-runs/por_1").await;
    assert_eq!(
        (&run["state"], &run["decided_by"], &run["stopped_by"], &run["reason"]),
        (&json!("stopping"), &json!("grace"), &json!("ada"), &why["reason"])
    );
    assert_eq!(states(&run), [("crt_a", "5000", "waiting"), ("crt_b", "6000", "waiting")]);
    assert_eq!(site.get("payouts/proposal").await["open_run"], "por_1");
    let open = site.post("payout-runs", "ada", &json!({})).send().await.problem(409, "payout-run-open");
    assert!(open["detail"].as_str().unwrap().contains("por_1 is stopped"), "{open}");
    let stopped_at = text(&run, "stopped_at").to_owned();
    // Again, in case that nobody listened: who stopped it first, and why, stays.
    let again = site.act("payout-runs/por_1/cancel", "bob", &json!({"reason": "is it stopped?"})).await;
    assert_eq!(again.json()["state"], "stopping");

    let api = HttpStripeApi::new(&site.stand_in.base_url(), KEY.to_owned()).unwrap();
    let mut sender = Sender::new(site.executor.clone(), Some(Arc::new(api))).settled_after(Duration::ZERO);
    catch_up(&site.context, &mut sender).await.unwrap();
    site.read().await;
    let run = site.get("payout-runs/por_1").await;
    assert_eq!(states(&run), [("crt_a", "5000", "failed"), ("crt_b", "6000", "failed")]);
    assert_eq!((&run["lines"][0]["code"], &run["failed"]), (&json!("run_stopped"), &json!(2)));
    let stopped = (&run["state"], &run["stopped_by"], &run["reason"]);
    assert_eq!(stopped, (&json!("finished"), &json!("ada"), &why["reason"]));
    assert_eq!(run["stopped_at"], stopped_at);
    assert_eq!(run["totals"], json!([{"currency": "usd", "amount_minor": "11000", "lines": 2}]));
    assert_eq!(run["sent_totals"], json!([]), "nothing was sent");
    assert_eq!(site.stand_in.transfers().len(), 0);
    site.post("payout-runs/por_1/cancel", "ada", &why).send().await.problem(409, "already-decided");
    assert_eq!(site.get("payouts/proposal").await["open_run"], json!(null));
    assert_eq!(site.act("payout-runs", "ada", &json!({})).await.json()["run"], "por_2");
}

/// A run is reckoned, and approved, from books that hold what the journal held when that was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn from_old_books_nothing_is_proposed_and_nothing_approved() {
    let app = TestApp::with().config(|config| config.min_position_wait = Duration::from_millis(100)).build().await;
    let site = Site::over(app).await;
    site.creator("crt_a", 5_000).await;
    site.read().await;
    let control = async |sql: &str| sqlx::raw_sql(sql).execute(&site.app.superuser).await.unwrap();
    let halt = r#"'{"kind": "poison", "message": "it cannot be applied", "at": "2026-11-03T09:00:00Z"}'"#;
    let path = |what: &str| if what == "propose" { "payout-runs" } else { "payout-runs/por_1/approve" };
    for act in ["propose", "approve"] {
        // What went back is not in the books yet.
        site.earn("crt_a", "available", -1_000).await;
        let head = site.head().await;
        for (name, column, state, to_do) in [
            ("creator_activity", "paused = true", "paused", "projections resume creator_activity"),
            ("payouts", &format!("error = {halt}"), "halted", "projections resume payouts"),
            ("creator_activity", "paused = paused", "at position", "fanledger projector"),
        ] {
            control(&format!("UPDATE control.runners SET {column} WHERE name = '{name}' AND live")).await;
            let answer = site.post(path(act), "ada", &json!({})).send().await;
            let problem = answer.problem(503, "position-not-reached");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("{name} is {state}")) && detail.contains(to_do), "{act}: {detail}");
            assert!(detail.contains(&format!("The journal is at position {head}")), "{act}: {detail}");
            assert!(answer.header("retry-after").is_some());
            control("UPDATE control.runners SET paused = false, error = NULL").await;
        }
        assert_eq!(site.head().await, head, "{act}: nothing was written");
        // The dry run says how old it is.
        assert!(site.get("payouts/proposal").await["as_of_position"].as_i64().unwrap() < head);
        site.read().await;
        let answer = site.post(path(act), "ada", &json!({})).send().await;
        assert_eq!(answer.status.as_u16(), if act == "propose" { 200 } else { 422 }, "{answer:?}");
        site.read().await;
    }
    assert_eq!(site.get("payout-runs/por_1").await["lines"][0]["amount_minor"], "4000");
}

/// Projections are behind by milliseconds: that is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_waits_for_the_books() {
    let site = Site::start().await;
    site.creator("crt_a", 5_000).await;
    let propose = tokio::spawn(site.post("payout-runs", "ada", &json!({})).send());
    site.read().await;
    assert_eq!(propose.await.unwrap().status, 200);
    site.read().await;
    assert_eq!(site.get("payout-runs/por_1").await["lines"][0]["amount_minor"], "5000");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told() {
    let site = Site::start().await;
    let finance = |path: &str| site.app.get(&format!("/api/v1/ledger/{path}")).role(Role::Finance);
    finance("payout-runs/por_7").send().await.problem(404, "not-found");
    for bad in ["7", "por_0", "por_x", "run"] {
        let answer = finance(&format!("payout-runs/{bad}")).send().await;
        answer.problem(422, "parameters-invalid");
        assert!(answer.errors()["run"][0].contains("por_1"), "{answer:?}");
    }
    finance("payouts/proposal?as_of=1").send().await.problem(422, "parameters-invalid");
    site.post("payout-runs/por_7/approve", "ada", &json!({})).send().await.problem(404, "not-found");
    site.post("payout-runs/por_7/cancel", "ada", &json!({"reason": "none"})).send().await.problem(404, "not-found");
    site.post("payout-runs", "ada", &json!({"amount": 1})).send().await.problem(422, "parameters-invalid");
    for (body, field) in
        [(json!({}), "reason"), (json!({"reason": "  "}), "reason"), (json!({"reason": "x", "y": 1}), "y")]
    {
        for path in ["payout-runs/por_7/cancel", "creators/crt_a/payouts/hold", "creators/crt_a/payouts/resume"] {
            let answer = site.post(path, "ada", &body).send().await;
            answer.problem(422, "parameters-invalid");
            assert!(answer.errors().contains_key(field), "{path}: {answer:?}");
        }
    }
    let answer = site.post("creators/nobody/payouts/hold", "ada", &json!({"reason": "x"})).send().await;
    answer.problem(422, "parameters-invalid");
    assert!(answer.errors()["creator"][0].contains("crt_"), "{answer:?}");
    assert_eq!(site.head().await, 0, "nothing was written");
}
