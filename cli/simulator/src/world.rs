//! The world that the components act on, and the one way in which they act: a step.
//!
//! A component is an ordinary future. Whatever it does to the world, it does in a [`Node::step`], which happens at once and only
//! when the scheduler gives it the turn. Between two steps it may be dropped, which is a crash: its memory is gone, and what the
//! world holds stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use fanledger_domain::payout_run::PayoutRunId;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

use crate::Bug;
use crate::broker::Nats;
use crate::journal::Journal;
use crate::postgres::Postgres;
use crate::stripe::Stripe;
use crate::writer::Queue;

/// Microseconds since 1970, or a span of them.
pub(crate) type Micros = i64;
pub(crate) const MILLISECOND: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;
/// 2026-01-01 00:00 UTC.
const START: Micros = 1_767_225_600 * SECOND;
/// How many steps a failure shows.
const SHOWN: usize = 24;

/// A process, one life of it: what comes back after a crash is another.
pub(crate) type ProcessId = u32;

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Gateway,
    Relay,
    Projector,
    Manager,
    /// Somebody at a command line.
    Operator,
}

impl Role {
    /// Those that a supervisor keeps running.
    pub const SERVICES: [Self; 4] = [Self::Gateway, Self::Relay, Self::Projector, Self::Manager];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Projector => "projector",
            Self::Manager => "manager",
            Self::Operator => "operator",
        }
    }
}

/// Something that happens by itself at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Stripe sends a webhook.
    Deliver(usize),
    /// The supervisor starts a process.
    Start(Role),
    /// Postgres is back.
    PostgresUp,
    /// NATS is back.
    NatsUp,
    /// Stripe is done with a request for a transfer.
    Transfer(usize),
    /// Postgres notices that whoever held this connection is gone.
    Disconnect(u64),
}

/// Whose turn it is, and what its holder left.
#[derive(Default)]
pub(crate) struct Turn {
    /// Whether one step may be taken.
    pub may_step: bool,
    /// Every step may be taken: there is one component, and nothing goes wrong.
    pub is_free: bool,
    /// The earliest instant at which somebody who waits would go on by himself.
    pub deadline: Option<Micros>,
    /// Those who wait.
    pub waiting: Vec<Waker>,
}

/// What happened in one step.
#[derive(Clone, Copy)]
struct Happened {
    number: u64,
    now: Micros,
    who: &'static str,
    process: ProcessId,
    what: &'static str,
    /// A position, a number of events or of a webhook; 0 where there is none.
    detail: u64,
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, now, who, process, what, detail } = self;
        let elapsed = now - START;
        write!(f, "{number:>7}  {:>5}.{:06}  {who}#{process}: {what}", elapsed / SECOND, elapsed % SECOND)?;
        if *detail == 0 { Ok(()) } else { write!(f, " {detail}") }
    }
}

/// The last steps, and a digest of all.
#[derive(Default)]
pub(crate) struct Trace {
    last: VecDeque<Happened>,
    hasher: DefaultHasher,
    pub steps: u64,
}

impl Trace {
    fn push(&mut self, mut happened: Happened) {
        self.steps += 1;
        happened.number = self.steps;
        let Happened { number, now, who, process, what, detail } = happened;
        (number, now, who, process, what, detail).hash(&mut self.hasher);
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(happened);
    }

    /// Of everything that happened so far.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn mix(&mut self, bytes: &[u8]) {
        bytes.hash(&mut self.hasher);
    }

    pub fn lines(&self) -> Vec<String> {
        self.last.iter().map(ToString::to_string).collect()
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Webhooks acknowledged.
    pub webhooks: u64,
    /// Events in the journal at the end.
    pub events: u64,
    /// Crashes of our processes.
    pub crashes: u64,
    /// Faults of Postgres, NATS and connections.
    pub outages: u64,
    /// Restores of an earlier backup.
    pub restores: u64,
    /// Times that the relay filled the stream anew.
    pub refills: u64,
    /// Months that are closed in the journal at the end.
    pub closes: u64,
    /// Rebuilds of a projection or manager that were completed.
    pub rebuilds: u64,
    /// Transfers that Stripe made.
    pub transfers: u64,
    /// Payout runs that are finished in the journal at the end.
    pub payout_runs: u64,
    /// Times that the sender halted, since Stripe knew what the journal had lost.
    pub lost_futures: u64,
}

