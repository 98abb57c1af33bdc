//! The rebuild, from the journal's beginning to the switch.

mod terms;

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection, Row};

use super::exchange::{ATTEMPTS, Hold, Refusal};
use super::progress::{Phase, Tracker};
use super::proof::{Proof, Snapshot};
use super::retire::{RetireError, drop_generation};
use super::{Plan, create, ensure, pause_before_next, schema_name, try_lock_projection};
use crate::checkpoint::{Halt, HaltKind, RunnerRow, Stage, run_sql, set_stage, try_lock, with_causes};
use crate::event::Position;
use crate::operation::{self, Beginning, OperationKind};
use crate::reader::ReadError;
use crate::runner::{Effects, Feeding, Projection, RunnerContext, RunnerError, Session, Stop, lock_name};

pub use terms::{Purpose, RebuildError, RebuildOptions, Rebuilt};

/// The new generation is brought up to the live one while that is held still, if no more than this is missing: a few
/// milliseconds' work.
const LAST_EVENTS: u64 = 500;

/// Builds the next generation straight from Postgres beside the live one, proves that both hold the same, makes it the live
/// one, and feeds it to the journal's head. The one before is kept, and fed by runners, until [`super::retire`].
///
/// Commands are muted up to where the live generation has come, because it has sent them; a live generation whose history is
/// not the journal's has sent unknown ones, so then all are sent again (each finds its facts already there, or posts them).
/// Killed at any instant, it leaves the live generation serving, and the next rebuild goes on where it was.
///
/// # Errors
/// See [`RebuildError`].
pub async fn rebuild(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    options: &RebuildOptions,
) -> Result<Rebuilt, RebuildError> {
    let plan = Plan::of(projection);
    let name = plan.name;
    let mut desk = context.connect().await?;
    if !try_lock_projection(&mut desk, name).await? {
        return Err(RebuildError::UnderWay(name));
    }
    let live = ensure(context, plan, &mut desk).await?;
    let kind = match options.purpose {
        Purpose::Switch => OperationKind::Rebuild,
        Purpose::Verify => OperationKind::Verify,
    };
    let beginning =
        Beginning { runner: name, kind, version: plan.version, confirmed: options.confirmed, asked: options.operation };
    let begun = operation::begin(&mut desk, beginning).await.map_err(RunnerError::Checkpoint)?;
    let operation = begun.ok_or(RebuildError::Withdrawn(name))?.id;
    let outcome = build(context, projection, options, &mut desk, operation, &live).await;
    let (told, error) = match &outcome {
        Ok(rebuilt) => (serde_json::to_value(rebuilt).ok(), None),
        Err(error) => (error.proof().and_then(|proof| serde_json::to_value(proof).ok()), Some(with_causes(error))),
    };
    operation::finish(&mut desk, operation, told.as_ref(), error.as_deref()).await;
    outcome
}

async fn build(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    options: &RebuildOptions,
    desk: &mut PgConnection,
    operation: i64,
    live: &RunnerRow,
) -> Result<Rebuilt, RebuildError> {
    let plan = Plan::of(projection);
    let name = plan.name;
    let shares_history = live.error.as_ref().is_none_or(|halt| halt.kind != HaltKind::HistoryChanged)
        && is_in_journal(context, live).await.map_err(RunnerError::Journal)?;
    let (connection, generation) = next_generation(context, plan, desk).await?;
    let mut session = Session::new(context, projection, connection, generation, Feeding::Building);
    session.effects = if shares_history { Effects::Muted } else { Effects::Live };
    let tracker = Tracker::new(generation, session.reached.clone());
    let mut work = Work { context, plan, options, session: &mut session, tracker: &tracker, shares_history };
    let outcome = tokio::select! {
        outcome = work.run() => outcome,
        error = tracker.report(desk, operation, options.progress.as_ref()) => {
            return Err(RunnerError::Checkpoint(error).into());
        }
    };
    let spoilt = match &outcome {
        Ok(_) => options.purpose == Purpose::Verify,
        Err(error) => error.spoils_the_generation(),
    };
    // In good order, so that the lock is free; where the connection is gone, so is the lock.
    session.close().await.ok();
    if spoilt && let Err(error) = drop_generation(desk, name, generation).await {
        let error = with_causes(&error);
        tracing::warn!(
            projection = name,
            generation,
            error,
            "what was built stays until the next rebuild or retirement"
        );
    }
    if outcome.is_ok() && options.purpose == Purpose::Switch {
        keep_one(desk, name).await;
    }
    outcome
}

