//! What operators look at.

use serde::{Deserialize, Serialize};

/// How a runner is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunnerState {
    /// At the head, or close behind.
    Live,
    /// Behind, and coming.
    CatchingUp,
    /// Stopped by an event that it cannot apply, or by another history; see the error.
    Halted,
    /// Stopped by an operator.
    Paused,
}

impl RunnerState {
    /// From the word on the wire.
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "live" => Some(Self::Live),
            "catching_up" => Some(Self::CatchingUp),
            "halted" => Some(Self::Halted),
            "paused" => Some(Self::Paused),
            _ => None,
        }
    }
}

/// A projection or process manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunnerStatus {
    /// Its name, `balances`.
    pub name: String,
    /// The version of its code.
    pub version: u32,
    /// The generation of its tables that is live.
    pub generation: u32,
    /// How it is doing.
    pub state: RunnerState,
    /// The last position that it has applied.
    pub position: u64,
    /// The journal's head.
    pub head: u64,
    /// How many events it is behind.
    pub lag_events: u64,
    /// How old the oldest event is that it has not applied, in seconds.
    pub lag_seconds: f64,
    /// Why it halted.
    pub error: Option<serde_json::Value>,
    /// Every generation of its tables that there is, the oldest first.
    pub generations: Vec<Generation>,
    /// The number of the last operation that was asked of it; null where none was.
    #[serde(default)]
    pub operation: Option<u64>,
}

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// What is read.
    Live,
    /// Kept up to date, to go back to.
    Kept,
    /// A rebuild makes it, or was broken off.
    Building,
    /// To be dropped.
    Retiring,
}

/// One build of a runner's tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Generation {
    /// Its number.
    pub generation: u32,
    /// The version of the code that made it.
    pub version: u32,
    /// What it is for.
    pub state: GenerationState,
    /// The last position that it has.
    pub position: u64,
    /// It stands still at an event that it cannot apply.
    pub halted: bool,
}

/// What can be asked for that takes longer than a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Build the next generation, prove it, switch.
    Rebuild,
    /// Build the next generation, prove it, drop it.
    Verify,
    /// Switch back to the generation that is kept.
    Rollback,
    /// Drop what is kept.
    Retire,
}

impl OperationKind {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Verify => "verify",
            Self::Rollback => "rollback",
            Self::Retire => "retire",
        }
    }

    /// From the word on the wire.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Rebuild, Self::Verify, Self::Rollback, Self::Retire].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// That an operation was taken in; a projector works on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationAsked {
    /// The runner.
    pub name: String,
    /// What is to be done.
    pub kind: OperationKind,
    /// Its number, as the runner's `operation` will show it.
    pub operation: u64,
}

/// Which event a runner is to pass over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SkipRequest {
    /// The event's position, as the runner's `error` names it.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub position: u64,
    /// Why; it is kept in the journal for good, so name no person. At most 500 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 500))]
    pub reason: String,
}

/// That a runner passes over an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Skipped {
    /// The runner.
    pub name: String,
    /// The version that passes over it, and whose rebuilds do.
    pub version: u32,
    /// The event's position.
    pub position: u64,
    /// It was skipped before; the reason of then stands.
    pub known: bool,
    /// The runner stands still until it is resumed.
    pub halted: bool,
}

/// What was last asked of a runner, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operation {
    /// Its number.
    pub operation: u64,
    /// The runner.
    pub name: String,
    /// What was asked for.
    pub kind: OperationKind,
    /// `queued`, `loading`, `indexing`, `catching_up`, `proving`, `waiting` for readers, `switching`; then `succeeded` or `failed`.
    pub phase: String,
    /// The version of the code that works on it; null until one does.
    pub version: Option<u32>,
    /// The generation that is built.
    pub generation: Option<u32>,
    /// The last position that it has.
    pub position: u64,
    /// The position that it has to reach.
    pub target: u64,
    /// Events read per second.
    pub events_per_second: u64,
    /// Seconds left to the target; null before there is a rate.
    pub seconds_left: Option<u64>,
    /// What came of it: of a rebuild the generation, the position and the proof that old and new agree, or what differs.
    pub outcome: Option<serde_json::Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for.
    pub requested_at: String,
    /// Its last sign of life.
    pub updated_at: String,
    /// When it ended; null while it is open.
    pub finished_at: Option<String>,
}

/// The journal, as far as the read side knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JournalInfo {
    /// Which journal this is; null before anything reads it.
    pub journal_id: Option<String>,
    /// The last position.
    pub head: u64,
}
