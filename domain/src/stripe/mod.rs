//! Reads Stripe's JSON: from the raw bytes of a webhook to what matters for money.
//!
//! Read in this order:
//! 1. [`translate`], here: which types of events carry what, and the verdict on every other.
//! 2. `envelope`: what is kept of a webhook in the clear, and `scan`, which finds the id in what is not JSON.
//! 3. `moving`, `sources`, `balance_transaction`: one reader for each object, old and new API versions alike.
//! 4. `attribution`: metadata; `read`: typed reads that name the field that is wrong.
//!
//! Invariants:
//! - Total: any bytes yield observations or a reason; nothing panics.
//! - All or nothing: an event with one unreadable part yields none of its parts, so that a later translator sees it whole.
//! - No personal data leaves: only ids, amounts, times and Stripe's own words; reasons name fields, never values.
//! - Fields are read by either place that a version may keep them in; unknown fields are nobody's business.
//!
//! What is not here: merging snapshots ([`crate::observations`]), and what they add up to ([`crate::books`]).

mod attribution;
mod balance_transaction;
mod envelope;
mod moving;
mod read;
mod scan;
mod sources;

use serde_json::Value;

use crate::event::NotTranslatedReason;
use crate::facts::{
    ApplicationFeeSnapshot, BalanceTransaction, ChargeSnapshot, ConnectedAccountSnapshot, DisputeSnapshot, EventStamp,
    PayoutSnapshot, RefundSnapshot, SourceOffer, TopupSnapshot, TransferSnapshot,
};
use crate::id::StripeId;

pub use balance_transaction::read_balance_transaction;
pub use envelope::{Envelope, NoEventId, read_envelope};
pub use moving::read_transfer;
pub use read::{AMOUNT_MAX, Unreadable};

use read::Object;

/// Counts up with every change of what is read out of an event, so that it can be told which events are worth translating again.
pub const TRANSLATOR_VERSION: u32 = 3;

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Which event says it, and when.
    pub stamp: EventStamp,
    /// What it says about money and about whose it is.
    pub observations: Vec<Observation>,
    /// Pairs of objects that belong together: the one that names, the one named. No pair twice.
    pub links: Vec<(StripeId, StripeId)>,
}

/// One thing that an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A charge.
    Charge(ChargeSnapshot),
    /// A refund.
    Refund(RefundSnapshot),
    /// A dispute.
    Dispute(DisputeSnapshot),
    /// A transfer.
    Transfer(TransferSnapshot),
    /// A payout of the platform.
    Payout(PayoutSnapshot),
    /// An application fee.
    ApplicationFee(ApplicationFeeSnapshot),
    /// A top-up.
    Topup(TopupSnapshot),
    /// A balance transaction that another object embeds.
    BalanceTransaction {
        /// The object that embeds it: the charge, the refund, the reversal.
        owner: StripeId,
        /// The balance transaction.
        transaction: BalanceTransaction,
    },
    /// An object that may say whose money a charge is.
    Source {
        /// The object.
        object: StripeId,
        /// What it says.
        offers: Vec<SourceOffer>,
    },
    /// A connected account, as far as paying it goes.
    ConnectedAccount(ConnectedAccountSnapshot),
}

/// Why an event says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct NotTranslated {
    /// By kind.
    pub reason: NotTranslatedReason,
    /// For people; names fields, never values.
    pub detail: String,
}

