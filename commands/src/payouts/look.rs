//! What stands at Stripe under the names of a run's lines, and whether it is what was approved.

use fanledger_domain::event::TransferObserved;
use fanledger_domain::facts::{EventStamp, TransferSnapshot};
use fanledger_domain::payout_run::line::LineEnd;
use fanledger_domain::payout_run::run::Stage;
use fanledger_domain::payout_run::{PayoutLine, PayoutRunId};
use fanledger_journal::event::Metadata;
use futures::future::join_all;
use sqlx::types::Uuid;

use crate::payouts::send_error::SendError;
use crate::payouts::transaction::Transaction;
use crate::stripe::api::StripeApi;
use crate::stripe::delivery::Delivery;

/// Requests under way at once; Stripe allows 100 reads and 100 writes a second in live mode, 25 in test mode.
pub(super) const CONCURRENCY: usize = 8;
/// Of lines that are not there, as many are looked up: beyond the last of the run, and the first ones of each run after it. More than
/// one, since a line may have failed; and 16 look-ups in all, which is nothing beside the run's own.
const AHEAD_LINES: usize = 4;
/// Of so many runs after it: one may have been cancelled, or have claimed only.
const AHEAD_RUNS: usize = 3;

/// What is to be done with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// It is approved: make its transfers.
    Send,
    /// It is stopped: make none, and end the lines that are left.
    Stop,
}

impl Errand {
    /// Where the run stands for as long as that is to be done.
    pub(super) const fn stage(self) -> Stage {
        match self {
            Self::Send => Stage::Approved,
            Self::Stop => Stage::Stopped,
        }
    }
}

/// A run under way.
pub(super) struct Sending<'a> {
    pub errand: Errand,
    pub stripe: &'a dyn StripeApi,
    pub journal: Uuid,
    pub run: PayoutRunId,
    pub metadata: Metadata,
}

impl Sending<'_> {
    /// What Stripe knows a line's transfer by: its group and its key.
    pub(super) fn reference(&self, line: &str) -> String {
        format!("fanledger-payout-{}-{line}", self.journal)
    }

    /// The transfers at Stripe under a line's name.
    pub(super) async fn transfers_of(&self, line: &str) -> Result<Vec<TransferSnapshot>, SendError> {
        let there = self.stripe.transfers_of_group(&self.reference(line)).await;
        there.map_err(|source| SendError::Stripe { line: line.to_owned(), source })
    }
}

/// What a line was found to be before anything was asked for.
pub(super) enum Look {
    /// It has ended.
    Ended(LineEnd),
    /// It has not, and these are at Stripe under its name.
    Open(Vec<TransferSnapshot>),
}

/// Refuses to make anything where Stripe knows lines that this journal has not.
pub(super) async fn check_ahead(
    sending: &Sending<'_>,
    lines: usize,
    connection: &mut impl Transaction,
) -> Result<(), SendError> {
    let last = u32::try_from(lines).unwrap_or(u32::MAX);
    let mut names: Vec<String> =
        (last.saturating_add(1)..).take(AHEAD_LINES).map(|line| sending.run.line(line)).collect();
    let mut run = sending.run;
    for _ in 0..AHEAD_RUNS {
        run = run.next();
        names.extend((1..).take(AHEAD_LINES).map(|line| run.line(line)));
    }
    for names in names.chunks(CONCURRENCY) {
        let mut asked = Vec::new();
        for name in names {
            asked.push(sending.transfers_of(name));
        }
        for (name, there) in names.iter().zip(join_all(asked).await) {
            if let Some(transfer) = there?.first() {
                let transfer = transfer.id.to_string();
                return Err(SendError::Mismatch { line: name.clone(), transfer, what: "there is no such line yet" });
            }
        }
        journal_id(connection).await?;
    }
    Ok(())
}

/// The line's transfer among those that were found under its name, where there is one.
pub(super) fn approved_one<'a>(
    name: &str,
    line: &PayoutLine,
    there: &'a [TransferSnapshot],
) -> Result<Option<&'a TransferSnapshot>, SendError> {
    match there {
        [] => Ok(None),
        [transfer] => check(name, line, transfer).map(|()| Some(transfer)),
        several => {
            let transfer = several.iter().map(|transfer| transfer.id.as_str()).collect::<Vec<_>>().join(" and ");
            Err(SendError::Mismatch { line: name.to_owned(), transfer, what: "there are several" })
        }
    }
}

/// What an answer claims is checked against what was asked for.
pub(super) fn check(name: &str, line: &PayoutLine, transfer: &TransferSnapshot) -> Result<(), SendError> {
    let differs = |what| Err(SendError::Mismatch { line: name.to_owned(), transfer: transfer.id.to_string(), what });
    if transfer.amount != line.money.minor() {
        differs("another amount")
    } else if transfer.currency != line.money.currency() {
        differs("another currency")
    } else if transfer.destination.as_ref() != Some(&line.destination) {
        differs("another account")
    } else {
        Ok(())
    }
}

/// The transfer as it was made, as a fact of its own stream. What became of it since comes by webhook, each dated as Stripe says;
/// a look that finds it reversed already would not know when. There is no event that it came with, so the transfer itself stands
/// for it: whoever looks again records the same.
pub(super) fn as_made(transfer: TransferSnapshot) -> Delivery {
    let made = TransferSnapshot { amount_reversed: 0, reversals: Vec::new(), ..transfer };
    let stamp = EventStamp { created: made.created, event: made.id.clone() };
    Delivery { object: made.id.clone(), facts: vec![TransferObserved { stamp, transfer: made }.into()] }
}

/// Also a sign of life on a connection that Postgres would otherwise take back.
pub(super) async fn journal_id(connection: &mut impl Transaction) -> Result<Uuid, SendError> {
    connection.journal_id().await.map_err(SendError::Journal)
}
