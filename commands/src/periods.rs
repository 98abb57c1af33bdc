//! Closing months of the book, and opening the last one again.
//!
//! A close is one event in `period/platform`. Its position and chain fix the month's closing balances; it posts nothing. Every
//! posting is guarded by that stream, so what is recorded after a close was dated with it in view.

use chrono::Utc;
use fanledger_domain::period::{Period, PeriodCommand, PeriodError};
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::event::{Metadata, Position};

use crate::executor::{ActError, Executed, Executor, period_stream};
use crate::store::Store;
use crate::stripe::acted_by;

/// Why a month was not closed or reopened.
#[derive(Debug, thiserror::Error)]
pub enum PeriodActError {
    /// It was refused, or could not be done.
    #[error(transparent)]
    Act(#[from] ActError<PeriodError>),
    /// The clock is not one.
    #[error("read the clock")]
    Clock(#[source] TimestampError),
    /// A period's decisions are one event each.
    #[error("the period decided nothing, which is a fault of the program")]
    Nothing,
}

/// Closes or reopens a month, now. Answers the position of the act: a close's balances are as of it.
///
/// # Errors
/// See [`PeriodActError`].
pub async fn act_now<S: Store>(executor: &Executor<S>, command: PeriodCommand) -> Result<Position, PeriodActError> {
    let by = match &command {
        PeriodCommand::Close { by, .. } | PeriodCommand::Reopen { by, .. } => by.as_str(),
    };
    let metadata = acted_by(by);
    let now = Timestamp::from_chrono(Utc::now()).map_err(PeriodActError::Clock)?;
    act(executor, command, now, &metadata).await?.last.ok_or(PeriodActError::Nothing)
}

/// Closes or reopens a month, at a time of the caller's. What it led to is one event.
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
