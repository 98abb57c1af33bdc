//! Instants. Passed in, never read from a clock here.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// An instant in UTC, in whole microseconds since 1970; as text, RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// Why a text or number is not an instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not RFC 3339 with an offset.
    #[error("not a time: expected RFC 3339 with an offset, such as 2026-01-31T12:00:00Z")]
    Form,
    /// Outside the years 0 to 9999, which RFC 3339 and Postgres both hold.
    #[error("time out of range: expected a year from 0 to 9999")]
    Range,
}

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z in seconds.
const SECONDS_MIN: i64 = -62_167_219_200;
const SECONDS_MAX: i64 = 253_402_300_799;

impl Timestamp {
    /// From Unix seconds, as Stripe writes times.
    pub fn from_unix_seconds(seconds: i64) -> Result<Self, TimestampError> {
        if (SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            Ok(Self(seconds * 1_000_000))
        } else {
            Err(TimestampError::Range)
        }
    }

    /// From microseconds since 1970.
    pub fn from_unix_micros(micros: i64) -> Result<Self, TimestampError> {
        if (SECONDS_MIN..=SECONDS_MAX).contains(&micros.div_euclid(1_000_000)) {
            Ok(Self(micros))
        } else {
            Err(TimestampError::Range)
        }
    }

    /// Microseconds since 1970.
    pub const fn as_unix_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn as_unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The instant a microsecond later; the last there is has none after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self::from_unix_micros(self.0 + 1).unwrap_or(self)
    }

    /// So many days of 24 hours later, or earlier where negative; the same instant where that is beyond what times can hold.
    #[must_use]
    pub fn plus_days(self, days: i64) -> Self {
        const DAY_MICROS: i64 = 86_400_000_000;
        let micros = days.checked_mul(DAY_MICROS).and_then(|micros| self.0.checked_add(micros));
        micros.and_then(|micros| Self::from_unix_micros(micros).ok()).unwrap_or(self)
    }

    /// For crates that speak chrono.
    pub fn to_chrono(self) -> DateTime<Utc> {
        // In range by construction; the epoch stands in for what cannot be.
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// From chrono, cut to microseconds.
    pub fn from_chrono(time: DateTime<Utc>) -> Result<Self, TimestampError> {
        Self::from_unix_micros(time.timestamp_micros())
    }

    /// `20260131T120000Z`, with microseconds where there are any: short and without colons, for entry ids.
    pub fn compact(self) -> String {
        let form = if self.0.rem_euclid(1_000_000) == 0 { "%Y%m%dT%H%M%SZ" } else { "%Y%m%dT%H%M%S%.6fZ" };
        self.to_chrono().format(form).to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError::Form)?;
        Self::from_chrono(time.with_timezone(&Utc))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;
    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}
