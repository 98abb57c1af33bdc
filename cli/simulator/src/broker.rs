//! NATS: one stream, what is on its way to each consumer, and everything that may become of both. The relay's decisions over it are
//! the real ones ([`Mirror`]); a message is encoded and decoded as in production.

use std::collections::{BTreeMap, VecDeque};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::message::{self, JournalMessage};
use fanledger_journal::reader::{Head, ReadError};
use fanledger_journal::relay::{Broker, Found, Mirror, RelayError, Source, Synchronised};
use std::sync::Arc;
use uuid::Uuid;

use crate::Bug;
use crate::postgres::{Connection, Gone};
use crate::world::{MILLISECOND, Micros, Node, ProcessId, World};

/// The server's limit; nothing of ours comes near it here.
const MAX_PAYLOAD: usize = 1 << 20;
/// Few, so that a stream that is made anew does not begin at 1.
const REFILL_EVENTS: u64 = 40;
/// A page of the relay's.
const PAGE: usize = 6;
/// How many messages a slow reader may fall behind.
const CAPACITY: usize = 8;
const LOCK_PING: Micros = 500 * MILLISECOND;
pub(crate) const BACKOFF: Micros = 60 * MILLISECOND;

/// What a reader of the feed gets.
#[derive(Clone, Debug)]
pub(crate) enum FeedMessage {
    Event(Arc<RecordedEvent>),
    /// Some were lost to slowness.
    Lagged,
}

/// The one consumer of a process, and what each of its runners has not taken yet.
#[derive(Default)]
pub(crate) struct Feed {
    pub is_connected: bool,
    on_their_way: VecDeque<JournalMessage>,
    queues: BTreeMap<&'static str, VecDeque<FeedMessage>>,
}

impl Feed {
    /// All that comes from now on.
    pub fn subscribe(&mut self, runner: &'static str) {
        self.queues.insert(runner, VecDeque::new());
    }

    pub fn queue(&mut self, runner: &'static str) -> &mut VecDeque<FeedMessage> {
        self.queues.entry(runner).or_default()
    }

    fn pass_on(&mut self) -> Option<u64> {
        let message = self.on_their_way.pop_front()?;
        let event = message.event.map(Arc::new);
        for queue in self.queues.values_mut() {
            if queue.len() >= CAPACITY {
                queue.clear();
                queue.push_back(FeedMessage::Lagged);
            }
            queue.extend(event.clone().map(FeedMessage::Event));
        }
        Some(message.position.get())
    }
}

/// The stream JOURNAL.
#[derive(Default)]
pub(crate) struct Stream {
    pub last: u64,
    pub messages: BTreeMap<u64, JournalMessage>,
}

/// See the module.
pub(crate) struct Nats {
    pub is_up: bool,
    /// Moves whenever the server goes away: connections of before are broken.
    life: u64,
    pub stream: Option<Stream>,
    /// The oldest go first.
    messages_max: usize,
    pub feeds: BTreeMap<ProcessId, Feed>,
    /// Whether anything changed since it was last compared with the journal.
    pub is_dirty: bool,
}

impl Nats {
    pub const fn new(messages_max: usize) -> Self {
        Self { is_up: true, life: 0, stream: None, messages_max, feeds: BTreeMap::new(), is_dirty: false }
    }

    /// The server dies; what it stored stays.
    pub fn go_down(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.drop_consumers();
    }

    /// Its data is gone.
    pub fn wipe(&mut self) {
        self.go_down();
        self.stream = None;
        self.is_dirty = true;
    }

    /// The end of what it stored is gone, as after a power cut.
    pub fn truncate(&mut self, messages: u64) {
        self.go_down();
        if let Some(stream) = &mut self.stream {
            stream.last = stream.last.saturating_sub(messages);
            stream.messages.retain(|sequence, _| *sequence <= stream.last);
            self.is_dirty = true;
        }
    }

    fn drop_consumers(&mut self) {
        for feed in self.feeds.values_mut() {
            feed.is_connected = false;
        }
    }

