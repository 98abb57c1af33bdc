//! The ledger whole, or a part of it in time, from one snapshot: what exports are written from.
//!
//! Entries are handed out one after the other, in the order of the chosen time, and never held together: what is in memory is
//! one row for each account. Sums come from `postings`, entries from `entries`; both are read up to the position that the lesser of
//! the two has reached, so that they are of the same books; where a month is asked for, `periods`, too, which says whether it is
//! closed. The export adds up what it writes and compares.

use chrono::{DateTime, Utc};
use fanledger_domain::entry::Side;
use fanledger_domain::money::Currency;
use fanledger_domain::period::Month;
use fanledger_domain::time::Timestamp;
use futures::{StreamExt as _, stream::BoxStream};
use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres, Row, Transaction};
use uuid::Uuid;

use super::periods::{ACTS_SQL, Closed};
use super::query::{failed, integer, parsed, time, undecodable, unsigned};
use super::{AsOf, By, PeriodError, ReadError};

const WHAT: &str = "the ledger to export it";
/// What an export is read from.
const EXPORT: &[&str] = &["entries", "postings"];
/// The same of a month.
const EXPORT_OF_PERIOD: &[&str] = &["entries", "postings", "periods"];

/// Which entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportRange {
    /// The time that the bounds are of, and the order of the entries.
    pub by: By,
    /// From this instant on; what was before is an opening balance.
    pub from: Option<Timestamp>,
    /// Up to this instant, which is not in it any more.
    pub until: Option<Timestamp>,
    /// Only postings in this currency.
    pub currency: Option<Currency>,
    /// The month that the range is: where it is closed, the books are those that its close fixed, by position and chain.
    pub month: Option<Month>,
    /// Which close of the month, where it was reopened; without it the one that it is closed by.
    pub close: Option<u32>,
}

/// What a range does to one account in one currency. In minor units, debits minus credits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedAccount {
    /// The account.
    pub account: String,
    /// The currency.
    pub currency: Currency,
    /// The balance before the range.
    pub opening_minor: i128,
    /// The balance at its end.
    pub closing_minor: i128,
    /// How many postings are in it.
    pub postings: u64,
    /// The time of the first of them.
    pub first_at: Option<Timestamp>,
}

/// An entry of the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedEntry {
    /// Its id.
    pub entry_id: String,
    /// Where it is in the journal.
    pub position: u64,
    /// The object that it is about.
    pub object: String,
    /// The webhook that led to it, where one did.
    pub stripe_event: Option<String>,
    /// One line for people.
    pub description: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it counts.
    pub effective_at: Timestamp,
    /// When the journal recorded it.
    pub recorded_at: Timestamp,
    /// Its lines; of one currency only where one was asked for.
    pub postings: Vec<ExportedPosting>,
}

impl ExportedEntry {
    /// The time of the three.
    pub const fn at(&self, by: By) -> Timestamp {
        match by {
            By::Occurred => self.occurred_at,
            By::Effective => self.effective_at,
            By::Recorded => self.recorded_at,
        }
    }
}

/// A line of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedPosting {
    /// Its number in the entry, from 1.
    pub line: i32,
    /// The account.
    pub account: String,
    /// The currency.
    pub currency: Currency,
    /// In minor units, debits positive.
    pub minor: i64,
}

/// The books as they stood at one position, held still while they are read.
pub struct ExportSnapshot {
    transaction: Transaction<'static, Postgres>,
    range: ExportRange,
    entries_sql: String,
    /// The journal that they are of.
    pub journal_id: Uuid,
    /// Everything up to here is in them.
    pub position: u64,
    /// The journal's chain at that position, in hexadecimal, which fixes them for ever.
    pub chain: String,
    /// Whether that is the position of the month's close.
    pub is_closed: bool,
    /// The month whose close that is, where it is a later one.
    pub closed_with: Option<Month>,
}

