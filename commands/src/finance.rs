//! What finance says and is remembered for: whose money it is, and that a webhook was read. Manual entries are in
//! [`crate::manual_entries`].

use std::convert::Infallible;

use fanledger_domain::attribution::{self, Attributable, AttributionError, Saying};
use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::platform::{ApplicationFee, Transfer};
use fanledger_domain::event::{Event, StripeEventOpened, StripeEventReceived};
use fanledger_domain::facts::Attribution;
use fanledger_domain::id::{StripeId, StripeKind, Subject};
use fanledger_domain::ledgered::Ledgered;
use fanledger_domain::reason::{REASON_FORM, is_reason};
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::event::{Metadata, Position, StreamId};
use fanledger_journal::reader::{ReadError, Reader};
use sha2::{Digest as _, Sha256};

use crate::executor::{ActError, ExecuteError, Executed, Executor, STRIPE_EVENT};
use crate::stripe::acted_by;
use crate::vault::{Bodies as _, Vault, VaultError};

/// Does what finance asks for, in a person's name. Cheap to clone.
#[derive(Clone)]
pub struct Finance {
    pub(crate) executor: Executor,
    pub(crate) reader: Reader,
    vault: Vault,
}

/// Why an attribution was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum AttributeError {
    /// It was refused, or could not be done.
    #[error(transparent)]
    Act(#[from] ActError<AttributionError>),
    /// The clock is not one.
    #[error("read the clock")]
    Clock(#[source] TimestampError),
}

/// Why a webhook was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("no webhook {0} was received")]
    Unknown(StripeId),
    /// Reading what a person sent is an act, and is told why.
    #[error("expected why, {REASON_FORM}")]
    Reason,
    /// Its key was destroyed.
    #[error("the body of {0} was erased: its key was destroyed, and nobody can read it any more")]
    Erased(StripeId),
    /// Its key is gone, and nobody destroyed it.
    #[error(
        "the vault has no key for the body of {0}, not even a trace that it was destroyed: it was probably restored to an earlier \
         time than the journal; restore it from its newest backup, and it opens again"
    )]
    KeyMissing(StripeId),
    /// The clock is not one.
    #[error("read the clock")]
    Clock(#[source] TimestampError),
    /// The vault could not be asked, or its own key does not fit.
    #[error("open the webhook's body")]
    Vault(#[source] VaultError),
    /// It could not be recorded that it is opened, so it was not.
    #[error("record that the webhook is opened")]
    Execute(#[from] ExecuteError),
}

/// A webhook as it was received.
pub struct Opened {
    /// Where it stands in the journal that it was opened.
    pub position: Position,
    /// When it was opened.
    pub at: Timestamp,
    /// The exact bytes that were received.
    pub body: Vec<u8>,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The body holds personal data.
        f.debug_struct("Opened").field("position", &self.position).finish_non_exhaustive()
    }
}

pub(crate) fn now() -> Result<Timestamp, TimestampError> {
    Timestamp::from_chrono(chrono::Utc::now())
}

impl Finance {
    /// Over the command role's pool, which `vault` has, too.
    pub const fn new(executor: Executor, reader: Reader, vault: Vault) -> Self {
        Self { executor, reader, vault }
    }

    /// The journal's head, for what was asked for and changed nothing.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn head(&self) -> Result<Position, ReadError> {
        Ok(self.reader.head().await?.position)
    }

    /// Says whose money a charge, transfer or application fee is. Nothing where finance said the same last.
    ///
    /// # Errors
    /// When nothing is known of the object, what is said cannot be, or the journal does not take it.
    pub async fn attribute(
        &self,
        by: Subject,
        object: &StripeId,
        attribution: Attribution,
        reason: String,
    ) -> Result<Executed, AttributeError> {
        let metadata = acted_by(by.as_str());
        let saying = Saying { attribution, by, now: now().map_err(AttributeError::Clock)?, reason };
        let executed = match object.kind() {
            StripeKind::Charge => self.say::<Charge>(object, &saying, &metadata).await,
            StripeKind::Transfer => self.say::<Transfer>(object, &saying, &metadata).await,
            StripeKind::ApplicationFee => self.say::<ApplicationFee>(object, &saying, &metadata).await,
            StripeKind::Refund
            | StripeKind::Dispute
            | StripeKind::TransferReversal
            | StripeKind::Payout
            | StripeKind::FeeRefund
            | StripeKind::Topup
            | StripeKind::BalanceTransaction
            | StripeKind::PaymentIntent
            | StripeKind::CheckoutSession
            | StripeKind::Invoice
            | StripeKind::Subscription
            | StripeKind::Account
            | StripeKind::Other => Err(ActError::Refused(AttributionError::NotAttributable { object: object.clone() })),
        };
        Ok(executed?)
    }

    async fn say<B: Attributable>(
        &self,
        object: &StripeId,
        saying: &Saying,
        metadata: &Metadata,
    ) -> Result<Executed, ActError<AttributionError>> {
        let stream = StreamId::new(B::STREAM, object.as_str());
        let decide =
            |aggregate: &Ledgered<B>, first_open| attribution::decide(aggregate, object, saying.clone(), first_open);
        self.executor.act(&stream, metadata, Ledgered::evolve, decide).await
    }

    /// Opens a webhook's body. That it was read, by whom and why, is in the journal before anything is shown.
    ///
    /// # Errors
    /// When there is none, it was erased, or it could not be recorded that it is opened.
    pub async fn open(&self, by: Subject, id: &StripeId, reason: String) -> Result<Opened, OpenError> {
        if !is_reason(&reason) {
            return Err(OpenError::Reason);
        }
        let received = self.received(id).await?.ok_or_else(|| OpenError::Unknown(id.clone()))?;
        let keys = self.vault.keys(STRIPE_EVENT, &[id.as_str()]).await.map_err(OpenError::Vault)?;
        // Nothing can be shown of a body without its key, so nothing is recorded.
        keys.of(id.as_str()).map_err(|error| match error {
            VaultError::Erased => OpenError::Erased(id.clone()),
            VaultError::Missing { .. } => OpenError::KeyMissing(id.clone()),
            error @ (VaultError::Read(_) | VaultError::Open | VaultError::Seal) => OpenError::Vault(error),
        })?;
        let at = now().map_err(OpenError::Clock)?;
        let metadata = acted_by(by.as_str());
        let opened = Event::from(StripeEventOpened { id: id.clone(), at, by, reason });
        let stream = StreamId::new(STRIPE_EVENT, id.as_str());
        // Each opening is one, whoever opened it before.
        let decide = |(): &(), _| Ok::<_, Infallible>(vec![opened.clone()]);
        let executed =
            self.executor.act(&stream, &metadata, |(), _| {}, decide).await.map_err(|error| match error {
                ActError::Refused(never) => match never {},
                ActError::Failed(error) => OpenError::Execute(error),
            })?;
        let body = self.vault.open(&keys, id.as_str(), &received.sealed_body).map_err(OpenError::Vault)?;
        // What was appended has a position.
        let position = executed.last.unwrap_or_default();
        Ok(Opened { position, at, sha256: Sha256::digest(&body).into(), body })
    }

    async fn received(&self, id: &StripeId) -> Result<Option<StripeEventReceived>, ExecuteError> {
        let first = self.executor.stripe_event(id).await?.into_iter().next();
        Ok(if let Some(Event::StripeEventReceived(received)) = first { Some(received) } else { None })
    }
}
