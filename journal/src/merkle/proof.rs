//! Proofs that an event is in the journal, for somebody who has no database: the event, its audit path, and a signed checkpoint.
//!
//! The form is C2SP's `tlog-proof` (<https://c2sp.org/tlog-proof>); its line of extra data carries the event itself, from which the
//! node of the tree is computed, and the public key that the checkpoint is said to be signed by.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::checkpoint::{Checkpoint, CheckpointError, TrustedKey, VerifierKey};
use super::{NodeHash, PathBuilder, Tree, root_of_path};
use crate::copy;
use crate::event::Position;
use crate::export::EventRecord;
use crate::verify::Progress;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// Positions per page: a fraction of a second's work, so that no snapshot is held long.
const PAGE: i64 = 100_000;

/// What the line of extra data holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Extra {
    event: EventRecord,
    verifier_key: String,
}

/// A proof as it is written. Nothing of it is believed before [`InclusionProof::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    extra: Extra,
    path: Vec<NodeHash>,
    /// The signed text.
    checkpoint: String,
}

/// What a proof proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The event, exactly as it is in the journal.
    pub event: EventRecord,
    /// The state of the journal that it is part of.
    pub checkpoint: Checkpoint,
}

/// Why a proof proves nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    /// Not of the form.
    #[error("not a proof: {0}")]
    Form(&'static str),
    /// The line of extra data does not hold an event.
    #[error("not a proof of an event: its extra data is not what fanledger writes ({0})")]
    Extra(String),
    /// The checkpoint in it cannot be relied on.
    #[error("the checkpoint in the proof cannot be relied on")]
    Checkpoint(#[from] CheckpointError),
    /// Event, path and checkpoint do not fit together.
    #[error(
        "the event is not in the journal that the checkpoint signed: it leads to the root {found}, the checkpoint's is {signed}"
    )]
    Root {
        /// Where event and path lead; `none` where the path has not the length that it must have.
        found: String,
        /// The checkpoint's root.
        signed: NodeHash,
    },
    /// It is of another journal than was asked for.
    #[error("a proof for another journal: it is of {found}, and not of {expected}")]
    OtherJournal {
        /// The origin of its checkpoint.
        found: String,
        /// The one that was asked for.
        expected: String,
    },
}

/// Why no proof could be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// No connection.
    #[error("connect to the journal to prove an event")]
    Connect(#[source] sqlx::Error),
    /// A page could not be read.
    #[error("read the journal from position {from} to prove an event")]
    Page {
        /// The page's first position.
        from: i64,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// The checkpoint was signed when the journal did not hold the event yet.
    #[error("the checkpoint covers the first {size} events: sign a newer one to prove position {position}")]
    Beyond {
        /// What is to be proved.
        position: Position,
        /// The checkpoint's size.
        size: u64,
    },
    /// The journal does not extend the checkpoint.
    #[error(
        "the journal is not what the checkpoint signed: its first {size} events have the root {found}, the checkpoint's is {signed}; `fanledger journal verify --against` tells more"
    )]
    Diverged {
        /// The checkpoint's size.
        size: u64,
        /// The root of as many events.
        found: NodeHash,
        /// The checkpoint's root.
        signed: NodeHash,
    },
    /// The event does not digest to its own leaf.
    #[error("the event at position {position} was changed: its content does not digest to its leaf")]
    Content {
        /// Where.
        position: Position,
    },
}

