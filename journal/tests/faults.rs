//! R4: any single fault in a journal is found, and named at its position; a journal that was forged as a whole is found by a
//! checkpoint. 200 faults by default, ten thousand with FANLEDGER_FULL_COUNTS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use fanledger_journal::event::Position;
use fanledger_journal::merkle::checkpoint::{Checkpoint, CheckpointSigner, TrustedKey};
use fanledger_journal::verify::{DivergenceKind, VerifyOptions};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sqlx::Connection;
use support::Journal;
use support::ledger::{fill, second_opinion, unguard, verify_with_books};

const EVENTS: u64 = 200;

/// What the journal looks like before anything is done to it.
struct Before {
    head: i64,
    /// First and last positions of the batches.
    batches: Vec<(i64, i64)>,
    entries: Vec<i64>,
}

impl Before {
    /// The first position of the batch that covers a position.
    fn batch_of(&self, position: i64) -> (i64, i64) {
        *self.batches.iter().find(|(first, last)| (*first..=*last).contains(&position)).unwrap()
    }
}

/// A fault: what kind it is called, the statements that make it, where it must be found and as what.
struct Fault {
    name: &'static str,
    sql: String,
    at: i64,
    /// Several where the statement decides between them.
    kinds: &'static [DivergenceKind],
}

use DivergenceKind::{Balance, Chain, Content, Gap, Head, Order};

/// One bit of one column of one event.
fn flipped_bit(random: &mut StdRng, before: &Before) -> Fault {
    let at = random.random_range(1..=before.head);
    let n: u32 = random.random_range(0..100_000);
    let text = |column: &str| {
        let byte = format!("1 + {n} % length({column}::text)");
        let other = format!("chr(ascii(substr({column}::text, {byte}, 1)) # (1 << {}))", n % 7);
        format!("overlay({column}::text PLACING {other} FROM {byte} FOR 1)")
    };
    let bytes = |value: &str, bits: u32| format!("set_bit({value}, {0}, 1 - get_bit({value}, {0}))", n % bits);
    let (name, column, expression, kinds): (_, _, _, &[_]) = match random.random_range(0..12) {
        0 => ("position", "position", format!("position # (1::bigint << {})", n % 63), &[Gap, Head]),
        1 => ("aggregate_type", "aggregate_type", text("aggregate_type"), &[Content]),
        2 => ("aggregate_id", "aggregate_id", text("aggregate_id"), &[Content]),
        3 => ("sequence", "sequence", format!("sequence # (1::bigint << {})", n % 63), &[Content]),
        4 => ("event_type", "event_type", text("event_type"), &[Content]),
        5 => ("event_version", "event_version", text("event_version"), &[Content]),
        6 => ("payload", "payload", format!("({})::json", text("payload")), &[Content]),
        7 => ("metadata", "metadata", format!("({})::json", text("metadata")), &[Content]),
        8 => {
            ("event_id", "event_id", format!("encode({}, 'hex')::uuid", bytes("uuid_send(event_id)", 128)), &[Content])
        }
        9 => (
            "recorded_at",
            "recorded_at",
            format!("recorded_at + (1::bigint << {}) * interval '1 microsecond'", n % 40),
            &[Chain],
        ),
        10 => ("leaf", "leaf", bytes("leaf", 256), &[Content]),
        _ => ("chain", "chain", bytes("chain", 256), &[Chain]),
    };
    let sql = format!("UPDATE journal.events SET {column} = {expression} WHERE position = {at}");
    Fault { name, sql, at, kinds }
}

