//! What the gateway needs from the rest: where webhooks go in, and probes of what it does not know itself.

use async_trait::async_trait;

/// What became of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where it stands in the journal; for a duplicate, where the first one stands.
    pub position: u64,
    /// Its event id was there before.
    pub duplicate: bool,
    /// It was there before with another body.
    pub conflict: bool,
}

/// Why a webhook was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeRefusal {
    /// The signature does not hold; nothing was stored.
    #[error("{reason}")]
    Signature {
        /// In which way, without the header's content.
        reason: String,
    },
    /// Signed, but no event id can be read from it.
    #[error("no event id can be read from the body")]
    NoEventId,
    /// The journal cannot be reached, or its clock is too far from ours. The webhook may come again.
    #[error("append the webhook to the journal")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where webhooks go in.
#[async_trait]
pub trait WebhookIntake: Send + Sync + 'static {
    /// Verifies and stores one; the answer comes after the commit.
    async fn receive(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeRefusal>;
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether requests can be served as far as this goes.
    pub ready: bool,
    /// What was found, and what to do where it is not well. No address, no secret.
    pub detail: String,
}

/// One check of `/readyz` that others know how to make: NATS or its fallback.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// The check's name in the answer, `nats`.
    fn name(&self) -> &'static str;
    /// Looks; bounded by the caller in time.
    async fn look(&self) -> Finding;
}
