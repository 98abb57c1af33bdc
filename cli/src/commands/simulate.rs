//! `fanledger simulate`: the whole system in one process on a simulated clock, seed by seed.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use fanledger_simulator::{Bug, Options, Report};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::output::{Output, OutputError};

/// How often it is told how far it is, where nobody looks at a bar.
const TOLD: Duration = Duration::from_secs(10);

/// What to simulate.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A run is one seed: a history of fans and creators, told by a Stripe that is late, repeats itself and fails, to a system whose
processes are killed between any two steps, whose broker is wiped and whose journal is restored from backups. Meanwhile creators
are paid. After every step the invariants are checked; in the end everything must come to rest, each transfer made once, with the
balances that the same webhooks come to in plain order. The same seed and steps give the same run: a failure prints the command
that repeats it.

Examples:
  fanledger simulate --seed 7
  fanledger simulate --seeds 0..10000
  fanledger simulate --seeds 0..100 --plant checkpoint-apart    # a fault of ours, to see that it is found: exit code 1")]
pub struct SimulateArgs {
    /// One seed.
    #[arg(long, conflicts_with = "seeds", default_value_t = 0)]
    seed: u64,
    /// Many: from the first up to, but without, the last.
    #[arg(long, value_name = "FROM..TO", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// For how many steps of a run webhooks come while things go wrong; for twice as many creators are paid after that, while things go
    /// wrong again. The history is as long as fits.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    steps: u64,
    /// Runs at a time; as many as there are cores if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// A bug to plant into the simulator's components, to see that it is found.
    #[arg(long, value_name = "BUG", help = planted())]
    plant: Option<Bug>,
}

fn planted() -> String {
    format!(
        "A bug to plant into the simulator's components, to see that it is found: {}",
        Bug::ALL.map(Bug::as_str).join(", ")
    )
}

/// Not a range of seeds.
#[derive(Debug, thiserror::Error)]
#[error("expected two numbers such as 0..1000, the first below the last")]
struct NotARange;

fn range(text: &str) -> Result<Range<u64>, NotARange> {
    let (from, to) = text.split_once("..").ok_or(NotARange)?;
    let range = from.parse().map_err(|_| NotARange)?..to.parse().map_err(|_| NotARange)?;
    if range.is_empty() { Err(NotARange) } else { Ok(range) }
}

/// What all runs together came to.
#[derive(Clone, Copy, Default, Serialize)]
struct Totals {
    seeds: u64,
    steps: u64,
    webhooks: u64,
    events: u64,
    crashes: u64,
    outages: u64,
    restores: u64,
    refills: u64,
    rebuilds: u64,
    payout_runs: u64,
    transfers: u64,
    lost_futures: u64,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        let counts = &report.counts;
        self.seeds += 1;
        self.steps += report.steps;
        self.webhooks += counts.webhooks;
        self.events += counts.events;
        self.crashes += counts.crashes;
        self.outages += counts.outages;
        self.restores += counts.restores;
        self.refills += counts.refills;
        self.rebuilds += counts.rebuilds;
        self.payout_runs += counts.payout_runs;
        self.transfers += counts.transfers;
        self.lost_futures += counts.lost_futures;
    }
}

/// The answer.
#[derive(Serialize)]
struct Simulated {
    ok: bool,
    #[serde(flatten)]
    totals: Totals,
    milliseconds: u64,
    /// Of a single seed: a digest of every step.
    trace: Option<String>,
    failure: Option<Failed>,
}

#[derive(Serialize)]
struct Failed {
    seed: u64,
    step: u64,
    what: String,
    last_steps: Vec<String>,
    again: String,
}

/// Runs under way, and what they came to.
struct Progress {
    next: AtomicU64,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    totals: Totals,
    /// By seed, so that the lowest is told whichever thread was faster.
    failures: BTreeMap<u64, Report>,
    last: Option<Report>,
}

impl Progress {
    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plays seeds until there are no more, or one has failed.
    fn play(&self, seeds: &Range<u64>, options: &Options, tell: impl Fn(&Totals)) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || !self.done().failures.is_empty() {
                return;
            }
            let report = fanledger_simulator::run(seed, options);
            let mut done = self.done();
            done.totals.add(&report);
            if report.failure.is_some() {
                done.failures.insert(seed, report);
            } else {
                done.last = Some(report);
            }
            tell(&done.totals);
        }
    }
}

