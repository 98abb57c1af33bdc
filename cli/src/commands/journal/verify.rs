//! `fanledger journal verify`.

use std::borrow::Cow;
use std::error::Error;

use clap::Args;
use fanledger_domain::entry::EntryPosted;
use fanledger_domain::event::{BalanceTransactionObserved, StripeObjectsLinked};
use fanledger_domain::period::{PeriodClosed, PeriodReopened};
use fanledger_domain::tie_out::TieOut;
use fanledger_journal::event::Position;
use fanledger_journal::merkle::checkpoint::{Checkpoint, CheckpointError, TrustedKey, origin_of};
use fanledger_journal::reader::Reader;
use fanledger_journal::verify::{BooksCheck, Report, SeenEvent, VerifyOptions, verify};
use serde::Serialize;

use super::places;
use crate::failure::{Failure, Outcome, one_line};
use crate::output::Output;
use crate::settings::Settings;

/// Which part, and against what.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The first position; the chain before it is taken as it is.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The last position.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// A signed checkpoint (a file, file:///… or s3://<bucket>/<object>) that the journal must still extend. May be repeated:
    /// between the last one that agrees and the first that does not lies what was rewritten.
    #[arg(long, value_name = "CHECKPOINT", value_parser = places::parse, conflicts_with_all = ["from", "to"])]
    against: Vec<String>,
    /// The public key that checkpoints must be signed by, as `fanledger journal checkpoint --public-key` prints it; by default
    /// that of FANLEDGER_CHECKPOINT_KEY.
    #[arg(long, requires = "against", value_name = "KEY")]
    public_key: Option<TrustedKey>,
}

/// Nobody said whose signature counts.
#[derive(Debug, thiserror::Error)]
#[error("say whose signature is trusted: --public-key <key>, or set FANLEDGER_CHECKPOINT_KEY")]
struct NoKey;

#[derive(Serialize)]
struct Verified<'a> {
    ok: bool,
    events: u64,
    head: Position,
    /// The Merkle root of the events, where all of them were read and agree.
    root: Option<String>,
    first_divergence: Option<FirstDivergence<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    against: &'a [Against],
}

#[derive(Serialize)]
struct FirstDivergence<'a> {
    position: Position,
    kind: &'static str,
    detail: &'a str,
}

/// A checkpoint that was judged.
#[derive(Serialize)]
struct Against {
    checkpoint: String,
    size: u64,
}

/// What cannot be relied on, for programs.
#[derive(Serialize)]
struct Refused {
    ok: bool,
    detail: String,
}

