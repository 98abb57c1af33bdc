//! What the relay decides: whether a stream that is found mirrors this journal, and what is published next.
//!
//! The journal and the broker are traits, so that the same decisions run against the simulator's, where everything that can go
//! wrong does. The rule of the whole: stream sequence = position, always; and what does not fit is made anew.

use std::future::Future;

use uuid::Uuid;

use super::RelayError;
use crate::checkpoint::Checkpoint;
use crate::event::{ChainDigest, Position, RecordedEvent};
use crate::message::JournalMessage;
use crate::reader::{Head, ReadError, Reader};

/// Events of a page; as many are in flight at once. NATS answers within a millisecond or two, so this is tens of thousands a second.
const PAGE_EVENTS: u32 = 512;
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// The journal, as far as the relay reads it.
pub trait Source: Send + Sync {
    /// Where it ends.
    ///
    /// # Errors
    /// When it cannot be asked; as the others.
    fn head(&self) -> impl Future<Output = Result<Head, ReadError>> + Send;

    /// The event at a position, if the journal reaches there.
    fn at(&self, position: Position) -> impl Future<Output = Result<Option<RecordedEvent>, ReadError>> + Send;

    /// The next events after a position, in order; none at the head.
    fn after(&self, position: Position) -> impl Future<Output = Result<Vec<RecordedEvent>, ReadError>> + Send;
}

impl Source for Reader {
    async fn head(&self) -> Result<Head, ReadError> {
        Reader::head(self).await
    }

    async fn at(&self, position: Position) -> Result<Option<RecordedEvent>, ReadError> {
        Reader::at(self, position).await
    }

    async fn after(&self, position: Position) -> Result<Vec<RecordedEvent>, ReadError> {
        Reader::after(self, position, PAGE_EVENTS, PAGE_BYTES).await
    }
}

/// A stream as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whether it is bounded and fed as ours would be.
    pub same_setup: bool,
    /// The sequence of its last message, also where that is no longer there.
    pub last: Position,
    /// Whether it holds no message.
    pub is_empty: bool,
}

/// The broker, as far as the relay uses it.
pub trait Broker: Send + Sync {
    /// The stream, where there is one.
    ///
    /// # Errors
    /// When the broker cannot be asked, or refuses; as the others.
    fn stream(&self) -> impl Future<Output = Result<Option<Found>, RelayError>> + Send;

    /// The message at a sequence; none where it is missing or not the relay's.
    fn message(&self, sequence: Position) -> impl Future<Output = Result<Option<JournalMessage>, RelayError>> + Send;

    /// Makes a stream whose first sequence is `first`.
    fn create(&self, first: Position) -> impl Future<Output = Result<(), RelayError>> + Send;

    /// Deletes the stream.
    fn delete(&self) -> impl Future<Output = Result<(), RelayError>> + Send;

    /// Publishes each event, expecting the stream to end right before its position, and waits until all are stored there.
    fn publish(
        &self,
        journal_id: Uuid,
        events: &[RecordedEvent],
    ) -> impl Future<Output = Result<(), RelayError>> + Send;
}

/// Where the stream ends, once it mirrors the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synchronised {
    /// Its end.
    pub end: Checkpoint,
    /// Whether it was made anew for it.
    pub refilled: bool,
}

/// A journal and the stream that mirrors it.
#[derive(Debug)]
pub struct Mirror<S, B> {
    source: S,
    broker: B,
    /// How many of the journal's last events a new stream is filled with.
    refill_events: u64,
}

impl<S: Source, B: Broker> Mirror<S, B> {
    /// Of `source` on `broker`.
    pub const fn new(source: S, broker: B, refill_events: u64) -> Self {
        Self { source, broker, refill_events }
    }

    /// Makes sure that the stream is there and mirrors this journal.
    ///
    /// # Errors
    /// When the journal or the broker cannot be asked.
    pub async fn synchronise(&self) -> Result<Synchronised, RelayError> {
        if let Some(found) = self.broker.stream().await? {
            if let Some(end) = self.end_if_ours(found).await? {
                return Ok(Synchronised { end, refilled: false });
            }
            tracing::warn!("the stream JOURNAL does not mirror this journal; it is filled anew");
            self.broker.delete().await?;
        }
        let head = self.source.head().await.map_err(RelayError::Journal)?;
        let before_first = Position::new(head.position.get().saturating_sub(self.refill_events));
        let chain = self.chain_at(before_first).await?.ok_or(RelayError::HistoryChanged(before_first))?;
        self.broker.create(before_first.next()).await?;
        let end = Checkpoint { journal_id: head.journal_id, position: before_first, chain };
        Ok(Synchronised { end, refilled: true })
    }

    /// The stream's end, if the stream is set up as we would and what it ends with is in the journal.
    async fn end_if_ours(&self, found: Found) -> Result<Option<Checkpoint>, RelayError> {
        // Asked after the stream's end is known: another relay may be publishing.
        let head = self.source.head().await.map_err(RelayError::Journal)?;
        let too_far_back = found.last.get() + self.refill_events < head.position.get();
        if !found.same_setup || found.last > head.position || too_far_back {
            return Ok(None);
        }
        let Some(chain) = self.chain_at(found.last).await? else { return Ok(None) };
        let end = Checkpoint { journal_id: head.journal_id, position: found.last, chain };
        if found.is_empty {
            // Nothing in it that could be of another history; the next message says what it follows.
            return Ok(Some(end));
        }
        let ours = self.broker.message(found.last).await?.is_some_and(|message| {
            Checkpoint { journal_id: message.journal_id, position: message.position, chain: message.chain } == end
        });
        Ok(ours.then_some(end))
    }

    /// The chain up to `position`; `None` if the journal does not reach that far.
    async fn chain_at(&self, position: Position) -> Result<Option<ChainDigest>, RelayError> {
        if position == Position::START {
            return Ok(Some(ChainDigest::START));
        }
        let event = self.source.at(position).await.map_err(RelayError::Journal)?;
        Ok(event.map(|event| event.chain))
    }

    /// The next events after a position; none at the head.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn page_after(&self, position: Position) -> Result<Vec<RecordedEvent>, RelayError> {
        self.source.after(position).await.map_err(RelayError::Journal)
    }

    /// Publishes a page that goes on from `end`, moves `end`, and reads the page after it.
    ///
    /// # Errors
    /// When the page does not follow on `end`, which was then published in vain; when it is not stored; when the journal cannot
    /// be read. `end` is then no longer known.
    pub async fn publish(
        &self,
        end: &mut Checkpoint,
        page: &[RecordedEvent],
    ) -> Result<Vec<RecordedEvent>, RelayError> {
        for event in page {
            if !end.is_followed_by(event) {
                return Err(RelayError::HistoryChanged(end.position));
            }
            *end = end.after(event);
        }
        // The next page is read while this one's acknowledgements are on their way.
        let (published, next) = tokio::join!(self.broker.publish(end.journal_id, page), self.page_after(end.position));
        published?;
        next
    }
}
