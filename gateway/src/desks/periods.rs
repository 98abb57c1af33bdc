//! Where months are closed: the executor behind the gateway's port.

use async_trait::async_trait;
use fanledger_commands::executor::{ActError, Executor};
use fanledger_commands::periods::{self, PeriodActError};
use fanledger_domain::period::{PeriodCommand, PeriodError};
use fanledger_gateway_api::{PeriodActed, PeriodState};

use super::{failed, field};
use crate::ports::{ActRefusal, Acted, PeriodDesk};

#[async_trait]
impl PeriodDesk for Executor {
    async fn act(&self, command: PeriodCommand) -> Result<Acted<PeriodActed>, ActRefusal> {
        let (period, state) = match &command {
            PeriodCommand::Close { period, .. } => (period.to_string(), PeriodState::Closed),
            PeriodCommand::Reopen { period, .. } => (period.to_string(), PeriodState::Open),
        };
        let position = periods::act_now(self, command).await.map_err(refused)?.get();
        Ok(Acted { position, value: PeriodActed { period, state, position } })
    }
}

fn refused(error: PeriodActError) -> ActRefusal {
    match error {
        PeriodActError::Act(ActError::Refused(refused)) => {
            let text = refused.to_string();
            match refused {
                PeriodError::NotEnded { .. } => ActRefusal::PeriodNotEnded(text),
                PeriodError::NotNext { .. } => ActRefusal::PeriodNotNext(text),
                PeriodError::ClosedAlready { .. } => ActRefusal::PeriodClosedAlready(text),
                PeriodError::NotLast { .. } => ActRefusal::PeriodNotLast(text),
                PeriodError::SamePerson { .. } => ActRefusal::SecondPersonNeeded(text),
                PeriodError::Reason => field("reason", text),
                PeriodError::OutOfRange { .. } => field("period", text),
            }
        }
        PeriodActError::Act(ActError::Failed(error)) => failed(error),
        error @ (PeriodActError::Clock(_) | PeriodActError::Nothing) => ActRefusal::Failed(Box::new(error)),
    }
}
