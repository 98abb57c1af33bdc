//! Waiting longer after each failure in a row, so that an outage costs neither a busy loop nor a late recovery.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(2);

/// Doubles from 50 ms to 2 s, and starts over after a success. No jitter: there is one relay and one runner per projection,
/// not a crowd.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub const fn new() -> Self {
        Self { next: FIRST }
    }

    pub const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait before the next attempt.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(LAST);
        delay
    }
}
