//! Holds: whether finance lets a creator be paid.

use crate::event::Event;
use crate::id::{CreatorId, Subject};
use crate::payout_run::{CreatorPayoutsHeld, CreatorPayoutsResumed};
use crate::reason::{REASON_FORM, is_reason};
use crate::time::Timestamp;

/// What finance says about a creator's payouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Pay nothing.
    Hold,
    /// Pay again.
    Resume,
}

/// Why it changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// It was said before.
    #[error("the payouts of {creator} are held already")]
    HeldAlready {
        /// The creator.
        creator: CreatorId,
    },
    /// There is nothing to resume.
    #[error("the payouts of {creator} are not held")]
    NotHeld {
        /// The creator.
        creator: CreatorId,
    },
    /// An act is told why.
    #[error("say why, {REASON_FORM}")]
    Reason,
}

/// Whether a creator's payouts are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreatorPayouts {
    held: bool,
    sequence: u64,
}

impl CreatorPayouts {
    /// The type of its stream.
    pub const STREAM: &'static str = "creator_payouts";

    /// Whether nothing is to be paid.
    pub const fn is_held(self) -> bool {
        self.held
    }

    /// The sequence of the last event of the stream.
    pub const fn sequence(self) -> u64 {
        self.sequence
    }

    /// The event that it leads to.
    ///
    /// # Errors
    /// When it is so already, or no reason is given.
    pub fn decide(
        self,
        creator: CreatorId,
        say: Say,
        by: Subject,
        reason: String,
        now: Timestamp,
    ) -> Result<Event, HoldError> {
        if !is_reason(&reason) {
            return Err(HoldError::Reason);
        }
        match (say, self.held) {
            (Say::Hold, true) => Err(HoldError::HeldAlready { creator }),
            (Say::Resume, false) => Err(HoldError::NotHeld { creator }),
            (Say::Hold, false) => Ok(CreatorPayoutsHeld { creator, at: now, by, reason }.into()),
            (Say::Resume, true) => Ok(CreatorPayoutsResumed { creator, at: now, by, reason }.into()),
        }
    }

    /// Takes in an event of the stream.
    pub const fn evolve(&mut self, event: &Event) {
        self.sequence += 1;
        if matches!(event, Event::CreatorPayoutsHeld(_)) {
            self.held = true;
        } else if matches!(event, Event::CreatorPayoutsResumed(_)) {
            self.held = false;
        }
    }
}
