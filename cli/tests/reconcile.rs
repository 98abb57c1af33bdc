//! `fanledger ledger reconcile`: Stripe's list in each of its forms, doctored in each way, beside what was seen.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(unused, reason = "of the running system only its tools are used here")]
mod e2e;
mod journal;

use std::fmt::Write as _;

use e2e::{Finished, finish, program};
use fanledger_devkit::stripe::StandIn;
use fanledger_domain::event::{
    BalanceTransactionObserved, Event, NotTranslatedReason, RefundObserved, StripeEventNotTranslated,
    StripeEventReceived,
};
use fanledger_domain::facts::{EventStamp, RefundSnapshot, RefundStatus};
use fanledger_domain::id::StripeId;
use fanledger_domain::stripe::read_balance_transaction;
use fanledger_domain::time::Timestamp;
use journal::Journal;
use serde_json::{Value, json};

/// 2026-09-01T00:00:00Z.
const BEGIN: i64 = 1_788_220_800;
const KEY: &str = "sk_test_reconcile";

/// Balance transaction `n`, an hour after the one before; in usd, jpy and kwd by turns, and each fourth one a payout.
fn transaction(n: i64) -> Value {
    let currency = ["usd", "jpy", "kwd"][usize::try_from(n % 3).unwrap()];
    let (kind, source, amount, fee) = match n % 4 {
        3 => ("payout", format!("po_{n}"), -(100 + n), 0),
        _ => ("charge", format!("ch_{n}"), 1000 + n, 30 + n % 7),
    };
    json!({
        "id": format!("txn_{n}"), "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee,
        "currency": currency, "created": BEGIN + n * 3600 + 17, "available_on": BEGIN + n * 3600 + 172_800,
        "type": kind, "reporting_category": kind, "source": source, "fee_details": [],
    })
}

fn id(text: &str) -> StripeId {
    text.parse().unwrap()
}

fn observed(transaction: &Value) -> Event {
    let transaction = read_balance_transaction(transaction).unwrap();
    let owner = transaction.source.clone().unwrap();
    Event::BalanceTransactionObserved(BalanceTransactionObserved { owner, transaction })
}

/// The amount as the CSV has it.
fn decimal(minor: i64, currency: &str) -> String {
    fanledger_cli::output::amount_of(i128::from(minor), currency)
}

/// The dashboard's balance history: times in minutes, in the header's own words.
fn dashboard_csv(transactions: &[Value]) -> String {
    let mut csv =
        "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC),Available On (UTC),Description,Transfer\n".to_owned();
    for of in transactions {
        let currency = of["currency"].as_str().unwrap();
        let money = |name: &str| decimal(of[name].as_i64().unwrap(), currency);
        let time = |name: &str| {
            let at = Timestamp::from_unix_seconds(of[name].as_i64().unwrap()).unwrap();
            at.to_chrono().format("%Y-%m-%d %H:%M").to_string()
        };
        let text = |name: &str| of[name].as_str().unwrap();
        writeln!(
            csv,
            "{},{},{},{},{},{},{currency},{},{},\"a \"\"subscription\"\",\nof a fan\",",
            text("id"),
            text("type"),
            text("source"),
            money("amount"),
            money("fee"),
            money("net"),
            time("created"),
            time("available_on"),
        )
        .unwrap();
    }
    csv
}

/// The reports API's: other names, another order, seconds.
fn report_csv(transactions: &[Value]) -> String {
    let mut csv =
        "\u{feff}balance_transaction_id,created_utc,created,currency,gross,fee,net,reporting_category,source_id\r\n"
            .to_owned();
    for of in transactions {
        let currency = of["currency"].as_str().unwrap();
        let money = |name: &str| decimal(of[name].as_i64().unwrap(), currency);
        let at = Timestamp::from_unix_seconds(of["created"].as_i64().unwrap()).unwrap().to_chrono();
        let text = |name: &str| of[name].as_str().unwrap();
        write!(
            csv,
            "{},{},2026-09-01 08:00:00,{},{},{},{},{},{}\r\n",
            text("id"),
            at.format("%Y-%m-%d %H:%M:%S"),
            currency.to_ascii_uppercase(),
            money("amount"),
            money("fee"),
            money("net"),
            text("reporting_category"),
            text("source"),
        )
        .unwrap();
    }
    csv
}

