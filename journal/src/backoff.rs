//! Waiting longer after each failure in a row, so that an outage costs neither a busy loop nor a late recovery; and telling of
//! it in a few lines, however long it lasts.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(2);

/// An outage is told of at its first failure, and then this often: each runner tries every two seconds, and all of them fail
/// for one reason.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Doubles from 50 ms to 2 s, and starts over after a success. No jitter: there is one relay and one runner per projection,
/// not a crowd.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    outage: Option<Outage>,
}

/// From a failure to the next success.
#[derive(Debug)]
struct Outage {
    began: Instant,
    told: Instant,
}

impl Backoff {
    pub const fn new() -> Self {
        Self { next: FIRST, outage: None }
    }

    /// After a success. Gives how long the outage lasted that this ends, where there was one that [`Self::is_to_be_told`]
    /// was asked about.
    pub fn reset(&mut self) -> Option<Duration> {
        self.next = FIRST;
        self.outage.take().map(|outage| outage.began.elapsed())
    }

    /// How long to wait before the next attempt.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(LAST);
        delay
    }

    /// Whether a failure is to be told of: the first of an outage is, and then one a minute.
    pub fn is_to_be_told(&mut self) -> bool {
        self.is_to_be_told_at(Instant::now())
    }

    fn is_to_be_told_at(&mut self, now: Instant) -> bool {
        match &mut self.outage {
            None => {
                self.outage = Some(Outage { began: now, told: now });
                true
            }
            Some(outage) if now.duration_since(outage.told) >= TOLD_EVERY => {
                outage.told = now;
                true
            }
            Some(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_of_at_once_and_then_once_a_minute() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.reset(), None, "nothing was out");
        let began = Instant::now();
        let told: Vec<u64> = (0..150)
            .map(|second| 2 * second)
            .filter(|second| backoff.is_to_be_told_at(began + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [0, 60, 120, 180, 240]);
        assert!(backoff.reset().is_some(), "its end can be told");
        assert_eq!(backoff.reset(), None, "once");
        assert!(backoff.is_to_be_told_at(began + Duration::from_secs(301)), "another outage, another line");
    }

    #[test]
    fn waiting_doubles_up_to_a_bound_and_starts_over() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..8).map(|_| backoff.delay().as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.delay(), FIRST);
    }
}
