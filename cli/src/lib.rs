//! The one binary, `fanledger`: every role as a subcommand, and the tools of finance and operators.
//!
//! Read in this order:
//! 1. [`Cli`] here: the tree of commands. Each command is one file under [`commands`].
//! 2. [`settings`] and [`state`]: what is set, and what a running `fanledger dev` leaves for other commands.
//! 3. [`roles`]: how gateway, relay, projector and manager are put together from the other crates.
//! 4. [`api_client`]: how commands act, as a person with a token. [`stripe`]: sending events as Stripe would. [`bench`]: our
//!    figures beside their baselines.
//! 5. [`output`] and [`failure`]: what people and programs see, and exit codes. [`telemetry`]: log and traces.
//!
//! Invariants:
//! - Exit codes: 0 fine, 1 the check failed, 2 usage, 3 could not run.
//! - Answers go to standard output, everything else to standard error; an error is printed once, here.
//! - `--json` is taken after any subcommand, and what it prints is the contract's: one document. What goes on for a while is JSON
//!   lines instead: `journal tail`, and a rebuild or verification of projections, whose progress is a part of its answer.
//! - A file that was named and cannot be read is usage, whichever command reads it.
//! - Secrets are never printed, `token mint` and `dev env` apart, whose purpose it is.
//!
//! What is not here: any rule of the ledger, the journal or HTTP. This crate wires and shows; the others know.

pub mod api_client;
pub mod bench;
pub mod clock;
pub mod commands;
pub mod connect;
pub mod draft;
pub mod export;
pub mod failure;
pub mod output;
pub mod reconcile;
pub mod recorded;
pub mod roles;
pub mod settings;
pub mod skip;
pub mod state;
pub mod stripe;
pub mod telemetry;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands::{
    completions, dev, doctor, journal, ledger, migrate, projections, seed, simulate, stripe as stripe_command, token,
};
use crate::failure::{Failure, Outcome, conclude};
use crate::output::Output;
use crate::settings::Settings;
use crate::telemetry::Telemetry;

/// A paid-membership platform's backend: an append-only journal, a ledger that always balances, and what is read from them.
#[derive(Debug, Parser)]
#[command(name = "fanledger", version, propagate_version = true, help_template = HELP, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub shared: Shared,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Read settings from this file instead of ./fanledger.toml; the environment (FANLEDGER_…) wins over either.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

// clap cannot group subcommands, so the groups are written here; a test holds the list complete.
const HELP: &str = "\
{about}

{usage-heading} {usage}

Try it:
  dev           A private Postgres and NATS, and all roles, on this machine; Ctrl-C stops it
  seed          Send a demo history through the real path: signed webhooks to the gateway
  doctor        Check settings, Postgres, NATS and projections; say what to do about each finding

Finance:
  ledger        Trial balance, accounts, entries, what is awaited and what is in suspense; release, converge
  stripe        Replay event files, translate stored events again, list balance transactions from Stripe

Operators:
  projections   How far each projection and process manager is; rebuild and prove, roll back; pause, resume, skip
  journal       Show, follow and verify the journal
  token         Mint a token for the HTTP API
  migrate       Bring the database up to this program's schema

Roles:
  all           All of the following in one process
  gateway       Serve HTTP: webhooks in, reads out
  relay         Publish the journal to NATS
  projector     Keep the read tables up to date
  manager       Run the process managers: translate Stripe's events

Engineers:
  bench         Measure against baselines in the same run
  simulate      The whole system on a simulated clock, with everything going wrong, seed by seed
  completions   Print a completion script for a shell

Options:
{options}

Examples:
  fanledger dev                                 # in one terminal
  fanledger seed && fanledger ledger trial-balance
  fanledger ledger account assets:stripe:clearing --as-of 2026-01-31T23:59:59Z
  fanledger journal verify --json

While `fanledger dev` is up, commands with the same FANLEDGER_DATA_DIR (default .fanledger) find its servers.
Exit codes: 0 fine, 1 the check failed, 2 usage (also a file that was named and cannot be read), 3 could not run.
";

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all roles in one process: gateway, relay, projector, manager
    All,
    /// Serve HTTP: webhooks in, reads out
    Gateway,
    /// Publish the journal to NATS
    Relay,
    /// Keep the read tables up to date
    Projector,
    /// Run the process managers: translate Stripe's events into facts and entries
    Manager,
    /// Start a private Postgres and NATS, and all roles, on this machine; Ctrl-C stops it
    Dev(dev::DevArgs),
    /// Bring the database up to this program's schema
    Migrate,
    /// Send a demo history through the real path: signed webhooks to the gateway
    Seed(seed::SeedArgs),
    /// Check settings, Postgres, NATS and projections; say what to do about each finding
    Doctor,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Tokens for the HTTP API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Replay event files, translate stored events again, list balance transactions from Stripe
    #[command(subcommand)]
    Stripe(stripe_command::StripeCommand),
    /// Show, follow and verify the journal
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// How far each projection and process manager is; rebuild and prove, roll back; pause, resume, skip
    #[command(subcommand)]
    Projections(projections::ProjectionsCommand),
    /// Trial balance, accounts, entries, what is awaited and in suspense; release, converge
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Measure against baselines in the same run
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Run the whole system on a simulated clock, with everything going wrong, seed by seed
    Simulate(simulate::SimulateArgs),
}

