//! `fanledger ledger …`: what finance reads, and what it does.

mod act;
mod acts;
mod asked;
mod attribute;
mod export;
mod payouts;
mod periods;
mod reconcile;
mod show;
mod statement;

pub use export::{FormatName, format_of};

use chrono::{DateTime, NaiveDate, NaiveTime};
use clap::{Args, Subcommand, ValueEnum};
use fanledger_domain::account::Account;
use fanledger_domain::id::EntryId;
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{AsOf, By};

use asked::{AccountArgs, AskedArgs};

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::Settings;

/// Trial balance, accounts, entries, what is awaited and in suspense; release, converge.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Every account's balance by currency; debits equal credits in each
    #[command(after_help = "Examples:\n  fanledger ledger trial-balance\n  \
        fanledger ledger trial-balance --as-of 2026-09-30T23:59:59Z --by occurred --currency usd\n  \
        fanledger ledger trial-balance --as-of 1000 --json      # as it was known at position 1000\n  \
        fanledger ledger trial-balance --period 2026-10         # as the close of October fixed it, for ever")]
    TrialBalance(AskedArgs),
    /// One account's statement: what stood before, every posting with the balance after it, what stands
    #[command(
        after_help = "Lines are in the order of their time on the axis of --by, and where that is the same of their position.\n\n\
        Examples:\n  fanledger ledger account assets:stripe:clearing --currency usd\n  \
        fanledger ledger account income:platform-fees --from 2026-10-01 --to 2026-10-31\n  \
        fanledger ledger account income:platform-fees --period 2026-10   # as the close of October fixed it\n  \
        fanledger ledger account liabilities:creators:crt_aurora:pending"
    )]
    Account(AccountArgs),
    /// What each creator has: pending, available, held, and what they owe
    Creators,
    /// A creator's statement: what they had, what came to it line by line, what they have
    #[command(
        after_help = "The opening balance and the lines add up to the closing balance. `fanledger ledger activity`\n\
        lists the entries behind any of its figures, with the same times.\n\n\
        Examples:\n  fanledger ledger statement crt_aurora --period 2026-10   # as closed; an open month so far\n  \
        fanledger ledger statement crt_aurora --from 2026-01-01 --to 2026-12-31 --currency usd --by occurred"
    )]
    Statement(statement::StatementArgs),
    /// The entries behind a creator's statement, each with what it contributes
    #[command(after_help = "Examples:\n  fanledger ledger activity crt_aurora --period 2026-10 --line refunds\n  \
        fanledger ledger activity crt_aurora --line sales --kind tip --currency usd")]
    Activity(statement::ActivityArgs),
    /// One entry: its postings, and the Stripe object, facts and webhooks that caused it
    Entry(EntryArgs),
    /// Balance transactions that objects imply and that were not seen yet
    #[command(
        after_help = "This is as of now. What stood unconfirmed as of then is `fanledger ledger account assets:stripe:unconfirmed \
        --as-of <TIME>`."
    )]
    Awaited,
    /// Money in suspense, by reason and object, oldest first
    #[command(
        after_help = "Examples:\n  fanledger ledger suspense\n  fanledger ledger suspense --as-of 2026-09-30T23:59:59Z"
    )]
    Suspense(AskedArgs),
    /// What months were closed, when and by whom, and which is next
    Periods,
    /// Close a month: nothing more is booked into it, and its balances are fixed
    #[command(
        after_help = "What is open by the end of the month is shown first; it does not stop the close. Position, chain and digest\n\
        name the closing balances: whoever has the same digest has the same balances.\n\n\
        Examples:\n  fanledger ledger close 2026-10 --dry-run\n  fanledger ledger close 2026-10"
    )]
    Close(periods::CloseArgs),
    /// Open the last closed month again: by another person than who closed it
    #[command(
        after_help = "Example:\n  fanledger ledger reopen 2026-10 --reason 'the bank statement of October came late'"
    )]
    Reopen(periods::ReopenArgs),
    /// The ledger as a file for hledger, beancount, a spreadsheet or whatever reads Parquet
    #[command(
        after_help = "hledger and beancount check the closing balances that the file asserts. docs/export.md has columns and names.\n\n\
        Examples:\n  fanledger ledger export --format hledger --out books.journal && hledger -f books.journal check -s\n  \
        fanledger ledger export --format csv --out october.csv --period 2026-10 --currency usd\n  \
        fanledger ledger export --format beancount --out - --to 2026-06-30 | bean-check /dev/stdin"
    )]
    Export(export::ExportArgs),
    /// Our balance transactions beside Stripe's list of them; exit code 1 if they differ
    #[command(after_help = "Nothing is written. What is missing here is taken in by `fanledger stripe sync`.\n\n\
        Examples:\n  fanledger ledger reconcile --balance-transactions balance_history.csv\n  \
        fanledger ledger reconcile --balance-transactions october.csv --since 2026-10-01 --until 2026-10-31 --without-payouts\n  \
        fanledger ledger reconcile --fetch --since 2026-10-01 --json")]
    Reconcile(reconcile::ReconcileArgs),
    /// Say whose money a charge, transfer or application fee is: it leaves suspense at its own date
    #[command(after_help = "This beats metadata, and the last word stands; the same again changes nothing.\n\n\
        Examples:\n  fanledger ledger suspense\n  \
        fanledger ledger attribute ch_1Q2w3e --creator crt_aurora --reason 'the fan wrote for whom it is'\n  \
        fanledger ledger attribute ch_1Q2w3e --creator crt_aurora --kind tip --share-bps 9000 --tax 87 --jurisdiction us-ny --reason 'as invoiced'")]
    Attribute(attribute::AttributeArgs),
    /// What finance said of whose money something is: who said it, when and why
    #[command(
        after_help = "Kind and share are left out where the sale's or the policy's stand; tax is in minor units."
    )]
    Attributions(attribute::AttributionsArgs),
    /// Book an entry by hand, for what Stripe does not know; above a limit it waits for a second person
    #[command(
        after_help = "Up to 1,000.00 of a currency (100,000 of one without decimals) is posted at once. Clearing and unconfirmed follow Stripe\n\
        alone and are never moved by hand.\n\n\
        Examples:\n  fanledger ledger post --debit assets:bank=10000 --credit income:other=10000 --currency usd \\\n    \
        --description 'interest of October' --reason 'bank statement of 31 October' --occurred 2026-10-31T00:00:00Z\n  \
        fanledger ledger post --file entry.json"
    )]
    Post(acts::PostArgs),
    /// Agree to an entry by hand that somebody else proposed, and so post it
    #[command(after_help = "Example:\n  fanledger ledger manual-entries --state proposed\n  \
        fanledger ledger approve mne_0192… --token $(fanledger token mint --role finance --subject grace)")]
    Approve(acts::ApproveArgs),
    /// Say no to an entry by hand: it is never posted
    Reject(acts::RejectArgs),
    /// Take an entry back with one of its own, once
    #[command(
        after_help = "It occurs now, or at --occurred: until then the entry stood. Entries by hand can be taken back, and what a payout run\n\
        claimed or recovered; that the next run claims or recovers again, unless an entry by hand forgives it. What follows a\n\
        charge or another object at Stripe cannot: attribute that to somebody else.\n\n\
        Example:\n  fanledger ledger reverse mne_0192…:1:20261031T000000Z --reason 'booked twice'"
    )]
    Reverse(acts::ReverseArgs),
    /// What finance booked by hand: who proposed it and why, who agreed or said no
    ManualEntries(acts::ManualEntriesArgs),
    /// Evaluate every object's books again and post what they differ by; exit code 1 if any
    /// is refused, or in a dry run differs
    Converge(ConvergeArgs),
    /// Pay creators: runs of transfers, from the dry run to the end; holds
    #[command(subcommand)]
    Payouts(payouts::PayoutsCommand),
    /// Make charges available for payout whose money Stripe has made available by a date
    #[command(after_help = "Example:\n  fanledger ledger release --through 2026-10-31")]
    Release(ReleaseArgs),
}

