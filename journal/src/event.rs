//! What the journal is made of: positions, streams, events as they are proposed and as they are recorded.
//!
//! The journal knows an event as a type name, a version and bytes. What the bytes mean is `fanledger-domain`'s affair.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where an event stands in the journal: 1, 2, 3, … with no gap, in commit order. `Position::START` (0) stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first event; the position of an empty journal's head.
    pub const START: Self = Self(0);

    /// The position `n`; 0 is [`Position::START`].
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// As a plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As Postgres's `bigint`. Positions grow by one per event, so the sign bit is never reached.
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// From Postgres's `bigint`; a negative number, which the database's CHECK excludes, reads as the start.
    pub const fn from_i64(n: i64) -> Self {
        if n < 0 { Self::START } else { Self(n.cast_unsigned()) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a stream: `stripe_charge/ch_1`. The pair is unique; events in it are numbered 1, 2, 3, …
///
/// Allowed forms, held by the database too: type `[a-z][a-z0-9_]{0,31}`, id `[A-Za-z0-9_.:-]{1,200}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// What kind of thing it is, `stripe_charge`.
    pub aggregate_type: String,
    /// Which one, `ch_1`.
    pub aggregate_id: String,
}

impl StreamId {
    /// Names a stream. The forms are checked when something is appended to it.
    pub fn new(aggregate_type: impl Into<String>, aggregate_id: impl Into<String>) -> Self {
        Self { aggregate_type: aggregate_type.into(), aggregate_id: aggregate_id.into() }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.aggregate_type, self.aggregate_id)
    }
}

/// The chain digest over everything up to and including one position; 32 bytes, all zero before the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainDigest(pub [u8; 32]);

impl ChainDigest {
    /// The chain before the first event.
    pub const START: Self = Self([0; 32]);
}

impl fmt::Debug for ChainDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// An event that somebody wants to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// `[A-Z][A-Za-z0-9]{0,63}`, past tense; permanent once written.
    pub event_type: String,
    /// The version of the payload's shape, `1`.
    pub event_version: String,
    /// The payload as JSON text. These exact bytes are hashed and stored.
    pub payload: String,
}

/// An event as the journal holds it. The same type comes out of Postgres and out of NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its place in the journal.
    pub position: Position,
    /// UUIDv7, made by the writer.
    pub event_id: Uuid,
    /// When it was appended; never goes backwards along positions. Microseconds.
    pub recorded_at: DateTime<Utc>,
    /// Its stream.
    pub stream: StreamId,
    /// Its number within the stream, from 1.
    pub sequence: u64,
    /// What happened.
    pub event_type: String,
    /// The version of the payload's shape.
    pub event_version: String,
    /// The payload's exact bytes.
    pub payload: Arc<str>,
    /// The metadata's exact bytes: a flat JSON object, string to string (`actor`, `correlation_id`, `causation_id`, `traceparent`).
    pub metadata: Arc<str>,
    /// The chain digest up to and including this event.
    pub chain: ChainDigest,
    /// The chain digest before this event.
    pub previous_chain: ChainDigest,
}

/// Who did it and because of what; flat, string to string, in the clear, so never personal data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// A typed id: `system:stripe_translator`, `fan_…`, `operator:…`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
    /// Ties together all that one outside request led to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub correlation_id: Option<String>,
    /// The event (its id, or an outside id such as Stripe's `evt_…`) that led to this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub causation_id: Option<String>,
    /// The span that appended it, where that was sampled (W3C Trace Context); the writer's to set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
}
