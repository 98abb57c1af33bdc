//! Gauges of the whole system rather than of this process: each gateway takes them from `read` every few seconds.
//!
//! A gateway can tell that the projector is gone, and the projector cannot; so the gateways do it, with the pool that may read
//! `read` and nothing else. All of them report the same gauges: a query takes `max by (…)` of them, never a sum. A gauge that
//! could not be taken is NaN, which `max` passes over, so that a gateway that is cut off from Postgres does not hold up an old
//! picture; `fanledger_sample_timestamp_seconds` says when each was last taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanledger_commands::with_causes;
use fanledger_domain::account::{Account, Suspense};
use fanledger_gateway_api::RunnerState;
use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::read::{self, Backlog, LastOperation, ReadError};

/// A few index probes: as often as anybody scrapes.
const RUNNERS_EVERY: Duration = Duration::from_secs(5);
/// Reads every account's total; what it finds changes slowly, or must not change at all.
const BOOKS_EVERY: Duration = Duration::from_secs(10);

const NOT_BUILT_PAUSE: Duration = Duration::from_secs(1);

/// Reasons for suspense that have a gauge though nothing waits, so that there is a zero to look at.
const SUSPENSE: [Suspense; 4] =
    [Suspense::Unattributed, Suspense::UnknownCharge, Suspense::UnknownCreator, Suspense::UnknownBalanceTransaction];

pub(crate) fn describe() {
    describe_gauge!("fanledger_journal_head_position", "The journal's last position");
    describe_gauge!("fanledger_projection_position", "Up to where the live generation has read, by `projection`");
    describe_gauge!(
        "fanledger_projection_lag_events",
        "Events that the live generation has yet to read, by `projection`"
    );
    describe_gauge!(
        "fanledger_projection_lag_seconds",
        Unit::Seconds,
        "The age of the oldest event that the live generation has yet to read, by `projection`; 0 at the head"
    );
    describe_gauge!(
        "fanledger_projection_halted",
        "1 while the live generation stands still at an event that it cannot apply, or at another history, by `projection`"
    );
    describe_gauge!("fanledger_projection_paused", "1 while an operator holds it, by `projection`");
    describe_gauge!(
        "fanledger_operation_active",
        "1 while a rebuild, proof, rollback or retirement waits or is worked on, by `projection`"
    );
    describe_gauge!("fanledger_operation_failed", "1 where the last of these failed, by `projection`");
    describe_gauge!(
        "fanledger_operation_remaining_events",
        "Events that the one under way has yet to read, by `projection`; 0 where there is none"
    );
    describe_gauge!(
        "fanledger_ledger_imbalance_minor_units",
        "Debits minus credits over all accounts, by `currency`; anything but 0 is a bug or a tampered table"
    );
    describe_gauge!(
        "fanledger_suspense_items",
        "Objects with open money in suspense, by `account`, which names the reason"
    );
    describe_gauge!(
        "fanledger_suspense_oldest_age_seconds",
        Unit::Seconds,
        "The age of the oldest open money in suspense, by `account`; 0 where there is none"
    );
    describe_gauge!("fanledger_awaited_items", "Balance transactions (amounts and fees of Stripe's) that are awaited");
    describe_gauge!(
        "fanledger_awaited_oldest_age_seconds",
        Unit::Seconds,
        "The age of the oldest object whose balance transaction is awaited; 0 where there is none"
    );
    describe_gauge!(
        "fanledger_sample_timestamp_seconds",
        Unit::Seconds,
        "When this gateway last took the gauges of the whole system, in seconds since 1970, by `sample`: `runners`, `books`"
    );
    describe_counter!(
        "fanledger_sample_failures_total",
        Unit::Count,
        "Times that this gateway could not take the gauges of the whole system, by `sample`"
    );
    for sample in ["runners", "books"] {
        counter!("fanledger_sample_failures_total", "sample" => sample).increment(0);
    }
}

/// Takes samples until the token is cancelled.
pub(crate) async fn run(pool: PgPool, shutdown: CancellationToken) {
    let runners = async {
        let mut sample = Sample::new("runners");
        loop {
            let taken = take_runners(&pool, &mut sample).await;
            tokio::time::sleep(sample.conclude(taken).unwrap_or(RUNNERS_EVERY)).await;
        }
    };
    let books = async {
        let mut sample = Sample::new("books");
        loop {
            let taken = take_books(&pool, &mut sample).await;
            tokio::time::sleep(sample.conclude(taken).unwrap_or(BOOKS_EVERY)).await;
        }
    };
    tokio::select! {
        () = runners => {}
        () = books => {}
        () = shutdown.cancelled() => {}
    }
}

