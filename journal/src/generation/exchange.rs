//! The switch: the views of one generation taken down and those of another put up, in one transaction.

use sqlx::{Connection as _, PgConnection};

use super::{is_in_the_way, schema_name, show};
use crate::checkpoint::{RunnerRow, Stage, run_sql};
use crate::runner::{RunnerContext, RunnerError};

/// A switch waits this long for a reader to let go of a view, so that nobody queues behind it; then it tries again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// How often a switch is tried; with the pauses in between, about ten seconds.
pub(super) const ATTEMPTS: u32 = 50;

/// The live generation held still: nobody moves its checkpoint until this is released or dropped. Readers see nothing of it.
pub(super) struct Hold {
    connection: PgConnection,
    pub live: RunnerRow,
}

/// Why an attempt to exchange was not carried through.
pub(super) enum Refusal {
    /// Somebody reads, or the target is not where it must be: try again.
    InTheWay,
    /// The target is no longer there.
    Gone,
    /// Postgres.
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        if is_in_the_way(&error) { Self::InTheWay } else { Self::Failed(error) }
    }
}

impl Hold {
    /// `None` where its checkpoint was being moved all the time.
    pub async fn take(context: &RunnerContext, name: &str) -> Result<Option<Self>, RunnerError> {
        let mut connection = context.connect().await?;
        let taken = async {
            run_sql(&mut connection, "BEGIN").await?;
            run_sql(&mut connection, LOCK_TIMEOUT).await?;
            RunnerRow::live_for_update(&mut connection, name).await
        };
        match taken.await {
            Ok(Some(live)) => Ok(Some(Self { connection, live })),
            Ok(None) => Ok(None),
            Err(error) if is_in_the_way(&error) => Ok(None),
            Err(error) => Err(RunnerError::Checkpoint(error)),
        }
    }

    /// Lets it go on.
    pub async fn release(mut self) -> Result<(), RunnerError> {
        run_sql(&mut self.connection, "ROLLBACK").await.map_err(RunnerError::Transaction)?;
        self.connection.close().await.map_err(RunnerError::Connect)
    }

    /// Makes `target` the live generation and keeps the one that was. Unless `from_another_history`, the target must be at or
    /// past it. What is shown, who is live and a pause change together; or, dropped anywhere in here, not at all.
    pub async fn exchange(mut self, name: &str, target: i32, from_another_history: bool) -> Result<(), Refusal> {
        let live = &self.live;
        let connection = &mut self.connection;
        let row = RunnerRow::of_for_update(connection, name, target).await?.ok_or(Refusal::Gone)?;
        if row.stage == Stage::Retiring {
            return Err(Refusal::Gone);
        }
        let ours = row.checkpoint.journal_id == live.checkpoint.journal_id;
        if !from_another_history && (!ours || row.checkpoint.position < live.checkpoint.position) {
            return Err(Refusal::InTheWay);
        }
        // One after the other: at no moment may there be two live ones. The kept one is fed even if the live one is paused.
        // That no program of its version ran ends with its being live.
        sqlx::query(
            "UPDATE control.runners SET live = false, paused = false, \
                    error = CASE WHEN error ->> 'kind' <> 'version_changed' THEN error END \
             WHERE name = $1 AND generation = $2",
        )
        .bind(name)
        .bind(live.generation)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE control.runners SET live = true, stage = 'ready', paused = $3 WHERE name = $1 AND generation = $2",
        )
        .bind(name)
        .bind(target)
        .bind(live.paused)
        .execute(&mut *connection)
        .await?;
        for view in &live.views {
            run_sql(connection, &format!("DROP VIEW IF EXISTS read.{view}")).await?;
        }
        show(connection, name, target, &row.views).await?;
        // What people read from now on must outlast a power cut as a whole: this one commit waits for the disk, and with it
        // for everything that the target's tables were written by.
        run_sql(connection, "SET LOCAL synchronous_commit = on").await?;
        run_sql(connection, "COMMIT").await?;
        tracing::info!(projection = name, schema = schema_name(name, target), "a new generation is live");
        Ok(())
    }
}
