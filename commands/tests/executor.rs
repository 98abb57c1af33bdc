//! Decisions that others get in the way of, and bodies whose key is gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use fanledger_commands::operations::{self, RetranslateFilter};
use fanledger_devkit::history;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::event::{CreatorAttributed, Event, NotTranslatedReason};
use fanledger_domain::facts::Attribution;
use fanledger_domain::ledgered::LedgerCommand;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::database::connect;
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::writer::{Writer, WriterOptions};
use serde_json::json;
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
    let at = fanledger_domain::time::Timestamp::from_unix_seconds(1_770_000_000 + number).unwrap();
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

/// A decision that did not see what was written to the period's stream is held back once, and made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_period_that_moved_on_does_not_stop_a_posting() {
    let pipeline = Pipeline::start(None).await;
    let object = "ch_1".parse().unwrap();
    let learn = |number| LedgerCommand::Learn { facts: vec![attributed(number)], stripe_event: None };
    for number in 0..3_i64 {
        let event = NewEvent {
            event_type: "PeriodNoted".to_owned(),
            event_version: "1".to_owned(),
            payload: json!({}).to_string(),
        };
        let expected = number.cast_unsigned();
        let close = Command::new(StreamId::new("period", "platform"), expected, metadata(), vec![event]);
        let outcome = pipeline.executor.writer().append(close).await.unwrap();
        assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
        let executed = pipeline.executor.execute::<Charge>(&object, learn(number), &metadata()).await.unwrap();
        assert_eq!(executed.events, [attributed(number)]);
    }
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
    let others = Writer::start(WriterOptions::new(pipeline.database.url_for("fanledger_command"))).await.unwrap();
    let event = NewEvent {
        event_type: "PeriodNoted".to_owned(),
        event_version: "1".to_owned(),
        payload: json!({}).to_string(),
    };
    let close = Command::new(StreamId::new("period", "platform"), 0, metadata(), vec![event]);
    let close = tokio::spawn(async move { others.append(close).await });
    waiting_for_a_lock(&superuser, 1).await;

    let executor = pipeline.executor.clone();
    let posting = tokio::spawn(async move {
        let learn = LedgerCommand::Learn { facts: vec![attributed(1)], stripe_event: None };
        executor.execute::<Charge>(&"ch_1".parse().unwrap(), learn, &metadata()).await
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
    assert!(matches!(close.await.unwrap().unwrap(), Outcome::Appended { .. }));
    assert_eq!(posting.await.unwrap().unwrap().events, [attributed(1)], "decided anew, and appended");
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
