//! `fanledger ledger reconcile`: our balance transactions beside Stripe's list of them.

use std::path::{Path, PathBuf};

use clap::Args;
use fanledger_commands::stripe::api::{StripeApi, StripeApiError};
use fanledger_domain::time::Timestamp;
use tokio::sync::mpsc;

use super::export::{Until, parse_from, parse_to};
use super::show::{connect, failed};
use crate::commands::stripe::NoApiKey;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::reconcile::file::{self, FileError, Stopped};
use crate::reconcile::{BATCH, Bounds, Comparison, ReconcileError, Theirs};
use crate::roles::stripe_api;
use crate::settings::Settings;

/// Parts that are read ahead of the comparison.
const READ_AHEAD: usize = 4;

/// Which list, and of when.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Stripe's list: CSV from the dashboard or the reports API, or the API's JSON (a list, an array, or one a line).
    #[arg(long, value_name = "FILE", required_unless_present = "fetch", conflicts_with = "fetch")]
    balance_transactions: Option<PathBuf>,
    /// List them from Stripe's API instead; nothing is taken in, as `stripe sync` would.
    #[arg(long)]
    fetch: bool,
    /// Compare from here on: a date (UTC), or an instant (RFC 3339); from the list's first where it is not given.
    #[arg(long, value_parser = parse_from, value_name = "DATE|TIME")]
    since: Option<Timestamp>,
    /// Compare up to here, inclusive: a date (UTC), whose end is meant, or an instant; through the list's last where it is not
    /// given.
    #[arg(long, value_parser = parse_to, value_name = "DATE|TIME")]
    until: Option<Until>,
    /// The list has no payouts (Stripe's "balance change from activity" leaves them out), so do not miss them.
    #[arg(long)]
    without_payouts: bool,
}

/// Why Stripe's list is not whole.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("list balance transactions from Stripe")]
    Stripe(#[source] StripeApiError),
    #[error("these of Stripe's balance transactions cannot be read, so there is no answer: {}", .0.join(", "))]
    Unreadable(Vec<String>),
}

pub(super) async fn run(args: &ReconcileArgs, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let bounds = Bounds {
        since: args.since,
        until: args.until.map(|Until(until)| until),
        without_payouts: args.without_payouts,
    };
    let pool = connect(settings).await?;
    let bar = output.spinner("balance transactions compared");
    let mut comparison = Comparison::new(&pool, bounds);
    match &args.balance_transactions {
        Some(path) => {
            from_file(path, &mut comparison, |listed| bar.set_position(listed)).await.map_err(refused)?;
        }
        None => {
            let stripe = stripe_api(settings)?.ok_or(NoApiKey)?;
            from_stripe(stripe.as_ref(), args.since, &mut comparison, |listed| bar.set_position(listed)).await?;
        }
    }
    let report = comparison.finish().await.map_err(refused)?;
    bar.finish_and_clear();
    report.print(output)?;
    Ok(if report.agrees() { Outcome::Fine } else { Outcome::CheckFailed })
}

/// A list that cannot be used is the user's to mend.
fn refused(error: ReconcileError) -> Failure {
    match error {
        ReconcileError::Read(error) => failed(error),
        error @ (ReconcileError::File(
            FileError::Read { .. }
            | FileError::Header { .. }
            | FileError::HeaderTwice(_)
            | FileError::Fields { .. }
            | FileError::Csv { .. }
            | FileError::Field { .. }
            | FileError::Json(_),
        )
        | ReconcileError::Twice { .. }
        | ReconcileError::Empty
        | ReconcileError::Range(_)) => Failure::usage(error),
    }
}

/// The file is read on a thread of its own, a few parts ahead of the comparison.
async fn from_file(path: &Path, comparison: &mut Comparison<'_>, progress: impl Fn(u64)) -> Result<(), ReconcileError> {
    let (sender, mut parts) = mpsc::channel::<Vec<Theirs>>(READ_AHEAD);
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut part = Vec::with_capacity(BATCH);
        file::read(&path, &mut |theirs| {
            part.push(theirs);
            part.len() < BATCH || sender.blocking_send(std::mem::take(&mut part)).is_ok()
        })?;
        // An error says that nobody takes it: the comparison has ended, and says why.
        sender.blocking_send(part).ok();
        Ok(())
    });
    while let Some(part) = parts.recv().await {
        comparison.add(part).await?;
        progress(comparison.listed());
    }
    match reading.await {
        Ok(Ok(()) | Err(Stopped::Taker)) => Ok(()),
        Ok(Err(Stopped::File(error))) => Err(error.into()),
        // A panic is this program's fault, and goes on here.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn from_stripe(
    stripe: &dyn StripeApi,
    since: Option<Timestamp>,
    comparison: &mut Comparison<'_>,
    progress: impl Fn(u64),
) -> Result<(), Failure> {
    let mut after: Option<String> = None;
    loop {
        let page = stripe.balance_transactions(since, after.as_deref()).await.map_err(FetchError::Stripe)?;
        if !page.unreadable.is_empty() {
            return Err(FetchError::Unreadable(page.unreadable).into());
        }
        let listed = comparison.listed();
        let part =
            (listed + 1..).zip(page.transactions).map(|(n, transaction)| Theirs::of_api(transaction, n)).collect();
        comparison.add(part).await.map_err(refused)?;
        progress(comparison.listed());
        after = page.after;
        if after.is_none() {
            return Ok(());
        }
    }
}
