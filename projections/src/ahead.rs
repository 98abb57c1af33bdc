//! Reads the pages of a load on another thread, one page ahead of what is written.

use fanledger_journal::load::Page;
use fanledger_journal::runner::ApplyError;
use tokio::task::JoinHandle;

/// `S` is what one page's reading leaves to the next one's; `T` is what comes of a page.
pub(crate) struct Ahead<S, T> {
    state: Option<S>,
    reading: Option<Reading<S, T>>,
}

type Reading<S, T> = JoinHandle<(S, Result<T, ApplyError>)>;

impl<S: Default, T> Default for Ahead<S, T> {
    fn default() -> Self {
        Self { state: None, reading: None }
    }
}

impl<S: Default + Send + 'static, T: Send + 'static> Ahead<S, T> {
    /// Begins with a page, if there is another, and returns what came of the one before, if there was one.
    pub async fn next(
        &mut self,
        page: Option<Page>,
        read: fn(&mut S, &Page) -> Result<T, ApplyError>,
    ) -> Result<Option<T>, ApplyError> {
        let before = match self.reading.take() {
            None => None,
            Some(reading) => {
                // It ends early only by a panic, and that is no event's fault that could be named.
                let (state, outcome) = reading.await.map_err(|error| ApplyError {
                    position: None,
                    transient: false,
                    source: Box::new(error),
                })?;
                self.state = Some(state);
                Some(outcome?)
            }
        };
        if let Some(page) = page {
            let mut state = self.state.take().unwrap_or_default();
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let outcome = read(&mut state, &page);
                (state, outcome)
            }));
        }
        Ok(before)
    }
}
