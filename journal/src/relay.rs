//! From the journal to NATS, in position order, so that stream sequence = position, always.
//!
//! The stream is a cache of the journal's end. Its truth is checked, not trusted: on each new connection, and whenever a
//! publish is refused, the last message's chain is compared with the journal at that position, and a stream that holds
//! anything else is deleted and filled again. `Nats-Expected-Last-Sequence` makes a second relay harmless, and no message id
//! is sent, because a reused one would silently keep the old body.

mod mirror;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{CreateStreamError, DeleteStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RawMessageError, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context, ErrorCode};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::checkpoint::{Checkpoint, try_lock, with_causes};
use crate::event::{Position, RecordedEvent};
use crate::message::{self, JournalMessage};
use crate::nats::{ConnectError, Connection, STREAM, SUBJECTS};
use crate::reader::{ReadError, Reader};
use crate::trace;

pub use mirror::{Broker, Found, Mirror, Source, Synchronised};

/// How often the journal is looked at when nobody in this process says that something was appended.
const POLL: Duration = Duration::from_millis(20);

/// How often a standby asks for the lock, and the active relay makes sure that it still has it.
const LOCK_PING: Duration = Duration::from_millis(500);

/// Where and how much.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// `nats://relay:<password>@<host>:<port>`.
    pub nats_url: String,
    /// The writer's signal, where writer and relay share a process.
    pub wake: Option<watch::Receiver<Position>>,
    /// The stream keeps at most this much; the oldest goes first.
    pub max_bytes: i64,
    /// The stream keeps a message at most this long.
    pub max_age: Duration,
    /// How many of the journal's last events a new stream is filled with.
    pub refill_events: u64,
}

impl RelayOptions {
    /// The usual bounds: 512 MiB, three days, a refill of 50,000 events.
    pub fn new(nats_url: impl Into<String>) -> Self {
        Self {
            nats_url: nats_url.into(),
            wake: None,
            max_bytes: 512 * 1024 * 1024,
            max_age: Duration::from_secs(3 * 24 * 60 * 60),
            refill_events: 50_000,
        }
    }
}

/// What the relay is doing, for readiness checks and people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// It holds the lock; otherwise it stands by.
    pub active: bool,
    /// It publishes; otherwise NATS or Postgres is away.
    pub connected: bool,
    /// The last position that NATS has acknowledged.
    pub position: Position,
    /// How often it has filled the stream anew.
    pub refills: u64,
    /// Why it is not connected.
    pub error: Option<String>,
    /// That it is Postgres, and not NATS, which `error` is of.
    pub postgres_away: bool,
}