/// Whether the journal holds what this generation has read, and what was sent until it had.
async fn is_in_journal(context: &RunnerContext, row: &RunnerRow) -> Result<bool, ReadError> {
    let (reader, checkpoint) = (context.reader(), &row.checkpoint);
    if checkpoint.position == Position::START {
        return Ok(true);
    }
    let is_ours = reader.head().await?.journal_id == checkpoint.journal_id;
    let event = reader.at(checkpoint.position).await?;
    let holds_checkpoint = is_ours && event.is_some_and(|event| event.chain == checkpoint.chain);
    Ok(holds_checkpoint && reader.has_ended_at(&row.head).await?)
}

/// The generation to build, locked: the one that a killed rebuild left, if it was made by the same program and has read this
/// journal; else a new one. What is of no use is dropped.
async fn next_generation(
    context: &RunnerContext,
    plan: Plan,
    desk: &mut PgConnection,
) -> Result<(PgConnection, i32), RebuildError> {
    let name = plan.name;
    let rows = RunnerRow::all(desk, name).await.map_err(RunnerError::Checkpoint)?;
    let mut left = None;
    for row in &rows {
        let is_building = matches!(row.stage, Stage::Loading | Stage::Following);
        let is_ours = is_building && row.version == plan.version && row.definition == plan.definition();
        if is_ours && is_in_journal(context, row).await.map_err(RunnerError::Journal)? {
            left = Some(row.generation);
        } else if is_building || row.stage == Stage::Retiring {
            match drop_generation(desk, name, row.generation).await {
                // It is in nobody's way: it stays until the next time.
                Err(error @ RetireError::InUse { .. }) => {
                    tracing::warn!(projection = name, error = with_causes(&error))
                }
                dropped => dropped?,
            }
        }
    }
    let mut connection = context.connect().await?;
    let generation = match left {
        Some(generation) => {
            tracing::info!(projection = name, generation, "goes on with a rebuild that was broken off");
            generation
        }
        None => {
            let generation = rows.iter().map(|row| row.generation).max().unwrap_or_default() + 1;
            let failed = |source| RunnerError::Generation { name, generation, source };
            let journal_id = context.reader().head().await.map_err(RunnerError::Journal)?.journal_id;
            let mut transaction = connection.begin().await.map_err(failed)?;
            create(&mut transaction, plan, generation, Stage::Loading, journal_id).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            generation
        }
    };
    // Held until the end, so that a runner that follows the switch waits for the last step.
    if !try_lock(&mut connection, &lock_name(name, generation)).await.map_err(RunnerError::Checkpoint)? {
        return Err(RebuildError::Lost(name));
    }
    Ok((connection, generation))
}

