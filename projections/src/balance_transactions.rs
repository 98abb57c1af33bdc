//! `balance_transactions`: each balance transaction that was seen, for reconciliation with what Stripe lists.
//!
//! The same one is seen in more than one stream: handed on from a refund to its charge, or listed after it was fetched. It
//! never changes; should two sightings differ all the same, the greater is kept, by the rule that the books go by, and of equal
//! ones the first.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_domain::event::{BalanceTransactionObserved, Event};
use fanledger_domain::facts::{BalanceTransaction, Category};
use fanledger_domain::id::StripeId;
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct BalanceTransactions;

const CREATE: &str = r#"
-- Amounts are in minor units. `owner` is the object that it belongs to, `source` the one that Stripe names; `category` is ours,
-- `reported_as` Stripe's word. `fee_details` is [{"fee_type", "amount"}].
CREATE TABLE balance_transactions (
    id           text COLLATE "C" PRIMARY KEY,
    owner        text COLLATE "C" NOT NULL,
    source       text COLLATE "C",
    category     text COLLATE "C" NOT NULL,
    reported_as  text COLLATE "C" NOT NULL,
    currency     text COLLATE "C" NOT NULL,
    amount       bigint NOT NULL,
    fee          bigint NOT NULL,
    net          bigint NOT NULL,
    fee_details  json NOT NULL,
    created      timestamptz NOT NULL,
    available_on timestamptz NOT NULL,
    position     bigint NOT NULL,
    recorded_at  timestamptz NOT NULL
);
"#;

/// The order of reconciliation and of lists. The primary key is not among them: `apply` goes by it.
const INDEXES: &str = "CREATE INDEX balance_transactions_created ON balance_transactions (created, id);";

/// A balance transaction as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    owner: StripeId,
    transaction: BalanceTransaction,
    position: Position,
    recorded_at: DateTime<Utc>,
}

impl Sighting {
    /// Whether a later one with the same id takes its place.
    fn is_less_than(&self, later: &Self) -> bool {
        (&self.owner, &self.transaction) < (&later.owner, &later.transaction)
    }
}

#[async_trait]
impl Projection for BalanceTransactions {
    fn name(&self) -> &'static str {
        "balance_transactions"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["balance_transactions"] }
    }

    fn indexes(&self) -> &'static str {
        INDEXES
    }

    fn wants(&self, event_type: &str) -> bool {
        event_type == BalanceTransactionObserved::TYPE
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let mut seen: BTreeMap<StripeId, Sighting> = BTreeMap::new();
        for recorded in batch {
            let observed = match decode::event(recorded)? {
                Event::BalanceTransactionObserved(observed) => observed,
                other => return Err(decode::unwanted(recorded, &other)),
            };
            let (position, recorded_at) = (recorded.position, recorded.recorded_at);
            let new = Sighting { owner: observed.owner, transaction: observed.transaction, position, recorded_at };
            if seen.get(&new.transaction.id).is_none_or(|known| known.is_less_than(&new)) {
                seen.insert(new.transaction.id.clone(), new);
            }
        }
        for known in load(seen.keys(), connection).await? {
            if let Some(new) = seen.remove(&known.transaction.id)
                && known.is_less_than(&new)
            {
                seen.insert(new.transaction.id.clone(), new);
            }
        }
        write(&seen.into_values().collect::<Vec<_>>(), connection).await?;
        Ok(())
    }
}

async fn load(
    ids: impl Iterator<Item = &StripeId>,
    connection: &mut PgConnection,
) -> Result<Vec<Sighting>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, owner, source, category, reported_as, currency, amount, fee, net, fee_details::text AS fee_details,
                created, available_on, position, recorded_at
         FROM balance_transactions WHERE id = ANY ($1::text[])",
    )
    .bind(ids.map(StripeId::as_str).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("no category of ours: {0}")]
struct NoCategory(String);

