//! One term of one runner: from holding its lock to losing it.

mod load;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::FutureExt;
use sqlx::{Connection as _, PgConnection, Row};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::{
    ApplyError, Effects, Projection, RunnerContext, RunnerError, SKIP_STREAM_TYPE, STANDBY, lock_name, version_changed,
};
use crate::backoff::Backoff;
use crate::checkpoint::{
    Checkpoint, Halt, HaltKind, Moved, Mover, RunnerRow, Stage, advance, clear_halt, halt, run_sql, unlock,
};
use crate::event::{Position, RecordedEvent};
use crate::feed::FeedMessage;
use crate::generation::schema_name;
use crate::trace;

/// A page from Postgres and a batch from NATS: large enough that a hot row is written once for many events, small enough that
/// one batch is applied in well under a second.
const BATCH_EVENTS: u32 = 2000;
const BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// From one commit to the next at least, under a steady stream: what comes meanwhile goes together. A lone event never waits.
const PACE: Duration = Duration::from_millis(4);

/// Silence after which the head is asked for; shorter while NATS is known to be away, since nothing will break the silence.
const QUIET: Duration = Duration::from_millis(250);
const QUIET_WITHOUT_FEED: Duration = Duration::from_millis(50);

/// Why a term does not go on.
pub(crate) enum Stop {
    /// Another runner or another generation took over.
    SteppedDown,
    /// An operator paused it.
    Paused,
    /// It cannot go on without an operator; this is to be written down.
    Halted(Halt),
    /// It was halted already. Not written again: an operator may have resumed it this very moment.
    StillHalted(Halt),
    /// Something that will pass.
    Failed(RunnerError),
}

impl From<RunnerError> for Stop {
    fn from(error: RunnerError) -> Self {
        Self::Failed(error)
    }
}

enum CommitError {
    Stop(Stop),
    Poison(ApplyError),
}

/// Which of a projection's generations a session feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feeding {
    /// The one that `read` shows.
    Live,
    /// The one that is kept to go back to: never past the live one, and with effects muted, since the live one has them.
    Kept,
    /// One that a rebuild makes.
    Building,
}

impl Feeding {
    /// Whether a row in this state is still this session's to feed.
    const fn is_of(self, live: bool, stage: Stage) -> bool {
        match (self, stage) {
            (Self::Live, Stage::Ready) => live,
            (Self::Kept, Stage::Ready) => !live,
            (Self::Building, Stage::Loading | Stage::Following) => !live,
            (Self::Live | Self::Kept, Stage::Loading | Stage::Following | Stage::Retiring)
            | (Self::Building, Stage::Ready | Stage::Retiring) => false,
        }
    }
}

/// A runner's connection, which holds its lock and all its transactions, and where it stands.
pub(crate) struct Session<'a> {
    context: &'a RunnerContext,
    pub(crate) projection: &'a mut dyn Projection,
    pub(crate) connection: PgConnection,
    name: &'static str,
    pub(crate) generation: i32,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) skips: HashSet<Position>,
    /// Whether `apply` may send commands; a rebuild mutes what was sent before.
    pub(crate) effects: Effects,
    pub(crate) feeding: Feeding,
    /// The last position that was committed, for those who watch.
    pub(crate) reached: Arc<AtomicU64>,
}

impl<'a> Session<'a> {
    /// `connection` holds the lock on this generation already.
    pub fn new(
        context: &'a RunnerContext,
        projection: &'a mut dyn Projection,
        connection: PgConnection,
        generation: i32,
        feeding: Feeding,
    ) -> Self {
        let name = projection.name();
        let effects = match feeding {
            Feeding::Live => Effects::Live,
            Feeding::Kept | Feeding::Building => Effects::Muted,
        };
        let checkpoint = Checkpoint::start(uuid::Uuid::nil());
        Self {
            context,
            projection,
            connection,
            name,
            generation,
            checkpoint,
            skips: HashSet::new(),
            effects,
            feeding,
            reached: Arc::default(),
        }
    }

