//! `journal.entry_ids` against the events: each entry's id is registered, at its position, and no other is.
//!
//! Millions of ids are compared without a set of them in memory and without a look-up for each: both sides are summed up as
//! multisets of keyed hashes. Only where the sums differ is the first difference looked for.

use std::hash::{BuildHasher, RandomState};

use sqlx::PgConnection;

use crate::copy::{each_row, integer};
use crate::event::Position;
use crate::verify::{Divergence, DivergenceKind};

/// Pages of the table per statement: some 32 MB, so that no snapshot is held long.
const PAGE_BLOCKS: i64 = 4096;
/// Positions per statement where the first difference is looked for.
const PAGE: i64 = 20_000;

/// A sum over (entry id, position), in any order, of a keyed 64-bit hash. The key is this process's secret, so that nobody can
/// choose ids whose sums agree, and by accident they do once in 2⁶⁴.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryIdSum {
    key: RandomState,
    sum: u64,
    count: u64,
}

impl EntryIdSum {
    pub fn add(&mut self, entry_id: &[u8], position: i64) {
        self.sum = self.sum.wrapping_add(self.key.hash_one((entry_id, position)));
        self.count += 1;
    }

    /// An empty sum that can be compared with this one.
    fn other_side(&self) -> Self {
        Self { key: self.key.clone(), sum: 0, count: 0 }
    }

    fn equals(&self, other: &Self) -> bool {
        (self.sum, self.count) == (other.sum, other.count)
    }
}

/// Calls `each` for every registered id and its position, in no order that means anything.
pub(crate) async fn each(connection: &mut PgConnection, mut each: impl FnMut(&[u8], i64)) -> Result<(), sqlx::Error> {
    let blocks = blocks(connection).await?;
    for first in (0..blocks).step_by(PAGE_BLOCKS as usize) {
        let statement = format!(
            "COPY (SELECT entry_id, position FROM journal.entry_ids WHERE ctid >= '({first},0)' AND ctid < '({},0)') \
             TO STDOUT (FORMAT binary)",
            first + PAGE_BLOCKS
        );
        each_row(connection, &statement, |[entry_id, position]: [&[u8]; 2]| each(entry_id, integer(position))).await?;
    }
    Ok(())
}

async fn blocks(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_relation_size('journal.entry_ids') / current_setting('block_size')::bigint")
        .fetch_one(connection)
        .await
}

/// Where the registered ids first differ from those of the events up to and including `last`, and how. `posted` sums those
/// events' ids up; `None` where that is not known, and every id must be looked up.
pub(crate) async fn first_difference(
    connection: &mut PgConnection,
    posted: Option<&EntryIdSum>,
    last: i64,
) -> Result<Option<Divergence>, sqlx::Error> {
    if let Some(posted) = posted {
        let mut registered = posted.other_side();
        let mut beyond = false;
        each(connection, |entry_id, position| {
            if position <= last {
                registered.add(entry_id, position);
            } else {
                beyond = true;
            }
        })
        .await?;
        if posted.equals(&registered) {
            // Beyond lies what was appended meanwhile, and what names a position that no event has.
            return if beyond { beyond_the_head(connection).await } else { Ok(None) };
        }
    }
    let missing = first_unregistered(connection, last).await?;
    let stray = first_stray(connection, last).await?;
    let first = missing.into_iter().chain(stray).min();
    Ok(first.map(|(position, detail)| Divergence {
        position: Position::from_i64(position),
        kind: DivergenceKind::Balance,
        detail,
    }))
}

/// An id that is registered beyond the head was posted once: the tail was cut from events and batches alike.
async fn beyond_the_head(connection: &mut PgConnection) -> Result<Option<Divergence>, sqlx::Error> {
    let (head, registered): (i64, Option<i64>) = sqlx::query_as(
        "SELECT h.position, (SELECT min(i.position) FROM journal.entry_ids AS i WHERE i.position > h.position) \
         FROM (SELECT coalesce(max(last_position), 0) AS position FROM journal.batches) AS h",
    )
    .fetch_one(connection)
    .await?;
    Ok(registered.map(|registered| Divergence {
        position: Position::from_i64(head + 1),
        kind: DivergenceKind::Head,
        detail: format!("the journal ends before position {registered}, where journal.entry_ids registers an entry"),
    }))
}

async fn first_unregistered(connection: &mut PgConnection, last: i64) -> Result<Option<(i64, String)>, sqlx::Error> {
    for from in (1..=last).step_by(PAGE as usize) {
        let first: Option<i64> = sqlx::query_scalar(
            "SELECT min(e.position) FROM journal.events AS e \
             WHERE e.position BETWEEN $1 AND $2 AND e.event_type = 'EntryPosted' AND NOT EXISTS ( \
                 SELECT FROM journal.entry_ids AS i WHERE i.entry_id = e.payload ->> 'entry_id' AND i.position = e.position)",
        )
        .bind(from)
        .bind(last.min(from + PAGE - 1))
        .fetch_one(&mut *connection)
        .await?;
        if let Some(first) = first {
            return Ok(Some((first, "journal.entry_ids does not register this entry here".to_owned())));
        }
    }
    Ok(None)
}

async fn first_stray(connection: &mut PgConnection, last: i64) -> Result<Option<(i64, String)>, sqlx::Error> {
    let blocks = blocks(connection).await?;
    let mut lowest: Option<i64> = None;
    for first in (0..blocks).step_by(PAGE_BLOCKS as usize) {
        // The event at a position is looked up by key, one for each row of the page.
        let stray: Option<i64> = sqlx::query_scalar(&format!(
            "SELECT min(i.position) FROM journal.entry_ids AS i \
             WHERE i.ctid >= '({first},0)' AND i.ctid < '({},0)' AND i.position <= $1 AND NOT EXISTS ( \
                 SELECT FROM journal.events AS e WHERE e.position = i.position AND e.event_type = 'EntryPosted' \
                 AND e.payload ->> 'entry_id' = i.entry_id)",
            first + PAGE_BLOCKS
        ))
        .bind(last)
        .fetch_one(&mut *connection)
        .await?;
        lowest = lowest.into_iter().chain(stray).min();
    }
    // A position below 1 is no place; the first is the nearest.
    let told =
        |position: i64| (position.max(1), "journal.entry_ids registers an entry here that no event posts".to_owned());
    Ok(lowest.map(told))
}
