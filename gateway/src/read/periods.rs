//! Closed months: what was closed when, and the balances that a close fixed.
//!
//! A month's closing balances are those by effective date up to its last microsecond, as they were known at the position of its
//! close. What was recorded later with a date inside, which only a reopening allows, is beyond that position and leaves them as
//! they were: so they can be printed again, to the last unit, for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use fanledger_domain::account::Account;
use fanledger_domain::money::Currency;
use fanledger_domain::period::Month;
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_gateway_api::{
    Closing, OpenKind, OpenMoney, PeriodAct, PeriodActKind, PeriodHistory, PeriodReview, PeriodState, Periods,
    TrialBalance,
};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::answered_from::REVIEW;
use super::cut::Cut;
use super::query::{decoding, fetch, integer, optional_time, parsed, time, undecodable, unsigned};
use super::{AsOf, By, Read, ReadError};

const WHAT: &str = "periods";

/// Why a month has no closing balances.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// It is open, and was never closed; or its closes are asked for by number, and it was only closed together with a later one.
    #[error("{0} was never closed by itself; ask as of its end instead, or see `fanledger ledger periods`")]
    NeverClosed(Month),
    /// It was closed, and is open again.
    #[error(
        "{period} was reopened and is open: ask as of its end, or for what close {closes} fixed (`close={closes}`, on the command \
         line `--close {closes}`)"
    )]
    Reopened {
        /// The month.
        period: Month,
        /// How often it was closed.
        closes: u32,
    },
    /// It was not closed so often.
    #[error("there is no close {close} of {period}: its last is {closes}")]
    NoSuchClose {
        /// The month.
        period: Month,
        /// The number that was asked for.
        close: u32,
        /// How many there are.
        closes: u32,
    },
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

/// As of when a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// As of an instant, a position, or now.
    AsOf(AsOf, By),
    /// A closed month, by effective date, as its last close or that of a number fixed it.
    Period(Month, Option<u32>),
}

impl Asked {
    /// The same as a cut, and the first instant of what is asked for, where it is a month. What is read by it is of no later
    /// position than what it was decided from: who tells a position uses `decide`.
    ///
    /// # Errors
    /// When the month was never closed, or not so often; or Postgres.
    pub async fn resolve(self, pool: &PgPool) -> Result<(Option<Timestamp>, AsOf, By), ReadError> {
        let Decided { from, as_of, by, .. } = self.decide(pool).await?;
        Ok((from, as_of, by))
    }

    /// As [`Asked::resolve`], with the position that it was decided at.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn decide(self, pool: &PgPool) -> Result<Decided, ReadError> {
        match self {
            Self::AsOf(as_of, by) => Ok(Decided { from: None, as_of, by, at: None }),
            Self::Period(period, close) => {
                let Read { position, value } = Closed::find(pool, period, close).await?;
                let closed = value?;
                Ok(Decided { from: period.start().ok(), as_of: closed.as_of(), by: By::Effective, at: Some(position) })
            }
        }
    }

    /// The projections that it is answered from: `open`, or `closed` where it is a month.
    pub const fn of(self, open: &'static [&'static str], closed: &'static [&'static str]) -> &'static [&'static str] {
        match self {
            Self::AsOf(..) => open,
            Self::Period(..) => closed,
        }
    }
}

/// A question as a cut of the books.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    /// The first instant of what is asked for, where it is a month.
    pub from: Option<Timestamp>,
    /// As of when.
    pub as_of: AsOf,
    /// Which time counts.
    pub by: By,
    /// How far `periods` had come when the month's close was looked up in it.
    at: Option<u64>,
}

impl Decided {
    /// The answer, of no later position than what the question was decided from.
    pub fn bound<T>(self, read: Read<T>) -> Read<T> {
        Read { position: self.at.map_or(read.position, |at| at.min(read.position)), ..read }
    }
}

/// An act, as it stands in the table.
struct Act {
    kind: PeriodActKind,
    period: Month,
    position: u64,
    chain: String,
    first_open: Option<Timestamp>,
    at: Timestamp,
    by: String,
    reason: Option<String>,
}

impl Act {
    fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(kind) = row.try_get::<Option<&str>, _>("act")? else { return Ok(None) };
        Ok(Some(Self {
            kind: if kind == "closed" { PeriodActKind::Closed } else { PeriodActKind::Reopened },
            period: parsed(row, "period")?,
            position: unsigned(row, "position")?,
            chain: row.try_get("chain")?,
            first_open: optional_time(row, "first_open")?,
            at: time(row, "at")?,
            by: row.try_get("by")?,
            reason: row.try_get("reason")?,
        }))
    }
}