/// Proves the event at `position` to be part of the journal when `note` was signed; `checkpoint` and `key` are what that text
/// was opened to, and with. Reads all events up to the checkpoint once: their leaves, not their content.
///
/// # Errors
/// When the journal cannot be read, or is not what the checkpoint says.
pub async fn prove(
    connection: &mut PgConnection,
    position: Position,
    (note, checkpoint, key): (&str, &Checkpoint, &VerifierKey),
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<InclusionProof, ProveError> {
    let size = checkpoint.size;
    let index = position.get().wrapping_sub(1);
    let Some(mut path) = PathBuilder::new(index, size) else { return Err(ProveError::Beyond { position, size }) };
    let last = Position::new(size);
    let mut tree = Tree::default();
    for from in (1..=last.as_i64()).step_by(PAGE as usize) {
        let to = last.as_i64().min(from + PAGE - 1);
        let statement = format!(
            "COPY (SELECT position, recorded_at, leaf FROM journal.events WHERE position BETWEEN {from} AND {to} ORDER BY position) \
             TO STDOUT (FORMAT binary)"
        );
        copy::each_row(connection, &statement, |[position, at, leaf]: [&[u8]; 3]| {
            let leaf = leaf.try_into().unwrap_or_default();
            let node = NodeHash::of_event(copy::integer(position), copy::time_micros(at), &leaf);
            tree.push(node);
            path.push(node);
        })
        .await
        .map_err(|source| ProveError::Page { from, source })?;
        progress(Progress { position: Position::from_i64(to), last });
    }
    let found = tree.root();
    if found != checkpoint.root {
        return Err(ProveError::Diverged { size, found, signed: checkpoint.root });
    }
    let mut event = None;
    copy::each_event(connection, position.as_i64(), position.as_i64(), |row| {
        let record = EventRecord::of(row);
        event = (record.leaf() == row.leaf).then_some(record);
    })
    .await
    .map_err(|source| ProveError::Page { from: position.as_i64(), source })?;
    let event = event.ok_or(ProveError::Content { position })?;
    let extra = Extra { event, verifier_key: key.to_string() };
    Ok(InclusionProof { extra, path: path.path(), checkpoint: note.to_owned() })
}

impl InclusionProof {
    /// Reads a proof.
    ///
    /// # Errors
    /// When it is not of the form.
    pub fn read(text: &str) -> Result<Self, ProofError> {
        let form = ProofError::Form;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(form("no checkpoint follows after an empty line"))?;
        let mut lines = head.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(form("its first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra =
            lines.next().and_then(|line| line.strip_prefix("extra ")).ok_or(form("it has no line of extra data"))?;
        let extra = BASE64.decode(extra).map_err(|_| form("its extra data is not base64"))?;
        let extra: Extra = serde_json::from_slice(&extra).map_err(|error| ProofError::Extra(error.to_string()))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(form("it has no index"))?;
        // Two places that say the same must say the same, or a reader could be shown the other one.
        if extra.event.position.checked_sub(1).filter(|index| *index >= 0).map(|index| index.to_string()).as_deref()
            != Some(index)
        {
            return Err(form("its index is not that of its event"));
        }
        let hash = |line: &str| BASE64.decode(line).ok()?.try_into().ok().map(NodeHash);
        let path =
            lines.map(hash).collect::<Option<Vec<_>>>().ok_or(form("a line of its path is not 32 bytes in base64"))?;
        Ok(Self { extra, path, checkpoint: checkpoint.to_owned() })
    }

    /// The public key that came with it, which proves nothing until it is compared with one that is trusted.
    pub fn enclosed_key(&self) -> Option<TrustedKey> {
        self.extra.verifier_key.parse().ok().map(TrustedKey::Named)
    }

    /// Checks it against a key that is trusted and, where it is given, the origin of the journal that it must be of.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn check(&self, key: &TrustedKey, origin: Option<&str>) -> Result<Proved, ProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        if let Some(expected) = origin.filter(|origin| *origin != checkpoint.origin) {
            return Err(ProofError::OtherJournal { found: checkpoint.origin, expected: expected.to_owned() });
        }
        let event = &self.extra.event;
        let node = NodeHash::of_event(event.position, event.recorded_at_micros, &event.leaf());
        let index = event.position.wrapping_sub(1).cast_unsigned();
        let found = root_of_path(node, index, checkpoint.size, &self.path);
        if found != Some(checkpoint.root) {
            let found = found.map_or_else(|| "none".to_owned(), |root| root.to_string());
            return Err(ProofError::Root { found, signed: checkpoint.root });
        }
        Ok(Proved { event: event.clone(), checkpoint })
    }
}

/// The text that is written.
impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = serde_json::to_vec(&self.extra).map_err(|_| fmt::Error)?;
        writeln!(f, "{FIRST_LINE}\nextra {}\nindex {}", BASE64.encode(extra), self.extra.event.position - 1)?;
        for node in &self.path {
            writeln!(f, "{}", BASE64.encode(node.0))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