/// As of when, and in which currency.
#[derive(Debug, Args)]
pub struct AsOfArgs {
    /// An instant (RFC 3339) or a position of the journal, inclusive; now where it is not given.
    #[arg(long, value_parser = parse_as_of, value_name = "TIME|POSITION")]
    as_of: Option<AsOf>,
    /// Which of an entry's times an instant is compared with.
    #[arg(long, value_enum, default_value_t = Axis::Effective)]
    by: Axis,
    /// Only this currency.
    #[arg(long, value_parser = parse_currency)]
    currency: Option<Currency>,
}

/// An entry's three times.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Axis {
    /// When it counts: the same as it occurred, or the first open instant where that period was closed.
    Effective,
    /// When it happened at Stripe.
    Occurred,
    /// When the journal recorded it.
    Recorded,
}

impl From<Axis> for By {
    fn from(axis: Axis) -> Self {
        match axis {
            Axis::Effective => Self::Effective,
            Axis::Occurred => Self::Occurred,
            Axis::Recorded => Self::Recorded,
        }
    }
}

/// Which entry.
#[derive(Debug, Args)]
pub struct EntryArgs {
    /// Its id, as `ledger account` lists it.
    #[arg(value_parser = parse_entry_id)]
    entry_id: EntryId,
    /// As of when it must have been there.
    #[command(flatten)]
    as_of: AsOfArgs,
}

/// Whether to post.
#[derive(Debug, Args)]
pub struct ConvergeArgs {
    /// Say what would be posted, and post nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Through when.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// A date, whose end in UTC is meant, or an instant (RFC 3339).
    #[arg(long, value_parser = parse_through, value_name = "DATE")]
    through: Timestamp,
}

