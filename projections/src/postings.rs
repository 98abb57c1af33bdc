//! `postings`: the lines of statements, in the order of any of the three times.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct Postings;

const CREATE: &str = r#"
-- `line` is the posting's number within its entry, from 1. Each index is an order of statements, page by page; that of
-- recording is the primary key's.
CREATE TABLE postings (
    account      text COLLATE "C" NOT NULL,
    currency     text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    line         integer NOT NULL,
    entry_id     text COLLATE "C" NOT NULL,
    side         text COLLATE "C" NOT NULL CHECK (side IN ('debit', 'credit')),
    amount       bigint NOT NULL CHECK (amount > 0),
    occurred_at  timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    description  text NOT NULL,
    object       text COLLATE "C" NOT NULL,
    stripe_event text COLLATE "C",
    PRIMARY KEY (account, currency, position, line)
);
CREATE INDEX postings_occurred ON postings (account, currency, occurred_at, position, line);
CREATE INDEX postings_effective ON postings (account, currency, effective_at, position, line);
"#;

#[derive(Default)]
struct Rows {
    accounts: Vec<String>,
    currencies: Vec<String>,
    positions: Vec<i64>,
    lines: Vec<i32>,
    entry_ids: Vec<String>,
    sides: Vec<&'static str>,
    amounts: Vec<i64>,
    occurred: Vec<DateTime<Utc>>,
    effective: Vec<DateTime<Utc>>,
    recorded: Vec<DateTime<Utc>>,
    descriptions: Vec<String>,
    objects: Vec<String>,
    stripe_events: Vec<Option<String>>,
}

#[async_trait]
impl Projection for Postings {
    fn name(&self) -> &'static str {
        "postings"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["postings"] }
    }

    fn wants(&self, event_type: &str) -> bool {
        event_type == decode::ENTRY_POSTED
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let mut rows = Rows::default();
        for recorded in batch {
            let entry = decode::entry(recorded)?;
            for (line, posting) in (1..).zip(&entry.postings) {
                rows.accounts.push(posting.account.to_string());
                rows.currencies.push(posting.money.currency().to_string());
                rows.positions.push(recorded.position.as_i64());
                rows.lines.push(line);
                rows.entry_ids.push(entry.entry_id.to_string());
                rows.sides.push(posting.side.as_str());
                rows.amounts.push(posting.money.minor());
                rows.occurred.push(entry.occurred_at.to_chrono());
                rows.effective.push(entry.effective_at.to_chrono());
                rows.recorded.push(recorded.recorded_at);
                rows.descriptions.push(entry.description.clone());
                rows.objects.push(entry.cause.object.to_string());
                rows.stripe_events.push(entry.cause.stripe_event.as_ref().map(ToString::to_string));
            }
        }
        rows.write(connection).await?;
        Ok(())
    }
}

impl Rows {
    async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO postings (account, currency, position, line, entry_id, side, amount, occurred_at, effective_at, recorded_at,
                 description, object, stripe_event)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::bigint[],
                 $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[], $13::text[])",
        )
        .bind(self.accounts)
        .bind(self.currencies)
        .bind(self.positions)
        .bind(self.lines)
        .bind(self.entry_ids)
        .bind(self.sides)
        .bind(self.amounts)
        .bind(self.occurred)
        .bind(self.effective)
        .bind(self.recorded)
        .bind(self.descriptions)
        .bind(self.objects)
        .bind(self.stripe_events)
        .execute(connection)
        .await?;
        Ok(())
    }
}
