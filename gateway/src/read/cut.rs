//! How "as of" becomes SQL over the sums of `balances`.
//!
//! As of an instant is: whole months before its month, whole days of the month before its day, whole hours of the day before
//! its hour, and the lines of its hour up to it. As of a position is the same by recording time, with the lines of the
//! position's hour up to it: `balance_hours` tells which hour that is.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::query::{self, Query};
use super::{AsOf, By, ReadError};

/// Which lines count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub as_of: AsOf,
    pub by: By,
}

/// The lines of the cut's hour that are within it; `l` is the line, `b` the bounds.
const LINES_OCCURRED: &str = "l.occurred_at >= b.hour AND l.occurred_at <= b.until";
const LINES_EFFECTIVE: &str = "l.effective_at >= b.hour AND l.effective_at <= b.until";
const LINES_RECORDED: &str =
    "l.position >= b.from_position AND l.position < b.before_position AND l.recorded_at <= b.until";

impl Cut {
    /// A position is a point on the axis of recording.
    pub fn axis(self) -> By {
        match self.as_of {
            AsOf::Latest | AsOf::Instant(_) => self.by,
            AsOf::Position(_) => By::Recorded,
        }
    }

    /// Binds the cut as the statement's next parameter.
    pub fn bind<'q>(self, query: Query<'q>) -> Query<'q> {
        match self.as_of {
            AsOf::Latest => query.bind(None::<DateTime<Utc>>),
            AsOf::Instant(at) => query.bind(at.to_chrono()),
            AsOf::Position(position) => query.bind(query::bigint(position)),
        }
    }

    /// Common table expressions `bounds` (one row), and `months`, `days`, `hours`: the buckets that one account must probe.
    /// `parameter` is the cut's.
    pub fn expressions(self, parameter: &str) -> String {
        let hour = match (self.as_of, self.axis()) {
            (AsOf::Latest, _) => return "bounds AS (SELECT)".to_owned(),
            (AsOf::Instant(_), By::Occurred | By::Effective) => format!(
                "SELECT date_trunc('hour', {parameter}::timestamptz, 'UTC') AS hour, {parameter}::timestamptz AS until,
                        NULL::bigint AS from_position, NULL::bigint AS before_position"
            ),
            (AsOf::Instant(_), By::Recorded) => format!(
                "SELECT at.hour, {parameter}::timestamptz AS until,
                        (SELECT h.first_position FROM read.balance_hours AS h WHERE h.hour = at.hour) AS from_position,
                        coalesce((SELECT h.first_position FROM read.balance_hours AS h WHERE h.hour > at.hour ORDER BY h.hour LIMIT 1),
                                 9223372036854775807) AS before_position
                 FROM (SELECT date_trunc('hour', {parameter}::timestamptz, 'UTC')) AS at (hour)"
            ),
            (AsOf::Position(_), _) => format!(
                "SELECT h.hour, 'infinity'::timestamptz AS until, h.first_position AS from_position, {parameter}::bigint + 1 AS before_position
                 FROM read.balance_hours AS h WHERE h.first_position <= {parameter}::bigint ORDER BY h.first_position DESC LIMIT 1"
            ),
        };
        let axis = self.axis().as_str();
        // In `timestamp` without a zone, so that a step of a month or a day is the calendar's and not the session's.
        format!(
            "bounds AS MATERIALIZED (
                 SELECT date_trunc('month', h.hour, 'UTC') AS month, date_trunc('day', h.hour, 'UTC') AS day, h.*
                 FROM ({hour}) AS h
             ),
             months AS MATERIALIZED (
                 -- Those that have sums, each found from the one before: what is asked for, or what an event claims, may be
                 -- thousands of years away.
                 WITH RECURSIVE seen (bucket) AS (
                     SELECT '-infinity'::timestamptz
                     UNION ALL
                     SELECT next.bucket FROM seen CROSS JOIN LATERAL (
                         SELECT s.bucket FROM bounds AS b, read.balance_sums AS s
                         WHERE s.axis = '{axis}' AND s.grain = 'month' AND s.bucket > seen.bucket AND s.bucket < b.month
                         ORDER BY s.bucket LIMIT 1) AS next
                 )
                 SELECT bucket FROM seen WHERE bucket > '-infinity'
             ),
             days AS MATERIALIZED (
                 SELECT s AT TIME ZONE 'UTC' AS bucket FROM bounds AS b, generate_series(b.month AT TIME ZONE 'UTC',
                     b.day AT TIME ZONE 'UTC' - interval '1 day', interval '1 day') AS s
             ),
             hours AS MATERIALIZED (
                 SELECT s AT TIME ZONE 'UTC' AS bucket FROM bounds AS b, generate_series(b.day AT TIME ZONE 'UTC',
                     b.hour AT TIME ZONE 'UTC' - interval '1 hour', interval '1 hour') AS s
             )"
        )
    }

    const fn lines(self) -> &'static str {
        match (self.as_of, self.by) {
            (AsOf::Position(_), _) | (_, By::Recorded) => LINES_RECORDED,
            (_, By::Occurred) => LINES_OCCURRED,
            (_, By::Effective) => LINES_EFFECTIVE,
        }
    }

    /// A subquery: `debits` and `credits` of the account and currency of `k`; no row or nulls where there are none. Each
    /// bucket is one probe of the primary key: `LIMIT` keeps the planner from turning that into a scan.
    pub fn turnover_of_key(self) -> String {
        let (axis, lines) = (self.axis().as_str(), self.lines());
        match self.as_of {
            AsOf::Latest => {
                "SELECT t.debits, t.credits FROM read.balance_totals AS t WHERE t.account = k.account AND t.currency = k.currency".to_owned()
            }
            AsOf::Instant(_) | AsOf::Position(_) => {
                let probes = [("months", "month"), ("days", "day"), ("hours", "hour")].map(|(buckets, grain)| {
                    format!(
                        "SELECT s.debits, s.credits FROM {buckets} AS g
                         CROSS JOIN LATERAL (
                             SELECT s.debits, s.credits FROM read.balance_sums AS s
                             WHERE s.axis = '{axis}' AND s.grain = '{grain}' AND s.bucket = g.bucket
                               AND s.account = k.account AND s.currency = k.currency
                             LIMIT 1) AS s
                         UNION ALL "
                    )
                });
                format!(
                    "SELECT sum(x.debits) AS debits, sum(x.credits) AS credits
                     FROM ({probes}
                         SELECT l.debits, l.credits FROM bounds AS b, read.balance_lines AS l
                         WHERE l.account = k.account AND l.currency = k.currency AND {lines}) AS x",
                    probes = probes.concat(),
                )
            }
        }
    }

    /// A subquery: `account`, `currency`, `debits`, `credits` of every account with turnover. Ranges of buckets; the lines of
    /// the last hour only for accounts that have a sum in that hour.
    pub fn turnover_of_all(self) -> String {
        let (axis, lines) = (self.axis().as_str(), self.lines());
        let sums = format!(
            "SELECT s.account, s.currency, s.debits, s.credits FROM bounds AS b JOIN read.balance_sums AS s ON s.axis = '{axis}'"
        );
        match self.as_of {
            AsOf::Latest => "SELECT t.account, t.currency, t.debits, t.credits FROM read.balance_totals AS t".to_owned(),
            AsOf::Instant(_) | AsOf::Position(_) => format!(
                "SELECT x.account, x.currency, sum(x.debits) AS debits, sum(x.credits) AS credits
                 FROM (
                     {sums} AND s.grain = 'month' AND s.bucket < b.month
                     UNION ALL
                     {sums} AND s.grain = 'day' AND s.bucket >= b.month AND s.bucket < b.day
                     UNION ALL
                     {sums} AND s.grain = 'hour' AND s.bucket >= b.day AND s.bucket < b.hour
                     UNION ALL
                     SELECT s.account, s.currency, l.debits, l.credits
                     FROM bounds AS b JOIN read.balance_sums AS s ON s.axis = '{axis}' AND s.grain = 'hour' AND s.bucket = b.hour
                     CROSS JOIN LATERAL (
                         SELECT sum(l.debits) AS debits, sum(l.credits) AS credits FROM read.balance_lines AS l
                         WHERE l.account = s.account AND l.currency = s.currency AND {lines}) AS l
                     WHERE l.debits IS NOT NULL) AS x
                 GROUP BY x.account, x.currency"
            ),
        }
    }

    /// A condition: line `l` is within the cut.
    pub fn holds(self, parameter: &str) -> String {
        match (self.as_of, self.by) {
            (AsOf::Latest, _) => "true".to_owned(),
            (AsOf::Instant(_), By::Occurred) => format!("l.occurred_at <= {parameter}::timestamptz"),
            (AsOf::Instant(_), By::Effective) => format!("l.effective_at <= {parameter}::timestamptz"),
            (AsOf::Instant(_), By::Recorded) => format!("l.recorded_at <= {parameter}::timestamptz"),
            (AsOf::Position(_), _) => format!("l.position <= {parameter}::bigint"),
        }
    }

    /// Columns `first_at` and `first_position`, for [`Cut::check`].
    pub fn firsts(self) -> String {
        format!(
            "(SELECT f.first_at FROM read.balance_firsts AS f WHERE f.axis = '{}')::timestamptz AS first_at,
             (SELECT min(h.first_position) FROM read.balance_hours AS h)::bigint AS first_position",
            self.axis().as_str()
        )
    }

    /// Refuses a cut that the books at `position` have no answer to.
    pub fn check(self, what: &'static str, row: &PgRow, position: u64) -> Result<(), ReadError> {
        let (at, first_position) = query::decoding(what, || {
            let first_position: Option<i64> = row.try_get("first_position")?;
            Ok((query::optional_time(row, "first_at")?, first_position.and_then(|first| u64::try_from(first).ok())))
        })?;
        let as_of = self.as_of;
        match as_of {
            AsOf::Latest => Ok(()),
            AsOf::Instant(asked) => match at {
                Some(first) if asked >= first => Ok(()),
                Some(_) | None => Err(ReadError::BeforeFirstEntry { as_of, first: at.map(AsOf::Instant) }),
            },
            AsOf::Position(asked) if asked > position => Err(ReadError::AsOfPositionAhead { asked, position }),
            AsOf::Position(asked) => match first_position {
                Some(first) if asked >= first => Ok(()),
                Some(_) | None => Err(ReadError::BeforeFirstEntry { as_of, first: first_position.map(AsOf::Position) }),
            },
        }
    }
}
