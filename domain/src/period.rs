//! Periods of the book: calendar months in UTC, closed one after the other. Stream `period/platform`.
//!
//! The first close may be of any month that has ended, and closes everything before it, too; each later one is of the month after
//! the last. Only the last closed month can be opened again, by another person than who closed it; with the first one, everything
//! that it closed.

use std::fmt;
use std::str::FromStr;

use chrono::{Months, NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};

use crate::event::{Event, payload};
use crate::id::Subject;
use crate::reason::{REASON_FORM, is_reason};
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
        // chrono also takes signs and spaces; a month has one writing.
        let is_written = |(at, byte): (usize, u8)| if at == 4 { byte == b'-' } else { byte.is_ascii_digit() };
        if text.len() != 7 || !text.bytes().enumerate().all(is_written) {
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
        /// The first instant that is open: the start of the month; null where nothing is closed any more.
        pub first_open: Option<Timestamp>,
        /// When it was reopened.
        pub at: Timestamp,
        /// Who reopened it; another than who closed it.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}

/// The first instant to which something can still be booked; everything is open until something was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstOpen(Option<Timestamp>);

impl FirstOpen {
    /// Open from `at` on.
    pub const fn at(at: Timestamp) -> Self {
        Self(Some(at))
    }

    /// The instant; `None` where nothing was ever closed.
    pub const fn instant(self) -> Option<Timestamp> {
        self.0
    }

    /// When something counts that occurred at `occurred_at`: then, or at the first open instant where that is closed.
    pub fn effective(self, occurred_at: Timestamp) -> Timestamp {
        self.0.map_or(occurred_at, |first_open| first_open.max(occurred_at))
    }
}

/// What may be asked of the book's periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeriodCommand {
    /// Close a month.
    Close {
        /// The month.
        period: Month,
        /// Who closes it.
        by: Subject,
    },
    /// Open the last closed month again.
    Reopen {
        /// The month.
        period: Month,
        /// Who opens it.
        by: Subject,
        /// Why.
        reason: String,
    },
}

/// Why a month was not closed, or not opened again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// It goes on.
    #[error("{period} has not ended: it can be closed from {end} on")]
    NotEnded {
        /// The month.
        period: Month,
        /// When it ends.
        end: Timestamp,
    },
    /// An earlier month is still open.
    #[error("{period} is not the next to close: close {next} first")]
    NotNext {
        /// The month.
        period: Month,
        /// The month after the last closed one.
        next: Month,
    },
    /// It was closed before, by itself or with a later one.
    #[error("{period} is closed already; the next to close is {next}")]
    ClosedAlready {
        /// The month.
        period: Month,
        /// The month after the last closed one.
        next: Month,
    },
    /// Nothing that was closed can be opened.
    #[error("{period} cannot be reopened: {}", match .last {
        Some(last) => format!("only the last closed month can, which is {last}"),
        None => "no month that was closed by itself is closed now".to_owned(),
    })]
    NotLast {
        /// The month.
        period: Month,
        /// The last closed one.
        last: Option<Month>,
    },
    /// Two persons are needed.
    #[error("{period} was closed by {by}: somebody else must reopen it")]
    SamePerson {
        /// The month.
        period: Month,
        /// Who closed it.
        by: Subject,
    },
    /// An act against the rule is told why.
    #[error("say why it is reopened, {REASON_FORM}")]
    Reason,
    /// The calendar ends.
    #[error("{period} is outside the years in which books are kept")]
    OutOfRange {
        /// The month.
        period: Month,
        /// What is wrong.
        #[source]
        source: TimestampError,
    },
}

/// The periods of the one book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// The months that were closed and not reopened, oldest first, each with who closed it.
    closed: Vec<(Month, Subject)>,
    first_open: FirstOpen,
    sequence: u64,
}

impl Period {
    /// The type of its stream; there is one, `platform`.
    pub const STREAM: &'static str = "period";
    /// The one book that there is.
    pub const BOOK: &'static str = "platform";

    /// From when on the book is open.
    pub const fn first_open(&self) -> FirstOpen {
        self.first_open
    }

    /// The sequence of the last event of the stream.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The event that `command` leads to at `now`.
    ///
    /// # Errors
    /// When the month is not the one that can be closed or reopened, or not by this person.
    pub fn decide(&self, command: PeriodCommand, now: Timestamp) -> Result<Event, PeriodError> {
        match command {
            PeriodCommand::Close { period, by } => self.close(period, by, now).map(Event::from),
            PeriodCommand::Reopen { period, by, reason } => self.reopen(period, by, reason, now).map(Event::from),
        }
    }

    fn close(&self, period: Month, by: Subject, now: Timestamp) -> Result<PeriodClosed, PeriodError> {
        // What is open begins with a month, always.
        if let Some(next) = self.first_open.instant().map(Month::of) {
            if period < next {
                return Err(PeriodError::ClosedAlready { period, next });
            }
            if period > next {
                return Err(PeriodError::NotNext { period, next });
            }
        }
        let end = period.end().map_err(|source| PeriodError::OutOfRange { period, source })?;
        if now < end {
            return Err(PeriodError::NotEnded { period, end });
        }
        Ok(PeriodClosed { period, first_open: end, at: now, by })
    }

    fn reopen(
        &self,
        period: Month,
        by: Subject,
        reason: String,
        now: Timestamp,
    ) -> Result<PeriodReopened, PeriodError> {
        match self.closed.last() {
            Some((last, closed_by)) if *last == period => {
                if closed_by.is_same_person(&by) {
                    return Err(PeriodError::SamePerson { period, by });
                }
            }
            last => return Err(PeriodError::NotLast { period, last: last.map(|(last, _)| *last) }),
        }
        if !is_reason(&reason) {
            return Err(PeriodError::Reason);
        }
        // The first close also closed what was before its month.
        let first_open = match self.closed.as_slice() {
            [_] => None,
            _ => Some(period.start().map_err(|source| PeriodError::OutOfRange { period, source })?),
        };
        Ok(PeriodReopened { period, first_open, at: now, by, reason })
    }

    /// Takes in an event of the stream.
    pub fn evolve(&mut self, event: &Event) {
        self.sequence += 1;
        if let Event::PeriodClosed(closed) = event {
            self.closed.push((closed.period, closed.by.clone()));
            self.first_open = FirstOpen::at(closed.first_open);
        } else if let Event::PeriodReopened(reopened) = event {
            self.closed.pop();
            self.first_open = FirstOpen(reopened.first_open);
        }
    }
}