fn read(row: &PgRow) -> Result<Sighting, sqlx::Error> {
    fn undecodable(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
        sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
    }
    let id = |column: &str| -> Result<StripeId, sqlx::Error> {
        row.try_get::<&str, _>(column)?.parse().map_err(|error| undecodable(column, error))
    };
    let time = |column: &str| -> Result<Timestamp, sqlx::Error> {
        Timestamp::from_chrono(row.try_get(column)?).map_err(|error| undecodable(column, error))
    };
    let source: Option<&str> = row.try_get("source")?;
    let category: &str = row.try_get("category")?;
    let transaction = BalanceTransaction {
        id: id("id")?,
        created: time("created")?,
        available_on: time("available_on")?,
        currency: row
            .try_get::<&str, _>("currency")?
            .parse()
            .map_err(|error: fanledger_domain::money::MoneyError| undecodable("currency", error))?,
        amount: row.try_get("amount")?,
        fee: row.try_get("fee")?,
        net: row.try_get("net")?,
        fee_details: serde_json::from_str(row.try_get("fee_details")?)
            .map_err(|error| undecodable("fee_details", error))?,
        category: Category::from_text(category)
            .ok_or_else(|| undecodable("category", NoCategory(category.to_owned())))?,
        reported_as: row.try_get("reported_as")?,
        source: source.map(str::parse).transpose().map_err(|error| undecodable("source", error))?,
    };
    Ok(Sighting {
        owner: id("owner")?,
        transaction,
        position: Position::from_i64(row.try_get("position")?),
        recorded_at: row.try_get("recorded_at")?,
    })
}

#[derive(Debug, thiserror::Error)]
#[error("write a fee's parts as JSON")]
struct Unwritable(#[source] serde_json::Error);

async fn write(sightings: &[Sighting], connection: &mut PgConnection) -> Result<(), ApplyError> {
    if sightings.is_empty() {
        return Ok(());
    }
    let all = || sightings.iter().map(|sighting| &sighting.transaction);
    let fee_details: Vec<String> = sightings
        .iter()
        .map(|sighting| {
            serde_json::to_string(&sighting.transaction.fee_details)
                .map_err(|error| ApplyError::poison(sighting.position, Unwritable(error)))
        })
        .collect::<Result<_, _>>()?;
    sqlx::query(
        "INSERT INTO balance_transactions (id, owner, source, category, reported_as, currency, amount, fee, net, fee_details,
             created, available_on, position, recorded_at)
         SELECT d.id, d.owner, d.source, d.category, d.reported_as, d.currency, d.amount, d.fee, d.net, d.fee_details::json,
             d.created, d.available_on, d.position, d.recorded_at
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
                 $9::bigint[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::bigint[], $14::timestamptz[])
             AS d (id, owner, source, category, reported_as, currency, amount, fee, net, fee_details, created, available_on,
                   position, recorded_at)
         ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, source = excluded.source, category = excluded.category,
             reported_as = excluded.reported_as, currency = excluded.currency, amount = excluded.amount, fee = excluded.fee,
             net = excluded.net, fee_details = excluded.fee_details, created = excluded.created,
             available_on = excluded.available_on, position = excluded.position, recorded_at = excluded.recorded_at",
    )
    .bind(all().map(|transaction| transaction.id.as_str()).collect::<Vec<_>>())
    .bind(sightings.iter().map(|sighting| sighting.owner.as_str()).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.source.as_ref().map(StripeId::as_str)).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.category.as_str()).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.reported_as.as_str()).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.currency.to_string()).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.amount).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.fee).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.net).collect::<Vec<_>>())
    .bind(fee_details)
    .bind(all().map(|transaction| transaction.created.to_chrono()).collect::<Vec<_>>())
    .bind(all().map(|transaction| transaction.available_on.to_chrono()).collect::<Vec<_>>())
    .bind(sightings.iter().map(|sighting| sighting.position.as_i64()).collect::<Vec<_>>())
    .bind(sightings.iter().map(|sighting| sighting.recorded_at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
