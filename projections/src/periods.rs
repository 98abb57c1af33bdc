//! `periods`: each close of a month and each reopening, with the position and chain that fix its closing balances.

use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::event::Event;
use fanledger_domain::period::{PeriodClosed, PeriodReopened};
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct Periods;

const CREATE: &str = r#"
-- One row per act, a few a month: what is closed now, and a close's number, follow from them. `first_open` is null where
-- everything is open; `chain` is the journal's at `position`, in hex.
CREATE TABLE periods (
    position    bigint PRIMARY KEY,
    act         text COLLATE "C" NOT NULL CHECK (act IN ('closed', 'reopened')),
    period      text COLLATE "C" NOT NULL,
    first_open  timestamptz,
    chain       text COLLATE "C" NOT NULL,
    at          timestamptz NOT NULL,
    by          text COLLATE "C" NOT NULL,
    reason      text,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX periods_period ON periods (period, position);
"#;

#[async_trait]
impl Projection for Periods {
    fn name(&self) -> &'static str {
        "periods"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["periods"] }
    }

    fn wants(&self, event_type: &str) -> bool {
        matches!(event_type, PeriodClosed::TYPE | PeriodReopened::TYPE)
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        for recorded in batch {
            let event = decode::event(recorded)?;
            let (act, period, first_open, at, by, reason) = if let Event::PeriodClosed(closed) = &event {
                ("closed", closed.period, Some(closed.first_open), closed.at, &closed.by, None)
            } else if let Event::PeriodReopened(reopened) = &event {
                let PeriodReopened { period, first_open, at, by, reason } = reopened;
                ("reopened", *period, *first_open, *at, by, Some(reason))
            } else {
                return Err(decode::unwanted(recorded, &event));
            };
            sqlx::query(
                "INSERT INTO periods (position, act, period, first_open, chain, at, by, reason, recorded_at)
                 VALUES ($1, $2, $3, $4, encode($5, 'hex'), $6, $7, $8, $9)",
            )
            .bind(recorded.position.as_i64())
            .bind(act)
            .bind(period.to_string())
            .bind(first_open.map(Timestamp::to_chrono))
            .bind(recorded.chain.0.as_slice())
            .bind(at.to_chrono())
            .bind(by.as_str())
            .bind(reason)
            .bind(recorded.recorded_at)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}
