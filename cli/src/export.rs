//! The ledger as files that other programs open: hledger, beancount, spreadsheets, whatever reads Parquet.
//!
//! Read in this order: [`write`] here, which goes once over a snapshot and adds up what it writes; [`Format`], which each of
//! [`hledger`], [`beancount`], [`csv`] and [`parquet`] is; [`sink`], where bytes go. `docs/export.md` is for those who open the files.
//!
//! Invariants:
//! - Memory is a row per account and one entry (Parquet: one row group), however long the history is.
//! - What is written adds up, account by account, to the closing balances, or nothing is kept.
//! - The same range at the same position gives the same bytes.

pub mod beancount;
pub mod csv;
pub mod hledger;
pub mod parquet;
pub mod sink;

use std::collections::{BTreeMap, HashMap};

use fanledger_domain::entry::Side;
use fanledger_domain::money::Currency;
use fanledger_domain::period::Month;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{ExportRange, ExportSnapshot, ExportedAccount, ExportedEntry, ReadError};
use futures::TryStreamExt as _;
use serde::Serialize;
use uuid::Uuid;

use self::sink::{Sink, SinkError};
use crate::output::amount;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The books could not be read.
    #[error("read the ledger to export it")]
    Read(#[from] ReadError),
    /// The file could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A line of CSV could not be written.
    #[error("write a line of the export")]
    Csv(#[source] std::io::Error),
    /// A part of a Parquet file could not be written.
    #[error("write a part of the export")]
    Parquet(#[source] ::parquet::errors::ParquetError),
    /// Parquet's integers are of 64 bits.
    #[error("the opening balance of {account} in {currency} is beyond 64 bits: export it as text (--format csv)")]
    TooLarge {
        /// The account.
        account: String,
        /// The currency.
        currency: Currency,
    },
    /// Likewise: there are lines of accounts of which no balance is known, or none of some that are.
    #[error(
        "{written} lines were written, and the balances are of {counted}: nothing was kept; \
         `fanledger projections verify entries` and `… verify postings` say which of the two is wrong"
    )]
    Lines {
        /// How many were written.
        written: u64,
        /// How many the accounts have.
        counted: u64,
    },
    /// The two projections that an export is made from are not of the same books.
    #[error(
        "what was written of {account} adds up to {} {currency}, and its balance is {}: nothing was kept; \
         `fanledger projections verify entries` and `… verify postings` say which of the two is wrong", amount(*.written_minor, *.currency), amount(*.balance_minor, *.currency)
    )]
    Differs {
        /// The account.
        account: String,
        /// The currency.
        currency: Currency,
        /// What was written, in minor units.
        written_minor: i128,
        /// What it should be.
        balance_minor: i128,
    },
}

/// What is exported, for the head of a file.
#[derive(Clone, Debug)]
pub struct Heading {
    /// The journal.
    pub journal_id: Uuid,
    /// Everything up to here is in it.
    pub position: u64,
    /// The journal's chain there, in hexadecimal.
    pub chain: String,
    /// Whether that is the position at which the month was closed.
    pub is_closed: bool,
    /// The month whose close that is, where it is a later one.
    pub closed_with: Option<Month>,
    /// Which entries.
    pub range: ExportRange,
}

impl Heading {
    /// In words, a line each.
    pub fn lines(&self) -> Vec<String> {
        let ExportRange { by, from, until, currency, .. } = self.range;
        let mut lines = vec![
            format!("The ledger at position {} of journal {}", self.position, self.journal_id),
            format!("chain {}", self.chain),
        ];
        let from = from.map_or_else(|| "the beginning".to_owned(), |from| from.to_string());
        let until = until.map_or_else(|| "its end".to_owned(), |until| format!("{until}, not including it"));
        lines.push(format!("from {from} until {until}, by {} time; dates are UTC's", by.as_str()));
        lines.extend(self.state());
        lines.extend(currency.map(|currency| format!("only {currency}")));
        lines
    }

