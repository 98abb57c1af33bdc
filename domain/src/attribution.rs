//! Finance says whose money an object moves. Its word beats what metadata says, and the last one stands.
//!
//! What is said is a fact in the object's own stream, so the books converge: money leaves suspense, or another creator, at the
//! date of the object.

use crate::books::Books;
use crate::event::{CreatorAttributed, Event};
use crate::facts::Attribution;
use crate::id::{CreatorId, StripeId, Subject};
use crate::ledgered::{LedgerCommand, LedgerError, Ledgered};
use crate::money::Money;
use crate::period::FirstOpen;
use crate::reason::{REASON_FORM, is_reason};
use crate::split::BasisPoints;
use crate::time::Timestamp;

/// Objects whose money may be a creator's.
pub trait Attributable: Books {
    /// What finance said last, and when.
    fn said_by_finance(&self) -> Option<(Timestamp, &Attribution)>;

    /// The most that the tax in it can be: what was captured, else what was asked for. `None` where nothing is known of it yet.
    fn taxable(&self) -> Option<Money>;

    /// What stands now, by finance's word or by metadata, of objects where that says more than a creator.
    fn standing(&self) -> Option<&Attribution> {
        None
    }

    /// The share that was agreed with this creator: what finance said of them last, else what counts of metadata, where that is
    /// theirs. `None` is the policy's.
    fn agreed_share(&self, _: &CreatorId) -> Option<BasisPoints> {
        None
    }

    /// The tax in it where nobody says it: what an invoice or a session states.
    fn stated_tax(&self) -> Option<i64> {
        None
    }

    /// Whose it is by metadata, where that is not for finance to say otherwise: a transfer was sent to somebody, and a fee was taken
    /// out of what a connected account sold.
    fn stated(&self) -> Option<CreatorId> {
        None
    }
}

/// What is said, by whom, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saying {
    /// Whose money it is.
    pub attribution: Attribution,
    /// Who says so.
    pub by: Subject,
    /// When.
    pub now: Timestamp,
    /// Why.
    pub reason: String,
}

/// Why an attribution was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributionError {
    /// Nothing was ever heard of the object.
    #[error("nothing is known of {object}: no webhook of it was received")]
    Unknown {
        /// Which.
        object: StripeId,
    },
    /// Not an object whose money can be a creator's.
    #[error("{object} is no charge, transfer or application fee: its money cannot be a creator's")]
    NotAttributable {
        /// Which.
        object: StripeId,
    },
    /// Tax is a part of what was paid.
    #[error("the tax in it, {tax}, is more than the payment, {payment}: say how much of that is tax")]
    TaxAbovePayment {
        /// The tax as it is said now, stands, or is stated by the invoice.
        tax: Money,
        /// What was captured, else what was asked for.
        payment: Money,
    },
    /// Money that was sent to one creator would be taken from another, and the first could be paid again.
    #[error(
        "{object} is {creator}'s by the metadata of itself or of the connected account: mend that at Stripe, or book what is wrong by hand"
    )]
    Stated {
        /// Which.
        object: StripeId,
        /// Whose it is.
        creator: CreatorId,
    },
    /// An act is told why.
    #[error("expected why, {REASON_FORM}")]
    Reason,
    /// The entries would break an invariant.
    #[error("the ledger refused")]
    Ledger(#[from] LedgerError),
}

/// The fact and the entries that a saying leads to; none where finance said the same last.
///
/// Fan, kind and tax are the sale's: where nothing is said of them they stay as they stand, and the fact says so. The share is agreed
/// with a creator: where none is said it is the one that was agreed with this one, whoever's the money is now.
///
/// # Errors
/// When nothing is known of the object, or what is said cannot be.
pub fn decide<B: Attributable>(
    aggregate: &Ledgered<B>,
    object: &StripeId,
    saying: Saying,
    first_open: FirstOpen,
) -> Result<Vec<Event>, AttributionError> {
    let Saying { mut attribution, by, now, reason } = saying;
    if aggregate.sequence() == 0 {
        return Err(AttributionError::Unknown { object: object.clone() });
    }
    if !is_reason(&reason) {
        return Err(AttributionError::Reason);
    }
    let books = aggregate.books();
    if let Some(creator) = books.stated()
        && creator != attribution.creator
    {
        return Err(AttributionError::Stated { object: object.clone(), creator });
    }
    if let Some(standing) = books.standing() {
        attribution.fan = attribution.fan.or_else(|| standing.fan.clone());
        attribution.kind = attribution.kind.or(standing.kind);
        attribution.tax_minor = attribution.tax_minor.or(standing.tax_minor);
        attribution.tax_jurisdiction = attribution.tax_jurisdiction.or_else(|| standing.tax_jurisdiction.clone());
    }
    attribution.share = attribution.share.or_else(|| books.agreed_share(&attribution.creator));
    if let Some(payment) = books.taxable()
        && let Some(tax) = attribution.tax_minor.or_else(|| books.stated_tax())
        && tax > payment.minor()
    {
        return Err(AttributionError::TaxAbovePayment { tax: Money::new(tax, payment.currency()), payment });
    }
    let at = match books.said_by_finance() {
        Some((_, known)) if *known == attribution => return Ok(Vec::new()),
        // The later one stands, so what is said last is dated last, whoever's clock is ahead.
        Some((said_at, _)) => now.max(said_at.next()),
        None => now,
    };
    let fact = CreatorAttributed { at, by: Some(by), attribution, reason };
    let learn = LedgerCommand::Learn { facts: vec![fact.into()], stripe_event: None };
    Ok(aggregate.decide(object, learn, first_open)?)
}
