//! Creators' statements of a history that came by webhooks: every figure is the sum of the entries behind it, every closing balance
//! what the accounts hold; a closed month stays as it was whatever comes late; built anew they are the same.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::collections::{BTreeMap, BTreeSet};

use e2e::platform::Platform;
use fanledger_devkit::history;
use fanledger_domain::account::{Account, Bucket};
use fanledger_domain::entry::StatementLine;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::id::CreatorId;
use fanledger_domain::period::Month;
use fanledger_gateway::read::{self, ActivityFilter, AsOf, Asked, By, CreatorSpan, ReadError};
use fanledger_gateway_api::{CreatorStatement, MinorNumber};
use fanledger_journal::database::Role;
use serde_json::{Value, json};
use sqlx::PgPool;

const MONTHS: [&str; 5] = ["2026-01", "2026-02", "2026-03", "2026-04", "2026-05"];
const FEBRUARY_BEGINS: i64 = 1_769_904_000;

/// By creator and month; the whole has no month.
type Statements = BTreeMap<(CreatorId, Option<&'static str>), CreatorStatement<MinorNumber>>;

async fn creators(pool: &PgPool) -> BTreeSet<CreatorId> {
    let listed = read::creators::<MinorNumber>(pool, None, 500).await.unwrap().value;
    assert!(listed.next.is_none());
    listed.items.iter().map(|item| item.creator.parse().unwrap()).collect()
}

async fn span(pool: &PgPool, month: Option<&str>) -> CreatorSpan {
    let asked = match month {
        Some(month) => Asked::Period(month.parse::<Month>().unwrap(), None),
        None => Asked::AsOf(AsOf::Latest, By::Effective),
    };
    CreatorSpan::resolve(pool, None, asked).await.unwrap()
}

async fn statements(pool: &PgPool) -> Statements {
    let mut statements = Statements::new();
    for creator in creators(pool).await {
        for month in MONTHS.map(Some).into_iter().chain([None]) {
            let answer = read::creator_statement::<MinorNumber>(pool, &creator, span(pool, month).await, None).await;
            match answer {
                Ok(read) => drop(statements.insert((creator.clone(), month), read.value)),
                // Their first entry is of a later month.
                Err(ReadError::BeforeFirstEntry { .. }) => assert!(month.is_some()),
                Err(error) => panic!("{creator} {month:?}: {error}"),
            }
        }
    }
    statements
}

/// Figures that were followed to their entries.
async fn check(pool: &PgPool, statements: &Statements) -> usize {
    let mut figures = 0;
    let mut closed_with: BTreeMap<(&CreatorId, &str), i128> = BTreeMap::new();
    for ((creator, month), statement) in statements.iter().filter(|((_, month), _)| month.is_some()) {
        figures += entries_behind(pool, creator, *month, statement).await;
        // A month begins with what the one before ended with.
        for currency in &statement.currencies {
            let before = closed_with.insert((creator, &currency.currency), currency.closing_minor.0).unwrap_or(0);
            assert_eq!(currency.opening_minor.0, before, "{creator} {month:?}");
        }
    }
    for ((creator, month), statement) in statements.iter().filter(|((_, month), _)| month.is_none()) {
        figures += entries_behind(pool, creator, *month, statement).await;
        accounts_behind(pool, creator, statement).await;
    }
    figures
}

async fn entries_behind(
    pool: &PgPool,
    creator: &CreatorId,
    month: Option<&str>,
    statement: &CreatorStatement<MinorNumber>,
) -> usize {
    let span = span(pool, month).await;
    let mut figures = 0;
    for currency in &statement.currencies {
        for line in &currency.lines {
            let kinds = line.kinds.iter().map(|kind| (Some(kind.kind.as_deref()), kind.amount_minor.0, kind.entries));
            for (kind, amount, entries) in [(None, line.amount_minor.0, line.entries)].into_iter().chain(kinds) {
                let filter = ActivityFilter {
                    line: StatementLine::from_text(&line.line),
                    kind: kind.map(|kind| kind.map(|kind| PaymentKind::from_text(kind).unwrap())),
                    currency: Some(currency.currency.parse().unwrap()),
                };
                let behind = read::creator_activity::<MinorNumber>(pool, creator, span, filter, None, 500).await;
                let behind = behind.unwrap().value.items;
                let sum: i128 = behind.iter().map(|item| item.amount_minor.0).sum();
                let ids: BTreeSet<&str> = behind.iter().map(|item| item.entry_id.as_str()).collect();
                assert_eq!((sum, ids.len() as u64), (amount, entries), "{creator} {month:?} {filter:?}");
                figures += 1;
            }
        }
    }
    figures
}

/// What the statement says is where, is there.
async fn accounts_behind(pool: &PgPool, creator: &CreatorId, statement: &CreatorStatement<MinorNumber>) {
    for currency in &statement.currencies {
        let closing = &currency.closing;
        for (account, shown) in [
            (Account::Creator(creator.clone(), Bucket::Pending), -closing.pending_minor.0),
            (Account::Creator(creator.clone(), Bucket::Available), -closing.available_minor.0),
            (Account::Creator(creator.clone(), Bucket::Held), -closing.held_minor.0),
            (Account::CreatorReceivable(creator.clone()), closing.receivable_minor.0),
        ] {
            let balances = match read::account::<MinorNumber>(pool, &account, AsOf::Latest, By::Effective).await {
                Ok(read) => read.value.currencies,
                Err(ReadError::UnknownAccount(_)) => Vec::new(),
                Err(error) => panic!("{account}: {error}"),
            };
            let balance = balances.iter().find(|balance| balance.currency == currency.currency);
            assert_eq!(balance.map_or(0, |balance| balance.balance_minor.0), shown, "{account}");
        }
    }
}

/// Of a month, without what it was asked at.
fn of_month(statements: &Statements, month: &str) -> BTreeMap<CreatorId, Value> {
    let of = statements.iter().filter(|((_, of), _)| *of == Some(month));
    of.map(|((creator, _), statement)| (creator.clone(), json!(statement.currencies))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_of_every_statement_leads_to_entries_that_add_up_to_it() {
    let history =
        (1..).map(|seed| history::random(seed, 100)).find(|history| history.events.iter().any(pays_a_creator));
    let history = history.unwrap();
    let platform = Platform::start(&history.balance_transactions).await;
    let pool = platform.site.pool(Role::Gateway).await;
    // What returned money comes late, and so do all webhooks of February and later.
    let (early, late): (Vec<Value>, Vec<Value>) = history.events.into_iter().partition(|event| {
        let kind = event["type"].as_str().unwrap();
        let returns = kind.contains("refund") || kind.contains("dispute");
        !returns && event["created"].as_i64().unwrap() < FEBRUARY_BEGINS
    });
    platform.receive(&early).await;
    let before = statements(&pool).await;
    check(&pool, &before).await;
    let closed = platform.as_finance("ada", &["ledger", "close", "2026-01", "--json"]).await;
    assert_eq!(closed.code, 0, "{}", closed.stderr);
    platform.site.read(platform.site.head().await).await;

    platform.receive(&late).await;
    let after = statements(&pool).await;
    let figures = check(&pool, &after).await;
    let january = of_month(&after, "2026-01");
    let known = of_month(&before, "2026-01");
    assert!(!known.is_empty());
    for (creator, statement) in &january {
        // Of whom nothing was known then, nothing is shown.
        assert_eq!(
            statement,
            known.get(creator).unwrap_or(&json!([])),
            "January of {creator} changed after it was closed"
        );
    }
    let entries = |line: &str| -> u64 {
        let lines = after.values().flat_map(|statement| &statement.currencies).flat_map(|currency| &currency.lines);
        lines.filter(|of| of.line == line).map(|of| of.entries).sum()
    };
    for named in ["sales", "platform_fees", "refunds", "disputes", "payouts"] {
        assert!(entries(named) > 0, "no {named} in this history");
    }
    assert_eq!(entries("adjustments"), 0, "an entry does not say what it means");
    println!("{} statements, {figures} figures, each followed to its entries", after.len());

    let rebuilt = platform.site.run("projections rebuild creator_activity --yes").await;
    assert_eq!(rebuilt.code, 0, "{}", rebuilt.stderr);
    assert_eq!(statements(&pool).await, after, "built anew they differ");
    let sold = |currencies: &Value| currencies.as_array().unwrap().iter().any(has_sales);
    let (creator, _) = january.iter().find(|(_, currencies)| sold(currencies)).expect("nothing was sold in January");
    as_people_see_them(&platform, creator).await;
}

/// Whether the sales of a statement's part in one currency come to anything.
fn has_sales(currency: &Value) -> bool {
    let lines = currency["lines"].as_array().unwrap();
    lines.iter().any(|of| of["line"] == "sales" && of["amount_minor"].as_i64() > Some(0))
}

/// A transfer to a creator: most histories have none whose metadata says whose it is.
fn pays_a_creator(event: &Value) -> bool {
    let creator = event["data"]["object"]["metadata"]["creator_id"].as_str();
    event["type"] == "transfer.created" && creator.is_some_and(|creator| creator.parse::<CreatorId>().is_ok())
}

async fn as_people_see_them(platform: &Platform, creator: &CreatorId) {
    let run = async |line: &str| platform.run(line).await;
    let printed = run(&format!("ledger statement {creator} --period 2026-01")).await;
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    for part in ["2026-01 as it was closed", "opening balance", "sales", "platform fees", "closing balance"] {
        assert!(printed.stdout.contains(part), "{part}: {}", printed.stdout);
    }
    let statement = platform.json(&format!("ledger statement {creator} --from 2026-01-01 --to 2026-12-31")).await;
    let currency = statement["currencies"].as_array().unwrap().iter().find(|currency| has_sales(currency)).unwrap();
    let code = currency["currency"].as_str().unwrap();
    let sales = &currency["lines"][0];
    let behind = platform.json(&format!("ledger activity {creator} --line sales --currency {code}")).await;
    let sum: i64 = behind.as_array().unwrap().iter().map(|item| item["amount_minor"].as_i64().unwrap()).sum();
    assert_eq!((&sales["line"], &sales["amount_minor"]), (&json!("sales"), &json!(sum)));
    let listed = run(&format!("ledger activity {creator} --line sales --currency {code}")).await.stdout;
    assert!(listed.trim_end().ends_with(code) && listed.contains("\ntotal "), "{listed}");
    assert!(run("ledger creators").await.stdout.contains(creator.as_str()));
    for (line, said) in [
        ("ledger statement crt_nobody", "no entry names the creator crt_nobody"),
        ("ledger statement nobody", "not a creator id"),
        (&format!("ledger statement {creator} --to 2020-01-01"), "before the first entry"),
        (&format!("ledger statement {creator} --period 2026-01 --by occurred"), "cannot be used with"),
        (&format!("ledger statement {creator} --period 2026-01 --close 2"), "no close 2"),
        (&format!("ledger activity {creator} --line income"), "expected one of sales"),
        (&format!("ledger activity {creator} --kind gift"), "expected subscription"),
    ] {
        let refused = run(line).await;
        assert_eq!(refused.code, 2, "{line}: {}", refused.stdout);
        assert!(refused.stderr.contains(said), "{line}: {}", refused.stderr);
    }
}