impl NotTranslated {
    fn new(reason: NotTranslatedReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// What was read so far of one event.
#[derive(Default)]
struct Reading {
    observations: Vec<Observation>,
    links: Vec<(StripeId, StripeId)>,
}

impl Reading {
    fn push(&mut self, observation: Observation) {
        self.observations.push(observation);
    }

    fn link(&mut self, from: &StripeId, to: Option<&StripeId>) {
        if let Some(to) = to {
            let pair = (from.clone(), to.clone());
            if from != to && !self.links.contains(&pair) {
                self.links.push(pair);
            }
        }
    }
}

/// What an event's type says about its object.
#[derive(Clone, Copy)]
enum Carries {
    Charge,
    ExpiredCharge,
    EmbeddedRefunds,
    Refund,
    Dispute,
    Transfer,
    Payout,
    ApplicationFee,
    Topup,
    PaymentIntent,
    CheckoutSession,
    Invoice,
    UpcomingInvoice,
    InvoicePayment,
    Subscription,
}

impl Carries {
    /// `None` for a type that moves no money and attributes none. `credit_note.*` is one: its refund has events of its own.
    fn of(event_type: &str) -> Option<Self> {
        Some(match event_type {
            "charge.pending" | "charge.succeeded" | "charge.captured" | "charge.updated" | "charge.failed" => {
                Self::Charge
            }
            "charge.expired" => Self::ExpiredCharge,
            "charge.refunded" => Self::EmbeddedRefunds,
            "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => Self::Refund,
            "charge.dispute.created"
            | "charge.dispute.updated"
            | "charge.dispute.closed"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.funds_reinstated" => Self::Dispute,
            "transfer.created" | "transfer.updated" | "transfer.reversed" => Self::Transfer,
            "payout.created" | "payout.updated" | "payout.paid" | "payout.failed" | "payout.canceled" => Self::Payout,
            "application_fee.created" | "application_fee.refunded" | "application_fee.updated" => Self::ApplicationFee,
            "invoice_payment.paid" => Self::InvoicePayment,
            "invoice.upcoming" => Self::UpcomingInvoice,
            _ if event_type.starts_with("topup.") => Self::Topup,
            _ if event_type.starts_with("payment_intent.") => Self::PaymentIntent,
            _ if event_type.starts_with("checkout.session.") => Self::CheckoutSession,
            _ if event_type.starts_with("invoice.") => Self::Invoice,
            _ if event_type.starts_with("customer.subscription.") => Self::Subscription,
            _ => return None,
        })
    }

    fn read(self, object: &Object<'_>, reading: &mut Reading) -> Result<(), Unreadable> {
        match self {
            Self::Charge => moving::charge(object, false, reading),
            Self::ExpiredCharge => moving::charge(object, true, reading),
            Self::EmbeddedRefunds => moving::embedded_refunds(object, reading),
            Self::Refund => moving::refund(object, None, reading),
            Self::Dispute => moving::dispute(object, reading),
            Self::Transfer => moving::transfer(object, reading),
            Self::Payout => moving::payout(object, reading),
            Self::ApplicationFee => moving::application_fee(object, reading),
            Self::Topup => moving::topup(object, reading),
            Self::PaymentIntent => sources::payment_intent(object, reading),
            Self::CheckoutSession => sources::checkout_session(object, reading),
            Self::Invoice => sources::invoice(object, reading),
            // A preview of an invoice that does not exist yet; it has no id, or one that nothing else will ever name.
            Self::UpcomingInvoice => Ok(()),
            Self::InvoicePayment => sources::invoice_payment(object, reading),
            Self::Subscription => sources::subscription(object, reading),
        }
    }
}

/// Reads a raw event. Total: observations and links, or the reason why there are none.
pub fn translate(body: &[u8], our_livemode: bool) -> Result<Translation, NotTranslated> {
    use NotTranslatedReason as Reason;
    // The parser's own message could quote the body; the place does not.
    let event: Value = serde_json::from_slice(body).map_err(|error| {
        NotTranslated::new(
            Reason::Undecodable,
            format!("not JSON that we can read, from line {} column {} on", error.line(), error.column()),
        )
    })?;
    let event =
        Object::new(&event, String::new()).map_err(|_| NotTranslated::new(Reason::Undecodable, "not a JSON object"))?;
    if event.get("object").and_then(Value::as_str).is_some_and(envelope::is_thin) {
        return Err(NotTranslated::new(Reason::ThinEvent, "a thin event carries no object"));
    }
    let undecodable =
        |unreadable: Unreadable| NotTranslated::new(Reason::Undecodable, format!("not an event: {unreadable}"));
    let id = event.id().map_err(undecodable)?;
    let event_type = event.text("type").and_then(|text| event.require("type", text)).map_err(undecodable)?;

    let version = event.get("api_version").and_then(Value::as_str).and_then(envelope::sane_version);
    let untranslatable = |unreadable: Unreadable| {
        let version = version
            .as_deref()
            .map_or_else(|| "without an API version".to_owned(), |version| format!("of API version {version}"));
        NotTranslated::new(Reason::Untranslatable, format!("{unreadable}, in an event {version}"))
    };
    match event.flag("livemode") {
        Ok(Some(livemode)) if livemode != our_livemode => {
            let (theirs, ours) = if livemode { ("live", "test") } else { ("test", "live") };
            return Err(NotTranslated::new(
                Reason::OtherMode,
                format!("an event of {theirs} mode; this platform is in {ours} mode"),
            ));
        }
        Ok(Some(_)) => {}
        // Of a type that we do not use it does not matter; of one that we use, money could go into the wrong books.
        Ok(None) if Carries::of(event_type).is_some() => {
            return Err(untranslatable(event.refuse("livemode", "is missing")));
        }
        Err(unreadable) if Carries::of(event_type).is_some() => return Err(untranslatable(unreadable)),
        Ok(None) | Err(_) => {}
    }

    let mut reading = Reading::default();
    if event.get("account").is_some() && !event_type.starts_with("application_fee.") {
        let account = connected_account(&event, event_type)
            .ok_or_else(|| NotTranslated::new(Reason::ConnectedAccount, "a connected account's own event"))?;
        sources::account(&account, &mut reading).map_err(untranslatable)?;
    } else {
        let carries = Carries::of(event_type).ok_or_else(|| {
            NotTranslated::new(Reason::UnusedType, "events of this type move no money and attribute none")
        })?;
        event_object(&event).and_then(|object| carries.read(&object, &mut reading)).map_err(untranslatable)?;
    }
    let created =
        event.time("created").and_then(|created| event.require("created", created)).map_err(untranslatable)?;
    if reading.observations.is_empty() && reading.links.is_empty() {
        return Err(NotTranslated::new(Reason::NoFacts, "of a type that we use, with nothing in it that matters"));
    }
    let Reading { observations, links } = reading;
    Ok(Translation { stamp: EventStamp { created, event: id }, observations, links })
}

fn event_object<'a>(event: &Object<'a>) -> Result<Object<'a>, Unreadable> {
    let data = event.require("data", event.object("data")?)?;
    data.require("object", data.object("object")?)
}

/// A connected account's own events post nothing. Only the account itself matters, where its metadata says, or until this event
/// said, whose it is: transfers to it are that creator's.
fn connected_account<'a>(event: &Object<'a>, event_type: &str) -> Option<Object<'a>> {
    if event_type != "account.updated" {
        return None;
    }
    let data = event.object("data").ok().flatten()?;
    let account = data.object("object").ok().flatten()?;
    let before = data.object("previous_attributes").ok().flatten();
    let said_before = before.is_some_and(|before| attribution::names_creator(before.get("metadata")));
    (said_before || attribution::names_creator(account.get("metadata"))).then_some(account)
}
