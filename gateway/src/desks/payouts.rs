//! Where payouts are asked for, with one snapshot of the books before it.

use async_trait::async_trait;
use chrono::Utc;
use fanledger_commands::executor::{ActError, Executed, Executor};
use fanledger_commands::payouts::desk::{ProposeError, Reckoned};
use fanledger_domain::event::Event;
use fanledger_domain::id::{CreatorId, Subject};
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::payout_run::hold::{HoldError, Say};
use fanledger_domain::payout_run::run::PayoutRunError;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{PayoutHoldReceipt, PayoutRunReceipt, PayoutRunState};
use sqlx::PgPool;

use super::{failed, field, is_new_creator};
use crate::ports::{ActRefusal, Acted, PayoutDesk};
use crate::read::{self, Payables, Read, ReadError};

/// See the module.
pub struct Payouts {
    executor: Executor,
    queries: PgPool,
}

impl Payouts {
    /// `queries` logs in as `fanledger_gateway`.
    pub const fn new(executor: Executor, queries: PgPool) -> Self {
        Self { executor, queries }
    }

    /// The books, which must hold everything up to `head`. That was waited for before, and a switch of generations may have taken
    /// one of the views back since.
    async fn books(&self, head: u64) -> Result<Read<Payables>, ActRefusal> {
        let read = read::payables(&self.queries, now()?).await.map_err(unread)?;
        let position = read.position.min(read.value.payouts_position);
        if position < head {
            let text = format!("the books are read up to position {position}, and the journal is at {head}");
            return Err(ActRefusal::Behind(format!("{text}: try again in a moment")));
        }
        Ok(read)
    }
}

fn now() -> Result<Timestamp, ActRefusal> {
    Timestamp::from_chrono(Utc::now()).map_err(|error| ActRefusal::Failed(Box::new(error)))
}

fn refused_run(error: PayoutRunError) -> ActRefusal {
    let text = error.to_string();
    match error {
        PayoutRunError::Unknown(_) => ActRefusal::Unknown(text),
        PayoutRunError::Open { .. } => ActRefusal::PayoutRunOpen(text),
        PayoutRunError::Nothing | PayoutRunError::Stale { .. } | PayoutRunError::Overtaken { .. } => {
            ActRefusal::LedgerRefused(text)
        }
        PayoutRunError::Decided { .. } => ActRefusal::AlreadyDecided(text),
        PayoutRunError::SecondPerson { .. } => ActRefusal::SecondPersonNeeded(text),
        PayoutRunError::Reason => field("reason", text),
        PayoutRunError::Entry { .. } | PayoutRunError::EntryId { .. } => ActRefusal::Failed(Box::new(error)),
    }
}

fn refused_act(error: ActError<PayoutRunError>) -> ActRefusal {
    match error {
        ActError::Refused(error) => refused_run(error),
        ActError::Failed(error) => failed(error),
    }
}

fn refused_proposal(error: ProposeError) -> ActRefusal {
    match error {
        ProposeError::Refused(error) => refused_run(error),
        ProposeError::Behind { .. } => ActRefusal::Behind(error.to_string()),
        ProposeError::Failed(error) => failed(error),
    }
}

fn unread(error: ReadError) -> ActRefusal {
    ActRefusal::Unavailable(Box::new(error))
}

fn receipt(run: PayoutRunId, state: PayoutRunState, executed: &Executed) -> Acted<PayoutRunReceipt> {
    let position = executed.last.map_or(0, |last| last.get());
    Acted { position, value: PayoutRunReceipt { run: run.to_string(), state, needs_approval: None } }
}

#[async_trait]
impl PayoutDesk for Payouts {
    async fn propose(&self, by: Subject, head: u64) -> Result<Acted<PayoutRunReceipt>, ActRefusal> {
        let Read { position, value } = self.books(head).await?;
        let last_run = value.last_run.map(|(run, _)| run);
        let Payables { payouts_position, payables, paid_alone, .. } = value;
        let reckoned = Reckoned { position, payouts_position, payables, paid_alone, last_run };
        let (proposed, last) =
            self.executor.propose_payout_run(&reckoned, &by, now()?).await.map_err(refused_proposal)?;
        let value = PayoutRunReceipt {
            run: proposed.run.to_string(),
            state: PayoutRunState::Proposed,
            needs_approval: Some(proposed.needs_approval),
        };
        Ok(Acted { position: last.get(), value })
    }

    async fn approve(&self, by: Subject, run: PayoutRunId, head: u64) -> Result<Acted<PayoutRunReceipt>, ActRefusal> {
        let Read { value, .. } = self.books(head).await?;
        let executed =
            self.executor.approve_payout_run(run, &by, &value.payables, now()?).await.map_err(refused_act)?;
        Ok(receipt(run, PayoutRunState::Approved, &executed))
    }

    async fn cancel(
        &self,
        by: Subject,
        run: PayoutRunId,
        reason: String,
    ) -> Result<Acted<PayoutRunReceipt>, ActRefusal> {
        let executed = self.executor.cancel_payout_run(run, &by, &reason, now()?).await.map_err(refused_act)?;
        let is_stopped = executed.events.iter().any(|event| matches!(event, Event::PayoutRunStopped(_)));
        let state = if is_stopped { PayoutRunState::Stopping } else { PayoutRunState::Canceled };
        Ok(receipt(run, state, &executed))
    }

    async fn say(
        &self,
        by: Subject,
        creator: CreatorId,
        say: Say,
        why: String,
    ) -> Result<Acted<PayoutHoldReceipt>, ActRefusal> {
        let creator_is_new = say == Say::Hold && is_new_creator(&self.queries, &creator).await;
        let executed = self.executor.say_of_payouts(&creator, say, &by, &why, now()?).await;
        let executed = executed.map_err(|error| match error {
            ActError::Refused(error @ (HoldError::HeldAlready { .. } | HoldError::NotHeld { .. })) => {
                ActRefusal::AlreadyDecided(error.to_string())
            }
            ActError::Refused(error @ HoldError::Reason) => field("reason", error),
            ActError::Failed(error) => failed(error),
        })?;
        let position = executed.last.map_or(0, |last| last.get());
        let value = PayoutHoldReceipt { creator: creator.to_string(), held: say == Say::Hold, creator_is_new };
        Ok(Acted { position, value })
    }
}
