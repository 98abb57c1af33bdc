//! Stripe's CSV. Columns go by name: the dashboard's balance history (`id`, `Type`, `Source`, `Amount`, …, `Created (UTC)`) and the
//! reports' itemized balance changes (`balance_transaction_id`, `created_utc`, `gross`, …) are both known. Amounts are decimals of the
//! currency's main unit (<https://docs.stripe.com/reports/report-types/balance>).

use std::io::Read;
use std::path::Path;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use csv::{ErrorKind, ReaderBuilder, StringRecord};
use fanledger_domain::id::{StripeId, StripeKind};
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;

use super::{FieldError, FileError, Stopped};
use crate::reconcile::Theirs;

const SECOND: i64 = 1_000_000;
/// What JSON readers everywhere hold exactly, and Stripe never exceeds.
const MINOR_MAX: i64 = (1 << 53) - 1;

/// Where each column is.
struct Header {
    id: usize,
    amount: usize,
    fee: usize,
    net: usize,
    currency: usize,
    created: usize,
    reported_as: Option<usize>,
    source: Option<usize>,
}

impl Header {
    fn of(record: &StringRecord) -> Result<Self, FileError> {
        let names: Vec<String> = record
            .iter()
            .map(|name| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase())
            .collect();
        // The first of the names that is there.
        let optional = |wanted: &[&str]| -> Result<Option<usize>, FileError> {
            for name in wanted {
                let mut places = (0..).zip(&names).filter(|(_, there)| there == name).map(|(place, _)| place);
                match (places.next(), places.next()) {
                    (Some(place), None) => return Ok(Some(place)),
                    (Some(place), Some(_)) => {
                        return Err(FileError::HeaderTwice(record.get(place).unwrap_or_default().to_owned()));
                    }
                    (None, _) => {}
                }
            }
            Ok(None)
        };
        let required = |missing: &'static str, wanted: &[&str]| {
            let found = || record.iter().take(40).collect::<Vec<_>>().join(", ");
            optional(wanted)?.ok_or_else(|| FileError::Header { missing, found: found() })
        };
        Ok(Self {
            id: required("the balance transaction's id", &["balancetransactionid", "balancetransaction", "id"])?,
            amount: required("the gross amount", &["gross", "amount"])?,
            fee: required("the fee", &["fee", "fees"])?,
            net: required("the net amount", &["net"])?,
            currency: required("the currency", &["currency"])?,
            created: required("when it was made", &["createdutc", "created"])?,
            reported_as: optional(&["reportingcategory", "type"])?,
            source: optional(&["sourceid", "source"])?,
        })
    }
}

pub(super) fn read(file: impl Read, path: &Path, take: &mut dyn FnMut(Theirs) -> bool) -> Result<(), Stopped> {
    let mut reader = ReaderBuilder::new().from_reader(file);
    let header = Header::of(reader.headers().map_err(|error| failed(path, error))?)?;
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| failed(path, error))? {
        let theirs = row(&header, &record)?;
        if !take(theirs) {
            return Err(Stopped::Taker);
        }
    }
    Ok(())
}

fn failed(path: &Path, error: csv::Error) -> FileError {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            FileError::Fields { line, found: *len, expected: *expected_len }
        }
        _ => match error.into_kind() {
            ErrorKind::Io(source) => FileError::Read { path: path.to_owned(), source },
            other => FileError::Csv { line, source: csv::Error::from(std::io::Error::other(format!("{other:?}"))) },
        },
    }
}

fn row(header: &Header, record: &StringRecord) -> Result<Theirs, FileError> {
    let line = record.position().map_or(0, csv::Position::line);
    let field = |place: usize| record.get(place).unwrap_or_default().trim();
    let wrong = |column: &'static str| move |what: FieldError| FileError::Field { line, column, what };
    let currency = field(header.currency).parse::<Currency>().map_err(|error| wrong("currency")(error.into()))?;
    let minor = |column, place| minor(field(place), currency).map_err(wrong(column));
    let (amount, fee, net) = (minor("amount", header.amount)?, minor("fee", header.fee)?, minor("net", header.net)?);
    // Both are at most 2^53, so the difference cannot overflow.
    if net != amount - fee {
        return Err(wrong("net")(FieldError::Net));
    }
    let (created, created_within_micros) = time(field(header.created)).map_err(wrong("created"))?;
    let source = header.source.map(field).filter(|source| !source.is_empty());
    Ok(Theirs {
        id: id(field(header.id)).map_err(wrong("id"))?,
        currency,
        amount,
        fee,
        net,
        created,
        created_within_micros,
        reported_as: header.reported_as.map_or("", field).to_owned(),
        source: source.map(str::parse::<StripeId>).transpose().map_err(|error| wrong("source")(error.into()))?,
        line,
    })
}

