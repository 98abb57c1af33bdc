//! Beside the live generations: feeding those that are kept, and working on what operators asked for over the API.
//!
//! The control tables say what there is; twice a second what runs here is made to agree with them. So a generation that was
//! kept, retired or brought back is noticed without a restart, by each process of its version, one of which is active.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use sqlx::Row;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::session::{Feeding, Session, Stop};
use super::{Projection, RunnerContext, RunnerError, STANDBY, lock_name};
use crate::backoff::Backoff;
use crate::checkpoint::{RunnerRow, Stage, try_lock, with_causes};
use crate::generation::{
    Purpose, RebuildError, RebuildOptions, RetireError, RollbackError, rebuild, retire_asked, rollback_asked,
};
use crate::operation::{self, OperationKind, Waiting};

/// How often the control tables are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Makes every projection that a process runs, anew at each call: each generation is fed by an instance of its own.
pub type Projections = Arc<dyn Fn() -> Vec<Box<dyn Projection>> + Send + Sync>;

/// What may run once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    Keep(&'static str, i32),
    Operate(&'static str),
}

/// Feeds kept generations and works on operations until told to stop. The live generations are [`super::run`]'s.
pub async fn supervise(context: RunnerContext, projections: Projections, stop: CancellationToken) {
    let versions: HashMap<&'static str, u32> =
        projections().iter().map(|projection| (projection.name(), projection.version())).collect();
    let mut supervisor = Supervisor { context, projections, versions, tasks: JoinSet::new(), running: Vec::new() };
    let _: Option<std::convert::Infallible> = stop.run_until_cancelled(supervisor.run()).await;
    // Dropped here, as a kill would: transactions roll back, and whoever is next goes on.
    supervisor.tasks.shutdown().await;
}

struct Supervisor {
    context: RunnerContext,
    projections: Projections,
    versions: HashMap<&'static str, u32>,
    tasks: JoinSet<Task>,
    running: Vec<Task>,
}

