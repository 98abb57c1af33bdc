//! Periods of the book: calendar months in UTC, closed one after the other. Stream `period/platform`.

use std::fmt;
use std::str::FromStr;

use chrono::{Months, NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};

use crate::event::payload;
use crate::id::Subject;
use crate::time::{Timestamp, TimestampError};

/// A calendar month in UTC; as text, `2026-10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Month(NaiveDate);

/// Why a text is not a month.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a month: expected a year and a month, such as 2026-10")]
pub struct MonthError;

impl Month {
    /// The month's first instant.
    ///
    /// # Errors
    /// When the month is outside the years that a [`Timestamp`] holds.
    pub fn start(self) -> Result<Timestamp, TimestampError> {
        Timestamp::from_chrono(self.0.and_time(NaiveTime::MIN).and_utc())
    }

    /// The first instant after the month: the first open one, once it is closed.
    ///
    /// # Errors
    /// When it is outside the years that a [`Timestamp`] holds.
    pub fn end(self) -> Result<Timestamp, TimestampError> {
        self.next().ok_or(TimestampError::Range)?.start()
    }

    /// The month after; `None` after the last.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add_months(Months::new(1)).map(Self)
    }

    /// The month that holds `at`.
    pub fn of(at: Timestamp) -> Self {
        use chrono::Datelike as _;
        let date = at.to_chrono().date_naive();
        Self(date.with_day(1).unwrap_or(date))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m"))
    }
}

impl FromStr for Month {
    type Err = MonthError;
    fn from_str(text: &str) -> Result<Self, MonthError> {
        if text.len() != 7 {
            return Err(MonthError);
        }
        NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").map(Self).map_err(|_| MonthError)
    }
}

impl TryFrom<String> for Month {
    type Error = MonthError;
    fn try_from(text: String) -> Result<Self, MonthError> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

payload! {
    /// From here on, nothing is booked before `first_open`. The month's closing balances are those as of the position of this very
    /// event, by effective date: position and chain fix them for ever.
    pub struct PeriodClosed {
        /// The month.
        pub period: Month,
        /// The first instant that is open: the start of the month after.
        pub first_open: Timestamp,
        /// When it was closed.
        pub at: Timestamp,
        /// Who closed it.
        pub by: Subject,
    }
}

payload! {
    /// The last closed month is open again. What it was when it was closed stays to be read, by the position of that close.
    pub struct PeriodReopened {
        /// The month.
        pub period: Month,
        /// The first instant that is open: the start of the month.
        pub first_open: Timestamp,
        /// When it was reopened.
        pub at: Timestamp,
        /// Who reopened it; another than who closed it.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}
