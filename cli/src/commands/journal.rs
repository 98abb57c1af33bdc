//! `fanledger journal tail | show | stats | verify | checkpoint | prove | check-proof | export`.

mod checkpoint;
mod export;
mod places;
mod prove;
mod stats;
mod verify;

use std::time::Duration;

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use fanledger_journal::database::Role;
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::reader::Reader;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

pub use verify::Books;

use crate::connect;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::recorded::{self, Divergence};
use crate::settings::{Need, Settings};

/// Show, follow and verify the journal; sign what it is, and prove what is in it.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Show the last events, and follow what comes
    #[command(after_help = "Example:\n  fanledger journal tail --lines 50 --follow")]
    Tail(TailArgs),
    /// Show one event, and whether it is as it was recorded; exit code 1 when it is not
    Show(ShowArgs),
    /// Count events by type
    Stats,
    /// Check every event's content, order and chain, and that the books add up; exit code 1 at a divergence
    #[command(
        after_help = "Examples:\n  fanledger journal verify\n  fanledger journal verify --from 1000 --to 2000 --json\n  \
        fanledger journal verify --against s3://audit/checkpoints/<journal id>/<size>.checkpoint\n\n\
        The books are checked when the check begins at position 1. Whoever owns the database can rewrite all of it, so that it\n\
        agrees with itself: only a checkpoint that is kept elsewhere tells."
    )]
    Verify(verify::VerifyArgs),
    /// Verify the journal, then sign its size and Merkle root; to be kept where the database's owner cannot change it
    #[command(after_help = "Examples:\n  fanledger journal checkpoint > today.checkpoint\n  \
        FANLEDGER_OBJECT_STORE_URL=s3://audit fanledger journal checkpoint\n  fanledger journal checkpoint --public-key\n\n\
        In an object store each checkpoint is an object of its own, checkpoints/<journal id>/<size>.checkpoint, and is never\n\
        overwritten: give the bucket a lock. Nothing is signed that does not extend the newest checkpoint there.")]
    Checkpoint(checkpoint::CheckpointArgs),
    /// Write a proof that an event is in the journal, for somebody who has no access to it
    #[command(
        after_help = "Example:\n  fanledger journal prove 4711 --checkpoint today.checkpoint --out 4711.tlog-proof\n  \
        fanledger journal check-proof 4711.tlog-proof --public-key <key>\n\n\
        The proof holds the event itself, payload included; bodies of webhooks are in it sealed."
    )]
    Prove(prove::ProveArgs),
    /// Check a proof with no database, and show the event in it; exit code 1 when it proves nothing
    CheckProof(prove::CheckProofArgs),
    /// Write the journal as lines of JSON, exactly as it is stored, for another verifier: docs/verify.md
    #[command(
        after_help = "Example:\n  fanledger journal export --out journal.jsonl && python3 docs/verify.py journal journal.jsonl"
    )]
    Export(export::ExportArgs),
}

/// Which events.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// How many of the last events to show.
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: u32,
    /// Go on with what comes, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
}

