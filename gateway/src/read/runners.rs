//! Runners, and how far they are.

use fanledger_gateway_api::{JournalInfo, RunnerState, RunnerStatus};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::query::{decoding, fetch, undecodable, unsigned};
use super::{Read, ReadError};

/// Every runner, by name. The answer's position is the journal's head.
///
/// # Errors
/// Postgres.
pub async fn runners(pool: &PgPool) -> Result<Read<Vec<RunnerStatus>>, ReadError> {
    const WHAT: &str = "runners";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT name::text AS name, version::integer AS version, generation::integer AS generation, state::text AS state,
                position::bigint AS position, head::bigint AS head, lag_events::bigint AS lag_events,
                lag_seconds::double precision AS lag_seconds, error::text AS error
         FROM read.runners ORDER BY name",
        |query| query,
    )
    .await?;
    decoding(WHAT, || {
        let value: Vec<_> = rows.iter().map(status).collect::<Result<_, _>>()?;
        Ok(Read { position: value.iter().map(|status| status.head).max().unwrap_or(0), value })
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is none of the states of a runner")]
struct NoState(String);

fn status(row: &PgRow) -> Result<RunnerStatus, sqlx::Error> {
    let state: String = row.try_get("state")?;
    let error: Option<&str> = row.try_get("error")?;
    Ok(RunnerStatus {
        name: row.try_get("name")?,
        version: row.try_get::<i32, _>("version")?.cast_unsigned(),
        generation: row.try_get::<i32, _>("generation")?.cast_unsigned(),
        state: RunnerState::from_text(&state).ok_or_else(|| undecodable("state", NoState(state)))?,
        position: unsigned(row, "position")?,
        head: unsigned(row, "head")?,
        lag_events: unsigned(row, "lag_events")?,
        lag_seconds: row.try_get("lag_seconds")?,
        error: error.map(serde_json::from_str).transpose().map_err(|error| undecodable("error", error))?,
    })
}

/// The journal, as far as runners tell.
///
/// # Errors
/// Postgres.
pub async fn journal(pool: &PgPool) -> Result<Read<JournalInfo>, ReadError> {
    const WHAT: &str = "the journal's head";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT journal_id::text AS journal_id, head::bigint AS head FROM read.runners ORDER BY position DESC, name LIMIT 1",
        |query| query,
    )
    .await?;
    decoding(WHAT, || {
        let info = match rows.first() {
            Some(row) => JournalInfo { journal_id: Some(row.try_get("journal_id")?), head: unsigned(row, "head")? },
            None => JournalInfo { journal_id: None, head: 0 },
        };
        Ok(Read { position: info.head, value: info })
    })
}

/// How far a projection is; 0 for one that is not built yet.
///
/// # Errors
/// Postgres.
pub async fn position_of(pool: &PgPool, projection: &str) -> Result<u64, ReadError> {
    const WHAT: &str = "a projection's position";
    let rows =
        fetch(pool, WHAT, "SELECT position::bigint AS position FROM read.positions WHERE name = $1::text", |query| {
            query.bind(projection)
        })
        .await?;
    decoding(WHAT, || rows.first().map_or(Ok(0), |row| unsigned(row, "position")))
}