/// A row gone, two rows in each other's place, the tail cut or forged, a row of the tables beside `events` changed.
fn other_fault(random: &mut StdRng, before: &Before) -> Fault {
    let at = random.random_range(1..=before.head);
    let other = (at + random.random_range(1..before.head) - 1) % before.head + 1;
    let (low, high) = (at.min(other), at.max(other));
    let (first, last) = before.batch_of(at);
    let entry = *before.entries.choose(random).unwrap();
    match random.random_range(0..11) {
        // The last row gone is a cut tail.
        0 => Fault {
            name: "row deleted",
            sql: format!("DELETE FROM journal.events WHERE position = {at}"),
            at,
            kinds: if at == before.head { &[Head] } else { &[Gap] },
        },
        1 if low < high => Fault {
            name: "rows swapped",
            sql: format!(
                "UPDATE journal.events SET position = -position WHERE position IN ({low}, {high}); \
                 UPDATE journal.events SET position = CASE position WHEN -{low} THEN {high} ELSE {low} END WHERE position < 0"
            ),
            at: low,
            kinds: &[Chain, Order],
        },
        2 if low < high => Fault {
            name: "contents swapped",
            sql: format!(
                "UPDATE journal.events AS e SET payload = (o.payload::text || ' ')::json FROM journal.events AS o \
                 WHERE (e.position, o.position) IN (({low}, {high}), ({high}, {low}))"
            ),
            at: low,
            kinds: &[Content],
        },
        3 => Fault {
            name: "tail cut",
            sql: format!("DELETE FROM journal.events WHERE position >= {at}"),
            at,
            kinds: &[Head],
        },
        4 => Fault {
            name: "tail cut from batches too",
            // The ids of the entries in it are left; where it had none, the cut shows by a checkpoint alone.
            sql: format!(
                "DELETE FROM journal.events WHERE position >= {f}; DELETE FROM journal.batches WHERE first_position >= {f}",
                f = before.batch_of(entry).0
            ),
            at: before.batch_of(entry).0,
            kinds: &[Head],
        },
        // `batches` still tells; it is wrong from where the batch begins.
        5 => Fault {
            name: "tail forged",
            sql: format!(
                "UPDATE journal.events SET metadata = '{{}}' WHERE position = {at}; SELECT public.forge({at}, false)"
            ),
            at: first,
            kinds: &[Chain],
        },
        6 => Fault {
            name: "batch deleted",
            sql: format!("DELETE FROM journal.batches WHERE last_position = {last}"),
            at: first,
            kinds: &[Chain],
        },
        7 => Fault {
            name: "batch changed",
            sql: format!(
                "UPDATE journal.batches SET {} WHERE last_position = {last}",
                [
                    "first_position = first_position + 1",
                    "recorded_at = recorded_at + interval '1 microsecond'",
                    "chain = set_bit(chain, 77, 1 - get_bit(chain, 77))",
                    "recorded_at = 'infinity'",
                ]
                .choose(random)
                .unwrap()
            ),
            at: first,
            kinds: &[Chain],
        },
        8 => Fault {
            name: "entry id deleted",
            sql: format!("DELETE FROM journal.entry_ids WHERE position = {entry}"),
            at: entry,
            kinds: &[Balance],
        },
        9 => Fault {
            name: "entry id added",
            sql: format!("INSERT INTO journal.entry_ids VALUES ('forged', {at})"),
            at,
            kinds: &[Balance],
        },
        // Everything is computed anew, so that only the books are wrong.
        _ => Fault {
            name: "entry unbalanced, all forged",
            sql: format!(
                "UPDATE journal.events SET payload = replace(payload::text, '\"debit\", \"minor\": 7', '\"debit\", \"minor\": 8')::json \
                 WHERE position = {entry}; SELECT public.forge({entry}, true)"
            ),
            at: entry,
            kinds: &[Balance],
        },
    }
}

async fn before(journal: &Journal) -> Before {
    let batches = sqlx::query_as("SELECT first_position, last_position FROM journal.batches ORDER BY 1");
    let entries = sqlx::query_scalar("SELECT position FROM journal.entry_ids ORDER BY 1");
    let batches: Vec<(i64, i64)> = batches.fetch_all(&journal.admin).await.unwrap();
    Before { head: batches.last().unwrap().1, batches, entries: entries.fetch_all(&journal.admin).await.unwrap() }
}