/// Which event.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Its position.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    position: u64,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The journal ends before.
    #[error("there is no position {position}: the journal's head is {head}")]
    Beyond {
        /// What was asked for.
        position: u64,
        /// The head.
        head: Position,
    },
    /// No connection.
    #[error("connect to the journal")]
    Connect(#[source] sqlx::Error),
    /// A stored payload is not JSON, which the database's type excludes.
    #[error("read the payload at position {position}")]
    Payload {
        /// Where.
        position: Position,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// An event as this command prints it.
#[derive(Serialize)]
struct Shown<'a> {
    position: Position,
    event_id: String,
    recorded_at: String,
    stream: String,
    sequence: u64,
    event_type: &'a str,
    event_version: &'a str,
    payload: &'a RawValue,
    metadata: &'a RawValue,
    chain: String,
    /// Whether content and chain are as they were recorded; absent where nobody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_recorded: Option<bool>,
    /// What is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence: Option<&'static str>,
}

/// Runs one of them.
///
/// # Errors
/// When the journal cannot be read.
pub async fn run(command: JournalCommand, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    if let JournalCommand::CheckProof(args) = &command {
        return prove::check(args, settings, output).await;
    }
    settings.require(&[Need::Database(Role::Operator)])?;
    let pool = connect::pool(&settings.database_url_for(Role::Operator)?, 2).await?;
    let reader = Reader::new(pool);
    match command {
        JournalCommand::Tail(args) => tail(&args, &reader, output).await,
        JournalCommand::Show(args) => show(&args, &reader, output).await,
        JournalCommand::Stats => stats::run(&reader, output).await,
        JournalCommand::Verify(args) => verify::run(&args, &reader, settings, output).await,
        JournalCommand::Checkpoint(args) => checkpoint::run(&args, &reader, settings, output).await,
        JournalCommand::Prove(args) => prove::run(&args, &reader, settings, output).await,
        JournalCommand::Export(args) => export::run(&args, &reader, output).await,
        // Answered above, before a database was needed.
        JournalCommand::CheckProof(_) => Ok(Outcome::Fine),
    }
}

/// One connection for whoever reads the journal from end to end.
async fn connection(reader: &Reader) -> Result<PoolConnection<Postgres>, JournalError> {
    reader.pool().acquire().await.map_err(JournalError::Connect)
}

const PAGE_EVENTS: u32 = 1_000;
const PAGE_BYTES: u64 = 8 * 1024 * 1024;
/// Short enough to feel live, long enough to cost nothing.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

async fn tail(args: &TailArgs, reader: &Reader, output: Output) -> Result<Outcome, Failure> {
    let head = reader.head().await?.position;
    let mut position = Position::new(head.get().saturating_sub(u64::from(args.lines)));
    loop {
        let events = reader.after(position, PAGE_EVENTS, PAGE_BYTES).await?;
        for event in &events {
            if output.is_json() {
                output.json_line(&shown(event)?)?;
            } else {
                output.line(line(event))?;
            }
            position = event.position;
        }
        if !events.is_empty() && position < head {
            continue;
        }
        if !args.follow {
            return Ok(Outcome::Fine);
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Outcome::Fine),
        }
    }
}

fn line(event: &RecordedEvent) -> String {
    format!(
        "{:>8}  {}  {:<28} {} #{}",
        event.position.get(),
        event.recorded_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        event.event_type,
        event.stream,
        event.sequence
    )
}

async fn show(args: &ShowArgs, reader: &Reader, output: Output) -> Result<Outcome, Failure> {
    let Some(event) = reader.at(Position::new(args.position)).await? else {
        let head = reader.head().await?.position;
        return Err(Failure::usage(JournalError::Beyond { position: args.position, head }));
    };
    let found = recorded::divergence(reader, event.position).await?;
    let outcome = if found.is_none() { Outcome::Fine } else { Outcome::CheckFailed };
    let mut shown = shown(&event)?;
    shown.as_recorded = Some(found.is_none());
    shown.divergence = found.map(Divergence::detail);
    if output.is_json() {
        output.json(&shown)?;
        return Ok(outcome);
    }
    output.line(format_args!("position     {}", shown.position))?;
    output.line(format_args!("recorded at  {}", shown.recorded_at))?;
    output.line(format_args!("stream       {} #{}", shown.stream, shown.sequence))?;
    output.line(format_args!("event        {} version {}", shown.event_type, shown.event_version))?;
    output.line(format_args!("event id     {}", shown.event_id))?;
    output.line(format_args!("chain        {}", shown.chain))?;
    match &shown.divergence {
        None => output.line("as recorded  yes: content and chain agree with their digests")?,
        Some(what) => output.line(format_args!("as recorded  NO: {what}; run `fanledger journal verify`"))?,
    }
    output.line(format_args!("metadata     {}", shown.metadata.get()))?;
    output.line("payload")?;
    let payload_error = |source| JournalError::Payload { position: event.position, source };
    // Laid out for reading; the stored bytes are in --json.
    let payload: serde_json::Value = serde_json::from_str(&event.payload).map_err(payload_error)?;
    output.json(&payload)?;
    Ok(outcome)
}

fn shown(event: &RecordedEvent) -> Result<Shown<'_>, JournalError> {
    let raw =
        |text| serde_json::from_str(text).map_err(|source| JournalError::Payload { position: event.position, source });
    Ok(Shown {
        position: event.position,
        event_id: event.event_id.to_string(),
        recorded_at: event.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        stream: event.stream.to_string(),
        sequence: event.sequence,
        event_type: &event.event_type,
        event_version: &event.event_version,
        payload: raw(&event.payload)?,
        metadata: raw(&event.metadata)?,
        chain: hex::encode(event.chain.0),
        as_recorded: None,
        divergence: None,
    })
}