fn parse_as_of(text: &str) -> Result<AsOf, String> {
    if let Ok(position) = text.parse() {
        return Ok(AsOf::Position(position));
    }
    text.parse::<Timestamp>().map(AsOf::Instant).map_err(|_| {
        "expected a position, or a time in RFC 3339 with an offset, such as 2026-01-31T12:00:00Z".to_owned()
    })
}

fn parse_through(text: &str) -> Result<Timestamp, String> {
    let expected = |_| "expected a date such as 2026-01-31, or a time in RFC 3339 with an offset".to_owned();
    match text.parse::<NaiveDate>() {
        Ok(date) => {
            // Stripe's times are whole seconds, so the day's last second is its end.
            let end = date.and_time(NaiveTime::MIN).and_utc().timestamp() + 86_399;
            Timestamp::from_unix_seconds(end).map_err(|error| error.to_string())
        }
        Err(_) => {
            let time = DateTime::parse_from_rfc3339(text).map_err(expected)?;
            Timestamp::from_chrono(time.to_utc()).map_err(|error| error.to_string())
        }
    }
}

fn parse_currency(text: &str) -> Result<Currency, String> {
    Currency::from_code(text).map_err(|error| error.to_string())
}

fn parse_account(text: &str) -> Result<Account, String> {
    text.parse::<Account>().map_err(|error| error.to_string())
}

fn parse_entry_id(text: &str) -> Result<EntryId, String> {
    text.parse::<EntryId>().map_err(|error| error.to_string())
}

/// Runs one of them.
///
/// # Errors
/// When Postgres cannot be asked, or the question has no answer.
pub async fn run(command: LedgerCommand, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    match command {
        LedgerCommand::TrialBalance(args) => show::trial_balance(&args, settings, output).await,
        LedgerCommand::Account(args) => show::account(&args, settings, output).await,
        LedgerCommand::Creators => statement::creators(settings, output).await,
        LedgerCommand::Statement(args) => statement::statement(&args, settings, output).await,
        LedgerCommand::Activity(args) => statement::activity(&args, settings, output).await,
        LedgerCommand::Entry(args) => show::entry(&args, settings, output).await,
        LedgerCommand::Awaited => show::awaited(settings, output).await,
        LedgerCommand::Suspense(args) => show::suspense(&args, settings, output).await,
        LedgerCommand::Periods => periods::periods(settings, output).await,
        LedgerCommand::Close(args) => periods::close(&args, settings, output).await,
        LedgerCommand::Reopen(args) => periods::reopen(&args, settings, output).await,
        LedgerCommand::Export(args) => export::run(&args, settings, output).await,
        LedgerCommand::Reconcile(args) => reconcile::run(&args, settings, output).await,
        LedgerCommand::Attribute(args) => attribute::run(&args, settings, output).await,
        LedgerCommand::Post(args) => acts::post(&args, settings, output).await,
        LedgerCommand::Approve(args) => acts::approve(&args, settings, output).await,
        LedgerCommand::Reject(args) => acts::reject(&args, settings, output).await,
        LedgerCommand::Reverse(args) => acts::reverse(&args, settings, output).await,
        LedgerCommand::Attributions(args) => attribute::list(&args, settings, output).await,
        LedgerCommand::ManualEntries(args) => acts::manual_entries(&args, settings, output).await,
        LedgerCommand::Payouts(command) => payouts::run(command, settings, output).await,
        LedgerCommand::Converge(args) => act::converge(&args, settings, output).await,
        LedgerCommand::Release(args) => act::release(&args, settings, output).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_of_is_a_position_or_an_instant() {
        assert_eq!(parse_as_of("17"), Ok(AsOf::Position(17)));
        assert_eq!(
            parse_as_of("2026-01-31T13:00:00+01:00"),
            Ok(AsOf::Instant("2026-01-31T12:00:00Z".parse().unwrap()))
        );
        for bad in ["", "-1", "yesterday", "2026-01-31", "2026-01-31T12:00:00"] {
            assert!(parse_as_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_currency_is_written_in_lowercase() {
        assert_eq!(parse_currency("usd"), Ok("usd".parse().unwrap()));
        assert_eq!(parse_currency("USD").unwrap_err(), "currency codes are lowercase: write usd");
        assert!(parse_currency("xxx").unwrap_err().contains("unknown currency"));
    }

    #[test]
    fn a_date_means_its_end() {
        assert_eq!(parse_through("2028-02-29"), Ok("2028-02-29T23:59:59Z".parse().unwrap()));
        assert_eq!(parse_through("2026-01-31T12:00:00Z"), Ok("2026-01-31T12:00:00Z".parse().unwrap()));
        assert!(parse_through("2026-02-30").is_err());
    }
}
