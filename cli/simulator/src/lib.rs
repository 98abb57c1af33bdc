//! The whole system in one process, on a simulated clock: fans and creators, Stripe with its delays, duplicates, disorder and
//! failures, and crashes between any two steps of gateway, writer, relay, runners and managers. A run depends on its seed alone,
//! so that a failure can be looked at as often as it takes.
//!
//! Reading order: [`run`] here; `world` (steps, crashes, the trace), `scheduler` (who is next), `faults` and `finance` (what goes
//! wrong, and what people do), then what the components act on: `journal`, `postgres`, `broker`, `stripe` with `creators` and `transfers`; then the
//! components: `writer`, `runner` with `rebuild` and `worker`, and the relay in `broker`; and what must hold: `invariants`,
//! `payout_checks`, `expectation`.
//!
//! What is real: what decides about money that comes in and goes out (`fanledger-domain`; the executor, intake, translator, fetcher,
//! sync and the payouts' desk and sender of `fanledger-commands`), the relay's decisions, the form of messages, checkpoints, digests.
//! What is a model: Postgres and NATS, the writer's batching, the runner's loop, and three projections. `docs/adr/0034-simulator.md`
//! says why, and what follows.
//!
//! Invariants:
//! - No clock, no network, no thread, no order of a hash map: the same seed and options give the same trace.
//! - A component changes the world in steps only; each is atomic, and a crash falls between two.
//!
//! Not here: SQL. That Postgres does what its model says is for the tests of `fanledger-journal` and `make chaos`.

mod broker;
mod creators;
mod expectation;
mod faults;
mod finance;
mod invariants;
mod journal;
mod payout_checks;
mod postgres;
mod rebuild;
mod runner;
mod scheduler;
mod stripe;
mod tables;
mod transfers;
mod vault;
mod worker;
mod world;
mod writer;

use std::fmt;
use std::str::FromStr;

pub use scheduler::run;
pub use world::Counts;

/// A fault that is planted into the simulator's own components, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A webhook is acknowledged before it is appended.
    AcknowledgedFirst,
    /// What one person paid out alone is not held against the next run that they propose.
    AloneForgotten,
    /// A runner commits its tables first and its checkpoint after them.
    CheckpointApart,
    /// A runner takes whatever message comes next, whether or not it follows on the one before.
    GapsTaken,
    /// Stripe answers that it knows no transfer under any group, so only the idempotency key is left.
    GroupNotAsked,
    /// A posting is appended whatever was closed since it was dated.
    GuardsIgnored,
    /// A manager's row does not say where the journal ended, so one that is restored without it loses what the manager had sent.
    HeadForgotten,
    /// Stripe takes each request for a transfer for a new one, so only the look-up by group is left.
    KeyForgotten,
    /// The relay publishes without saying where the stream must end.
    NoExpectedSequence,
    /// After a crash, what was posted is forgotten, and a new fact posts the whole instead of the difference.
    WholePosted,
}

impl Bug {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::AcknowledgedFirst,
        Self::AloneForgotten,
        Self::CheckpointApart,
        Self::GapsTaken,
        Self::GroupNotAsked,
        Self::GuardsIgnored,
        Self::HeadForgotten,
        Self::KeyForgotten,
        Self::NoExpectedSequence,
        Self::WholePosted,
    ];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AcknowledgedFirst => "acknowledged-first",
            Self::AloneForgotten => "alone-forgotten",
            Self::CheckpointApart => "checkpoint-apart",
            Self::GapsTaken => "gaps-taken",
            Self::GroupNotAsked => "group-not-asked",
            Self::GuardsIgnored => "guards-ignored",
            Self::HeadForgotten => "head-forgotten",
            Self::KeyForgotten => "key-forgotten",
            Self::NoExpectedSequence => "no-expected-sequence",
            Self::WholePosted => "whole-posted",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No bug of that name can be planted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such bug; there are: {}", Bug::ALL.map(Bug::as_str).join(", "))]
pub struct UnknownBug;

impl FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(text: &str) -> Result<Self, UnknownBug> {
        Self::ALL.into_iter().find(|bug| bug.as_str() == text).ok_or(UnknownBug)
    }
}

/// What to run, besides the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// For how many steps webhooks come while things go wrong; for twice as many, once the books have come to rest, creators are paid
    /// while things go wrong again. Then the run is left to come to rest.
    pub steps: u64,
    /// What to plant.
    pub plant: Option<Bug>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Steps taken, until it was at rest or failed.
    pub steps: u64,
    /// A digest of every step and of the journal at the end: the same for the same seed and options.
    pub trace: u64,
    /// What happened.
    pub counts: Counts,
    /// What was found broken.
    pub failure: Option<Failure>,
}

/// A rule that was found broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// After which step.
    pub step: u64,
    /// What broke.
    pub what: String,
    /// The last steps before it, a line each.
    pub last: Vec<String>,
}