    /// Reads where this generation stands and whether it may go on.
    pub async fn open(&mut self) -> Result<(), Stop> {
        let row = self.row().await?.ok_or(Stop::SteppedDown)?;
        if !self.feeding.is_of(row.live, row.stage) {
            return Err(Stop::SteppedDown);
        }
        match &row.error {
            // The program of that version is back.
            Some(halt) if halt.kind == HaltKind::VersionChanged && row.version == self.projection.version() => {
                clear_halt(&mut self.connection, self.name, self.generation).await.map_err(RunnerError::Checkpoint)?;
            }
            Some(halt) => return Err(Stop::StillHalted(halt.clone())),
            None => {}
        }
        if row.paused {
            return Err(Stop::Paused);
        }
        if row.version != self.projection.version() {
            return Err(Stop::Halted(version_changed(self.name, row.version, self.projection.version())));
        }
        let schema = schema_name(self.name, self.generation);
        let exists: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
            .bind(&schema)
            .fetch_one(&mut self.connection)
            .await
            .map_err(RunnerError::Checkpoint)?;
        if !exists {
            return Err(Stop::Halted(Halt::new(
                HaltKind::GenerationMissing,
                format!("the schema {schema} is gone; run `fanledger projections rebuild {}`", self.name),
            )));
        }
        // A schema's name is [a-z_0-9]: nothing to quote.
        run_sql(&mut self.connection, &format!("SET search_path = {schema}")).await.map_err(RunnerError::Checkpoint)?;
        self.checkpoint = row.checkpoint;
        self.reached.store(row.checkpoint.position.get(), Ordering::Relaxed);
        self.skips = self.load_skips().await?;
        self.is_behind().await?;
        self.holds_what_was_sent(&row).await
    }

    async fn row(&mut self) -> Result<Option<RunnerRow>, RunnerError> {
        RunnerRow::of(&mut self.connection, self.name, self.generation).await.map_err(RunnerError::Checkpoint)
    }

    async fn load_skips(&mut self) -> Result<HashSet<Position>, RunnerError> {
        // Ids are `<name>.<version>.<position>` and sort bytewise: `:` comes right after `9`.
        let prefix = format!("{}.{}.", self.name, self.projection.version());
        let rows = sqlx::query(
            "SELECT aggregate_id FROM journal.events \
             WHERE aggregate_type = $1 AND aggregate_id >= $2 || '0' AND aggregate_id < $2 || ':' AND sequence = 1",
        )
        .bind(SKIP_STREAM_TYPE)
        .bind(&prefix)
        .fetch_all(&mut self.connection)
        .await
        .map_err(RunnerError::Checkpoint)?;
        let positions = rows.iter().filter_map(|row| {
            let id: &str = row.try_get(0).ok()?;
            id.strip_prefix(&prefix)?.parse().ok().map(Position::new)
        });
        Ok(positions.collect())
    }

    /// Whether the journal has more than was applied; halts where it does not contain what was applied.
    async fn is_behind(&mut self) -> Result<bool, Stop> {
        let head = self.context.reader().head().await.map_err(RunnerError::Journal)?;
        if self.checkpoint.position == Position::START {
            // The empty beginning is in every journal.
            self.checkpoint.journal_id = head.journal_id;
        }
        let at_head = head.position == self.checkpoint.position;
        if head.journal_id != self.checkpoint.journal_id
            || head.position < self.checkpoint.position
            || (at_head && head.chain != self.checkpoint.chain)
        {
            return Err(self.history_changed());
        }
        Ok(!at_head)
    }

    /// Halts where the journal lacks its end as it was when this checkpoint was committed: what was sent until then lay before
    /// that end, and some of it is gone. A checkpoint past that end proves it by its own chain.
    async fn holds_what_was_sent(&mut self, row: &RunnerRow) -> Result<(), Stop> {
        let is_proved = row.head.position <= row.checkpoint.position;
        if is_proved || self.context.reader().has_ended_at(&row.head).await.map_err(RunnerError::Journal)? {
            return Ok(());
        }
        Err(Stop::Halted(Halt::new(
            HaltKind::HistoryChanged,
            format!(
                "the journal ended at position {} when this runner last moved, and has lost that end: it was restored or failed over, and some of what this runner had sent is missing; run `fanledger journal verify`, and if this is the journal that is to be, `fanledger projections rebuild {}`, which sends it again",
                row.head.position, self.name
            ),
        )))
    }

    fn history_changed(&self) -> Stop {
        Stop::Halted(Halt::new(
            HaltKind::HistoryChanged,
            format!(
                "what was read up to position {} is not in the journal, which was restored or failed over; run `fanledger journal verify`, and if this is the journal that is to be, `fanledger projections rebuild {}`",
                self.checkpoint.position, self.name
            ),
        ))
    }

