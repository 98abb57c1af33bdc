//! What requests carry: query parameters judged all at once, the positions in headers, and answers with their position.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use fanledger_domain::money::Currency;
use fanledger_domain::period::Month;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::Page;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::cursor::{Cursors, List};
use crate::problem::{Kind, Problem};
use crate::read::{AsOf, Asked, By, ReadError, Slice};

const JOURNAL_POSITION: HeaderName = HeaderName::from_static("journal-position");
const JOURNAL_MIN_POSITION: HeaderName = HeaderName::from_static("journal-min-position");
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;

/// An answer with the `Journal-Position` that it reflects, or that a command came to.
pub(crate) struct Positioned<T>(pub(crate) u64, pub(crate) T);

impl<T: IntoResponse> IntoResponse for Positioned<T> {
    fn into_response(self) -> Response {
        ([(JOURNAL_POSITION, HeaderValue::from(self.0))], self.1).into_response()
    }
}

/// `Journal-Min-Position`, where it was sent.
pub(crate) struct MinPosition(pub(crate) Option<u64>);

impl<S: Sync> FromRequestParts<S> for MinPosition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(header) = parts.headers.get(JOURNAL_MIN_POSITION) else { return Ok(Self(None)) };
        let position = header.to_str().ok().and_then(|text| position(text).ok());
        match position {
            Some(position) => Ok(Self(Some(position))),
            None => Err(Problem::new(Kind::ParametersInvalid, "The header Journal-Min-Position is not valid.")
                .with_error("Journal-Min-Position", POSITION_FORM)),
        }
    }
}

/// Which of an entry's times counts.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "only its schema is used: what is taken is judged with everything else that is wrong")]
pub(crate) enum Axis {
    /// When it counts: the same as it occurred, or the first open instant where that period was closed.
    Effective,
    /// When it happened at Stripe.
    Occurred,
    /// When the journal recorded it.
    Recorded,
}

const POSITION_FORM: &str = "expected a journal position: digits only, at most 9223372036854775807";

/// Digits only: `u64` itself would also take a plus sign.
fn position(text: &str) -> Result<u64, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let position = text.parse::<u64>().ok().filter(|position| digits && *position <= i64::MAX as u64);
    position.ok_or(POSITION_FORM)
}

/// The query string. Each parameter is taken once and by name; what is wrong, unknown or given twice is told all at once.
pub(crate) struct Params {
    path: String,
    given: BTreeMap<String, Vec<String>>,
    filters: Vec<(&'static str, String)>,
    faults: Vec<(String, String)>,
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut faults = Vec::new();
        match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => pairs.into_iter().for_each(|(name, value)| given.entry(name).or_default().push(value)),
            Err(_) => faults.push(("query".to_owned(), "expected name=value pairs, percent-encoded UTF-8".to_owned())),
        }
        Ok(Self { path: parts.uri.path().to_owned(), given, filters: Vec::new(), faults })
    }
}

