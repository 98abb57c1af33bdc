//! How far the projections have come, watched once for everybody: `Journal-Min-Position` and the stream wait here.
//!
//! So do commands that are decided on what projections say.
//!
//! One task asks Postgres for one small view while anybody waits, and rests while nobody does; so a thousand waiting clients
//! cost what one costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanledger_commands::with_causes;
use fanledger_gateway_api::{RunnerState, RunnerStatus};
use sqlx::{PgPool, Row};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::read::{self, ReadError};

/// While a request waits for a position. A projection lags by milliseconds, so this is most of what a wait costs.
const POLL_URGENT: Duration = Duration::from_millis(2);
/// While there are only streams.
const POLL_CALM: Duration = Duration::from_millis(100);
/// While Postgres does not answer.
const POLL_FAILED: Duration = Duration::from_millis(500);

/// Each runner's position, by name.
pub(crate) type Positions = BTreeMap<String, u64>;

/// The shared watcher.
#[derive(Clone)]
pub(crate) struct Progress {
    inner: Arc<Inner>,
}

struct Inner {
    pool: PgPool,
    seen: watch::Sender<Positions>,
    wake: Notify,
    urgent: AtomicUsize,
}

/// While it lives, the watcher looks often.
struct Urgent<'a>(&'a AtomicUsize);

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What was reached when the wait was over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Reached,
    Missed {
        /// The one that is furthest behind.
        name: &'static str,
        position: u64,
    },
}

impl Progress {
    /// Over the pool of the query role.
    pub(crate) fn new(pool: PgPool) -> Self {
        let (seen, _) = watch::channel(Positions::new());
        Self { inner: Arc::new(Inner { pool, seen, wake: Notify::new(), urgent: AtomicUsize::new(0) }) }
    }

    /// Watches until the token is cancelled.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let inner = &self.inner;
        let mut failing = false;
        loop {
            if inner.seen.receiver_count() == 0 {
                tokio::select! {
                    () = inner.wake.notified() => {}
                    () = shutdown.cancelled() => return,
                }
            }
            let pause = match positions(&inner.pool).await {
                Ok(now) => {
                    failing = false;
                    inner.seen.send_if_modified(|seen| {
                        let changed = *seen != now;
                        *seen = now;
                        changed
                    });
                    if inner.urgent.load(Ordering::Relaxed) > 0 { POLL_URGENT } else { POLL_CALM }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(error = %with_causes(&error), "the positions of the projections cannot be read; retrying");
                    }
                    failing = true;
                    POLL_FAILED
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = inner.wake.notified(), if !failing => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Follows every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Positions> {
        let receiver = self.inner.seen.subscribe();
        self.inner.wake.notify_one();
        receiver
    }

    /// Waits until all of `names` are at `position`, at most for `wait`.
    pub(crate) async fn reach(&self, names: &[&'static str], position: u64, wait: Duration) -> Wait {
        let slowest = |seen: &Positions| {
            let at = |name: &&'static str| (seen.get(*name).copied().unwrap_or(0), *name);
            names.iter().map(at).min()
        };
        let reached = |seen: &Positions| slowest(seen).is_none_or(|(at, _)| at >= position);
        if reached(&self.inner.seen.borrow()) {
            return Wait::Reached;
        }
        self.inner.urgent.fetch_add(1, Ordering::Relaxed);
        let _urgent = Urgent(&self.inner.urgent);
        let mut receiver = self.subscribe();
        // The sender lives in `self`, so the channel does not close under us.
        if matches!(tokio::time::timeout(wait, receiver.wait_for(reached)).await, Ok(Ok(_))) {
            return Wait::Reached;
        }
        match slowest(&receiver.borrow()) {
            Some((at, name)) => Wait::Missed { name, position: at },
            None => Wait::Reached,
        }
    }

    /// Which of `names` are not at `position`, each with the reason and what to do; nothing where all have come to it by now.
    ///
    /// # Errors
    /// Postgres.
    pub(crate) async fn behind(&self, names: &[&'static str], position: u64) -> Result<Vec<String>, ReadError> {
        let runners = read::runners(&self.inner.pool).await?.value;
        let of = |name: &&str| {
            let runner = runners.iter().find(|runner| runner.name == *name);
            let is_behind = runner.map_or(0, |runner| runner.position) < position;
            is_behind.then(|| why_behind(name, runner))
        };
        Ok(names.iter().filter_map(of).collect())
    }
}

/// Why a projection is behind, and what to do. `None` is one that there are no tables of.
fn why_behind(name: &str, runner: Option<&RunnerStatus>) -> String {
    let Some(RunnerStatus { state, position, .. }) = runner else {
        return format!("{name} is not built: see that `fanledger projector` runs");
    };
    match state {
        RunnerState::Paused => {
            format!("{name} is paused at position {position}: `fanledger projections resume {name}` ends that")
        }
        RunnerState::Halted => format!(
            "{name} is halted at position {position}: `fanledger projections status` says why; mend it, then \
             `fanledger projections resume {name}`"
        ),
        RunnerState::Live | RunnerState::CatchingUp => {
            format!("{name} is at position {position}: see that `fanledger projector` runs, and try again in a moment")
        }
    }
}

/// A position of a history that the journal has lost is none: what waits for it would be answered from what never was.
async fn positions(pool: &PgPool) -> Result<Positions, sqlx::Error> {
    let rows = sqlx::query("SELECT name::text, CASE WHEN is_lost THEN 0 ELSE position END::bigint FROM read.positions")
        .fetch_all(pool)
        .await?;
    rows.into_iter()
        .map(|row| {
            let position: i64 = row.try_get(1)?;
            Ok((row.try_get(0)?, u64::try_from(position).unwrap_or(0)))
        })
        .collect()
}
