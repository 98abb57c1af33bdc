//! `manual_entries`: each entry that finance made by hand, who proposed it and why, and what became of it.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_domain::event::Event;
use fanledger_domain::id::IdError;
use fanledger_domain::manual_entry::{self, ManualEntryApproved, ManualEntryProposed, ManualEntryRejected};
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct ManualEntries;

const CREATE: &str = r#"
-- `position` is the proposal's. A reversal that was rejected may be proposed again: then the row is of the later proposal.
-- `decided_*` are the second person's, or whose who said no. `rejected_*` and the reason are of the last rejection, which stays
-- when it is proposed again.
CREATE TABLE manual_entries (
    id               text COLLATE "C" PRIMARY KEY,
    position         bigint NOT NULL,
    state            text NOT NULL CHECK (state IN ('proposed', 'posted', 'rejected')),
    description      text NOT NULL,
    reason           text NOT NULL,
    occurred_at      timestamptz NOT NULL,
    reverses         text COLLATE "C",
    clears           text COLLATE "C",
    postings         json NOT NULL,
    needs_approval   boolean NOT NULL,
    proposed_at      timestamptz NOT NULL,
    proposed_by      text NOT NULL,
    decided_at       timestamptz,
    decided_by       text,
    rejected_at      timestamptz,
    rejected_by      text,
    rejection_reason text,
    entry_id         text COLLATE "C"
);
"#;

const INDEXES: &str = "
ALTER TABLE manual_entries ADD UNIQUE (position);
CREATE INDEX manual_entries_state ON manual_entries (state, position);
CREATE INDEX manual_entries_reverses ON manual_entries (reverses) WHERE reverses IS NOT NULL;
";

#[async_trait]
impl Projection for ManualEntries {
    fn name(&self) -> &'static str {
        "manual_entries"
    }

    fn version(&self) -> u32 {
        3
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["manual_entries"] }
    }

    fn indexes(&self) -> &'static str {
        INDEXES
    }

    fn wants(&self, event_type: &str) -> bool {
        [ManualEntryProposed::TYPE, ManualEntryApproved::TYPE, ManualEntryRejected::TYPE].contains(&event_type)
    }

    /// One statement an event: people type slower than Postgres writes. The entry is of the same command as what lets it be
    /// posted, so its id follows, and the many entries of Stripe's objects need not be read.
    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        for recorded in batch {
            let event = decode::event(recorded)?;
            if let Event::ManualEntryProposed(proposed) = event {
                propose(recorded, &proposed, connection).await?;
            } else if let Event::ManualEntryApproved(approved) = event {
                approve(recorded, &approved, connection).await?;
            } else if let Event::ManualEntryRejected(rejected) = event {
                reject(&rejected, connection).await?;
            } else {
                return Err(decode::unwanted(recorded, &event));
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("write an entry's postings as JSON")]
    Postings(#[source] serde_json::Error),
    #[error("name the entry that was posted")]
    EntryId(#[source] IdError),
    #[error("read when a proposed entry occurred")]
    OccurredAt(#[source] TimestampError),
}

async fn propose(
    recorded: &RecordedEvent,
    proposed: &ManualEntryProposed,
    connection: &mut PgConnection,
) -> Result<(), ApplyError> {
    let poison = |error| ApplyError::poison(recorded.position, error);
    let postings = serde_json::to_string(&proposed.postings).map_err(|error| poison(Unreadable::Postings(error)))?;
    let entry_id = manual_entry::entry_id(&proposed.id, recorded.sequence, proposed.occurred_at)
        .map_err(|error| poison(Unreadable::EntryId(error)))?;
    let is_posted = !proposed.needs_approval;
    sqlx::query(
        "INSERT INTO manual_entries (id, position, state, description, reason, occurred_at, reverses, postings, needs_approval,
             proposed_at, proposed_by, entry_id, clears)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json, $9, $10, $11, $12, $13)
         ON CONFLICT (id) DO UPDATE
         SET position = excluded.position, state = excluded.state, description = excluded.description,
             reason = excluded.reason, occurred_at = excluded.occurred_at, reverses = excluded.reverses,
             postings = excluded.postings, needs_approval = excluded.needs_approval, proposed_at = excluded.proposed_at,
             proposed_by = excluded.proposed_by, entry_id = excluded.entry_id, decided_at = NULL, decided_by = NULL,
             clears = excluded.clears",
    )
    .bind(proposed.id.as_str())
    .bind(recorded.position.as_i64())
    .bind(if is_posted { "posted" } else { "proposed" })
    .bind(&proposed.description)
    .bind(&proposed.reason)
    .bind(proposed.occurred_at.to_chrono())
    .bind(proposed.reverses.as_ref().map(|entry_id| entry_id.as_str()))
    .bind(postings)
    .bind(proposed.needs_approval)
    .bind(proposed.at.to_chrono())
    .bind(proposed.by.as_str())
    .bind(is_posted.then(|| entry_id.to_string()))
    .bind(proposed.clears.as_ref().map(|id| id.as_str()))
    .execute(connection)
    .await?;
    Ok(())
}

async fn approve(
    recorded: &RecordedEvent,
    approved: &ManualEntryApproved,
    connection: &mut PgConnection,
) -> Result<(), ApplyError> {
    let poison = |error| ApplyError::poison(recorded.position, error);
    let occurred_at: DateTime<Utc> = sqlx::query_scalar("SELECT occurred_at FROM manual_entries WHERE id = $1")
        .bind(approved.id.as_str())
        .fetch_one(&mut *connection)
        .await?;
    let occurred_at = Timestamp::from_chrono(occurred_at).map_err(|error| poison(Unreadable::OccurredAt(error)))?;
    let entry_id = manual_entry::entry_id(&approved.id, recorded.sequence, occurred_at)
        .map_err(|error| poison(Unreadable::EntryId(error)))?;
    sqlx::query(
        "UPDATE manual_entries SET state = 'posted', decided_at = $2, decided_by = $3, entry_id = $4 WHERE id = $1",
    )
    .bind(approved.id.as_str())
    .bind(approved.at.to_chrono())
    .bind(approved.by.as_str())
    .bind(entry_id.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

async fn reject(rejected: &ManualEntryRejected, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE manual_entries SET state = 'rejected', decided_at = $2, decided_by = $3, rejected_at = $2, rejected_by = $3,
             rejection_reason = $4
         WHERE id = $1",
    )
    .bind(rejected.id.as_str())
    .bind(rejected.at.to_chrono())
    .bind(rejected.by.as_str())
    .bind(&rejected.reason)
    .execute(connection)
    .await?;
    Ok(())
}
