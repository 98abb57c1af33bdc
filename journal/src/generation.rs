//! Generations: each build of a projection's tables has a schema of its own, `balances_g7`; `read.<table>` are views on the
//! live one. A rebuild fills the next generation beside it, proves it, and switches the views in one transaction.
//!
//! Read [`rebuild`] first: its steps are functions of `proof` (are old and new equal?) and `exchange` (the switch, which
//! [`rollback`] uses as well). [`retire`] drops what is kept. `crate::runner::supervise` runs what the operator API asks for.
//!
//! Invariants:
//! - At each moment exactly one generation is live; it changes in one transaction, or not at all.
//! - Whoever feeds a generation holds its advisory lock; whoever rebuilds, rolls back or retires holds the projection's.
//! - A generation that is not live is never fed past the live one. So a switch never sends a command late or not at all, and
//!   what is shown never goes back.
//! - Killed at any instant, a rebuild leaves the live generation serving; the next one goes on where it was.

mod exchange;
mod progress;
mod proof;
mod rebuild;
mod retire;
mod rollback;

use sha2::{Digest, Sha256};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, RunnerRow, Stage, run_sql, try_lock};
use crate::runner::{Projection, RunnerContext, RunnerError, Schema};

pub use progress::{Phase, Progress};
pub use proof::{Difference, DifferingKey, Presence, Proof, TableProof};
pub use rebuild::{Purpose, RebuildError, RebuildOptions, Rebuilt, rebuild};
pub(crate) use retire::retire_asked;
pub use retire::{RetireError, retire};
pub(crate) use rollback::rollback_asked;
pub use rollback::{RollbackError, RolledBack, rollback};

/// What of a projection its generations are made from; taken out of it, because a projection need not be shared between threads.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    name: &'static str,
    version: u32,
    schema: Schema,
    indexes: &'static str,
}

impl Plan {
    pub fn of(projection: &dyn Projection) -> Self {
        Self {
            name: projection.name(),
            version: projection.version(),
            schema: projection.schema(),
            indexes: projection.indexes(),
        }
    }

    /// Of everything that its tables are made by.
    fn definition(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        digest.update(self.version.to_be_bytes());
        for part in [self.schema.create, self.indexes].iter().chain(self.schema.views) {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        digest.finalize().to_vec()
    }
}

/// The schema of a generation.
pub fn schema_name(name: &str, generation: i32) -> String {
    format!("{name}_g{generation}")
}

/// The live generation; the first one is made here, with its views.
pub(crate) async fn ensure(
    context: &RunnerContext,
    plan: Plan,
    connection: &mut PgConnection,
) -> Result<RunnerRow, RunnerError> {
    let name = plan.name;
    if let Some(row) = RunnerRow::live(connection, name).await.map_err(RunnerError::Checkpoint)? {
        return Ok(row);
    }
    let journal_id = context.reader().head().await.map_err(RunnerError::Journal)?.journal_id;
    let failed = |source| RunnerError::Generation { name, generation: 1, source };
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('fanledger:first_generation:' || $1, 0))")
        .bind(name)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    // Two processes may have started together; the second finds the work done.
    if RunnerRow::live(&mut transaction, name).await.map_err(failed)?.is_none() {
        create(&mut transaction, plan, 1, Stage::Ready, journal_id).await.map_err(failed)?;
        run_sql(&mut transaction, plan.indexes).await.map_err(failed)?;
        show(&mut transaction, name, 1, plan.schema.views).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    let row = RunnerRow::live(connection, name).await.map_err(RunnerError::Checkpoint)?;
    row.ok_or_else(|| failed(sqlx::Error::RowNotFound))
}

/// Makes a generation's schema and tables, without their indexes, and its row: live if it is [`Stage::Ready`]. Leaves
/// `search_path` at the schema until the end of the transaction.
async fn create(
    connection: &mut PgConnection,
    plan: Plan,
    generation: i32,
    stage: Stage,
    journal_id: Uuid,
) -> Result<(), sqlx::Error> {
    let schema = schema_name(plan.name, generation);
    let views: Vec<String> = plan.schema.views.iter().map(|&view| view.to_owned()).collect();
    let start = Checkpoint::start(journal_id);
    // Derived state that no row knows of was left behind by a restore.
    run_sql(connection, &format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
    sqlx::query("SELECT control.create_generation_schema($1)").bind(&schema).execute(&mut *connection).await?;
    run_sql(connection, &format!("SET LOCAL search_path = {schema}")).await?;
    run_sql(connection, plan.schema.create).await?;
    sqlx::query(
        "INSERT INTO control.runners (name, generation, version, live, stage, views, definition, journal_id, position, chain) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(plan.name)
    .bind(generation)
    .bind(plan.version.cast_signed())
    .bind(stage == Stage::Ready)
    .bind(stage.as_str())
    .bind(views)
    .bind(plan.definition())
    .bind(start.journal_id)
    .bind(start.position.as_i64())
    .bind(start.chain.0.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes `read` show this generation.
async fn show(
    connection: &mut PgConnection,
    name: &str,
    generation: i32,
    views: &[impl AsRef<str>],
) -> Result<(), sqlx::Error> {
    let schema = schema_name(name, generation);
    for view in views {
        let view = view.as_ref();
        run_sql(connection, &format!("CREATE VIEW read.{view} AS SELECT * FROM {schema}.{view}")).await?;
    }
    Ok(())
}

/// Held by whoever rebuilds, rolls back or retires; as long as the connection lives.
async fn try_lock_projection(connection: &mut PgConnection, name: &str) -> Result<bool, RunnerError> {
    try_lock(connection, &format!("rebuild:{name}")).await.map_err(RunnerError::Checkpoint)
}

/// Uneven, so that a reader with a rhythm of its own is not met each time.
fn pause_before_next(attempt: u32) -> std::time::Duration {
    let jitter = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    std::time::Duration::from_millis(37 + u64::from(attempt * 61 % 200) + u64::from(jitter % 50))
}

/// A lock was not to be had in time, or Postgres resolved a deadlock at our cost: to be tried again.
fn is_in_the_way(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03" || code == "40P01")
}
