//! The group-commit writer: commands that wait while one call of `journal.append` is under way go together in the next.
//!
//! There is no timer: a lone command goes at once, by the connection that served last. A second connection joins where many wait, so
//! that one batch is parsed and hashed while the one before it holds the journal's lock and waits for the disk; where few wait,
//! they go together in the next, since a batch costs Postgres as much as some eight commands before its first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::append::{AppendError, BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, BATCH_EVENTS_MAX, Command, Outcome};
use crate::batch::{Batch, Pending, WAITING_MAX, take_batch};
use crate::database::{self, DatabaseError};
use crate::event::Position;
use crate::notices::WarningTrap;
use crate::trace;

/// So many commands, and as many as are under way, are worth a batch beside that one. With fewer, the second would only halve the
/// first: both wait for the same lock until the disk has the one before.
const JOIN_AT: usize = 64;
/// How many commands may wait for a worker before `append` itself waits.
const QUEUE: usize = 4096;
/// A connection that takes longer is given up, and those who wait are told.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word would be waited for without end.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
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
    /// How long one call may take before its connection is given up: it may have committed, and whoever waits is told so. Well
    /// above the role's `lock_timeout`, so that a server which still answers does so before.
    pub call_timeout: Duration,
}

impl WriterOptions {
    /// Two connections to this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections: 2, call_timeout: CALL_TIMEOUT }
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
        let (tell, closing, workers) = (Arc::new(tell), CancellationToken::new(), TaskTracker::new());
        let mut idle = Vec::new();
        for _ in 0..options.connections.max(1) {
            let connection = PgConnection::connect_with(&connect).await.map_err(DatabaseError::Connect)?;
            idle.push(Worker {
                connect: connect.clone(),
                call_timeout: options.call_timeout,
                connection: Some(connection),
                backoff: BACKOFF_FIRST,
                refused_at: None,
                trap: WarningTrap::new(),
                tell: Arc::clone(&tell),
                closing: closing.clone(),
            });
        }
        let (waiting, under_way) = (VecDeque::new(), FuturesUnordered::new());
        workers.spawn(
            Dispatcher { receiver, waiting, idle, under_way, commands_under_way: 0, closing: closing.clone() }.run(),
        );
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

/// Puts what waits into batches, and has a worker send each.
struct Dispatcher {
    receiver: mpsc::Receiver<Pending>,
    waiting: VecDeque<Pending>,
    /// The last is the one that served last: its server process has everything at hand.
    idle: Vec<Worker>,
    under_way: FuturesUnordered<BoxFuture<'static, Served>>,
    /// Commands in the batches that are under way.
    commands_under_way: usize,
    closing: CancellationToken,
}

/// A worker that is free again.
struct Served {
    worker: Worker,
    /// How many commands it served.
    commands: usize,
    /// Why there was no connection for the batch.
    away: Option<AppendError>,
}

impl Dispatcher {
    async fn run(mut self) {
        let mut is_ended = false;
        loop {
            self.take_received();
            while self.is_worth_a_batch()
                && let Some(worker) = self.idle.pop()
            {
                // Half of many, where another connection can take the other half.
                let many = self.waiting.len() >= 2 * JOIN_AT && !self.idle.is_empty();
                let most = if many { self.waiting.len() / 2 } else { BATCH_COMMANDS_MAX };
                let batch = take_batch(&mut self.waiting, most);
                // A change of tasks costs a lone command more than it gains; many are put together beside what goes on here.
                let apart = batch.pending.len() >= JOIN_AT;
                self.commands_under_way += batch.pending.len();
                let serving = worker.serve(batch);
                self.under_way.push(if apart { Box::pin(beside(tokio::spawn(serving))) } else { Box::pin(serving) });
            }
            if is_ended && self.waiting.is_empty() && self.under_way.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(served) = self.under_way.next() => {
                    self.welcome(served);
                    // Those who were just answered are about to send their next command: let them run first.
                    tokio::task::yield_now().await;
                }
                received = self.receiver.recv(), if !is_ended && self.waiting.len() < WAITING_MAX => match received {
                    Some(pending) => self.waiting.push_back(pending),
                    None => is_ended = true,
                },
                // Closed, not dropped: what was sent before is still received.
                () = self.closing.cancelled(), if !self.receiver.is_closed() => self.receiver.close(),
            }
        }
        for worker in self.idle {
            worker.close().await;
        }
    }