/// Every close and reopening, oldest first, each with the position that they reflect.
pub(super) const ACTS_SQL: &str = "
    SELECT p.position::bigint AS as_of, a.act::text AS act, a.period::text AS period, a.position::bigint AS position,
           a.chain::text AS chain, a.first_open::timestamptz AS first_open, a.at::timestamptz AS at, a.by::text AS by,
           a.reason::text AS reason
    FROM read.positions AS p LEFT JOIN read.periods AS a ON true
    WHERE p.name = 'periods' ORDER BY a.position";

/// All acts, oldest first, with the position that they reflect. There are a few a year.
async fn acts(pool: &PgPool) -> Result<(u64, Vec<Act>), ReadError> {
    let rows = fetch(pool, WHAT, ACTS_SQL, |query| query).await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let acts = rows.iter().filter_map(|row| Act::read(row).transpose()).collect::<Result<_, _>>()?;
        Ok((unsigned(first, "as_of")?, acts))
    })
}

/// The close that a month which ends at `end` is closed by now: its own, or that of a later month which was the first to be
/// closed, and closed everything before it.
fn closed_by(acts: &[Act], end: Timestamp) -> Option<usize> {
    acts.iter().enumerate().fold(None, |by, (number, act)| {
        let is_closed = act.first_open.is_some_and(|first_open| first_open >= end);
        match act.kind {
            PeriodActKind::Closed => by.or(is_closed.then_some(number)),
            PeriodActKind::Reopened => by.filter(|_| is_closed),
        }
    })
}

/// What was closed when.
///
/// # Errors
/// Postgres.
pub async fn periods(pool: &PgPool) -> Result<Read<Periods>, ReadError> {
    let (position, acts) = acts(pool).await?;
    let closed: BTreeSet<Month> = acts
        .iter()
        .map(|act| act.period)
        .filter(|period| period.end().is_ok_and(|end| closed_by(&acts, end).is_some()))
        .collect();
    let first_open = acts.last().and_then(|act| act.first_open);
    let mut by_period: BTreeMap<Month, Vec<PeriodAct>> = BTreeMap::new();
    for act in acts {
        let known = by_period.entry(act.period).or_default();
        let closes = known.iter().filter(|known| known.act == PeriodActKind::Closed).count();
        let close = closes + usize::from(act.kind == PeriodActKind::Closed);
        known.push(PeriodAct {
            act: act.kind,
            close: u32::try_from(close).unwrap_or(u32::MAX),
            position: act.position,
            chain: act.chain,
            at: act.at.to_string(),
            by: act.by,
            reason: act.reason,
        });
    }
    let history = |(period, acts): (Month, Vec<PeriodAct>)| PeriodHistory {
        period: period.to_string(),
        // One that was reopened may be closed together with a later one by now.
        state: if closed.contains(&period) { PeriodState::Closed } else { PeriodState::Open },
        acts,
    };
    let value = Periods {
        position,
        first_open: first_open.map(|at| at.to_string()),
        next: first_open.map(|at| Month::of(at).to_string()),
        periods: by_period.into_iter().rev().map(history).collect(),
    };
    Ok(Read { position, value })
}

/// A close by which a month is, or was, closed.
pub(super) struct Closed {
    act: Act,
    /// Its number among those of its month.
    pub close: u32,
    /// The month whose close it is, where that is a later one: the first close closes everything before it.
    pub closed_with: Option<Month>,
    /// Whether the month was opened again since, so that this is what was, and not what stands.
    pub is_superseded: bool,
    /// The first instant after the month that was asked for.
    end: Timestamp,
}

impl Closed {
    /// The month's own close of a number; without one, that which the month is closed by, its own or a later one's. Or why there
    /// is none, which is of the same position.
    pub async fn find(
        pool: &PgPool,
        period: Month,
        close: Option<u32>,
    ) -> Result<Read<Result<Self, PeriodError>>, ReadError> {
        let end = period.end().map_err(|source| PeriodError::OutOfRange { period, source })?;
        let (position, acts) = acts(pool).await?;
        Ok(Read { position, value: Self::among(acts, period, close, end) })
    }

    /// The same, of the rows of [`ACTS_SQL`].
    pub fn among_rows(
        rows: &[PgRow],
        period: Month,
        close: Option<u32>,
    ) -> Result<Result<Self, PeriodError>, sqlx::Error> {
        let acts = rows.iter().filter_map(|row| Act::read(row).transpose()).collect::<Result<_, _>>()?;
        let end = period.end().map_err(|source| PeriodError::OutOfRange { period, source });
        Ok(end.and_then(|end| Self::among(acts, period, close, end)))
    }

