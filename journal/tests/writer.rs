//! The writer: batches, neighbours, callers that go away, Postgres that goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use fanledger_journal::append::{AppendError, BATCH_BYTES_MAX, Guard, IdempotencyKey, Outcome};
use fanledger_journal::event::Position;
use fanledger_journal::writer::{Writer, WriterOptions};
use support::{Journal, appended, at, command, event, stream};

/// Holds the journal's lock until it is dropped, so that commands gather.
async fn hold_lock(journal: &Journal) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut holding = journal.admin.begin().await.unwrap();
    sqlx::query("SELECT FROM journal.lock FOR UPDATE").execute(&mut *holding).await.unwrap();
    holding
}

/// Waits until so many backends wait for a lock.
async fn waiting(journal: &Journal, backends: i64) {
    let condition = async {
        loop {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&journal.admin)
            .await
            .unwrap();
            if waiting >= backends {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), condition).await.expect("the writers wait for the lock");
}

/// A peer that vanished without a word answers nothing and breaks nothing: it must not be waited for without end.
#[tokio::test]
async fn a_call_that_is_not_answered_is_given_up_and_the_next_one_gets_a_connection() {
    let journal = Journal::start().await;
    let url = journal.database.url_for("fanledger_command");
    let call_timeout = Duration::from_millis(300);
    let writer = Writer::start(WriterOptions { call_timeout, ..WriterOptions::new(url) }).await.unwrap();
    let holding = hold_lock(&journal).await;
    let given_up = writer.append(command("evt_1", 0, 1)).await;
    assert!(matches!(given_up, Err(AppendError::Unavailable { may_have_committed: true, .. })), "{given_up:?}");
    holding.rollback().await.unwrap();
    // Whether the first was appended after all is not known, so the next is of another stream.
    appended(writer.append(command("evt_2", 0, 1)).await.unwrap());
    writer.shutdown().await;
}

#[tokio::test]
async fn what_waits_goes_together_and_a_neighbour_s_fault_is_its_own() {
    let journal = Journal::start().await;
    appended(journal.writer.append(command("evt_old", 0, 1)).await.unwrap());
    let holding = hold_lock(&journal).await;
    // Occupies one connection; the other joins it where many wait.
    let first: Vec<_> = (0..2)
        .map(|n| {
            let writer = journal.writer.clone();
            tokio::spawn(async move { writer.append(command(&format!("evt_first_{n}"), 0, 1)).await })
        })
        .collect();
    waiting(&journal, 1).await;
    let mut bad_payload = command("evt_bad", 0, 1);
    bad_payload.events[0].payload = "{".into();
    let mut bad_type = command("evt_type", 0, 1);
    bad_type.stream.aggregate_type = "unheard_of".into();
    let mut commands = vec![bad_payload, bad_type, command("evt_old", 0, 1)];
    commands.extend((0..140).map(|n| command(&format!("evt_{n}"), 0, 1)));
    let tasks: Vec<_> = commands
        .into_iter()
        .map(|command| {
            let writer = journal.writer.clone();
            tokio::spawn(async move { writer.append(command).await })
        })
        .collect();
    waiting(&journal, 2).await;
    holding.rollback().await.unwrap();
    for task in first {
        appended(task.await.unwrap().unwrap());
    }
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    assert!(matches!(results[0], Err(AppendError::Form(_))), "{:?}", results[0]);
    assert!(matches!(results[1], Err(AppendError::StreamType { .. })), "{:?}", results[1]);
    assert!(matches!(results[2], Ok(Outcome::Conflict { actual: 1, .. })), "{:?}", results[2]);
    let mut positions: Vec<u64> = results.into_iter().skip(3).map(|result| appended(result.unwrap()).0).collect();
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(positions.len(), 140);
    let (events, batches): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM journal.events), (SELECT count(*) FROM journal.batches)")
            .fetch_one(&journal.admin)
            .await
            .unwrap();
    assert_eq!(events, 143);
    assert!(batches < 40, "{batches} batches for 143 commands");
}