    fn store(&mut self, sequence: u64, message: JournalMessage) {
        let Some(stream) = &mut self.stream else { return };
        stream.last = sequence;
        stream.messages.insert(sequence, message);
        while stream.messages.len() > self.messages_max {
            stream.messages.pop_first();
        }
        self.is_dirty = true;
    }
}

/// The journal as the relay reads it.
struct Journal<'a> {
    node: &'a Node,
}

impl Journal<'_> {
    async fn read<T>(&self, what: &'static str, read: impl Fn(&mut World) -> T) -> Result<T, ReadError> {
        self.node
            .step(what, |world| {
                if !world.postgres.is_up || world.goes_wrong(3) {
                    return Some(Err(ReadError::Head(sqlx::Error::PoolTimedOut)));
                }
                Some(Ok(read(world)))
            })
            .await
    }
}

impl Source for Journal<'_> {
    async fn head(&self) -> Result<Head, ReadError> {
        self.read("asks for the journal's head", |world| world.journal.head()).await
    }

    async fn at(&self, position: Position) -> Result<Option<RecordedEvent>, ReadError> {
        let at = |world: &mut World| world.journal.at(position).map(|recorded| (*recorded.row).clone());
        self.read("reads one event", at).await
    }

    async fn after(&self, position: Position) -> Result<Vec<RecordedEvent>, ReadError> {
        let after = |world: &mut World| {
            world.journal.after(position, PAGE).iter().map(|recorded| (*recorded.row).clone()).collect()
        };
        self.read("reads a page", after).await
    }
}

/// One connection to NATS.
struct JetStream<'a> {
    node: &'a Node,
    life: u64,
}

impl JetStream<'_> {
    /// One request; lost with the connection.
    async fn ask<T>(
        &self,
        what: &'static str,
        mut answer: impl FnMut(&mut World) -> Result<T, RelayError>,
    ) -> Result<T, RelayError> {
        self.node
            .step(what, |world| {
                if !world.nats.is_up || world.nats.life != self.life || world.goes_wrong(3) {
                    return Some(Err(RelayError::Disconnected));
                }
                Some(answer(world))
            })
            .await
    }
}

impl Broker for JetStream<'_> {
    async fn stream(&self) -> Result<Option<Found>, RelayError> {
        let found = |world: &mut World| {
            Ok(world.nats.stream.as_ref().map(|stream| Found {
                same_setup: true,
                last: Position::new(stream.last),
                is_empty: stream.messages.is_empty(),
            }))
        };
        self.ask("looks up the stream", found).await
    }

    async fn message(&self, sequence: Position) -> Result<Option<JournalMessage>, RelayError> {
        let message = |world: &mut World| {
            Ok(world.nats.stream.as_ref().and_then(|stream| stream.messages.get(&sequence.get()).cloned()))
        };
        self.ask("reads the stream's last message", message).await
    }

    async fn create(&self, first: Position) -> Result<(), RelayError> {
        self.ask("creates the stream", |world| {
            // One that another relay made meanwhile stays; the server refuses to make another of other settings.
            let stream = Stream { last: first.get() - 1, messages: BTreeMap::new() };
            world.nats.stream.get_or_insert(stream);
            world.counts.refills += 1;
            Ok(())
        })
        .await
    }

    async fn delete(&self) -> Result<(), RelayError> {
        self.ask("deletes the stream", |world| {
            world.nats.stream = None;
            world.nats.drop_consumers();
            Ok(())
        })
        .await
    }

    async fn publish(&self, journal_id: Uuid, events: &[RecordedEvent]) -> Result<(), RelayError> {
        let mut stored = Vec::with_capacity(events.len());
        for event in events {
            let (headers, body) = message::encode(journal_id, event, MAX_PAYLOAD);
            let decoded = message::decode_parts(&headers, body.as_bytes());
            let publish = |world: &mut World| match &decoded {
                Ok(message) => Ok(publish(world, event.position, message)),
                Err(error) => {
                    world.fail(format!("a message that cannot be read back: {error}"));
                    Err(RelayError::Disconnected)
                }
            };
            stored.push((event.position, self.ask("publishes an event", publish).await?));
        }
        self.ask("hears from NATS", |_| Ok(())).await?;
        for (position, stored) in stored {
            let sequence = stored.map_err(|source| RelayError::Publish { position, source })?;
            if sequence != position.get() {
                return Err(RelayError::WrongSequence { position, sequence });
            }
        }
        Ok(())
    }
}

