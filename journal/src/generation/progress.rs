//! How far a rebuild is: for who watches in this process, and in `control.operations` for everybody else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::sync::watch;

use crate::event::Position;
use crate::operation;

/// How often progress is written down; who reads it takes five seconds without news for a death.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody has begun.
    #[default]
    Queued,
    /// Reads the journal from its beginning into the new generation.
    Loading,
    /// Makes the new tables' indexes.
    Indexing,
    /// Reads what came meanwhile.
    CatchingUp,
    /// Compares old and new, row by row.
    Proving,
    /// Lets readers that began before the new generation was complete come to their end.
    Waiting,
    /// Exchanges the views.
    Switching,
    /// Done.
    Succeeded,
    /// Not done; the error says why.
    Failed,
}

impl Phase {
    /// As stored and as printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Loading => "loading",
            Self::Indexing => "indexing",
            Self::CatchingUp => "catching_up",
            Self::Proving => "proving",
            Self::Waiting => "waiting",
            Self::Switching => "switching",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// The generation that is being built.
    pub generation: u32,
    /// The last position that it has.
    pub position: Position,
    /// The position that it has to reach.
    pub target: Position,
    /// Events read per second since this process began to read.
    pub events_per_second: u64,
    /// Seconds until the target is reached at that rate; none before there is a rate.
    pub seconds_left: Option<u64>,
}

/// Where the work notes how far it is.
pub(super) struct Tracker {
    noted: Mutex<Noted>,
    /// Shared with the session that reads.
    reached: Arc<AtomicU64>,
}

struct Noted {
    phase: Phase,
    generation: u32,
    target: Position,
    began: Instant,
    began_at: Position,
    /// When the reading was over, and with it what rates are of.
    read: Option<Duration>,
}

impl Tracker {
    pub fn new(generation: i32, reached: Arc<AtomicU64>) -> Self {
        let noted = Noted {
            phase: Phase::Loading,
            generation: generation.cast_unsigned(),
            target: Position::START,
            began: Instant::now(),
            began_at: Position::START,
            read: None,
        };
        Self { noted: Mutex::new(noted), reached }
    }

    fn note(&self, change: impl FnOnce(&mut Noted)) {
        change(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Reading begins here: rates count from now.
    pub fn begin(&self, at: Position) {
        self.note(|noted| (noted.began, noted.began_at) = (Instant::now(), at));
    }

    pub fn phase(&self, phase: Phase) {
        self.note(|noted| {
            noted.phase = phase;
            if phase != Phase::Loading {
                noted.read.get_or_insert(noted.began.elapsed());
            }
        });
    }

    pub fn target(&self, target: Position) {
        self.note(|noted| noted.target = noted.target.max(target));
    }

    fn now(&self) -> Progress {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let position = Position::new(self.reached.load(Ordering::Relaxed));
        let millis = u64::try_from(noted.read.unwrap_or_else(|| noted.began.elapsed()).as_millis()).unwrap_or(u64::MAX);
        let read = position.get().saturating_sub(noted.began_at.get());
        let events_per_second = read.saturating_mul(1000) / millis.max(1);
        let left = noted.target.get().saturating_sub(position.get());
        Progress {
            phase: noted.phase,
            generation: noted.generation,
            position,
            target: noted.target,
            events_per_second,
            seconds_left: (events_per_second > 0).then(|| left.div_ceil(events_per_second)),
        }
    }

    /// Tells for as long as it is polled; ends only when it cannot be written down, which is to say that the connection is
    /// gone, and with it the lock by which this is the only rebuild.
    pub async fn report(
        &self,
        desk: &mut PgConnection,
        operation: i64,
        watchers: Option<&watch::Sender<Progress>>,
    ) -> sqlx::Error {
        loop {
            let now = self.now();
            if let Some(watchers) = watchers {
                watchers.send_replace(now);
            }
            if let Err(error) = operation::report(desk, operation, &now).await {
                return error;
            }
            tokio::time::sleep(REPORT_EVERY).await;
        }
    }
}