#[tokio::test]
async fn commands_that_would_meet_in_a_batch_are_held_back_and_each_answered() {
    let journal = Journal::start().await;
    let holding = hold_lock(&journal).await;
    let mut commands = Vec::new();
    for n in 0..20_u8 {
        // All write one stream, or guard it, or share a key: no two of a kind may go together.
        let mut keyed = command(&format!("evt_keyed_{n}"), 0, 1);
        keyed.key = Some(IdempotencyKey { key: [9; 32], request: [9; 32] });
        let mut guarding = command(&format!("evt_guarding_{n}"), 0, 1);
        guarding.guards = vec![Guard { stream: stream("evt_same"), sequence: 0 }];
        commands.extend([command("evt_same", 0, 1), keyed, guarding]);
    }
    let tasks: Vec<_> = commands
        .into_iter()
        .map(|command| {
            let writer = journal.writer.clone();
            tokio::spawn(async move { writer.append(command).await })
        })
        .collect();
    waiting(&journal, 1).await;
    holding.rollback().await.unwrap();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap().unwrap());
    }
    let count =
        |offset: usize, is: fn(&Outcome) -> bool| outcomes.iter().skip(offset).step_by(3).filter(|o| is(o)).count();
    let is_appended: fn(&Outcome) -> bool = |o| matches!(o, Outcome::Appended { .. });
    assert_eq!(count(0, is_appended), 1, "one of those that write the stream");
    assert_eq!(count(0, |o| matches!(o, Outcome::Conflict { actual: 1, .. })), 19);
    assert_eq!(count(1, is_appended), 1, "one of those that share the key");
    assert_eq!(count(1, |o| matches!(o, Outcome::Duplicate { .. })), 19);
    assert_eq!(count(2, |o| matches!(o, Outcome::Appended { .. } | Outcome::Conflict { actual: 1, .. })), 20);
}

#[tokio::test]
async fn a_caller_that_goes_away_loses_nothing() {
    let journal = Journal::start().await;
    let holding = hold_lock(&journal).await;
    let writer = journal.writer.clone();
    let caller = tokio::spawn(async move { writer.append(command("evt_gone", 0, 1)).await });
    waiting(&journal, 1).await;
    caller.abort();
    holding.rollback().await.unwrap();
    // What comes after is answered, and finds the abandoned command in the journal or before it.
    journal.writer.append(command("evt_next", 0, 1)).await.unwrap();
    journal.writer.shutdown().await;
    assert_eq!(journal.reader.last_sequence(&stream("evt_gone")).await.unwrap(), 1);
}

#[tokio::test]
async fn a_command_too_large_for_any_batch_is_refused_and_a_large_one_goes_alone() {
    let journal = Journal::start().await;
    let mut large = command("evt_large", 0, 0);
    large.events = vec![event(format!("\"{}\"", "x".repeat(BATCH_BYTES_MAX)))];
    assert!(matches!(journal.writer.append(large.clone()).await, Err(AppendError::TooLarge { events: 1, .. })));
    assert!(matches!(
        journal.writer.append(command("evt_many", 0, 5000)).await,
        Err(AppendError::TooLarge { events: 5000, .. })
    ));
    assert!(matches!(journal.writer.append(command("evt_none", 0, 0)).await, Err(AppendError::Malformed)));
    let tasks: Vec<_> = (0..6)
        .map(|n| {
            let mut command = command(&format!("evt_{n}"), 0, 0);
            command.events = vec![event(format!("\"{}\"", "x".repeat(BATCH_BYTES_MAX - 1000)))];
            let writer = journal.writer.clone();
            tokio::spawn(async move { writer.append(command).await })
        })
        .collect();
    for task in tasks {
        appended(task.await.unwrap().unwrap());
    }
    // Reading is bounded in bytes too, but always goes on.
    let page = journal.reader.after(Position::START, 100, 1).await.unwrap();
    assert_eq!(page.len(), 1);
}