impl Supervisor {
    async fn run(&mut self) -> std::convert::Infallible {
        let mut backoff = Backoff::new();
        loop {
            let pause = match self.look().await {
                Ok(()) => {
                    if let Some(outage) = backoff.reset() {
                        tracing::warn!(seconds = outage.as_secs(), "the control tables can be read again");
                    }
                    LOOK_EVERY
                }
                Err(error) => {
                    if backoff.is_to_be_told() {
                        tracing::warn!(error = with_causes(&error), "the control tables cannot be read; trying again");
                    }
                    backoff.delay().max(LOOK_EVERY)
                }
            };
            tokio::time::sleep(pause).await;
            while let Some(ended) = self.tasks.try_join_next() {
                match ended {
                    Ok(task) => self.running.retain(|running| *running != task),
                    Err(error) => tracing::error!(%error, "a task of the supervisor was lost"),
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), sqlx::Error> {
        let kept =
            sqlx::query("SELECT name, generation, version FROM control.runners WHERE NOT live AND stage = 'ready'")
                .fetch_all(&self.context.pool)
                .await?;
        for row in kept {
            let (name, version): (&str, i32) = (row.try_get("name")?, row.try_get("version")?);
            if let Some((&name, _)) =
                self.versions.get_key_value(name).filter(|(_, ours)| **ours == version.cast_unsigned())
            {
                let generation = row.try_get("generation")?;
                self.start(Task::Keep(name, generation), None);
            }
        }
        for waiting in operation::waiting(&self.context.pool).await? {
            let Some((&name, &ours)) = self.versions.get_key_value(waiting.runner.as_str()) else { continue };
            // What nobody has begun is not for a program that is older than what is live.
            let is_ours = waiting.version.map_or(waiting.live_version <= ours, |version| version == ours);
            if is_ours {
                self.start(Task::Operate(name), Some(waiting));
            }
        }
        Ok(())
    }

    fn start(&mut self, task: Task, waiting: Option<Waiting>) {
        if self.running.contains(&task) {
            return;
        }
        let (Task::Keep(name, _) | Task::Operate(name)) = task;
        let Some(mut projection) = (self.projections)().into_iter().find(|projection| projection.name() == name) else {
            return;
        };
        self.running.push(task.clone());
        let context = self.context.clone();
        self.tasks.spawn(async move {
            // A task that panics is a task that ended: the next look starts it again.
            let work = async {
                match (&task, waiting) {
                    (Task::Keep(_, generation), _) => keep(&context, projection.as_mut(), *generation).await,
                    (Task::Operate(_), Some(waiting)) => operate(&context, projection.as_mut(), &waiting).await,
                    (Task::Operate(_), None) => {}
                }
            };
            if std::panic::AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(?task, "a task of the supervisor panicked");
            }
            task
        });
    }
}

/// Feeds a kept generation for as long as it is one, through every outage.
async fn keep(context: &RunnerContext, projection: &mut dyn Projection, generation: i32) {
    let name = projection.name();
    let mut backoff = Backoff::new();
    loop {
        match hold_and_keep(context, projection, generation).await {
            Ok(()) => return tracing::info!(projection = name, generation, "is no longer fed as one that is kept"),
            Err(error) => {
                if backoff.is_to_be_told() {
                    tracing::warn!(
                        projection = name,
                        generation,
                        error = with_causes(&error),
                        "tries again, until it is back"
                    );
                }
                tokio::time::sleep(backoff.delay()).await;
            }
        }
    }
}

async fn hold_and_keep(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    generation: i32,
) -> Result<(), RunnerError> {
    let name = projection.name();
    let mut connection = context.connect().await?;
    while !try_lock(&mut connection, &lock_name(name, generation)).await.map_err(RunnerError::Checkpoint)? {
        tokio::time::sleep(STANDBY).await;
        let row = RunnerRow::of(&mut connection, name, generation).await.map_err(RunnerError::Checkpoint)?;
        if row.is_none_or(|row| row.live || row.stage != Stage::Ready) {
            return Ok(());
        }
    }
    let mut session = Session::new(context, projection, connection, generation, Feeding::Kept);
    loop {
        let stop = match session.open().await {
            Ok(()) => session.keep_up().await,
            Err(stop) => stop,
        };
        match stop {
            // In good order, so that whoever waits for the lock has it at once.
            Stop::SteppedDown => return session.close().await,
            Stop::Failed(error) => return Err(error),
            Stop::Paused | Stop::StillHalted(_) => {}
            Stop::Halted(halt) => session.record(&halt).await?,
        }
        if !session.wait_for_operator().await? {
            return session.close().await;
        }
    }
}

/// Works on what was asked for over the API, or on what somebody began and did not end. Each writes down itself how it ended.
async fn operate(context: &RunnerContext, projection: &mut dyn Projection, waiting: &Waiting) {
    let name = projection.name();
    let outcome = match waiting.kind {
        OperationKind::Rebuild => built(context, projection, waiting, Purpose::Switch).await,
        OperationKind::Verify => built(context, projection, waiting, Purpose::Verify).await,
        OperationKind::Rollback => match rollback_asked(context, projection, Some(waiting.id)).await {
            // Another process has it, or had.
            Ok(_) | Err(RollbackError::UnderWay(_) | RollbackError::Withdrawn(_)) => Ok(()),
            Err(error) => Err(with_causes(&error)),
        },
        OperationKind::Retire => match retire_asked(context, name, Some(waiting.id)).await {
            Ok(_) | Err(RetireError::UnderWay(_) | RetireError::Withdrawn(_)) => Ok(()),
            Err(error) => Err(with_causes(&error)),
        },
    };
    let (operation, kind) = (waiting.id, waiting.kind.as_str());
    match outcome {
        Ok(()) => tracing::info!(projection = name, operation, kind, "done, or another process has it"),
        Err(error) => tracing::warn!(projection = name, operation, kind, error, "not done"),
    }
}

async fn built(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    waiting: &Waiting,
    purpose: Purpose,
) -> Result<(), String> {
    let options = RebuildOptions {
        purpose,
        confirmed: waiting.confirmed,
        operation: Some(waiting.id),
        read_age: context.read_age,
        ..RebuildOptions::default()
    };
    match rebuild(context, projection, &options).await {
        Ok(_) | Err(RebuildError::UnderWay(_) | RebuildError::Withdrawn(_)) => Ok(()),
        Err(error) => Err(with_causes(&error)),
    }
}