impl ExportSnapshot {
    /// Begins to read.
    ///
    /// # Errors
    /// When nobody has built the projections, the month was not closed so often, or Postgres does not answer.
    pub async fn begin(pool: &PgPool, range: ExportRange) -> Result<Self, ReadError> {
        let error = |source| failed(WHAT, source);
        let mut transaction =
            pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await.map_err(error)?;
        // A statement lasts as long as its rows are being written, and who reads them may be slow.
        sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await.map_err(error)?;
        let of = if range.month.is_some() { EXPORT_OF_PERIOD } else { EXPORT };
        let rows = sqlx::query(
            "SELECT p.journal_id, p.position::bigint AS position, encode(p.chain, 'hex') AS chain FROM read.positions AS p
             WHERE p.name = ANY($1::text[]) ORDER BY p.position",
        )
        .bind(of)
        .fetch_all(&mut *transaction)
        .await
        .map_err(error)?;
        let least = rows.first().filter(|_| rows.len() == of.len()).ok_or(ReadError::NotBuilt { what: WHAT })?;
        let read = || Ok((least.try_get("journal_id")?, unsigned(least, "position")?, least.try_get("chain")?));
        let (journal_id, read_position, read_chain) = read().map_err(error)?;
        let close = close_of(range, &mut transaction).await?;
        let is_closed = close.is_some();
        let closed_with = close.as_ref().and_then(|close| close.closed_with);
        let (position, chain) = close.map_or((read_position, read_chain), Closed::fixed_by);
        if position > read_position {
            return Err(ReadError::AsOfPositionAhead { as_of: AsOf::Position(position), position: read_position });
        }
        Ok(Self {
            transaction,
            range,
            entries_sql: entries_sql(range.by),
            journal_id,
            position,
            chain,
            is_closed,
            closed_with,
        })
    }

    /// The range.
    pub const fn range(&self) -> ExportRange {
        self.range
    }

    /// Every account that has a posting before the end of the range, by name and currency.
    ///
    /// # Errors
    /// A range that ends before the first entry, or Postgres.
    pub async fn accounts(&mut self) -> Result<Vec<ExportedAccount>, ReadError> {
        let sql = format!(
            "SELECT p.account::text AS account, p.currency::text AS currency,
                    coalesce(sum(p.signed) FILTER (WHERE p.at < $2), 0)::text AS opening, sum(p.signed)::text AS closing,
                    (count(*) FILTER (WHERE p.at >= $2))::bigint AS postings,
                    (min(p.at) FILTER (WHERE p.at >= $2))::timestamptz AS first_at
             FROM (SELECT p.account, p.currency, CASE p.side WHEN 'debit' THEN p.amount ELSE -p.amount END AS signed,
                          p.{axis} AS at
                   FROM read.postings AS p
                   WHERE p.position <= $1 AND p.{axis} < $3 AND ($4::text IS NULL OR p.currency = $4)) AS p
             GROUP BY p.account, p.currency
             ORDER BY p.account, p.currency",
            axis = column(self.range.by)
        );
        let (from, until) = self.bounds();
        let rows = sqlx::query(&sql)
            .bind(self.position.cast_signed())
            .bind(from)
            .bind(until)
            .bind(self.range.currency.map(|currency| currency.to_string()))
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(|source| failed(WHAT, source))?;
        let accounts: Vec<_> =
            rows.iter().map(account).collect::<Result<_, _>>().map_err(|source| failed(WHAT, source))?;
        // Of one currency only there may be none yet while there are others.
        if let (true, Some(until), None) = (accounts.is_empty(), self.range.until, self.range.currency) {
            return Err(ReadError::BeforeFirstEntry { as_of: AsOf::Instant(until), first: self.first().await? });
        }
        Ok(accounts)
    }

    /// The entries of the range, in order of its time, then of their positions.
    pub fn entries(&mut self) -> BoxStream<'_, Result<ExportedEntry, ReadError>> {
        let (from, until) = self.bounds();
        let currency = self.range.currency;
        sqlx::query(&self.entries_sql)
            .bind(self.position.cast_signed())
            .bind(from)
            .bind(until)
            .fetch(&mut *self.transaction)
            .map(move |row| row.and_then(|row| entry(&row, currency)).map_err(|source| failed(WHAT, source)))
            // One that has no posting in the currency asked for.
            .filter(|entry| std::future::ready(entry.as_ref().map_or(true, |entry| !entry.postings.is_empty())))
            .boxed()
    }

    /// Both open ends lie beyond every time that there can be.
    fn bounds(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let (before_all, after_all) =
            (DateTime::<Utc>::UNIX_EPOCH - YEARS_4000, DateTime::<Utc>::UNIX_EPOCH + YEARS_9000);
        (
            self.range.from.map_or(before_all, Timestamp::to_chrono),
            self.range.until.map_or(after_all, Timestamp::to_chrono),
        )
    }

    async fn first(&mut self) -> Result<Option<AsOf>, ReadError> {
        let sql = format!("SELECT min(p.{})::timestamptz AS first_at FROM read.postings AS p", column(self.range.by));
        let row = sqlx::query(&sql).fetch_one(&mut *self.transaction).await;
        let first = row.and_then(|row| super::query::optional_time(&row, "first_at"));
        Ok(first.map_err(|source| failed(WHAT, source))?.map(AsOf::Instant))
    }
}