pub(super) async fn run(
    args: &VerifyArgs,
    reader: &Reader,
    settings: &Settings,
    output: Output,
) -> Result<Outcome, Failure> {
    let mut options =
        VerifyOptions { from: args.from.map(Position::new), to: args.to.map(Position::new), against: Vec::new() };
    let mut against = Vec::new();
    if !args.against.is_empty() {
        let key = trusted_key(args.public_key.as_ref(), settings)?;
        let origin = origin_of(reader.head().await?.journal_id);
        for place in &args.against {
            match open(&places::read_named(place).await?, &key, &origin) {
                Ok(checkpoint) => {
                    against.push(Against { checkpoint: place.clone(), size: checkpoint.size });
                    options.against.push(checkpoint);
                }
                Err(error) => return not_relied_on(place, &error, output),
            }
        }
    }
    let bar = output.bar(0, "verifying");
    let mut connection = super::connection(reader).await?;
    let books: Box<dyn BooksCheck> = Box::new(Books::default());
    let report = verify(&mut connection, options.clone(), Some(books), &mut |progress| {
        bar.set_length(progress.last.get());
        bar.set_position(progress.position.get());
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    print(&report, &options, &against, output)?;
    Ok(if report.first_divergence.is_none() { Outcome::Fine } else { Outcome::CheckFailed })
}

/// Opens a checkpoint that must be of this journal.
pub(super) fn open(note: &str, key: &TrustedKey, origin: &str) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::open(note, key)?;
    if checkpoint.origin == origin {
        Ok(checkpoint)
    } else {
        Err(CheckpointError::OtherOrigin { found: checkpoint.origin, expected: origin.to_owned() })
    }
}

/// The key that the user named, or that belongs to the one that we sign with.
pub(super) fn trusted_key(named: Option<&TrustedKey>, settings: &Settings) -> Result<TrustedKey, Failure> {
    match named {
        Some(key) => Ok(key.clone()),
        None => match settings.checkpoint_key_if_known()? {
            Some(seed) => Ok(TrustedKey::of_seed(&seed)),
            None => Err(Failure::usage(NoKey)),
        },
    }
}

/// Says why a checkpoint, a proof or the journal itself does not hold: a check that failed.
pub(super) fn not_relied_on(what: &str, error: &(dyn Error + 'static), output: Output) -> Result<Outcome, Failure> {
    let detail = format!("{what}: {}", one_line(error));
    if output.is_json() {
        output.json(&Refused { ok: false, detail })?;
    } else {
        output.line(format_args!("FAILED  {detail}"))?;
    }
    Ok(Outcome::CheckFailed)
}

/// The first divergence of a journal that therefore was not signed.
pub(super) fn print_divergence(report: &Report, output: Output) -> Result<(), Failure> {
    print(report, &VerifyOptions::default(), &[], output)
}

fn print(report: &Report, options: &VerifyOptions, against: &[Against], output: Output) -> Result<(), Failure> {
    if output.is_json() {
        let first_divergence = report.first_divergence.as_ref().map(|divergence| FirstDivergence {
            position: divergence.position,
            kind: divergence.kind.name(),
            detail: &divergence.detail,
        });
        output.json(&Verified {
            ok: first_divergence.is_none(),
            events: report.events,
            head: report.head,
            root: report.root.map(|root| root.to_string()),
            first_divergence,
            against,
        })?;
        return Ok(());
    }
    let Some(divergence) = &report.first_divergence else {
        let last = options.to.map_or(report.head, |to| to.min(report.head));
        let books = match options.from {
            Some(from) if from != Position::new(1) => "; the books were not checked, since it did not begin at 1",
            None | Some(_) => ", and the books tie out",
        };
        output.line(format_args!(
            "{} events up to position {last}: content, order, times and chain are as they were appended{books}.",
            report.events
        ))?;
        if let Some(root) = report.root {
            output.line(format_args!("root  {root}"))?;
        }
        for Against { checkpoint, size } in against {
            output.line(format_args!("The journal extends the {size} events of {checkpoint}."))?;
        }
        return Ok(());
    };
    output.line(format_args!(
        "The journal diverges at position {}: {}: {}",
        divergence.position,
        divergence.kind.name(),
        divergence.detail
    ))?;
    Ok(())
}

/// The domain's check of the books, fed from the journal.
#[derive(Default)]
pub struct Books {
    tie_out: TieOut,
}

impl BooksCheck for Books {
    fn wants(&self, event_type: &str) -> bool {
        matches!(
            event_type,
            EntryPosted::TYPE
                | BalanceTransactionObserved::TYPE
                | StripeObjectsLinked::TYPE
                | PeriodClosed::TYPE
                | PeriodReopened::TYPE
        )
    }

    fn event<'a>(&mut self, event: &SeenEvent<'a>) -> Result<Option<Cow<'a, str>>, String> {
        let stream = (event.aggregate_type, event.aggregate_id);
        let kind = (event.event_type, event.event_version);
        self.tie_out.recorded(stream, kind, event.payload, event.position.get()).map_err(|error| one_line(&error))
    }

    fn end(&mut self) -> Result<(), String> {
        match self.tie_out.end() {
            Ok(_) => Ok(()),
            Err((position, error)) => Err(format!("{} (last moved at position {position})", one_line(&error))),
        }
    }
}
