//! The digests that make the journal tamper-evident, as `journal.append` computes them in SQL.
//!
//! `docs/journal-format.md` describes the bytes for a third implementation; a test holds this one and the SQL together.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::event::{ChainDigest, Position, RecordedEvent};

/// First bytes of what a leaf is the digest of, so that it can never be mistaken for a chain digest's input.
const LEAF_TAG: &[u8] = b"fanledger/leaf/v1\0";
/// First bytes of what a chain digest is the digest of.
const CHAIN_TAG: &[u8] = b"fanledger/chain/v1\0";

/// An event's own content: everything but its place in the journal and its time.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The stream's type, as bytes: tampered rows need not be UTF-8.
    pub aggregate_type: &'a [u8],
    /// The stream's id.
    pub aggregate_id: &'a [u8],
    /// The number within the stream.
    pub sequence: i64,
    /// The event's type.
    pub event_type: &'a [u8],
    /// The version of the payload's shape.
    pub event_version: &'a [u8],
    /// The event's id.
    pub event_id: Uuid,
    /// The payload's exact bytes.
    pub payload: &'a [u8],
    /// The metadata's exact bytes.
    pub metadata: &'a [u8],
}

impl<'a> Content<'a> {
    /// That of an event as it was read.
    pub fn of(event: &'a RecordedEvent) -> Self {
        Self {
            aggregate_type: event.stream.aggregate_type.as_bytes(),
            aggregate_id: event.stream.aggregate_id.as_bytes(),
            sequence: event.sequence.cast_signed(),
            event_type: event.event_type.as_bytes(),
            event_version: event.event_version.as_bytes(),
            event_id: event.event_id,
            payload: event.payload.as_bytes(),
            metadata: event.metadata.as_bytes(),
        }
    }
}

/// SHA-256 over tag, then each field in order; texts with their length in bytes as a big-endian u64 before them.
pub fn leaf(content: &Content<'_>) -> [u8; 32] {
    // What is short is gathered first: a dozen updates of a few bytes cost as much as hashing them.
    let mut short = Gathered { bytes: [0; GATHERED_BYTES], length: 0, digest: Sha256::new() };
    short.push(LEAF_TAG);
    short.text(content.aggregate_type);
    short.text(content.aggregate_id);
    short.push(&content.sequence.to_be_bytes());
    short.text(content.event_type);
    short.text(content.event_version);
    short.push(content.event_id.as_bytes());
    short.text(content.payload);
    short.text(content.metadata);
    short.finish().into()
}

/// Enough for all but the payload of nearly every event.
const GATHERED_BYTES: usize = 512;

struct Gathered {
    bytes: [u8; GATHERED_BYTES],
    length: usize,
    digest: Sha256,
}

impl Gathered {
    fn text(&mut self, bytes: &[u8]) {
        self.push(&(bytes.len() as u64).to_be_bytes());
        self.push(bytes);
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.length..self.length + bytes.len()) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => {
                self.flush();
                self.digest.update(bytes);
            }
        }
    }

    fn flush(&mut self) {
        self.digest.update(&self.bytes[..self.length]);
        self.length = 0;
    }

    fn finish(mut self) -> sha2::digest::Output<Sha256> {
        self.flush();
        self.digest.finalize()
    }
}

/// SHA-256 over tag, the previous chain, the position, the time in microseconds since 1970, and the leaf.
pub fn chain(previous: ChainDigest, position: Position, recorded_at_micros: i64, leaf: &[u8; 32]) -> ChainDigest {
    let mut input = [0_u8; CHAIN_TAG.len() + 80];
    let (tag, rest) = input.split_at_mut(CHAIN_TAG.len());
    tag.copy_from_slice(CHAIN_TAG);
    rest[..32].copy_from_slice(&previous.0);
    rest[32..40].copy_from_slice(&position.get().to_be_bytes());
    rest[40..48].copy_from_slice(&recorded_at_micros.to_be_bytes());
    rest[48..].copy_from_slice(leaf);
    ChainDigest(Sha256::digest(input).into())
}

/// A time as the chain binds it.
pub const fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `docs/journal-format.md`, whose digests were computed with another program.
    #[test]
    fn the_documented_example_digests_as_documented() {
        let leaf = leaf(&Content {
            aggregate_type: b"stripe_event",
            aggregate_id: b"evt_1",
            sequence: 1,
            event_type: b"StripeEventReceived",
            event_version: b"1",
            event_id: Uuid::from_u128(0x0198_f3c2_0000_7000_8000_0000_0000_0001),
            payload: br#"{"a": 1}"#,
            metadata: br#"{"actor":"system:test"}"#,
        });
        assert_eq!(hex::encode(leaf), "32edcb295c8663fba64bf3736b16512ba6b68d049a364b724cb6512bc6e558e3");
        let chain = chain(ChainDigest::START, Position::new(1), 1767323045678901, &leaf);
        assert_eq!(hex::encode(chain.0), "7671a594faf86486275ebe35027d30ed8638d65f84967e7d3ff4354436e5fcf3");
    }
}
