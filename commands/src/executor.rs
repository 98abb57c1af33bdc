//! Executes decisions: loads a stream, decides, appends, and does it again where somebody else was first.
//!
//! A command writes one stream; what posts is guarded by the period of the book, so that a close and a posting cannot interleave:
//! an entry that was dated before a close and comes after it is decided anew, with another date. Where streams are loaded from and
//! appended to is the [`Store`]'s affair.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use cqrs_es::persist::PersistenceError;
use fanledger_domain::books::Books;
use fanledger_domain::event::{
    DecodeError, Event, NotTranslatedReason, StripeEventBodyDiffered, StripeEventNotTranslated, StripeEventReceived,
};
use fanledger_domain::id::StripeId;
use fanledger_domain::ledgered::{LedgerCommand, LedgerError, Ledgered};
use fanledger_domain::period::{FirstOpen, Period};
use fanledger_domain::source::Source;
use fanledger_domain::time::Timestamp;
use fanledger_journal::append::{AppendError, Command, Guard, Outcome};
use fanledger_journal::event::{Metadata, NewEvent, Position, StreamId};
use fanledger_journal::reader::ReadError;
use fanledger_journal::writer::Writer;
use sqlx::PgPool;

use crate::store::{JournalStore, Store};

/// The streams of raw Stripe events.
pub(crate) const STRIPE_EVENT: &str = "stripe_event";
/// How often a command is decided anew before its stream is said to be contended.
const ATTEMPTS_MAX: usize = 64;

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The stream could not be read.
    #[error("load stream {stream}")]
    Load {
        /// Which.
        stream: StreamId,
        /// What the repository said.
        #[source]
        source: PersistenceError,
    },
    /// The stream could not be read.
    #[error("read stream {stream}")]
    Read {
        /// Which.
        stream: StreamId,
        /// What the reader said.
        #[source]
        source: ReadError,
    },
    /// An event in the stream could not be read.
    #[error("decode stream {stream}")]
    Decode {
        /// Which.
        stream: StreamId,
        /// What is wrong with the event.
        #[source]
        source: DecodeError,
    },
    /// An event could not be written as JSON.
    #[error("write an event of stream {stream} as JSON")]
    Encode {
        /// Which.
        stream: StreamId,
        /// What serde said.
        #[source]
        source: serde_json::Error,
    },
    /// The decision refused.
    #[error("the ledger refused")]
    Refused(#[source] LedgerError),
    /// The journal did not take it.
    #[error("append to stream {stream}")]
    Append {
        /// Which.
        stream: StreamId,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// Others kept being first.
    #[error("stream {stream} is contended: {ATTEMPTS_MAX} attempts lost; try again")]
    Contended {
        /// Which.
        stream: StreamId,
    },
    /// A command without idempotency key was answered as if it had one.
    #[error("the journal answered {outcome:?} to a command on {stream} that has no idempotency key")]
    UnexpectedOutcome {
        /// Which.
        stream: StreamId,
        /// What it answered.
        outcome: Outcome,
    },
}

impl ExecuteError {
    /// Whether the same command may succeed later with nothing changed: infrastructure, not the command, is at fault.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Load { .. } | Self::Read { .. } | Self::Contended { .. } => true,
            Self::Decode { .. } | Self::Encode { .. } | Self::Refused(_) | Self::UnexpectedOutcome { .. } => false,
            Self::Append { source, .. } => match source {
                // A missing right or function is mended by an operator; what waited is then done.
                AppendError::Unavailable { .. }
                | AppendError::NotDurable { .. }
                | AppendError::ClockSkew(_)
                | AppendError::StreamType { .. }
                | AppendError::Setup(_)
                | AppendError::Closed => true,
                AppendError::TooLarge { .. }
                | AppendError::Malformed
                | AppendError::Metadata(_)
                | AppendError::Entry(_)
                | AppendError::EntryIdExists(_)
                | AppendError::Form(_) => false,
            },
        }
    }
}

/// Why an act of finance had no effect.
#[derive(Debug, thiserror::Error)]
pub enum ActError<E: Error + 'static> {
    /// The decision refused.
    #[error(transparent)]
    Refused(E),
    /// It could not be decided, or not recorded.
    #[error(transparent)]
    Failed(#[from] ExecuteError),
}