    fn among(mut acts: Vec<Act>, period: Month, close: Option<u32>, end: Timestamp) -> Result<Self, PeriodError> {
        let closes_of = |period: Month| -> Vec<usize> {
            let is_close = |act: &Act| act.kind == PeriodActKind::Closed && act.period == period;
            acts.iter().enumerate().filter(|(_, act)| is_close(act)).map(|(number, _)| number).collect()
        };
        let own = closes_of(period);
        let count = u32::try_from(own.len()).unwrap_or(u32::MAX);
        let standing = closed_by(&acts, end);
        let found = match (close, standing) {
            (None, Some(standing)) => standing,
            (_, None) | (Some(_), _) if own.is_empty() => return Err(PeriodError::NeverClosed(period)),
            (None, None) => return Err(PeriodError::Reopened { period, closes: count }),
            (Some(close), _) => {
                let number = (close as usize).checked_sub(1).and_then(|index| own.get(index));
                *number.ok_or(PeriodError::NoSuchClose { period, close, closes: count })?
            }
        };
        let of = acts.get(found).map_or(period, |act| act.period);
        let earlier = closes_of(of).iter().filter(|number| **number <= found).count();
        Ok(Self {
            act: acts.swap_remove(found),
            close: u32::try_from(earlier).unwrap_or(u32::MAX),
            closed_with: Some(of).filter(|of| *of != period),
            is_superseded: standing != Some(found),
            end,
        })
    }

    /// The position and chain of the close.
    pub fn fixed_by(self) -> (u64, String) {
        (self.act.position, self.act.chain)
    }

    /// Up to the month's last microsecond, as it was known at the close.
    pub fn as_of(&self) -> AsOf {
        AsOf::Known { instant: before(self.end), position: self.act.position }
    }
}

/// The last instant before another.
fn before(at: Timestamp) -> Timestamp {
    Timestamp::from_unix_micros(at.as_unix_micros() - 1).unwrap_or(at)
}

/// The closing balances of a month, with what fixes them. They are of all currencies in the digest, and of `currency` in what is
/// shown.
///
/// # Errors
/// When the month was never closed, or not so often; or Postgres.
pub async fn closed_balance<M: From<i128> + Display>(
    pool: &PgPool,
    period: Month,
    close: Option<u32>,
    currency: Option<Currency>,
) -> Result<Read<TrialBalance<M>>, ReadError> {
    let Read { position: decided_at, value: closed } = Closed::find(pool, period, close).await?;
    let closed = closed?;
    let balance = super::trial_balance::<M>(pool, closed.as_of(), By::Effective, None).await?;
    let Closed { act, close, closed_with, end, .. } = closed;
    let digest = digest(period, &act, &balance.value);
    let mut value = TrialBalance { position: act.position, ..balance.value };
    if let Some(currency) = currency {
        value.currencies.retain(|part| part.currency == currency.as_str());
    }
    value.closing = Some(Closing {
        period: period.to_string(),
        closed_with: closed_with.map(|period| period.to_string()),
        close,
        position: act.position,
        chain: act.chain,
        first_open: end.to_string(),
        closed_at: act.at.to_string(),
        closed_by: act.by,
        digest,
    });
    Ok(Read { position: balance.position.min(decided_at), value })
}

/// SHA-256 of the canonical text, in hex. The text is a contract: `docs/period-close.md`.
fn digest<M: Display>(period: Month, close: &Act, balance: &TrialBalance<M>) -> String {
    let mut text =
        format!("fanledger closing balances v1\nperiod {period}\nposition {}\nchain {}\n", close.position, close.chain);
    for currency in &balance.currencies {
        for account in &currency.accounts {
            let balance = account.balance_minor.to_string();
            if balance != "0" {
                text.extend([&currency.currency, " ", &account.account, " ", &balance, "\n"]);
            }
        }
    }
    hex::encode(Sha256::digest(text))
}

/// What is open by the end of a month, as of now: money in suspense, what is awaited and unconfirmed, creators whose `available` is
/// negative, and what waits for approval. What is owed and what is due are told apart: their sum says nothing of either.
///
/// Counted and summed where it lies: there may be as much of it as there are charges.
///
/// # Errors
/// Postgres.
pub async fn period_review<M: From<i128>>(pool: &PgPool, period: Month) -> Result<Read<PeriodReview<M>>, ReadError> {
    const WHAT: &str = "what is open before a close";
    let end = period.end().map_err(|source| PeriodError::OutOfRange { period, source })?;
    // Nothing is asked of the cut: there is nothing open where there is nothing yet.
    let cut = Cut { as_of: AsOf::Instant(before(end)), by: By::Effective };
    let sql = review_sql(cut);
    let rows = fetch(pool, WHAT, &sql, |query| {
        cut.bind(query).bind(end.to_chrono()).bind(Account::StripeUnconfirmed.to_string())
    })
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let position = unsigned(first, "position")?;
        let open: BTreeMap<_, _> =
            rows.iter().filter_map(|row| open_money(row).transpose()).collect::<Result<_, _>>()?;
        let value = PeriodReview { period: period.to_string(), position, open: open.into_values().collect() };
        Ok(Read { position, value })
    })
}

