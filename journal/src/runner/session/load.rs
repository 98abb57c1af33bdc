//! A session's long way: tables that nobody reads yet are filled by [`crate::load`].

use std::sync::atomic::Ordering;

use super::{Session, Stop};
use crate::checkpoint::Moved;
use crate::event::Position;
use crate::load::{Load, LoadError, Target};
use crate::runner::RunnerError;

/// Fewer events than this are not worth a load's preparations.
const WORTH_LOADING: u64 = 10_000;

/// For tables that are read or acted upon, only a long absence is: readers see no step in between.
const LONG_ABSENCE: u64 = 100_000;

impl Session<'_> {
    /// Fills tables that nobody reads yet, and that lack their indexes, up to the head, or up to and including `limit`.
    pub async fn load(&mut self, limit: Option<Position>) -> Result<(), Stop> {
        self.load_until(limit, WORTH_LOADING).await?;
        self.read_to_head(limit, None).await
    }

    /// After a long absence, or on the first day: the same for tables in use, if the projection has a loader for them.
    pub(super) async fn load_what_was_missed(&mut self, limit: Option<Position>) -> Result<(), Stop> {
        if self.projection.loader().is_some() { self.load_until(limit, LONG_ABSENCE).await } else { Ok(()) }
    }

    /// Loads until fewer events are missing than that.
    async fn load_until(&mut self, limit: Option<Position>, missing: u64) -> Result<(), Stop> {
        loop {
            let head = self.context.reader().head().await.map_err(RunnerError::Journal)?.position;
            let to = limit.map_or(head, |limit| limit.min(head));
            if to.get().saturating_sub(self.checkpoint.position.get()) < missing {
                return Ok(());
            }
            match self.load_to(to).await {
                Ok(()) => {}
                Err(LoadError::NotMoved) => return Err(self.why_it_stays().await),
                Err(LoadError::HistoryChanged) => return Err(self.history_changed()),
                Err(LoadError::Failed(error)) => return Err(Stop::Failed(error)),
                Err(LoadError::Stopped(stop)) => return Err(stop),
                Err(LoadError::Poison(error)) => {
                    let (projection, after) = (self.name, self.checkpoint.position);
                    tracing::warn!(projection, %after, %error, "a load failed; what follows is applied in small batches");
                    return Ok(());
                }
            }
        }
    }

    async fn load_to(&mut self, to: Position) -> Result<(), LoadError> {
        let loader = self.projection.loader();
        let mut load = Load::begin(self.context, loader, self.checkpoint.position, to).await?;
        while self.checkpoint.position < to {
            let target = Target {
                projection: &mut *self.projection,
                connection: &mut self.connection,
                generation: self.generation,
                skips: &self.skips,
                effects: self.effects,
            };
            // The journal ends before its own head: its tail was cut.
            let moved = load.step(target, &mut self.checkpoint).await?.ok_or(LoadError::HistoryChanged)?;
            let Moved { live, stage } = moved;
            self.reached.store(self.checkpoint.position.get(), Ordering::Relaxed);
            if !self.feeding.is_of(live, stage) {
                return Err(LoadError::Stopped(Stop::SteppedDown));
            }
        }
        Ok(())
    }
}
