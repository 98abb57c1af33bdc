//! Decisions that others get in the way of, and bodies whose key is gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use fanledger_commands::executor::{ActError, Executed, Executor};
use fanledger_commands::operations::{self, RetranslateFilter};
use fanledger_commands::periods;
use fanledger_devkit::history;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::event::{ChargeObserved, CreatorAttributed, Event, NotTranslatedReason};
use fanledger_domain::facts::{Attribution, ChargeSnapshot, ChargeStatus, EventStamp, Offer};
use fanledger_domain::id::StripeId;
use fanledger_domain::ledgered::LedgerCommand;
use fanledger_domain::period::{Month, PeriodCommand};
use fanledger_domain::time::Timestamp;
use fanledger_journal::database::connect;
use fanledger_journal::event::Metadata;
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::PgPool;
use support::Pipeline;

fn metadata() -> Metadata {
    Metadata { actor: Some("system:test".to_owned()), ..Metadata::default() }
}

/// Each a fact of its own, so that each must be appended.
fn attributed(number: i64) -> Event {
    let attribution = Attribution {
        creator: format!("crt_{number}").parse().unwrap(),
        fan: None,
        kind: None,
        share: None,
        tax_minor: None,
        tax_jurisdiction: None,
    };
    let at = Timestamp::from_unix_seconds(1_770_000_000 + number).unwrap();
    CreatorAttributed { at, by: None, attribution, reason: "a test".to_owned() }.into()
}

/// Everybody writes one stream: each decides anew until it was first once, and nothing is lost or written twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_came_second_is_made_anew() {
    const WRITERS: i64 = 12;
    let pipeline = Pipeline::start(None).await;
    let object = "ch_1".parse().unwrap();
    let metadata = metadata();
    let learn = |number| {
        let command = LedgerCommand::Learn { facts: vec![attributed(number)], stripe_event: None };
        pipeline.executor.execute::<Charge>(&object, command, &metadata)
    };
    // Finance's last word stands, so facts come in the order in which they were said.
    learn(WRITERS).await.unwrap();
    let mut late = 0;
    for executed in futures::future::join_all((0..WRITERS).map(learn)).await {
        late += executed.unwrap().events.len();
    }
    assert_eq!(late, 0, "said before what is known");
    let said: Vec<_> = futures::future::join_all((WRITERS + 1..2 * WRITERS).map(learn)).await;
    let appended: usize = said.into_iter().map(|executed| executed.unwrap().events.len()).sum();
    let charge = pipeline.executor.load::<Charge>(&object).await.unwrap();
    assert_eq!(charge.sequence(), 1 + appended as u64);
    assert!(appended >= 1);
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn close(period: &str) -> PeriodCommand {
    PeriodCommand::Close { period: month(period), by: "ada".parse().unwrap() }
}

fn reopen(period: &str) -> PeriodCommand {
    PeriodCommand::Reopen { period: month(period), by: "bel".parse().unwrap(), reason: "a test".to_owned() }
}

/// Far from any of the months here.
fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

/// A charge of its own number, captured at the start of 2026-02-02; it posts one entry.
fn captured(number: usize) -> (StripeId, LedgerCommand) {
    let id: StripeId = format!("ch_{number}").parse().unwrap();
    let fact = ChargeObserved {
        stamp: EventStamp { created: now(), event: format!("evt_{number}").parse().unwrap() },
        charge: ChargeSnapshot {
            id: id.clone(),
            created: "2026-02-02T00:00:00Z".parse().unwrap(),
            currency: "usd".parse().unwrap(),
            amount: 1000,
            amount_captured: 1000,
            status: ChargeStatus::Succeeded,
            captured: true,
            payment_intent: None,
            invoice: None,
            balance_transaction: None,
            failure_balance_transaction: None,
            offer: Offer::Silent,
        },
    };
    (id, LedgerCommand::Learn { facts: vec![fact.into()], stripe_event: None })
}

/// When the entry of a captured charge counts.
fn effective_at(executed: &Executed) -> Timestamp {
    let [_, Event::EntryPosted(entry)] = executed.events.as_slice() else { panic!("{executed:?}") };
    assert_eq!(entry.occurred_at, "2026-02-02T00:00:00Z".parse().unwrap());
    entry.effective_at
}

