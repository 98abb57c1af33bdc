//! Balance transactions that were seen, for reconciliation with what Stripe lists; and what is known of those that were not.

use fanledger_domain::id::StripeId;
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::query::{decoding, fetch, optional_time, parsed, time, unsigned};
use super::{Read, ReadError, Slice};

const WHAT: &str = "balance transactions";

/// A balance transaction that was seen. Amounts are in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTransaction {
    /// `txn_…`.
    pub id: String,
    /// The object that it belongs to.
    pub owner: String,
    /// Stripe's word for what it is.
    pub reported_as: String,
    /// The settlement currency.
    pub currency: Currency,
    /// Gross; negative when money leaves.
    pub amount: i64,
    /// Fee; negative when returned.
    pub fee: i64,
    /// `amount − fee`.
    pub net: i64,
    /// When the balance moved.
    pub created: Timestamp,
    /// Where it is in the journal.
    pub position: u64,
}

/// Where a list of them goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenKey {
    created: Timestamp,
    id: String,
}

const COLUMNS: &str =
    "b.id::text AS id, b.owner::text AS owner, b.reported_as::text AS reported_as, b.currency::text AS currency,
     b.amount::bigint AS amount, b.fee::bigint AS fee, b.net::bigint AS net, b.created::timestamptz AS created,
     b.position::bigint AS position";

/// Those of some ids that were seen, in no order.
///
/// # Errors
/// Postgres.
pub async fn balance_transactions_by_id(
    pool: &PgPool,
    ids: &[String],
) -> Result<Read<Vec<SeenTransaction>>, ReadError> {
    let sql = format!(
        "SELECT p.position::bigint AS at, {COLUMNS}
         FROM read.positions AS p LEFT JOIN read.balance_transactions AS b ON b.id = ANY ($1::text[])
         WHERE p.name = 'balance_transactions'"
    );
    let rows = fetch(pool, WHAT, &sql, |query| query.bind(ids)).await?;
    answer(&rows)
}

/// Those made from `since` until `until`, which is not among them; oldest first.
///
/// # Errors
/// Postgres.
pub async fn balance_transactions_between(
    pool: &PgPool,
    since: Timestamp,
    until: Timestamp,
    after: Option<&SeenKey>,
    limit: u32,
) -> Result<Read<Slice<SeenTransaction, SeenKey>>, ReadError> {
    let sql = format!(
        "SELECT p.position::bigint AS at, {COLUMNS}
         FROM read.positions AS p
         LEFT JOIN LATERAL (
             SELECT b.* FROM read.balance_transactions AS b
             WHERE (b.created, b.id) > ($1::timestamptz, $2::text) AND b.created < $3::timestamptz
             ORDER BY b.created, b.id LIMIT $4::bigint) AS b ON true
         WHERE p.name = 'balance_transactions'
         ORDER BY b.created, b.id"
    );
    let rows = fetch(pool, WHAT, &sql, |query| {
        query
            .bind(after.map_or(since, |key| key.created).to_chrono())
            .bind(after.map_or("", |key| &key.id))
            .bind(until.to_chrono())
            .bind(i64::from(limit))
    })
    .await?;
    let Read { position, value: items } = answer(&rows)?;
    let full = items.len() >= limit as usize;
    let next = items.last().filter(|_| full).map(|last| SeenKey { created: last.created, id: last.id.clone() });
    Ok(Read { position, value: Slice { items, next } })
}

fn answer(rows: &[PgRow]) -> Result<Read<Vec<SeenTransaction>>, ReadError> {
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let value = rows.iter().filter_map(|row| seen(row).transpose()).collect::<Result<_, _>>()?;
        Ok(Read { position: unsigned(first, "at")?, value })
    })
}

fn seen(row: &PgRow) -> Result<Option<SeenTransaction>, sqlx::Error> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    Ok(Some(SeenTransaction {
        id,
        owner: row.try_get("owner")?,
        reported_as: row.try_get("reported_as")?,
        currency: parsed(row, "currency")?,
        amount: row.try_get("amount")?,
        fee: row.try_get("fee")?,
        net: row.try_get("net")?,
        created: time(row, "created")?,
        position: unsigned(row, "position")?,
    }))
}

/// What is known of a balance transaction that was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The object that names it and waits for it.
    pub awaited_by: Option<String>,
    /// The last webhook about the object that Stripe gives as its source.
    pub webhook: Option<UnseenWebhook>,
}

/// A webhook about the source of a balance transaction that was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnseenWebhook {
    /// `evt_…`.
    pub id: String,
    /// Whether facts came of it.
    pub has_facts: bool,
    /// Why there are none, where the translator said so.
    pub reason: Option<String>,
}

/// What is known of a balance transaction, and of the object that is its source, where neither was seen.
///
/// # Errors
/// Postgres.
pub async fn unseen(pool: &PgPool, id: &StripeId, source: Option<&StripeId>) -> Result<Unseen, ReadError> {
    const WHAT: &str = "what is known of a balance transaction";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT (SELECT a.object FROM read.awaited AS a WHERE a.balance_transaction = $1::text ORDER BY a.object LIMIT 1)::text AS awaited_by,
                i.event_id::text AS event_id, (i.facts > 0)::boolean AS has_facts, i.reason::text AS reason
         FROM (VALUES (1)) AS one (row)
         LEFT JOIN LATERAL (
             SELECT i.* FROM read.stripe_inbox AS i WHERE i.object = $2::text ORDER BY i.position DESC LIMIT 1) AS i ON true",
        |query| query.bind(id.as_str()).bind(source.map(|source| source.as_str())),
    )
    .await?;
    let row = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let event: Option<String> = row.try_get("event_id")?;
        let webhook = match event {
            None => None,
            Some(id) => {
                Some(UnseenWebhook { id, has_facts: row.try_get("has_facts")?, reason: row.try_get("reason")? })
            }
        };
        Ok(Unseen { awaited_by: row.try_get("awaited_by")?, webhook })
    })
}

/// When Stripe made the newest of the webhooks that came last.
///
/// # Errors
/// Postgres.
pub async fn last_webhook(pool: &PgPool) -> Result<Option<Timestamp>, ReadError> {
    const WHAT: &str = "the last webhook";
    // They come nearly in order; a thousand are more than ever overtake one another.
    let rows = fetch(
        pool,
        WHAT,
        "SELECT max(i.created)::timestamptz AS created
         FROM (SELECT i.created FROM read.stripe_inbox AS i ORDER BY i.position DESC LIMIT 1000) AS i",
        |query| query,
    )
    .await?;
    let row = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || optional_time(row, "created"))
}
