//! Reads the journal in position order or by stream. Every call is one short statement: nobody holds a snapshot.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::event::{ChainDigest, Position, RecordedEvent, StreamId};

/// Where the journal ends, and which journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Made at random when the database was migrated: a journal that was restored keeps it, another one differs.
    pub journal_id: Uuid,
    /// The last event's position; [`Position::START`] when there is none.
    pub position: Position,
    /// The chain up to and including it.
    pub chain: ChainDigest,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The journal's head could not be read.
    #[error("read the journal's head; is the database migrated and reachable?")]
    Head(#[source] sqlx::Error),
    /// A page could not be read.
    #[error("read the journal after position {after}")]
    Page {
        /// The position before the page.
        after: Position,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// One event could not be read.
    #[error("read the journal at position {position}")]
    At {
        /// Its position.
        position: Position,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// A stream could not be read.
    #[error("read stream {stream}")]
    Stream {
        /// Its name.
        stream: StreamId,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// An entry could not be looked for.
    #[error("look for the entry {entry_id}")]
    Entry {
        /// Its id.
        entry_id: String,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// The ids of a type's streams could not be read.
    #[error("list the streams of type {aggregate_type}")]
    StreamIds {
        /// The type.
        aggregate_type: String,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
}

/// Reads through a pool of any role that has SELECT on the journal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    pool: PgPool,
}

const COLUMNS: &str = "e.position, e.event_id, e.recorded_at, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, \
     e.event_version, e.payload::text, e.metadata::text, e.chain";

impl Reader {
    /// A reader over this pool.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool that it reads through.
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The journal's head.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn head(&self) -> Result<Head, ReadError> {
        let row = sqlx::query(
            "SELECT i.journal_id, b.last_position, b.chain FROM journal.identity AS i LEFT JOIN LATERAL \
             (SELECT last_position, chain FROM journal.batches ORDER BY last_position DESC LIMIT 1) AS b ON true",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(ReadError::Head)?;
        let head = || {
            Ok(Head {
                journal_id: row.try_get(0)?,
                position: row.try_get::<Option<i64>, _>(1)?.map_or(Position::START, Position::from_i64),
                chain: row.try_get::<Option<&[u8]>, _>(2)?.map_or(Ok(ChainDigest::START), digest)?,
            })
        };
        head().map_err(ReadError::Head)
    }

    /// Whether the journal, as it is, ended like this at some time. That of an empty journal is in every one.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn has_ended_at(&self, end: &Head) -> Result<bool, ReadError> {
        if end.position == Position::START {
            return Ok(true);
        }
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM journal.identity AS i, journal.batches AS b \
              WHERE i.journal_id = $1 AND b.last_position = $2 AND b.chain = $3)",
        )
        .bind(end.journal_id)
        .bind(end.position.as_i64())
        .bind(end.chain.0.as_slice())
        .fetch_one(&self.pool)
        .await
        .map_err(ReadError::Head)
    }

    /// The events after a position, in order: at most so many, and no more than fit in so many bytes of payload as it is
    /// stored (which compression may make less than it is), but always the next one if there is one.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn after(
        &self,
        position: Position,
        limit_events: u32,
        limit_bytes: u64,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        // The row at `position` is read along for its chain. The stored size is known without fetching large payloads.
        let statement = format!(
            "SELECT {COLUMNS}, e.previous_chain FROM ( \
                 SELECT *, lag(chain) OVER page AS previous_chain, \
                        sum(pg_column_size(payload)) FILTER (WHERE position > $1) OVER page AS bytes \
                 FROM (SELECT * FROM journal.events WHERE position BETWEEN $1 AND $1 + $2 ORDER BY position LIMIT $2 + 1) AS p \
                 WINDOW page AS (ORDER BY position)) AS e \
             WHERE e.position > $1 AND (e.bytes <= $3 OR e.position = $1 + 1) ORDER BY e.position"
        );
        let failed = |source| ReadError::Page { after: position, source };
        let rows = sqlx::query(&statement)
            .bind(position.as_i64())
            .bind(i64::from(limit_events))
            .bind(i64::try_from(limit_bytes).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(recorded).collect::<Result<_, _>>().map_err(failed)
    }

    /// The event at a position, if the journal reaches there.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn at(&self, position: Position) -> Result<Option<RecordedEvent>, ReadError> {
        let failed = |source| ReadError::At { position, source };
        let row = sqlx::query(&format!(
            "SELECT {COLUMNS}, (SELECT p.chain FROM journal.events AS p WHERE p.position = e.position - 1) \
             FROM journal.events AS e WHERE e.position = $1"
        ))
        .bind(position.as_i64())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        row.as_ref().map(recorded).transpose().map_err(failed)
    }

    /// The event that posted the entry of this id, whichever stream it is in, if there is one.
    ///
    /// # Errors
    /// When Postgres cannot be asked, or the pool's role may not read `journal.entry_ids`.
    pub async fn entry(&self, entry_id: &str) -> Result<Option<RecordedEvent>, ReadError> {
        let failed = |source| ReadError::Entry { entry_id: entry_id.to_owned(), source };
        let row = sqlx::query(&format!(
            "SELECT {COLUMNS}, (SELECT p.chain FROM journal.events AS p WHERE p.position = e.position - 1) \
             FROM journal.entry_ids AS i JOIN journal.events AS e ON e.position = i.position WHERE i.entry_id = $1"
        ))
        .bind(entry_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        row.as_ref().map(recorded).transpose().map_err(failed)
    }

    /// A whole stream in order. Streams are short by design: one per charge, per subscription, per Stripe event.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn stream(&self, stream: &StreamId) -> Result<Vec<RecordedEvent>, ReadError> {
        let failed = |source| ReadError::Stream { stream: stream.clone(), source };
        let rows = sqlx::query(&format!(
            "SELECT {COLUMNS}, (SELECT p.chain FROM journal.events AS p WHERE p.position = e.position - 1) \
             FROM journal.events AS e WHERE e.aggregate_type = $1 AND e.aggregate_id = $2 ORDER BY e.sequence"
        ))
        .bind(&stream.aggregate_type)
        .bind(&stream.aggregate_id)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(recorded).collect::<Result<_, _>>().map_err(failed)
    }

    /// The last sequence of a stream; 0 if it has no event.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn last_sequence(&self, stream: &StreamId) -> Result<u64, ReadError> {
        let sequence: Option<i64> = sqlx::query_scalar(
            "SELECT sequence FROM journal.events WHERE aggregate_type = $1 AND aggregate_id = $2 \
             ORDER BY sequence DESC LIMIT 1",
        )
        .bind(&stream.aggregate_type)
        .bind(&stream.aggregate_id)
        .fetch_optional(&self.pool)
        .await
        .map_err(|source| ReadError::Stream { stream: stream.clone(), source })?;
        Ok(sequence.map_or(0, i64::cast_unsigned))
    }

    /// The ids of the streams of a type, in byte order, after one of them (`""` to begin): for whoever goes through all.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn stream_ids(&self, aggregate_type: &str, after_id: &str, limit: u32) -> Result<Vec<String>, ReadError> {
        sqlx::query_scalar(
            "SELECT aggregate_id FROM journal.events WHERE aggregate_type = $1 AND aggregate_id > $2 AND sequence = 1 \
             ORDER BY aggregate_id LIMIT $3",
        )
        .bind(aggregate_type)
        .bind(after_id)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(|source| ReadError::StreamIds { aggregate_type: aggregate_type.to_owned(), source })
    }
}

fn recorded(row: &PgRow) -> Result<RecordedEvent, sqlx::Error> {
    Ok(RecordedEvent {
        position: Position::from_i64(row.try_get(0)?),
        event_id: row.try_get(1)?,
        recorded_at: row.try_get::<DateTime<Utc>, _>(2)?,
        stream: StreamId { aggregate_type: row.try_get(3)?, aggregate_id: row.try_get(4)? },
        sequence: row.try_get::<i64, _>(5)?.cast_unsigned(),
        event_type: row.try_get(6)?,
        event_version: row.try_get(7)?,
        payload: Arc::from(row.try_get::<&str, _>(8)?),
        metadata: Arc::from(row.try_get::<&str, _>(9)?),
        chain: digest(row.try_get(10)?)?,
        previous_chain: row.try_get::<Option<&[u8]>, _>(11)?.map_or(Ok(ChainDigest::START), digest)?,
    })
}

fn digest(bytes: &[u8]) -> Result<ChainDigest, sqlx::Error> {
    bytes.try_into().map(ChainDigest).map_err(|_| sqlx::Error::Decode("a chain digest is not 32 bytes long".into()))
}
