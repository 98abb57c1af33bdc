//! What only this process knows of `/readyz`: its relay and its feed.

use async_trait::async_trait;
use fanledger_gateway::{Finding, Probe};
use fanledger_journal::relay::RelayStatus;
use tokio::sync::watch;

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
