//! Letting a runner pass over an event that it cannot apply: the same for the command line and for the operators' API.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fanledger_gateway::{Operators, Skip, SkipReceipt, SkipRefusal};
use fanledger_journal::append::{AppendError, Command, Outcome};
use fanledger_journal::event::{Metadata, Position};
use fanledger_journal::reader::Reader;
use fanledger_journal::runner::{self, Projection, RunnerState, skip_event};
use fanledger_journal::writer::Writer;
use serde::Serialize;
use sqlx::PgPool;

use crate::recorded::{self, RecordedError};

/// Appends skips.
pub struct Skips {
    /// What this program knows: the version that is to pass over an event is its own, since a new version may choke on what the
    /// live one has applied.
    versions: BTreeMap<&'static str, u32>,
    /// Of any role that may read `read.runners`.
    pool: PgPool,
    /// Of any role that may read the journal.
    journal: PgPool,
    /// Of a role that may append to `projection_skip`.
    writer: Writer,
}

/// What a skip came to.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// The runner.
    pub name: String,
    /// The version that passes over the event.
    pub version: u32,
    /// The event.
    pub position: Position,
    /// Whether it was skipped before; nothing was appended then.
    pub known: bool,
    /// Whether it stands still until it is resumed.
    #[serde(skip)]
    pub halted: bool,
    /// The journal's head, at least.
    #[serde(skip)]
    pub head: Position,
}

/// Why nothing was skipped.
#[derive(Debug, thiserror::Error)]
pub enum SkipError {
    /// There is none of this name.
    #[error("there is no projection or process manager called {name}; there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It is too late.
    #[error(
        "{name} has applied position {position} already: a rebuild that passed over it would make other tables than the live ones"
    )]
    Applied {
        /// Which.
        name: String,
        /// The position.
        position: Position,
    },
    /// Nothing is there yet.
    #[error("the journal ends at position {head}: there is nothing at {position} to pass over")]
    Beyond {
        /// The position.
        position: Position,
        /// The journal's head.
        head: Position,
    },
    /// The event was changed after it was appended, or rotted: whatever it said, a skip would keep it out of the tables for good.
    #[error(
        "position {position} is not as it was recorded: {found}; nothing is skipped. Run `fanledger journal verify`, and restore what was \
         there: docs/runbooks/halted.md"
    )]
    NotAsRecorded {
        /// The position.
        position: Position,
        /// What differs.
        found: &'static str,
    },
    /// The event could not be looked at.
    #[error("look at the event before it is skipped")]
    Look(#[source] RecordedError),
    /// Postgres could not be asked.
    #[error("ask for the projections' status; is the database migrated?")]
    Status(#[source] sqlx::Error),
    /// The journal did not take it.
    #[error("append the skip to the journal; to send it again is safe")]
    Append(#[source] AppendError),
    /// Something else is in the skip's stream.
    #[error("the journal refused the skip: {0:?}; run `fanledger doctor`")]
    Refused(Outcome),
}

impl Skips {
    /// For the runners that this program knows.
    pub fn new(runners: &[Box<dyn Projection>], pool: PgPool, journal: PgPool, writer: Writer) -> Self {
        let versions = runners.iter().map(|runner| (runner.name(), runner.version())).collect();
        Self { versions, pool, journal, writer }
    }

    /// Lets `name` pass over `position`, for good; `actor` is kept with it.
    ///
    /// # Errors
    /// See [`SkipError`].
    pub async fn skip(
        &self,
        name: &str,
        position: Position,
        reason: &str,
        actor: String,
    ) -> Result<Skipped, SkipError> {
        let runners = runner::status(&self.pool).await.map_err(SkipError::Status)?;
        let live = runners.iter().find(|runner| runner.name == name);
        let (Some(live), Some(&version)) = (live, self.versions.get(name)) else {
            let known = runners.into_iter().map(|runner| runner.name).collect();
            return Err(SkipError::Unknown { name: name.to_owned(), known });
        };
        if version == live.version && position <= live.position {
            return Err(SkipError::Applied { name: name.to_owned(), position });
        }
        if position == Position::START || position > live.head {
            return Err(SkipError::Beyond { position, head: live.head });
        }
        if let Some(found) =
            recorded::divergence(&Reader::new(self.journal.clone()), position).await.map_err(SkipError::Look)?
        {
            return Err(SkipError::NotAsRecorded { position, found: found.detail() });
        }
        let (stream, event) = skip_event(name, version, position, reason);
        let metadata = Metadata { actor: Some(actor), ..Metadata::default() };
        let appended = self.writer.append(Command::new(stream, 0, metadata, vec![event])).await;
        let (known, head) = match appended.map_err(SkipError::Append)? {
            Outcome::Appended { last, .. } => (false, last),
            // The stream is unique by its id, so what is in it is this very skip.
            Outcome::Conflict { .. } | Outcome::Duplicate { .. } => (true, live.head),
            refused @ Outcome::Misuse => return Err(SkipError::Refused(refused)),
        };
        let halted = live.state == RunnerState::Halted;
        Ok(Skipped { name: name.to_owned(), version, position, known, halted, head })
    }

    /// Ends its writer.
    pub async fn close(self) {
        self.writer.shutdown().await;
    }
}

#[async_trait]
impl Operators for Skips {
    async fn skip(&self, skip: Skip<'_>) -> Result<SkipReceipt, SkipRefusal> {
        let Skip { runner, position, reason, by } = skip;
        match self.skip(runner, Position::new(position), reason, format!("operator:{by}")).await {
            Ok(Skipped { version, known, halted, head, .. }) => {
                Ok(SkipReceipt { version, known, halted, head: head.get() })
            }
            Err(SkipError::Unknown { .. }) => Err(SkipRefusal::UnknownRunner),
            Err(SkipError::Applied { .. }) => Err(SkipRefusal::Applied),
            Err(SkipError::Beyond { head, .. }) => Err(SkipRefusal::Beyond { head: head.get() }),
            Err(SkipError::NotAsRecorded { found, .. }) => Err(SkipRefusal::NotAsRecorded { found }),
            Err(error @ (SkipError::Look(_) | SkipError::Status(_) | SkipError::Append(_) | SkipError::Refused(_))) => {
                Err(SkipRefusal::Unavailable(Box::new(error)))
            }
        }
    }
}