    /// Stays at the head: Postgres up to it, messages from then on, Postgres again wherever they do not fit.
    pub async fn follow(&mut self, backoff: &mut Backoff) -> Stop {
        let mut feed = self.context.feed().subscribe();
        if let Err(stop) = self.load_what_was_missed(None).await {
            return stop;
        }
        loop {
            if let Err(stop) = self.read_to_head(None, Some((&mut *backoff, &feed))).await {
                return stop;
            }
            if let Err(stop) = self.take_messages(&mut feed).await {
                return stop;
            }
        }
    }

    /// Reads Postgres until it has nothing more, or up to and including `limit`.
    pub async fn catch_up(&mut self, limit: Option<Position>) -> Result<(), Stop> {
        self.load_what_was_missed(limit).await?;
        self.read_to_head(limit, None).await
    }

    /// Stays close behind the live generation, for as long as this one is kept.
    pub async fn keep_up(&mut self) -> Stop {
        loop {
            match self.step_behind_live().await {
                Ok(()) => tokio::time::sleep(STANDBY).await,
                Err(stop) => return stop,
            }
        }
    }

    async fn step_behind_live(&mut self) -> Result<(), Stop> {
        let row = self.row().await?.ok_or(Stop::SteppedDown)?;
        if !self.feeding.is_of(row.live, row.stage) {
            return Err(Stop::SteppedDown);
        }
        let live = RunnerRow::live(&mut self.connection, self.name).await.map_err(RunnerError::Checkpoint)?;
        let limit = live.ok_or(Stop::SteppedDown)?.checkpoint.position;
        self.catch_up(Some(limit)).await
    }

    /// A runner's, which has a feed, stops at the first short page, since under load there would always be another; and where
    /// messages wait, since they may go on from there, and were read and decoded once for all runners of this process.
    async fn read_to_head(
        &mut self,
        limit: Option<Position>,
        mut runner: Option<(&mut Backoff, &Receiver<FeedMessage>)>,
    ) -> Result<(), Stop> {
        let mut page = fetch(self.context, self.checkpoint.position, limit).await?;
        loop {
            let Some(last) = page.last().map(|event| event.position) else {
                let reached = limit.is_some_and(|limit| self.checkpoint.position >= limit);
                if reached || !self.is_behind().await? {
                    return Ok(());
                }
                page = fetch(self.context, self.checkpoint.position, limit).await?;
                continue;
            };
            let is_short = page.len() < BATCH_EVENTS as usize && bytes(&page) < BATCH_BYTES / 2;
            let is_last = is_short || runner.as_ref().is_some_and(|(_, feed)| !feed.is_empty());
            if is_last {
                self.process(&page).await?;
                page = Vec::new();
            } else {
                // The next page is fetched while this one is applied.
                let context = self.context;
                let next = fetch(context, last, limit);
                let (processed, next) = tokio::join!(self.process(&page), next);
                processed?;
                page = next?;
            }
            if let Some((backoff, _)) = &mut runner {
                if let Some(outage) = backoff.reset() {
                    // As loud as its beginning, so that whoever saw that sees the end.
                    tracing::warn!(projection = self.name, seconds = outage.as_secs(), "is back, after an outage");
                }
                if is_last {
                    return Ok(());
                }
            }
        }
    }

    /// Takes messages for as long as each follows on the one before; `Ok` means "ask Postgres".
    async fn take_messages(&mut self, feed: &mut Receiver<FeedMessage>) -> Result<(), Stop> {
        let connected = self.context.feed().connected();
        let mut next_commit = tokio::time::Instant::now();
        loop {
            let quiet = if *connected.borrow() { QUIET } else { QUIET_WITHOUT_FEED };
            let first = match tokio::time::timeout(quiet, feed.recv()).await {
                Ok(Ok(message)) => message,
                // Not what was missed counts, but whether the oldest that is left follows.
                Ok(Err(RecvError::Lagged(_))) => continue,
                Ok(Err(RecvError::Closed)) => {
                    tokio::time::sleep(quiet).await;
                    return Ok(());
                }
                Err(_elapsed) => {
                    if self.may_go_on().await? {
                        return Ok(());
                    }
                    continue;
                }
            };
            tokio::time::sleep_until(next_commit).await;
            next_commit = tokio::time::Instant::now() + PACE;
            let (batch, ask_postgres) = self.gather(first, feed);
            if !batch.is_empty() {
                self.process(&batch).await?;
            }
            if ask_postgres {
                return Ok(());
            }
        }
    }

