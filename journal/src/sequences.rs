//! Per-stream contiguity in bounded memory: each event's predecessor is either remembered or looked up.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use sqlx::PgConnection;

use crate::copy::RawEvent;

/// Streams remembered per generation: two generations of 16 bytes each come to some 40 MB.
const REMEMBERED_MAX: usize = 500_000;

/// The last sequences of recently seen streams. A stream is remembered by a keyed 64-bit hash; what the memory does not
/// confirm is looked up in the journal, so neither a collision nor forgetting ever leads to a wrong finding.
pub(crate) struct Sequences {
    hasher: RandomState,
    recent: HashMap<u64, i64>,
    older: HashMap<u64, i64>,
    doubtful: Doubtful,
}

/// Events whose predecessor is not remembered, as the arrays of one query.
#[derive(Default)]
pub(crate) struct Doubtful {
    positions: Vec<i64>,
    types: Vec<String>,
    ids: Vec<String>,
    sequences: Vec<i64>,
}

impl Sequences {
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            recent: HashMap::new(),
            older: HashMap::new(),
            doubtful: Doubtful::default(),
        }
    }

    /// Takes note of an event; positions must rise from call to call.
    pub fn see(&mut self, row: &RawEvent<'_>) {
        let stream = self.hasher.hash_one((row.aggregate_type, row.aggregate_id));
        if self.recent.len() >= REMEMBERED_MAX {
            self.older = std::mem::take(&mut self.recent);
        }
        let before = self.recent.insert(stream, row.sequence).or_else(|| self.older.get(&stream).copied());
        let follows = match before {
            Some(before) => row.sequence == before.wrapping_add(1),
            // The unique index lets a stream have only one first event.
            None => row.sequence == 1,
        };
        if !follows {
            self.doubtful.positions.push(row.position);
            self.doubtful.types.push(String::from_utf8_lossy(row.aggregate_type).into_owned());
            self.doubtful.ids.push(String::from_utf8_lossy(row.aggregate_id).into_owned());
            self.doubtful.sequences.push(row.sequence);
        }
    }

    /// Those that were doubtful since this was last asked, for [`first_misplaced`].
    pub fn take_doubtful(&mut self) -> Doubtful {
        std::mem::take(&mut self.doubtful)
    }
}

/// Looks the doubtful ones up: the first event that does not come right after its predecessor.
pub(crate) async fn first_misplaced(
    connection: &mut PgConnection,
    doubtful: Doubtful,
) -> Result<Option<(i64, String)>, sqlx::Error> {
    if doubtful.positions.is_empty() {
        return Ok(None);
    }
    // The last event of the stream before this one must carry the sequence before; ORDER BY … LIMIT 1 makes the
    // planner go down the index for each.
    let misplaced: Option<(i64, String, i64)> = sqlx::query_as(
        "SELECT d.position, d.aggregate_type || '/' || d.aggregate_id, d.sequence \
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS d (position, aggregate_type, aggregate_id, sequence) \
         WHERE d.sequence < 1 OR CASE WHEN d.sequence = 1 THEN (\
                   SELECT min(e.position) FROM journal.events AS e \
                   WHERE e.aggregate_type = d.aggregate_type AND e.aggregate_id = d.aggregate_id) < d.position \
               ELSE coalesce((\
                   SELECT e.position FROM journal.events AS e \
                   WHERE e.aggregate_type = d.aggregate_type AND e.aggregate_id = d.aggregate_id AND e.sequence = d.sequence - 1 \
                   ORDER BY e.sequence LIMIT 1), d.position) >= d.position END \
         ORDER BY d.position LIMIT 1",
    )
    .bind(doubtful.positions)
    .bind(doubtful.types)
    .bind(doubtful.ids)
    .bind(doubtful.sequences)
    .fetch_optional(connection)
    .await?;
    Ok(misplaced.map(|(position, stream, sequence)| {
        (position, format!("{stream} has sequence {sequence} here, and not the one before it earlier"))
    }))
}
