//! What operators see and do: `projections status`, `pause`, `resume`.

use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row};

use crate::checkpoint::Halt;
use crate::event::Position;

/// How a runner is, derived from its row and the journal's head at the moment of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerState {
    /// At the head, or within two seconds of it.
    Live,
    /// Behind.
    CatchingUp,
    /// Stands still until somebody acts; `error` says why.
    Halted,
    /// Stands still because an operator said so.
    Paused,
}

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// What `read` shows.
    Live,
    /// Fed, to go back to.
    Kept,
    /// A rebuild makes it, or was broken off.
    Building,
    /// To be dropped.
    Retiring,
}

/// One generation of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Its number.
    pub generation: u32,
    /// The version that its tables are made by.
    pub version: u32,
    /// What it is for.
    pub state: GenerationState,
    /// Up to where it has read.
    pub position: Position,
    /// It stands still at an event that it cannot apply.
    pub halted: bool,
}

/// One line of `fanledger projections status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// The projection or process manager.
    pub name: String,
    /// The version its tables were built by.
    pub version: u32,
    /// The live generation.
    pub generation: u32,
    /// How it is.
    pub state: RunnerState,
    /// Up to where it has read.
    pub position: Position,
    /// The journal's head.
    pub head: Position,
    /// How many events it has yet to read.
    pub lag_events: u64,
    /// The age of the oldest of them, in seconds.
    pub lag_seconds: f64,
    /// Why it halted.
    pub error: Option<Halt>,
    /// Every generation that there is, the oldest first.
    pub generations: Vec<GenerationStatus>,
}

/// The status of every runner, by name. Any role that may read `read.runners` may ask.
///
/// # Errors
/// If Postgres cannot be asked or holds what this program does not understand.
pub async fn status(pool: &PgPool) -> Result<Vec<RunnerStatus>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT name, version, generation, state, position, head, lag_events, lag_seconds, error::text AS error, \
         generations::text AS generations FROM read.runners ORDER BY name",
    )
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let error: Option<String> = row.try_get("error")?;
            let error =
                error.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| unknown("error", error))?;
            let generations: String = row.try_get("generations")?;
            let state: String = row.try_get("state")?;
            Ok(RunnerStatus {
                name: row.try_get("name")?,
                version: row.try_get::<i32, _>("version")?.cast_unsigned(),
                generation: row.try_get::<i32, _>("generation")?.cast_unsigned(),
                state: serde_json::from_value(state.into()).map_err(|error| unknown("state", error))?,
                position: Position::from_i64(row.try_get("position")?),
                head: Position::from_i64(row.try_get("head")?),
                lag_events: row.try_get::<i64, _>("lag_events")?.cast_unsigned(),
                lag_seconds: row.try_get("lag_seconds")?,
                error,
                generations: serde_json::from_str(&generations).map_err(|error| unknown("generations", error))?,
            })
        })
        .collect()
}

fn unknown(column: &str, error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}

/// Makes a runner stand still from this moment on; a batch under way is taken back. `false` if there is no such runner. Role: `fanledger_operator`.
///
/// # Errors
/// If Postgres cannot be asked.
pub async fn pause(pool: &PgPool, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT control.pause($1)").bind(name).fetch_one(pool).await
}

/// Ends a pause or a halt; what halted the runner is tried again. `false` if there is no such runner. Role: `fanledger_operator`.
///
/// # Errors
/// If Postgres cannot be asked.
pub async fn resume(pool: &PgPool, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT control.resume($1)").bind(name).fetch_one(pool).await
}