    /// The messages at hand that follow on the checkpoint and on each other, and whether something came that does not.
    fn gather(&self, first: FeedMessage, feed: &mut Receiver<FeedMessage>) -> (Vec<Arc<RecordedEvent>>, bool) {
        let mut batch = Vec::new();
        let mut end = self.checkpoint;
        let mut size = 0;
        let mut next = first;
        loop {
            match next {
                FeedMessage::Event(event) if end.is_followed_by(&event) => {
                    end = end.after(&event);
                    size += event.payload.len() as u64;
                    batch.push(event);
                }
                // Known from Postgres already.
                FeedMessage::Event(event) if event.position <= end.position => {}
                FeedMessage::Event(_) | FeedMessage::ReadPostgres => return (batch, true),
            }
            if batch.len() >= BATCH_EVENTS as usize || size >= BATCH_BYTES {
                return (batch, false);
            }
            next = match feed.try_recv() {
                Ok(message) => message,
                // What is left after a lag is asked for next time; it follows or it does not.
                Err(TryRecvError::Empty | TryRecvError::Closed | TryRecvError::Lagged(_)) => return (batch, false),
            };
        }
    }

    /// In the quiet: whether an operator wants something, and whether something was missed.
    async fn may_go_on(&mut self) -> Result<bool, Stop> {
        let row = self.row().await?.ok_or(Stop::SteppedDown)?;
        if !self.feeding.is_of(row.live, row.stage) || row.checkpoint.position != self.checkpoint.position {
            return Err(Stop::SteppedDown);
        }
        if row.paused {
            return Err(Stop::Paused);
        }
        self.holds_what_was_sent(&row).await?;
        self.is_behind().await
    }

    /// Applies events that must be the next ones: as one batch, or where that fails, one by one up to the offending one.
    async fn process(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), Stop> {
        let mut end = self.checkpoint;
        for event in events {
            if !end.is_followed_by(event) {
                return Err(self.history_changed());
            }
            end = end.after(event);
        }
        match self.commit(events).await {
            Ok(()) => return Ok(()),
            Err(CommitError::Stop(stop)) => return Err(stop),
            Err(CommitError::Poison(error)) => {
                tracing::warn!(projection = self.name, %error, events = events.len(), "a batch failed; its events are tried one by one");
            }
        }
        for event in events {
            match self.commit(std::slice::from_ref(event)).await {
                Ok(()) => {}
                Err(CommitError::Stop(stop)) => return Err(stop),
                Err(CommitError::Poison(error)) => return Err(Stop::Halted(Halt::poison(event, &error))),
            }
        }
        Ok(())
    }

    /// Rows and checkpoint, in one transaction.
    async fn commit(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), CommitError> {
        let Some(last) = events.last() else { return Ok(()) };
        let started = Instant::now();
        let to = self.checkpoint.after(last);
        let mover =
            Mover { name: self.name, generation: self.generation, sends_commands: self.projection.sends_commands() };
        let wanted = wanted(self.projection, &self.skips, events);
        // What a rebuild applies was traced when it was new.
        let spans = if self.feeding == Feeding::Live {
            trace::apply_spans(self.name, wanted.iter().map(Arc::as_ref))
        } else {
            Vec::new()
        };
        let moved = if wanted.is_empty() {
            advance(&mut self.connection, mover, self.checkpoint.position, &to)
                .await
                .map_err(|error| failed(RunnerError::Checkpoint(error)))?
        } else {
            let mut transaction =
                self.connection.begin().await.map_err(|error| failed(RunnerError::Transaction(error)))?;
            let applied = apply(self.projection, &wanted, self.effects, &mut transaction).await;
            if let Err(error) = applied {
                transaction.rollback().await.map_err(|error| failed(RunnerError::Transaction(error)))?;
                return Err(if error.transient {
                    failed(RunnerError::Apply(error))
                } else {
                    CommitError::Poison(error)
                });
            }
            let moved = advance(&mut transaction, mover, self.checkpoint.position, &to)
                .await
                .map_err(|error| failed(RunnerError::Checkpoint(error)))?;
            match moved {
                // The transaction is dropped, and with it these rows.
                None => None,
                Some(moved) => {
                    transaction.commit().await.map_err(|error| failed(RunnerError::Transaction(error)))?;
                    Some(moved)
                }
            }
        };
        let Some(Moved { live, stage }) = moved else { return Err(CommitError::Stop(self.why_it_stays().await)) };
        self.checkpoint = to;
        self.reached.store(to.position.get(), Ordering::Relaxed);
        self.measure(last, wanted.len(), started);
        for span in spans {
            span.record("fanledger.committed", true);
        }
        if !self.feeding.is_of(live, stage) {
            return Err(CommitError::Stop(Stop::SteppedDown));
        }
        Ok(())
    }