/// A [`Timestamp`] is of the years 0 to 9999.
const YEARS_4000: chrono::TimeDelta = chrono::TimeDelta::days(366 * 4000);
const YEARS_9000: chrono::TimeDelta = chrono::TimeDelta::days(366 * 9000);

/// The close that fixed the range's month, where it is closed or one is asked for by its number.
async fn close_of(
    range: ExportRange,
    transaction: &mut Transaction<'static, Postgres>,
) -> Result<Option<Closed>, ReadError> {
    let Some(month) = range.month else { return Ok(None) };
    let rows = sqlx::query(ACTS_SQL).fetch_all(&mut **transaction).await.map_err(|source| failed(WHAT, source))?;
    match Closed::among_rows(&rows, month, range.close).map_err(|source| failed(WHAT, source))? {
        Ok(closed) => Ok(Some(closed)),
        Err(PeriodError::NeverClosed(_) | PeriodError::Reopened { .. }) if range.close.is_none() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

const fn column(by: By) -> &'static str {
    match by {
        By::Effective => "effective_at",
        By::Occurred => "occurred_at",
        By::Recorded => "recorded_at",
    }
}

/// What is sorted are times and positions alone; the rows follow one by one. `OFFSET 0` keeps the planner from sorting them whole.
fn entries_sql(by: By) -> String {
    let axis = column(by);
    format!(
        "SELECT e.entry_id::text AS entry_id, e.position::bigint AS position, e.object::text AS object,
                e.stripe_event::text AS stripe_event, e.description::text AS description, e.occurred_at::timestamptz AS occurred_at,
                e.effective_at::timestamptz AS effective_at, e.recorded_at::timestamptz AS recorded_at, e.postings::text AS postings
         FROM (SELECT k.position, k.{axis} AS at FROM read.entries AS k
               WHERE k.position <= $1 AND k.{axis} >= $2 AND k.{axis} < $3
               ORDER BY k.{axis}, k.position OFFSET 0) AS k
         CROSS JOIN LATERAL (SELECT e.* FROM read.entries AS e WHERE e.position = k.position OFFSET 0) AS e
         ORDER BY k.at, k.position"
    )
}

fn account(row: &PgRow) -> Result<ExportedAccount, sqlx::Error> {
    Ok(ExportedAccount {
        account: row.try_get("account")?,
        currency: parsed(row, "currency")?,
        opening_minor: integer(row, "opening")?,
        closing_minor: integer(row, "closing")?,
        postings: unsigned(row, "postings")?,
        first_at: super::query::optional_time(row, "first_at")?,
    })
}

/// A posting as the projection keeps it.
#[derive(Deserialize)]
struct Stored {
    account: String,
    side: Side,
    minor: i64,
    currency: Currency,
}

fn entry(row: &PgRow, currency: Option<Currency>) -> Result<ExportedEntry, sqlx::Error> {
    let stored: Vec<Stored> =
        serde_json::from_str(row.try_get("postings")?).map_err(|error| undecodable("postings", error))?;
    let postings = (1..)
        .zip(stored)
        .filter(|(_, stored)| currency.is_none_or(|currency| stored.currency == currency))
        .map(|(line, stored)| ExportedPosting {
            line,
            account: stored.account,
            currency: stored.currency,
            minor: match stored.side {
                Side::Debit => stored.minor,
                Side::Credit => -stored.minor,
            },
        })
        .collect();
    Ok(ExportedEntry {
        entry_id: row.try_get("entry_id")?,
        position: unsigned(row, "position")?,
        object: row.try_get("object")?,
        stripe_event: row.try_get("stripe_event")?,
        description: row.try_get("description")?,
        occurred_at: time(row, "occurred_at")?,
        effective_at: time(row, "effective_at")?,
        recorded_at: time(row, "recorded_at")?,
        postings,
    })
}
