//! The digests that make the journal tamper-evident, as `journal.append` computes them in SQL.
//!
//! `docs/journal-format.md` describes the bytes for a third implementation; a test holds this one and the SQL together.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::event::{ChainDigest, Position};

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

/// SHA-256 over tag, then each field in order; texts with their length in bytes as a big-endian u64 before them.
pub fn leaf(content: &Content<'_>) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix(LEAF_TAG);
    let text = |bytes: &[u8], digest: &mut Sha256| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    text(content.aggregate_type, &mut digest);
    text(content.aggregate_id, &mut digest);
    digest.update(content.sequence.to_be_bytes());
    text(content.event_type, &mut digest);
    text(content.event_version, &mut digest);
    digest.update(content.event_id.as_bytes());
    text(content.payload, &mut digest);
    text(content.metadata, &mut digest);
    digest.finalize().into()
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