struct Books {
    journal: Journal,
    transactions: Vec<Value>,
}

impl Books {
    /// Has seen forty.
    async fn create() -> Self {
        let mut journal = Journal::create().await;
        let transactions: Vec<Value> = (0..40).map(transaction).collect();
        journal.append("stripe_charge", "ch_0", None, transactions.iter().map(observed).collect()).await;
        journal.catch_up().await;
        Self { journal, transactions }
    }

    async fn run(&self, options: &str) -> Finished {
        let mut command = program(self.journal.settings(), self.journal.directory());
        command.args(["ledger", "reconcile"]).args(options.split_whitespace());
        finish(command).await
    }

    /// Reconciles with a file of this content.
    async fn with(&self, content: &str, options: &str) -> Finished {
        std::fs::write(self.journal.directory().join("list"), content).unwrap();
        self.run(&format!("--balance-transactions list {options} --json")).await
    }
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

/// What the contract names.
fn shape(report: &Value) -> (u64, Vec<&str>, Vec<&str>, Vec<&str>) {
    let list = |name: &str| ids(&report[name]);
    (report["matched"].as_u64().unwrap(), list("missing_here"), list("missing_there"), list("different"))
}

#[tokio::test]
async fn every_form_of_the_list_is_the_same_list() {
    let books = Books::create().await;
    let all = &books.transactions;
    let list = json!({ "object": "list", "url": "/v1/balance_transactions", "has_more": false, "data": all });
    let lines: String = all.iter().map(|of| format!("{of}\n")).collect();
    for content in [
        dashboard_csv(all),
        report_csv(all),
        list.to_string(),
        serde_json::to_string_pretty(&list).unwrap(),
        json!(all).to_string(),
        lines,
    ] {
        let report = books.with(&content, "").await.json(0);
        assert_eq!(shape(&report), (40, vec![], vec![], vec![]), "{content}");
        assert_eq!(report["outside"], 0);
        let counted: u64 =
            report["totals"].as_array().unwrap().iter().map(|of| of["ours"]["count"].as_u64().unwrap()).sum();
        assert_eq!(counted, 40);
        for total in report["totals"].as_array().unwrap() {
            assert_eq!(total["ours"], total["theirs"]);
        }
    }
    // A part of the list is of a part of the time; what it leaves out within that time is missed.
    let mut part: Vec<Value> = all[10..20].to_vec();
    part.remove(5);
    let report = books.with(&dashboard_csv(&part), "").await.json(1);
    assert_eq!(shape(&report), (9, vec![], vec!["txn_15"], vec![]));
    // The very same without what lies around it, and with it where the time was said.
    let report =
        books.with(&dashboard_csv(all), "--since 2026-09-01T10:00:00Z --until 2026-09-01T20:00:17Z").await.json(0);
    assert_eq!((shape(&report).0, &report["outside"]), (11, &json!(29)));
    let report = books.with(&dashboard_csv(&part), "--since 2026-09-01 --until 2026-09-30").await.json(1);
    assert_eq!(shape(&report).2.len(), 31);
}

#[tokio::test]
async fn differences_are_found_and_explained() {
    let mut books = Books::create().await;
    // What is known of three that were not seen: one is awaited, one's webhook was not translated, one's has not come.
    let stamp = EventStamp { created: "2026-09-01T00:00:00Z".parse().unwrap(), event: id("evt_refund") };
    let refund = Event::RefundObserved(RefundObserved {
        stamp,
        refund: RefundSnapshot {
            id: id("re_100"),
            created: "2026-09-01T00:00:00Z".parse().unwrap(),
            currency: "usd".parse().unwrap(),
            amount: 500,
            status: RefundStatus::Succeeded,
            charge: None,
            payment_intent: None,
            balance_transaction: Some(id("txn_100")),
            failure_balance_transaction: None,
        },
    });
    books.journal.append("stripe_refund", "re_100", None, vec![refund]).await;
    let received = Event::StripeEventReceived(StripeEventReceived {
        id: id("evt_101"),
        event_type: Some("charge.succeeded".to_owned()),
        api_version: None,
        created: Some("2026-09-02T00:00:00Z".parse().unwrap()),
        livemode: Some(false),
        account: None,
        object: Some(id("ch_101")),
        body_digest: "00".to_owned(),
        sealed_body: String::new(),
        flag: None,
    });
    let reason = Event::StripeEventNotTranslated(StripeEventNotTranslated {
        id: id("evt_101"),
        reason: NotTranslatedReason::Untranslatable,
        detail: "amount is missing".to_owned(),
        translator_version: 1,
    });
    books.journal.append("stripe_event", "evt_101", None, vec![received, reason]).await;
    books.journal.catch_up().await;

    let mut list = books.transactions.clone();
    let unseen = |n: i64, source: Value, created: i64| {
        let mut unseen = transaction(0);
        (unseen["id"], unseen["source"]) = (json!(format!("txn_{n}")), source);
        unseen["created"] = json!(BEGIN + created);
        unseen
    };
    list.push(unseen(100, json!("re_100"), 60));
    list.push(unseen(101, json!("ch_101"), 60));
    list.push(unseen(102, json!("ch_102"), 39 * 3600));
    list.push(unseen(103, Value::Null, 60));
    list.push(unseen(104, json!("ch_104"), 60));
    // Of ours, one is not on the list; and in others the fee, the currency, the sign, the decimals are not ours.
    list.remove(9);
    let alter = |of: &mut Value, currency: &str, amount: i64, fee: i64| {
        (of["currency"], of["amount"], of["fee"], of["net"]) =
            (json!(currency), json!(amount), json!(fee), json!(amount - fee));
    };
    alter(&mut list[0], "usd", 1000, 31);
    alter(&mut list[1], "eur", 1001, 31);
    alter(&mut list[2], "kwd", -1002, 32);
    alter(&mut list[4], "jpy", 100_400, 34);

    let report = books.with(&json!(list).to_string(), "").await.json(1);
    assert_eq!(
        shape(&report),
        (
            35,
            vec!["txn_100", "txn_101", "txn_102", "txn_103", "txn_104"],
            vec!["txn_9"],
            vec!["txn_0", "txn_1", "txn_2", "txn_4"]
        )
    );
    let explained = |list: &str, n: usize, words: &str| {
        let explanation = report[list][n]["explanation"].as_str().unwrap_or_default();
        assert!(explanation.contains(words), "{list} {n}: {explanation}");
    };
    explained(
        "missing_here",
        0,
        "re_100 names it, and it was not fetched yet; `fanledger stripe sync --since 2026-09-01T00:01:00Z`",
    );
    explained("missing_here", 1, "webhook evt_101 about ch_101 was not translated (untranslatable)");
    explained("missing_here", 2, "newer than the last webhook that was received, of 2026-09-02T00:00:00Z");
    explained("missing_here", 3, "no webhook tells of what Stripe books itself");
    explained("missing_here", 4, "no webhook about ch_104 was received");
    explained("different", 0, "only the fee differs");
    explained("different", 1, "the currency differs: jpy here, eur there");
    explained("different", 2, "the sign differs");
    explained("different", 3, "another number of decimals");
    let different = &report["different"][0];
    assert_eq!(
        different["ours"],
        json!({ "currency": "usd", "amount_minor": 1000, "fee_minor": 30, "net_minor": 970 })
    );
    assert_eq!(
        different["theirs"],
        json!({ "currency": "usd", "amount_minor": 1000, "fee_minor": 31, "net_minor": 969 })
    );
    assert_eq!(report["missing_there"][0]["explanation"], Value::Null);

    // A report leaves payouts out, and one of a single currency the others.
    let payments: Vec<Value> = books.transactions.iter().filter(|of| of["type"] != "payout").cloned().collect();
    let report = books.with(&report_csv(&payments), "").await.json(1);
    assert_eq!(shape(&report).2.len(), 9, "the tenth is after the list's last");
    let explanation = report["missing_there"][0]["explanation"].as_str().unwrap();
    assert!(explanation.contains("--without-payouts"), "{explanation}");
    books.with(&report_csv(&payments), "--without-payouts").await.json(0);
    let usd: Vec<Value> = payments.into_iter().filter(|of| of["currency"] == "usd").collect();
    let report = books.with(&report_csv(&usd), "--without-payouts").await.json(1);
    assert!(report["missing_there"][0]["explanation"].as_str().unwrap().contains("nothing in jpy"));

    // For people.
    let told = books.run("--balance-transactions list").await;
    assert_eq!(told.code, 1);
    assert!(told.stdout.contains("missing there  txn_1 charge net"), "{}", told.stdout);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_has_no_answer() {
    let books = Books::create().await;
    let good = dashboard_csv(&books.transactions);
    let header = good.lines().next().unwrap().to_owned();
    // The first record takes two lines, because of the line end in its description.
    let first: String = good.lines().skip(1).take(2).collect::<Vec<_>>().join("\n");
    let with = |from: &str, to: &str| {
        format!("{header}\n{first}\n{}", first.replacen(from, to, 1).replacen("txn_0", "txn_z", 1))
    };
    let doctored = |from: &str, to: &str| format!("{header}\n{}", first.replacen(from, to, 1));
    let api = json!(books.transactions).to_string();
    let mut wrong = books.transactions[3].clone();
    wrong["net"] = json!(0);
    for (content, says) in [
        ("amount,currency\n1,usd\n".to_owned(), "no column for the balance transaction's id"),
        (good.replacen("Net", "Nett", 1), "no column for the net amount; it has: id, Type"),
        (good.replacen("Type", "Fee", 1), "more than one column Fee"),
        // Cut in the middle of a line, within quotes and before them.
        (good[..good.len() - 30].to_owned(), "fields and the header has 11; was the file cut?"),
        (good[..good.rfind("txn_39").unwrap() + 30].to_owned(), "fields and the header has 11; was the file cut?"),
        (doctored("10.00,", "10.001,"), "line 2, amount: \"10.001\" has more decimals than usd has, which is 2"),
        (doctored("10.00,", "ten,"), "line 2, amount: \"ten\" is not an amount"),
        (doctored("9.70,", "9.71,"), "line 2, net: it is not the amount less the fee"),
        (doctored(",usd,", ",xxx,"), "line 2, currency: unknown currency"),
        (doctored("txn_0", "ch_0"), "ch_0 is not the id of a balance transaction"),
        (doctored("2026-09-01 00:00", "9/1/26 0:00"), "line 2, created: \"9/1/26 0:00\" is not a time"),
        (with("2026-09-01 00:00", "soon"), "line 4, created: \"soon\" is not a time"),
        (
            format!("{good}{}", first.replace("0.30", "0.31").replace("9.70", "9.69")),
            "txn_0 was there before, with other amounts",
        ),
        (format!("{header}\n"), "holds no balance transaction"),
        (api[..api.len() - 20].to_owned(), "EOF while parsing"),
        (json!([books.transactions[0], wrong]).to_string(), "balance transaction number 2: net is not amount - fee"),
        (json!({ "object": "list", "data": 5 }).to_string(), "expected an array of balance transactions"),
        ("{} {}".to_owned(), "balance transaction number 1"),
        (String::new(), "no column for"),
        ("\u{0}\u{1}".to_owned(), "no column for"),
    ] {
        let refused = books.with(&content, "").await;
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{says}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    // The same line again is the same.
    books.with(&format!("{good}{first}\n"), "").await.json(0);
    assert_eq!(books.run("--balance-transactions nowhere").await.code, 2);
    assert_eq!(books.run("").await.code, 2);
    assert_eq!(books.run("--fetch --balance-transactions list").await.code, 2);
}

#[tokio::test]
async fn stripe_itself_is_asked() {
    let books = Books::create().await;
    let stand_in = StandIn::start(KEY).await.unwrap();
    // More than a page, newest first, as Stripe lists them.
    stand_in.put_all((0..250).map(transaction));
    let ask = async |options: &str, code: i32| {
        let mut settings = books.journal.settings();
        settings.extend([("STRIPE_API_BASE", stand_in.base_url()), ("STRIPE_API_KEY", KEY.to_owned())]);
        let mut command = program(settings, books.journal.directory());
        command.args(["ledger", "reconcile", "--fetch", "--json"]).args(options.split_whitespace());
        finish(command).await.json(code)
    };
    let report = ask("", 1).await;
    let (matched, missing_here, missing_there, different) = shape(&report);
    assert_eq!((matched, missing_here.len(), missing_there, different), (40, 210, vec![], vec![]));
    let report = ask("--since 2026-09-01T10:00:00Z --until 2026-09-02T15:59:59Z", 0).await;
    assert_eq!(shape(&report).0, 30);
    let without_key = books.run("--fetch").await;
    assert_eq!(without_key.code, 3);
    assert!(without_key.stderr.contains("FANLEDGER_STRIPE_API_KEY"), "{}", without_key.stderr);
}