#[tokio::test]
async fn every_single_fault_is_found_where_it_is() {
    let journal = Journal::start().await;
    fill(&journal, EVENTS).await;
    let before = before(&journal).await;
    let mut connection = journal.admin.acquire().await.unwrap();
    unguard(&mut connection).await;
    let faults = if std::env::var_os("FANLEDGER_FULL_COUNTS").is_some() { 10_000 } else { 200 };
    let mut random = StdRng::seed_from_u64(4);
    let mut found = BTreeMap::new();
    let (mut refused, mut agreed) = (0, 0);
    while found.values().sum::<u32>() < faults {
        let fault =
            if random.random_bool(0.5) { flipped_bit(&mut random, &before) } else { other_fault(&mut random, &before) };
        let mut transaction = connection.begin().await.unwrap();
        if sqlx::raw_sql(&fault.sql).execute(&mut *transaction).await.is_err() {
            // No JSON any more, a name that cannot be one, a position that is taken: no row that the database would hold.
            refused += 1;
        } else {
            let report = verify_with_books(&mut transaction, VerifyOptions::default()).await;
            let first = report.first_divergence.unwrap_or_else(|| panic!("not found: {}", fault.sql));
            assert_eq!(first.position.as_i64(), fault.at, "{}: {first:?}", fault.sql);
            assert!(fault.kinds.contains(&first.kind), "{}: {first:?}", fault.sql);
            let times = found.entry(fault.name).or_insert(0_u32);
            *times += 1;
            // The second verifier takes a tenth of a second: each fault twice, and then now and then.
            if *times <= 2 || *times % 20 == 0 {
                let other = second_opinion(&mut transaction).await;
                let place = (&other["first_divergence"]["position"], &other["first_divergence"]["kind"]);
                assert_eq!(place, (&json!(fault.at), &json!(first.kind.name())), "{}: {first:?}, {other}", fault.sql);
                agreed += 1;
            }
        }
        transaction.rollback().await.unwrap();
    }
    let report = verify_with_books(&mut connection, VerifyOptions::default()).await;
    assert_eq!((report.first_divergence, report.events), (None, before.head.unsigned_abs()));
    let other = second_opinion(&mut connection).await;
    assert_eq!(other["root"], json!(report.root.unwrap().to_string()), "{other}");
    assert_eq!((&other["events"], &other["head"]), (&json!(before.head), &json!(before.head)));
    println!(
        "{faults} faults in a journal of {} events, all found where they are; {refused} more were no rows; the second verifier \
         agreed on the {agreed} that it was shown: {found:?}",
        before.head
    );
    assert_eq!(found.len(), 23, "every fault was tried: {found:?}");
}

#[tokio::test]
async fn what_was_forged_as_a_whole_is_found_by_a_checkpoint() {
    let journal = Journal::start().await;
    fill(&journal, EVENTS).await;
    let before = before(&journal).await;
    let signer = CheckpointSigner::new(journal.reader.head().await.unwrap().journal_id, &[7; 32]);
    let mut connection = journal.admin.acquire().await.unwrap();
    let part = VerifyOptions { to: Some(Position::new(100)), ..Default::default() };
    let (early, whole) = (
        verify_with_books(&mut connection, part).await,
        verify_with_books(&mut connection, VerifyOptions::default()).await,
    );
    let notes = [
        signer.sign(
            0,
            verify_with_books(&mut connection, VerifyOptions { to: Some(Position::START), ..Default::default() })
                .await
                .root
                .unwrap(),
        ),
        signer.sign(100, early.root.unwrap()),
        signer.sign(whole.events, whole.root.unwrap()),
    ];
    let against: Vec<_> =
        notes.iter().map(|note| Checkpoint::open(note, &TrustedKey::Named(signer.verifier())).unwrap()).collect();
    let against = VerifyOptions { against, ..Default::default() };
    assert_eq!(verify_with_books(&mut connection, against.clone()).await.first_divergence, None);
    unguard(&mut connection).await;
    let head = before.head;
    for (sql, expected) in [
        (
            "UPDATE journal.events SET metadata = '{}' WHERE position = 60; SELECT public.forge(60, true)".to_owned(),
            (100, Chain),
        ),
        (
            "UPDATE journal.events SET metadata = '{}' WHERE position = 150; SELECT public.forge(150, true)".to_owned(),
            (head, Chain),
        ),
        // Time is bound too.
        (
            "UPDATE journal.events SET recorded_at = recorded_at - interval '1 hour'; SELECT public.forge(1, true)"
                .to_owned(),
            (100, Chain),
        ),
        (
            format!(
                "DELETE FROM journal.events WHERE position > {cut}; DELETE FROM journal.batches WHERE last_position > {cut}; \
                 DELETE FROM journal.entry_ids WHERE position > {cut}",
                cut = before.batch_of(150).1
            ),
            (before.batch_of(150).1 + 1, Head),
        ),
    ] {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::raw_sql(&sql).execute(&mut *transaction).await.unwrap();
        let alone = verify_with_books(&mut transaction, VerifyOptions::default()).await;
        assert_eq!(alone.first_divergence, None, "in itself the forgery agrees: {sql}");
        let report = verify_with_books(&mut transaction, against.clone()).await;
        let found = report.first_divergence.map(|first| (first.position.as_i64(), first.kind));
        assert_eq!(found, Some(expected), "{sql}");
        assert_eq!(report.root, None);
        transaction.rollback().await.unwrap();
    }
}
