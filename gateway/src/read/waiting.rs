//! What finance waits for, oldest first: it is worked off from the top.

use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{AwaitedItem, AwaitedPart, SuspenseItem};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::cut::Cut;
use super::periods::{Asked, Decided};
use super::query::{bigint, decoding, fetch, integer, time, unsigned};
use super::{AsOf, Read, ReadError, Slice};

/// Where a list of money in suspense goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspenseKey {
    since: Timestamp,
    account: String,
    object: String,
    currency: String,
}

/// Where a list of balance transactions awaited goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedKey {
    since: Timestamp,
    object: String,
    part: String,
}

/// Open money in suspense, oldest first; as it is, or as it was.
///
/// What it was is added up from all lines that suspense ever had, for no table remembers what was cleared. Its age is the same as of
/// now: since the earliest occurrence among the entries, in the order of positions, since it was last zero.
///
/// # Errors
/// As [`super::trial_balance`].
pub async fn suspense<M: From<i128>>(
    pool: &PgPool,
    asked: Asked,
    after: Option<&SuspenseKey>,
    limit: u32,
) -> Result<Read<Slice<SuspenseItem<M>, SuspenseKey>>, ReadError> {
    const WHAT: &str = "money in suspense";
    let decided = asked.decide(pool).await?;
    let Decided { as_of, by, .. } = decided;
    let cut = Cut { as_of, by };
    let sql = if as_of == AsOf::Latest { suspense_now() } else { suspense_then(cut) };
    let (until, until_position) = match as_of {
        AsOf::Latest => (None, None),
        AsOf::Instant(at) => (Some(at.to_chrono()), None),
        AsOf::Position(position) => (None, Some(bigint(position))),
        AsOf::Known { instant, position } => (Some(instant.to_chrono()), Some(bigint(position))),
    };
    let rows = fetch(pool, WHAT, &sql, |query| {
        query
            .bind(after.map(|key| key.since.to_chrono()))
            .bind(after.map_or("", |key| &key.account))
            .bind(after.map_or("", |key| &key.object))
            .bind(after.map_or("", |key| &key.currency))
            .bind(i64::from(limit))
            .bind(until)
            .bind(until_position)
    })
    .await?;
    if as_of != AsOf::Latest {
        let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
        cut.check(WHAT, first, decoding(WHAT, || unsigned(first, "at"))?)?;
    }
    let read = slice(WHAT, &rows, limit, |row| {
        let Some(account) = row.try_get::<Option<String>, _>("account")? else { return Ok(None) };
        let since = time(row, "since")?;
        let item = SuspenseItem {
            account,
            object: row.try_get("object")?,
            currency: row.try_get("currency")?,
            balance_minor: integer(row, "balance")?.into(),
            since: since.to_string(),
            last_position: unsigned(row, "last_position")?,
        };
        let key = SuspenseKey {
            since,
            account: item.account.clone(),
            object: item.object.clone(),
            currency: item.currency.clone(),
        };
        Ok(Some((item, key)))
    });
    read.map(|read| decided.bound(read))
}

/// Both have the columns of a part of the list, and the same parameters: $1 to $4 the key, $5 the limit, $6 and $7 until when.
const SUSPENSE_PART: &str = "s.account::text AS account, s.object::text AS object, s.currency::text AS currency,
     s.balance::text AS balance, s.since::timestamptz AS since, s.last_position::bigint AS last_position";
const SUSPENSE_AFTER: &str = "(s.since, s.account, s.object, s.currency) > (coalesce($1::timestamptz, '-infinity'), $2::text, $3::text, $4::text)
     ORDER BY s.since, s.account, s.object, s.currency LIMIT $5::bigint";

fn suspense_now() -> String {
    format!(
        "SELECT p.position::bigint AS at, {SUSPENSE_PART}
         FROM read.positions AS p
         LEFT JOIN LATERAL (SELECT s.* FROM read.suspense AS s WHERE {SUSPENSE_AFTER}) AS s ON true
         WHERE p.name = 'suspense' AND $6::timestamptz IS NULL AND $7::bigint IS NULL
         ORDER BY s.since, s.account, s.object, s.currency"
    )
}

