//! Runners, and how far they are.

use fanledger_gateway_api::{JournalInfo, Operation, OperationKind, RunnerState, RunnerStatus};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::query::{decoding, fetch, optional_time, time, undecodable, unsigned};
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
                lag_seconds::double precision AS lag_seconds, error::text AS error, generations::text AS generations,
                (SELECT max(o.id) FROM read.operations AS o WHERE o.runner = name)::bigint AS operation
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
#[error("{0} is no word that this program knows")]
struct NoState(String);

fn status(row: &PgRow) -> Result<RunnerStatus, sqlx::Error> {
    let state: String = row.try_get("state")?;
    let error: Option<&str> = row.try_get("error")?;
    let generations: &str = row.try_get("generations")?;
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
        generations: serde_json::from_str(generations).map_err(|error| undecodable("generations", error))?,
        operation: row.try_get::<Option<i64>, _>("operation")?.map(i64::cast_unsigned),
    })
}

/// What was last asked of a runner: a rebuild and its like. The answer's position is the journal's head.
///
/// # Errors
/// Postgres; [`ReadError::UnknownRunner`]; [`ReadError::NoOperation`].
pub async fn operation(pool: &PgPool, runner: &str) -> Result<Read<Operation>, ReadError> {
    const WHAT: &str = "an operation";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT r.head::bigint AS head, o.id::bigint AS id, o.kind::text AS kind, o.phase::text AS phase, o.version::integer AS version,
                o.generation::integer AS generation, o.position::bigint AS position, o.target::bigint AS target,
                o.events_per_second::bigint AS events_per_second, o.seconds_left::bigint AS seconds_left,
                o.outcome::text AS outcome, o.error::text AS error, o.requested_at::timestamptz AS requested_at,
                o.updated_at::timestamptz AS updated_at, o.finished_at::timestamptz AS finished_at
         FROM read.runners AS r LEFT JOIN read.operations AS o ON o.runner = r.name WHERE r.name = $1::text",
        |query| query.bind(runner),
    )
    .await?;
    let row = rows.first().ok_or_else(|| ReadError::UnknownRunner(runner.to_owned()))?;
    decoding(WHAT, || {
        let Some(id) = row.try_get::<Option<i64>, _>("id")? else { return Ok(None) };
        let kind: &str = row.try_get("kind")?;
        let outcome: Option<&str> = row.try_get("outcome")?;
        let value = Operation {
            operation: id.cast_unsigned(),
            name: runner.to_owned(),
            kind: OperationKind::from_text(kind).ok_or_else(|| undecodable("kind", NoState(kind.to_owned())))?,
            phase: row.try_get("phase")?,
            version: row.try_get::<Option<i32>, _>("version")?.map(i32::cast_unsigned),
            generation: row.try_get::<Option<i32>, _>("generation")?.map(i32::cast_unsigned),
            position: unsigned(row, "position")?,
            target: unsigned(row, "target")?,
            events_per_second: unsigned(row, "events_per_second")?,
            seconds_left: row.try_get::<Option<i64>, _>("seconds_left")?.map(i64::cast_unsigned),
            outcome: outcome.map(serde_json::from_str).transpose().map_err(|error| undecodable("outcome", error))?,
            error: row.try_get("error")?,
            requested_at: time(row, "requested_at")?.to_string(),
            updated_at: time(row, "updated_at")?.to_string(),
            finished_at: optional_time(row, "finished_at")?.map(|at| at.to_string()),
        };
        Ok(Some(Read { position: unsigned(row, "head")?, value }))
    })?
    .ok_or_else(|| ReadError::NoOperation(runner.to_owned()))
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
