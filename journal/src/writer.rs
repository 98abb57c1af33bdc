//! The group-commit writer: commands that wait while one call of `journal.append` is under way go together in the next.
//!
//! There is no timer: a lone command goes at once. A second connection joins where many wait, so that one batch is parsed and
//! hashed while the one before it holds the journal's lock and waits for the disk; where few wait, they go together in the next,
//! since a batch costs Postgres as much as some eight commands before its first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::append::{AppendError, BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Command, Outcome};
use crate::batch::{Batch, Pending, WAITING_MAX, take_batch};
use crate::database::{self, DatabaseError};
use crate::event::Position;
use crate::notices::WarningTrap;
use crate::trace;

/// So many commands are worth a batch beside the one that is under way. With fewer, the second would only halve the first: both
/// wait for the same lock until the disk has the one before.
const JOIN_AT: usize = 128;
/// How many commands may wait for a worker before `append` itself waits.
const QUEUE: usize = 4096;
/// A connection that takes longer is given up, and those who wait are told.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// How a writer connects.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// The command role's URL.
    pub url: String,
    /// Connections that take turns. With 2, one batch is hashed while the one before it waits for the disk; with 1,
    /// batches are larger. `cargo run --release --example append_rate` tells which is better on a machine.
    pub connections: usize,
}

impl WriterOptions {
    /// Two connections to this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections: 2 }
    }
}

/// A handle to the writer; cheap to clone. The writer ends when it is shut down, or when its last handle is gone and
/// what it had taken is answered.
#[derive(Clone, Debug)]
pub struct Writer {
    sender: mpsc::Sender<Pending>,
    appended: watch::Receiver<Position>,
    closing: CancellationToken,
    workers: TaskTracker,
}

impl Writer {
    /// Connects, so that a wrong URL is found at start, and begins to take commands.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn start(options: WriterOptions) -> Result<Self, DatabaseError> {
        // A statement that is cancelled while it waits for a standby commits with only a warning: so none is.
        let connect = database::connect_options(&options.url)?.options([("statement_timeout", "0")]);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (tell, appended) = watch::channel(Position::START);
        let queue = Arc::new(Mutex::new(Queue { receiver, waiting: VecDeque::new() }));
        let under_way = Arc::new(UnderWay::default());
        let (tell, closing, workers) = (Arc::new(tell), CancellationToken::new(), TaskTracker::new());
        for _ in 0..options.connections.max(1) {
            let connection = PgConnection::connect_with(&connect).await.map_err(DatabaseError::Connect)?;
            let worker = Worker {
                queue: Arc::clone(&queue),
                under_way: Arc::clone(&under_way),
                connect: connect.clone(),
                connection: Some(connection),
                backoff: BACKOFF_FIRST,
                trap: WarningTrap::new(),
                tell: Arc::clone(&tell),
                closing: closing.clone(),
            };
            workers.spawn(worker.run());
        }
        workers.close();
        Ok(Self { sender, appended, closing, workers })
    }

    /// Appends one command and tells what became of it; when it answers `Appended`, the command is durable.
    ///
    /// A caller that drops this future goes away without an answer; what it asked for may still be appended.
    ///
    /// # Errors
    /// See [`AppendError`]; `is_transient` says whether trying again may help.
    pub async fn append(&self, mut command: Command) -> Result<Outcome, AppendError> {
        let started = Instant::now();
        let span = trace::append_span(&mut command);
        let metadata =
            serde_json::to_string(&command.metadata).map_err(|source| AppendError::Metadata(Arc::new(source)))?;
        let events = command.events.len();
        let bytes = command.events.iter().map(|event| event.payload.len() + metadata.len()).sum();
        if bytes > BATCH_BYTES_MAX || events > BATCH_EVENTS_MAX {
            return Err(AppendError::TooLarge { events, bytes });
        }
        if events == 0 || command.guards.iter().any(|guard| guard.stream == command.stream) {
            return Err(AppendError::Malformed);
        }
        let (reply, answer) = oneshot::channel();
        let pending = Pending { command, metadata, bytes, reply };
        self.sender.send(pending).await.map_err(|_| AppendError::Closed)?;
        let result = answer.await.unwrap_or(Err(AppendError::Closed));
        metrics::histogram!("fanledger_journal_append_seconds").record(started.elapsed());
        trace::record_outcome(&span, &result);
        if let Err(error) = &result {
            metrics::counter!("fanledger_journal_append_failures_total", "reason" => error.reason()).increment(1);
        }
        result
    }

    /// The last position that this writer appended: wakes a relay in the same process.
    pub fn appended(&self) -> watch::Receiver<Position> {
        self.appended.clone()
    }

    /// Takes no more commands, answers those that it took, and closes its connections. Other handles get `Closed`.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        self.workers.wait().await;
    }
}