/// What a command led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// The events appended, in order; none where nothing was new.
    pub events: Vec<Event>,
    /// The position of the last of them.
    pub last: Option<Position>,
}

/// Loads, decides, appends. Cheap to clone.
pub struct Executor<S = JournalStore> {
    inner: Arc<Inner<S>>,
}

impl<S> Clone for Executor<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<S> {
    store: S,
    /// The book's period as this process last saw it; a conflict has it read anew.
    book: Mutex<Book>,
}

/// What a posting needs of the book's period: its last sequence, to guard by, and from when on it is open.
#[derive(Clone, Copy, Default)]
struct Book {
    sequence: u64,
    first_open: FirstOpen,
}

/// What was said of a raw event that led to nothing, or not to all that it told of; the last is what holds.
fn words(events: &[Event]) -> impl DoubleEndedIterator<Item = &StripeEventNotTranslated> {
    events.iter().filter_map(|event| if let Event::StripeEventNotTranslated(word) = event { Some(word) } else { None })
}

fn last_word(events: &[Event]) -> Option<&StripeEventNotTranslated> {
    words(events).next_back()
}

/// Whether somebody should look: it could not be read, or the ledger refused some of it.
const fn is_raised(reason: NotTranslatedReason) -> bool {
    match reason {
        NotTranslatedReason::Untranslatable | NotTranslatedReason::Undecodable => true,
        NotTranslatedReason::UnusedType
        | NotTranslatedReason::OtherMode
        | NotTranslatedReason::ConnectedAccount
        | NotTranslatedReason::ThinEvent
        | NotTranslatedReason::NoFacts
        | NotTranslatedReason::Erased => false,
    }
}

/// The stream of the one book that there is for now.
pub(crate) fn period_stream() -> StreamId {
    StreamId::new(Period::STREAM, Period::BOOK)
}

impl Executor {
    /// Over the command role's pool, and a writer of the same role.
    pub fn new(pool: PgPool, writer: Writer) -> Self {
        Self::over(JournalStore::new(pool, writer))
    }

    /// The writer that commands go through.
    pub fn writer(&self) -> &Writer {
        self.inner.store.writer()
    }
}

impl<S: Store> Executor<S> {
    /// Over any journal.
    pub fn over(store: S) -> Self {
        Self { inner: Arc::new(Inner { store, book: Mutex::default() }) }
    }

    /// Where streams are loaded from and appended to.
    pub(crate) fn store(&self) -> &S {
        &self.inner.store
    }

    /// An object that moves money, as its stream tells it.
    pub async fn load<B: Books>(&self, object: &StripeId) -> Result<Ledgered<B>, ExecuteError> {
        let mut aggregate = Ledgered::<B>::default();
        for event in self.inner.store.load::<Ledgered<B>>(object.as_str()).await? {
            aggregate.evolve(&event);
        }
        Ok(aggregate)
    }

    /// Executes a ledger command.
    pub async fn execute<B: Books>(
        &self,
        object: &StripeId,
        command: LedgerCommand,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let decide = |aggregate: &Ledgered<B>, first_open| aggregate.decide(object, command.clone(), first_open);
        self.decide_and_append(object, metadata, decide).await
    }

    /// Releases a charge through a date, where it may be.
    pub async fn release(
        &self,
        charge: &StripeId,
        through: Timestamp,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        type Charge = Ledgered<fanledger_domain::books::charge::Charge>;
        let decide = |aggregate: &Charge, first_open| aggregate.decide_release(charge, through, first_open);
        self.decide_and_append(charge, metadata, decide).await
    }

    async fn decide_and_append<B: Books>(
        &self,
        object: &StripeId,
        metadata: &Metadata,
        decide: impl Fn(&Ledgered<B>, FirstOpen) -> Result<Vec<Event>, LedgerError>,
    ) -> Result<Executed, ExecuteError> {
        let stream = StreamId::new(B::STREAM, object.as_str());
        for _ in 0..ATTEMPTS_MAX {
            let aggregate = self.load::<B>(object).await?;
            let book = self.book();
            let events = decide(&aggregate, book.first_open).map_err(ExecuteError::Refused)?;
            if events.is_empty() {
                return Ok(Executed::default());
            }
            let guards = vec![Guard { stream: period_stream(), sequence: book.sequence }];
            if let Some(last) = self.append(&stream, aggregate.sequence(), guards, metadata, &events).await? {
                return Ok(Executed { events, last: Some(last) });
            }
        }
        Err(ExecuteError::Contended { stream })
    }

