//! How fast a journal of ledger entries is verified, and how fast the same table is only read: for finding out where the time
//! goes. `fanledger bench verify` is the measurement itself.
//!
//! `cargo run --release -p fanledger-journal --example verify_rate -- fill 1000000` makes a database of its own, fills it and
//! prints its URL; `… -- measure <url>` measures it, as often as one likes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for engineers, which fails by panicking")]
#![allow(clippy::float_arithmetic, reason = "rates; there is no money here")]

use std::borrow::Cow;
use std::time::Instant;

use fanledger_devkit::TestDatabase;
use fanledger_domain::tie_out::TieOut;
use fanledger_journal::append::Command;
use fanledger_journal::copy::each_event;
use fanledger_journal::database::{Role, connect, role_url};
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::verify::{BooksCheck, SeenEvent, VerifyOptions, verify};
use fanledger_journal::writer::{Writer, WriterOptions};

struct Books(TieOut);

impl BooksCheck for Books {
    fn event<'a>(&mut self, event: &SeenEvent<'a>) -> Result<Option<Cow<'a, str>>, String> {
        let (stream, kind) = ((event.aggregate_type, event.aggregate_id), (event.event_type, event.event_version));
        self.0.recorded(stream, kind, event.payload, event.position.get()).map_err(|error| error.to_string())
    }

    fn end(&mut self) -> Result<(), String> {
        Ok(())
    }
}

fn entry(stream: u64, n: u64) -> NewEvent {
    let (object, minor) = (format!("ch_3PqXyZ2eZvKYlo2C{stream:08}"), 500 + stream % 9_000);
    let (fee, share) = (minor / 10, minor - minor / 10);
    let creator = stream % 1_000;
    NewEvent {
        event_type: "EntryPosted".into(),
        event_version: "1".into(),
        payload: format!(
            r#"{{"entry_id":"{object}:{n}:20260202T024000Z","cause":{{"object":"{object}","facts":[{{"event_type":"ChargeObserved","sequence":{n}}}],"stripe_event":"evt_1PqXyZ2eZvKYlo2C{stream:08}"}},"description":"{object}: charge succeeded","occurred_at":"2026-02-02T02:40:00Z","effective_at":"2026-02-02T02:40:00Z","postings":[{{"account":"assets:stripe:unconfirmed","side":"debit","minor":{minor},"currency":"usd"}},{{"account":"income:platform-fees","side":"credit","minor":{fee},"currency":"usd"}},{{"account":"liabilities:creators:crt_{creator}:pending","side":"credit","minor":{share},"currency":"usd"}}]}}"#
        ),
    }
}

async fn fill(events: u64) {
    let database = TestDatabase::create().await;
    let writer = Writer::start(WriterOptions::new(role_url(database.url(), Role::Command).unwrap())).await.unwrap();
    let begun = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..64_u64 {
        let writer = writer.clone();
        callers.spawn(async move {
            for stream in (caller..events / 4).step_by(64) {
                let metadata = Metadata { actor: Some("system:stripe_translator".into()), ..Metadata::default() };
                let entries = (1..=4).map(|n| entry(stream, n)).collect();
                let id = format!("ch_3PqXyZ2eZvKYlo2C{stream:08}");
                writer.append(Command::new(StreamId::new("stripe_charge", id), 0, metadata, entries)).await.unwrap();
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    println!(
        "{:.0} entries/s, {} bytes each",
        events as f64 / begun.elapsed().as_secs_f64(),
        entry(1, 1).payload.len()
    );
    println!("{}", database.url());
    // The database is dropped with this value.
    std::mem::forget(database);
}

async fn measure(url: &str) {
    let pool = connect(url, 1).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE journal.events, journal.entry_ids").execute(&mut *connection).await.unwrap();
    let events: i64 =
        sqlx::query_scalar("SELECT count(*) FROM journal.events").fetch_one(&mut *connection).await.unwrap();
    let rate = |begun: Instant| events as f64 / begun.elapsed().as_secs_f64() / 1000.0;
    for _ in 0..5 {
        let begun = Instant::now();
        sqlx::raw_sql("COPY journal.events TO '/dev/null'").execute(&mut *connection).await.unwrap();
        let null = rate(begun);
        let begun = Instant::now();
        each_event(&mut connection, 1, i64::MAX, |_| {}).await.unwrap();
        let read = rate(begun);
        let begun = Instant::now();
        let books: Box<dyn BooksCheck> = Box::new(Books(TieOut::default()));
        let report = verify(&mut connection, VerifyOptions::default(), Some(books), &mut |_| {}).await.unwrap();
        assert_eq!(report.first_divergence, None);
        println!("thousand events/s: COPY to /dev/null {null:.0}, COPY to here {read:.0}, verify {:.0}", rate(begun));
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", events] => fill(events.parse().unwrap()).await,
        ["measure", url] => measure(url).await,
        _ => eprintln!("usage: verify_rate fill <entries> | measure <database url>"),
    }
}