/// After a switch: of those that were live, the last one is kept. The rest go; what cannot go now goes with the next rebuild.
async fn keep_one(desk: &mut PgConnection, name: &'static str) {
    let rows = match RunnerRow::all(desk, name).await {
        Ok(rows) => rows,
        Err(error) => return tracing::warn!(projection = name, %error, "old generations could not be listed"),
    };
    // What is being retired was tried when this rebuild began.
    let were_live: Vec<&RunnerRow> = rows.iter().filter(|row| !row.live && row.stage == Stage::Ready).collect();
    let kept = were_live.iter().map(|row| row.generation).max();
    for row in were_live.iter().filter(|row| Some(row.generation) != kept) {
        if let Err(error) = drop_generation(desk, name, row.generation).await {
            let error = with_causes(&error);
            tracing::warn!(projection = name, generation = row.generation, error, "an old generation stays for now");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Work<'a, 's> {
    context: &'a RunnerContext,
    plan: Plan,
    options: &'a RebuildOptions,
    session: &'a mut Session<'s>,
    tracker: &'a Tracker,
    /// Whether the live generation has read this journal. If not, neither its position nor its rows mean anything.
    shares_history: bool,
}

impl Work<'_, '_> {
    async fn run(&mut self) -> Result<Rebuilt, RebuildError> {
        let name = self.plan.name;
        self.session.open().await.map_err(|stop| RebuildError::of_stop(name, stop))?;
        self.tracker.begin(self.session.checkpoint.position);
        let (loading, indexing) = self.load().await?;
        let complete_since = Instant::now();
        self.catch_up(Phase::CatchingUp).await?;
        let proof = self.prove().await?;
        if self.options.purpose == Purpose::Switch {
            self.tracker.phase(Phase::Waiting);
            tokio::time::sleep(self.options.read_age.saturating_sub(complete_since.elapsed())).await;
            self.switch().await?;
        }
        let halt = if self.options.purpose == Purpose::Switch { self.go_live().await? } else { None };
        Ok(Rebuilt {
            generation: self.session.generation.cast_unsigned(),
            position: self.session.checkpoint.position,
            proof,
            halt,
            loading_ms: millis(loading),
            indexing_ms: millis(indexing),
        })
    }

    /// Where the live generation is; never past it, so that its commands are its own. `None`: to the head.
    async fn limit(&mut self) -> Result<Option<Position>, RebuildError> {
        if !self.shares_history {
            let head = self.context.reader().head().await.map_err(RunnerError::Journal)?;
            self.tracker.target(head.position);
            return Ok(None);
        }
        let live = RunnerRow::live(&mut self.session.connection, self.plan.name).await;
        let live = live.map_err(RunnerError::Checkpoint)?.ok_or(RebuildError::Lost(self.plan.name))?;
        self.tracker.target(live.checkpoint.position);
        Ok(Some(live.checkpoint.position))
    }

    /// From the beginning, or from where a rebuild was broken off, with nothing in the way; then the indexes. Returns how long
    /// each took.
    async fn load(&mut self) -> Result<(Duration, Duration), RebuildError> {
        let (name, generation) = (self.plan.name, self.session.generation);
        let row = RunnerRow::of(&mut self.session.connection, name, generation).await;
        let row = row.map_err(RunnerError::Checkpoint)?.ok_or(RebuildError::Lost(name))?;
        if row.stage != Stage::Loading {
            return Ok((Duration::ZERO, Duration::ZERO));
        }
        self.tracker.phase(Phase::Loading);
        let began = Instant::now();
        loop {
            let limit = self.limit().await?;
            self.session.load(limit).await.map_err(|stop| RebuildError::of_stop(name, stop))?;
            // What came meanwhile is read once more in large batches, unless it is little.
            let ahead = self.limit().await?.unwrap_or(self.session.checkpoint.position);
            if ahead.get().saturating_sub(self.session.checkpoint.position.get()) <= 20 * LAST_EVENTS {
                break;
            }
        }
        let loading = began.elapsed();
        self.tracker.phase(Phase::Indexing);
        self.index().await.map_err(|source| {
            RebuildError::of_stop(name, Stop::Failed(RunnerError::Generation { name, generation, source }))
        })?;
        Ok((loading, began.elapsed() - loading))
    }

    async fn index(&mut self) -> Result<(), sqlx::Error> {
        let (name, generation) = (self.plan.name, self.session.generation);
        let schema = schema_name(name, generation);
        let mut transaction = self.session.connection.begin().await?;
        run_sql(&mut transaction, self.plan.indexes).await?;
        let tables = sqlx::query(
            "SELECT quote_ident(relname) FROM pg_catalog.pg_class
             WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p') AND NOT relispartition",
        )
        .bind(&schema)
        .fetch_all(&mut *transaction)
        .await?;
        for table in tables {
            let table: &str = table.try_get(0)?;
            run_sql(&mut transaction, &format!("ANALYZE {schema}.{table}")).await?;
        }
        set_stage(&mut transaction, name, generation, Stage::Following).await?;
        transaction.commit().await
    }

    /// Until what is missing can be read while the live generation is held still.
    async fn catch_up(&mut self, phase: Phase) -> Result<(), RebuildError> {
        self.tracker.phase(phase);
        loop {
            let limit = self.limit().await?;
            self.session.catch_up(limit).await.map_err(|stop| RebuildError::of_stop(self.plan.name, stop))?;
            let Some(live) = self.limit().await? else { return Ok(()) };
            if live.get().saturating_sub(self.session.checkpoint.position.get()) <= LAST_EVENTS {
                return Ok(());
            }
        }
    }

    /// Holds the live generation still, with the new one at its very position. `None`: it was busy, or too many events came.
    async fn hold(&mut self) -> Result<Option<Hold>, RebuildError> {
        let Some(hold) = Hold::take(self.context, self.plan.name).await? else { return Ok(None) };
        let position = hold.live.checkpoint.position;
        if self.shares_history {
            if position.get().saturating_sub(self.session.checkpoint.position.get()) > LAST_EVENTS {
                hold.release().await?;
                return Ok(None);
            }
            let reached = self.session.catch_up(Some(position)).await;
            reached.map_err(|stop| RebuildError::of_stop(self.plan.name, stop))?;
        }
        Ok(Some(hold))
    }

    /// `None` where there is nothing to compare with.
    async fn prove(&mut self) -> Result<Option<Proof>, RebuildError> {
        let name = self.plan.name;
        for attempt in 0..ATTEMPTS {
            self.catch_up(Phase::Proving).await?;
            let Some(hold) = self.hold().await? else {
                tokio::time::sleep(pause_before_next(attempt)).await;
                continue;
            };
            if !self.shares_history || !self.has_tables(hold.live.generation).await? {
                hold.release().await?;
                return Ok(None);
            }
            let snapshot = Snapshot::take(self.context, name, hold.live.generation, self.session.generation).await?;
            hold.release().await?;
            if snapshot.live.checkpoint != snapshot.new.checkpoint {
                // Somebody moved a checkpoint by hand; what is compared must stand at one position.
                return Err(RebuildError::Lost(name));
            }
            let proof = snapshot.compare(name).await.map_err(|source| RebuildError::Compare { name, source })?;
            return self.judge(proof).map(Some);
        }
        Err(RebuildError::Contended(name))
    }

    fn judge(&self, proof: Proof) -> Result<Proof, RebuildError> {
        let name = self.plan.name;
        if proof.is_equal() {
            return Ok(proof);
        }
        let proof = Box::new(proof);
        if proof.live_version == proof.new_version || self.options.purpose == Purpose::Verify {
            return Err(RebuildError::Differs { name, proof });
        }
        if self.options.confirmed { Ok(*proof) } else { Err(RebuildError::Unconfirmed { name, proof }) }
    }

    async fn has_tables(&mut self, generation: i32) -> Result<bool, RebuildError> {
        let exists = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
            .bind(schema_name(self.plan.name, generation))
            .fetch_one(&mut self.session.connection)
            .await;
        Ok(exists.map_err(RunnerError::Checkpoint)?)
    }

    async fn switch(&mut self) -> Result<(), RebuildError> {
        let name = self.plan.name;
        for attempt in 0..ATTEMPTS {
            self.catch_up(Phase::Switching).await?;
            if let Some(hold) = self.hold().await? {
                match hold.exchange(name, self.session.generation, !self.shares_history).await {
                    Ok(()) => return Ok(()),
                    Err(Refusal::InTheWay) => {}
                    Err(Refusal::Gone) => return Err(RebuildError::Lost(name)),
                    Err(Refusal::Failed(source)) => return Err(RebuildError::Switch { name, source }),
                }
            }
            tokio::time::sleep(pause_before_next(attempt)).await;
        }
        Err(RebuildError::Contended(name))
    }

    /// Feeds what is live now to the head, so that it is there when this returns; from then on a runner does. A projection that
    /// was paused stays so.
    async fn go_live(&mut self) -> Result<Option<Halt>, RebuildError> {
        self.session.feeding = Feeding::Live;
        self.session.effects = Effects::Live;
        match self.session.catch_up(None).await {
            Ok(()) | Err(Stop::Paused | Stop::SteppedDown) => Ok(None),
            Err(Stop::Halted(halt)) => {
                self.session.record(&halt).await?;
                Ok(Some(halt))
            }
            Err(Stop::StillHalted(halt)) => Ok(Some(halt)),
            // It is live; what remains is a runner's to do, and to try again.
            Err(Stop::Failed(error)) => {
                tracing::warn!(projection = self.plan.name, error = with_causes(&error), "left to its runner");
                Ok(None)
            }
        }
    }
}