/// $1 the cut, $2 the first instant after the month, $3 the account of what is unconfirmed.
fn review_sql(cut: Cut) -> String {
    format!(
        "WITH RECURSIVE at AS (
             SELECT min(p.position) AS position FROM read.positions AS p WHERE p.name IN ('{projections}')
             HAVING count(*) = {projections_count}
         ), keys AS (
             SELECT t.account, t.currency, t.debits, t.credits, t.lines FROM read.balance_totals AS t
             WHERE t.account = $3::text OR t.account LIKE 'liabilities:creators:%:available'
         ), {turnover}, suspense AS (
             -- By object, as it is listed and worked off.
             SELECT l.account, l.currency, sum(CASE l.side WHEN 'debit' THEN l.amount ELSE -l.amount END) AS balance
             FROM read.postings AS l
             WHERE l.account LIKE 'liabilities:suspense:%' AND l.effective_at < $2::timestamptz
             GROUP BY l.account, l.object, l.currency
         ), waiting AS (
             SELECT m.id, line->>'currency' AS currency, (line->>'minor')::numeric AS amount
             FROM read.manual_entries AS m CROSS JOIN LATERAL json_array_elements(m.postings) AS line
             WHERE m.state = 'proposed' AND m.occurred_at < $2::timestamptz AND line->>'side' = 'debit'
             UNION ALL
             SELECT 'por_' || r.run, l.currency, l.minor
             FROM read.payout_runs AS r JOIN read.payout_lines AS l USING (run)
             WHERE r.stage = 'proposed' AND r.proposed_at < $2::timestamptz
         ), open AS (
             SELECT 'suspense' AS kind, s.account, s.currency, count(*) AS count, sum(s.balance) AS balance
             FROM suspense AS s WHERE s.balance <> 0 GROUP BY s.account, s.currency, s.balance > 0
             UNION ALL
             SELECT 'awaited', NULL, a.currency, count(*), sum(a.amount)
             FROM read.awaited AS a WHERE a.since < $2::timestamptz GROUP BY a.currency
             UNION ALL
             SELECT 'unconfirmed', t.account, t.currency, count(*), sum(t.debits - t.credits)
             FROM turnover AS t WHERE t.account = $3::text AND t.debits <> t.credits GROUP BY t.account, t.currency
             UNION ALL
             -- Whom the platform owes has a credit.
             SELECT 'negative_available', NULL, t.currency, count(*), sum(t.debits - t.credits)
             FROM turnover AS t WHERE t.account <> $3::text AND t.debits > t.credits GROUP BY t.currency
             UNION ALL
             SELECT 'waiting_for_approval', NULL, w.currency, count(DISTINCT w.id), sum(w.amount)
             FROM waiting AS w GROUP BY w.currency
         )
         SELECT at.position::bigint AS position, o.kind::text AS kind, o.account::text AS account, o.currency::text AS currency,
                o.count::bigint AS count, o.balance::text AS balance
         FROM at LEFT JOIN open AS o ON true",
        projections = REVIEW.join("', '"),
        projections_count = REVIEW.len(),
        turnover = cut.turnover("$1"),
    )
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is no kind of what is open")]
struct NoKind(String);

/// What is open, with the key that it is ordered by.
type Keyed<M> = ((OpenKind, Option<String>, String, i128), OpenMoney<M>);

/// Nothing, in the row of a month of which nothing is open.
fn open_money<M: From<i128>>(row: &PgRow) -> Result<Option<Keyed<M>>, sqlx::Error> {
    let Some(kind) = row.try_get::<Option<String>, _>("kind")? else { return Ok(None) };
    let kind = match kind.as_str() {
        "suspense" => OpenKind::Suspense,
        "awaited" => OpenKind::Awaited,
        "unconfirmed" => OpenKind::Unconfirmed,
        "negative_available" => OpenKind::NegativeAvailable,
        "waiting_for_approval" => OpenKind::WaitingForApproval,
        _ => return Err(undecodable("kind", NoKind(kind))),
    };
    let currency: String = row.try_get("currency")?;
    let account: Option<String> = row.try_get("account")?;
    let balance = integer(row, "balance")?;
    let money = OpenMoney {
        kind,
        currency: currency.clone(),
        account: account.clone(),
        count: unsigned(row, "count")?,
        balance_minor: balance.into(),
    };
    // Within an account and currency the sign alone tells two apart, what is owed first.
    Ok(Some(((kind, account, currency, balance.signum()), money)))
}
