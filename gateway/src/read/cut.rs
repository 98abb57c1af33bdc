//! How "as of" becomes SQL over the nodes and lines of `balances`.
//!
//! From the top: a node that ends before the cut counts whole, one that begins after it is left out, and one in which the cut lies
//! is replaced by its children, down to the lines of a segment; the open segment's lines are always looked at.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::query::{self, Query};
use super::{AsOf, By, ReadError};

/// Lines per segment, children per node, and levels of nodes, as the projection `balances` keeps them.
const FANOUT: i64 = 32;
const LEVELS: u32 = 4;

/// Which lines count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub as_of: AsOf,
    pub by: By,
}

/// The columns that a cut compares: in `balance_nodes` the least and the greatest of a node's lines, in `balance_lines` the
/// lines' own. Times are in microseconds since 1970.
struct Columns {
    first: &'static str,
    last: &'static str,
    each: &'static str,
}

impl Cut {
    /// A position is a point on the axis of recording.
    pub fn axis(self) -> By {
        match self.as_of {
            AsOf::Latest | AsOf::Instant(_) | AsOf::Known { .. } => self.by,
            AsOf::Position(_) => By::Recorded,
        }
    }

    const fn columns(self) -> Columns {
        match (self.as_of, self.by) {
            (AsOf::Position(_), _) => Columns { first: "position_first", last: "position_last", each: "positions" },
            (_, By::Occurred) => Columns { first: "occurred_first", last: "occurred_last", each: "occurred" },
            (_, By::Effective) => Columns { first: "effective_first", last: "effective_last", each: "effective" },
            (_, By::Recorded) => Columns { first: "recorded_first", last: "recorded_last", each: "recorded" },
        }
    }

