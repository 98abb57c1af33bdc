//! The real way in: `fanledger-commands`' intake behind the gateway's port.

use async_trait::async_trait;
use fanledger_commands::stripe::intake::{Intake, IntakeError};

use crate::ports::{IntakeRefusal, Receipt, WebhookIntake};

#[async_trait]
impl WebhookIntake for Intake {
    async fn receive(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeRefusal> {
        match Intake::receive(self, signature, body).await {
            Ok(receipt) => Ok(Receipt {
                position: receipt.position.get(),
                duplicate: receipt.duplicate,
                conflict: receipt.conflict,
            }),
            Err(IntakeError::Signature(error)) => Err(IntakeRefusal::Signature { reason: error.to_string() }),
            Err(IntakeError::NoEventId(_)) => Err(IntakeRefusal::NoEventId),
            Err(
                error @ (IntakeError::Seal(_)
                | IntakeError::Append(_)
                | IntakeError::Compare(_)
                | IntakeError::Encode(_)
                | IntakeError::Inconsistent(_)),
            ) => Err(IntakeRefusal::Unavailable(Box::new(error))),
        }
    }
}
