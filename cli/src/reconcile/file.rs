//! A list of balance transactions as finance has it: Stripe's CSV, from the dashboard or the reports API, or the API's JSON, as a
//! list object, an array, or an object a line. It is read from its beginning to its end and never held.

mod csv;
mod json;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use fanledger_domain::id::IdError;
use fanledger_domain::money::MoneyError;
use fanledger_domain::stripe::Unreadable;

use super::Theirs;

/// Why a list could not be read. Nothing was compared, then.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No columns that we know.
    #[error(
        "the header has no column for {missing}; it has: {found}. Export the balance history (or \"balance change from \
         activity\", itemized) from Stripe's dashboard as CSV, or give the API's JSON"
    )]
    Header {
        /// What was looked for.
        missing: &'static str,
        /// What is there.
        found: String,
    },
    /// A column that we need is there more than once.
    #[error("the header has more than one column {0}")]
    HeaderTwice(String),
    /// A line with more or fewer fields than the header: cut, most often.
    #[error("line {line}: it has {found} fields and the header has {expected}; was the file cut?")]
    Fields {
        /// The line.
        line: u64,
        /// Its fields.
        found: u64,
        /// The header's.
        expected: u64,
    },
    /// Not text in UTF-8, or a quote that is not closed.
    #[error("line {line}: it is not CSV in UTF-8")]
    Csv {
        /// The line.
        line: u64,
        /// What is wrong.
        #[source]
        source: ::csv::Error,
    },
    /// A field is not what its column holds.
    #[error("line {line}, {column}: {what}")]
    Field {
        /// The line.
        line: u64,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        what: FieldError,
    },
    /// Not JSON, cut, or not of balance transactions.
    #[error("the JSON cannot be read to its end")]
    Json(#[source] serde_json::Error),
}

/// Why a field cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// No id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// An id of something else.
    #[error("{0} is not the id of a balance transaction, txn_…: is this another of Stripe's exports?")]
    NotATransaction(String),
    /// No currency.
    #[error(transparent)]
    Currency(#[from] MoneyError),
    /// No decimal number.
    #[error("{0:?} is not an amount: expected digits with a decimal point, such as -12.34")]
    Amount(String),
    /// More decimals than the currency has.
    #[error("{text:?} has more decimals than {currency} has, which is {exponent}")]
    Decimals {
        /// The amount.
        text: String,
        /// Its currency.
        currency: fanledger_domain::money::Currency,
        /// How many it may have.
        exponent: u32,
    },
    /// Beyond what Stripe handles.
    #[error("{0:?} is too large an amount")]
    TooLarge(String),
    /// It does not add up.
    #[error("it is not the amount less the fee")]
    Net,
    /// No time.
    #[error("{0:?} is not a time: expected 2026-01-31 12:34:56, or without seconds, or a date")]
    Time(String),
    /// Not a balance transaction.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Why reading stopped before the end.
#[derive(Debug)]
pub enum Stopped {
    /// By the file.
    File(FileError),
    /// By who takes its rows.
    Taker,
}

impl From<FileError> for Stopped {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Hands every balance transaction of a file to `take`, which says whether it wants more.
///
/// # Errors
/// See [`Stopped`].
pub fn read(path: &Path, take: &mut dyn FnMut(Theirs) -> bool) -> Result<(), Stopped> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(failed)?);
    let start = file.fill_buf().map_err(failed)?;
    // A mark of UTF-8 that some programs put first.
    let mark = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let first = start.iter().skip(mark).find(|byte| !byte.is_ascii_whitespace());
    let is_json = matches!(first, Some(b'{' | b'['));
    file.consume(mark);
    if is_json { json::read(file, take) } else { csv::read(file, path, take) }
}
