//! A small journal with entries in it, the domain's check of its books, and what a forger would do to it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::borrow::Cow;
use std::io::Write;
use std::process::Stdio;

use fanledger_domain::tie_out::TieOut;
use fanledger_journal::append::Command;
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::export::export;
use fanledger_journal::verify::{BooksCheck, Report, SeenEvent, VerifyOptions, verify};
use sqlx::PgConnection;

use super::{Journal, appended, command};

/// What `fanledger journal verify` checks the books with.
#[derive(Default)]
pub struct Books(TieOut);

impl BooksCheck for Books {
    fn wants(&self, event_type: &str) -> bool {
        event_type == "EntryPosted"
    }

    fn event<'a>(&mut self, event: &SeenEvent<'a>) -> Result<Option<Cow<'a, str>>, String> {
        let (stream, kind) = ((event.aggregate_type, event.aggregate_id), (event.event_type, event.event_version));
        self.0.recorded(stream, kind, event.payload, event.position.get()).map_err(|error| error.to_string())
    }

    fn end(&mut self) -> Result<(), String> {
        self.0.end().map(drop).map_err(|(_, error)| error.to_string())
    }
}

pub fn entry(id: &str, debit: u32, credit: u32) -> NewEvent {
    let payload = format!(
        r#"{{"entry_id": "{id}", "cause": {{"object": "ch_1", "facts": []}}, "description": "a test", "postings": [
        {{"account": "assets:bank", "side": "debit", "minor": {debit}, "currency": "usd"}},
        {{"account": "income:other", "side": "credit", "minor": {credit}, "currency": "usd"}}]}}"#
    );
    NewEvent { event_type: "EntryPosted".into(), event_version: "1".into(), payload }
}

/// Appends up to `events` events or a few more: batches of 1 to 5, half of the events entries, streams that go on.
pub async fn fill(journal: &Journal, events: u64) {
    let metadata = Metadata { actor: Some("system:test".into()), ..Metadata::default() };
    let (mut head, mut round) = (0, 0);
    let mut lasts = [0_u64; 7];
    while head < events {
        let stream = round % lasts.len();
        let entries = (0..1 + round % 3).map(|n| entry(&format!("ch_{stream}:{round}:{n}"), 7, 7)).collect::<Vec<_>>();
        let posted = entries.len() as u64;
        let streams = StreamId::new("manual_entry", format!("ch_{stream}"));
        let posting = Command::new(streams, lasts[stream], metadata.clone(), entries);
        (_, _) = appended(journal.writer.append(posting).await.unwrap());
        lasts[stream] += posted;
        (_, head) = appended(journal.writer.append(command(&format!("evt_{round}"), 0, 1 + round % 2)).await.unwrap());
        round += 1;
    }
}

/// Verifies with the books, over this connection and in whatever transaction it is.
pub async fn verify_with_books(connection: &mut PgConnection, options: VerifyOptions) -> Report {
    verify(connection, options, Some(Box::new(Books::default())), &mut |_| {}).await.unwrap()
}

/// Takes the guards off for good: what is tried is tried on a copy that the test owns.
pub async fn unguard(connection: &mut PgConnection) {
    let tables =
        ["events", "batches", "entry_ids"].map(|table| format!("ALTER TABLE journal.{table} DISABLE TRIGGER ALL;"));
    sqlx::raw_sql(&tables.concat()).execute(&mut *connection).await.unwrap();
    sqlx::raw_sql(include_str!("forge.sql")).execute(connection).await.unwrap();
}

/// What `docs/verify.py` answers over this standard input, and its exit code.
pub fn second_verifier(arguments: &[&str], input: &[u8]) -> (i32, serde_json::Value) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verify.py");
    let mut python = std::process::Command::new("python3")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is a prerequisite of this project");
    let mut stdin = python.stdin.take().unwrap();
    let input = input.to_vec();
    // From a thread of its own, because it may answer before it has read everything.
    let written = std::thread::spawn(move || stdin.write_all(&input));
    let output = python.wait_with_output().unwrap();
    written.join().unwrap().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), answer)
}

/// The second verifier's word on the journal as it is over this connection: root and first divergence.
pub async fn second_opinion(connection: &mut PgConnection) -> serde_json::Value {
    let mut lines = Vec::new();
    export(connection, &mut lines, &mut |_, _| {}).await.unwrap();
    let (code, answer) = second_verifier(&["journal", "-"], &lines);
    assert_eq!(code, i32::from(answer["ok"] != true), "{answer}");
    answer
}
