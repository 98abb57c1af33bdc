//! The objects that only say whose money a charge is, and to which other objects they belong: payment intent, checkout session,
//! invoice, subscription, connected account.
//!
//! Each yields a snapshot of what it says even where it says nothing: the newest snapshot counts, and one that went silent must
//! be able to overrule one that spoke.

use std::collections::BTreeSet;

use crate::facts::{ConnectedAccountSnapshot, Offer, OfferRank, SourceOffer};

use super::read::{Object, Unreadable};
use super::{Observation, Reading, attribution};

type Read = Result<(), Unreadable>;

/// A payment intent. Embeds its charges until 2022-11-15 and names its latest since; its charges' own events carry their facts.
pub(super) fn payment_intent(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("payment_intent")?;
    let id = object.id()?;
    reading.link(&id, object.reference("latest_charge")?.as_ref());
    for charge in object.list("charges")? {
        reading.link(&id, Some(&charge.id()?));
    }
    // Until basil.
    reading.link(&id, object.reference("invoice")?.as_ref());
    reading.source(object, vec![says(OfferRank::PaymentIntent, object)])
}

/// A checkout session.
pub(super) fn checkout_session(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("checkout.session")?;
    let id = object.id()?;
    for key in ["payment_intent", "invoice", "subscription"] {
        reading.link(&id, object.reference(key)?.as_ref());
    }
    let tax = match object.object("total_details")? {
        Some(totals) => totals.signed("amount_tax")?,
        None => None,
    };
    let own = match tax {
        Some(tax) => says(OfferRank::CheckoutSession, object).with_tax(tax, object.signed("amount_total")?),
        None => says(OfferRank::CheckoutSession, object),
    };
    reading.source(object, vec![own])
}

/// An invoice. Says two things: its own metadata, and what it remembers of its subscription's.
pub(super) fn invoice(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("invoice")?;
    let id = object.id()?;
    // Until basil.
    for key in ["charge", "payment_intent", "subscription"] {
        reading.link(&id, object.reference(key)?.as_ref());
    }
    // Since basil.
    for payment in object.list("payments")? {
        for paid_by in paid_by(&payment)? {
            reading.link(&id, Some(&paid_by));
        }
    }
    let details = match object.object("parent")? {
        Some(parent) => parent.object("subscription_details")?,
        None => None,
    };
    if let Some(details) = &details {
        reading.link(&id, details.reference("subscription")?.as_ref());
    }
    // The newer place first: an event has one of them.
    let details = match details {
        Some(details) => Some(details),
        None => object.object("subscription_details")?,
    };
    let remembered = details.map_or(Offer::Silent, |details| attribution::offer(details.get("metadata")));
    let own = match invoice_tax(object)? {
        // What the customer owed from before is due with it, and has no tax in it.
        Some(tax) => {
            says(OfferRank::Invoice, object).with_tax(tax, object.signed("total")?.max(object.signed("amount_due")?))
        }
        None => says(OfferRank::Invoice, object),
    };
    reading.source(object, vec![own, SourceOffer::new(OfferRank::InvoiceSubscription, remembered)])
}

/// The tax inside the total: `tax` until basil, else the sum of `total_taxes` (since basil) or `total_tax_amounts`.
fn invoice_tax(object: &Object<'_>) -> Result<Option<i64>, Unreadable> {
    if let Some(tax) = object.signed("tax")? {
        return Ok(Some(tax));
    }
    for key in ["total_taxes", "total_tax_amounts"] {
        if object.get(key).is_some() {
            let mut sum = 0_i64;
            for part in object.list(key)? {
                let amount = part.require("amount", part.signed("amount")?)?;
                sum = sum.checked_add(amount).ok_or_else(|| object.refuse(key, "does not fit in its sum"))?;
            }
            return Ok(Some(sum));
        }
    }
    Ok(None)
}

/// A payment of an invoice (`invoice_payment.paid`): nothing but a link.
pub(super) fn invoice_payment(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("invoice_payment")?;
    let invoice = object.require("invoice", object.reference("invoice")?)?;
    for paid_by in paid_by(object)? {
        reading.link(&invoice, Some(&paid_by));
    }
    Ok(())
}

fn paid_by(payment: &Object<'_>) -> Result<Vec<crate::id::StripeId>, Unreadable> {
    let Some(payment) = payment.object("payment")? else { return Ok(Vec::new()) };
    Ok([payment.reference("payment_intent")?, payment.reference("charge")?].into_iter().flatten().collect())
}

/// A subscription.
pub(super) fn subscription(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("subscription")?;
    reading.source(object, vec![says(OfferRank::Subscription, object)])
}

/// A connected account, whose metadata says whose it is, and which says whether it can be paid.
pub(super) fn account(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("account")?;
    let offer = attribution::creator_offer(object.get("metadata"));
    let creator = match &offer {
        Offer::Valid(attribution) => Some(attribution.creator.clone()),
        Offer::Silent | Offer::Invalid(_) => None,
    };
    reading.source(object, vec![SourceOffer::new(OfferRank::Account, offer)])?;
    reading.push(Observation::ConnectedAccount(ConnectedAccountSnapshot {
        id: object.id()?,
        creator,
        transfers_active: transfers_active(object)?,
        payouts_enabled: object.flag("payouts_enabled")?.unwrap_or(false),
        requirements_due: requirements_due(object)?,
        disabled_reason: match object.object("requirements")? {
            Some(requirements) => requirements.text("disabled_reason")?.map(word),
            None => None,
        },
    }));
    Ok(())
}

/// One of Stripe's words, kept in the clear; what is not of their form is not kept.
fn word(text: &str) -> String {
    let is_word = (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b));
    if is_word { text.to_owned() } else { "other".to_owned() }
}

/// By `capabilities.transfers` (since 2019), or `legacy_payments`, which such accounts had before; what says neither is not paid.
fn transfers_active(account: &Object<'_>) -> Result<bool, Unreadable> {
    let Some(capabilities) = account.object("capabilities")? else { return Ok(false) };
    for capability in ["transfers", "legacy_payments"] {
        if capabilities.text(capability)? == Some("active") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many things Stripe wants now or wanted before; one that is both counts once.
fn requirements_due(account: &Object<'_>) -> Result<u32, Unreadable> {
    let Some(requirements) = account.object("requirements")? else { return Ok(0) };
    let mut due: BTreeSet<&str> = BTreeSet::new();
    for key in ["currently_due", "past_due"] {
        due.extend(requirements.texts(key)?);
    }
    Ok(u32::try_from(due.len()).unwrap_or(u32::MAX))
}

/// What an object's own metadata says.
fn says(rank: OfferRank, object: &Object<'_>) -> SourceOffer {
    SourceOffer::new(rank, attribution::offer(object.get("metadata")))
}

impl SourceOffer {
    /// A negative tax belongs to a credit, which no charge pays: then there is none to hold back.
    fn with_tax(self, tax: i64, total: Option<i64>) -> Self {
        Self { tax_minor: Some(tax.max(0)), total_minor: total, ..self }
    }
}

impl Reading {
    fn source(&mut self, object: &Object<'_>, offers: Vec<SourceOffer>) -> Read {
        self.push(Observation::Source { object: object.id()?, offers });
        Ok(())
    }
}