fn id(text: &str) -> Result<StripeId, FieldError> {
    let id: StripeId = text.parse()?;
    if id.kind() == StripeKind::BalanceTransaction { Ok(id) } else { Err(FieldError::NotATransaction(text.to_owned())) }
}

/// A decimal amount in minor units. Fewer decimals than the currency has are taken, more are not; commas between thousands are
/// taken where nothing else can be meant by them.
fn minor(text: &str, currency: Currency) -> Result<i64, FieldError> {
    let malformed = || FieldError::Amount(text.to_owned());
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let exponent = currency.exponent();
    let whole = match whole.split_once(',') {
        None => whole.to_owned(),
        // "1,234" of a currency with three decimals may be 1.234.
        Some(_) if part.is_none() && exponent == 3 => return Err(malformed()),
        Some((first, rest)) => {
            let is_grouped = (1..=3).contains(&first.len()) && rest.split(',').all(|group| group.len() == 3);
            if !is_grouped {
                return Err(malformed());
            }
            whole.replace(',', "")
        }
    };
    let part = part.unwrap_or_default();
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(&whole) || !is_number(part) || digits.ends_with('.') {
        return Err(malformed());
    }
    let decimals = u32::try_from(part.len()).map_err(|_| malformed())?;
    let Some(missing) = exponent.checked_sub(decimals) else {
        return Err(FieldError::Decimals { text: text.to_owned(), currency, exponent });
    };
    let minor: Option<i64> =
        format!("{whole}{part}").parse().ok().and_then(|minor: i64| minor.checked_mul(10_i64.pow(missing)));
    match minor {
        Some(minor) if minor <= MINOR_MAX => Ok(sign * minor),
        Some(_) | None => Err(FieldError::TooLarge(text.to_owned())),
    }
}

/// A time in UTC, and how many microseconds it leaves open.
fn time(text: &str) -> Result<(Timestamp, i64), FieldError> {
    let wrong = || FieldError::Time(text.to_owned());
    let text = text.trim_end_matches('Z').replace('T', " ");
    let seconds = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok().map(|time| (time, SECOND));
    let minutes =
        |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").ok().map(|time| (time, 60 * SECOND));
    let days = |text: &str| {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some((date.and_time(NaiveTime::MIN), 86_400 * SECOND))
    };
    let (time, within) = seconds(&text).or_else(|| minutes(&text)).or_else(|| days(&text)).ok_or_else(wrong)?;
    Ok((Timestamp::from_chrono(time.and_utc()).map_err(|_| wrong())?, within))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, currency: &str) -> Option<i64> {
        minor(text, currency.parse().unwrap()).ok()
    }

    #[test]
    fn amounts_are_exact() {
        for (text, currency, expected) in [
            ("12.34", "usd", Some(1234)),
            ("-0.01", "usd", Some(-1)),
            ("12.3", "usd", Some(1230)),
            ("12", "usd", Some(1200)),
            ("500", "jpy", Some(500)),
            ("-1.234", "kwd", Some(-1234)),
            ("1,234.56", "usd", Some(123_456)),
            ("1,234", "jpy", Some(1234)),
            ("90,071,992,547,409.91", "usd", Some(MINOR_MAX)),
            ("90071992547409.92", "usd", None),
            ("12.345", "usd", None),
            ("500.0", "jpy", None),
            ("1,234", "kwd", None),
            ("1,23.45", "usd", None),
            ("12,34", "usd", None),
            ("12.", "usd", None),
            (".50", "usd", None),
            ("1e3", "usd", None),
            ("+5.00", "usd", None),
            ("--5", "usd", None),
            ("$5.00", "usd", None),
            ("", "usd", None),
            ("99999999999999999999", "usd", None),
        ] {
            assert_eq!(of(text, currency), expected, "{text} {currency}");
        }
    }

    #[test]
    fn a_time_says_how_exact_it_is() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (text, expected, within) in [
            ("2026-09-05 14:03:07", "2026-09-05T14:03:07Z", SECOND),
            ("2026-09-05T14:03:07Z", "2026-09-05T14:03:07Z", SECOND),
            ("2026-09-05 14:03", "2026-09-05T14:03:00Z", 60 * SECOND),
            ("2026-09-05", "2026-09-05T00:00:00Z", 86_400 * SECOND),
        ] {
            assert_eq!(time(text).unwrap(), (at(expected), within), "{text}");
        }
        for text in ["", "2026-09-0", "9/5/26 14:03", "2026-09-05 14:0x", "2026-02-30"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