    /// A batch is worth sending when none is under way, or when many wait: as many as are under way.
    fn is_worth_a_batch(&self) -> bool {
        !self.waiting.is_empty()
            && (self.under_way.is_empty() || self.waiting.len() >= JOIN_AT.max(self.commands_under_way))
    }

    fn take_received(&mut self) {
        while self.waiting.len() < WAITING_MAX {
            match self.receiver.try_recv() {
                Ok(pending) => self.waiting.push_back(pending),
                // Empty, or closed and drained: either way this is all there is.
                Err(_) => break,
            }
        }
    }

    fn welcome(&mut self, Served { worker, commands, away }: Served) {
        self.idle.push(worker);
        self.commands_under_way -= commands;
        // Whoever waits learns at once that Postgres is away, rather than after the next attempt.
        if let Some(error) = away {
            self.take_received();
            self.waiting.drain(..).for_each(|pending| pending.answer(Err(error.clone())));
        }
    }
}

/// What a task of its own comes to.
async fn beside(task: JoinHandle<Served>) -> Served {
    match task.await {
        Ok(served) => served,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Tasks are cancelled when their runtime ends, and this one with them.
            Err(_) => std::future::pending().await,
        },
    }
}

/// One connection.
struct Worker {
    connect: PgConnectOptions,
    call_timeout: Duration,
    connection: Option<PgConnection>,
    /// After a failure to connect, and when that was.
    backoff: Duration,
    refused_at: Option<tokio::time::Instant>,
    trap: WarningTrap,
    tell: Arc<watch::Sender<Position>>,
    closing: CancellationToken,
}

impl Worker {
    /// Answers everyone in the batch.
    async fn serve(mut self, batch: Batch) -> Served {
        let commands = batch.pending.len();
        let away = match self.ensure_connected().await {
            Ok(()) => {
                self.send(batch).await;
                None
            }
            Err(source) => Some(self.refuse(batch, source)),
        };
        Served { worker: self, commands, away }
    }

    async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await.ok();
        }
    }

    async fn ensure_connected(&mut self) -> Result<(), sqlx::Error> {
        if self.connection.is_some() {
            return Ok(());
        }
        if let Some(refused_at) = self.refused_at {
            tokio::select! {
                () = tokio::time::sleep_until(refused_at + self.backoff) => {}
                () = self.closing.cancelled() => {}
            }
            self.backoff = (self.backoff * 2).min(BACKOFF_LAST);
        }
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.connect)).await;
        self.connection = Some(attempt.unwrap_or_else(|_| Err(timed_out()))?);
        (self.backoff, self.refused_at) = (BACKOFF_FIRST, None);
        Ok(())
    }

    /// Postgres is away: nothing was committed. The next attempt waits a little.
    fn refuse(&mut self, batch: Batch, source: sqlx::Error) -> AppendError {
        tracing::warn!(error = %source, "the journal's writer cannot connect");
        metrics::counter!("fanledger_journal_connect_failures_total").increment(1);
        let error = AppendError::Unavailable { may_have_committed: false, source: Arc::new(source) };
        batch.fail(&error);
        self.refused_at = Some(tokio::time::Instant::now());
        error
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
            let call = async {
                let answered = tokio::time::timeout(self.call_timeout, batch.call(&mut connection, now())).await;
                answered.unwrap_or_else(|_| Err(timed_out()))
            };
            match self.trap.watch(call).await {
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

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut))
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
