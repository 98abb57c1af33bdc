//! What only this process knows of `/readyz`: its relay and its feed.

use async_trait::async_trait;
use fanledger_gateway::{Finding, Probe};
use fanledger_journal::relay::RelayStatus;
use tokio::sync::watch;

/// What is to be known and done when NATS does not serve. A server that hangs is told apart from one that is gone by looking
/// at it alone: to a client both are silence.
const NATS_AWAY: &str = "NATS is not reachable, or accepts connections and does not answer; projections read Postgres \
                         meanwhile, at the cost of latency, and nothing is lost. See that nats-server runs where \
                         FANLEDGER_NATS_URL says; if it runs and is silent, restart it: its stream is filled again by itself";

/// The same of Postgres, which the relay reads and whose lock makes it the only one.
const POSTGRES_AWAY: &str = "Postgres is not reachable, or does not let the relay read the journal or hold its lock; NATS is not the \
                             cause. See that Postgres runs and takes connections: `fanledger doctor` says what it answers";

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
            (true, false) => format!("has no working link to NATS. {NATS_AWAY}"),
            (false, _) => match status.error {
                Some(_) => {
                    let cause = if status.postgres_away { POSTGRES_AWAY } else { NATS_AWAY };
                    format!("pauses after an error, which is in its log, and tries again. {cause}")
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
        let detail = if *self.connected.borrow() { "projections hear of events from NATS" } else { NATS_AWAY };
        Finding { ready: true, detail: detail.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use fanledger_journal::feed::Feed;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn relay_says(active: bool, connected: bool, error: Option<&str>) -> String {
        let status = RelayStatus { active, connected, error: error.map(str::to_owned), ..RelayStatus::default() };
        let found = RelayProbe::new(watch::Sender::new(status).subscribe()).look().await;
        assert!(found.ready, "its absence costs latency, not function");
        found.detail
    }

    #[tokio::test]
    async fn a_relay_without_nats_says_what_to_do_and_quotes_no_error() {
        for (active, connected, error) in
            [(true, false, None), (true, false, Some("nats://relay:hunter2@db")), (false, false, Some("hunter2"))]
        {
            let said = relay_says(active, connected, error).await;
            assert!(said.contains("FANLEDGER_NATS_URL") && said.contains("restart"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(relay_says(true, true, None).await.contains("publishes"));
        assert!(relay_says(false, false, None).await.contains("stands by"));
    }

    #[tokio::test]
    async fn a_relay_without_postgres_does_not_blame_nats() {
        let status = RelayStatus { error: Some("hunter2".to_owned()), postgres_away: true, ..RelayStatus::default() };
        let said = RelayProbe::new(watch::Sender::new(status).subscribe()).look().await.detail;
        assert!(said.contains("Postgres is not reachable") && !said.contains("FANLEDGER_NATS_URL"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    /// A server that hangs accepts connections, by the kernel's hand, and says nothing.
    #[tokio::test]
    async fn a_feed_from_a_server_that_hangs_says_what_to_do() {
        let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let feed = Feed::start(format!("nats://{}", hanging.local_addr().unwrap()), stop.clone());
        let _connection = hanging.accept().await.unwrap();
        let found = FeedProbe::new(feed.connected()).look().await;
        assert!(found.ready, "runners fall back to Postgres");
        assert!(found.detail.contains("does not answer") && found.detail.contains("restart"), "{}", found.detail);
        stop.cancel();
    }
}