/// See the module.
pub(crate) struct World {
    pub now: Micros,
    pub random: StdRng,
    /// While true, things go wrong.
    pub faults: bool,
    /// Webhooks have come, and creators are paid.
    pub is_paying: bool,
    pub plant: Option<Bug>,
    pub journal: Journal,
    pub vault: BTreeMap<String, Vec<u8>>,
    pub postgres: Postgres,
    pub nats: Nats,
    pub stripe: Stripe,
    /// How far Postgres's clock is from the true time.
    pub skew: Micros,
    /// Processes that rebuild what has sent its commands before: they may not act.
    pub muted: BTreeSet<ProcessId>,
    /// Runs that the sender halted on, and that nobody has stopped yet.
    pub mismatched: BTreeSet<PayoutRunId>,
    /// Commands that wait for the writer, by the process that they wait in.
    pub queues: BTreeMap<ProcessId, Queue>,
    pub agenda: BTreeMap<(Micros, u64), Due>,
    agenda_number: u64,
    pub turn: Turn,
    /// Moves with every step: who found nothing to do need not look again before it does.
    pub version: u64,
    pub trace: Trace,
    pub counts: Counts,
    /// The first rule that was found broken.
    pub broken: Option<String>,
}

impl World {
    pub fn new(seed: u64, plant: Option<Bug>, stripe: Stripe) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x51_6d_75_6c_61_74_65);
        let id = Uuid::from_u128(random.random());
        Self {
            now: START,
            faults: true,
            is_paying: false,
            plant,
            journal: Journal::new(id),
            vault: BTreeMap::new(),
            postgres: Postgres::new(id),
            nats: Nats::new(random.random_range(6..60)),
            stripe,
            skew: 0,
            muted: BTreeSet::new(),
            mismatched: BTreeSet::new(),
            queues: BTreeMap::new(),
            agenda: BTreeMap::new(),
            agenda_number: 0,
            turn: Turn::default(),
            version: 0,
            trace: Trace::default(),
            counts: Counts::default(),
            broken: None,
            random,
        }
    }

    /// True in so many of a thousand cases, while things go wrong.
    pub fn goes_wrong(&mut self, in_thousand: u32) -> bool {
        self.faults && self.random.random_range(0..1000) < in_thousand
    }

    pub fn plan(&mut self, after: Micros, due: Due) {
        self.agenda_number += 1;
        self.agenda.insert((self.now + after, self.agenda_number), due);
    }

    /// A rule is broken; the first one is the one to tell.
    pub fn fail(&mut self, what: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some(what.into());
        }
    }

    /// Somebody did something.
    pub fn happened(&mut self, who: &'static str, process: ProcessId, what: &'static str, detail: u64) {
        self.version += 1;
        self.now += self.random.random_range(20..600);
        self.trace.push(Happened { number: 0, now: self.now, who, process, what, detail });
    }

    /// Whoever waits now goes on by himself at `deadline`, if nothing happens before.
    pub fn until(&mut self, deadline: Micros) -> bool {
        if self.now >= deadline {
            return true;
        }
        self.turn.deadline = Some(self.turn.deadline.map_or(deadline, |known| known.min(deadline)));
        false
    }
}

/// What a component holds of the world: the way to take steps, in the name of one task of one process.
#[derive(Clone)]
pub(crate) struct Node {
    world: Arc<Mutex<World>>,
    pub process: ProcessId,
    pub task: &'static str,
}

impl Node {
    pub const fn new(world: Arc<Mutex<World>>, process: ProcessId, task: &'static str) -> Self {
        Self { world, process, task }
    }

    /// The same process, another task.
    pub fn named(&self, task: &'static str) -> Self {
        Self { task, ..self.clone() }
    }

    /// The world, outside any step: only to look at it.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step: `act` is done when the turn comes, or waits (and has changed nothing) where it answers `None`.
    pub fn step<T>(&self, what: &'static str, mut act: impl FnMut(&mut World) -> Option<T>) -> impl Future<Output = T> {
        self.step_with(what, move |world| act(world).map(|done| (done, 0)))
    }

    /// The same, with a number for the trace.
    pub fn step_with<T>(
        &self,
        what: &'static str,
        mut act: impl FnMut(&mut World) -> Option<(T, u64)>,
    ) -> impl Future<Output = T> {
        poll_fn(move |context| {
            let mut world = self.world();
            if (world.turn.may_step || world.turn.is_free)
                && let Some((done, detail)) = act(&mut world)
            {
                world.turn.may_step = false;
                world.happened(self.task, self.process, what, detail);
                return Poll::Ready(done);
            }
            world.turn.waiting.push(context.waker().clone());
            Poll::Pending
        })
    }

    /// Waits for a span of simulated time.
    pub async fn sleep(&self, span: Micros) {
        let until = self.world().now + span;
        self.step("wakes up", |world| world.until(until).then_some(())).await;
    }
}
