//! What drives projections and process managers alike: reading in order, batching, checkpoints, halts, standby.
//!
//! A projection is one file: a name, a version, its tables, which events it reads, and `apply`. Everything else is here. Each
//! runner is a loop with two sources: it reads Postgres by position until it is at the head, then takes messages from the
//! [`Feed`]; whatever does not fit (a hole, another chain, silence below the head) sends it back to Postgres. So a lost
//! message is found, and NATS's absence costs latency, not function.
//!
//! Rows and checkpoint commit in one transaction, on the connection that holds the runner's advisory lock: what commits was
//! computed by the one active runner, exactly once.

mod session;
mod status;
mod supervise;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::checkpoint::{self, Halt, HaltKind, RunnerRow, try_lock, with_causes};
use crate::event::{NewEvent, Position, RecordedEvent, StreamId};
use crate::feed::Feed;
use crate::generation::{self, Plan};
use crate::load::Loader;
use crate::reader::{ReadError, Reader};

pub(crate) use session::{Feeding, Session, Stop, apply};
pub use status::{GenerationState, GenerationStatus, RunnerState, RunnerStatus, pause, resume, status};
pub use supervise::{Projections, supervise};

/// How often a standby asks for the lock, and a halted or paused runner whether it may go on.
const STANDBY: Duration = Duration::from_millis(250);

/// A read model, or a process manager: state derived from the journal, in tables of its own.
///
/// An implementation keeps nothing in `self` that it could not do without: a batch whose transaction failed is given again,
/// whole or event by event, and another process may have applied what came before.
#[async_trait]
pub trait Projection: Send + 'static {
    /// `[a-z][a-z_]*`, at most 40 characters; permanent.
    fn name(&self) -> &'static str;

    /// Raised whenever the same events would give other rows or tables; the runner then halts until a rebuild.
    fn version(&self) -> u32;

    /// Its tables.
    fn schema(&self) -> Schema;

    /// SQL that is run once after a load, such as indexes that readers want and `apply` does not need; run as `schema`'s is.
    fn indexes(&self) -> &'static str {
        ""
    }

    /// What fills its tables from a long stretch of the journal faster than `apply` would; `None`: `apply` does it, page by page.
    fn loader(&self) -> Option<Box<dyn Loader>> {
        None
    }

    /// Whether `apply` sends commands, as a process manager's does. Its row then also holds where the journal ended, and a journal
    /// that has lost that end halts it: some of what it sent is gone, and only a rebuild sends it again.
    fn sends_commands(&self) -> bool {
        self.schema().views.is_empty()
    }

    /// Whether `apply` is to see events of this type. The checkpoint moves past the others all the same.
    fn wants(&self, event_type: &str) -> bool;

    /// Applies events (only wanted ones, in position order) in the transaction that also moves the checkpoint. Unqualified
    /// table names mean this generation's. The connection may be in use for 30 s at most between two statements.
    ///
    /// # Errors
    /// A transient error is retried for as long as it takes; any other halts this projection at the offending event.
    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError>;
}

/// What a projection writes to.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// SQL that creates its tables, run with `search_path` set to the generation's own, empty schema.
    pub create: &'static str,
    /// The tables that appear as `read.<table>`; none for a process manager, unless it says that it [sends
    /// commands](Projection::sends_commands).
    pub views: &'static [&'static str],
}

/// Whether `apply` may act on the world outside its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effects {
    /// Send commands.
    Live,
    /// Only rebuild state: an earlier generation has sent these commands already.
    Muted,
}

/// A batch could not be applied.
#[derive(Debug, thiserror::Error)]
#[error("apply events{}", position.map(|at| format!(", at position {at}")).unwrap_or_default())]
pub struct ApplyError {
    /// The offending event, where known; the runner finds it otherwise.
    pub position: Option<Position>,
    /// The same may succeed later, with nothing changed: the database is away, two transactions collided.
    pub transient: bool,
    /// What went wrong.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

impl ApplyError {
    /// This event can never be applied by this program.
    pub fn poison(position: Position, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { position: Some(position), transient: false, source: source.into() }
    }

    /// Trying again may help.
    pub fn transient(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { position: None, transient: true, source: source.into() }
    }
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self { position: None, transient: is_transient(&error), source: Box::new(error) }
    }
}

/// Whether Postgres or the way to it was at fault, rather than the statement.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Connection trouble, rollbacks (serialization, deadlock), out of resources, lock not available, operator
        // intervention (shutdown, cancelled), the system itself; and the time-out of an idle transaction.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "25P03"
        }),
        // `sqlx::Error` is not ours and grows; what it adds is about statements, rows and migrations.
        _ => false,
    }
}

/// Whether what failed, failed for want of room.
pub(crate) fn is_disk_full(error: &RunnerError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(sqlx::Error::Database(error)) = error.downcast_ref() {
            return error.code().is_some_and(|code| code == "53100");
        }
        cause = error.source();
    }
    false
}

