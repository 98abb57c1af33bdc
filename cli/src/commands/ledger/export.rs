//! `fanledger ledger export`: the ledger as a file for another program.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Days, NaiveDate, NaiveTime};
use clap::{Args, ValueEnum};
use fanledger_domain::money::Currency;
use fanledger_domain::period::Month;
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_gateway::read::{By, ExportRange, ExportSnapshot};
use serde::Serialize;

use super::{Axis, parse_currency};
use crate::export::beancount::Beancount;
use crate::export::csv::Csv;
use crate::export::hledger::Hledger;
use crate::export::parquet::Parquet;
use crate::export::sink::{Sink, Through};
use crate::export::{self, ExportError, Format, Written};
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::roles::Signal;
use crate::settings::Settings;

/// What, of when, and where to.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Who will open it.
    #[arg(long, value_enum)]
    format: FormatName,
    /// The file to write; `-` is standard output. It appears when it is complete.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only this month (UTC), after a transaction with the opening balances; where it is closed, as its close fixed it.
    #[arg(long, value_parser = parse_month, value_name = "YYYY-MM", conflicts_with_all = ["from", "to"])]
    period: Option<Month>,
    /// Which close of the month, where it was reopened: 1, 2, …; without it the one that it is closed by.
    #[arg(long, requires = "period", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    close: Option<u32>,
    /// Only from here on, after a transaction with the opening balances: a date (UTC), or an instant (RFC 3339).
    #[arg(long, value_parser = parse_from, value_name = "DATE|TIME")]
    from: Option<Timestamp>,
    /// Only up to here, inclusive: a date (UTC), whose end is meant, or an instant (RFC 3339).
    #[arg(long, value_parser = parse_to, value_name = "DATE|TIME")]
    to: Option<Until>,
    /// Which of an entry's times the range and the dates are of.
    #[arg(long, value_enum, default_value_t = Axis::Effective)]
    by: Axis,
    /// Only this currency.
    #[arg(long, value_parser = parse_currency)]
    currency: Option<Currency>,
}

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// A journal for hledger.
    Hledger,
    /// A ledger for beancount.
    Beancount,
    /// A row for each posting, for spreadsheets.
    Csv,
    /// A row for each posting, in typed columns.
    Parquet,
}

/// An end that is not in the range any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Until(pub Timestamp);

fn parse_month(text: &str) -> Result<Month, String> {
    text.parse::<Month>().map_err(|error| error.to_string())
}

const EXPECTED: &str = "expected a date such as 2026-01-31, or a time in RFC 3339 with an offset";

/// The first instant of a date in UTC.
fn start_of(date: NaiveDate) -> Result<Timestamp, String> {
    Timestamp::from_chrono(date.and_time(NaiveTime::MIN).and_utc()).map_err(|error| error.to_string())
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| EXPECTED.to_owned())?;
    Timestamp::from_chrono(time.to_utc()).map_err(|error| error.to_string())
}

pub(super) fn parse_from(text: &str) -> Result<Timestamp, String> {
    text.parse::<NaiveDate>().map_or_else(|_| instant(text), start_of)
}

pub(super) fn parse_to(text: &str) -> Result<Until, String> {
    let until = match text.parse::<NaiveDate>() {
        Ok(date) => start_of(date.checked_add_days(Days::new(1)).ok_or_else(|| EXPECTED.to_owned())?),
        // The instant itself is in the range; nothing lies between it and the next microsecond.
        Err(_) => Timestamp::from_unix_micros(instant(text)?.as_unix_micros() + 1).map_err(|error| error.to_string()),
    };
    until.map(Until)
}

#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("Parquet is not for a terminal or a pipe: give --out a file")]
    ParquetToStdout,
    #[error("the range ends before it begins: --from {from}, and nothing from {until} on")]
    Backwards { from: Timestamp, until: Timestamp },
    #[error("a close fixes a month by effective date: --close goes without --by {}", .0.as_str())]
    CloseBy(By),
    #[error("that month is beyond the years that a time can be of")]
    Month(#[source] TimestampError),
}

/// Somebody pressed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: nothing was kept")]
struct Interrupted;

/// What there was before under that name is still there.
#[derive(Debug, thiserror::Error)]
#[error("export to {}: nothing was kept", place.display())]
struct NotKept {
    place: PathBuf,
    #[source]
    source: ExportError,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Exported<'a> {
    format: &'a str,
    out: &'a Path,
    #[serde(flatten)]
    written: &'a Written,
    by: &'a str,
    /// Null where the range begins with the ledger.
    from: Option<String>,
    /// Not in the range any more; null where it ends with the ledger.
    until: Option<String>,
    currency: Option<Currency>,
    bytes: u64,
    sha256: &'a str,
}