/// What the server does with a message, and where it then stands.
fn publish(world: &mut World, position: Position, message: &JournalMessage) -> Result<u64, PublishError> {
    let last = match &world.nats.stream {
        None => return Err(PublishError::new(PublishErrorKind::StreamNotFound)),
        Some(stream) => stream.last,
    };
    if last + 1 != position.get() && world.plant != Some(Bug::NoExpectedSequence) {
        return Err(PublishError::new(PublishErrorKind::WrongLastSequence));
    }
    world.nats.store(last + 1, message.clone());
    let feeds: Vec<ProcessId> = world.nats.feeds.keys().copied().collect();
    for process in feeds {
        let is_lost = world.goes_wrong(20);
        if let Some(feed) = world.nats.feeds.get_mut(&process)
            && feed.is_connected
            && !is_lost
        {
            feed.on_their_way.push_back(message.clone());
        }
    }
    Ok(last + 1)
}

/// The relay's loop, as `fanledger_journal::relay::Relay` runs it: the lock for liveness, the expected sequence for safety.
pub(crate) async fn relay(node: Node) {
    loop {
        let _: Result<std::convert::Infallible, RelayError> = hold_and_publish(&node).await;
        node.sleep(BACKOFF).await;
    }
}

fn lost(_: Gone) -> RelayError {
    RelayError::Lock(sqlx::Error::WorkerCrashed)
}

async fn hold_and_publish(node: &Node) -> Result<std::convert::Infallible, RelayError> {
    let lock = Connection::open(node).await.map_err(lost)?;
    while !lock.try_lock(node, "relay").await.map_err(lost)? {
        node.sleep(LOCK_PING).await;
    }
    let life = node.world().nats.life;
    let mirror = Mirror::new(Journal { node }, JetStream { node, life }, REFILL_EVENTS);
    loop {
        let Synchronised { mut end, .. } = mirror.synchronise().await?;
        let outcome: Result<std::convert::Infallible, RelayError> = async {
            let mut lock_seen = node.world().now;
            let mut page = mirror.page_after(end.position).await?;
            loop {
                if node.world().now - lock_seen > LOCK_PING {
                    lock.run(node, "makes sure of its lock", |_| ()).await.map_err(lost)?;
                    lock_seen = node.world().now;
                }
                if page.is_empty() {
                    let until = lock_seen + LOCK_PING + MILLISECOND;
                    node.step("finds news, or a poll due", |world| {
                        if world.nats.life != life {
                            return Some(Err(RelayError::Disconnected));
                        }
                        let is_news = world.postgres.is_up && world.journal.position() > end.position;
                        (is_news || world.until(until)).then_some(Ok(()))
                    })
                    .await?;
                    page = mirror.page_after(end.position).await?;
                    continue;
                }
                page = mirror.publish(&mut end, &page).await?;
            }
        }
        .await;
        let Err(error) = outcome;
        if !error.asks_for_another_look() {
            return Err(error);
        }
        node.sleep(BACKOFF).await;
    }
}

/// The consumer of a process: gets messages and passes them on; never lies, may lose.
pub(crate) async fn consume(node: Node) {
    loop {
        node.sleep(BACKOFF).await;
        let is_connected = node
            .step("subscribes to the stream", |world| {
                let is_there = world.nats.is_up && world.nats.stream.is_some();
                let feed = world.nats.feeds.entry(node.process).or_default();
                feed.is_connected = is_there;
                Some(is_there)
            })
            .await;
        if !is_connected {
            continue;
        }
        loop {
            let goes_on = node
                .step_with("passes a message on", |world| {
                    let feed = world.nats.feeds.entry(node.process).or_default();
                    if let Some(position) = feed.pass_on() {
                        return Some((true, position));
                    }
                    (!feed.is_connected).then_some((false, 0))
                })
                .await;
            if !goes_on {
                break;
            }
        }
    }
}