/// What runners need: where to write, where to read, and who tells of news.
#[derive(Clone, Debug)]
pub struct RunnerContext {
    pool: PgPool,
    reader: Reader,
    feed: Feed,
    /// How old a reader's snapshot may be when a switch that nobody watches is made; see [`generation::RebuildOptions`].
    read_age: Duration,
}

impl RunnerContext {
    /// `pool` logs in as `fanledger_projector`; each runner opens one connection of its own with the same options.
    pub fn new(pool: PgPool, feed: Feed) -> Self {
        let read_age = generation::RebuildOptions::default().read_age;
        Self { reader: Reader::new(pool.clone()), pool, feed, read_age }
    }

    /// Without NATS, as tests, rebuilds and tools want it.
    pub fn without_feed(pool: PgPool) -> Self {
        Self::new(pool, Feed::silent())
    }

    /// With readers whose snapshots are never older than this.
    #[must_use]
    pub const fn with_read_age(mut self, read_age: Duration) -> Self {
        self.read_age = read_age;
        self
    }

    pub(crate) const fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(crate) const fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, RunnerError> {
        // A commit that a power cut takes back takes the checkpoint back with it; so waiting for the disk buys nothing. And
        // the tables grow faster than their statistics: a plan made while one looked empty would scan it for ever, so each
        // is reached by its index, and planned once.
        let options = (*self.pool.connect_options()).clone().options([
            ("synchronous_commit", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]);
        PgConnection::connect_with(&options).await.map_err(RunnerError::Connect)
    }
}

/// What ends one attempt of a runner; it tries again by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Postgres cannot be reached.
    #[error("connect to Postgres for a runner")]
    Connect(#[source] sqlx::Error),
    /// The runner's row cannot be read or written.
    #[error("read or move the checkpoint in control.runners")]
    Checkpoint(#[source] sqlx::Error),
    /// The generation's tables or views cannot be made.
    #[error("create the tables of generation {generation} of {name}")]
    Generation {
        /// The projection.
        name: &'static str,
        /// Its generation.
        generation: i32,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// The journal cannot be read.
    #[error("read the journal")]
    Journal(#[source] ReadError),
    /// The transaction of rows and checkpoint could not be opened, committed or rolled back.
    #[error("commit rows and checkpoint")]
    Transaction(#[source] sqlx::Error),
    /// The projection reports trouble that will pass.
    #[error(transparent)]
    Apply(ApplyError),
}

/// The end of a [`catch_up`] that did not reach the head.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// Another runner is active on this generation.
    #[error("{0} is being fed by another runner; wait for its position instead")]
    Busy(&'static str),
    /// It halted; its status says the same.
    #[error("{name} halted: {halt}")]
    Halted {
        /// The projection.
        name: &'static str,
        /// Why.
        halt: Halt,
    },
    /// It is paused; resume it first.
    #[error("{0} is paused; resume it first")]
    Paused(&'static str),
    /// Something failed that a running runner would try again.
    #[error(transparent)]
    Failed(#[from] RunnerError),
}

/// Runs one projection until told to stop, through every outage. A stop drops the batch under way, whose transaction rolls back.
pub async fn run(context: RunnerContext, mut projection: Box<dyn Projection>, stop: CancellationToken) {
    let name = projection.name();
    let mut backoff = Backoff::new();
    let mut said_to_run = None;
    crate::metrics::begin_runner(name);
    let endless = async {
        loop {
            match hold_and_follow(&context, projection.as_mut(), &mut backoff, &mut said_to_run).await {
                Ok(()) => {
                    said_to_run = None;
                    tracing::info!(projection = name, "steps down; whoever took over goes on");
                }
                Err(error) => {
                    metrics::counter!("fanledger_projection_retries_total", "projection" => name).increment(1);
                    if backoff.is_to_be_told() {
                        tracing::warn!(projection = name, error = with_causes(&error), "tries again, until it is back");
                    }
                }
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    };
    let _: Option<std::convert::Infallible> = stop.run_until_cancelled(endless).await;
}

/// One term as the active runner; `Ok` when another took over or another generation went live. `said_to_run` is the generation
/// that the log has: each attempt of an outage is a term too, and is no news.
async fn hold_and_follow(
    context: &RunnerContext,
    projection: &mut dyn Projection,
    backoff: &mut Backoff,
    said_to_run: &mut Option<i32>,
) -> Result<(), RunnerError> {
    let name = projection.name();
    let mut connection = context.connect().await?;
    let row = generation::ensure(context, Plan::of(projection), &mut connection).await?;
    if row.version != projection.version() {
        return stand_aside(connection, name, row.generation, projection.version()).await;
    }
    let mut stands_by = false;
    while !try_lock(&mut connection, &lock_name(name, row.generation)).await.map_err(RunnerError::Checkpoint)? {
        if !std::mem::replace(&mut stands_by, true) {
            *said_to_run = None;
            tracing::info!(projection = name, "stands by: another process runs it");
        }
        tokio::time::sleep(STANDBY).await;
        let live = RunnerRow::live(&mut connection, name).await.map_err(RunnerError::Checkpoint)?;
        if live.is_none_or(|live| live.generation != row.generation) {
            return Ok(());
        }
    }
    if said_to_run.replace(row.generation) != Some(row.generation) {
        tracing::info!(projection = name, generation = row.generation, "runs it: no other process does");
    }
    let mut session = Session::new(context, projection, connection, row.generation, Feeding::Live);
    loop {
        let stop = match session.open().await {
            Ok(()) => session.follow(backoff).await,
            Err(stop) => stop,
        };
        match stop {
            // In good order, so that whoever feeds it from now on has the lock at once.
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

/// While the live generation is another version's: it is left to a process of that version. Where there is none for a while, its
/// status says so, and what to do.
async fn stand_aside(
    mut connection: PgConnection,
    name: &'static str,
    generation: i32,
    ours: u32,
) -> Result<(), RunnerError> {
    // A process that is being started again is back sooner.
    const UNFED_LOOKS: u32 = 8;
    let mut unfed = 0;
    tracing::info!(projection = name, version = ours, "stands by: another version of it is live");
    loop {
        let row = RunnerRow::live(&mut connection, name).await.map_err(RunnerError::Checkpoint)?;
        let Some(row) = row.filter(|row| row.generation == generation) else {
            return connection.close().await.map_err(RunnerError::Connect);
        };
        let lock = lock_name(name, generation);
        if row.error.is_none() && try_lock(&mut connection, &lock).await.map_err(RunnerError::Checkpoint)? {
            unfed += 1;
            if unfed > UNFED_LOOKS {
                let why = version_changed(name, row.version, ours);
                tracing::error!(projection = name, generation, halt = %why, "halts; the other projections go on");
                checkpoint::halt(&mut connection, name, generation, &why).await.map_err(RunnerError::Checkpoint)?;
            }
            checkpoint::unlock(&mut connection, &lock).await.map_err(RunnerError::Checkpoint)?;
        } else {
            unfed = 0;
        }
        tokio::time::sleep(STANDBY).await;
    }
}

/// The halt of tables that another version made.
fn version_changed(name: &str, theirs: u32, ours: u32) -> Halt {
    Halt::new(
        HaltKind::VersionChanged,
        format!(
            "the tables are of version {theirs}, the program knows version {ours}; run `fanledger projections rebuild {name}`"
        ),
    )
}

/// Feeds the live generation (made, if there is none yet) up to the journal's head from Postgres, and returns where that was.
///
/// # Errors
/// See [`CatchUpError`]; nothing is retried.
pub async fn catch_up(context: &RunnerContext, projection: &mut dyn Projection) -> Result<Position, CatchUpError> {
    let name = projection.name();
    let mut connection = context.connect().await?;
    let row = generation::ensure(context, Plan::of(projection), &mut connection).await?;
    if !try_lock(&mut connection, &lock_name(name, row.generation)).await.map_err(RunnerError::Checkpoint)? {
        return Err(CatchUpError::Busy(name));
    }
    let mut session = Session::new(context, projection, connection, row.generation, Feeding::Live);
    let outcome = match session.open().await {
        Ok(()) => session.catch_up(None).await,
        Err(stop) => Err(stop),
    };
    let caught_up = match outcome {
        Ok(()) => Ok(session.checkpoint.position),
        Err(Stop::SteppedDown) => Err(CatchUpError::Busy(name)),
        Err(Stop::Paused) => Err(CatchUpError::Paused(name)),
        Err(Stop::Halted(halt)) => {
            session.record(&halt).await?;
            Err(CatchUpError::Halted { name, halt })
        }
        Err(Stop::StillHalted(halt)) => Err(CatchUpError::Halted { name, halt }),
        // Its connection may be what failed, and is not waited for.
        Err(Stop::Failed(error)) => return Err(CatchUpError::Failed(error)),
    };
    // However else it ended: whoever comes next is not to find the lock taken. Why it ended goes before how the goodbye did.
    let closed = session.close().await;
    let position = caught_up?;
    closed?;
    Ok(position)
}

pub(crate) fn lock_name(name: &str, generation: i32) -> String {
    format!("runner:{name}:{generation}")
}

/// The type of the streams that hold skips.
pub const SKIP_STREAM_TYPE: &str = "projection_skip";

/// The event by which an operator lets one version of a projection pass over one position. Appended as the first of its
/// stream, it is honoured after the next `resume`, at every start and by every rebuild.
pub fn skip_event(name: &str, version: u32, position: Position, reason: &str) -> (StreamId, NewEvent) {
    let stream = StreamId::new(SKIP_STREAM_TYPE, format!("{name}.{version}.{position}"));
    let payload = serde_json::json!({
        "projection": name, "version": version, "position": position, "reason": reason,
    });
    let event = NewEvent {
        event_type: "ProjectionEventSkipped".to_owned(),
        event_version: "1".to_owned(),
        payload: payload.to_string(),
    };
    (stream, event)
}
