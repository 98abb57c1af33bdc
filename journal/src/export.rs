//! The journal as lines of JSON, exactly as it is stored, for a verifier that has no database: `docs/verify.md`.
//!
//! Rows go out unjudged, whatever was done to them: to judge is the verifier's part.

use std::collections::VecDeque;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::batch_rows::{self, BatchRow};
use crate::copy::{self, RawEvent};
use crate::digest::{self, Content};
use crate::entry_ids;
use crate::event::Position;

/// The form of the export, raised whenever a reader must know of a change.
pub const FORMAT: u32 = 1;
/// Positions per page: a fraction of a second's work, so that no snapshot is held long.
const PAGE: i64 = 20_000;

/// An event as an export and a proof carry it: what its leaf digests, its place and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its position.
    pub position: i64,
    /// When it was recorded, in microseconds since 1970.
    pub recorded_at_micros: i64,
    /// The stream's type.
    pub aggregate_type: String,
    /// The stream's id.
    pub aggregate_id: String,
    /// The number within the stream.
    pub sequence: i64,
    /// The event's type.
    pub event_type: String,
    /// The version of the payload's shape.
    pub event_version: String,
    /// The event's id.
    pub event_id: Uuid,
    /// The payload's exact text, as a JSON string: parsed JSON would not digest to the same.
    pub payload: String,
    /// The metadata's exact text, likewise.
    pub metadata: String,
}

impl EventRecord {
    /// From a row. What is not UTF-8, which a database in UTF-8 cannot hold, loses what is not.
    pub(crate) fn of(row: &RawEvent<'_>) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            position: row.position,
            recorded_at_micros: row.recorded_at_micros,
            aggregate_type: text(row.aggregate_type),
            aggregate_id: text(row.aggregate_id),
            sequence: row.sequence,
            event_type: text(row.event_type),
            event_version: text(row.event_version),
            event_id: row.event_id,
            payload: text(row.payload),
            metadata: text(row.metadata),
        }
    }

    /// The leaf that its content digests to.
    pub fn leaf(&self) -> [u8; 32] {
        digest::leaf(&Content {
            aggregate_type: self.aggregate_type.as_bytes(),
            aggregate_id: self.aggregate_id.as_bytes(),
            sequence: self.sequence,
            event_type: self.event_type.as_bytes(),
            event_version: self.event_version.as_bytes(),
            event_id: self.event_id,
            payload: self.payload.as_bytes(),
            metadata: self.metadata.as_bytes(),
        })
    }
}

/// A line. The first is the journal; a batch stands before the first event that it should cover; entry ids come last.
#[derive(Serialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line {
    Journal {
        format: u32,
        journal_id: Uuid,
    },
    Batch {
        first_position: i64,
        last_position: i64,
        recorded_at_micros: i64,
        chain: String,
    },
    Event {
        #[serde(flatten)]
        event: EventRecord,
        leaf: String,
        chain: String,
    },
    EntryId {
        entry_id: String,
        position: i64,
    },
}

impl From<BatchRow> for Line {
    fn from(batch: BatchRow) -> Self {
        Self::Batch {
            first_position: batch.first,
            last_position: batch.last,
            recorded_at_micros: batch.recorded_at_micros,
            chain: hex::encode(batch.chain),
        }
    }
}

/// Why the journal could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal's identity or head could not be read.
    #[error("read the journal's identity and head to export it")]
    Head(#[source] sqlx::Error),
    /// A page could not be read.
    #[error("read the journal from position {from} to export it")]
    Page {
        /// The page's first position.
        from: i64,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// The entry ids could not be read.
    #[error("read the ids of ledger entries to export them")]
    EntryIds(#[source] sqlx::Error),
    /// The lines could not be written.
    #[error("write the export")]
    Write(#[source] io::Error),
}

/// Writes the whole journal up to where it ends now, and answers how many events that were. `progress` is called after each
/// page with the last position of it and of all.
///
/// # Errors
/// When the journal cannot be read, or its lines cannot be written.
pub async fn export(
    connection: &mut PgConnection,
    out: &mut (dyn Write + Send),
    progress: &mut (dyn FnMut(Position, Position) + Send),
) -> Result<u64, ExportError> {
    let ends = sqlx::query(
        "SELECT i.journal_id, greatest((SELECT max(position) FROM journal.events), (SELECT max(last_position) FROM journal.batches), 0) \
         FROM journal.identity AS i",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(ExportError::Head)?;
    let journal_id = ends.try_get(0).map_err(ExportError::Head)?;
    let last: i64 = ends.try_get(1).map_err(ExportError::Head)?;
    write(out, &Line::Journal { format: FORMAT, journal_id })?;
    let (mut events, mut covered) = (0, 0);
    let mut next = Some(1);
    while let Some(from) = next.filter(|from| *from <= last) {
        let to = last.min(from.saturating_add(PAGE - 1));
        let failed = |source| ExportError::Page { from, source };
        let mut batches: VecDeque<_> = batch_rows::load(connection, covered + 1, to).await.map_err(failed)?.into();
        let mut written = Ok(());
        let each = |row: &RawEvent<'_>| {
            let mut lines = || {
                while covered < row.position
                    && let Some(batch) = batches.pop_front()
                {
                    covered = batch.last;
                    write(out, &batch.into())?;
                }
                let (leaf, chain) = (hex::encode(row.leaf), hex::encode(row.chain));
                write(out, &Line::Event { event: EventRecord::of(row), leaf, chain })
            };
            if written.is_ok() {
                written = lines();
                events += 1;
            }
        };
        copy::each_event(connection, from, to, each).await.map_err(failed)?;
        written?;
        progress(Position::from_i64(to), Position::from_i64(last));
        // A row may have been moved far away: what lies between is not asked for page by page.
        next = sqlx::query_scalar("SELECT min(position) FROM journal.events WHERE position > $1")
            .bind(to)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
    }
    // Those that claim to cover more than there is.
    let beyond = batch_rows::load(connection, covered + 1, i64::MAX).await;
    for batch in beyond.map_err(|source| ExportError::Page { from: covered + 1, source })? {
        write(out, &batch.into())?;
    }
    write_entry_ids(connection, out, last).await?;
    out.flush().map_err(ExportError::Write)?;
    Ok(events)
}

async fn write_entry_ids(
    connection: &mut PgConnection,
    out: &mut (dyn Write + Send),
    last: i64,
) -> Result<(), ExportError> {
    let (mut written, mut beyond) = (Ok(()), Vec::new());
    entry_ids::each(connection, |entry_id, position| {
        let entry_id = String::from_utf8_lossy(entry_id).into_owned();
        if position > last {
            beyond.push((entry_id, position));
        } else if written.is_ok() {
            written = write(out, &Line::EntryId { entry_id, position });
        }
    })
    .await
    .map_err(ExportError::EntryIds)?;
    written?;
    if beyond.is_empty() {
        return Ok(());
    }
    // What was appended meanwhile has no event here; but what no event has ever followed must be shown.
    let head: i64 = sqlx::query_scalar("SELECT coalesce(max(last_position), 0) FROM journal.batches")
        .fetch_one(connection)
        .await
        .map_err(ExportError::Head)?;
    for (entry_id, position) in beyond.into_iter().filter(|(_, position)| *position > head) {
        write(out, &Line::EntryId { entry_id, position })?;
    }
    Ok(())
}

fn write(out: &mut (dyn Write + Send), line: &Line) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *out, line).map_err(|error| ExportError::Write(error.into()))?;
    out.write_all(b"\n").map_err(ExportError::Write)
}
