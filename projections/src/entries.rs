//! `entries`: each entry of the ledger with what led to it.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_domain::entry::FactReference;
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use serde::Serialize;
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct Entries;

const CREATE: &str = r#"
-- `facts` is [{"event_type", "sequence", "position"}], `postings` is [{"account", "side", "minor", "currency"}].
CREATE TABLE entries (
    entry_id     text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    stream_type  text COLLATE "C" NOT NULL,
    stream_id    text COLLATE "C" NOT NULL,
    object       text COLLATE "C" NOT NULL,
    facts        json NOT NULL,
    stripe_event text COLLATE "C",
    description  text NOT NULL,
    occurred_at  timestamptz NOT NULL,
    effective_at timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    postings     json NOT NULL
);
"#;

/// By date for exports of a month; that of recording goes with the position.
const INDEXES: &str = "
ALTER TABLE entries ADD PRIMARY KEY (entry_id), ADD UNIQUE (position);
CREATE INDEX entries_object ON entries (object, position);
CREATE INDEX entries_occurred ON entries (occurred_at, position);
CREATE INDEX entries_effective ON entries (effective_at, position);
";

/// A fact, with its place in the journal.
#[derive(Serialize)]
struct Fact<'a> {
    event_type: &'a str,
    sequence: u64,
    position: Position,
}

/// A command's events follow one another both in their stream and in the journal, so a fact stands as far before its entry
/// there as here.
fn fact<'a>(entry: &RecordedEvent, fact: &'a FactReference) -> Fact<'a> {
    let before = entry.sequence.saturating_sub(fact.sequence);
    Fact {
        event_type: &fact.event_type,
        sequence: fact.sequence,
        position: Position::new(entry.position.get().saturating_sub(before)),
    }
}

#[derive(Default)]
struct Rows {
    entry_ids: Vec<String>,
    positions: Vec<i64>,
    stream_types: Vec<String>,
    stream_ids: Vec<String>,
    objects: Vec<String>,
    facts: Vec<String>,
    stripe_events: Vec<Option<String>>,
    descriptions: Vec<String>,
    occurred: Vec<DateTime<Utc>>,
    effective: Vec<DateTime<Utc>>,
    recorded: Vec<DateTime<Utc>>,
    postings: Vec<String>,
}

#[async_trait]
impl Projection for Entries {
    fn name(&self) -> &'static str {
        "entries"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["entries"] }
    }

    fn indexes(&self) -> &'static str {
        INDEXES
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
            let unwritable = |error| ApplyError::poison(recorded.position, Unwritable(error));
            let facts: Vec<_> = entry.cause.facts.iter().map(|reference| fact(recorded, reference)).collect();
            rows.entry_ids.push(entry.entry_id.to_string());
            rows.positions.push(recorded.position.as_i64());
            rows.stream_types.push(recorded.stream.aggregate_type.clone());
            rows.stream_ids.push(recorded.stream.aggregate_id.clone());
            rows.objects.push(entry.cause.object.to_string());
            rows.facts.push(serde_json::to_string(&facts).map_err(unwritable)?);
            rows.stripe_events.push(entry.cause.stripe_event.as_ref().map(ToString::to_string));
            rows.descriptions.push(entry.description);
            rows.occurred.push(entry.occurred_at.to_chrono());
            rows.effective.push(entry.effective_at.to_chrono());
            rows.recorded.push(recorded.recorded_at);
            rows.postings.push(serde_json::to_string(&entry.postings).map_err(unwritable)?);
        }
        rows.write(connection).await?;
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("write an entry's parts as JSON")]
struct Unwritable(#[source] serde_json::Error);

impl Rows {
    async fn write(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO entries (entry_id, position, stream_type, stream_id, object, facts, stripe_event, description,
                 occurred_at, effective_at, recorded_at, postings)
             SELECT d.entry_id, d.position, d.stream_type, d.stream_id, d.object, d.facts::json, d.stripe_event, d.description,
                 d.occurred_at, d.effective_at, d.recorded_at, d.postings::json
             FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                 $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[])
                 AS d (entry_id, position, stream_type, stream_id, object, facts, stripe_event, description,
                       occurred_at, effective_at, recorded_at, postings)",
        )
        .bind(self.entry_ids)
        .bind(self.positions)
        .bind(self.stream_types)
        .bind(self.stream_ids)
        .bind(self.objects)
        .bind(self.facts)
        .bind(self.stripe_events)
        .bind(self.descriptions)
        .bind(self.occurred)
        .bind(self.effective)
        .bind(self.recorded)
        .bind(self.postings)
        .execute(connection)
        .await?;
        Ok(())
    }
}
