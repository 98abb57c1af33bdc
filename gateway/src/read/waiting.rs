//! What finance waits for, oldest first: it is worked off from the top.

use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{AwaitedItem, AwaitedPart, SuspenseItem};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::query::{decoding, fetch, integer, time, unsigned};
use super::{Read, ReadError, Slice};

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

/// Open money in suspense, oldest first.
///
/// # Errors
/// Postgres.
pub async fn suspense<M: From<i128>>(
    pool: &PgPool,
    after: Option<&SuspenseKey>,
    limit: u32,
) -> Result<Read<Slice<SuspenseItem<M>, SuspenseKey>>, ReadError> {
    const WHAT: &str = "money in suspense";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT p.position::bigint AS at, s.account::text AS account, s.object::text AS object, s.currency::text AS currency,
                s.balance::text AS balance, s.since::timestamptz AS since, s.last_position::bigint AS last_position
         FROM read.positions AS p
         LEFT JOIN LATERAL (
             SELECT s.* FROM read.suspense AS s
             WHERE (s.since, s.account, s.object, s.currency) > (coalesce($1::timestamptz, '-infinity'), $2::text, $3::text, $4::text)
             ORDER BY s.since, s.account, s.object, s.currency LIMIT $5::bigint) AS s ON true
         WHERE p.name = 'suspense'
         ORDER BY s.since, s.account, s.object, s.currency",
        |query| {
            query
                .bind(after.map(|key| key.since.to_chrono()))
                .bind(after.map_or("", |key| &key.account))
                .bind(after.map_or("", |key| &key.object))
                .bind(after.map_or("", |key| &key.currency))
                .bind(i64::from(limit))
        },
    )
    .await?;
    slice(WHAT, &rows, limit, |row| {
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
    })
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
