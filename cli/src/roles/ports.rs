//! The gateway's ports, filled with what the other crates offer.

use async_trait::async_trait;
use fanledger_commands::stripe::intake::{Intake, IntakeError};
use fanledger_gateway::{Finding, IntakeRefusal, Probe, Receipt, WebhookIntake};
use fanledger_journal::relay::RelayStatus;
use tokio::sync::watch;

/// The intake, as the gateway calls it.
pub(super) struct WebhookPort {
    intake: Intake,
}

impl WebhookPort {
    pub(super) const fn new(intake: Intake) -> Self {
        Self { intake }
    }
}

#[async_trait]
impl WebhookIntake for WebhookPort {
    async fn receive(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeRefusal> {
        match self.intake.receive(signature, body).await {
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

/// Whether this process's relay publishes. Its absence costs latency, not function: so it never says "not ready".
pub(super) struct RelayProbe {
    status: watch::Receiver<RelayStatus>,
}

impl RelayProbe {
    pub(super) const fn new(status: watch::Receiver<RelayStatus>) -> Self {
        Self { status }
    }
}

#[async_trait]
impl Probe for RelayProbe {
    fn name(&self) -> &'static str {
        "relay"
    }

    async fn look(&self) -> Finding {
        let status = self.status.borrow().clone();
        let detail = match (status.active, status.connected) {
            (true, true) => format!("publishes; NATS has acknowledged position {}", status.position),
            (true, false) => "does not reach NATS; projections read Postgres meanwhile: look at NATS".to_owned(),
            (false, _) => match status.error {
                Some(_) => {
                    "pauses after an error and tries again; projections read Postgres meanwhile: look at its log"
                        .to_owned()
                }
                None => "stands by: another relay is active".to_owned(),
            },
        };
        Finding { ready: true, detail }
    }
}

/// Whether this process hears from NATS. Runners fall back to Postgres, likewise.
pub(super) struct FeedProbe {
    connected: watch::Receiver<bool>,
}

impl FeedProbe {
    pub(super) const fn new(connected: watch::Receiver<bool>) -> Self {
        Self { connected }
    }
}

#[async_trait]
impl Probe for FeedProbe {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn look(&self) -> Finding {
        let detail = if *self.connected.borrow() {
            "projections hear of events from NATS"
        } else {
            "NATS is away; projections read Postgres meanwhile, at the cost of latency: look at NATS"
        };
        Finding { ready: true, detail: detail.to_owned() }
    }
}
