//! What a rebuild is told, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::checkpoint::Halt;
use crate::event::Position;
use crate::generation::{Progress, Proof, RetireError};
use crate::runner::{RunnerError, Stop, is_disk_full};

/// A read transaction lasts at most this long: the gateway's role is stopped after it.
const READ_AGE: Duration = Duration::from_secs(5);

/// What is done with a generation once it is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It goes live.
    Switch,
    /// It is dropped: only the proof was wanted.
    Verify,
}

/// What an operator may say about a rebuild.
#[derive(Clone, Debug)]
pub struct RebuildOptions {
    /// What becomes of the new generation.
    pub purpose: Purpose,
    /// A difference between versions is agreed to. One within a version never is.
    pub confirmed: bool,
    /// How old a reader's snapshot may be: so long after the new generation is complete the switch waits, so that nobody sees
    /// empty tables.
    pub read_age: Duration,
    /// Told twice a second how far it is.
    pub progress: Option<watch::Sender<Progress>>,
    /// The row of `control.operations` that asked for it; `None` where it is asked for now.
    pub operation: Option<i64>,
}

impl Default for RebuildOptions {
    fn default() -> Self {
        Self { purpose: Purpose::Switch, confirmed: false, read_age: READ_AGE, progress: None, operation: None }
    }
}

impl RebuildOptions {
    /// For tests and benches, where nobody reads and nobody is asked.
    pub fn unattended() -> Self {
        Self { confirmed: true, read_age: Duration::ZERO, ..Self::default() }
    }
}

/// A rebuild that was completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// The generation that was built; live now, or dropped after a [`Purpose::Verify`].
    pub generation: u32,
    /// Up to where it has read.
    pub position: Position,
    /// That it equals the one before, or what differs. `None` where that one has read another history or has no tables.
    pub proof: Option<Proof>,
    /// It went live, and then met an event that it cannot apply; as its status says.
    pub halt: Option<Halt>,
    /// Milliseconds of reading the journal into the new tables, for as much of it as this process did.
    pub loading_ms: u64,
    /// Milliseconds of making the new tables' indexes.
    pub indexing_ms: u64,
}

/// A rebuild that was not completed. The live generation is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// One is under way, or a rollback or a retirement.
    #[error("{0} is being rebuilt, rolled back or retired already; wait for it")]
    UnderWay(&'static str),
    /// What asked for it was closed meanwhile.
    #[error("nobody asks for this rebuild of {0} any more")]
    Withdrawn(&'static str),
    /// The new generation met an event that it cannot apply. It was dropped.
    #[error(
        "the new generation of {name} cannot apply an event: {halt}; mend it, or pass over the event with `fanledger projections skip`"
    )]
    Halted {
        /// The projection.
        name: &'static str,
        /// Why.
        halt: Halt,
    },
    /// The same version makes other rows of the same events. The new generation was dropped.
    #[error(
        "version {} of {name} makes other tables than those that are live ({} rows differ): not switched; was something changed without raising its version, or were the tables written to?", proof.new_version, proof.differing_rows()
    )]
    Differs {
        /// The projection.
        name: &'static str,
        /// What differs.
        proof: Box<Proof>,
    },
    /// Another version makes other rows, and nobody has agreed to that yet. The new generation waits.
    #[error(
        "version {} of {name} differs from version {}, which is live: not switched; look at the difference, then run it again with --yes", proof.new_version, proof.live_version
    )]
    Unconfirmed {
        /// The projection.
        name: &'static str,
        /// What differs.
        proof: Box<Proof>,
    },
    /// Long readers, or a busy runner, were always in the way. The new generation waits.
    #[error("{0} was in use at each attempt to hold it still or to switch its views; try again")]
    Contended(&'static str),
    /// The disk is full. The new generation was dropped.
    #[error("the disk is full: make room and rebuild {name} again; what it had built was dropped")]
    DiskFull {
        /// The projection.
        name: &'static str,
        /// What Postgres said.
        #[source]
        source: RunnerError,
    },
    /// The two could not be compared. The new generation waits.
    #[error("compare the generations of {name}")]
    Compare {
        /// The projection.
        name: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// The switch failed. The new generation waits.
    #[error("switch the views of {name}")]
    Switch {
        /// The projection.
        name: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// Another process took over the generation that was being built.
    #[error("lost the new generation of {0} to another process; try again")]
    Lost(&'static str),
    /// An earlier generation could not be dropped.
    #[error("drop an earlier generation")]
    Retire(#[from] RetireError),
    /// Something that may pass; try again. The new generation waits.
    #[error(transparent)]
    Failed(#[from] RunnerError),
}

impl RebuildError {
    /// The comparison behind a refusal.
    pub fn proof(&self) -> Option<&Proof> {
        match self {
            Self::Differs { proof, .. } | Self::Unconfirmed { proof, .. } => Some(proof),
            Self::UnderWay(_)
            | Self::Withdrawn(_)
            | Self::Halted { .. }
            | Self::Contended(_)
            | Self::DiskFull { .. }
            | Self::Compare { .. }
            | Self::Switch { .. }
            | Self::Lost(_)
            | Self::Retire(_)
            | Self::Failed(_) => None,
        }
    }

    /// Whether what was built is of no use to another attempt.
    pub(super) const fn spoils_the_generation(&self) -> bool {
        match self {
            Self::Halted { .. } | Self::Differs { .. } | Self::DiskFull { .. } => true,
            Self::UnderWay(_)
            | Self::Withdrawn(_)
            | Self::Unconfirmed { .. }
            | Self::Contended(_)
            | Self::Compare { .. }
            | Self::Switch { .. }
            | Self::Lost(_)
            | Self::Retire(_)
            | Self::Failed(_) => false,
        }
    }

    pub(super) fn of_stop(name: &'static str, stop: Stop) -> Self {
        match stop {
            Stop::SteppedDown | Stop::Paused => Self::Lost(name),
            Stop::Halted(halt) | Stop::StillHalted(halt) => Self::Halted { name, halt },
            Stop::Failed(source) if is_disk_full(&source) => Self::DiskFull { name, source },
            Stop::Failed(error) => Self::Failed(error),
        }
    }
}
