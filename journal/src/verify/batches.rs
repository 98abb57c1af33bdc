//! Follows the rows of `journal.batches` along with the events.

use crate::batch_rows::BatchRow;
use crate::copy::RawEvent;

/// The rows of `journal.batches` around the page.
pub(super) struct Batches {
    /// Up to where batches that were seen cover; `None` until the first one, where the check began in the middle.
    covered: Option<i64>,
    page: Vec<BatchRow>,
    current: usize,
    from: i64,
}

impl Batches {
    pub fn new(from: i64) -> Self {
        Self { covered: (from == 1).then_some(0), page: Vec::new(), current: 0, from }
    }

    /// The rows that end within the next page, and the one that goes beyond it.
    pub fn turn(&mut self, page: Vec<BatchRow>) {
        (self.page, self.current) = (page, 0);
    }

    /// Whether the batch that covers this event, which is itself in order, agrees with it.
    pub fn covers(&mut self, event: &RawEvent<'_>) -> Result<(), (i64, String)> {
        let should_begin = self.covered.map(|covered| covered + 1);
        let blamed = should_begin.unwrap_or(self.from);
        let Some(batch) = self.page.get(self.current) else {
            return Err((blamed, "no row of journal.batches covers this position".to_owned()));
        };
        // Checked at every event of the batch, because a page may begin within one.
        let begins_wrong = match should_begin {
            Some(first) => batch.first != first,
            None => batch.first > self.from,
        };
        if begins_wrong {
            return Err((blamed, format!("the batch that ends at {} begins at {}", batch.last, batch.first)));
        }
        if batch.recorded_at_micros != event.recorded_at_micros {
            return Err((blamed, format!("the batch that ends at {} has another time than its events", batch.last)));
        }
        if batch.last == event.position {
            if batch.chain != event.chain {
                return Err((
                    blamed,
                    format!("the batch that ends at {} has another chain than its last event", batch.last),
                ));
            }
            self.covered = Some(batch.last);
            self.current += 1;
        }
        Ok(())
    }

    /// The first position up to the last that no batch covers.
    pub fn first_uncovered(&self, last: i64) -> Option<i64> {
        self.covered.filter(|covered| *covered < last).map(|covered| covered + 1)
    }
}
