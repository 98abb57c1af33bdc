//! Whether one event is as it was recorded: asked before somebody acts on what it says.

use fanledger_journal::digest::{self, Content};
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::reader::{ReadError, Reader};

/// Why that cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The event could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its leaf could not be read.
    #[error("read the leaf at position {position}")]
    Leaf {
        /// Where.
        position: Position,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
}

/// What is not as `journal.append` wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// The journal goes on after it, and it is not there.
    Missing,
    /// Its content.
    Content,
    /// Its time, or its place after the event before, which is taken as it is.
    Chain,
}

impl Divergence {
    /// In words.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Missing => "the row is missing",
            Self::Content => "the content does not digest to the leaf",
            Self::Chain => "the chain does not follow from the event before, the time and the leaf",
        }
    }
}

/// What a position that the journal has reached holds otherwise than it was recorded: one event's part of `fanledger journal verify`.
/// The reader is of any role that may read the journal.
///
/// # Errors
/// When it cannot be read.
pub async fn divergence(reader: &Reader, position: Position) -> Result<Option<Divergence>, RecordedError> {
    let Some(event) = reader.at(position).await? else { return Ok(Some(Divergence::Missing)) };
    let leaf: Vec<u8> = sqlx::query_scalar("SELECT leaf FROM journal.events WHERE position = $1")
        .bind(position.as_i64())
        .fetch_one(reader.pool())
        .await
        .map_err(|source| RecordedError::Leaf { position, source })?;
    Ok(judge(&event, &leaf))
}

fn judge(event: &RecordedEvent, leaf: &[u8]) -> Option<Divergence> {
    let digested = digest::leaf(&Content::of(event));
    let at = digest::micros(event.recorded_at);
    if digested.as_slice() != leaf {
        Some(Divergence::Content)
    } else if digest::chain(event.previous_chain, event.position, at, &digested) != event.chain {
        Some(Divergence::Chain)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use fanledger_journal::event::{ChainDigest, StreamId};

    use super::*;

    /// The example of `docs/journal-format.md`.
    #[test]
    fn a_changed_byte_and_a_changed_time_are_found() {
        let leaf = hex::decode("32edcb295c8663fba64bf3736b16512ba6b68d049a364b724cb6512bc6e558e3").unwrap();
        let chain = hex::decode("7671a594faf86486275ebe35027d30ed8638d65f84967e7d3ff4354436e5fcf3").unwrap();
        let event = RecordedEvent {
            position: Position::new(1),
            event_id: uuid::Uuid::from_u128(0x0198_f3c2_0000_7000_8000_0000_0000_0001),
            recorded_at: DateTime::from_timestamp_micros(1_767_323_045_678_901).unwrap(),
            stream: StreamId::new("stripe_event", "evt_1"),
            sequence: 1,
            event_type: "StripeEventReceived".to_owned(),
            event_version: "1".to_owned(),
            payload: r#"{"a": 1}"#.into(),
            metadata: r#"{"actor":"system:test"}"#.into(),
            chain: ChainDigest(chain.try_into().unwrap()),
            previous_chain: ChainDigest::START,
        };
        assert_eq!(judge(&event, &leaf), None);
        let content = RecordedEvent { payload: r#"{"a": 2}"#.into(), ..event.clone() };
        assert_eq!(judge(&content, &leaf), Some(Divergence::Content));
        let time = RecordedEvent { recorded_at: DateTime::UNIX_EPOCH, ..event };
        assert_eq!(judge(&time, &leaf), Some(Divergence::Chain));
    }
}
