//! Closing months of the book, and opening the last one again.
//!
//! A close is one event in `period/platform`. Its position and chain fix the month's closing balances; it posts nothing. Every
//! posting is guarded by that stream, so what is recorded after a close was dated with it in view.

use fanledger_domain::period::{Period, PeriodCommand, PeriodError};
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::Metadata;

use crate::executor::{ActError, Executed, Executor, period_stream};
use crate::store::Store;

/// Closes or reopens a month. What it led to is one event, whose position a close's balances are as of.
///
/// # Errors
/// When the month is not the one that can be, or not by this person; or the journal does not take it.
pub async fn act<S: Store>(
    executor: &Executor<S>,
    command: PeriodCommand,
    now: Timestamp,
    metadata: &Metadata,
) -> Result<Executed, ActError<PeriodError>> {
    let decide = |period: &Period, _| period.decide(command.clone(), now).map(|event| vec![event]);
    executor.act(&period_stream(), metadata, Period::evolve, decide).await
}
