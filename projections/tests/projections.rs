//! Every projection over a real journal: what rows there are, that a second delivery changes nothing, that where batches end
//! does not matter, and that what is built anew is the same.

#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use fanledger_devkit::TestDatabase;
use fanledger_domain::entry::{Activity, Cause, EntryPosted, FactReference, Posting, Side, StatementLine};
use fanledger_domain::event::{
    BalanceTransactionObserved, CreatorAttributed, Event, NotTranslatedReason, PayoutObserved, RefundObserved,
    StripeEventBodyDiffered, StripeEventNotTranslated, StripeEventOpened, StripeEventReceived, TransferObserved,
};
use fanledger_domain::facts::{
    Attribution, BalanceTransaction, Category, ConnectedAccountSnapshot, EventStamp, Offer, PaymentKind,
    PayoutSnapshot, PayoutStatus, RefundSnapshot, RefundStatus, TransferSnapshot,
};
use fanledger_domain::id::{CreatorId, StripeId, Subject};
use fanledger_domain::manual_entry::{ManualEntryApproved, ManualEntryProposed, ManualEntryRejected};
use fanledger_domain::money::Money;
use fanledger_domain::payout_run::{
    ConnectedAccountObserved, CreatorPayoutsHeld, CreatorPayoutsResumed, PayoutLine, PayoutRecovery, PayoutRunApproved,
    PayoutRunCanceled, PayoutRunFinished, PayoutRunId, PayoutRunProposed, PayoutRunStopped, PayoutTransferFailed,
    PayoutTransferSent, PayoutWithheld, Recovery, Withheld,
};
use fanledger_domain::period::{Month, PeriodClosed, PeriodReopened};
use fanledger_domain::split::BasisPoints;
use fanledger_domain::time::Timestamp;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database::{self, Role};
use fanledger_journal::event::{Metadata, NewEvent, Position, RecordedEvent, StreamId};
use fanledger_journal::generation::{RebuildOptions, rebuild};
use fanledger_journal::reader::Reader;
use fanledger_journal::runner::{CatchUpError, Effects, Projection, RunnerContext, catch_up};
use fanledger_journal::writer::{Writer, WriterOptions};
use fanledger_projections::{all, balances, stripe_inbox};
use sqlx::{PgPool, Row};

struct Journal {
    database: TestDatabase,
    writer: Writer,
    context: RunnerContext,
    projector: PgPool,
    sequences: BTreeMap<StreamId, u64>,
}

impl Journal {
    async fn create() -> Self {
        let database = TestDatabase::create().await;
        let writer_url = database::role_url(database.url(), Role::Command).unwrap();
        let projector_url = database::role_url(database.url(), Role::Projector).unwrap();
        let pool = database::connect(&projector_url, 2).await.unwrap();
        Self {
            writer: Writer::start(WriterOptions::new(writer_url)).await.unwrap(),
            context: RunnerContext::without_feed(pool.clone()),
            projector: pool,
            database,
            sequences: BTreeMap::new(),
        }
    }

    /// Appends one command and answers where its first event is.
    async fn append(&mut self, stream: StreamId, because: Option<&str>, events: Vec<Event>) -> Position {
        let last = self.sequences.entry(stream.clone()).or_default();
        let metadata = Metadata { causation_id: because.map(str::to_owned), ..Metadata::default() };
        let new: Vec<NewEvent> = events
            .iter()
            .map(|event| NewEvent {
                event_type: event.type_name().to_owned(),
                event_version: event.version().to_owned(),
                payload: event.to_payload().unwrap(),
            })
            .collect();
        let appended = new.len() as u64;
        match self.writer.append(Command::new(stream, *last, metadata, new)).await.unwrap() {
            Outcome::Appended { first, .. } => {
                *last += appended;
                first
            }
            other => panic!("{other:?}"),
        }
    }

    async fn catch_up(&self) {
        for mut projection in all() {
            catch_up(&self.context, projection.as_mut()).await.unwrap();
        }
    }

    async fn superuser(&self) -> PgPool {
        database::connect(self.database.url(), 1).await.unwrap()
    }
}

/// Every row of every table of a generation, in order.
async fn rows(pool: &PgPool, generation: i32) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for projection in all() {
        let schema = format!("{}_g{generation}", projection.name());
        let tables: Vec<String> = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = $1")
            .bind(&schema)
            .fetch_all(pool)
            .await
            .unwrap();
        assert!(!tables.is_empty(), "{schema}");
        for table in tables {
            let sql = format!("SELECT t::text FROM {schema}.{table} AS t ORDER BY 1");
            found.insert(table, sqlx::query_scalar(&sql).fetch_all(pool).await.unwrap());
        }
    }
    found
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_700_000_000 + seconds).unwrap()
}

fn id(text: &str) -> StripeId {
    text.parse().unwrap()
}

fn posting(account: &str, minor: i64, currency: &str) -> Posting {
    Posting {
        account: account.parse().unwrap(),
        side: if minor > 0 { Side::Debit } else { Side::Credit },
        money: Money::new(minor.abs(), currency.parse().unwrap()),
    }
}