/// A decision that did not see the last close is held back once, and made anew with the date that is open now.
#[tokio::test(flavor = "multi_thread")]
async fn a_period_that_moved_on_moves_the_dates_of_what_follows() {
    let pipeline = Pipeline::start(None).await;
    let post = async |number| {
        let (id, command) = captured(number);
        effective_at(&pipeline.executor.execute::<Charge>(&id, command, &metadata()).await.unwrap())
    };
    let occurred = month("2026-02").start().unwrap();
    assert!(post(0).await > occurred);
    // By another process, whose closes this one learns of by their conflict.
    let other = Executor::new(
        connect(&pipeline.database.url_for("fanledger_command"), 1).await.unwrap(),
        Writer::start(WriterOptions::new(pipeline.database.url_for("fanledger_command"))).await.unwrap(),
    );
    for (number, period) in [(1, "2026-02"), (2, "2026-03"), (3, "2026-04")] {
        periods::act(&other, close(period), now(), &metadata()).await.unwrap();
        assert_eq!(post(number).await, month(period).end().unwrap());
    }
    periods::act(&other, reopen("2026-04"), now(), &metadata()).await.unwrap();
    assert_eq!(post(4).await, month("2026-04").start().unwrap());
    // A fact that posts nothing is not held up either.
    let learn = LedgerCommand::Learn { facts: vec![attributed(1)], stripe_event: None };
    let executed = pipeline.executor.execute::<Charge>(&"ch_new".parse().unwrap(), learn, &metadata()).await.unwrap();
    assert_eq!(executed.events, [attributed(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_period_refuses_is_recorded_nowhere() {
    let pipeline = Pipeline::start(None).await;
    periods::act(&pipeline.executor, close("2026-02"), now(), &metadata()).await.unwrap();
    let before = pipeline.events().await.len();
    for (command, at) in [
        (close("2026-02"), now()),
        (close("2026-04"), now()),
        (close("2026-03"), month("2026-03").start().unwrap()),
        (reopen("2026-01"), now()),
    ] {
        let refused = periods::act(&pipeline.executor, command, at, &metadata()).await;
        assert!(matches!(refused, Err(ActError::Refused(_))), "{refused:?}");
    }
    assert_eq!(pipeline.events().await.len(), before);
}

/// Closes and postings race, in two processes. Whoever was first: nothing that is recorded after a close counts before the
/// instant that it opened, and every charge is posted once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_recorded_after_a_close_counts_inside_what_it_closed() {
    const CHARGES: usize = 60;
    let pipeline = Pipeline::start(None).await;
    let other = Executor::new(
        connect(&pipeline.database.url_for("fanledger_command"), 2).await.unwrap(),
        Writer::start(WriterOptions::new(pipeline.database.url_for("fanledger_command"))).await.unwrap(),
    );
    let closes = async {
        for number in 0..8 {
            let period = format!("2026-{:02}", 2 + number);
            periods::act(&other, close(&period), now(), &metadata()).await.unwrap();
            if number % 3 == 2 {
                periods::act(&other, reopen(&period), now(), &metadata()).await.unwrap();
                periods::act(&other, close(&period), now(), &metadata()).await.unwrap();
            }
        }
    };
    let posts = futures::future::join_all((0..CHARGES).map(async |number| {
        let (id, command) = captured(number);
        let executor = if number % 2 == 0 { &pipeline.executor } else { &other };
        executor.execute::<Charge>(&id, command, &metadata()).await.unwrap();
    }));
    tokio::join!(closes, posts);

    let mut first_open = None;
    let mut posted = 0;
    for (_, event) in pipeline.events().await {
        match event {
            Event::PeriodClosed(closed) => first_open = Some(closed.first_open),
            Event::PeriodReopened(reopened) => first_open = reopened.first_open,
            Event::EntryPosted(entry) => {
                posted += 1;
                assert_eq!(
                    entry.effective_at,
                    first_open.map_or(entry.occurred_at, |open| open.max(entry.occurred_at))
                );
            }
            _ => {}
        }
    }
    assert_eq!(posted, CHARGES);
}

/// A close that is committed between a decision and its append holds that append back: the guard was sent with it.
///
/// The row lock of the journal is handed on in the order of asking. So the close, the posting that was decided before it and
/// a witness queue up behind a lock that the test holds; when it lets go, the witness comes after the posting's first try.
#[tokio::test(flavor = "multi_thread")]
async fn a_posting_that_was_decided_before_a_close_is_not_appended_after_it() {
    const LOCK: &str = "SELECT FROM journal.lock FOR UPDATE";
    let pipeline = Pipeline::start(None).await;
    let superuser = connect(pipeline.database.url(), 3).await.unwrap();
    let mut held = superuser.begin().await.unwrap();
    sqlx::query(LOCK).execute(&mut *held).await.unwrap();

    // Of another process: one writer would hold the second of two such commands back by itself.
    let other = Executor::new(
        connect(&pipeline.database.url_for("fanledger_command"), 1).await.unwrap(),
        Writer::start(WriterOptions::new(pipeline.database.url_for("fanledger_command"))).await.unwrap(),
    );
    let closing = tokio::spawn(async move { periods::act(&other, close("2026-02"), now(), &metadata()).await });
    waiting_for_a_lock(&superuser, 1).await;

    let executor = pipeline.executor.clone();
    let posting = tokio::spawn(async move {
        let (id, command) = captured(1);
        executor.execute::<Charge>(&id, command, &metadata()).await
    });
    waiting_for_a_lock(&superuser, 2).await;

    let witness = tokio::spawn({
        let superuser = superuser.clone();
        async move {
            let mut next = superuser.begin().await.unwrap();
            sqlx::query(LOCK).execute(&mut *next).await.unwrap();
            let there: Vec<String> = sqlx::query_scalar("SELECT aggregate_type FROM journal.events ORDER BY position")
                .fetch_all(&mut *next)
                .await
                .unwrap();
            next.commit().await.unwrap();
            there
        }
    });
    waiting_for_a_lock(&superuser, 3).await;

    held.rollback().await.unwrap();
    assert_eq!(witness.await.unwrap(), ["period"], "the close is there, and the posting is not");
    closing.await.unwrap().unwrap();
    let posted = posting.await.unwrap().unwrap();
    assert_eq!(effective_at(&posted), month("2026-02").end().unwrap(), "decided anew, with the date that is open");
}

/// Until so many sessions of this database wait for a lock.
async fn waiting_for_a_lock(superuser: &PgPool, sessions: i64) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(superuser)
        .await
        .unwrap();
        if waiting == sessions {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{waiting} sessions wait for a lock, not {sessions}");
        tokio::task::yield_now().await;
    }
}

/// An erased body is told as such, changes no book, and its webhook is known all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_reads_as_erased_and_the_books_stay() {
    let history = history::random(31, 6);
    let mut pipeline = Pipeline::start(Some(&history.balance_transactions)).await;
    for event in &history.events {
        pipeline.receive(event).await.unwrap();
    }
    pipeline.settle().await;
    let before = pipeline.trial().await;

    let ids: Vec<&str> = history.events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    let pool = connect(&pipeline.database.url_for("fanledger_command"), 1).await.unwrap();
    let destroyed: i64 = sqlx::query_scalar("SELECT vault.destroy($1, $2)")
        .bind(vec!["stripe_event"; ids.len()])
        .bind(&ids)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(destroyed, i64::try_from(ids.len()).unwrap());

    let filter = RetranslateFilter::default();
    let done = operations::retranslate(&pipeline.executor, &pipeline.reader, &pipeline.vault, false, &filter, |_| {})
        .await
        .unwrap();
    let all = ids.len() as u64;
    assert_eq!((done.events, done.translated, done.not_translated, done.refused), (all, 0, all, 0));
    let reasons = pipeline.events().await.into_iter().filter(
        |(_, event)| matches!(event, Event::StripeEventNotTranslated(not) if not.reason == NotTranslatedReason::Erased),
    );
    assert_eq!(reasons.count(), ids.len());
    pipeline.settle().await;
    assert_eq!(pipeline.trial().await, before);

    let again = pipeline.receive(&history.events[0]).await.unwrap();
    assert!(again.duplicate && !again.conflict, "the digest tells the same body without its key: {again:?}");
}
