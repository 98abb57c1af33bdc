//! Entries that finance made by hand.

use fanledger_domain::entry::Posting;
use fanledger_domain::id::StripeId;
use fanledger_gateway_api::{ManualEntry, ManualEntryState};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::entries::posting;
use super::query::{bigint, decoding, fetch, json, optional_time, time, undecodable, unsigned};
use super::{Read, ReadError, Slice};

const WHAT: &str = "entries by hand";

/// Entries by hand, newest proposal first.
///
/// # Errors
/// Postgres.
pub async fn manual_entries<M: From<i128>>(
    pool: &PgPool,
    state: Option<ManualEntryState>,
    after: Option<u64>,
    limit: u32,
) -> Result<Read<Slice<ManualEntry<M>, u64>>, ReadError> {
    let (position, items) = find(pool, None, state, after, limit).await?;
    let full = items.len() >= limit as usize;
    let next = items.last().filter(|_| full).map(|item: &ManualEntry<M>| item.position);
    Ok(Read { position, value: Slice { items, next } })
}

/// One entry by hand.
///
/// # Errors
/// When there is none of this id; or Postgres.
pub async fn manual_entry<M: From<i128>>(pool: &PgPool, id: &StripeId) -> Result<Read<ManualEntry<M>>, ReadError> {
    let (position, items) = find(pool, Some(id), None, None, 1).await?;
    let value = items.into_iter().next().ok_or_else(|| ReadError::UnknownManualEntry(id.clone()))?;
    Ok(Read { position, value })
}

async fn find<M: From<i128>>(
    pool: &PgPool,
    id: Option<&StripeId>,
    state: Option<ManualEntryState>,
    after: Option<u64>,
    limit: u32,
) -> Result<(u64, Vec<ManualEntry<M>>), ReadError> {
    let rows = fetch(
        pool,
        WHAT,
        "SELECT p.position::bigint AS at, m.id::text AS id, m.state::text AS state, m.description::text AS description,
                m.reason::text AS reason, m.occurred_at::timestamptz AS occurred_at, m.reverses::text AS reverses,
                m.clears::text AS clears,
                m.postings::text AS postings, m.needs_approval::boolean AS needs_approval,
                m.proposed_at::timestamptz AS proposed_at, m.proposed_by::text AS proposed_by,
                m.decided_at::timestamptz AS decided_at, m.decided_by::text AS decided_by,
                m.rejected_at::timestamptz AS rejected_at, m.rejected_by::text AS rejected_by,
                m.rejection_reason::text AS rejection_reason, m.entry_id::text AS entry_id, m.position::bigint AS position
         FROM read.positions AS p
         LEFT JOIN LATERAL (
             SELECT m.* FROM read.manual_entries AS m
             WHERE m.position < $1::bigint AND ($2::text IS NULL OR m.id = $2) AND ($3::text IS NULL OR m.state = $3)
             ORDER BY m.position DESC LIMIT $4::bigint) AS m ON true
         WHERE p.name = 'manual_entries'
         ORDER BY m.position DESC",
        |query| {
            query
                .bind(after.map_or(i64::MAX, bigint))
                .bind(id.map(StripeId::as_str))
                .bind(state.map(ManualEntryState::as_str))
                .bind(i64::from(limit))
        },
    )
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let items = rows.iter().filter_map(|row| item(row).transpose()).collect::<Result<_, _>>()?;
        Ok((unsigned(first, "at")?, items))
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is none of the states of an entry by hand")]
struct NoState(String);

fn item<M: From<i128>>(row: &PgRow) -> Result<Option<ManualEntry<M>>, sqlx::Error> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    let state: String = row.try_get("state")?;
    let postings: Vec<Posting> = json(row, "postings")?;
    Ok(Some(ManualEntry {
        id,
        state: ManualEntryState::from_text(&state).ok_or_else(|| undecodable("state", NoState(state)))?,
        description: row.try_get("description")?,
        reason: row.try_get("reason")?,
        occurred_at: time(row, "occurred_at")?.to_string(),
        reverses: row.try_get("reverses")?,
        clears: row.try_get("clears")?,
        postings: postings.into_iter().map(posting).collect(),
        needs_approval: row.try_get("needs_approval")?,
        proposed_at: time(row, "proposed_at")?.to_string(),
        proposed_by: row.try_get("proposed_by")?,
        decided_at: optional_time(row, "decided_at")?.map(|at| at.to_string()),
        decided_by: row.try_get("decided_by")?,
        rejection_reason: row.try_get("rejection_reason")?,
        rejected_at: optional_time(row, "rejected_at")?.map(|at| at.to_string()),
        rejected_by: row.try_get("rejected_by")?,
        entry_id: row.try_get("entry_id")?,
        position: unsigned(row, "position")?,
    }))
}