impl Command {
    /// Whether it is a part of the running system, rather than a tool that is used on it.
    const fn serves(&self) -> bool {
        matches!(self, Self::All | Self::Gateway | Self::Relay | Self::Projector | Self::Manager | Self::Dev(_))
    }

    /// What is logged where FANLEDGER_LOG says nothing. Roles say what they do; `dev` shares its terminal with the user, who
    /// wants to hear of trouble and not of each request; a tool's answer is its output.
    const fn log_filter(&self) -> &'static str {
        match self {
            Self::All | Self::Gateway | Self::Relay | Self::Projector | Self::Manager => "info,async_nats=warn",
            Self::Dev(_) => "warn,fanledger_cli=info,fanledger_devkit=info,async_nats=error",
            Self::Migrate
            | Self::Seed(_)
            | Self::Doctor
            | Self::Completions(_)
            | Self::Token(_)
            | Self::Stripe(_)
            | Self::Journal(_)
            | Self::Projections(_)
            | Self::Ledger(_)
            | Self::Bench(_)
            | Self::Simulate(_) => "warn,sqlx=error,async_nats=error",
        }
    }
}

/// Parses the command line, runs the command, says how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are asked for and end well; everything else is usage, which clap prints and numbers 2.
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return conclude(Err(Failure::from(StartError::Runtime(error)))),
    };
    conclude(runtime.block_on(run(cli)))
}

/// Why no command could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no threads.
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    /// The file that `--config` names cannot be read.
    #[error("read the settings in {}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

async fn run(cli: Cli) -> Result<Outcome, Failure> {
    let output = Output::new(cli.shared.json);
    if let Command::Completions(args) = &cli.command {
        return completions::run(args, &mut Cli::command(), output);
    }
    if let Command::Simulate(args) = &cli.command {
        return simulate::run(args, output);
    }
    // reqwest and sqlx use rustls; the process chooses its provider once. Another choice before ours stands.
    rustls::crypto::ring::default_provider().install_default().ok();
    let named = match cli.shared.config.as_deref() {
        Some(path) => Some(named_file(path)?),
        None => None,
    };
    let settings = Settings::load(named.as_deref());
    if let Command::Doctor = cli.command {
        return doctor::run(settings, output).await;
    }
    let settings = settings?;
    let telemetry = Telemetry::start(&settings, cli.command.log_filter(), cli.command.serves())?;
    for unknown in &settings.unknown {
        tracing::warn!("{unknown}");
    }
    let outcome = dispatch(cli.command, settings, output).await;
    telemetry.finish().await;
    outcome
}

/// The settings that `--config` names.
fn named_file(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|source| Failure::usage(StartError::Settings { path: path.to_owned(), source }))
}

async fn dispatch(command: Command, settings: Settings, output: Output) -> Result<Outcome, Failure> {
    match command {
        Command::All => roles::run(&settings, roles::ALL).await,
        Command::Gateway => roles::run(&settings, &[roles::Role::Gateway]).await,
        Command::Relay => roles::run(&settings, &[roles::Role::Relay]).await,
        Command::Projector => roles::run(&settings, &[roles::Role::Projector]).await,
        Command::Manager => roles::run(&settings, &[roles::Role::Manager]).await,
        Command::Dev(args) => dev::run(args, settings, output).await,
        Command::Migrate => migrate::run(&settings, output).await,
        Command::Seed(args) => seed::run(args, &settings, output).await,
        Command::Token(command) => token::run(command, &settings, output),
        Command::Stripe(command) => stripe_command::run(command, &settings, output).await,
        Command::Journal(command) => journal::run(command, &settings, output).await,
        Command::Projections(command) => projections::run(command, &settings, output).await,
        Command::Ledger(command) => ledger::run(command, &settings, output).await,
        Command::Bench(command) => bench::run(command, &settings, output).await,
        // Answered above, before settings were needed.
        Command::Completions(_) | Command::Doctor | Command::Simulate(_) => Ok(Outcome::Fine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound_and_every_command_stands_in_a_group() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            let line = format!("\n  {} ", subcommand.get_name());
            assert!(help.contains(&line), "{} is in no group of the help", subcommand.get_name());
        }
    }

    #[test]
    fn json_is_taken_after_any_subcommand() {
        for line in ["ledger trial-balance --json", "journal verify --json", "--json doctor", "dev env --json"] {
            let cli = Cli::try_parse_from(std::iter::once("fanledger").chain(line.split(' '))).unwrap();
            assert!(cli.shared.json, "{line}");
        }
    }

    #[test]
    fn usage_is_exit_code_2() {
        for line in
            ["", "nonsense", "journal show x", "stripe replay", "ledger release", "token mint", "simulate --seeds 5..5"]
        {
            let error = Cli::try_parse_from(std::iter::once("fanledger").chain(line.split_whitespace())).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
