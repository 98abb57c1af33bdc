//! As of when a question about the books is asked, on the command line.

use chrono::{NaiveDate, NaiveTime};
use clap::Args;
use fanledger_domain::account::Account;
use fanledger_domain::money::Currency;
use fanledger_domain::period::Month;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{AsOf, Asked, By};

use super::{AsOfArgs, parse_account};
use crate::failure::Failure;

/// As of when: an instant, a position, or as the close of a month fixed it.
#[derive(Debug, Args)]
pub struct AskedArgs {
    /// As of when.
    #[command(flatten)]
    pub(super) as_of: AsOfArgs,
    /// A closed month, 2026-10: by effective date, as it was known at its close.
    #[arg(long, value_parser = parse_month, value_name = "MONTH", conflicts_with_all = ["as_of", "by"])]
    period: Option<Month>,
    /// Which close of the month, where it was reopened: 1, 2, …; the last without it.
    #[arg(long, requires = "period", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    close: Option<u32>,
}

impl AskedArgs {
    /// The question's time.
    pub(super) fn asked(&self) -> Asked {
        match self.period {
            Some(period) => Asked::Period(period, self.close),
            None => Asked::AsOf(self.as_of.as_of.unwrap_or(AsOf::Latest), self.as_of.by.into()),
        }
    }

    /// Only this currency.
    pub(super) const fn currency(&self) -> Option<Currency> {
        self.as_of.currency
    }

    /// The same in words, to follow a title; nothing for now.
    pub(super) fn text(&self) -> String {
        match self.asked() {
            Asked::Period(period, None) => format!(", {period} as it was closed"),
            Asked::Period(period, Some(close)) => format!(", {period} as its close {close} left it"),
            Asked::AsOf(as_of, by) => as_of_text(as_of, by),
        }
    }
}

/// As of when, in words.
pub(super) fn as_of_text(as_of: AsOf, by: By) -> String {
    match as_of {
        AsOf::Latest => String::new(),
        AsOf::Position(position) => format!(", as it was known at position {position}"),
        AsOf::Instant(at) => format!(", as of {at} by {} time", by.as_str()),
        AsOf::Known { instant, position } => {
            format!(", as of {instant} by {} time, as it was known at position {position}", by.as_str())
        }
    }
}

/// Which account, and which of its lines.
#[derive(Debug, Args)]
pub struct AccountArgs {
    /// The account, such as assets:stripe:clearing.
    #[arg(value_parser = parse_account)]
    pub(super) account: Account,
    /// When.
    #[command(flatten)]
    pub(super) span: SpanArgs,
}

/// From when to when.
#[derive(Debug, Args)]
pub struct SpanArgs {
    /// As of when.
    #[command(flatten)]
    pub(super) asked: AskedArgs,
    /// The first line's time on the axis of --by, inclusive: a date, whose start in UTC is meant, or an instant (RFC 3339).
    #[arg(long, value_parser = parse_from, value_name = "DATE|TIME", conflicts_with = "period")]
    from: Option<Timestamp>,
    /// The last line's, inclusive: a date, whose end in UTC is meant, or an instant; another word for --as-of.
    #[arg(long, value_parser = parse_to, value_name = "DATE|TIME", conflicts_with_all = ["period", "as_of"])]
    to: Option<Timestamp>,
}

/// Why a statement has no lines that could be meant.
#[derive(Debug, thiserror::Error)]
enum SpanError {
    #[error("--from {from} is after the statement's end, {to}")]
    Backwards { from: Timestamp, to: Timestamp },
    #[error("--from goes with an end that is a time, not with --as-of a position")]
    Position,
}

impl SpanArgs {
    /// The first instant, where one is given, and the end.
    pub(super) fn span(&self) -> Result<(Option<Timestamp>, Asked), Failure> {
        let asked = match (self.to, self.asked.asked()) {
            (Some(to), Asked::AsOf(_, by)) => Asked::AsOf(AsOf::Instant(to), by),
            (_, asked) => asked,
        };
        match (self.from, asked) {
            (Some(from), Asked::AsOf(AsOf::Instant(to), _)) if from > to => {
                Err(Failure::usage(SpanError::Backwards { from, to }))
            }
            (Some(_), Asked::AsOf(AsOf::Position(_), _)) => Err(Failure::usage(SpanError::Position)),
            (_, asked @ (Asked::AsOf(..) | Asked::Period(..))) => Ok((self.from, asked)),
        }
    }

    /// The same in words.
    pub(super) fn text(&self) -> String {
        let from = self.from.map_or_else(String::new, |from| format!(", from {from}"));
        match self.to {
            Some(to) => format!("{from}, to {to} by {} time", By::from(self.asked.as_of.by).as_str()),
            None => format!("{from}{}", self.asked.text()),
        }
    }
}

pub(super) fn parse_month(text: &str) -> Result<Month, String> {
    text.parse::<Month>().map_err(|error| error.to_string())
}

fn parse_from(text: &str) -> Result<Timestamp, String> {
    at(text, |date| Timestamp::from_chrono(date.and_time(NaiveTime::MIN).and_utc()).ok())
}

fn parse_to(text: &str) -> Result<Timestamp, String> {
    at(text, |date| {
        let next = date.succ_opt()?.and_time(NaiveTime::MIN).and_utc();
        Timestamp::from_unix_micros(next.timestamp_micros() - 1).ok()
    })
}

fn at(text: &str, of: impl Fn(NaiveDate) -> Option<Timestamp>) -> Result<Timestamp, String> {
    let at = match text.parse::<NaiveDate>() {
        Ok(date) => of(date),
        Err(_) => text.parse().ok(),
    };
    at.ok_or_else(|| "expected a date such as 2026-01-31, or a time in RFC 3339 with an offset".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_begins_and_ends_with_its_day() {
        assert_eq!(parse_from("2028-02-29"), Ok("2028-02-29T00:00:00Z".parse().unwrap()));
        assert_eq!(parse_to("2028-02-29"), Ok("2028-02-29T23:59:59.999999Z".parse().unwrap()));
        assert_eq!(parse_to("2028-02-29T12:00:00+01:00"), Ok("2028-02-29T11:00:00Z".parse().unwrap()));
        for bad in ["", "2026-02-30", "2026-02", "2026-02-01T00:00:00"] {
            assert!(parse_from(bad).is_err() && parse_to(bad).is_err(), "{bad}");
        }
    }
}