#[tokio::test]
async fn when_postgres_goes_away_callers_learn_it_and_the_writer_comes_back() {
    let journal = Journal::start().await;
    let holding = hold_lock(&journal).await;
    let writer = journal.writer.clone();
    let caller = tokio::spawn(async move { writer.append(command("evt_1", 0, 1)).await });
    waiting(&journal, 1).await;
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'fanledger_command' AND wait_event_type = 'Lock' AND datname = current_database()")
        .execute(&journal.admin)
        .await
        .unwrap();
    let lost = caller.await.unwrap();
    assert!(matches!(lost, Err(AppendError::Unavailable { may_have_committed: true, .. })), "{lost:?}");
    holding.rollback().await.unwrap();
    // Trying again is safe, whichever connection takes it.
    for _ in 0..3 {
        match journal.writer.append(command("evt_1", 0, 1)).await {
            Ok(Outcome::Appended { .. } | Outcome::Conflict { actual: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(journal.reader.head().await.unwrap().position, Position::new(1));
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_a_refusal_that_committed_nothing() {
    let journal = Journal::start().await;
    sqlx::raw_sql("DO $$ BEGIN EXECUTE format('ALTER ROLE fanledger_command IN DATABASE %I SET lock_timeout = ''100ms''', current_database()); END $$")
        .execute(&journal.admin)
        .await
        .unwrap();
    let writer = journal.writer().await;
    let holding = hold_lock(&journal).await;
    let refused = writer.append(command("evt_1", 0, 1)).await;
    assert!(matches!(refused, Err(AppendError::Unavailable { may_have_committed: false, .. })), "{refused:?}");
    holding.rollback().await.unwrap();
    assert_eq!(writer.append(command("evt_1", 0, 1)).await.unwrap(), at(1, 1));
}

#[tokio::test]
async fn a_warning_with_the_answer_is_never_a_success() {
    let journal = Journal::start().await;
    // Stands for "canceling wait for synchronous replication", which arrives the same way.
    sqlx::raw_sql(
        "CREATE FUNCTION public.warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'cut short'; RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON journal.batches DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.warn()",
    )
    .execute(&journal.admin)
    .await
    .unwrap();
    let warned = journal.writer.append(command("evt_1", 0, 1)).await;
    assert!(matches!(&warned, Err(AppendError::NotDurable { warning }) if warning.contains("cut short")), "{warned:?}");
    sqlx::raw_sql("DROP TRIGGER warn ON journal.batches").execute(&journal.admin).await.unwrap();
    assert!(matches!(journal.writer.append(command("evt_1", 0, 1)).await, Ok(Outcome::Conflict { actual: 1, .. })));
}

#[tokio::test]
async fn a_writer_that_is_shut_down_answers_what_it_took_and_takes_no_more() {
    let journal = Journal::start().await;
    let holding = hold_lock(&journal).await;
    let tasks: Vec<_> = (0..10)
        .map(|n| {
            let writer = journal.writer.clone();
            tokio::spawn(async move { writer.append(command(&format!("evt_{n}"), 0, 1)).await })
        })
        .collect();
    waiting(&journal, 1).await;
    let closing = journal.writer.clone();
    let shutdown = tokio::spawn(async move { closing.shutdown().await });
    holding.rollback().await.unwrap();
    shutdown.await.unwrap();
    let mut taken = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(Outcome::Appended { .. }) => taken += 1,
            Err(AppendError::Closed) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(journal.reader.head().await.unwrap().position, Position::new(taken));
    assert!(matches!(journal.writer.append(command("evt_late", 0, 1)).await, Err(AppendError::Closed)));
}

#[tokio::test]
async fn the_relay_is_woken_by_what_was_appended() {
    let journal = Journal::start().await;
    let mut appended = journal.writer.appended();
    journal.writer.append(command("evt_1", 0, 3)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), appended.wait_for(|position| position.get() == 3))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told_at_start() {
    let started = Writer::start(WriterOptions::new("postgres://nobody:x@127.0.0.1:1/none")).await;
    assert!(started.is_err());
}
