//! A line of a run: sent, or failed, once.

use crate::event::Event;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// Stripe made the transfer.
    Sent,
    /// It was refused.
    Failed,
}

/// What is known of a line: its end, once it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    end: Option<LineEnd>,
}

impl Line {
    /// The type of its stream.
    pub const STREAM: &'static str = "payout_line";

    /// How it ended.
    pub const fn end(self) -> Option<LineEnd> {
        self.end
    }

    /// Takes in an event of the stream.
    pub const fn evolve(&mut self, event: &Event) {
        if matches!(event, Event::PayoutTransferSent(_)) {
            self.end = Some(LineEnd::Sent);
        } else if matches!(event, Event::PayoutTransferFailed(_)) {
            self.end = Some(LineEnd::Failed);
        }
    }
}