    /// Binds the cut as the statement's next parameter: what is compared, and the position beyond which nothing counts.
    pub fn bind<'q>(self, query: Query<'q>) -> Query<'q> {
        query.bind(match self.as_of {
            AsOf::Latest => Vec::new(),
            AsOf::Instant(at) => vec![at.as_unix_micros()],
            AsOf::Position(position) => vec![query::bigint(position)],
            AsOf::Known { instant, position } => vec![instant.as_unix_micros(), query::bigint(position)],
        })
    }

    /// A condition for each cut: that `at`, and for one that has both `position` too, is within it. `parameter` is the cut's.
    fn within(self, parameter: &str, at: &str, position: &str) -> String {
        match self.as_of {
            AsOf::Latest => "true".to_owned(),
            AsOf::Instant(_) | AsOf::Position(_) => format!("{at} <= ({parameter}::bigint[])[1]"),
            AsOf::Known { .. } => {
                format!("({at} <= ({parameter}::bigint[])[1] AND {position} <= ({parameter}::bigint[])[2])")
            }
        }
    }

    /// Common table expressions, for a `WITH RECURSIVE`. The last of them is `turnover`: `account`, `currency`, and within the cut
    /// `debits`, `credits` and (except of the latest) `last_position`, of each row of `keys` that has any; `keys` comes before
    /// them, with the columns of `balance_totals`. `parameter` is the cut's.
    ///
    /// `OFFSET 0` keeps each probe of an index apart: joined freely, the planner, who knows nothing of how few nodes a cut
    /// needs, reads the whole table.
    pub fn turnover(self, parameter: &str) -> String {
        let Columns { first, last, each } = self.columns();
        if self.as_of == AsOf::Latest {
            return "turnover AS (SELECT k.account, k.currency, k.debits, k.credits FROM keys AS k)".to_owned();
        }
        // A node that may have a line within, one whose lines all are, and a line that is.
        let begins = self.within(parameter, &format!("n.{first}"), "n.position_first");
        let is_whole = self.within(parameter, &format!("n.{last}"), "n.position_last");
        let is_within = self.within(parameter, "u.at", "u.position");
        // Each level with the lines that a node of it stands for, and those that one above it does.
        let levels: Vec<String> = (1..=LEVELS)
            .map(|level| {
                let above = if level == LEVELS { i64::MAX } else { FANOUT.pow(level + 1) };
                format!("({level}::smallint, {}::bigint, {above}::bigint)", FANOUT.pow(level))
            })
            .collect();
        let node = format!(
            "SELECT n.level, n.number, n.debits, n.credits, n.position_last, {is_whole} AS is_whole FROM read.balance_nodes AS n"
        );
        format!(
            "visited AS (
                 SELECT k.account, k.currency, n.*
                 FROM keys AS k
                 JOIN (VALUES {levels}) AS g (level, lines, lines_above) ON k.lines >= g.lines
                 CROSS JOIN LATERAL (
                     {node}
                     WHERE n.account = k.account AND n.currency = k.currency AND n.level = g.level
                       AND n.number >= k.lines / g.lines_above * {FANOUT} AND {begins}
                     OFFSET 0) AS n
                 UNION ALL
                 SELECT v.account, v.currency, n.*
                 FROM visited AS v
                 CROSS JOIN LATERAL (
                     {node}
                     WHERE n.account = v.account AND n.currency = v.currency AND n.level = v.level - 1::smallint
                       AND n.number >= v.number * {FANOUT} AND n.number < (v.number + 1) * {FANOUT} AND {begins}
                     OFFSET 0) AS n
                 WHERE NOT v.is_whole AND v.level > 1
             ),
             segments AS (
                 SELECT v.account, v.currency, v.number AS segment FROM visited AS v WHERE NOT v.is_whole AND v.level = 1
                 UNION ALL
                 SELECT k.account, k.currency, k.lines / {FANOUT} FROM keys AS k WHERE k.lines % {FANOUT} <> 0
             ),
             turnover AS (
                 SELECT x.account, x.currency, sum(x.debits) AS debits, sum(x.credits) AS credits, max(x.last_position) AS last_position
                 FROM (
                     SELECT v.account, v.currency, v.debits, v.credits, v.position_last AS last_position
                     FROM visited AS v WHERE v.is_whole
                     UNION ALL
                     SELECT s.account, s.currency, l.debits, l.credits, l.last_position
                     FROM segments AS s
                     CROSS JOIN LATERAL (
                         SELECT coalesce(sum(u.amount) FILTER (WHERE u.amount > 0), 0) AS debits,
                                coalesce(-sum(u.amount) FILTER (WHERE u.amount < 0), 0) AS credits, max(u.position) AS last_position
                         FROM read.balance_lines AS l
                         CROSS JOIN LATERAL unnest(l.{each}, l.amounts, l.positions) AS u (at, amount, position)
                         WHERE l.account = s.account AND l.currency = s.currency AND l.segment = s.segment AND {is_within}) AS l
                     WHERE l.last_position IS NOT NULL) AS x
                 GROUP BY x.account, x.currency
             )",
            levels = levels.join(", "),
        )
    }

    /// A subquery: `balance` of the lines within the cut of the account and currency of `k` that are beyond a position. It
    /// goes back from the newest segment, so it costs what there is beyond; nothing, where the cut itself ends before it.
    pub fn balance_beyond(self, parameter: &str, position: &str) -> String {
        let each = self.columns().each;
        let within = self.within(parameter, "u.at", "u.position");
        let reaches_beyond = match self.as_of {
            AsOf::Latest | AsOf::Instant(_) => "true".to_owned(),
            AsOf::Position(_) => format!("{position} < ({parameter}::bigint[])[1]"),
            AsOf::Known { .. } => format!("{position} < ({parameter}::bigint[])[2]"),
        };
        let segment = format!(
            "SELECT l.segment, l.positions, l.amounts, l.{each} AS at FROM read.balance_lines AS l
             WHERE l.account = k.account AND l.currency = k.currency AND l.segment ="
        );
        format!(
            "WITH RECURSIVE back AS (
                 {segment} (k.lines - 1) / {FANOUT} AND {reaches_beyond}
                 UNION ALL
                 SELECT l.* FROM back AS b CROSS JOIN LATERAL ({segment} b.segment - 1 OFFSET 0) AS l
                 WHERE b.positions[1] > {position}
             )
             SELECT sum(u.amount) AS balance
             FROM back AS b CROSS JOIN LATERAL unnest(b.positions, b.amounts, b.at) AS u (position, amount, at)
             WHERE u.position > {position} AND {within}"
        )
    }

    /// Columns `first_at` and `first_position`, for [`Cut::check`].
    pub fn firsts(self) -> String {
        let axis = self.axis().as_str();
        format!(
            "(SELECT f.{axis} FROM read.balance_firsts AS f)::timestamptz AS first_at,
             (SELECT f.position FROM read.balance_firsts AS f)::bigint AS first_position"
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
            AsOf::Position(asked) | AsOf::Known { position: asked, .. } if asked > position => {
                Err(ReadError::AsOfPositionAhead { as_of, position })
            }
            // What was known then is asked of what was closed: that there was nothing is an answer, and stays one.
            AsOf::Known { .. } => Ok(()),
            AsOf::Position(asked) => match first_position {
                Some(first) if asked >= first => Ok(()),
                Some(_) | None => Err(ReadError::BeforeFirstEntry { as_of, first: first_position.map(AsOf::Position) }),
            },
        }
    }
}