/// Plays the seeds; exit code 1 where one of them fails.
///
/// # Errors
/// When nothing can be printed.
pub fn run(args: &SimulateArgs, output: Output) -> Result<Outcome, Failure> {
    let seeds = args.seeds.clone().unwrap_or(args.seed..args.seed + 1);
    let options = Options { steps: args.steps, plant: args.plant };
    let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let count = seeds.end - seeds.start;
    let began = Instant::now();
    let bar = output.bar(count, "seeds");
    let told = Mutex::new(began);
    let tell = |totals: &Totals| {
        bar.set_position(totals.seeds);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if bar.is_hidden() && told.elapsed() >= TOLD {
            *told = Instant::now();
            // Where errors go, so that the answer stands alone. Who cannot be told how far it is will still get it.
            writeln!(io::stderr(), "{} of {count} seeds", totals.seeds).ok();
        }
    };
    let progress = Progress { next: AtomicU64::new(seeds.start), done: Mutex::default() };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(usize::try_from(count).unwrap_or(usize::MAX)) {
            scope.spawn(|| progress.play(&seeds, &options, tell));
        }
    });
    bar.finish_and_clear();
    let done = progress.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed = done.failures.into_values().next();
    let simulated = Simulated {
        ok: failed.is_none(),
        totals: done.totals,
        milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        trace: failed.as_ref().or(done.last.as_ref()).filter(|_| count == 1).map(|run| format!("{:016x}", run.trace)),
        failure: failed.and_then(|report| failed_run(report, &options)),
    };
    if output.is_json() {
        output.json_line(&simulated)?
    } else {
        print(&simulated, args, output)?
    }
    Ok(if simulated.ok { Outcome::Fine } else { Outcome::CheckFailed })
}

fn failed_run(report: Report, options: &Options) -> Option<Failed> {
    let failure = report.failure?;
    let plant = options.plant.map(|bug| format!(" --plant {bug}")).unwrap_or_default();
    Some(Failed {
        seed: report.seed,
        step: failure.step,
        what: failure.what,
        last_steps: failure.last,
        again: format!("fanledger simulate --seed {} --steps {}{plant}", report.seed, options.steps),
    })
}

fn print(simulated: &Simulated, args: &SimulateArgs, output: Output) -> Result<(), OutputError> {
    let Totals { seeds, steps, webhooks, events, crashes, outages, restores, refills, rebuilds, .. } = simulated.totals;
    let Totals { payout_runs, transfers, lost_futures, .. } = simulated.totals;
    let which = match &args.seeds {
        Some(seeds) => format!("seeds {}..{}", seeds.start, seeds.end),
        None => format!("seed {}", args.seed),
    };
    if let Some(failure) = &simulated.failure {
        output.line(format_args!("seed {} failed after step {}: {}", failure.seed, failure.step, failure.what))?;
        output.line("the last steps (number, simulated seconds, who, what):")?;
        for line in &failure.last_steps {
            output.line(line)?;
        }
        output.line(format_args!("run it again: {}", failure.again))?;
        return Ok(());
    }
    let trace = simulated.trace.as_ref().map(|trace| format!(", trace {trace}")).unwrap_or_default();
    output.line(format_args!(
        "{which}: every invariant held, and everything came to rest{trace}\n\
         {seeds} runs of {steps} steps together, in {} ms: {webhooks} webhooks acknowledged, {events} events, {crashes} crashes, \
         {outages} outages, {restores} restores of the journal, {refills} refills of the stream, {rebuilds} rebuilds, {payout_runs} payout runs \
         finished, {transfers} transfers made, {lost_futures} halts over a transfer that the journal had lost",
        simulated.milliseconds
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(seeds: Range<u64>, plant: Option<Bug>) -> SimulateArgs {
        SimulateArgs { seed: 0, seeds: Some(seeds), steps: 400, threads: Some(2), plant }
    }

    #[test]
    fn a_run_in_which_a_rule_breaks_is_a_check_that_failed() {
        assert_eq!(run(&args(0..3, None), Output::new(true)).unwrap(), Outcome::Fine);
        assert_eq!(run(&args(0..3, Some(Bug::CheckpointApart)), Output::new(true)).unwrap(), Outcome::CheckFailed);
    }

    #[test]
    fn what_is_told_of_a_failure_repeats_it() {
        let options = Options { steps: 400, plant: Some(Bug::AcknowledgedFirst) };
        let failed = failed_run(fanledger_simulator::run(7, &options), &options).unwrap();
        assert_eq!(failed.again, "fanledger simulate --seed 7 --steps 400 --plant acknowledged-first");
        assert!(!failed.last_steps.is_empty());
    }

    #[test]
    fn seeds_are_a_range() {
        assert_eq!(range("3..10").unwrap(), 3..10);
        for text in ["", "3", "3..", "..4", "4..4", "5..4", "a..b", "-1..4"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
