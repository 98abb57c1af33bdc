//! The webhook's intake: verify, seal, append, answer. What the event means is the translator's affair, later.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fanledger_domain::event::{Event, StripeEventBodyDiffered, StripeEventReceived};
use fanledger_domain::stripe::{Envelope, NoEventId, read_envelope};
use fanledger_journal::append::{AppendError, Command, Outcome};
use fanledger_journal::event::{NewEvent, Position, StreamId};

use crate::executor::{ExecuteError, Executor, STRIPE_EVENT};
use crate::metrics::verdict;
use crate::store::{JournalStore, Store};
use crate::stripe::signature::{Secret, SignatureError, verify};
use crate::stripe::{WEBHOOK_ACTOR, caused_by};
use crate::vault::{Bodies, Vault, VaultError};

/// What is answered to a webhook that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where the event stands in the journal; durable.
    pub position: Position,
    /// Whether it had been received before.
    pub duplicate: bool,
    /// Whether it had been received before with another body; the first stands.
    pub conflict: bool,
}

/// Why a webhook was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Not signed by Stripe for us, or too long ago. Nothing was stored.
    #[error("the webhook's signature was refused")]
    Signature(#[source] SignatureError),
    /// Signed, and no event id can be read. Raised to operators.
    #[error("the webhook is signed and has no event id")]
    NoEventId(#[source] NoEventId),
    /// The body could not be sealed.
    #[error("seal the webhook's body")]
    Seal(#[source] VaultError),
    /// The journal did not take it; Stripe will send it again.
    #[error("append the webhook to the journal")]
    Append(#[source] AppendError),
    /// Reading or writing what was received before failed; Stripe will send it again.
    #[error("compare the webhook with the one received before")]
    Compare(#[source] ExecuteError),
    /// The event could not be written as JSON.
    #[error("write the webhook's event as JSON")]
    Encode(#[source] serde_json::Error),
    /// The journal says that it has the event, and it has none.
    #[error("the journal answered {0:?} and holds no such event; raised to operators")]
    Inconsistent(Outcome),
}

/// Receives webhooks.
pub struct Intake<S = JournalStore, V = Vault> {
    executor: Executor<S>,
    vault: V,
    secrets: Arc<[Secret]>,
}

impl<S: Store, V: Bodies> Intake<S, V> {
    /// An intake that accepts what any of `secrets` signed.
    pub fn new(executor: Executor<S>, vault: V, secrets: Vec<Secret>) -> Self {
        Self { executor, vault, secrets: secrets.into() }
    }

    /// Takes a webhook as it came: the header's bytes, and the raw body, which is what was signed.
    pub async fn receive(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        self.receive_at(now, signature, body).await
    }

    /// The same at an instant, in seconds since 1970: a signature is good for a few minutes only.
    pub async fn receive_at(&self, now: i64, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeError> {
        let received = self.receive_unmeasured(now, signature, body).await;
        let verdict = match &received {
            Ok(Receipt { conflict: true, .. }) => verdict::CONFLICT,
            Ok(Receipt { duplicate: true, .. }) => verdict::DUPLICATE,
            Ok(_) => verdict::ACCEPTED,
            Err(IntakeError::Signature(_)) => verdict::BAD_SIGNATURE,
            Err(IntakeError::NoEventId(_)) => verdict::NO_EVENT_ID,
            Err(
                IntakeError::Seal(_)
                | IntakeError::Append(_)
                | IntakeError::Compare(_)
                | IntakeError::Encode(_)
                | IntakeError::Inconsistent(_),
            ) => verdict::UNAVAILABLE,
        };
        metrics::counter!("fanledger_webhooks_total", "verdict" => verdict).increment(1);
        received
    }

    async fn receive_unmeasured(
        &self,
        now: i64,
        signature: Option<&[u8]>,
        body: &[u8],
    ) -> Result<Receipt, IntakeError> {
        verify(signature, body, &self.secrets, now).map_err(IntakeError::Signature)?;
        let envelope = read_envelope(body).map_err(|error| {
            tracing::error!("a signed webhook has no event id; look at the endpoint in Stripe's dashboard");
            IntakeError::NoEventId(error)
        })?;
        let body_digest = self.vault.body_digest(body);
        let stream = StreamId::new(STRIPE_EVENT, envelope.id.as_str());
        let sealed = self.vault.seal(&stream.to_string(), body).map_err(IntakeError::Seal)?;
        let event = received(envelope.clone(), body_digest.clone(), sealed.ciphertext);
        let payload = event.to_payload().map_err(IntakeError::Encode)?;
        let new =
            NewEvent { event_type: event.type_name().to_owned(), event_version: event.version().to_owned(), payload };
        let metadata = caused_by(WEBHOOK_ACTOR, &envelope.id);
        let command = Command { vault_key: Some(sealed.wrapped_key), ..Command::new(stream, 0, metadata, vec![new]) };
        match self.executor.store().append(command).await.map_err(IntakeError::Append)? {
            Outcome::Appended { first, .. } => Ok(Receipt { position: first, duplicate: false, conflict: false }),
            outcome @ (Outcome::Conflict { .. } | Outcome::Duplicate { .. } | Outcome::Misuse) => {
                self.again(&envelope, body_digest, outcome).await
            }
        }
    }

    /// The event was received before: the same, or with another body?
    async fn again(&self, envelope: &Envelope, body_digest: String, outcome: Outcome) -> Result<Receipt, IntakeError> {
        let Some((position, first)) = self.executor.first_receipt(&envelope.id).await.map_err(IntakeError::Compare)?
        else {
            return Err(IntakeError::Inconsistent(outcome));
        };
        if first.body_digest == body_digest {
            return Ok(Receipt { position, duplicate: true, conflict: false });
        }
        tracing::error!(stripe_event = %envelope.id, %position, "a Stripe event came again with another body; the first stands");
        let fact = StripeEventBodyDiffered { id: envelope.id.clone(), body_digest };
        let metadata = caused_by(WEBHOOK_ACTOR, &envelope.id);
        self.executor.record_body_differed(fact, &metadata).await.map_err(IntakeError::Compare)?;
        Ok(Receipt { position, duplicate: true, conflict: true })
    }
}

fn received(envelope: Envelope, body_digest: String, sealed_body: String) -> Event {
    let Envelope { id, event_type, api_version, created, livemode, account, object, flag } = envelope;
    StripeEventReceived {
        id,
        event_type,
        api_version,
        created,
        livemode,
        account,
        object,
        body_digest,
        sealed_body,
        flag,
    }
    .into()
}
