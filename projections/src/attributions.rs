//! `attributions`: whose money finance said that an object moves, who said so, and why.
//!
//! What metadata says is not here, and neither is what stands: the object's own books decide that.

use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::event::{CreatorAttributed, Event};
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct Attributions;

const CREATE: &str = r#"
-- One row for each time that something was said. `said_by` is null where nobody was written down.
CREATE TABLE attributions (
    position          bigint PRIMARY KEY,
    object            text COLLATE "C" NOT NULL,
    creator           text COLLATE "C" NOT NULL,
    fan               text COLLATE "C",
    kind              text COLLATE "C",
    creator_share_bps integer,
    tax_minor         bigint,
    tax_jurisdiction  text COLLATE "C",
    said_at           timestamptz NOT NULL,
    said_by           text,
    reason            text NOT NULL
);
CREATE INDEX attributions_object ON attributions (object, position);
"#;

#[async_trait]
impl Projection for Attributions {
    fn name(&self) -> &'static str {
        "attributions"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["attributions"] }
    }

    fn wants(&self, event_type: &str) -> bool {
        event_type == CreatorAttributed::TYPE
    }

    /// One statement an event: people, and scripts that ask for one at a time, are slower than Postgres.
    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        for recorded in batch {
            let event = decode::event(recorded)?;
            let Event::CreatorAttributed(said) = event else { return Err(decode::unwanted(recorded, &event)) };
            write(recorded, &said, connection).await?;
        }
        Ok(())
    }
}

async fn write(
    recorded: &RecordedEvent,
    said: &CreatorAttributed,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let attribution = &said.attribution;
    sqlx::query(
        "INSERT INTO attributions (position, object, creator, fan, kind, creator_share_bps, tax_minor, tax_jurisdiction,
             said_at, said_by, reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(recorded.position.as_i64())
    .bind(&recorded.stream.aggregate_id)
    .bind(attribution.creator.as_str())
    .bind(attribution.fan.as_ref().map(|fan| fan.as_str()))
    .bind(attribution.kind.map(|kind| kind.as_str()))
    .bind(attribution.share.map(|share| i32::from(share.get())))
    .bind(attribution.tax_minor)
    .bind(attribution.tax_jurisdiction.as_ref().map(|jurisdiction| jurisdiction.as_str()))
    .bind(said.at.to_chrono())
    .bind(said.by.as_ref().map(|by| by.as_str()))
    .bind(&said.reason)
    .execute(connection)
    .await?;
    Ok(())
}
