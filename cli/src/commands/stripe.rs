//! `fanledger stripe replay | retranslate | sync | show`.

mod replay;
mod show;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use fanledger_commands::operations::{self, RetranslateFilter};
use fanledger_domain::time::Timestamp;
use fanledger_journal::database::Role;
use fanledger_journal::reader::Reader;

use crate::commands::seed::parse_time;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::roles::Commands;
use crate::settings::{Need, Settings};

/// Replay event files, translate stored events again, list balance transactions from Stripe.
#[derive(Debug, Subcommand)]
pub enum StripeCommand {
    /// Sign events and post them to the gateway; exit code 1 if any is refused
    #[command(
        after_help = "Files hold one event, an array of events, or one event a line; of folders, all .json, .jsonl and .ndjson.\n\n\
        Examples:\n  fanledger stripe replay events.jsonl\n  \
        fanledger stripe replay fixtures/ --fresh-ids --seed 7 --shuffle --duplicate 2 --json"
    )]
    Replay(replay::ReplayArgs),
    /// Translate stored webhooks again; only the difference to what was posted is posted
    #[command(
        after_help = "Example:\n  fanledger stripe retranslate --type charge.updated --since 2026-01-01T00:00:00Z"
    )]
    Retranslate(RetranslateArgs),
    /// List balance transactions from Stripe and take in those that are not known: Stripe's own fees and reserves
    Sync(SyncArgs),
    /// Open a stored webhook and print what Stripe sent; who opened it and why stays in the journal
    #[command(
        after_help = "Example:\n  export FANLEDGER_TOKEN=$(fanledger token mint --role finance --subject ada)\n  \
        fanledger stripe show evt_1Q2w3e --reason 'the fan asks about the amount' | jq .data.object.amount"
    )]
    Show(show::ShowArgs),
}

/// Which stored webhooks.
#[derive(Debug, Args)]
pub struct RetranslateArgs {
    /// Only events of this Stripe type, such as charge.updated.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events received at or after this instant (RFC 3339).
    #[arg(long, value_parser = parse_time)]
    since: Option<DateTime<Utc>>,
}

/// Since when.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Only those that Stripe made at or after this instant (RFC 3339); all of them otherwise.
    #[arg(long, value_parser = parse_time)]
    since: Option<DateTime<Utc>>,
}

/// Why Stripe cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("FANLEDGER_STRIPE_API_KEY is missing: set it to a restricted key that may read balance transactions")]
pub struct NoApiKey;

/// Runs one of them.
///
/// # Errors
/// When the gateway, the journal or Stripe cannot be reached.
pub async fn run(command: StripeCommand, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    match command {
        StripeCommand::Replay(args) => replay::run(args, settings, output).await,
        StripeCommand::Retranslate(args) => retranslate(args, settings, output).await,
        StripeCommand::Sync(args) => sync(args, settings, output).await,
        StripeCommand::Show(args) => show::run(&args, settings, output).await,
    }
}

async fn retranslate(args: RetranslateArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    settings.require(&[Need::Database(Role::Command), Need::VaultKey, Need::Livemode])?;
    let commands = Commands::connect(settings).await?;
    let reader = Reader::new(commands.pool.clone());
    let bar = output.bar(reader.head().await?.position.get(), "translating again");
    let filter = RetranslateFilter { event_type: args.event_type, since: args.since };
    let done = operations::retranslate(
        &commands.executor,
        &reader,
        &commands.vault,
        settings.stripe_livemode,
        &filter,
        |position| bar.set_position(position.get()),
    )
    .await;
    bar.finish_and_clear();
    commands.executor.writer().shutdown().await;
    let done = done?;
    if output.is_json() {
        output.json(&done)?;
    } else {
        output.line(format_args!(
            "Translated {} webhooks again: {} carry facts, {} do not, {} facts refused; {} events appended.",
            done.events, done.translated, done.not_translated, done.refused, done.appended
        ))?;
        if done.unreadable > 0 {
            output.line(format_args!(
                "  {} of them cannot be decoded by this program and were left as they are; the log has their positions.",
                done.unreadable
            ))?;
        }
    }
    Ok(if done.refused == 0 && done.unreadable == 0 { Outcome::Fine } else { Outcome::CheckFailed })
}

async fn sync(args: SyncArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    settings.require(&[Need::Database(Role::Command), Need::VaultKey])?;
    let since = args.since.map(Timestamp::from_chrono).transpose().map_err(Failure::usage)?;
    let commands = Commands::connect(settings).await?;
    let stripe = commands.stripe.clone().ok_or(NoApiKey)?;
    let bar = output.spinner("balance transactions listed");
    let done = operations::sync(&commands.executor, stripe.as_ref(), since, |done| bar.set_position(done.listed)).await;
    bar.finish_and_clear();
    commands.executor.writer().shutdown().await;
    let done = done?;
    if output.is_json() {
        output.json(&done)?;
    } else {
        output.line(format_args!(
            "Listed {} balance transactions: {} new, {} entries posted, {} failed.",
            done.listed,
            done.new,
            done.entries,
            done.failed.len()
        ))?;
        for id in &done.failed {
            output.line(format_args!("  failed: {id}"))?;
        }
    }
    Ok(if done.failed.is_empty() { Outcome::Fine } else { Outcome::CheckFailed })
}
