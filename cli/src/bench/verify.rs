//! P7: how fast a journal of ledger entries is verified, books included, beside Postgres's own COPY of the same table.

use std::time::Instant;

use fanledger_domain::entry::{Cause, EntryPosted, FactReference, Posting, Side};
use fanledger_domain::event::Event;
use fanledger_domain::id::IdError;
use fanledger_domain::money::{Currency, Money, MoneyError};
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::append::{AppendError, Command, Outcome as Appended};
use fanledger_journal::database::{self, Role, role_url};
use fanledger_journal::event::{Metadata, NewEvent, StreamId};
use fanledger_journal::verify::{BooksCheck, Divergence, VerifyOptions, verify};
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::{PgConnection, PgPool};

use crate::bench::VerifyArgs;
use crate::bench::ground::Ground;
use crate::bench::report::{Figure, Raw, Report};
use crate::commands::journal::Books;
use crate::failure::Failure;
use crate::output::Output;

/// Entries of one object, which a command appends together.
const ENTRIES_PER_STREAM: u64 = 4;
/// As many as the writer gathers into one append.
const CALLERS: u64 = 256;

#[derive(Debug, thiserror::Error)]
enum VerifyBenchError {
    #[error("make an entry to verify")]
    Id(#[from] IdError),
    #[error("make an entry to verify")]
    Money(#[from] MoneyError),
    #[error("make an entry to verify")]
    Time(#[from] TimestampError),
    #[error("make an entry to verify")]
    Account(#[from] fanledger_domain::account::AccountError),
    #[error("write an entry as JSON")]
    Payload(#[source] serde_json::Error),
    #[error("append the entries that are to be verified")]
    Append(#[source] AppendError),
    #[error("the journal answered {0:?} to a command for a new stream")]
    Outcome(Appended),
    #[error("a task that appends ended early")]
    Task(#[source] tokio::task::JoinError),
    #[error("measure over the bench's database")]
    Database(#[source] sqlx::Error),
    #[error("the bench's own journal diverges: {0:?}")]
    Diverged(Divergence),
}

pub(super) async fn run(args: VerifyArgs, ground: &Ground, output: Output) -> Result<Report, Failure> {
    let bytes = fill(args.entries, ground, output).await?;
    let operator = database::connect(&role_url(ground.superuser_url(), Role::Operator)?, 1).await?;
    let superuser = database::connect(ground.superuser_url(), 1).await?;
    // What autovacuum would do within the minute, and in the middle of a round.
    statement(&superuser, "VACUUM (FREEZE, ANALYZE) journal.events, journal.batches, journal.entry_ids").await?;
    statement(&superuser, "CHECKPOINT").await?;
    let bar = output.bar(u64::from(args.rounds) * 3 + 3, "measuring");
    let mut raw = Vec::new();
    // Round 0 warms the caches for both sides and is not kept.
    for round in 0..=args.rounds {
        let mut measured = Vec::new();
        let begun = Instant::now();
        statement(&superuser, "COPY journal.events TO '/dev/null'").await?;
        measured.push(("COPY TO '/dev/null'", begun.elapsed()));
        bar.inc(1);
        let begun = Instant::now();
        read(&operator).await?;
        measured.push(("COPY TO STDOUT, binary, thrown away", begun.elapsed()));
        bar.inc(1);
        let begun = Instant::now();
        verified(&operator).await?;
        measured.push(("fanledger journal verify", begun.elapsed()));
        bar.inc(1);
        if round > 0 {
            raw.extend(measured.into_iter().map(|(what, took)| {
                let value = args.entries as f64 / took.as_secs_f64();
                Raw { round, what: what.to_owned(), value, unit: "events/s" }
            }));
        }
    }
    bar.finish_and_clear();
    let of = |what: &str| Report::median_of(&raw, what);
    let ours = of("fanledger journal verify");
    let figures = vec![
        Figure::beside("P7", "entries verified".into(), ours, of("COPY TO '/dev/null'"), "events/s", "ratio ≥ 0.5"),
        Figure::alone("P7", "entries verified".into(), ours, "events/s", "≥ 300000"),
    ];
    let notes = vec![format!(
        "{} ledger entries of {bytes} bytes of payload on average, appended by the writer, {ENTRIES_PER_STREAM} to a stream. \
         verify checks content, order, chain, batches, registered entry ids and the books, and computes the Merkle root.",
        args.entries
    )];
    Ok(Report { bench: "verify", machine: ground.machine.clone(), notes, rounds: raw, figures })
}

async fn statement(pool: &PgPool, sql: &str) -> Result<(), VerifyBenchError> {
    sqlx::raw_sql(sql).execute(pool).await.map(drop).map_err(VerifyBenchError::Database)
}

/// What any program must pay that takes the rows out of Postgres.
async fn read(pool: &PgPool) -> Result<(), VerifyBenchError> {
    let mut connection = pool.acquire().await.map_err(VerifyBenchError::Database)?;
    let connection: &mut PgConnection = &mut connection;
    let rows = fanledger_journal::copy::each_event(connection, 1, i64::MAX, |_| {});
    rows.await.map_err(VerifyBenchError::Database)
}

async fn verified(pool: &PgPool) -> Result<(), Failure> {
    let mut connection = pool.acquire().await.map_err(VerifyBenchError::Database)?;
    let books: Box<dyn BooksCheck> = Box::new(Books::default());
    let report = verify(&mut connection, VerifyOptions::default(), Some(books), &mut |_| {}).await?;
    match report.first_divergence {
        None => Ok(()),
        Some(divergence) => Err(VerifyBenchError::Diverged(divergence).into()),
    }
}

/// Appends the entries, and answers how many bytes a payload has on average.
async fn fill(entries: u64, ground: &Ground, output: Output) -> Result<u64, Failure> {
    let writer = Writer::start(WriterOptions::new(role_url(ground.superuser_url(), Role::Command)?)).await?;
    let bar = output.bar(entries, "appending");
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (writer, bar) = (writer.clone(), bar.clone());
        callers.spawn(async move {
            let mut bytes = 0;
            for stream in (caller..entries.div_ceil(ENTRIES_PER_STREAM)).step_by(CALLERS as usize) {
                let left = entries - stream * ENTRIES_PER_STREAM;
                let posted: Vec<_> =
                    (1..=left.min(ENTRIES_PER_STREAM)).map(|n| entry(stream, n)).collect::<Result<_, _>>()?;
                bar.inc(posted.len() as u64);
                bytes += posted.iter().map(|event| event.payload.len() as u64).sum::<u64>();
                let metadata = Metadata { actor: Some("system:stripe_translator".to_owned()), ..Metadata::default() };
                let command = Command::new(StreamId::new("stripe_charge", object(stream)), 0, metadata, posted);
                match writer.append(command).await.map_err(VerifyBenchError::Append)? {
                    Appended::Appended { .. } => {}
                    other => return Err(VerifyBenchError::Outcome(other)),
                }
            }
            Ok::<u64, VerifyBenchError>(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(caller) = callers.join_next().await {
        bytes += caller.map_err(VerifyBenchError::Task)??;
    }
    bar.finish_and_clear();
    writer.shutdown().await;
    Ok(bytes / entries.max(1))
}

fn object(stream: u64) -> String {
    format!("ch_3PqXyZ2eZvKYlo2C{stream:010}")
}

/// Entry number `n` of a charge's stream, of some 600 bytes.
fn entry(stream: u64, n: u64) -> Result<NewEvent, VerifyBenchError> {
    let object = object(stream);
    let usd: Currency = "usd".parse()?;
    let at: Timestamp = "2026-02-02T02:40:00Z".parse()?;
    let gross = 500 + i64::try_from(stream % 9_000).unwrap_or_default();
    let fee = gross / 10;
    let posting = |account: &str, side, minor| {
        Ok::<_, VerifyBenchError>(Posting { account: account.parse()?, side, money: Money::new(minor, usd) })
    };
    let entry = EntryPosted {
        entry_id: format!("{object}:{n}:20260202T024000Z").parse()?,
        cause: Cause {
            object: object.parse()?,
            facts: vec![FactReference { event_type: "ChargeObserved".to_owned(), sequence: n }],
            stripe_event: Some(format!("evt_1PqXyZ2eZvKYlo2C{stream:010}").parse()?),
            clears: None,
        },
        description: format!("{object}: charge succeeded"),
        occurred_at: at,
        effective_at: at,
        postings: vec![
            posting("assets:stripe:unconfirmed", Side::Debit, gross)?,
            posting("income:platform-fees", Side::Credit, fee)?,
            posting(&format!("liabilities:creators:crt_{}:pending", stream % 1_000), Side::Credit, gross - fee)?,
        ],
        activity: Vec::new(),
    };
    let event = Event::from(entry);
    Ok(NewEvent {
        event_type: event.type_name().to_owned(),
        event_version: event.version().to_owned(),
        payload: event.to_payload().map_err(VerifyBenchError::Payload)?,
    })
}