    /// Whether the range's month is closed, in words. A close is not told by its number: the month is exported with the same bytes
    /// when it is asked for by number, after it was opened again.
    pub fn state(&self) -> Option<String> {
        self.range.month.map(|month| match (self.is_closed, self.closed_with) {
            (true, Some(with)) => format!("{month} as the close of {with} fixed it"),
            (true, None) => format!("{month} as its close fixed it"),
            (false, _) => format!("{month} is open: what is booked in it later is not here"),
        })
    }
}

/// One line of an entry, as formats write it.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// Its number in the entry, from 1.
    pub number: i32,
    /// The account.
    pub account: &'a str,
    /// The currency.
    pub currency: Currency,
    /// In minor units, debits positive.
    pub minor: i128,
    /// The balance after it, where it is the last of its account and currency.
    pub closing_minor: Option<i128>,
}

impl Line<'_> {
    /// Debit or credit; of nothing, debit.
    pub const fn side(&self) -> Side {
        if self.minor < 0 { Side::Credit } else { Side::Debit }
    }

    /// The amount in the currency's decimals, debits positive.
    pub fn amount(&self) -> String {
        amount(self.minor, self.currency)
    }
}

/// A way to write the ledger down. Each is given its parts in this order.
pub trait Format: Send {
    /// The head, and every account that follows.
    ///
    /// # Errors
    /// When it cannot be written.
    fn begin(&mut self, heading: &Heading, accounts: &[ExportedAccount]) -> Result<(), ExportError>;