async fn take_runners(pool: &PgPool, sample: &mut Sample) -> Result<(), ReadError> {
    let runners = read::runners(pool).await?;
    let operations = read::last_operations(pool).await?;
    sample.set("fanledger_journal_head_position", None, runners.position as f64);
    for runner in runners.value {
        let halted = runner.state == RunnerState::Halted;
        let paused = runner.state == RunnerState::Paused;
        let of = Some(("projection", runner.name.as_str()));
        sample.set("fanledger_projection_position", of, runner.position as f64);
        sample.set("fanledger_projection_lag_events", of, runner.lag_events as f64);
        sample.set("fanledger_projection_lag_seconds", of, runner.lag_seconds);
        sample.set("fanledger_projection_halted", of, f64::from(u8::from(halted)));
        sample.set("fanledger_projection_paused", of, f64::from(u8::from(paused)));
        let operation = operations.iter().find(|operation| operation.runner == runner.name);
        let is = |what: fn(&LastOperation) -> bool| f64::from(u8::from(operation.is_some_and(what)));
        sample.set("fanledger_operation_active", of, is(|operation| operation.active));
        sample.set("fanledger_operation_failed", of, is(|operation| operation.failed));
        let remaining = operation.map_or(0, |operation| operation.remaining_events);
        sample.set("fanledger_operation_remaining_events", of, remaining as f64);
    }
    Ok(())
}

async fn take_books(pool: &PgPool, sample: &mut Sample) -> Result<(), ReadError> {
    for (currency, imbalance) in read::imbalance(pool).await? {
        // A gauge is a float, and nobody reads an amount off it: what is not zero stays so when it is rounded.
        sample.set("fanledger_ledger_imbalance_minor_units", Some(("currency", &currency)), imbalance as f64);
    }
    let mut suspense: BTreeMap<String, Backlog> =
        SUSPENSE.iter().map(|reason| (Account::Suspense(*reason).to_string(), Backlog::NONE)).collect();
    suspense.extend(read::suspense_backlog(pool).await?);
    for (account, backlog) in &suspense {
        let of = Some(("account", account.as_str()));
        sample.set("fanledger_suspense_items", of, backlog.items as f64);
        sample.set("fanledger_suspense_oldest_age_seconds", of, backlog.oldest_seconds);
    }
    let awaited = read::awaited_backlog(pool).await?;
    sample.set("fanledger_awaited_items", None, awaited.items as f64);
    sample.set("fanledger_awaited_oldest_age_seconds", None, awaited.oldest_seconds);
    Ok(())
}

/// Gauges that are taken together. One that was taken before and is not now (its projection is gone, or the sample failed) is
/// NaN from then on.
struct Sample {
    name: &'static str,
    taken: BTreeSet<(&'static str, Option<Label>)>,
    before: BTreeSet<(&'static str, Option<Label>)>,
    failing: bool,
}

impl Sample {
    const fn new(name: &'static str) -> Self {
        Self { name, taken: BTreeSet::new(), before: BTreeSet::new(), failing: false }
    }

    fn set(&mut self, name: &'static str, label: Option<(&'static str, &str)>, value: f64) {
        let label = label.map(|(key, value)| Label::new(key, value.to_owned()));
        gauge!(name, labels(&label)).set(value);
        self.taken.insert((name, label));
    }

    /// Says how it went, and after which pause to try again where that is not the usual one.
    fn conclude(&mut self, taken: Result<(), ReadError>) -> Option<Duration> {
        let mut pause = None;
        match taken {
            Ok(()) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                gauge!("fanledger_sample_timestamp_seconds", "sample" => self.name).set(now.as_secs_f64());
                self.failing = false;
            }
            // A new database, whose projector is only starting.
            Err(ReadError::NotBuilt { .. }) => pause = Some(NOT_BUILT_PAUSE),
            Err(error) => {
                // What was taken before the failure is no picture of one moment.
                self.before.append(&mut self.taken);
                counter!("fanledger_sample_failures_total", "sample" => self.name).increment(1);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(sample = self.name, error = %with_causes(&error), "gauges cannot be taken; trying again");
                }
            }
        }
        for (name, label) in self.before.difference(&self.taken) {
            gauge!(*name, labels(label)).set(f64::NAN);
        }
        self.before = std::mem::take(&mut self.taken);
        pause
    }
}

fn labels(label: &Option<Label>) -> Vec<Label> {
    label.iter().cloned().collect()
}
