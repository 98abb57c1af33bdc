//! What is appended and what comes of it: commands, guards, keys, outcomes, errors.

use std::sync::Arc;

use crate::event::{Metadata, NewEvent, Position, StreamId};

/// Bytes of payload and metadata that one call of `journal.append` takes; the SQL function holds the same bound.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Commands that one call takes.
pub const BATCH_COMMANDS_MAX: usize = 256;
/// Events that one call takes.
pub const BATCH_EVENTS_MAX: usize = 4096;

/// A list of events for one stream, appended as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The stream that is written.
    pub stream: StreamId,
    /// The last sequence that the decision saw; 0 means that the stream must be new.
    pub expected: u64,
    /// Other streams that the decision read, with what it saw of each.
    pub guards: Vec<Guard>,
    /// Tells a repetition from a new request. A stream that is unique by its id needs none.
    pub key: Option<IdempotencyKey>,
    /// Who and because of what; the same for all events.
    pub metadata: Metadata,
    /// At least one event.
    pub events: Vec<NewEvent>,
    /// The wrapped key of a sealed payload, kept in the vault if and only if the command is appended.
    pub vault_key: Option<Vec<u8>>,
}

impl Command {
    /// A command with neither guards nor key nor vault key.
    pub const fn new(stream: StreamId, expected: u64, metadata: Metadata, events: Vec<NewEvent>) -> Self {
        Self { stream, expected, guards: Vec::new(), key: None, metadata, events, vault_key: None }
    }
}

/// A stream that was read and is not written: the command is appended only if the stream is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The stream.
    pub stream: StreamId,
    /// Its last sequence as it was read; 0 if it had no event.
    pub sequence: u64,
}

/// A key together with a digest of the request that it stands for: the same key with another request is misuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// A digest of the key and what scopes it (subject, route).
    pub key: [u8; 32],
    /// A digest of the request's input, never of the events that it led to.
    pub request: [u8; 32],
}

/// What became of a command that the journal judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Appended {
        /// The first event's position.
        first: Position,
        /// The last event's position.
        last: Position,
    },
    /// Its key was seen with the same request: these are the first one's positions.
    Duplicate {
        /// The first event's position.
        first: Position,
        /// The last event's position.
        last: Position,
    },
    /// The stream, or a guarded one, is not where the decision saw it: load, decide and append again.
    Conflict {
        /// Which.
        stream: StreamId,
        /// Its last sequence now.
        actual: u64,
    },
    /// Its key was seen with another request.
    Misuse,
}

impl Outcome {
    /// The word for it, in metrics and traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Appended { .. } => "appended",
            Self::Duplicate { .. } => "duplicate",
            Self::Conflict { .. } => "conflict",
            Self::Misuse => "misuse",
        }
    }

    /// How many events the journal grew by.
    pub const fn appended_events(&self) -> u64 {
        match self {
            Self::Appended { first, last } => last.get() - first.get() + 1,
            Self::Duplicate { .. } | Self::Conflict { .. } | Self::Misuse => 0,
        }
    }
}

/// Why a command was not appended, or cannot be said to have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Postgres could not be reached or did not answer. Trying again is safe: a command that was committed after all is
    /// then a conflict at its own events, or a duplicate by its key.
    #[error("the journal is unavailable ({}); try again", if *may_have_committed { "the command may have been committed" } else { "nothing was committed" })]
    Unavailable {
        /// Whether the command may be in the journal nevertheless.
        may_have_committed: bool,
        /// What Postgres or the connection said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// Postgres committed and warned while it did (with synchronous replication: a wait for the standby was cut short).
    #[error("the command was committed but may not be durable: {warning}; try again")]
    NotDurable {
        /// What Postgres said.
        warning: Arc<str>,
    },
    /// This process's clock and the database's are more than 60 s apart.
    #[error("this machine's clock is more than 60 s from the database's: set both by NTP")]
    ClockSkew(#[source] Arc<sqlx::Error>),
    /// The command alone passes what one call takes.
    #[error(
        "the command has {events} events and {bytes} bytes; at most {BATCH_EVENTS_MAX} and {BATCH_BYTES_MAX} are taken"
    )]
    TooLarge {
        /// Its events.
        events: usize,
        /// Its bytes of payload and metadata.
        bytes: usize,
    },
    /// The command has no events, or guards the stream that it writes.
    #[error("a command has at least one event, and `expected` is the only guard of its own stream")]
    Malformed,
    /// The metadata is not JSON.
    #[error("write the metadata as JSON")]
    Metadata(#[source] Arc<serde_json::Error>),
    /// This role may not append to streams of this type.
    #[error("stream type {aggregate_type} is not registered for this role in journal.stream_types")]
    StreamType {
        /// The type.
        aggregate_type: String,
        /// What Postgres said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// A ledger entry does not balance or lacks its form.
    #[error("the journal refused a ledger entry")]
    Entry(#[source] Arc<sqlx::Error>),
    /// A ledger entry's id is in the journal already.
    #[error("a ledger entry with this entry_id exists")]
    EntryIdExists(#[source] Arc<sqlx::Error>),
    /// A name, the payload or a vault key does not have the form that the tables ask for.
    #[error("the journal refused the command: a name or payload is not of the form that it takes")]
    Form(#[source] Arc<sqlx::Error>),
    /// The call cannot succeed as it is made: a missing right, a missing function. Migrate, or check the role.
    #[error("the journal cannot be appended to; is the database migrated, and is this the command role?")]
    Setup(#[source] Arc<sqlx::Error>),
    /// The writer was shut down before it took the command.
    #[error("the writer is shut down; the command was not taken")]
    Closed,
}

impl AppendError {
    /// The `reason` of `fanledger_journal_append_failures_total`.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } | Self::Closed => "unavailable",
            Self::NotDurable { .. } => "not_durable",
            Self::ClockSkew(_) => "clock",
            Self::Setup(_) | Self::StreamType { .. } => "setup",
            Self::TooLarge { .. }
            | Self::Malformed
            | Self::Metadata(_)
            | Self::Entry(_)
            | Self::EntryIdExists(_)
            | Self::Form(_) => "refused",
        }
    }

    /// Whether the same command may succeed if it is sent again a little later.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::NotDurable { .. } | Self::ClockSkew(_) | Self::Closed => true,
            Self::TooLarge { .. }
            | Self::Malformed
            | Self::Metadata(_)
            | Self::StreamType { .. }
            | Self::Entry(_)
            | Self::EntryIdExists(_)
            | Self::Form(_)
            | Self::Setup(_) => false,
        }
    }
}