fn suspense_then(cut: Cut) -> String {
    let axis = cut.by.as_str();
    format!(
        "WITH at AS (
             SELECT least(b.position, p.position) AS position
             FROM read.positions AS b, read.positions AS p WHERE b.name = 'balances' AND p.name = 'postings'
         ), moves AS MATERIALIZED (
             SELECT l.account, l.object, l.currency, l.position, min(l.occurred_at) AS occurred_at,
                    sum(CASE l.side WHEN 'debit' THEN l.amount ELSE -l.amount END) AS amount
             FROM at CROSS JOIN read.postings AS l
             WHERE l.account LIKE 'liabilities:suspense:%' AND l.position <= least(at.position, $7::bigint)
               AND ($6::timestamptz IS NULL OR l.{axis}_at <= $6)
             GROUP BY l.account, l.object, l.currency, l.position
         ), open AS (
             SELECT m.account, m.object, m.currency, sum(m.amount) AS balance, max(m.position) AS last_position
             FROM moves AS m GROUP BY m.account, m.object, m.currency HAVING sum(m.amount) <> 0
         ), running AS (
             SELECT m.*, sum(m.amount) OVER (PARTITION BY m.account, m.object, m.currency ORDER BY m.position) AS balance
             FROM moves AS m JOIN open AS o USING (account, object, currency)
         ), zero AS (
             SELECT r.account, r.object, r.currency, max(r.position) FILTER (WHERE r.balance = 0) AS position
             FROM running AS r GROUP BY r.account, r.object, r.currency
         ), s AS (
             SELECT o.account, o.object, o.currency, o.balance, o.last_position, min(r.occurred_at) AS since
             FROM open AS o
             JOIN zero AS z USING (account, object, currency)
             JOIN running AS r ON r.account = o.account AND r.object = o.object AND r.currency = o.currency
                              AND r.position > coalesce(z.position, 0)
             GROUP BY o.account, o.object, o.currency, o.balance, o.last_position
         )
         SELECT at.position::bigint AS at, {firsts}, {SUSPENSE_PART}
         FROM at
         LEFT JOIN LATERAL (SELECT s.* FROM s WHERE {SUSPENSE_AFTER}) AS s ON true
         ORDER BY s.since, s.account, s.object, s.currency",
        firsts = cut.firsts(),
    )
}

/// Balance transactions awaited, oldest first.
///
/// # Errors
/// Postgres.
pub async fn awaited<M: From<i128>>(
    pool: &PgPool,
    after: Option<&AwaitedKey>,
    limit: u32,
) -> Result<Read<Slice<AwaitedItem<M>, AwaitedKey>>, ReadError> {
    const WHAT: &str = "balance transactions awaited";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT p.position::bigint AS at, a.object::text AS object, a.part::text AS part, a.stream_type::text AS stream_type,
                a.stream_id::text AS stream_id, a.balance_transaction::text AS balance_transaction, a.amount::text AS amount,
                a.currency::text AS currency, a.since::timestamptz AS since
         FROM read.positions AS p
         LEFT JOIN LATERAL (
             SELECT a.* FROM read.awaited AS a
             WHERE (a.since, a.object, a.part) > (coalesce($1::timestamptz, '-infinity'), $2::text, $3::text)
             ORDER BY a.since, a.object, a.part LIMIT $4::bigint) AS a ON true
         WHERE p.name = 'awaited'
         ORDER BY a.since, a.object, a.part",
        |query| {
            query
                .bind(after.map(|key| key.since.to_chrono()))
                .bind(after.map_or("", |key| &key.object))
                .bind(after.map_or("", |key| &key.part))
                .bind(i64::from(limit))
        },
    )
    .await?;
    slice(WHAT, &rows, limit, |row| {
        let Some(object) = row.try_get::<Option<String>, _>("object")? else { return Ok(None) };
        let since = time(row, "since")?;
        let part: String = row.try_get("part")?;
        let item = AwaitedItem {
            object,
            part: if part == "return" { AwaitedPart::Return } else { AwaitedPart::Movement },
            stream: format!("{}/{}", row.try_get::<&str, _>("stream_type")?, row.try_get::<&str, _>("stream_id")?),
            balance_transaction: row.try_get("balance_transaction")?,
            amount_minor: integer(row, "amount")?.into(),
            currency: row.try_get("currency")?,
            since: since.to_string(),
        };
        let key = AwaitedKey { since, object: item.object.clone(), part };
        Ok(Some((item, key)))
    })
}

fn slice<T, K>(
    what: &'static str,
    rows: &[PgRow],
    limit: u32,
    read: impl Fn(&PgRow) -> Result<Option<(T, K)>, sqlx::Error>,
) -> Result<Read<Slice<T, K>>, ReadError> {
    let first = rows.first().ok_or(ReadError::NotBuilt { what })?;
    decoding(what, || {
        let found: Vec<(T, K)> = rows.iter().filter_map(|row| read(row).transpose()).collect::<Result<_, _>>()?;
        let full = found.len() >= limit as usize;
        let (items, mut keys): (Vec<T>, Vec<K>) = found.into_iter().unzip();
        Ok(Read { position: unsigned(first, "at")?, value: Slice { items, next: keys.pop().filter(|_| full) } })
    })
}
