//! What the gateway needs from the rest: where webhooks go in, and probes of what it does not know itself.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::facts::Attribution;
use fanledger_domain::id::{CreatorId, EntryId, StripeId, Subject};
use fanledger_domain::manual_entry::DraftText;
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::payout_run::hold::Say;
use fanledger_domain::period::PeriodCommand;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{
    AttributionReceipt, FieldProblem, ManualEntryReceipt, OpenedStripeEvent, PayoutHoldReceipt, PayoutRunReceipt,
    PeriodActed,
};

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
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

/// Where webhooks go in.
#[async_trait]
pub trait WebhookIntake: Send + Sync + 'static {
    /// Verifies and stores one; the answer comes after the commit.
    async fn receive(&self, signature: Option<&[u8]>, body: &[u8]) -> Result<Receipt, IntakeRefusal>;
}

/// What an operator lets a runner pass over.
#[derive(Clone, Copy, Debug)]
pub struct Skip<'a> {
    /// The runner.
    pub runner: &'a str,
    /// The event's position.
    pub position: u64,
    /// Why; kept in the journal.
    pub reason: &'a str,
    /// The token's subject.
    pub by: &'a str,
}

/// What became of a skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkipReceipt {
    /// The version that passes over the event.
    pub version: u32,
    /// It was skipped before.
    pub known: bool,
    /// The runner stands still until it is resumed.
    pub halted: bool,
    /// The journal's head, at least.
    pub head: u64,
}

/// Why nothing was skipped.
#[derive(Debug, thiserror::Error)]
pub enum SkipRefusal {
    /// There is no such runner.
    #[error("there is no such runner")]
    UnknownRunner,
    /// The live tables hold it already.
    #[error("the runner has applied it already")]
    Applied,
    /// The journal is shorter.
    #[error("the journal ends at position {head}")]
    Beyond {
        /// The journal's head.
        head: u64,
    },
    /// What is there is not what was recorded, so nobody knows what would be passed over.
    #[error("the event is not as it was recorded: {found}")]
    NotAsRecorded {
        /// What differs.
        found: &'static str,
    },
    /// The journal cannot be reached.
    #[error("append the skip to the journal")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

/// What operators do that the gateway cannot do by itself.
#[async_trait]
pub trait Operators: Send + Sync + 'static {
    /// Lets a runner pass over an event; the answer comes after the commit.
    async fn skip(&self, skip: Skip<'_>) -> Result<SkipReceipt, SkipRefusal>;
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

/// What an act came to, and where the journal stands by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acted<T> {
    /// At least everything that the act led to is up to here.
    pub position: u64,
    /// What it came to.
    pub value: T,
}

/// Why an act had no effect. Each is one stable kind of problem; the texts say what to do and go to the client.
#[derive(Debug, thiserror::Error)]
pub enum ActRefusal {
    /// Fields of the request are wrong.
    #[error("some fields are not valid")]
    Invalid(Vec<FieldProblem>),
    /// What it is about is not there.
    #[error("{0}")]
    Unknown(String),
    /// Two persons are needed, and this is the first one.
    #[error("{0}")]
    SecondPersonNeeded(String),
    /// It was decided before.
    #[error("{0}")]
    AlreadyDecided(String),
    /// The entry is taken back already.
    #[error("{0}")]
    AlreadyReversed(String),
    /// The month goes on.
    #[error("{0}")]
    PeriodNotEnded(String),
    /// An earlier month is open.
    #[error("{0}")]
    PeriodNotNext(String),
    /// The month is closed.
    #[error("{0}")]
    PeriodClosedAlready(String),
    /// Only the last closed month can be opened.
    #[error("{0}")]
    PeriodNotLast(String),
    /// An object's books posted it, or only Stripe's objects move it.
    #[error("{0}")]
    NotByHand(String),
    /// One payout run at a time.
    #[error("{0}")]
    PayoutRunOpen(String),
    /// The books that it would be decided on are not read so far; a moment later they are.
    #[error("{0}")]
    Behind(String),
    /// The Idempotency-Key stands for another act.
    #[error("{0}")]
    KeyReused(String),
    /// The books do not allow it.
    #[error("{0}")]
    LedgerRefused(String),
    /// What is asked for was destroyed.
    #[error("{0}")]
    Erased(String),
    /// What is asked for is sealed, and its key is not where it should be: operators must look.
    #[error("{0}")]
    KeyMissing(String),
    /// The journal cannot be reached; the act may be asked for again.
    #[error("append to the journal")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A mistake of ours.
    #[error("act on the books")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// What finance says and does by hand. `by` is the token's subject.
#[async_trait]
pub trait FinanceDesk: Send + Sync + 'static {
    /// Says whose money a charge, transfer or application fee is.
    async fn attribute(
        &self,
        by: Subject,
        object: StripeId,
        attribution: Attribution,
        reason: String,
    ) -> Result<Acted<AttributionReceipt>, ActRefusal>;