    /// What kept the checkpoint from moving: a pause, or somebody else.
    pub(super) async fn why_it_stays(&mut self) -> Stop {
        match self.row().await {
            Ok(Some(row)) if row.paused && self.feeding.is_of(row.live, row.stage) => Stop::Paused,
            Ok(_) => Stop::SteppedDown,
            Err(error) => Stop::Failed(error),
        }
    }

    fn measure(&self, last: &RecordedEvent, applied: usize, started: Instant) {
        if self.feeding != Feeding::Live {
            // What people see lags or not by the live generation alone.
            return;
        }
        let delay = (Utc::now() - last.recorded_at).to_std().unwrap_or_default();
        metrics::histogram!("fanledger_projection_delay_seconds", "projection" => self.name).record(delay);
        metrics::histogram!("fanledger_projection_batch_events", "projection" => self.name).record(applied as f64);
        metrics::histogram!("fanledger_projection_apply_seconds", "projection" => self.name).record(started.elapsed());
    }

    /// Writes down why it stands still.
    pub async fn record(&mut self, why: &Halt) -> Result<(), RunnerError> {
        if self.feeding == Feeding::Live {
            metrics::counter!("fanledger_projection_halts_total", "projection" => self.name).increment(1);
        }
        tracing::error!(projection = self.name, generation = self.generation, halt = %why, "halts; the other projections go on");
        halt(&mut self.connection, self.name, self.generation, why).await.map_err(RunnerError::Checkpoint)
    }

    /// Stands still until resumed; `false` if this generation is no longer to be fed by this session.
    pub async fn wait_for_operator(&mut self) -> Result<bool, RunnerError> {
        loop {
            match self.row().await? {
                None => return Ok(false),
                Some(row) if !self.feeding.is_of(row.live, row.stage) => return Ok(false),
                Some(row) if row.error.is_none() && !row.paused => return Ok(true),
                Some(_) => tokio::time::sleep(STANDBY).await,
            }
        }
    }

    /// Lets the lock go, so that it is free when this returns (a server process ends some time after its connection), and ends the
    /// connection in good order.
    pub async fn close(mut self) -> Result<(), RunnerError> {
        let lock = lock_name(self.name, self.generation);
        let unlocked = unlock(&mut self.connection, &lock).await.map_err(RunnerError::Checkpoint);
        self.connection.close().await.map_err(RunnerError::Connect)?;
        unlocked
    }
}

const fn failed(error: RunnerError) -> CommitError {
    CommitError::Stop(Stop::Failed(error))
}

async fn fetch(
    context: &RunnerContext,
    position: Position,
    limit: Option<Position>,
) -> Result<Vec<Arc<RecordedEvent>>, RunnerError> {
    if limit.is_some_and(|limit| position >= limit) {
        return Ok(Vec::new());
    }
    let page = context.reader().after(position, BATCH_EVENTS, BATCH_BYTES).await.map_err(RunnerError::Journal)?;
    Ok(page.into_iter().filter(|event| limit.is_none_or(|limit| event.position <= limit)).map(Arc::new).collect())
}

/// Those of the events that the projection is to see.
fn wanted(
    projection: &dyn Projection,
    skips: &HashSet<Position>,
    events: &[Arc<RecordedEvent>],
) -> Vec<Arc<RecordedEvent>> {
    let wanted = events.iter().filter(|event| projection.wants(&event.event_type) && !skips.contains(&event.position));
    wanted.cloned().collect()
}

fn bytes(events: &[Arc<RecordedEvent>]) -> u64 {
    events.iter().map(|event| (event.payload.len() + event.metadata.len()) as u64).sum()
}

/// Calls the projection; a panic in it is a poison event like any other error, and leaves the other projections running.
pub(crate) async fn apply(
    projection: &mut dyn Projection,
    wanted: &[Arc<RecordedEvent>],
    effects: Effects,
    connection: &mut PgConnection,
) -> Result<(), ApplyError> {
    let outcome = AssertUnwindSafe(projection.apply(wanted, effects, connection)).catch_unwind().await;
    outcome.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&'static str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(ApplyError {
            position: None,
            transient: false,
            source: format!("the projection panicked: {message}").into(),
        })
    })
}