    /// An act of finance on a stream that is no object at Stripe: `evolve` makes of its events what `decide` looks at, with the
    /// first open instant of the book. Entries are guarded by the period, as all are.
    ///
    /// # Errors
    /// What `decide` refuses, and what the journal does.
    pub async fn act<A: Default, E: Error + 'static>(
        &self,
        stream: &StreamId,
        metadata: &Metadata,
        evolve: impl Fn(&mut A, &Event),
        decide: impl Fn(&A, FirstOpen) -> Result<Vec<Event>, E>,
    ) -> Result<Executed, ActError<E>> {
        for _ in 0..ATTEMPTS_MAX {
            let known = self.read(stream).await?;
            let mut aggregate = A::default();
            known.iter().for_each(|event| evolve(&mut aggregate, event));
            let book = self.book();
            let events = decide(&aggregate, book.first_open).map_err(ActError::Refused)?;
            if events.is_empty() {
                return Ok(Executed::default());
            }
            let guards = if events.iter().any(|event| matches!(event, Event::EntryPosted(_))) {
                vec![Guard { stream: period_stream(), sequence: book.sequence }]
            } else {
                Vec::new()
            };
            if let Some(last) = self.append(stream, known.len() as u64, guards, metadata, &events).await? {
                return Ok(Executed { events, last: Some(last) });
            }
        }
        Err(ExecuteError::Contended { stream: stream.clone() }.into())
    }

    /// From when on the book is open, as the journal says it now.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn first_open(&self) -> Result<FirstOpen, ExecuteError> {
        Ok(self.read_book().await?.first_open)
    }

    fn book(&self) -> Book {
        *self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_book(&self) -> Result<Book, ExecuteError> {
        let mut period = Period::default();
        self.read(&period_stream()).await?.iter().for_each(|event| period.evolve(event));
        let book = Book { sequence: period.sequence(), first_open: period.first_open() };
        // An older reading that comes last costs one more conflict, never a wrong date: the guard is of the same reading.
        *self.inner.book.lock().unwrap_or_else(PoisonError::into_inner) = book;
        Ok(book)
    }

    /// Adds what is new of a source's facts (snapshots of what it says, links) to its stream; `None` for an object that is no source.
    pub async fn learn_source(
        &self,
        object: &StripeId,
        facts: Vec<Event>,
        metadata: &Metadata,
    ) -> Result<Option<Executed>, ExecuteError> {
        let Some(stream_type) = Source::stream_type(object.kind()) else { return Ok(None) };
        let stream = StreamId::new(stream_type, object.as_str());
        for _ in 0..ATTEMPTS_MAX {
            let mut source = Source::default();
            for event in self.read(&stream).await? {
                source.evolve(&event);
            }
            let events = source.decide(facts.clone());
            if events.is_empty() {
                return Ok(Some(Executed::default()));
            }
            if let Some(last) = self.append(&stream, source.sequence(), Vec::new(), metadata, &events).await? {
                return Ok(Some(Executed { events, last: Some(last) }));
            }
        }
        Err(ExecuteError::Contended { stream })
    }

    /// Records that a raw event led to no facts; nothing where the same version said the same last.
    pub async fn record_not_translated(
        &self,
        fact: StripeEventNotTranslated,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let id = fact.id.clone();
        // Only the last word counts: what is refused again after it was not is news.
        let is_known = |known: &[Event]| {
            last_word(known)
                .is_some_and(|known| known.reason == fact.reason && known.translator_version == fact.translator_version)
        };
        self.append_once(&id, fact.clone().into(), metadata, is_known).await
    }

    /// Records that a raw event was translated again and nothing of it was refused; nothing where no refusal stands.
    pub(crate) async fn record_nothing_refused(
        &self,
        fact: StripeEventNotTranslated,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let id = fact.id.clone();
        // An erased body was not translated again, so it takes no refusal back.
        let is_settled = |known: &[Event]| {
            let not_erased = words(known).rev().find(|word| word.reason != NotTranslatedReason::Erased);
            not_erased.is_none_or(|word| !is_raised(word.reason))
        };
        self.append_once(&id, fact.clone().into(), metadata, is_settled).await
    }

    /// Records that an event id came with another body; nothing where that body was recorded before.
    pub async fn record_body_differed(
        &self,
        fact: StripeEventBodyDiffered,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let id = fact.id.clone();
        let is_known = |known: &[Event]| {
            known.iter().any(|event| {
                if let Event::StripeEventBodyDiffered(known) = event {
                    known.body_digest == fact.body_digest
                } else {
                    false
                }
            })
        };
        self.append_once(&id, fact.clone().into(), metadata, is_known).await
    }

    async fn append_once(
        &self,
        stripe_event: &StripeId,
        event: Event,
        metadata: &Metadata,
        is_known: impl Fn(&[Event]) -> bool,
    ) -> Result<Executed, ExecuteError> {
        let stream = StreamId::new(STRIPE_EVENT, stripe_event.as_str());
        for _ in 0..ATTEMPTS_MAX {
            let known = self.stripe_event(stripe_event).await?;
            if is_known(&known) {
                return Ok(Executed::default());
            }
            let sequence = known.len() as u64;
            if let Some(last) =
                self.append(&stream, sequence, Vec::new(), metadata, std::slice::from_ref(&event)).await?
            {
                return Ok(Executed { events: vec![event], last: Some(last) });
            }
        }
        Err(ExecuteError::Contended { stream })
    }

    /// The events of a raw Stripe event's stream: its receipt, and what became of it.
    pub async fn stripe_event(&self, id: &StripeId) -> Result<Vec<Event>, ExecuteError> {
        self.read(&StreamId::new(STRIPE_EVENT, id.as_str())).await
    }

    /// The receipt of a raw Stripe event and its position, where it was received.
    pub(crate) async fn first_receipt(
        &self,
        id: &StripeId,
    ) -> Result<Option<(Position, StripeEventReceived)>, ExecuteError> {
        let stream = StreamId::new(STRIPE_EVENT, id.as_str());
        let rows = self
            .inner
            .store
            .stream(&stream)
            .await
            .map_err(|source| ExecuteError::Read { stream: stream.clone(), source })?;
        let Some(row) = rows.first() else { return Ok(None) };
        let event = Event::decode(&row.event_type, &row.event_version, &row.payload)
            .map_err(|source| ExecuteError::Decode { stream, source })?;
        Ok(if let Event::StripeEventReceived(received) = event { Some((row.position, received)) } else { None })
    }

    /// The events of a stream that is no aggregate of the ledger.
    async fn read(&self, stream: &StreamId) -> Result<Vec<Event>, ExecuteError> {
        let rows = self
            .inner
            .store
            .stream(stream)
            .await
            .map_err(|source| ExecuteError::Read { stream: stream.clone(), source })?;
        rows.iter()
            .map(|row| {
                Event::decode(&row.event_type, &row.event_version, &row.payload)
                    .map_err(|source| ExecuteError::Decode { stream: stream.clone(), source })
            })
            .collect()
    }

    /// Appends, or answers `None` where the stream or a guard has moved on.
    async fn append(
        &self,
        stream: &StreamId,
        expected: u64,
        guards: Vec<Guard>,
        metadata: &Metadata,
        events: &[Event],
    ) -> Result<Option<Position>, ExecuteError> {
        let events = events
            .iter()
            .map(|event| {
                let payload =
                    event.to_payload().map_err(|source| ExecuteError::Encode { stream: stream.clone(), source })?;
                Ok(NewEvent {
                    event_type: event.type_name().to_owned(),
                    event_version: event.version().to_owned(),
                    payload,
                })
            })
            .collect::<Result<Vec<_>, ExecuteError>>()?;
        let command = Command { guards, ..Command::new(stream.clone(), expected, metadata.clone(), events) };
        let outcome = self.inner.store.append(command).await;
        match outcome.map_err(|source| ExecuteError::Append { stream: stream.clone(), source })? {
            Outcome::Appended { last, .. } => Ok(Some(last)),
            Outcome::Conflict { stream: moved, .. } => {
                if moved == period_stream() {
                    self.read_book().await?;
                }
                Ok(None)
            }
            outcome @ (Outcome::Duplicate { .. } | Outcome::Misuse) => {
                Err(ExecuteError::UnexpectedOutcome { stream: stream.clone(), outcome })
            }
        }
    }
}
