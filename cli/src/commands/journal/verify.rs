//! `fanledger journal verify`.

use clap::Args;
use fanledger_domain::entry::EntryPosted;
use fanledger_domain::event::{BalanceTransactionObserved, Event, StripeObjectsLinked};
use fanledger_domain::tie_out::TieOut;
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::reader::Reader;
use fanledger_journal::verify::{BooksCheck, Report, VerifyOptions, verify};
use serde::Serialize;

use crate::failure::{Failure, Outcome, one_line};
use crate::output::Output;

/// Which part.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The first position; the chain before it is taken as it is.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The last position.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
}

#[derive(Serialize)]
struct Verified<'a> {
    ok: bool,
    events: u64,
    head: Position,
    /// The Merkle root, once there is one.
    root: Option<&'a str>,
    first_divergence: Option<FirstDivergence<'a>>,
}

#[derive(Serialize)]
struct FirstDivergence<'a> {
    position: Position,
    kind: &'static str,
    detail: &'a str,
}

pub(super) async fn run(args: &VerifyArgs, reader: &Reader, output: Output) -> Result<Outcome, Failure> {
    let options = VerifyOptions { from: args.from.map(Position::new), to: args.to.map(Position::new) };
    let bar = output.bar(0, "verifying");
    let mut books = Books::default();
    let report = verify(reader.pool(), options, Some(&mut books), &mut |progress| {
        bar.set_length(progress.last.get());
        bar.set_position(progress.position.get());
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    print(&report, options, output)?;
    Ok(if report.first_divergence.is_none() { Outcome::Fine } else { Outcome::CheckFailed })
}

fn print(report: &Report, options: VerifyOptions, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        let first_divergence = report.first_divergence.as_ref().map(|divergence| FirstDivergence {
            position: divergence.position,
            kind: divergence.kind.name(),
            detail: &divergence.detail,
        });
        let ok = first_divergence.is_none();
        output.json(&Verified { ok, events: report.events, head: report.head, root: None, first_divergence })?;
        return Ok(());
    }
    match &report.first_divergence {
        None => {
            let last = options.to.map_or(report.head, |to| to.min(report.head));
            let books = match options.from {
                Some(from) if from != Position::new(1) => "; the books were not checked, since it did not begin at 1",
                None | Some(_) => ", and the books tie out",
            };
            output.line(format_args!(
                "{} events up to position {last}: content, order, times and chain are as they were appended{books}.",
                report.events
            ))?;
        }
        Some(divergence) => {
            output.line(format_args!(
                "The journal diverges at position {}: {}: {}",
                divergence.position,
                divergence.kind.name(),
                divergence.detail
            ))?;
        }
    }
    Ok(())
}

/// The domain's check of the books, fed from the journal.
#[derive(Default)]
struct Books {
    tie_out: TieOut,
}

impl BooksCheck for Books {
    fn wants(&self, event_type: &str) -> bool {
        matches!(event_type, EntryPosted::TYPE | BalanceTransactionObserved::TYPE | StripeObjectsLinked::TYPE)
    }

    fn event(&mut self, event: &RecordedEvent) -> Result<(), String> {
        let decoded =
            Event::decode(&event.event_type, &event.event_version, &event.payload).map_err(|error| one_line(&error))?;
        self.tie_out.event(&event.stream.to_string(), &decoded, event.position.get()).map_err(|error| one_line(&error))
    }

    fn end(&mut self) -> Result<(), String> {
        match self.tie_out.end() {
            Ok(_) => Ok(()),
            Err((position, error)) => Err(format!("{} (last moved at position {position})", one_line(&error))),
        }
    }
}