    /// What stood before the range, at its first instant; only where something did.
    ///
    /// # Errors
    /// When it cannot be written.
    fn opening(&mut self, at: Timestamp, lines: &[Line<'_>]) -> Result<(), ExportError>;

    /// An entry.
    ///
    /// # Errors
    /// When it cannot be written.
    fn entry(&mut self, entry: &ExportedEntry, lines: &[Line<'_>]) -> Result<(), ExportError>;

    /// The end.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finish(self: Box<Self>, accounts: &[ExportedAccount]) -> Result<Sink, ExportError>;
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// Entries.
    pub entries: u64,
    /// Their lines, without those of opening balances.
    pub postings: u64,
    /// Accounts, each counted once for each of its currencies.
    pub accounts: u64,
    /// The journal.
    pub journal_id: Uuid,
    /// Everything up to here is in it.
    pub position: u64,
    /// The journal's chain there, in hexadecimal.
    pub chain: String,
    /// Whether that is the position at which the month was closed: then these books stay as they are.
    pub is_closed: bool,
    /// The month whose close that is, where it is a later one: the first close closes everything before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_with: Option<Month>,
}

/// What is left to be written of an account in one currency.
struct Account {
    written_minor: i128,
    closing_minor: i128,
    left: u64,
}

/// By account and currency.
type Accounts<'a> = HashMap<&'a str, BTreeMap<Currency, Account>>;

/// Writes a snapshot. `progress` is called now and then with the postings written and how many there are.
///
/// # Errors
/// When the books cannot be read, their file cannot be written, or what was written does not add up.
pub async fn write(
    snapshot: &mut ExportSnapshot,
    mut format: Box<dyn Format>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(Written, Sink), ExportError> {
    let range = snapshot.range();
    let heading = Heading {
        journal_id: snapshot.journal_id,
        position: snapshot.position,
        chain: snapshot.chain.clone(),
        is_closed: snapshot.is_closed,
        closed_with: snapshot.closed_with,
        range,
    };
    let mut accounts = snapshot.accounts().await?;
    // What was settled before the range and does not move in it is in no trial balance of it.
    accounts.retain(|account| account.postings > 0 || account.opening_minor != 0);
    format.begin(&heading, &accounts)?;
    let mut open: Accounts<'_> = HashMap::new();
    for account in &accounts {
        let left = Account {
            written_minor: account.opening_minor,
            closing_minor: account.closing_minor,
            left: account.postings,
        };
        open.entry(&account.account).or_default().insert(account.currency, left);
    }
    if let Some(from) = range.from {
        let lines = opening_lines(&accounts);
        if !lines.is_empty() {
            format.opening(from, &lines)?;
        }
    }
    let total: u64 = accounts.iter().map(|account| account.postings).sum();
    let (mut entries, mut postings) = (0_u64, 0_u64);
    let mut stream = snapshot.entries();
    while let Some(entry) = stream.try_next().await? {
        let lines: Vec<Line<'_>> = entry
            .postings
            .iter()
            .map(|posting| {
                let minor = i128::from(posting.minor);
                let mut line = Line {
                    number: posting.line,
                    account: &posting.account,
                    currency: posting.currency,
                    minor,
                    closing_minor: None,
                };
                let of_account = open.get_mut(posting.account.as_str());
                if let Some(account) = of_account.and_then(|account| account.get_mut(&posting.currency)) {
                    account.written_minor += minor;
                    account.left = account.left.saturating_sub(1);
                    line.closing_minor = (account.left == 0).then_some(account.closing_minor);
                }
                line
            })
            .collect();
        format.entry(&entry, &lines)?;
        entries += 1;
        postings += lines.len() as u64;
        if entries.is_multiple_of(1024) {
            progress(postings, total);
        }
    }
    drop(stream);
    check(&open, postings, total)?;
    drop(open);
    let sink = format.finish(&accounts)?;
    let written = Written {
        entries,
        postings,
        accounts: accounts.len() as u64,
        journal_id: heading.journal_id,
        position: heading.position,
        chain: heading.chain,
        is_closed: heading.is_closed,
        closed_with: heading.closed_with,
    };
    Ok((written, sink))
}

fn opening_lines(accounts: &[ExportedAccount]) -> Vec<Line<'_>> {
    let standing = accounts.iter().filter(|account| account.opening_minor != 0);
    (1..)
        .zip(standing)
        .map(|(number, account)| Line {
            number,
            account: &account.account,
            currency: account.currency,
            minor: account.opening_minor,
            closing_minor: (account.postings == 0).then_some(account.closing_minor),
        })
        .collect()
}

/// Whether what was written is what the sums say.
fn check(open: &Accounts<'_>, postings: u64, total: u64) -> Result<(), ExportError> {
    let all =
        || open.iter().flat_map(|(account, of)| of.iter().map(move |(currency, sums)| (*account, *currency, sums)));
    let differs = |sums: &Account| sums.written_minor != sums.closing_minor || sums.left > 0;
    let first = all().filter(|(_, _, sums)| differs(sums)).min_by_key(|(account, currency, _)| (*account, *currency));
    match first {
        // A line more than the sums know of is of an account that they do not know.
        None if postings != total => Err(ExportError::Lines { written: postings, counted: total }),
        None => Ok(()),
        Some((account, currency, sums)) => Err(ExportError::Differs {
            account: account.to_owned(),
            currency,
            written_minor: sums.written_minor,
            balance_minor: sums.closing_minor,
        }),
    }
}

/// The date of an instant in UTC: `2026-10-31`.
pub fn date(at: Timestamp) -> String {
    at.to_chrono().format("%Y-%m-%d").to_string()
}

/// One line of text without what ends a line or moves a cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd() -> Currency {
        "usd".parse().unwrap()
    }

    fn accounts(sums: &[(&'static str, i128, i128, u64)]) -> Accounts<'static> {
        let account = |&(name, written_minor, closing_minor, left)| {
            (name, BTreeMap::from([(usd(), Account { written_minor, closing_minor, left })]))
        };
        sums.iter().map(account).collect()
    }

    #[test]
    fn what_does_not_add_up_is_named_by_its_first_account() {
        assert!(check(&accounts(&[("assets:bank", 5, 5, 0), ("income:other", -5, -5, 0)]), 2, 2).is_ok());
        for sums in [("income:other", -5, -6, 0), ("income:other", -5, -5, 1)] {
            let open = accounts(&[("assets:bank", 5, 5, 0), sums, ("revenue", 1, 2, 0)]);
            let Err(ExportError::Differs { account, written_minor, .. }) = check(&open, 2, 2) else { panic!("kept") };
            assert_eq!((account.as_str(), written_minor), ("income:other", -5));
        }
    }

    #[test]
    fn a_line_of_an_account_that_nobody_knows_is_never_kept() {
        for open in [accounts(&[]), accounts(&[("assets:bank", 5, 5, 0)])] {
            let kept = check(&open, 2, open.len() as u64);
            assert!(matches!(kept, Err(ExportError::Lines { written: 2, .. })), "{kept:?}");
        }
    }
}
