//! From the journal to NATS, in position order, so that stream sequence = position, always.
//!
//! The stream is a cache of the journal's end. Its truth is checked, not trusted: on each new connection, and whenever a
//! publish is refused, the last message's chain is compared with the journal at that position, and a stream that holds
//! anything else is deleted and filled again. `Nats-Expected-Last-Sequence` makes a second relay harmless, and no message id
//! is sent, because a reused one would silently keep the old body.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{CreateStreamError, DeleteStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RawMessageError, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::checkpoint::{Checkpoint, try_lock, with_causes};
use crate::event::{ChainDigest, Position, RecordedEvent};
use crate::message;
use crate::nats::{ConnectError, Connection, STREAM, SUBJECTS};
use crate::reader::{ReadError, Reader};

/// Publishes in flight at once. NATS answers within a millisecond or two, so this is tens of thousands of events a second.
const PAGE_EVENTS: u32 = 512;
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

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
    /// Whether the remedy is to look at the stream's end again, on the same connection.
    fn asks_for_another_look(&self) -> bool {
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
    reader: Reader,
    options: RelayOptions,
    status: watch::Sender<RelayStatus>,
}

impl Relay {
    /// A relay that reads with `pool` (SELECT on the journal is all it needs).
    pub fn new(pool: PgPool, options: RelayOptions) -> Self {
        Self { reader: Reader::new(pool.clone()), pool, options, status: watch::Sender::default() }
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
                tracing::warn!(
                    error = reason,
                    "the relay pauses; NATS gets nothing new meanwhile, readers use Postgres"
                );
                self.report(|status| {
                    status.active = false;
                    status.connected = false;
                    status.error = Some(reason);
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
        let mut stands_by = false;
        while !try_lock(&mut lock, "relay").await.map_err(RelayError::Lock)? {
            if !std::mem::replace(&mut stands_by, true) {
                tracing::info!("the relay stands by: another process publishes");
            }
            self.report(|status| *status = RelayStatus { refills: status.refills, ..RelayStatus::default() });
            tokio::time::sleep(LOCK_PING).await;
        }
        self.report(|status| status.active = true);
        tracing::info!("the relay publishes: no other process does");
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
        let context = jetstream::new(nats.client.clone());
        loop {
            let end = self.synchronise(&context).await?;
            self.report(|status| {
                status.connected = true;
                status.position = end.position;
                status.error = None;
            });
            let Err(error) = self.publish_after(end, &context, nats.client.max_payload(), &mut lock, backoff).await;
            if !error.asks_for_another_look() {
                return Err(error);
            }
            tracing::info!(error = with_causes(&error), "the relay looks at the stream's end again");
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    /// Makes sure that the stream is there and mirrors this journal; returns its end.
    async fn synchronise(&self, context: &Context) -> Result<Checkpoint, RelayError> {
        match context.get_stream(STREAM).await {
            Ok(stream) => {
                if let Some(end) = self.end_if_ours(&stream).await? {
                    return Ok(end);
                }
                tracing::warn!("the stream JOURNAL does not mirror this journal; it is filled anew");
                context.delete_stream(STREAM).await.map_err(RelayError::DeleteStream)?;
            }
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(RelayError::GetStream(error)),
        }
        let head = self.reader.head().await.map_err(RelayError::Journal)?;
        let before_first = Position::new(head.position.get().saturating_sub(self.options.refill_events));
        let chain = self.chain_at(before_first).await?.ok_or(RelayError::HistoryChanged(before_first))?;
        context.create_stream(self.config(before_first.next())).await.map_err(RelayError::CreateStream)?;
        self.report(|status| status.refills += 1);
        metrics::counter!("fanledger_relay_refills_total").increment(1);
        Ok(Checkpoint { journal_id: head.journal_id, position: before_first, chain })
    }

    /// The stream's end, if the stream is set up as we would and what it ends with is in the journal.
    async fn end_if_ours(&self, stream: &Stream) -> Result<Option<Checkpoint>, RelayError> {
        let info = stream.cached_info();
        let last = Position::new(info.state.last_sequence);
        // Asked after the stream's end is known: another relay may be publishing.
        let head = self.reader.head().await.map_err(RelayError::Journal)?;
        let too_far_back = last.get() + self.options.refill_events < head.position.get();
        if !same_setup(&info.config, &self.config(Position::START)) || last > head.position || too_far_back {
            return Ok(None);
        }
        let Some(chain) = self.chain_at(last).await? else { return Ok(None) };
        let end = Checkpoint { journal_id: head.journal_id, position: last, chain };
        if info.state.messages == 0 {
            // Nothing in it that could be of another history; the next message says what it follows.
            return Ok(Some(end));
        }
        let message = match stream.get_raw_message(last.get()).await {
            Ok(message) => message,
            Err(error) if is_message_missing(&error) => return Ok(None),
            Err(error) => return Err(RelayError::LastMessage(error)),
        };
        let ours = message::decode_parts(&message.headers, &message.payload).is_ok_and(|message| {
            Checkpoint { journal_id: message.journal_id, position: message.position, chain: message.chain } == end
        });
        Ok(ours.then_some(end))
    }

    /// The chain up to `position`; `None` if the journal does not reach that far.
    async fn chain_at(&self, position: Position) -> Result<Option<ChainDigest>, RelayError> {
        if position == Position::START {
            return Ok(Some(ChainDigest::START));
        }
        let event = self.reader.at(position).await.map_err(RelayError::Journal)?;
        Ok(event.map(|event| event.chain))
    }

    async fn publish_after(
        &mut self,
        mut end: Checkpoint,
        context: &Context,
        max_payload: usize,
        lock: &mut PgConnection,
        backoff: &mut Backoff,
    ) -> Result<Infallible, RelayError> {
        let mut lock_seen = Instant::now();
        let mut page = self.page_after(end.position).await?;
        loop {
            if lock_seen.elapsed() > LOCK_PING {
                lock.ping().await.map_err(RelayError::Lock)?;
                lock_seen = Instant::now();
            }
            if page.is_empty() {
                self.wait().await;
                page = self.page_after(end.position).await?;
                continue;
            }
            let mut pending = Vec::with_capacity(page.len());
            for event in &page {
                if !end.is_followed_by(event) {
                    return Err(RelayError::HistoryChanged(end.position));
                }
                pending.push((event.position, send(context, end.journal_id, event, max_payload).await?));
                end = end.after(event);
            }
            let sent = page.len();
            // The next page is read while this one's acknowledgements are on their way.
            let (acknowledged, next) = tokio::join!(acknowledge(pending), self.page_after(end.position));
            acknowledged?;
            backoff.reset();
            metrics::counter!("fanledger_relay_published_total").increment(sent as u64);
            self.report(|status| status.position = end.position);
            page = next?;
        }
    }

    async fn page_after(&self, position: Position) -> Result<Vec<RecordedEvent>, RelayError> {
        self.reader.after(position, PAGE_EVENTS, PAGE_BYTES).await.map_err(RelayError::Journal)
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

    fn config(&self, first: Position) -> Config {
        Config {
            name: STREAM.to_owned(),
            description: Some("The end of Fanledger's journal; the stream's sequence is the position".to_owned()),
            subjects: vec![SUBJECTS.to_owned()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            max_bytes: self.options.max_bytes,
            max_age: self.options.max_age,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            num_replicas: 1,
            allow_direct: true,
            first_sequence: Some(first.get()),
            ..Config::default()
        }
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

async fn send(
    context: &Context,
    journal_id: Uuid,
    event: &RecordedEvent,
    max_payload: usize,
) -> Result<PublishAckFuture, RelayError> {
    let (headers, body) = message::encode(journal_id, event, max_payload);
    let publish = PublishMessage::build()
        .headers(headers)
        .payload(body.as_bytes().to_vec().into())
        .expected_last_sequence(event.position.get() - 1);
    let position = event.position;
    context
        .send_publish(message::subject(event), publish)
        .await
        .map_err(|source| RelayError::Publish { position, source })
}

async fn acknowledge(pending: Vec<(Position, PublishAckFuture)>) -> Result<(), RelayError> {
    for (position, acknowledgement) in pending {
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
