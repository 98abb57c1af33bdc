//! From NATS to everybody in this process: one consumer on `journal.>`, decoded once, fanned out in memory.
//!
//! The feed may lose messages and may be silent; it never lies. Whoever reads it compares each event's previous chain with
//! what it has, and where that does not fit reads Postgres. So a consumer starts with what is new, and nothing here
//! acknowledges, resumes or fills holes.

use std::sync::Arc;
use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, push};
use async_nats::jetstream::{self, stream::ConsumerError};
use futures::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::checkpoint::with_causes;
use crate::event::RecordedEvent;
use crate::message;
use crate::nats::{ConnectError, Connection, STREAM};

/// How many messages a slow reader may fall behind before it is sent to Postgres.
const CAPACITY: usize = 8192;

/// Larger events are left to Postgres, so that the buffer is bounded in bytes too (128 MiB at the very worst, some 16 MiB as a rule).
const EVENT_BYTES_MAX: usize = 16 * 1024;

/// The server says this often that there is nothing to say; after three silent intervals the consumer counts as gone.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What the feed passes on.
#[derive(Clone, Debug)]
pub enum FeedMessage {
    /// An event.
    Event(Arc<RecordedEvent>),
    /// Something that is to be read from Postgres: too large, omitted by the relay, or not understood.
    ReadPostgres,
}

/// The handle to the one consumer of this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Feed {
    messages: broadcast::Sender<FeedMessage>,
    connected: watch::Receiver<bool>,
}

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("subscribe to the consumer's deliveries")]
    Subscribe(#[source] async_nats::SubscribeError),
    #[error("create a consumer of the stream JOURNAL; the relay makes the stream, is it running?")]
    Consumer(#[source] ConsumerError),
    #[error("the connection to NATS broke")]
    Disconnected,
    #[error("the consumer went silent, as when its stream is deleted")]
    Silent,
    #[error("NATS ended the consumer: {0}")]
    Ended(StatusCode),
}

impl Feed {
    /// A feed that never says anything: readers live on Postgres alone, at the cost of latency.
    pub fn silent() -> Self {
        Self { messages: broadcast::Sender::new(1), connected: watch::Sender::new(false).subscribe() }
    }

    /// Starts the consumer; it runs until `stop`, through every outage of NATS.
    pub fn start(nats_url: impl Into<String>, stop: CancellationToken) -> Self {
        let messages = broadcast::Sender::new(CAPACITY);
        let (connected_sender, connected) = watch::channel(false);
        let consumer = Consumer { url: nats_url.into(), messages: messages.clone(), connected: connected_sender };
        tokio::spawn(async move { stop.run_until_cancelled(consumer.run()).await });
        Self { messages, connected }
    }

    /// All that comes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<FeedMessage> {
        self.messages.subscribe()
    }

    /// Whether a consumer is in place; changes are seen by `changed()`.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

struct Consumer {
    url: String,
    messages: broadcast::Sender<FeedMessage>,
    connected: watch::Sender<bool>,
}

impl Consumer {
    async fn run(self) {
        let mut backoff = Backoff::new();
        loop {
            let Err(error) = self.consume(&mut backoff).await;
            self.report(false);
            if backoff.is_to_be_told() {
                tracing::info!(
                    error = with_causes(&error),
                    "the feed from NATS pauses; readers use Postgres meanwhile"
                );
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    fn report(&self, connected: bool) {
        self.connected.send_replace(connected);
        metrics::gauge!("fanledger_feed_connected").set(f64::from(u8::from(connected)));
    }

    async fn consume(&self, backoff: &mut Backoff) -> Result<std::convert::Infallible, FeedError> {
        let nats = Connection::open(&self.url, "fanledger feed").await?;
        let inbox = nats.client.new_inbox();
        // Before the consumer exists, so that its first message finds us.
        let mut deliveries = nats.client.subscribe(inbox.clone()).await.map_err(FeedError::Subscribe)?;
        let consumer = push::Config {
            deliver_subject: inbox,
            // Not "from where we were": that would deliver again what readers took from Postgres meanwhile, and after a
            // restore of the journal it would wait for a sequence that the stream reaches much later.
            deliver_policy: DeliverPolicy::New,
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            idle_heartbeat: HEARTBEAT,
            inactive_threshold: Duration::from_secs(10),
            memory_storage: true,
            num_replicas: 1,
            ..push::Config::default()
        };
        jetstream::new(nats.client.clone())
            .create_consumer_on_stream(consumer, STREAM)
            .await
            .map_err(FeedError::Consumer)?;
        self.report(true);
        if let Some(outage) = backoff.reset() {
            tracing::info!(seconds = outage.as_secs(), "the feed from NATS goes on");
        }
        loop {
            let delivery = tokio::select! {
                () = nats.broken.cancelled() => return Err(FeedError::Disconnected),
                delivery = tokio::time::timeout(3 * HEARTBEAT, deliveries.next()) => delivery,
            };
            let message = delivery.map_err(|_elapsed| FeedError::Silent)?.ok_or(FeedError::Disconnected)?;
            match message.status {
                None => self.pass_on(&message),
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(status) => return Err(FeedError::Ended(status)),
            }
        }
    }

    fn pass_on(&self, message: &async_nats::Message) {
        metrics::counter!("fanledger_feed_messages_total").increment(1);
        let passed = match message::decode(message) {
            Ok(decoded) => match decoded.event {
                Some(event) if event.payload.len() <= EVENT_BYTES_MAX => FeedMessage::Event(Arc::new(event)),
                Some(_) | None => FeedMessage::ReadPostgres,
            },
            Err(error) => {
                tracing::warn!(%error, subject = %message.subject, "a message in the stream JOURNAL is not the relay's");
                FeedMessage::ReadPostgres
            }
        };
        // An error only says that nobody listens at the moment.
        let _ = self.messages.send(passed);
    }
}