fn entry(object: &str, number: u64, occurred: Timestamp, lines: &[(&str, i64, &str)]) -> Event {
    Event::EntryPosted(EntryPosted {
        entry_id: format!("{object}:{number}:{}", occurred.compact()).parse().unwrap(),
        cause: Cause {
            object: id(object),
            facts: vec![FactReference { event_type: "RefundObserved".to_owned(), sequence: number }],
            stripe_event: Some(id("evt_1")),
            clears: None,
        },
        description: format!("entry {number} of {object}"),
        occurred_at: occurred,
        effective_at: occurred,
        postings: lines.iter().map(|(account, minor, currency)| posting(account, *minor, currency)).collect(),
        activity: Vec::new(),
    })
}

/// The entry, with what it says that it means to creators.
fn saying(entry: Event, lines: &[(&str, StatementLine, Option<PaymentKind>, i64)]) -> Event {
    let Event::EntryPosted(mut entry) = entry else { panic!("an entry") };
    entry.activity = lines
        .iter()
        .map(|(creator, line, kind, minor)| Activity {
            creator: creator.parse().unwrap(),
            line: *line,
            kind: *kind,
            minor: *minor,
            currency: "usd".parse().unwrap(),
        })
        .collect();
    entry.into()
}

fn refund(object: &str, seconds: i64, status: RefundStatus, named: Option<&str>) -> Event {
    Event::RefundObserved(RefundObserved {
        stamp: EventStamp { created: at(seconds), event: id(&format!("evt_{object}_{seconds}")) },
        refund: RefundSnapshot {
            id: id(object),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount: 500,
            status,
            charge: None,
            payment_intent: None,
            balance_transaction: named.map(id),
            failure_balance_transaction: None,
        },
    })
}

fn payout(object: &str, seconds: i64, status: PayoutStatus) -> Event {
    Event::PayoutObserved(PayoutObserved {
        stamp: EventStamp { created: at(seconds), event: id(&format!("evt_{object}_{seconds}")) },
        payout: PayoutSnapshot {
            id: id(object),
            created: at(5),
            currency: "eur".parse().unwrap(),
            amount: 900,
            status,
            balance_transaction: None,
            failure_balance_transaction: None,
        },
    })
}

fn transaction(name: &str, owner: &str, category: Category) -> Event {
    Event::BalanceTransactionObserved(BalanceTransactionObserved {
        owner: id(owner),
        transaction: BalanceTransaction {
            id: id(name),
            created: at(9),
            available_on: at(99),
            currency: "usd".parse().unwrap(),
            amount: -500,
            fee: 0,
            net: -500,
            fee_details: Vec::new(),
            category,
            reported_as: category.as_str().to_owned(),
            source: None,
        },
    })
}

fn received(name: &str) -> Event {
    Event::StripeEventReceived(StripeEventReceived {
        id: id(name),
        event_type: Some("refund.created".to_owned()),
        api_version: Some("2026-10-28.endive".to_owned()),
        created: Some(at(0)),
        livemode: Some(false),
        account: None,
        object: Some(id("re_1")),
        body_digest: "00".to_owned(),
        sealed_body: String::new(),
        flag: None,
    })
}

fn not_translated(name: &str, reason: NotTranslatedReason) -> Event {
    Event::StripeEventNotTranslated(StripeEventNotTranslated {
        id: id(name),
        reason,
        detail: "why".to_owned(),
        translator_version: 1,
    })
}