/// What ends one attempt of the relay; it tries again by itself.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Postgres cannot be reached for the lock, or the lock's connection broke.
    #[error("hold the relay's lock in Postgres")]
    Lock(#[source] sqlx::Error),
    /// The journal cannot be read.
    #[error("read the journal")]
    Journal(#[source] ReadError),
    /// NATS cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The link to NATS broke.
    #[error("the connection to NATS broke")]
    Disconnected,
    /// The stream's state cannot be asked for.
    #[error("look up the stream JOURNAL")]
    GetStream(#[source] GetStreamError),
    /// The stream's last message cannot be read back.
    #[error("read the last message of the stream JOURNAL")]
    LastMessage(#[source] RawMessageError),
    /// The stream cannot be made.
    #[error("create the stream JOURNAL; has nats-server JetStream enabled, with room for it?")]
    CreateStream(#[source] CreateStreamError),
    /// The stream cannot be deleted.
    #[error("delete the stream JOURNAL, which holds another history than the journal")]
    DeleteStream(#[source] DeleteStreamError),
    /// A message was not stored.
    #[error("publish position {position}")]
    Publish {
        /// The event's position.
        position: Position,
        /// What NATS or the client said.
        #[source]
        source: PublishError,
    },
    /// NATS stored a message elsewhere than at its position.
    #[error("position {position} was stored at sequence {sequence}")]
    WrongSequence {
        /// The event's position.
        position: Position,
        /// Where it is.
        sequence: u64,
    },
    /// The journal goes on otherwise than from what was published: it was restored or failed over.
    #[error("the journal does not follow on what was published up to position {0}")]
    HistoryChanged(Position),
}

impl RelayError {
    /// Whether it is Postgres that is away or in the way: whoever then looks at NATS looks at the wrong server.
    pub const fn is_of_postgres(&self) -> bool {
        match self {
            Self::Lock(_) | Self::Journal(_) => true,
            Self::Connect(_)
            | Self::Disconnected
            | Self::GetStream(_)
            | Self::LastMessage(_)
            | Self::CreateStream(_)
            | Self::DeleteStream(_)
            | Self::Publish { .. }
            | Self::WrongSequence { .. }
            | Self::HistoryChanged(_) => false,
        }
    }

    /// Whether the remedy is to look at the stream's end again, on the same connection.
    pub fn asks_for_another_look(&self) -> bool {
        match self {
            Self::Publish { source, .. } => {
                matches!(source.kind(), PublishErrorKind::WrongLastSequence | PublishErrorKind::StreamNotFound)
            }
            Self::WrongSequence { .. } | Self::HistoryChanged(_) => true,
            Self::Lock(_)
            | Self::Journal(_)
            | Self::Connect(_)
            | Self::Disconnected
            | Self::GetStream(_)
            | Self::LastMessage(_)
            | Self::CreateStream(_)
            | Self::DeleteStream(_) => false,
        }
    }
}

/// The relay. One is active per journal, by an advisory lock; any number may stand by.
#[derive(Debug)]
pub struct Relay {
    pool: PgPool,
    options: RelayOptions,
    status: watch::Sender<RelayStatus>,
    said: Said,
}

/// What the log was last told of its part: said again only when it has changed, not at each attempt of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    StandsBy,
    Publishes,
}

impl Relay {
    /// A relay that reads with `pool` (SELECT on the journal is all it needs).
    pub fn new(pool: PgPool, options: RelayOptions) -> Self {
        Self { pool, options, status: watch::Sender::default(), said: Said::Nothing }
    }

    /// What it is doing, now and on each change.
    pub fn status(&self) -> watch::Receiver<RelayStatus> {
        self.status.subscribe()
    }

    /// Works until it is told to stop, through every outage of Postgres and NATS.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        let outcome = stop.run_until_cancelled(async {
            loop {
                let Err(error) = self.hold_and_publish(&mut backoff).await;
                let reason = with_causes(&error);
                if backoff.is_to_be_told() {
                    tracing::warn!(
                        error = reason,
                        "the relay pauses; NATS gets nothing new meanwhile, readers use Postgres"
                    );
                }
                self.report(|status| {
                    status.active = false;
                    status.connected = false;
                    status.error = Some(reason);
                    status.postgres_away = error.is_of_postgres();
                });
                tokio::time::sleep(backoff.delay()).await;
            }
        });
        let _: Option<Infallible> = outcome.await;
    }

    fn report(&self, change: impl FnOnce(&mut RelayStatus)) {
        self.status.send_modify(change);
        let status = self.status.borrow();
        metrics::gauge!("fanledger_relay_active").set(f64::from(u8::from(status.active)));
        metrics::gauge!("fanledger_relay_connected").set(f64::from(u8::from(status.connected)));
        metrics::gauge!("fanledger_relay_position").set(status.position.get() as f64);
    }

    async fn hold_and_publish(&mut self, backoff: &mut Backoff) -> Result<Infallible, RelayError> {
        let mut lock = PgConnection::connect_with(&self.pool.connect_options()).await.map_err(RelayError::Lock)?;
        while !try_lock(&mut lock, "relay").await.map_err(RelayError::Lock)? {
            if std::mem::replace(&mut self.said, Said::StandsBy) != Said::StandsBy {
                tracing::info!("the relay stands by: another process publishes");
            }
            // Nothing is out of order any more, and nothing is published that would say so.
            backoff.reset();
            self.report(|status| *status = RelayStatus { refills: status.refills, ..RelayStatus::default() });
            tokio::time::sleep(LOCK_PING).await;
        }
        self.report(|status| status.active = true);
        let nats = Connection::open(&self.options.nats_url, "fanledger relay").await?;
        let broken = nats.broken.clone();
        tokio::select! {
            // First, so that a publish that fails with the link is not taken for a refusal.
            biased;
            () = broken.cancelled() => Err(RelayError::Disconnected),
            outcome = self.publish(&nats, lock, backoff) => outcome,
        }
    }

    /// Publishes for as long as the link and the lock hold, looking at the stream's end again whenever NATS disagrees.
    async fn publish(
        &mut self,
        nats: &Connection,
        mut lock: PgConnection,
        backoff: &mut Backoff,
    ) -> Result<Infallible, RelayError> {
        let broker = JetStream {
            context: jetstream::new(nats.client.clone()),
            max_payload: nats.client.max_payload(),
            max_bytes: self.options.max_bytes,
            max_age: self.options.max_age,
        };
        let mirror = Mirror::new(Reader::new(self.pool.clone()), broker, self.options.refill_events);
        loop {
            let Synchronised { end, refilled } = mirror.synchronise().await?;
            if refilled {
                metrics::counter!("fanledger_relay_refills_total").increment(1);
            }
            self.report(|status| {
                status.connected = true;
                status.position = end.position;
                status.refills += u64::from(refilled);
                status.error = None;
                status.postgres_away = false;
            });
            if std::mem::replace(&mut self.said, Said::Publishes) != Said::Publishes {
                tracing::info!("the relay publishes: no other process does");
            }
            let Err(error) = self.publish_after(end, &mirror, &mut lock, backoff).await;
            if !error.asks_for_another_look() {
                return Err(error);
            }
            if backoff.is_to_be_told() {
                tracing::info!(error = with_causes(&error), "the relay looks at the stream's end again");
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    async fn publish_after(
        &mut self,
        mut end: Checkpoint,
        mirror: &Mirror<Reader, JetStream>,
        lock: &mut PgConnection,
        backoff: &mut Backoff,
    ) -> Result<Infallible, RelayError> {
        let mut lock_seen = Instant::now();
        let mut page = mirror.page_after(end.position).await?;
        loop {
            if lock_seen.elapsed() > LOCK_PING {
                lock.ping().await.map_err(RelayError::Lock)?;
                lock_seen = Instant::now();
                if page.is_empty() {
                    // Both links have held for a while with nothing to publish: that too ends an outage.
                    went_on(backoff);
                }
            }
            if page.is_empty() {
                self.wait().await;
                page = mirror.page_after(end.position).await?;
                continue;
            }
            let next = mirror.publish(&mut end, &page).await?;
            went_on(backoff);
            metrics::counter!("fanledger_relay_published_total").increment(page.len() as u64);
            self.report(|status| status.position = end.position);
            page = next;
        }
    }

    /// Until something may have been appended.
    async fn wait(&mut self) {
        let Some(wake) = &mut self.options.wake else {
            tokio::time::sleep(POLL).await;
            return;
        };
        // The poll stays: other processes append too.
        if let Ok(Err(_writer_is_gone)) = tokio::time::timeout(POLL, wake.changed()).await {
            self.options.wake = None;
        }
    }
}

/// After a success: tells of the end of an outage whose beginning was told.
fn went_on(backoff: &mut Backoff) {
    if let Some(outage) = backoff.reset() {
        tracing::info!(seconds = outage.as_secs(), "the relay publishes again");
    }
}

/// JetStream, over one connection.
#[derive(Debug)]
struct JetStream {
    context: Context,
    max_payload: usize,
    max_bytes: i64,
    max_age: Duration,
}

impl JetStream {
    fn config(&self, first: Position) -> Config {
        Config {
            name: STREAM.to_owned(),
            description: Some("The end of Fanledger's journal; the stream's sequence is the position".to_owned()),
            subjects: vec![SUBJECTS.to_owned()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            max_bytes: self.max_bytes,
            max_age: self.max_age,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            num_replicas: 1,
            allow_direct: true,
            first_sequence: Some(first.get()),
            ..Config::default()
        }
    }

    async fn send(&self, journal_id: Uuid, event: &RecordedEvent) -> Result<PublishAckFuture, RelayError> {
        let (headers, body) = message::encode(journal_id, event, self.max_payload);
        let publish = PublishMessage::build()
            .headers(headers)
            .payload(body.as_bytes().to_vec().into())
            .expected_last_sequence(event.position.get() - 1);
        let position = event.position;
        self.context
            .send_publish(message::subject(event), publish)
            .await
            .map_err(|source| RelayError::Publish { position, source })
    }
}

impl Broker for JetStream {
    async fn stream(&self) -> Result<Option<Found>, RelayError> {
        match self.context.get_stream(STREAM).await {
            Ok(stream) => {
                let info = stream.cached_info();
                Ok(Some(Found {
                    same_setup: same_setup(&info.config, &self.config(Position::START)),
                    last: Position::new(info.state.last_sequence),
                    is_empty: info.state.messages == 0,
                }))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(RelayError::GetStream(error)),
        }
    }

    async fn message(&self, sequence: Position) -> Result<Option<JournalMessage>, RelayError> {
        let stream = match self.context.get_stream_no_info(STREAM).await {
            Ok(stream) => stream,
            Err(error) => return Err(RelayError::GetStream(error)),
        };
        match stream.get_raw_message(sequence.get()).await {
            Ok(message) => Ok(message::decode_parts(&message.headers, &message.payload).ok()),
            Err(error) if is_message_missing(&error) => Ok(None),
            Err(error) => Err(RelayError::LastMessage(error)),
        }
    }

    async fn create(&self, first: Position) -> Result<(), RelayError> {
        self.context.create_stream(self.config(first)).await.map(drop).map_err(RelayError::CreateStream)
    }

    async fn delete(&self) -> Result<(), RelayError> {
        self.context.delete_stream(STREAM).await.map(drop).map_err(RelayError::DeleteStream)
    }

    async fn publish(&self, journal_id: Uuid, events: &[RecordedEvent]) -> Result<(), RelayError> {
        let mut pending = Vec::with_capacity(events.len());
        for event in events {
            let span = trace::publish_span(event);
            pending.push((event.position, self.send(journal_id, event).await?, span));
        }
        acknowledge(pending).await
    }
}

/// Whether a stream that was found is bounded and fed as ours would be. It is a cache: where it is not, it is made anew.
fn same_setup(found: &Config, ours: &Config) -> bool {
    found.subjects == ours.subjects
        && found.retention == ours.retention
        && found.storage == ours.storage
        && found.discard == ours.discard
        && found.max_bytes == ours.max_bytes
        && found.max_age == ours.max_age
}

async fn acknowledge(pending: Vec<(Position, PublishAckFuture, Span)>) -> Result<(), RelayError> {
    for (position, acknowledgement, _span) in pending {
        let stored = acknowledgement.await.map_err(|source| RelayError::Publish { position, source })?;
        if stored.sequence != position.get() {
            return Err(RelayError::WrongSequence { position, sequence: stored.sequence });
        }
    }
    Ok(())
}

fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn is_message_missing(error: &RawMessageError) -> bool {
    use async_nats::jetstream::stream::RawMessageErrorKind;
    match error.kind() {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(error) => error.error_code() == ErrorCode::NO_MESSAGE_FOUND,
        RawMessageErrorKind::InvalidSubject | RawMessageErrorKind::Other => false,
    }
}
