//! Going back: the switch of a rebuild, to the generation that was live before.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::exchange::{ATTEMPTS, Hold, Refusal};
use super::{pause_before_next, try_lock_projection};
use crate::checkpoint::{Halt, RunnerRow, Stage, try_lock, with_causes};
use crate::event::Position;
use crate::operation::{self, Beginning, Begun, OperationKind};
use crate::runner::{Feeding, Projection, RunnerContext, RunnerError, Session, Stop, lock_name};

/// How long the kept generation's runner may take to come close to the live one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the live one may be held still for it; the kept one's runner looks four times a second.
const HOLD: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Near enough to be awaited while the live one is held still.
const LAST_EVENTS: u64 = 2000;

/// A rollback that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The generation that is live now.
    pub generation: u32,
    /// The version that it was made by.
    pub version: u32,
    /// The generation that was live, and is kept now.
    pub kept: u32,
    /// Where both stood.
    pub position: Position,
}

/// A rollback that did not happen. What is live is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// A rebuild, rollback or retirement is under way.
    #[error("{0} is being rebuilt, rolled back or retired already; wait for it")]
    UnderWay(&'static str),
    /// What asked for it was closed meanwhile.
    #[error("nobody asks for this rollback of {0} any more")]
    Withdrawn(&'static str),
    /// There is no runner of this name yet.
    #[error("{0} has no generation yet; start the roles projector and manager")]
    NotBuilt(&'static str),
    /// No generation is kept.
    #[error("{0} has nothing to go back to: no generation but the live one is kept; a rebuild keeps the one before")]
    NothingKept(&'static str),
    /// The kept generation halted.
    #[error("generation {generation} of {name}, which is kept, halted: {halt}; going back to it would be no help")]
    Halted {
        /// The projection.
        name: &'static str,
        /// The generation.
        generation: u32,
        /// Why.
        halt: Halt,
    },
    /// Nobody feeds the kept generation.
    #[error(
        "generation {generation} of {name} is kept at position {position}, and {live} is live: going back would lose what came between; start a projector of version {version}, which feeds it, and try again"
    )]
    Behind {
        /// The projection.
        name: &'static str,
        /// The generation.
        generation: u32,
        /// The version that made it.
        version: u32,
        /// Where it is.
        position: Position,
        /// Where the live one is.
        live: Position,
    },
    /// Long readers, or a busy runner, were always in the way.
    #[error("{0} was in use at each attempt to hold it still or to switch its views; try again")]
    Contended(&'static str),
    /// The switch failed.
    #[error("switch the views of {name}")]
    Switch {
        /// The projection.
        name: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// Something that may pass; try again.
    #[error(transparent)]
    Failed(#[from] RunnerError),
}

/// Makes the kept generation the live one again, at the position of the one that is live, and keeps that.
///
/// # Errors
/// See [`RollbackError`].
pub async fn rollback(context: &RunnerContext, projection: &mut dyn Projection) -> Result<RolledBack, RollbackError> {
    rollback_asked(context, projection, None).await
}

/// The same, where a row of `control.operations` asks for it.
pub(crate) async fn rollback_asked(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    asked: Option<i64>,
) -> Result<RolledBack, RollbackError> {
    let (name, version) = (projection.name(), projection.version());
    let mut desk = context.connect().await?;
    if !try_lock_projection(&mut desk, name).await? {
        return Err(RollbackError::UnderWay(name));
    }
    let beginning = Beginning { runner: name, kind: OperationKind::Rollback, version, confirmed: false, asked };
    let begun = operation::begin(&mut desk, beginning).await.map_err(RunnerError::Checkpoint)?;
    let begun = begun.ok_or(RollbackError::Withdrawn(name))?;
    let outcome = go_back(context, projection, &mut desk, begun).await;
    let (told, error) = match &outcome {
        Ok(done) => (serde_json::to_value(done).ok(), None),
        Err(error) => (None, Some(with_causes(error))),
    };
    operation::finish(&mut desk, begun.id, told.as_ref(), error.as_deref()).await;
    outcome
}

async fn go_back(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    desk: &mut PgConnection,
    begun: Begun,
) -> Result<RolledBack, RollbackError> {
    let name = projection.name();
    let rows = RunnerRow::all(desk, name).await.map_err(RunnerError::Checkpoint)?;
    let live = rows.iter().find(|row| row.live).ok_or(RollbackError::NotBuilt(name))?;
    let kept = rows.iter().rfind(|row| !row.live && row.stage == Stage::Ready);
    let kept = kept.ok_or(RollbackError::NothingKept(name))?;
    let done = |kept: &RunnerRow, live: &RunnerRow, position| RolledBack {
        generation: kept.generation.cast_unsigned(),
        version: kept.version,
        kept: live.generation.cast_unsigned(),
        position,
    };
    if begun.generation == Some(live.generation) {
        // Whoever began it was killed after the switch; going on would undo it.
        return Ok(done(live, kept, live.checkpoint.position));
    }
    operation::aim(desk, begun.id, kept.generation).await.map_err(RunnerError::Checkpoint)?;
    for attempt in 0..ATTEMPTS {
        bring_near(context, projection, kept.generation, live.checkpoint.position).await?;
        if let Some(hold) = Hold::take(context, name).await? {
            let was_live = hold.live.clone();
            let position = was_live.checkpoint.position;
            bring_up(context, projection, kept.generation, position, HOLD).await?;
            match hold.exchange(name, kept.generation, false).await {
                Ok(()) => return Ok(done(kept, &was_live, position)),
                Err(Refusal::InTheWay) => {}
                Err(Refusal::Gone) => return Err(RollbackError::NothingKept(name)),
                Err(Refusal::Failed(source)) => return Err(RollbackError::Switch { name, source }),
            }
        }
        tokio::time::sleep(pause_before_next(attempt)).await;
    }
    Err(RollbackError::Contended(name))
}

/// Before the live one is held still, so that it is not for long.
async fn bring_near(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    generation: i32,
    live: Position,
) -> Result<(), RollbackError> {
    bring_up(context, projection, generation, Position::new(live.get().saturating_sub(LAST_EVENTS)), PATIENCE).await
}

/// Has the kept generation at `position` or past it: by its runner, or by ourselves where there is none and this program is of
/// its version.
async fn bring_up(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    generation: i32,
    position: Position,
    patience: Duration,
) -> Result<(), RollbackError> {
    let name = projection.name();
    let mut connection = context.connect().await?;
    let deadline = Instant::now() + patience;
    loop {
        let row = RunnerRow::of(&mut connection, name, generation).await.map_err(RunnerError::Checkpoint)?;
        let row = row.ok_or(RollbackError::NothingKept(name))?;
        let generation = generation.cast_unsigned();
        if let Some(halt) = row.error {
            return Err(RollbackError::Halted { name, generation, halt });
        }
        if row.checkpoint.position >= position {
            return Ok(());
        }
        let is_ours = row.version == projection.version();
        if is_ours
            && try_lock(&mut connection, &lock_name(name, row.generation)).await.map_err(RunnerError::Checkpoint)?
        {
            return feed(context, projection, connection, row.generation, position).await;
        }
        if Instant::now() > deadline {
            let (at, version) = (row.checkpoint.position, row.version);
            return Err(RollbackError::Behind { name, generation, version, position: at, live: position });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `connection` holds the generation's lock.
async fn feed(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    connection: PgConnection,
    generation: i32,
    position: Position,
) -> Result<(), RollbackError> {
    let name = projection.name();
    let mut session = Session::new(context, projection, connection, generation, Feeding::Kept);
    let fed = match session.open().await {
        Ok(()) => session.catch_up(Some(position)).await,
        Err(stop) => Err(stop),
    };
    let fed = match fed {
        Ok(()) => Ok(()),
        Err(Stop::SteppedDown | Stop::Paused) => Err(RollbackError::Contended(name)),
        Err(Stop::Halted(halt) | Stop::StillHalted(halt)) => {
            Err(RollbackError::Halted { name, generation: generation.cast_unsigned(), halt })
        }
        Err(Stop::Failed(error)) => Err(RollbackError::Failed(error)),
    };
    session.close().await?;
    fed
}
