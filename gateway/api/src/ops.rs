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
