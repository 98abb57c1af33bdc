//! What the executor needs of the journal: load a stream, append to one. [`JournalStore`] is the real one, over Postgres.
//!
//! A trait, so that the same decisions run over the simulator's journal in memory, where a run depends on its seed alone.

use std::future::Future;

use cqrs_es::Aggregate;
use cqrs_es::persist::PersistedEventRepository;
use fanledger_domain::event::Event;
use fanledger_journal::append::{AppendError, Command, Outcome};
use fanledger_journal::event::{RecordedEvent, StreamId};
use fanledger_journal::reader::{ReadError, Reader};
use fanledger_journal::writer::Writer;
use postgres_es::PostgresEventRepository;
use sqlx::PgPool;

use crate::executor::ExecuteError;

/// A journal whose streams can be loaded and appended to.
pub trait Store: Send + Sync + 'static {
    /// The events of an aggregate's stream, oldest first.
    ///
    /// # Errors
    /// When the journal cannot be asked, or holds what this program cannot read.
    fn load<A: Aggregate>(&self, id: &str) -> impl Future<Output = Result<Vec<Event>, ExecuteError>> + Send;

    /// A stream's events as they are recorded, oldest first.
    ///
    /// # Errors
    /// When the journal cannot be asked.
    fn stream(&self, stream: &StreamId) -> impl Future<Output = Result<Vec<RecordedEvent>, ReadError>> + Send;

    /// Appends one command; `Appended` means durable.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn append(&self, command: Command) -> impl Future<Output = Result<Outcome, AppendError>> + Send;
}

/// The journal in Postgres: postgres-es loads, and the append is our own, because only it knows positions.
pub struct JournalStore {
    events: PostgresEventRepository,
    reader: Reader,
    writer: Writer,
}

impl JournalStore {
    /// Over the command role's pool, and a writer of the same role.
    pub fn new(pool: PgPool, writer: Writer) -> Self {
        let reader = Reader::new(pool.clone());
        let events = PostgresEventRepository::new(pool).with_tables("journal.events", "journal.no_snapshots");
        Self { events, reader, writer }
    }

    /// The writer that appends go through.
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }
}

impl Store for JournalStore {
    async fn load<A: Aggregate>(&self, id: &str) -> Result<Vec<Event>, ExecuteError> {
        let stream = || StreamId::new(A::TYPE, id);
        let rows =
            self.events.get_events::<A>(id).await.map_err(|source| ExecuteError::Load { stream: stream(), source })?;
        rows.into_iter()
            .map(|row| {
                Event::decode_value(&row.event_type, &row.event_version, row.payload)
                    .map_err(|source| ExecuteError::Decode { stream: stream(), source })
            })
            .collect()
    }

    async fn stream(&self, stream: &StreamId) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader.stream(stream).await
    }

    async fn append(&self, command: Command) -> Result<Outcome, AppendError> {
        self.writer.append(command).await
    }
}
