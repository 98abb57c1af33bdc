//! `verify` finds whatever a superuser changes behind the guards, and names the first position and the kind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use fanledger_journal::event::Position;
use fanledger_journal::verify::{BooksCheck, DivergenceKind, Progress, Report, SeenEvent, VerifyOptions, verify};
use support::{Journal, appended, command};

async fn verified(
    journal: &Journal,
    options: VerifyOptions,
    books: Option<Box<dyn BooksCheck>>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Report {
    verify(&mut journal.admin.acquire().await.unwrap(), options, books, progress).await.unwrap()
}

async fn check(journal: &Journal, from: Option<u64>, to: Option<u64>) -> Report {
    let options = VerifyOptions { from: from.map(Position::new), to: to.map(Position::new), ..Default::default() };
    verified(journal, options, None, &mut |_| {}).await
}

async fn found(journal: &Journal) -> Option<(u64, DivergenceKind)> {
    check(journal, None, None).await.first_divergence.map(|found| (found.position.get(), found.kind))
}

/// Ten events: batches [1], [2..4], [5], [6..8], [9], [10]; the three-event ones and 9 are of the streams evt_a and evt_b.
async fn ten() -> Journal {
    let journal = Journal::start().await;
    for (id, expected, events) in
        [("evt_1", 0, 1), ("evt_a", 0, 3), ("evt_2", 0, 1), ("evt_b", 0, 3), ("evt_a", 3, 1), ("evt_3", 0, 1)]
    {
        appended(journal.writer.append(command(id, expected, events)).await.unwrap());
    }
    journal
}

#[tokio::test]
async fn an_untouched_journal_is_sound_whole_and_in_part() {
    let empty = Journal::start().await;
    let report = check(&empty, None, None).await;
    assert_eq!((report.events, report.head, &report.first_divergence), (0, Position::START, &None));
    // SHA-256 of nothing.
    assert_eq!(report.root.unwrap().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let journal = ten().await;
    let whole = check(&journal, None, None).await;
    assert_eq!((whole.events, whole.head, &whole.first_divergence), (10, Position::new(10), &None));
    assert!(whole.root.is_some());
    for from in 1..=11 {
        for to in from..=12_u64 {
            let report = check(&journal, Some(from), Some(to)).await;
            assert_eq!(
                (report.first_divergence, report.events),
                (None, (to.min(10) + 1).saturating_sub(from)),
                "{from}..{to}"
            );
            // A part has a root only where it is a journal's beginning.
            assert_eq!(report.root.is_some(), from == 1, "{from}..{to}");
            assert!(to < 10 || from > 1 || report.root == whole.root, "{from}..{to}");
        }
    }
}

#[tokio::test]
async fn whatever_is_changed_behind_the_guards_is_found_where_it_is() {
    use DivergenceKind::{Chain, Content, Gap, Head, Order};
    let cases: &[(&str, u64, DivergenceKind)] = &[
        ("UPDATE journal.events SET payload = '{}' WHERE position = 3", 3, Content),
        ("UPDATE journal.events SET payload = (payload::text || ' ')::json WHERE position = 10", 10, Content),
        ("UPDATE journal.events SET metadata = '{}' WHERE position = 1", 1, Content),
        ("UPDATE journal.events SET event_type = 'Other' WHERE position = 4", 4, Content),
        ("UPDATE journal.events SET event_version = '2' WHERE position = 4", 4, Content),
        ("UPDATE journal.events SET event_id = gen_random_uuid() WHERE position = 7", 7, Content),
        ("UPDATE journal.events SET aggregate_id = 'evt_x' WHERE position = 5", 5, Content),
        ("UPDATE journal.events SET aggregate_type = 'stripe_charge' WHERE position = 5", 5, Content),
        ("UPDATE journal.events SET sequence = 9 WHERE position = 5", 5, Content),
        ("UPDATE journal.events SET leaf = set_byte(leaf, 31, get_byte(leaf, 31) # 1) WHERE position = 6", 6, Content),
        ("UPDATE journal.events SET chain = set_byte(chain, 0, get_byte(chain, 0) # 128) WHERE position = 6", 6, Chain),
        ("UPDATE journal.events SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 7", 7, Chain),
        ("UPDATE journal.events SET recorded_at = recorded_at - interval '1 day' WHERE position = 10", 10, Chain),
        ("UPDATE journal.events SET recorded_at = 'infinity' WHERE position = 2", 2, Chain),
        ("DELETE FROM journal.events WHERE position = 1", 1, Gap),
        ("DELETE FROM journal.events WHERE position = 6", 6, Gap),
        ("DELETE FROM journal.events WHERE position IN (4, 8)", 4, Gap),
        ("UPDATE journal.events SET position = 11 WHERE position = 10", 10, Gap),
        ("UPDATE journal.events SET position = 100 WHERE position = 3", 3, Gap),
        // The tail cut, within a batch and at its edge, and all of it.
        ("DELETE FROM journal.events WHERE position >= 10", 10, Head),
        ("DELETE FROM journal.events WHERE position >= 8", 8, Head),
        ("DELETE FROM journal.events", 1, Head),
        // Swapped rows: other streams, then neighbours of one stream, where the order tells too and comes first.
        (
            "UPDATE journal.events SET position = -position WHERE position IN (1, 5); \
             UPDATE journal.events SET position = CASE position WHEN -1 THEN 5 ELSE 1 END WHERE position < 0",
            1,
            Chain,
        ),
        (
            "UPDATE journal.events SET position = -position WHERE position IN (3, 4); \
             UPDATE journal.events SET position = CASE position WHEN -3 THEN 4 ELSE 3 END WHERE position < 0",
            3,
            Order,
        ),
        (
            "UPDATE journal.events AS e SET payload = o.payload FROM journal.events AS o \
             WHERE (e.position, o.position) IN ((2, 6), (6, 2))",
            2,
            Content,
        ),
        // Batches: missing, first, middle and last; each column wrong.
        ("DELETE FROM journal.batches WHERE last_position = 1", 1, Chain),
        ("DELETE FROM journal.batches WHERE last_position = 4", 2, Chain),
        ("DELETE FROM journal.batches WHERE last_position = 8", 6, Chain),
        ("DELETE FROM journal.batches WHERE last_position = 10", 10, Chain),
        ("DELETE FROM journal.batches WHERE last_position >= 8", 6, Chain),
        ("DELETE FROM journal.batches", 1, Chain),
        ("UPDATE journal.batches SET first_position = 3 WHERE last_position = 4", 2, Chain),
        ("UPDATE journal.batches SET first_position = 1 WHERE last_position = 4", 2, Chain),
        ("UPDATE journal.batches SET last_position = 3 WHERE last_position = 4", 2, Chain),
        ("UPDATE journal.batches SET chain = sha256('x') WHERE last_position = 8", 6, Chain),
        ("UPDATE journal.batches SET recorded_at = recorded_at + interval '1 s' WHERE last_position = 8", 6, Chain),
        ("UPDATE journal.batches SET last_position = 12 WHERE last_position = 10", 11, Head),
        // Several at once: the lowest position wins, then the kind.
        (
            "UPDATE journal.events SET payload = '{}' WHERE position = 9; DELETE FROM journal.events WHERE position = 8",
            8,
            Gap,
        ),
        (
            "UPDATE journal.events SET payload = '{}', recorded_at = now(), chain = sha256('x') WHERE position = 9",
            9,
            Content,
        ),
        (
            "DELETE FROM journal.events WHERE position >= 9; DELETE FROM journal.batches WHERE last_position = 4",
            2,
            Chain,
        ),
    ];
    let journal = ten().await;
    for (statements, position, kind) in cases {
        // Each on a copy of the same rows.
        sqlx::raw_sql("CREATE TABLE IF NOT EXISTS public.e AS TABLE journal.events; CREATE TABLE IF NOT EXISTS public.b AS TABLE journal.batches")
            .execute(&journal.admin)
            .await
            .unwrap();
        sqlx::raw_sql("ALTER TABLE journal.events DROP CONSTRAINT IF EXISTS events_position_form")
            .execute(&journal.admin)
            .await
            .unwrap();
        journal.tamper(statements).await;
        assert_eq!(found(&journal).await, Some((*position, *kind)), "{statements}");
        journal
            .tamper("DELETE FROM journal.events; DELETE FROM journal.batches; INSERT INTO journal.events TABLE public.e; INSERT INTO journal.batches TABLE public.b")
            .await;
        assert_eq!(found(&journal).await, None);
    }
}

/// Who recomputes leaves and chain after a change is found by what the chain does not hold: the order within streams.
#[tokio::test]
async fn a_recomputed_chain_does_not_hide_a_stream_out_of_order() {
    let journal = ten().await;
    journal
        .tamper(
            "UPDATE journal.events SET sequence = 7 WHERE position = 9; \
             DO $$ DECLARE e record; running bytea := decode(repeat('00', 32), 'hex'); l bytea; BEGIN \
               FOR e IN SELECT * FROM journal.events ORDER BY position LOOP \
                 l := sha256(convert_to('fanledger/leaf/v1', 'UTF8') || '\\x00' \
                   || int8send(octet_length(e.aggregate_type)) || convert_to(e.aggregate_type, 'UTF8') \
                   || int8send(octet_length(e.aggregate_id)) || convert_to(e.aggregate_id, 'UTF8') || int8send(e.sequence) \
                   || int8send(octet_length(e.event_type)) || convert_to(e.event_type, 'UTF8') \
                   || int8send(octet_length(e.event_version)) || convert_to(e.event_version, 'UTF8') || uuid_send(e.event_id) \
                   || int8send(octet_length(e.payload::text)) || convert_to(e.payload::text, 'UTF8') \
                   || int8send(octet_length(e.metadata::text)) || convert_to(e.metadata::text, 'UTF8')); \
                 running := sha256(convert_to('fanledger/chain/v1', 'UTF8') || '\\x00' || running || int8send(e.position) \
                   || int8send((extract(epoch FROM e.recorded_at) * 1000000)::bigint) || l); \
                 UPDATE journal.events SET leaf = l, chain = running WHERE position = e.position; \
                 UPDATE journal.batches SET chain = running WHERE last_position = e.position; \
               END LOOP; END $$",
        )
        .await;
    assert_eq!(found(&journal).await, Some((9, DivergenceKind::Order)));
}

#[tokio::test]
async fn a_journal_of_many_pages_is_checked_across_their_edges() {
    let journal = Journal::start().await;
    // 45,000 events in batches of 1,500, one stream each, so that pages begin within batches and streams.
    for n in 0..30 {
        appended(journal.writer.append(command(&format!("evt_{n}"), 0, 1500)).await.unwrap());
    }
    let mut told = Vec::new();
    let mut tell = |progress: Progress| told.push(progress.position.get());
    let report = verified(&journal, VerifyOptions::default(), None, &mut tell).await;
    assert_eq!((report.events, report.first_divergence), (45_000, None));
    assert_eq!(told, [20_000, 40_000, 45_000]);
    for (statement, position, kind) in [
        // From the end to the beginning, each before what was found before it.
        ("UPDATE journal.batches SET chain = sha256('x') WHERE last_position = 40500", 39_001, DivergenceKind::Chain),
        ("DELETE FROM journal.events WHERE position = 20001", 20_001, DivergenceKind::Gap),
        ("DELETE FROM journal.events WHERE position = 20000", 20_000, DivergenceKind::Gap),
        ("DELETE FROM journal.batches WHERE last_position = 21000", 19_501, DivergenceKind::Chain),
    ] {
        journal.tamper(statement).await;
        assert_eq!(found(&journal).await, Some((position, kind)), "{statement}");
    }
    // What lies after the range is not looked at.
    assert_eq!(check(&journal, None, Some(19_000)).await.first_divergence, None);
}

/// Books that break at the event of a given position, or at the end.
struct Books {
    seen: Arc<Mutex<Vec<u64>>>,
    breaks_at: Option<u64>,
    breaks_at_end: bool,
}

impl BooksCheck for Books {
    fn event<'a>(&mut self, event: &SeenEvent<'a>) -> Result<Option<Cow<'a, str>>, String> {
        self.seen.lock().unwrap().push(event.position.get());
        if self.breaks_at == Some(event.position.get()) { Err("does not sum to zero".into()) } else { Ok(None) }
    }

    fn end(&mut self) -> Result<(), String> {
        if self.breaks_at_end { Err("does not tie out".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn books_are_judged_event_by_event_and_at_the_end() {
    let journal = ten().await;
    for (breaks_at, breaks_at_end, expected) in [(None, false, None), (Some(4), true, Some(4)), (None, true, Some(10))]
    {
        let seen = Arc::default();
        let books = Box::new(Books { seen: Arc::clone(&seen), breaks_at, breaks_at_end });
        let report = verified(&journal, VerifyOptions::default(), Some(books), &mut |_| {}).await;
        let found = report.first_divergence.map(|found| (found.position.get(), found.kind));
        assert_eq!(found, expected.map(|position| (position, DivergenceKind::Balance)));
        assert_eq!(*seen.lock().unwrap(), (1..=breaks_at.unwrap_or(10)).collect::<Vec<_>>());
    }
    // From the middle, books cannot be judged.
    let seen = Arc::default();
    let books = Box::new(Books { seen: Arc::clone(&seen), breaks_at: Some(5), breaks_at_end: true });
    let options = VerifyOptions { from: Some(Position::new(3)), ..Default::default() };
    let report = verified(&journal, options, Some(books), &mut |_| {}).await;
    assert_eq!((report.first_divergence, seen.lock().unwrap().len()), (None, 0));
}