/// What waits, shared by the workers; whoever holds it puts the next batch together.
struct Queue {
    receiver: mpsc::Receiver<Pending>,
    waiting: VecDeque<Pending>,
}

impl Queue {
    /// Waits for commands that are worth a batch: one, or many while another batch is under way. `None` when there will be no
    /// more.
    async fn next_batch(&mut self, under_way: &UnderWay, closing: &CancellationToken) -> Option<Batch> {
        loop {
            while self.waiting.len() < WAITING_MAX {
                match self.receiver.try_recv() {
                    Ok(pending) => self.waiting.push_back(pending),
                    // Empty, or closed and drained: either way this is all there is.
                    Err(_) => break,
                }
            }
            let alone = under_way.batches.load(Ordering::Acquire) == 0;
            if self.waiting.len() >= JOIN_AT || (alone && !self.waiting.is_empty()) {
                under_way.batches.fetch_add(1, Ordering::AcqRel);
                return Some(take_batch(&mut self.waiting));
            }
            let next = tokio::select! {
                biased;
                next = self.receiver.recv() => next,
                () = under_way.ended.notified(), if !alone => continue,
                () = closing.cancelled() => {
                    // Closed, not dropped: what was sent before is still received.
                    self.receiver.close();
                    self.receiver.recv().await
                }
            };
            match next {
                Some(pending) => self.waiting.push_back(pending),
                None if self.waiting.is_empty() => return None,
                None => {
                    under_way.batches.fetch_add(1, Ordering::AcqRel);
                    return Some(take_batch(&mut self.waiting));
                }
            }
        }
    }

    /// Everything that waits now, for those who cannot be served.
    fn drain(&mut self) -> Vec<Pending> {
        let mut all: Vec<Pending> = self.waiting.drain(..).collect();
        while let Ok(pending) = self.receiver.try_recv() {
            all.push(pending);
        }
        all
    }
}

/// The batches that are under way, counted by the workers.
#[derive(Default)]
struct UnderWay {
    batches: AtomicUsize,
    ended: Notify,
}

impl UnderWay {
    fn end(&self) {
        self.batches.fetch_sub(1, Ordering::AcqRel);
        self.ended.notify_one();
    }
}

struct Worker {
    queue: Arc<Mutex<Queue>>,
    under_way: Arc<UnderWay>,
    connect: PgConnectOptions,
    connection: Option<PgConnection>,
    backoff: Duration,
    trap: WarningTrap,
    tell: Arc<watch::Sender<Position>>,
    closing: CancellationToken,
}

impl Worker {
    async fn run(mut self) {
        loop {
            // Those who were just answered are about to send their next command: let them run first.
            tokio::task::yield_now().await;
            let batch = self.queue.lock().await.next_batch(&self.under_way, &self.closing).await;
            let Some(batch) = batch else { break };
            match self.ensure_connected().await {
                Ok(()) => self.send(batch).await,
                Err(source) => self.refuse(batch, source).await,
            }
            self.under_way.end();
        }
        if let Some(connection) = self.connection.take() {
            connection.close().await.ok();
        }
    }