impl Params {
    fn take<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let values = self.given.remove(name)?;
        let [value] = values.as_slice() else {
            self.faults.push((name.to_owned(), "given more than once".to_owned()));
            return None;
        };
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(fault) => {
                self.faults.push((name.to_owned(), fault));
                None
            }
        }
    }

    /// A parameter that changes what the list is: a cursor holds only with the same value.
    pub(crate) fn filter<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.given.get(name).and_then(|values| values.first().cloned());
        let parsed = self.take(name, parse)?;
        self.filters.push((name, text.unwrap_or_default()));
        Some(parsed)
    }

    /// `as_of`: an instant or a position; without it, everything.
    pub(crate) fn as_of(&mut self) -> AsOf {
        let parse = |text: &str| {
            if text.bytes().all(|b| b.is_ascii_digit()) {
                return Ok(AsOf::Position(position(text)?));
            }
            Timestamp::from_str(text).map(AsOf::Instant).map_err(|_| {
                "expected RFC 3339 with an offset, such as 2026-01-31T12:00:00Z (write + as %2B), or a journal position".to_owned()
            })
        };
        self.filter("as_of", parse).unwrap_or(AsOf::Latest)
    }

    /// `by`: which of an entry's times counts.
    pub(crate) fn by(&mut self) -> By {
        let parse = |text: &str| match text {
            "effective" => Ok(By::Effective),
            "occurred" => Ok(By::Occurred),
            "recorded" => Ok(By::Recorded),
            _ => Err("expected effective, occurred or recorded".to_owned()),
        };
        self.filter("by", parse).unwrap_or(By::Effective)
    }

    /// `as_of` and `by`; or `period` and `close`, which stand alone: a closed month is by effective date, as of its close.
    pub(crate) fn asked(&mut self) -> Asked {
        let has_period = self.is_given("period");
        let others: Vec<&str> = ["as_of", "by", "from", "to"].into_iter().filter(|name| self.is_given(name)).collect();
        if has_period && !others.is_empty() {
            let fault =
                format!("a closed month is by effective date, as of its close: leave out {}", others.join(", "));
            self.faults.push(("period".to_owned(), fault));
        }
        if self.is_given("close") && !has_period {
            self.faults.push(("close".to_owned(), "is the number of a close of a period: give that, too".to_owned()));
        }
        let period = self.filter("period", |text| text.parse::<Month>().map_err(|error| error.to_string()));
        let close = self.filter("close", |text| {
            let number = text.parse::<u32>().ok().filter(|number| *number >= 1);
            number.ok_or_else(|| "expected the number of a close of the period: 1, 2, …".to_owned())
        });
        let (as_of, by) = (self.as_of(), self.by());
        period.map_or(Asked::AsOf(as_of, by), |period| Asked::Period(period, close))
    }

    /// The same for the lines of an account, which may also begin `from` and end `to` an instant, both inclusive.
    pub(crate) fn asked_lines(&mut self) -> (Option<Timestamp>, Asked) {
        if self.is_given("to") && self.is_given("as_of") {
            self.faults.push(("to".to_owned(), "give either this or as_of".to_owned()));
        }
        let asked = self.asked();
        let instant = |text: &str| {
            text.parse::<Timestamp>().map_err(|_| {
                "expected RFC 3339 with an offset, such as 2026-01-31T12:00:00Z (write + as %2B)".to_owned()
            })
        };
        let (from, to) = (self.filter("from", instant), self.filter("to", instant));
        let asked = match (to, asked) {
            (Some(to), Asked::AsOf(_, by)) => Asked::AsOf(AsOf::Instant(to), by),
            (None, asked @ Asked::AsOf(..)) | (_, asked @ Asked::Period(..)) => asked,
        };
        if let Some(from) = from {
            match asked {
                Asked::AsOf(AsOf::Instant(to) | AsOf::Known { instant: to, .. }, _) if from > to => {
                    self.faults.push(("from".to_owned(), "is after the end".to_owned()));
                }
                Asked::AsOf(AsOf::Position(_), _) => {
                    self.faults.push(("from".to_owned(), "goes with an end that is an instant".to_owned()));
                }
                // That a month takes no `from` was said above.
                Asked::AsOf(AsOf::Latest | AsOf::Instant(_) | AsOf::Known { .. }, _) | Asked::Period(..) => {}
            }
        }
        (from, asked)
    }

    fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// `currency`.
    pub(crate) fn currency(&mut self) -> Option<Currency> {
        self.filter("currency", |text| Currency::from_code(text).map_err(|error| error.to_string()))
    }

    /// `cursor` and `limit`, and everything else is known: tells what is wrong.
    pub(crate) fn paging<K: DeserializeOwned>(mut self, cursors: &Cursors) -> Result<Paging<K>, Problem> {
        let limit = self.take("limit", |text| {
            let limit = text.parse::<u32>().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit.ok_or_else(|| format!("expected a number from 1 to {LIMIT_MAX}"))
        });
        let cursor = self.take("cursor", |text| Ok(text.to_owned()));
        let list = List(serde_json::json!([self.path, self.filters]).to_string());
        self.finish()?;
        let after = cursor.map(|cursor| cursors.open(&list, &cursor)).transpose()?;
        Ok(Paging { list, after, limit: limit.unwrap_or(LIMIT_DEFAULT) })
    }

    /// Every known parameter was taken: what is left is unknown. Tells everything that is wrong.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let unknown = self.given.into_keys().map(|name| {
            // A name is the client's own text: it is told back only where it can be one.
            let plain = (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            (if plain { name } else { "query".to_owned() }, "no such parameter here".to_owned())
        });
        let mut faults = self.faults;
        faults.extend(unknown);
        if faults.is_empty() {
            return Ok(());
        }
        let problem = Problem::new(Kind::ParametersInvalid, "See errors for each field.");
        Err(faults.into_iter().fold(problem, |problem, (field, message)| problem.with_error(&field, message)))
    }
}