async fn awaited(pool: &PgPool) -> Vec<(String, String, Option<String>)> {
    sqlx::query("SELECT object, part, balance_transaction FROM read.awaited ORDER BY object, part")
        .fetch_all(pool)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

#[tokio::test]
async fn a_balance_transaction_is_awaited_until_it_comes_whichever_comes_first() {
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let stream = |object: &str| StreamId::new("stripe_refund", object);

    journal.append(stream("re_1"), None, vec![refund("re_1", 1, RefundStatus::Pending, None)]).await;
    journal.append(stream("re_2"), None, vec![refund("re_2", 1, RefundStatus::Succeeded, Some("txn_2"))]).await;
    journal.append(stream("re_3"), None, vec![transaction("txn_3", "re_3", Category::Refund)]).await;
    journal.append(stream("re_4"), None, vec![refund("re_4", 1, RefundStatus::RequiresAction, None)]).await;
    journal.catch_up().await;
    let of =
        |object: &str, part: &str, named: Option<&str>| (object.to_owned(), part.to_owned(), named.map(str::to_owned));
    assert_eq!(awaited(&pool).await, [of("re_1", "movement", None), of("re_2", "movement", Some("txn_2"))]);

    // The named one is of another object, the other of the object itself; the third object comes after its transaction.
    journal.append(stream("re_2"), None, vec![transaction("txn_2", "ch_9", Category::Refund)]).await;
    journal.append(stream("re_1"), None, vec![transaction("txn_1", "re_1", Category::Refund)]).await;
    journal.append(stream("re_3"), None, vec![refund("re_3", 1, RefundStatus::Succeeded, None)]).await;
    journal.catch_up().await;
    assert_eq!(awaited(&pool).await, []);

    // A failure asks for the way back; an older snapshot that comes late changes nothing.
    journal.append(stream("re_1"), None, vec![refund("re_1", 5, RefundStatus::Failed, None)]).await;
    journal.append(stream("re_1"), None, vec![refund("re_1", 2, RefundStatus::Succeeded, None)]).await;
    journal.append(StreamId::new("stripe_payout", "po_1"), None, vec![payout("po_1", 1, PayoutStatus::Failed)]).await;
    journal.catch_up().await;
    assert_eq!(awaited(&pool).await, [of("re_1", "return", None)]);
    journal.append(stream("re_1"), None, vec![transaction("txn_4", "re_1", Category::RefundFailure)]).await;
    journal.catch_up().await;
    assert_eq!(awaited(&pool).await, []);
}

#[tokio::test]
async fn a_balance_transaction_has_one_row_however_often_it_is_seen() {
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let with_net = |name: &str, owner: &str, net: i64| {
        let Event::BalanceTransactionObserved(mut observed) = transaction(name, owner, Category::Refund) else {
            panic!("it is one")
        };
        (observed.transaction.amount, observed.transaction.net) = (net, net);
        Event::BalanceTransactionObserved(observed)
    };
    // Seen in the refund's stream and in the charge's, alike; and another with two amounts, the greater first or last, within a
    // batch or not.
    let refund = StreamId::new("stripe_refund", "re_1");
    let charge = StreamId::new("stripe_charge", "ch_1");
    journal.append(refund.clone(), None, vec![with_net("txn_1", "re_1", -500), with_net("txn_2", "re_1", -5)]).await;
    journal.append(charge.clone(), None, vec![with_net("txn_1", "re_1", -500), with_net("txn_2", "re_1", -7)]).await;
    journal.append(refund.clone(), None, vec![with_net("txn_3", "re_1", -9), with_net("txn_3", "re_1", -8)]).await;
    journal.catch_up().await;
    let all = async || -> Vec<(String, i64, i64)> {
        sqlx::query("SELECT id, net, position FROM read.balance_transactions ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    };
    let of = |name: &str, net: i64, position: i64| (name.to_owned(), net, position);
    assert_eq!(all().await, [of("txn_1", -500, 1), of("txn_2", -5, 2), of("txn_3", -8, 6)]);
    journal.append(charge, None, vec![with_net("txn_2", "re_1", -4), with_net("txn_3", "re_1", -8)]).await;
    journal.catch_up().await;
    assert_eq!(all().await, [of("txn_1", -500, 1), of("txn_2", -4, 7), of("txn_3", -8, 6)]);
}

#[tokio::test]
async fn suspense_holds_what_is_open() {
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let stream = StreamId::new("stripe_charge", "ch_1");
    let open = async || -> Vec<(String, String, i64)> {
        sqlx::query(
            "SELECT account, balance::text, extract(epoch FROM since)::bigint FROM read.suspense ORDER BY account",
        )
        .fetch_all(&pool)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get::<i64, _>(2) - 1_700_000_000))
        .collect()
    };
    let (unattributed, clearing) = ("liabilities:suspense:unattributed", "assets:stripe:clearing");
    let into = |number, seconds, minor: i64| {
        entry("ch_1", number, at(seconds), &[(clearing, minor, "usd"), (unattributed, -minor, "usd")])
    };
    journal.append(stream.clone(), None, vec![into(1, 100, 700), into(2, 50, 300)]).await;
    journal.catch_up().await;
    assert_eq!(open().await, [(unattributed.to_owned(), "-1000".to_owned(), 50)]);
    journal.append(stream.clone(), None, vec![into(3, 100, -1000)]).await;
    journal.catch_up().await;
    assert_eq!(open().await, []);
    // Cleared and come again within one batch: its age is that of what came again.
    journal.append(stream.clone(), None, vec![into(4, 10, 5), into(5, 11, -5), into(6, 200, 9)]).await;
    journal.catch_up().await;
    assert_eq!(open().await, [(unattributed.to_owned(), "-9".to_owned(), 200)]);
    // By hand: what is said to be this object's is gone from the list, and comes again with the reversal.
    let by_hand = |name: &str, clears: &str, seconds, minor: i64| {
        let made = entry(name, 1, at(seconds), &[("income:other", -minor, "usd"), (unattributed, minor, "usd")]);
        let Event::EntryPosted(mut made) = made else { panic!("an entry") };
        made.cause.clears = Some(id(clears));
        (StreamId::new("manual_entry", name), vec![made.into()])
    };
    let (stream, events) = by_hand("mne_1", "ch_1", 300, 9);
    journal.append(stream, None, events).await;
    journal.catch_up().await;
    assert_eq!(open().await, []);
    let (stream, events) = by_hand("mne_2", "ch_1", 400, -9);
    journal.append(stream, None, events).await;
    journal.catch_up().await;
    assert_eq!(open().await, [(unattributed.to_owned(), "-9".to_owned(), 400)]);
    // The lines of suspense say whose it is; those of other accounts, which entry it was.
    let lines: Vec<(String, String)> = sqlx::query_as(
        "SELECT account::text, object::text FROM read.postings WHERE entry_id LIKE 'mne_%' ORDER BY position, line",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let line = |account: &str, object: &str| (account.to_owned(), object.to_owned());
    let of = |name: &str| [line("income:other", name), line(unattributed, "ch_1")];
    assert_eq!(lines, [of("mne_1"), of("mne_2")].concat());
}

#[tokio::test]
async fn the_inbox_counts_what_a_webhook_led_to() {
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let inbox = |name: &str| StreamId::new("stripe_event", name);
    journal.append(inbox("evt_1"), None, vec![received("evt_1")]).await;
    journal.append(inbox("evt_2"), None, vec![received("evt_2")]).await;
    journal.append(inbox("evt_2"), None, vec![not_translated("evt_2", NotTranslatedReason::Untranslatable)]).await;
    let facts = vec![
        refund("re_1", 1, RefundStatus::Pending, None),
        entry("re_1", 1, at(1), &[("assets:bank", 1, "usd"), ("income:other", -1, "usd")]),
    ];
    journal.append(StreamId::new("stripe_refund", "re_1"), Some("evt_1"), facts).await;
    journal
        .append(
            inbox("evt_1"),
            None,
            vec![Event::StripeEventBodyDiffered(StripeEventBodyDiffered {
                id: id("evt_1"),
                body_digest: "01".to_owned(),
            })],
        )
        .await;
    journal.catch_up().await;
    let row = async |name: &str| -> (i64, i64, i64, Option<String>, bool) {
        let row = sqlx::query(
            "SELECT facts, entries, differing_bodies, reason, raised FROM read.stripe_inbox WHERE event_id = $1",
        )
        .bind(name)
        .fetch_one(&pool)
        .await
        .unwrap();
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
    };
    assert_eq!(row("evt_1").await, (1, 1, 1, None, true));
    assert_eq!(row("evt_2").await, (0, 0, 0, Some("untranslatable".to_owned()), true));

    // Facts do not take a refusal back: the same run's other deliveries, or what the webhook brought to yet other objects.
    let fact = vec![refund("re_2", 1, RefundStatus::Pending, None)];
    journal.append(StreamId::new("stripe_refund", "re_2"), Some("evt_2"), fact).await;
    journal.catch_up().await;
    let refused = (1, 0, 0, Some("untranslatable".to_owned()), true);
    assert_eq!(row("evt_2").await, refused);
    // Nor does it that nobody can translate it again.
    journal.append(inbox("evt_2"), None, vec![not_translated("evt_2", NotTranslatedReason::Erased)]).await;
    journal.catch_up().await;
    assert_eq!(row("evt_2").await, refused);
    // Translated again, with nothing refused: nobody need look any more. It has facts, and so it reads.
    let (settled, erased) = (NotTranslatedReason::NoFacts, NotTranslatedReason::Erased);
    journal.append(inbox("evt_2"), None, vec![not_translated("evt_2", settled)]).await;
    journal.catch_up().await;
    assert_eq!(row("evt_2").await, (1, 0, 0, Some("no_facts".to_owned()), false));
    let is_translated: bool = sqlx::query_scalar(
        "SELECT facts_position > coalesce(reason_position, 0) FROM read.stripe_inbox WHERE event_id = 'evt_2'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(is_translated);
    // Refused once more; then, in one batch, translated with nothing refused, and erased.
    journal.append(inbox("evt_2"), None, vec![not_translated("evt_2", NotTranslatedReason::Untranslatable)]).await;
    journal.catch_up().await;
    assert_eq!(row("evt_2").await, refused);
    journal.append(inbox("evt_2"), None, vec![not_translated("evt_2", settled), not_translated("evt_2", erased)]).await;
    journal.catch_up().await;
    assert_eq!(row("evt_2").await, (1, 0, 0, Some("erased".to_owned()), false));
}

#[tokio::test]
async fn an_entry_knows_where_its_facts_are() {
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let stream = StreamId::new("stripe_refund", "re_1");
    journal.append(StreamId::new("stripe_event", "evt_1"), None, vec![received("evt_1")]).await;
    let first = journal
        .append(
            stream,
            Some("evt_1"),
            vec![
                refund("re_1", 1, RefundStatus::Pending, None),
                entry("re_1", 1, at(1), &[("assets:bank", 7, "usd"), ("income:other", -7, "usd")]),
                entry("re_1", 1, at(2), &[("assets:bank", 3, "jpy"), ("income:other", -3, "jpy")]),
            ],
        )
        .await;
    journal.catch_up().await;
    let facts: Vec<i64> =
        sqlx::query_scalar("SELECT (facts -> 0 ->> 'position')::bigint FROM read.entries ORDER BY position")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(facts, [first.as_i64(), first.as_i64()]);
    let lines: Vec<String> =
        sqlx::query_scalar("SELECT format('%s %s %s %s %s', account, side, amount, currency, line) FROM read.postings ORDER BY position, line")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(
        lines,
        [
            "assets:bank debit 7 usd 1",
            "income:other credit 7 usd 2",
            "assets:bank debit 3 jpy 1",
            "income:other credit 3 jpy 2"
        ]
    );
}

#[tokio::test]
async fn what_an_entry_says_is_a_line_and_the_rest_is_an_adjustment() {
    use StatementLine::{PlatformFees, Refunds, Sales};
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let (pending, available) = ("liabilities:creators:crt_1:pending", "liabilities:creators:crt_1:available");
    let (held, receivable) = ("liabilities:creators:crt_1:held", "assets:creators:crt_1:receivable");
    let (clearing, other) = ("assets:stripe:clearing", "liabilities:creators:crt_2:pending");
    let tip = Some(PaymentKind::Tip);
    let entries = vec![
        // A sale whose fee it says, too.
        saying(
            entry(
                "ch_1",
                1,
                at(1),
                &[(clearing, 1000, "usd"), (pending, -800, "usd"), ("income:platform-fees", -200, "usd")],
            ),
            &[("crt_1", Sales, tip, 1000), ("crt_1", PlatformFees, tip, -200)],
        ),
        // It says less than it moves, and it moves two creators' money in two currencies.
        saying(
            entry(
                "ch_1",
                2,
                at(2),
                &[(pending, 300, "usd"), (clearing, -300, "usd"), (clearing, 7, "eur"), (other, -7, "eur")],
            ),
            &[("crt_1", Refunds, tip, -250)],
        ),
        // From one account of theirs to another: no line of a statement, but another balance.
        entry("ch_1", 3, at(3), &[(pending, 500, "usd"), (available, -400, "usd"), (held, -100, "usd")]),
        // What they owe is less that they have.
        entry("ch_1", 4, at(4), &[(receivable, 60, "usd"), (clearing, -60, "usd")]),
        // Nobody's.
        entry("ch_1", 5, at(5), &[(clearing, 60, "usd"), ("income:other", -60, "usd")]),
        // Their share is nothing: there are lines, and no balance.
        saying(
            entry("ch_1", 6, at(6), &[(clearing, 5, "usd"), ("income:platform-fees", -5, "usd")]),
            &[("crt_3", Sales, tip, 5), ("crt_3", PlatformFees, tip, -5)],
        ),
        // It says what it does not move, and what two of its lines say cancels.
        saying(
            entry("ch_1", 7, at(7), &[(pending, 40, "usd"), (pending, -40, "usd")]),
            &[
                ("crt_1", Sales, tip, -40),
                ("crt_1", Sales, None, 30),
                ("crt_1", Refunds, tip, 5),
                ("crt_1", Refunds, tip, -5),
            ],
        ),
    ];
    journal.append(StreamId::new("stripe_charge", "ch_1"), None, entries).await;
    journal.catch_up().await;
    let lines: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', position, item, creator, currency, line, kind, minor) FROM read.creator_activity ORDER BY position, item",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(
        lines,
        [
            "1 1 crt_1 usd sales tip 1000",
            "1 2 crt_1 usd platform_fees tip -200",
            "2 1 crt_1 usd refunds tip -250",
            "2 2 crt_1 usd adjustments -50",
            "2 3 crt_2 eur adjustments 7",
            "4 1 crt_1 usd adjustments -60",
            "6 1 crt_3 usd sales tip 5",
            "6 2 crt_3 usd platform_fees tip -5",
            "7 1 crt_1 usd sales 30",
            "7 2 crt_1 usd sales tip -40",
            "7 3 crt_1 usd adjustments 10",
        ]
    );
    let has: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', creator, currency, pending, available, held, receivable) FROM read.creator_balances ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(has, ["crt_1 usd 0 400 100 60", "crt_2 eur 7 0 0 0", "crt_3 usd 0 0 0 0"]);
}

/// Small and enough: the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64, by Sebastiano Vigna; in the public domain.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn closed(period: &str) -> Event {
    let period: Month = period.parse().unwrap();
    PeriodClosed { period, first_open: period.end().unwrap(), at: at(0), by: "ada".parse().unwrap() }.into()
}

fn reopened(period: &str) -> Event {
    let period: Month = period.parse().unwrap();
    let (first_open, reason) = (Some(period.start().unwrap()), "a test".to_owned());
    PeriodReopened { period, first_open, at: at(1), by: "bel".parse().unwrap(), reason }.into()
}

/// A close and a reopening, each with the chain of the journal where it stands.
#[tokio::test]
async fn what_was_closed_is_kept_with_its_chain() {
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let first =
        journal.append(StreamId::new("period", "platform"), None, vec![closed("2020-01"), reopened("2020-01")]).await;
    journal.catch_up().await;
    let rows: Vec<(i64, String, String, Option<String>, bool)> = sqlx::query_as(
        "SELECT p.position, p.act, format('%s %s', p.period, p.by), p.reason, p.chain = encode(e.chain, 'hex')
         FROM read.periods AS p JOIN journal.events AS e USING (position) ORDER BY p.position",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let row = |position, act: &str, what: &str, reason: Option<&str>| {
        (position, act.to_owned(), what.to_owned(), reason.map(str::to_owned), true)
    };
    let first = first.as_i64();
    let expected =
        [row(first, "closed", "2020-01 ada", None), row(first + 1, "reopened", "2020-01 bel", Some("a test"))];
    assert_eq!(rows, expected);
}

fn usd(minor: i64) -> Money {
    Money::new(minor, "usd".parse().unwrap())
}

fn transfer(object: &str, seconds: i64, reversed: i64) -> Event {
    Event::TransferObserved(TransferObserved {
        stamp: EventStamp { created: at(seconds), event: id(&format!("evt_{object}_{seconds}")) },
        transfer: TransferSnapshot {
            id: id(object),
            created: at(0),
            currency: "usd".parse().unwrap(),
            amount: 500,
            amount_reversed: reversed,
            reversals: Vec::new(),
            destination: Some(id("acct_1")),
            balance_transaction: None,
            offer: Offer::Silent,
        },
    })
}

/// A run of transfers, from the account that it goes to until it is finished or cancelled.
async fn write_payouts(journal: &mut Journal, number: u64) {
    let run = PayoutRunId::new(number).unwrap();
    let creator: CreatorId = format!("crt_{}", number % 3).parse().unwrap();
    let destination = id(&format!("acct_{}", number % 2));
    let now = at(i64::try_from(number).unwrap());
    let by: Subject = "ada".parse().unwrap();
    let account = ConnectedAccountObserved {
        stamp: EventStamp { created: now, event: id(&format!("evt_acct_{number}")) },
        account: ConnectedAccountSnapshot {
            id: destination.clone(),
            creator: Some(creator.clone()),
            transfers_active: number.is_multiple_of(2),
            payouts_enabled: true,
            requirements_due: 1,
            disabled_reason: None,
        },
    };
    journal.append(StreamId::new("stripe_account", destination.as_str()), None, vec![account.into()]).await;

    let reason = "a test".to_owned();
    let who: CreatorId = format!("crt_held_{number}").parse().unwrap();
    let held = CreatorPayoutsHeld { creator: who.clone(), at: now, by: by.clone(), reason: reason.clone() };
    let mut holds = vec![held.into()];
    if number.is_multiple_of(2) {
        let resumed = CreatorPayoutsResumed { creator: who.clone(), at: now, by: by.clone(), reason: reason.clone() };
        holds.push(resumed.into());
    }
    journal.append(StreamId::new("creator_payouts", who.as_str()), None, holds).await;

    let line = |line| PayoutLine { line, creator: creator.clone(), destination: destination.clone(), money: usd(500) };
    let proposed = PayoutRunProposed {
        run,
        as_of_position: number,
        at: now,
        by: by.clone(),
        needs_approval: true,
        paid_alone: vec![usd(7)],
        lines: vec![line(1), line(2)],
        recoveries: vec![PayoutRecovery { creator: creator.clone(), recovery: Recovery::Claimed, money: usd(3) }],
        withheld: vec![PayoutWithheld { creator: creator.clone(), money: usd(4), reason: Withheld::Held }],
        withheld_count: 1,
    };
    let stream = StreamId::new("payout_run", run.to_string());
    journal.append(stream.clone(), None, vec![proposed.into()]).await;
    if number.is_multiple_of(3) {
        let canceled = PayoutRunCanceled { run, at: now, by, reason };
        journal.append(stream, None, vec![canceled.into()]).await;
        return;
    }
    journal.append(stream.clone(), None, vec![PayoutRunApproved { run, at: now, by }.into()]).await;
    let name = format!("tr_{number}");
    let moved = vec![transfer(&name, 1, 0), transfer(&name, 2, 200)];
    journal.append(StreamId::new("stripe_transfer", &name), None, moved).await;
    let sent = PayoutTransferSent { run, line: 1, transfer: id(&name), at: now };
    journal.append(StreamId::new("payout_line", run.line(1)), None, vec![sent.into()]).await;
    let failed = PayoutTransferFailed { run, line: 2, at: now, code: "balance_insufficient".to_owned() };
    journal.append(StreamId::new("payout_line", run.line(2)), None, vec![failed.into()]).await;
    if number % 3 == 1 {
        let stop =
            |at| Event::from(PayoutRunStopped { run, at, by: "bel".parse().unwrap(), reason: "a test".to_owned() });
        journal.append(stream.clone(), None, vec![stop(now), stop(now.plus_days(1))]).await;
    }
    journal.append(stream, None, vec![PayoutRunFinished { run, at: now, sent: 1, failed: 1 }.into()]).await;
}

/// An entry by hand, and what became of it; a webhook that somebody looked into; and somebody's word of whose money something is.
async fn write_acts(journal: &mut Journal, number: u64) {
    let now = at(i64::try_from(number).unwrap());
    let (ada, bel): (Subject, Subject) = ("ada".parse().unwrap(), "bel".parse().unwrap());
    let name = format!("mne_{number}");
    let proposed = ManualEntryProposed {
        id: id(&name),
        description: "interest".to_owned(),
        reason: "a test".to_owned(),
        occurred_at: now,
        reverses: None,
        clears: number.is_multiple_of(2).then(|| id("txn_1")),
        postings: vec![posting("assets:bank", 5, "usd"), posting("income:other", -5, "usd")],
        at: now,
        by: ada.clone(),
        needs_approval: true,
    };
    let mut events = vec![proposed.into()];
    match number % 3 {
        0 => {}
        1 => events.push(ManualEntryApproved { id: id(&name), at: now, by: bel }.into()),
        _ => events.push(ManualEntryRejected { id: id(&name), at: now, by: bel, reason: "a test".to_owned() }.into()),
    }
    journal.append(StreamId::new("manual_entry", &name), None, events).await;

    let webhook = format!("evt_looked_into_{number}");
    let opened = StripeEventOpened { id: id(&webhook), at: now, by: ada, reason: "a test".to_owned() };
    journal.append(StreamId::new("stripe_event", &webhook), None, vec![received(&webhook), Event::from(opened)]).await;

    let is_whole = number.is_multiple_of(2);
    let attribution = Attribution {
        creator: "crt_1".parse().unwrap(),
        fan: is_whole.then(|| "fan_1".parse().unwrap()),
        kind: is_whole.then_some(PaymentKind::Tip),
        share: is_whole.then(|| BasisPoints::new(9000).unwrap()),
        tax_minor: is_whole.then_some(5),
        tax_jurisdiction: is_whole.then(|| "us-ny".parse().unwrap()),
    };
    let by = is_whole.then(|| "ada".parse().unwrap());
    let said = CreatorAttributed { at: now, by, attribution, reason: "a test".to_owned() };
    journal.append(StreamId::new("stripe_charge", format!("ch_said_{number}")), None, vec![said.into()]).await;
}

/// Appends something, and shows some of it to the projections now and then: batches end anywhere.
async fn write_history(journal: &mut Journal, dice: &mut Dice, steps: Range<u64>, is_shown: bool) {
    let accounts = [
        "assets:stripe:clearing",
        "liabilities:suspense:unattributed",
        "liabilities:creators:crt_1:pending",
        "income:platform-fees",
    ];
    for step in steps {
        let object = format!("re_{}", dice.roll(8));
        let stream = StreamId::new("stripe_refund", &object);
        let webhook = format!("evt_{}", dice.roll(12));
        let inbox = StreamId::new("stripe_event", &webhook);
        if step % 30 == 29 {
            let events = vec![closed("2020-01"), reopened("2020-01")];
            journal.append(StreamId::new("period", "platform"), None, events).await;
        }
        if step % 10 == 9 {
            write_payouts(journal, step / 10 + 1).await;
            write_acts(journal, step / 10 + 1).await;
        }
        if !journal.sequences.contains_key(&inbox) {
            journal.append(inbox.clone(), None, vec![received(&webhook)]).await;
        }
        let events = match dice.roll(6) {
            0 => {
                let reason =
                    [NotTranslatedReason::Untranslatable, NotTranslatedReason::NoFacts, NotTranslatedReason::Erased]
                        [usize::try_from(dice.roll(3)).unwrap()];
                journal.append(inbox, None, vec![not_translated(&webhook, reason)]).await;
                continue;
            }
            1 => vec![transaction(
                &format!("txn_{}", dice.roll(20)),
                &object,
                [Category::Refund, Category::RefundFailure][usize::from(dice.roll(3) == 0)],
            )],
            2 => {
                let status = [RefundStatus::Pending, RefundStatus::Succeeded, RefundStatus::Failed]
                    [usize::try_from(dice.roll(3)).unwrap()];
                let named = (dice.roll(2) == 0).then(|| format!("txn_{}", dice.roll(20)));
                vec![refund(&object, i64::try_from(dice.roll(9)).unwrap(), status, named.as_deref())]
            }
            _ => (0..=dice.roll(2))
                .map(|number| {
                    let minor = [300, -300, 100][usize::try_from(dice.roll(3)).unwrap()];
                    let (one, other) = (dice.roll(4), dice.roll(3));
                    let other = if other == one { 3 } else { other };
                    let lines = [
                        (accounts[usize::try_from(one).unwrap()], minor, "usd"),
                        (accounts[usize::try_from(other).unwrap()], -minor, "usd"),
                    ];
                    let occurred = at(i64::try_from(dice.roll(40)).unwrap() * 86_000);
                    let entry = entry(&object, step * 10 + number, occurred, &lines);
                    match dice.roll(3) {
                        0 => entry,
                        1 => saying(entry, &[("crt_1", StatementLine::Sales, Some(PaymentKind::Tip), minor)]),
                        _ => saying(entry, &[("crt_2", StatementLine::Payouts, None, -minor)]),
                    }
                })
                .collect(),
        };
        journal.append(stream, Some(&webhook), events).await;
        if dice.roll(12) == 0 && is_shown {
            journal.catch_up().await;
        }
    }
    if is_shown {
        journal.catch_up().await;
    }
}

/// Delivers a batch and takes it back: what a crash between an apply and the commit of its checkpoint comes to, since rows and
/// checkpoint are of one transaction. (A checkpoint alone cannot go back, and the tables need not bear that: sums would be doubled.)
async fn deliver_and_lose(pool: &PgPool, projection: &mut dyn Projection, batch: &[Arc<RecordedEvent>]) {
    let name = projection.name();
    let wanted: Vec<_> = batch.iter().filter(|event| projection.wants(&event.event_type)).cloned().collect();
    assert!(!wanted.is_empty(), "the last batch has nothing for {name}");
    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql(&format!("SET LOCAL search_path = {name}_g1")).execute(&mut *transaction).await.unwrap();
    projection.apply(&wanted, Effects::Live, &mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn delivered_twice_or_built_anew_the_rows_are_the_same() {
    for seed in 0..2 {
        let mut journal = Journal::create().await;
        let pool = journal.superuser().await;
        let mut dice = Dice(seed);
        write_history(&mut journal, &mut dice, 0..70, true).await;
        let before = rows(&pool, 1).await;
        let reader = Reader::new(pool.clone());
        let head = reader.head().await.unwrap().position;
        write_history(&mut journal, &mut dice, 70..100, false).await;
        let batch: Vec<_> = reader.after(head, 2000, 8 << 20).await.unwrap().into_iter().map(Arc::new).collect();
        let mut projections = all();
        for projection in &mut projections {
            deliver_and_lose(&journal.projector, projection.as_mut(), &batch).await;
        }
        assert_eq!(rows(&pool, 1).await, before, "seed {seed}, what was taken back");
        for projection in &mut projections {
            // To the same projection, which must remember nothing of it either.
            catch_up(&journal.context, projection.as_mut()).await.unwrap();
        }
        let once = rows(&pool, 1).await;
        for (table, rows) in &once {
            // Of so many lines that they are summed up there is another test.
            assert!(!rows.is_empty() || table == "balance_nodes", "seed {seed} has no rows in {table}");
        }

        for mut projection in all() {
            rebuild(&journal.context, projection.as_mut(), &RebuildOptions::unattended()).await.unwrap();
        }
        assert_eq!(rows(&pool, 2).await, once, "seed {seed}, built anew");
    }
}

/// A rebuild of so many events is a load; a runner that was never far behind has applied them in small batches.
#[tokio::test]
async fn what_is_loaded_is_what_was_applied() {
    const COMMANDS: u64 = 60;
    const ENTRIES: u64 = 200;
    let mut journal = Journal::create().await;
    let pool = journal.superuser().await;
    let mut dice = Dice(3);
    let accounts = ["assets:stripe:clearing", "income:platform-fees", "liabilities:suspense:unattributed"];
    for command in 0..COMMANDS {
        let object = format!("ch_{command}");
        let events = (0..ENTRIES)
            .map(|number| {
                let (minor, occurred) =
                    (1 + i64::try_from(dice.roll(500)).unwrap(), i64::try_from(dice.roll(9)).unwrap());
                let creator_id = format!("crt_{}", dice.roll(300));
                let creator = format!("liabilities:creators:{creator_id}:pending");
                let lines = [
                    (accounts[0], 2 * minor, "usd"),
                    (accounts[usize::try_from(1 + dice.roll(2)).unwrap()], -minor, "usd"),
                    (&creator, -minor, "usd"),
                ];
                let entry = entry(&object, number + 1, at(i64::try_from(command).unwrap() * 1000 - occurred), &lines);
                let sold = (creator_id.as_str(), StatementLine::Sales, Some(PaymentKind::Subscription), 2 * minor);
                saying(
                    entry,
                    &[sold, (&creator_id, StatementLine::PlatformFees, Some(PaymentKind::Subscription), -minor)],
                )
            })
            .collect();
        journal.append(StreamId::new("stripe_charge", object), None, events).await;
        // Often enough that the live generation is never far behind.
        if command % 10 == 9 {
            journal.catch_up().await;
        }
    }
    let applied = rows(&pool, 1).await;
    let levels: Vec<i16> = sqlx::query_scalar("SELECT DISTINCT level FROM balances_g1.balance_nodes ORDER BY 1")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(levels, [1, 2], "too few lines for what is to be seen here");
    for mut projection in all() {
        rebuild(&journal.context, projection.as_mut(), &RebuildOptions::unattended()).await.unwrap();
    }
    let loaded = rows(&pool, 2).await;
    for (table, rows) in applied {
        assert!(loaded[&table] == rows, "{table} differs");
    }
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_halts_whoever_needs_it_and_nobody_else() {
    let mut journal = Journal::create().await;
    let stream = StreamId::new("stripe_charge", "ch_1");
    journal
        .append(
            stream.clone(),
            None,
            vec![entry("ch_1", 1, at(1), &[("assets:bank", 7, "usd"), ("income:other", -7, "usd")])],
        )
        .await;
    // The journal holds its sums to be sound, which they are; the account is of a chart that this program does not know.
    let payload = r#"{"entry_id":"x","postings":[{"account":"assets:elsewhere","side":"debit","minor":1,"currency":"usd"},{"account":"assets:bank","side":"credit","minor":1,"currency":"usd"}]}"#;
    let strange =
        NewEvent { event_type: "EntryPosted".to_owned(), event_version: "1".to_owned(), payload: payload.to_owned() };
    journal.writer.append(Command::new(stream, 1, Metadata::default(), vec![strange])).await.unwrap();

    match catch_up(&journal.context, &mut balances::Balances).await {
        Err(CatchUpError::Halted { halt, .. }) => assert_eq!(halt.event.unwrap().position, Position::new(2)),
        other => panic!("{other:?}"),
    }
    assert_eq!(catch_up(&journal.context, &mut stripe_inbox::StripeInbox).await.unwrap(), Position::new(2));
    // What came before it is there.
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM read.balance_totals")
        .fetch_one(&journal.superuser().await)
        .await
        .unwrap();
    assert_eq!(total, 2);
}

#[test]
fn names_are_unique_and_tables_too() {
    let projections = all();
    let mut names: Vec<_> = projections.iter().map(|projection| projection.name()).collect();
    let mut tables: Vec<_> =
        projections.iter().flat_map(|projection| projection.schema().views.iter().copied()).collect();
    for list in [&mut names, &mut tables] {
        let listed = list.len();
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), listed);
    }
}
