//! `fanledger bench append | webhook | lag | …`: our figures beside baselines taken in the same run, on private servers.
//!
//! Read in this order: [`ground`] (the servers), [`load`] (the HTTP generator, the same for both sides), then one file per
//! bench, and what it is measured against under `baseline`. Rounds alternate between the sides, figures are medians, and
//! everything is bounded in time. Durability is on for both sides. Nothing here asserts: a bench tells, a person judges.
#![allow(clippy::float_arithmetic, reason = "rates and latencies; there is no money in this module")]

mod append;
mod baseline;
mod events;
mod export;
mod ground;
mod history;
mod idle;
mod lag;
mod load;
mod rebuild;
mod report;
mod verify;
mod webhook;

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::roles::Signal;
use crate::settings::Settings;

/// Measure against baselines in the same run.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// P1, P2: durable commands a second beside postgres-es, and one command alone beside pgbench
    Append(Rounds),
    /// P3: signed webhooks over HTTP beside a FastAPI handler
    Webhook(WebhookArgs),
    /// P5: from an acknowledged webhook until the gateway shows it, at a steady rate
    Lag(LagArgs),
    /// P4: balances and postings rebuilt from a made-up year, beside a fold inside Postgres and beside COPY
    Rebuild(RebuildArgs),
    /// P7: the journal verified, books included, beside Postgres's own COPY of the same table
    Verify(VerifyArgs),
    /// P10: all roles with nothing to do: from start to ready, and what they hold of memory
    Idle(Rounds),
    /// A made-up year exported in every format, and opened by hledger, beancount and others
    Export(ExportBenchArgs),
}

/// How long to measure.
#[derive(Clone, Copy, Debug, Args)]
pub struct Rounds {
    /// Rounds; the figures are their medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
}

impl Rounds {
    fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }
}

/// How to measure webhooks.
#[derive(Clone, Copy, Debug, Args)]
pub struct WebhookArgs {
    /// How long.
    #[command(flatten)]
    rounds: Rounds,
    /// Connections that the generator keeps open, to either side.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Leave the baseline out; it needs Python and PyPI.
    #[arg(long)]
    no_baseline: bool,
}

/// How to measure lag.
#[derive(Clone, Copy, Debug, Args)]
pub struct LagArgs {
    /// How long.
    #[command(flatten)]
    rounds: Rounds,
    /// Webhooks a second while it is measured.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    rate: u32,
}

/// How to measure rebuilds.
#[derive(Clone, Debug, Args)]
pub struct RebuildArgs {
    /// Rounds; the figures are their medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Ledger entries in the journal; several sizes are measured one after the other, such as 1000000,10000000. A million
    /// take 9 GB of disk, their postings among them; ten million 20 GB.
    #[arg(long, value_delimiter = ',', default_value = "1000000", value_parser = clap::value_parser!(u64).range(20_000..=100_000_000))]
    entries: Vec<u64>,
}

/// How to measure the verifier.
#[derive(Clone, Copy, Debug, Args)]
pub struct VerifyArgs {
    /// Rounds; the figures are their medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Ledger entries in the journal.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    entries: u64,
}

/// How to measure exports.
#[derive(Clone, Copy, Debug, Args)]
pub struct ExportBenchArgs {
    /// Ledger entries in the journal.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    entries: u64,
}

/// Somebody wanted no figures after all.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; there are no figures")]
struct Interrupted;

/// Runs one of them.
///
/// # Errors
/// When the private servers or a baseline cannot be started, or an answer is not the expected one.
pub async fn run(command: BenchCommand, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let mut signal = Signal::new()?;
    let ground = ground::Ground::start(settings).await?;
    let measured = async {
        match command {
            BenchCommand::Append(rounds) => append::run(rounds, &ground, output).await,
            BenchCommand::Webhook(args) => webhook::run(args, settings, &ground, output).await,
            BenchCommand::Lag(args) => lag::run(args, &ground, output).await,
            BenchCommand::Rebuild(args) => rebuild::run(args, &ground, output).await,
            BenchCommand::Verify(args) => verify::run(args, &ground, output).await,
            BenchCommand::Idle(rounds) => idle::run(rounds, &ground, output).await,
            BenchCommand::Export(args) => export::run(args, &ground, output).await,
        }
    };
    let result = tokio::select! {
        result = measured => result,
        () = signal.received() => Err(Interrupted.into()),
    };
    // The servers are stopped and their data removed however it went; the first failure is the one to tell.
    let stopped = ground.stop().await;
    let report = result?;
    stopped?;
    report.print(output)?;
    Ok(Outcome::Fine)
}