    /// Proposes a manual entry; the same under the same key is one proposal.
    async fn propose(
        &self,
        by: Subject,
        draft: DraftText,
        key: Option<&str>,
    ) -> Result<Acted<ManualEntryReceipt>, ActRefusal>;

    /// Agrees to a manual entry.
    async fn approve(&self, by: Subject, id: StripeId) -> Result<Acted<ManualEntryReceipt>, ActRefusal>;

    /// Says no to a manual entry.
    async fn reject(&self, by: Subject, id: StripeId, reason: String) -> Result<Acted<ManualEntryReceipt>, ActRefusal>;

    /// Takes an entry back.
    async fn reverse(
        &self,
        by: Subject,
        entry_id: EntryId,
        reason: String,
        occurred_at: Option<Timestamp>,
    ) -> Result<Acted<ManualEntryReceipt>, ActRefusal>;

    /// Opens a webhook; that it was opened is in the journal by then.
    async fn open(&self, by: Subject, id: StripeId, reason: String) -> Result<Acted<OpenedStripeEvent>, ActRefusal>;
}

/// Where months are closed, and opened again.
#[async_trait]
pub trait PeriodDesk: Send + Sync + 'static {
    /// Closes or reopens one, now.
    async fn act(&self, command: PeriodCommand) -> Result<Acted<PeriodActed>, ActRefusal>;
}

/// Who is paid, and when. `by` is the token's subject.
#[async_trait]
pub trait PayoutDesk: Send + Sync + 'static {
    /// Proposes the next run, from one snapshot of the books that holds everything up to `head`.
    async fn propose(&self, by: Subject, head: u64) -> Result<Acted<PayoutRunReceipt>, ActRefusal>;

    /// Approves a run, by books that hold everything up to `head`: it is sent from now on.
    async fn approve(&self, by: Subject, run: PayoutRunId, head: u64) -> Result<Acted<PayoutRunReceipt>, ActRefusal>;

    /// Cancels a run that waits, or stops one that is approved: nothing more of it is sent.
    async fn cancel(
        &self,
        by: Subject,
        run: PayoutRunId,
        reason: String,
    ) -> Result<Acted<PayoutRunReceipt>, ActRefusal>;

    /// Holds a creator's payouts, or resumes them.
    async fn say(
        &self,
        by: Subject,
        creator: CreatorId,
        say: Say,
        reason: String,
    ) -> Result<Acted<PayoutHoldReceipt>, ActRefusal>;
}

/// Where people act.
#[derive(Clone)]
pub struct Desks {
    /// Runs of transfers to creators, and holds.
    pub payouts: Arc<dyn PayoutDesk>,
    /// Closing months.
    pub periods: Arc<dyn PeriodDesk>,
    /// Attribution, manual entries, reversals, opening webhooks.
    pub finance: Arc<dyn FinanceDesk>,
}