    async fn ensure_connected(&mut self) -> Result<(), sqlx::Error> {
        if self.connection.is_some() {
            return Ok(());
        }
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.connect)).await;
        let timed_out = || sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut));
        self.connection = Some(attempt.unwrap_or_else(|_| Err(timed_out()))?);
        self.backoff = BACKOFF_FIRST;
        Ok(())
    }

    /// Postgres is away: whoever waits learns at once that nothing was committed, then the next attempt waits a little.
    async fn refuse(&mut self, batch: Batch, source: sqlx::Error) {
        tracing::warn!(error = %source, "the journal's writer cannot connect");
        metrics::counter!("fanledger_journal_connect_failures_total").increment(1);
        let error = AppendError::Unavailable { may_have_committed: false, source: Arc::new(source) };
        batch.fail(&error);
        // The other worker holds the queue only while it is empty or while it takes a batch of its own.
        if let Ok(mut queue) = self.queue.try_lock() {
            for pending in queue.drain() {
                pending.answer(Err(error.clone()));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(self.backoff) => {}
            () = self.closing.cancelled() => {}
        }
        self.backoff = (self.backoff * 2).min(BACKOFF_LAST);
    }

    /// Sends a batch and answers everyone in it. What the journal refuses for its content is sent again in halves, so
    /// that only the command at fault is told so.
    async fn send(&mut self, batch: Batch) {
        let mut rest = vec![batch];
        while let Some(batch) = rest.pop() {
            let Some(mut connection) = self.connection.take() else {
                batch.fail(&AppendError::Unavailable {
                    may_have_committed: false,
                    source: Arc::new(sqlx::Error::WorkerCrashed),
                });
                continue;
            };
            metrics::histogram!("fanledger_journal_batch_commands").record(batch.len_f64());
            match self.trap.watch(batch.call(&mut connection, now())).await {
                (Ok(outcomes), warning) => {
                    self.connection = Some(connection);
                    self.answer(batch, outcomes, warning);
                }
                (Err(source), _) => match Failure::of(&source) {
                    Failure::Content if batch.pending.len() > 1 => {
                        self.connection = Some(connection);
                        let (left, right) = batch.halves();
                        rest.extend([right, left]);
                    }
                    failure => {
                        if failure.leaves_connection_usable() {
                            self.connection = Some(connection);
                        } else {
                            tracing::warn!(error = %source, "the journal's writer lost its connection");
                        }
                        let aggregate_type = batch.first_type();
                        batch.fail(&failure.into_error(source, aggregate_type));
                    }
                },
            }
        }
    }

    fn answer(&self, batch: Batch, outcomes: Vec<Outcome>, warning: Option<String>) {
        let head = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Appended { last, .. } => Some(*last),
                Outcome::Duplicate { .. } | Outcome::Conflict { .. } | Outcome::Misuse => None,
            })
            .max();
        if let Some(head) = head {
            self.tell.send_if_modified(|told| std::mem::replace(told, head.max(*told)) < head);
        }
        metrics::counter!("fanledger_journal_events_total")
            .increment(outcomes.iter().map(Outcome::appended_events).sum());
        let warning: Option<Arc<str>> = warning.map(Into::into);
        if let Some(warning) = &warning {
            tracing::error!(%warning, "Postgres warned while it committed: the batch may not be durable");
        }
        for (pending, outcome) in batch.pending.into_iter().zip(outcomes) {
            metrics::counter!("fanledger_journal_commands_total", "outcome" => outcome.as_str()).increment(1);
            pending.answer(match (&warning, outcome) {
                (Some(warning), Outcome::Appended { .. } | Outcome::Duplicate { .. }) => {
                    Err(AppendError::NotDurable { warning: Arc::clone(warning) })
                }
                (_, outcome) => Ok(outcome),
            });
        }
    }
}

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// What a failed call means for those who wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// One of the commands is not acceptable; the call was rolled back.
    Content,
    /// The clocks differ; the call was rolled back.
    Clock,
    /// The call can never succeed as it is made; it was rolled back.
    Setup,
    /// The server answered with an error of its own (lock timeout, disk full, read-only): rolled back.
    RolledBack,
    /// The connection or the server went away, before or after the commit.
    Lost,
}

impl Failure {
    fn of(error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = error else { return Self::Lost };
        let code = database.code().unwrap_or_default();
        match code.as_ref() {
            "FL002" => Self::Clock,
            "FL003" | "FL004" | "FL005" | "FL006" => Self::Content,
            "FL001" | "FL007" => Self::Setup,
            code => match code.get(..2) {
                Some("22" | "23") => Self::Content,
                Some("42" | "3F" | "0A") => Self::Setup,
                // The session was ended from outside: perhaps while it waited for a standby, after the commit.
                Some("57") if code != "57014" => Self::Lost,
                Some("08" | "58" | "XX") | None => Self::Lost,
                Some(_) => Self::RolledBack,
            },
        }
    }

    const fn leaves_connection_usable(self) -> bool {
        match self {
            Self::Content | Self::Clock | Self::RolledBack => true,
            // A failed-over or migrated database is met with a fresh connection and fresh plans.
            Self::Setup | Self::Lost => false,
        }
    }

    fn into_error(self, source: sqlx::Error, aggregate_type: String) -> AppendError {
        let (code, constraint) = match &source {
            sqlx::Error::Database(database) => {
                (database.code().unwrap_or_default().into_owned(), database.constraint().unwrap_or_default().to_owned())
            }
            _ => (String::new(), String::new()),
        };
        let source = Arc::new(source);
        match self {
            Self::Clock => AppendError::ClockSkew(source),
            Self::Setup => AppendError::Setup(source),
            Self::RolledBack => AppendError::Unavailable { may_have_committed: false, source },
            Self::Lost => AppendError::Unavailable { may_have_committed: true, source },
            Self::Content => match code.as_str() {
                "FL005" => AppendError::StreamType { aggregate_type, source },
                "FL006" => AppendError::Entry(source),
                "23505" if constraint == "entry_ids_pkey" => AppendError::EntryIdExists(source),
                _ => AppendError::Form(source),
            },
        }
    }
}
