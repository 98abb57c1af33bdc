//! The end of generations that are not live.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};

use super::{is_in_the_way, schema_name, try_lock_projection};
use crate::checkpoint::{RunnerRow, Stage, run_sql, set_stage, try_lock, unlock, with_causes};
use crate::operation::{self, Beginning, OperationKind};
use crate::runner::{RunnerContext, RunnerError, lock_name};

/// A runner looks at its row at least four times a second, so it lets go long before this.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long one attempt to drop waits for whoever uses the tables. Nobody queues behind it: what is dropped is no longer shown.
/// Longer than `deadlock_timeout` (a second), after which Postgres stops an autovacuum or analyze that somebody waits for: with
/// less, tables that are being vacuumed would be in use at each attempt, for as long as that takes.
const DROP_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1500ms'";

/// A generation could not be dropped. What is live is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// A rebuild, rollback or retirement is under way.
    #[error("{0} is being rebuilt, rolled back or retired already; wait for it")]
    UnderWay(String),
    /// What asked for it was closed meanwhile.
    #[error("nobody asks for this retirement of {0} any more")]
    Withdrawn(String),
    /// There is no runner of this name yet.
    #[error("{0} has no generation yet; start the roles projector and manager")]
    NotBuilt(String),
    /// Whoever feeds it does not let go.
    #[error(
        "generation {generation} of {name} is still fed by another process, which does not answer; stop it and try again"
    )]
    StillFed {
        /// The projection.
        name: String,
        /// Its generation.
        generation: i32,
    },
    /// Somebody reads its tables all the time.
    #[error(
        "the tables of generation {generation} of {name} were in use at each attempt to drop them; they stay, unused, until the next rebuild or retirement: `fanledger projections retire {name}`"
    )]
    InUse {
        /// The projection.
        name: String,
        /// Its generation.
        generation: i32,
    },
    /// Postgres refused.
    #[error("drop generation {generation} of {name}")]
    Drop {
        /// The projection.
        name: String,
        /// Its generation.
        generation: i32,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// Something that may pass; try again.
    #[error(transparent)]
    Failed(#[from] RunnerError),
}

/// Drops every generation but the live one: the one that is kept to go back to, and what a rebuild that was killed left.
/// Returns which.
///
/// # Errors
/// See [`RetireError`].
pub async fn retire(context: &RunnerContext, name: &str) -> Result<Vec<u32>, RetireError> {
    retire_asked(context, name, None).await
}

/// The same, where a row of `control.operations` asks for it.
pub(crate) async fn retire_asked(
    context: &RunnerContext,
    name: &str,
    asked: Option<i64>,
) -> Result<Vec<u32>, RetireError> {
    let mut desk = context.connect().await?;
    if !try_lock_projection(&mut desk, name).await? {
        return Err(RetireError::UnderWay(name.to_owned()));
    }
    let rows = RunnerRow::all(&mut desk, name).await.map_err(RunnerError::Checkpoint)?;
    let live = rows.iter().find(|row| row.live).ok_or_else(|| RetireError::NotBuilt(name.to_owned()))?;
    // A rebuild that was broken off is given up by this.
    let beginning =
        Beginning { runner: name, kind: OperationKind::Retire, version: live.version, confirmed: false, asked };
    let begun = operation::begin(&mut desk, beginning).await.map_err(RunnerError::Checkpoint)?;
    let begun = begun.ok_or_else(|| RetireError::Withdrawn(name.to_owned()))?;
    let outcome = drop_all(&mut desk, name, &rows).await;
    let (told, error) = match &outcome {
        Ok(dropped) => (Some(serde_json::json!({"retired": dropped})), None),
        Err(error) => (None, Some(with_causes(error))),
    };
    operation::finish(&mut desk, begun.id, told.as_ref(), error.as_deref()).await;
    outcome
}

async fn drop_all(desk: &mut PgConnection, name: &str, rows: &[RunnerRow]) -> Result<Vec<u32>, RetireError> {
    let mut dropped = Vec::new();
    for row in rows.iter().filter(|row| !row.live) {
        drop_generation(desk, name, row.generation).await?;
        dropped.push(row.generation.cast_unsigned());
    }
    Ok(dropped)
}

/// Has whoever feeds it let go, and drops it. Killed in between, the row says so, and the next rebuild or retirement goes on.
pub(super) async fn drop_generation(
    connection: &mut PgConnection,
    name: &str,
    generation: i32,
) -> Result<(), RetireError> {
    let checkpoint = |error| RetireError::Failed(RunnerError::Checkpoint(error));
    set_stage(connection, name, generation, Stage::Retiring).await.map_err(checkpoint)?;
    let lock = lock_name(name, generation);
    let deadline = Instant::now() + PATIENCE;
    while !try_lock(connection, &lock).await.map_err(checkpoint)? {
        if Instant::now() > deadline {
            return Err(RetireError::StillFed { name: name.to_owned(), generation });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let dropped = loop {
        match drop_tables(connection, name, generation).await {
            Err(error) if is_in_the_way(&error) && Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) if is_in_the_way(&error) => {
                break Err(RetireError::InUse { name: name.to_owned(), generation });
            }
            Err(source) => break Err(RetireError::Drop { name: name.to_owned(), generation, source }),
            Ok(()) => break Ok(()),
        }
    };
    unlock(connection, &lock).await.map_err(checkpoint)?;
    dropped
}

async fn drop_tables(connection: &mut PgConnection, name: &str, generation: i32) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    run_sql(&mut transaction, DROP_LOCK_TIMEOUT).await?;
    let deleted = sqlx::query("DELETE FROM control.runners WHERE name = $1 AND generation = $2 AND NOT live")
        .bind(name)
        .bind(generation)
        .execute(&mut *transaction)
        .await?;
    // Only with its row: CASCADE would take the views of `read` along, and only the live generation has any.
    if deleted.rows_affected() > 0 {
        run_sql(&mut transaction, &format!("DROP SCHEMA IF EXISTS {} CASCADE", schema_name(name, generation))).await?;
    }
    transaction.commit().await
}