impl ExportArgs {
    fn range(&self) -> Result<ExportRange, UsageError> {
        let (from, until) = match self.period {
            Some(month) => {
                (Some(month.start().map_err(UsageError::Month)?), Some(month.end().map_err(UsageError::Month)?))
            }
            None => (self.from, self.to.map(|Until(until)| until)),
        };
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            return Err(UsageError::Backwards { from, until });
        }
        let by = self.by.into();
        // A close fixes what is booked in the month; what happened in it may still be told later.
        let month = self.period.filter(|_| by == By::Effective);
        if self.close.is_some() && month.is_none() {
            return Err(UsageError::CloseBy(by));
        }
        Ok(ExportRange { by, from, until, currency: self.currency, month, close: self.close })
    }
}

/// A writer of the format.
///
/// # Errors
/// When its first bytes cannot be written.
pub fn format_of(name: FormatName, sink: Sink, range: ExportRange) -> Result<Box<dyn Format>, ExportError> {
    Ok(match name {
        FormatName::Hledger => Box::new(Hledger::new(sink, range.by)),
        FormatName::Beancount => Box::new(Beancount::new(sink, range)),
        FormatName::Csv => Box::new(Csv::new(sink, range.by)),
        FormatName::Parquet => Box::new(Parquet::new(sink, range.by)?),
    })
}

pub(super) async fn run(args: &ExportArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let range = args.range().map_err(Failure::usage)?;
    let to_stdout = args.out == Path::new("-");
    if to_stdout && args.format == FormatName::Parquet {
        return Err(Failure::usage(UsageError::ParquetToStdout));
    }
    let mut signal = Signal::new()?;
    let pool = super::show::connect(settings).await?;
    let bar = output.bar(0, "exporting postings");
    let work = async {
        let mut snapshot = ExportSnapshot::begin(&pool, range).await.map_err(super::show::failed)?;
        let sink = if to_stdout { Sink::stdout() } else { Sink::file(&args.out)? };
        let format = format_of(args.format, sink, range)?;
        let mut progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let written = export::write(&mut snapshot, format, &mut progress).await;
        let (written, sink) = written.map_err(|error| match error {
            ExportError::Read(error) => super::show::failed(error),
            other @ (ExportError::Sink(_)
            | ExportError::Csv(_)
            | ExportError::Parquet(_)
            | ExportError::TooLarge { .. }
            | ExportError::Lines { .. }
            | ExportError::Differs { .. }) => NotKept { place: args.out.clone(), source: other }.into(),
        })?;
        Ok::<_, Failure>((written, sink.keep()?))
    };
    let done = tokio::select! {
        done = work => done,
        () = signal.received() => Err(Interrupted.into()),
    };
    bar.finish_and_clear();
    let (written, through) = done?;
    tell(args, range, &written, &through, output)?;
    Ok(Outcome::Fine)
}

/// Where the export itself went to standard output, what is said of it goes to standard error.
fn tell(
    args: &ExportArgs,
    range: ExportRange,
    written: &Written,
    through: &Through,
    output: Output,
) -> Result<(), Failure> {
    let format = match args.format {
        FormatName::Hledger => "hledger",
        FormatName::Beancount => "beancount",
        FormatName::Csv => "csv",
        FormatName::Parquet => "parquet",
    };
    let exported = Exported {
        format,
        out: &args.out,
        written,
        by: range.by.as_str(),
        from: range.from.map(|at| at.to_string()),
        until: range.until.map(|at| at.to_string()),
        currency: range.currency,
        bytes: through.bytes,
        sha256: &through.sha256,
    };
    let is_stdout = args.out == Path::new("-");
    match (output.is_json(), is_stdout) {
        (true, false) => output.json(&exported)?,
        (true, true) => eprintln!("{}", serde_json::to_string(&exported)?),
        (false, _) => {
            let lines = [
                format!(
                    "{} entries with {} postings on {} accounts, {} bytes: {}",
                    written.entries,
                    written.postings,
                    written.accounts,
                    through.bytes,
                    args.out.display()
                ),
                format!("position {}{}, chain {}", written.position, closed_text(range, written), written.chain),
                format!("sha256 {}", through.sha256),
            ];
            for line in lines {
                if is_stdout { eprintln!("{line}") } else { output.line(line)? }
            }
        }
    }
    Ok(())
}

/// What the position is to the range's month, to follow it.
fn closed_text(range: ExportRange, written: &Written) -> String {
    match (range.month, written.is_closed, written.closed_with) {
        (Some(month), false, _) => format!(" ({month} is open: what is booked in it later is not here)"),
        (_, true, Some(with)) => format!(", which closed the month with {with}"),
        (_, true, None) => ", which closed the month".to_owned(),
        (None, false, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_date_is_a_whole_day() {
        assert_eq!(parse_from("2026-10-01"), Ok(at("2026-10-01T00:00:00Z")));
        assert_eq!(parse_to("2026-10-31"), Ok(Until(at("2026-11-01T00:00:00Z"))));
        assert_eq!(parse_to("2026-10-31T12:00:00Z"), Ok(Until(at("2026-10-31T12:00:00.000001Z"))));
        for bad in ["", "2026-13-01", "yesterday", "2026-10-31T12:00:00", "17"] {
            assert!(parse_from(bad).is_err() && parse_to(bad).is_err(), "{bad}");
        }
    }
}