/// Which part of a list is asked for.
pub(crate) struct Paging<K> {
    list: List,
    /// The key of the last item that the client has.
    pub(crate) after: Option<K>,
    /// How many items at most.
    pub(crate) limit: u32,
}

impl<K: Serialize> Paging<K> {
    /// A page, with the cursor for what follows it.
    pub(crate) fn page<T>(&self, cursors: &Cursors, slice: Slice<T, K>) -> Result<Json<Page<T>>, Problem> {
        let next_cursor = slice.next.as_ref().map(|key| cursors.seal(&self.list, key)).transpose()?;
        Ok(Json(Page { items: slice.items, next_cursor }))
    }
}

/// A value by its `FromStr`, with what was expected where it is none.
pub(crate) fn from_str<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| expected.to_owned())
}

/// One part of the path as the id that it must be.
pub(crate) fn path_part<T>(name: &str, text: &str) -> Result<T, Problem>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| {
        Problem::new(Kind::ParametersInvalid, "See errors for each field.").with_error(name, error.to_string())
    })
}

/// What a failed read means to a client.
pub(crate) fn problem_of_read(error: ReadError) -> Problem {
    let text = error.to_string();
    match error {
        ReadError::Query { ref source, .. } if is_momentary(source) => Problem::unavailable(&error),
        ReadError::Query { .. } | ReadError::StatementDiffers { .. } => Problem::internal(&error),
        ReadError::NotBuilt { .. } => Problem::new(Kind::Unavailable, sentence(&text)).retry_after_seconds(5),
        // A close was found there, or an earlier page was: the position is, and the projection will come to it.
        ReadError::AsOfPositionAhead { as_of: AsOf::Known { .. }, .. } => {
            Problem::new(Kind::PositionNotReached, sentence(&text)).retry_after_seconds(1)
        }
        ReadError::BeforeFirstEntry { .. }
        | ReadError::AsOfPositionAhead { as_of: AsOf::Latest | AsOf::Instant(_) | AsOf::Position(_), .. } => {
            Problem::new(Kind::AsOfOutOfRange, sentence(&text)).with_error("as_of", text)
        }
        ReadError::Period(_) => Problem::new(Kind::AsOfOutOfRange, sentence(&text)).with_error("period", text),
        ReadError::UnknownAccount(_)
        | ReadError::UnknownCreator(_)
        | ReadError::UnknownEntry(_)
        | ReadError::UnknownManualEntry(_)
        | ReadError::UnknownPayoutRun(_)
        | ReadError::UnknownStripeEvent(_)
        | ReadError::UnknownRunner(_)
        | ReadError::NoOperation(_) => Problem::new(Kind::NotFound, sentence(&text)),
    }
}

/// As a sentence of a problem. What begins with an id keeps it as it is: in capitals it would be another.
pub(crate) fn sentence(text: &str) -> String {
    let is_word = text.split(' ').next().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if is_word => format!("{}{}.", first.to_ascii_uppercase(), letters.as_str()),
        Some(_) | None => format!("{text}."),
    }
}

/// Whether the same question may have an answer in a moment: the connection failed, or the server had no room or no time.
fn is_momentary(error: &sqlx::Error) -> bool {
    match error {
        // Classes 08 connection, 40 rolled back, 53 no resources, 57 an operator's hand or a time limit.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // `sqlx::Error` is not ours and open; all else is a mistake of ours.
        _ => false,
    }
}
