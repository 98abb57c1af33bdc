//! Generations: each build of a projection's tables has a schema of its own, `balances_g7`; `read.<table>` are views on the
//! live one. A rebuild fills the next generation beside it and switches the views in one transaction.
//!
//! What is not here yet: the proof that old and new agree before the switch, and keeping the old one fed for a rollback.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, Halt, HaltKind, RunnerRow, advance, run_sql, try_lock};
use crate::event::Position;
use crate::reader::ReadError;
use crate::runner::{
    Effects, Projection, RunnerContext, RunnerError, Schema, Session, Stop, apply, fetch, lock_name, wanted,
};

/// A switch waits this long for a reader to let go of a view, so that nobody queues behind it; then it tries again.
const SWITCH_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// How often a switch is tried; with the pauses in between, about ten seconds.
const SWITCH_ATTEMPTS: u32 = 50;

/// A rebuild that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The generation that is live now.
    pub generation: u32,
    /// Up to where it has read.
    pub position: Position,
}

/// A rebuild that was not completed. The live generation is as it was, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// One is under way.
    #[error("{0} is being rebuilt already; wait for it")]
    UnderWay(&'static str),
    /// The new generation met an event that it cannot apply.
    #[error("the new generation of {name} halted: {halt}")]
    Halted {
        /// The projection.
        name: &'static str,
        /// Why.
        halt: Halt,
    },
    /// Long readers, or a busy runner, were always in the way.
    #[error("the views of {0} were in use at each attempt to switch them; try again")]
    Contended(&'static str),
    /// Earlier generations could not be dropped.
    #[error("drop earlier generations of {name}")]
    Clean {
        /// The projection.
        name: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// The switch failed.
    #[error("switch the views of {name}")]
    Switch {
        /// The projection.
        name: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// Another process took over the generation that was being built.
    #[error("lost the new generation of {0} to another process; try again")]
    Lost(&'static str),
    /// Something that may pass; try again.
    #[error(transparent)]
    Failed(#[from] RunnerError),
}

/// What of a projection its generations are made from; taken out of it, because a projection need not be shared between threads.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    name: &'static str,
    version: u32,
    schema: Schema,
}

impl Plan {
    pub fn of(projection: &dyn Projection) -> Self {
        Self { name: projection.name(), version: projection.version(), schema: projection.schema() }
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
        create(&mut transaction, plan, 1, true, journal_id).await.map_err(failed)?;
        show(&mut transaction, plan, 1).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    let row = RunnerRow::live(connection, name).await.map_err(RunnerError::Checkpoint)?;
    row.ok_or_else(|| failed(sqlx::Error::RowNotFound))
}

async fn create(
    connection: &mut PgConnection,
    plan: Plan,
    generation: i32,
    live: bool,
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
        "INSERT INTO control.runners (name, generation, version, live, views, journal_id, position, chain) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(plan.name)
    .bind(generation)
    .bind(plan.version.cast_signed())
    .bind(live)
    .bind(views)
    .bind(start.journal_id)
    .bind(start.position.as_i64())
    .bind(start.chain.0.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes `read` show this generation.
async fn show(connection: &mut PgConnection, plan: Plan, generation: i32) -> Result<(), sqlx::Error> {
    let schema = schema_name(plan.name, generation);
    for view in plan.schema.views {
        run_sql(connection, &format!("CREATE VIEW read.{view} AS SELECT * FROM {schema}.{view}")).await?;
    }
    Ok(())
}

/// Builds the next generation from the journal's beginning, straight from Postgres, makes it the live one, and feeds it to the head.
///
/// Commands are muted up to where the live generation has come, because it has sent them; a live generation whose history is
/// not the journal's has sent unknown ones, so then all are sent again (each finds its facts already there, or posts them).
/// Killed at any instant, it leaves the live generation serving, and the next rebuild clears away what is left.
///
/// # Errors
/// See [`RebuildError`].
pub async fn rebuild(context: &RunnerContext, projection: &mut dyn Projection) -> Result<Rebuilt, RebuildError> {
    let plan = Plan::of(projection);
    let name = plan.name;
    let mut connection = context.connect().await?;
    if !try_lock(&mut connection, &format!("rebuild:{name}")).await.map_err(RunnerError::Checkpoint)? {
        return Err(RebuildError::UnderWay(name));
    }
    let live = ensure(context, plan, &mut connection).await?;
    drop_others(&mut connection, name, live.generation).await.map_err(|source| RebuildError::Clean { name, source })?;

    let generation = live.generation + 1;
    let failed = |source| RunnerError::Generation { name, generation, source };
    let journal_id = context.reader().head().await.map_err(RunnerError::Journal)?.journal_id;
    let mut transaction = connection.begin().await.map_err(failed)?;
    create(&mut transaction, plan, generation, false, journal_id).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    // Held until the end, so that a runner that follows the switch waits for the last step.
    if !try_lock(&mut connection, &lock_name(name, generation)).await.map_err(RunnerError::Checkpoint)? {
        return Err(RebuildError::Lost(name));
    }

    let shares_history = live.error.as_ref().is_none_or(|halt| halt.kind != HaltKind::HistoryChanged)
        && is_in_journal(context, &live.checkpoint).await.map_err(RunnerError::Journal)?;
    let mut session = Session::new(context, projection, connection, generation);
    session.serves = false;
    let built = fill_and_switch(context, &mut session, shares_history).await;
    let outcome = match built {
        Ok(()) => {
            session.serves = true;
            session.effects = Effects::Live;
            match session.catch_up(None).await {
                // A projection that was paused stays so.
                Ok(()) | Err(Stop::Paused) => Ok(()),
                Err(stop) => Err(explain(name, stop)),
            }
        }
        Err(error) => Err(error),
    };
    if let Err(RebuildError::Halted { halt, .. }) = &outcome {
        session.record(halt).await?;
    }
    let position = session.checkpoint.position;
    session.close().await?;
    outcome?;
    tracing::info!(projection = name, generation, %position, "a new generation is live");
    Ok(Rebuilt { generation: generation.cast_unsigned(), position })
}

fn explain(name: &'static str, stop: Stop) -> RebuildError {
    match stop {
        Stop::SteppedDown | Stop::Paused => RebuildError::Lost(name),
        Stop::Halted(halt) | Stop::StillHalted(halt) => RebuildError::Halted { name, halt },
        Stop::Failed(error) => RebuildError::Failed(error),
    }
}

async fn is_in_journal(context: &RunnerContext, checkpoint: &Checkpoint) -> Result<bool, ReadError> {
    let head = context.reader().head().await?;
    if checkpoint.position == Position::START {
        return Ok(true);
    }
    let event = context.reader().at(checkpoint.position).await?;
    Ok(head.journal_id == checkpoint.journal_id && event.is_some_and(|event| event.chain == checkpoint.chain))
}

/// Drops what an earlier rebuild left: the generation before the live one, or one that never went live.
async fn drop_others(connection: &mut PgConnection, name: &str, live: i32) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let others: Vec<i32> = sqlx::query_scalar(
        "DELETE FROM control.runners WHERE name = $1 AND generation <> $2 AND NOT live RETURNING generation",
    )
    .bind(name)
    .bind(live)
    .fetch_all(&mut *transaction)
    .await?;
    for generation in others {
        run_sql(&mut transaction, &format!("DROP SCHEMA IF EXISTS {} CASCADE", schema_name(name, generation))).await?;
    }
    transaction.commit().await
}

async fn fill_and_switch(
    context: &RunnerContext,
    session: &mut Session<'_>,
    shares_history: bool,
) -> Result<(), RebuildError> {
    let name = session.projection.name();
    session.open().await.map_err(|stop| explain(name, stop))?;
    session.effects = if shares_history { Effects::Muted } else { Effects::Live };
    for attempt in 0..SWITCH_ATTEMPTS {
        let limit = if shares_history {
            let live = RunnerRow::live(&mut session.connection, name).await.map_err(RunnerError::Checkpoint)?;
            Some(live.map_or(Position::START, |live| live.checkpoint.position))
        } else {
            None
        };
        session.catch_up(limit).await.map_err(|stop| explain(name, stop))?;
        match switch(context, session, shares_history).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(RebuildError::Switch { source, .. }) if is_in_the_way(&source) => {}
            Err(error) => return Err(error),
        }
        // Uneven pauses, so that a reader with a rhythm of its own is not met each time.
        tokio::time::sleep(Duration::from_millis(37 + u64::from(attempt * 61 % 200))).await;
    }
    Err(RebuildError::Contended(name))
}

/// In one transaction: the live checkpoint held still, the last few events applied, the views exchanged. `false`: too many
/// events came meanwhile.
async fn switch(
    context: &RunnerContext,
    session: &mut Session<'_>,
    shares_history: bool,
) -> Result<bool, RebuildError> {
    const LAST_EVENTS: u64 = 500;
    let plan = Plan::of(session.projection);
    let name = plan.name;
    let failed = |source| RebuildError::Switch { name, source };
    let generation = session.generation;
    let Session { projection, connection, skips, effects, checkpoint, .. } = session;
    let mut transaction = connection.begin().await.map_err(failed)?;
    run_sql(&mut transaction, SWITCH_LOCK_TIMEOUT).await.map_err(failed)?;
    let live =
        RunnerRow::live_for_update(&mut transaction, name).await.map_err(failed)?.ok_or(RebuildError::Lost(name))?;
    let mut end = *checkpoint;
    if shares_history && live.checkpoint.position > end.position {
        let missing = live.checkpoint.position.get() - end.position.get();
        if missing > LAST_EVENTS {
            return Ok(false);
        }
        let events = fetch(context, end.position, Some(live.checkpoint.position)).await?;
        let Some(last) = events.last().filter(|last| last.position == live.checkpoint.position) else {
            return Ok(false);
        };
        end = end.after(last);
        let wanted = wanted(*projection, skips, &events);
        if !wanted.is_empty() {
            apply(*projection, &wanted, *effects, &mut transaction).await.map_err(RunnerError::Apply)?;
        }
        let moved = advance(&mut transaction, name, generation, checkpoint.position, &end).await.map_err(failed)?;
        moved.ok_or(RebuildError::Lost(name))?;
    }
    exchange(&mut transaction, plan, &live, generation).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    *checkpoint = end;
    Ok(true)
}

/// Takes down what `read` shows of the old generation and shows the new one.
async fn exchange(
    connection: &mut PgConnection,
    plan: Plan,
    old: &RunnerRow,
    generation: i32,
) -> Result<(), sqlx::Error> {
    let name = plan.name;
    // One after the other: at no moment may there be two live ones.
    sqlx::query("UPDATE control.runners SET live = false WHERE name = $1 AND generation = $2")
        .bind(name)
        .bind(old.generation)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE control.runners SET live = true, paused = $3 WHERE name = $1 AND generation = $2")
        .bind(name)
        .bind(generation)
        .bind(old.paused)
        .execute(&mut *connection)
        .await?;
    for view in &old.views {
        run_sql(connection, &format!("DROP VIEW IF EXISTS read.{view}")).await?;
    }
    show(connection, plan, generation).await
}

/// Lock not available, or a deadlock that Postgres resolved at our cost.
fn is_in_the_way(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03" || code == "40P01")
}
