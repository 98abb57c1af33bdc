//! The objects that move money: charge, refund, dispute, transfer, payout, application fee, top-up.
//!
//! Each reader takes the object as an event shows it, in any API version, and pushes what it finds: the snapshot, and every balance
//! transaction that is embedded whole. One that is only named is kept as an id in the snapshot.

use serde_json::Value;

use crate::facts::{
    ApplicationFeeSnapshot, ChargeSnapshot, ChargeStatus, DisputeSnapshot, DisputeStatus, PayoutSnapshot, PayoutStatus,
    RefundSnapshot, RefundStatus, Reversal, TopupSnapshot, TopupStatus, TransferSnapshot,
};
use crate::id::StripeId;

use super::read::{Object, Unreadable};
use super::{Observation, Reading, attribution, balance_transaction};

type Read = Result<(), Unreadable>;

/// A charge. `expired` says that the event reports the end of an authorisation, after which nothing is captured.
pub(super) fn charge(object: &Object<'_>, expired: bool, reading: &mut Reading) -> Read {
    object.expect_kind("charge")?;
    let id = object.id()?;
    let amount = object.require("amount", object.amount("amount")?)?;
    let snapshot = ChargeSnapshot {
        created: object.created()?,
        currency: object.currency()?,
        amount,
        amount_captured: object.amount("amount_captured")?.unwrap_or(amount),
        status: charge_status(object)?,
        captured: object.require("captured", object.flag("captured")?)? && !expired,
        payment_intent: object.reference("payment_intent")?,
        invoice: object.reference("invoice")?,
        balance_transaction: named(object, "balance_transaction", &id, reading)?,
        failure_balance_transaction: named(object, "failure_balance_transaction", &id, reading)?,
        offer: attribution::offer(object.get("metadata")),
        id,
    };
    reading.link(&snapshot.id, snapshot.payment_intent.as_ref());
    reading.link(&snapshot.id, snapshot.invoice.as_ref());
    reading.push(Observation::Charge(snapshot));
    Ok(())
}

/// `status` came in 2014 and said `paid` until 2015-02-18; where it does not say more than that, `paid` does.
fn charge_status(object: &Object<'_>) -> Result<ChargeStatus, Unreadable> {
    let word = object.text("status")?;
    match (word, object.flag("paid")?) {
        (None | Some("paid"), Some(true)) | (Some("paid"), None) => Ok(ChargeStatus::Succeeded),
        (None | Some("paid"), Some(false)) => Ok(ChargeStatus::Failed),
        (None, None) => Err(object.refuse("status", "is missing, and so is `paid`")),
        (Some(_), _) => object.require("status", object.word("status", ChargeStatus::from_text)?),
    }
}

/// The refunds that an old `charge.refunded` embeds. The charge itself is no fact there: its `amount_refunded` is cumulative.
pub(super) fn embedded_refunds(charge: &Object<'_>, reading: &mut Reading) -> Read {
    charge.expect_kind("charge")?;
    let id = charge.id()?;
    for embedded in charge.list("refunds")? {
        refund(&embedded, Some(&id), reading)?;
    }
    Ok(())
}

/// A refund; `parent` is the charge that embeds it.
pub(super) fn refund(object: &Object<'_>, parent: Option<&StripeId>, reading: &mut Reading) -> Read {
    object.expect_kind("refund")?;
    let id = object.id()?;
    let snapshot = RefundSnapshot {
        created: object.created()?,
        currency: object.currency()?,
        amount: object.require("amount", object.amount("amount")?)?,
        // Refunds were done when they were made until they got a status (2015).
        status: object.word("status", RefundStatus::from_text)?.unwrap_or(RefundStatus::Succeeded),
        charge: object.reference("charge")?.or_else(|| parent.cloned()),
        payment_intent: object.reference("payment_intent")?,
        balance_transaction: named(object, "balance_transaction", &id, reading)?,
        failure_balance_transaction: named(object, "failure_balance_transaction", &id, reading)?,
        id,
    };
    if let Some(charge) = &snapshot.charge {
        reading.link(charge, snapshot.payment_intent.as_ref());
    }
    reading.push(Observation::Refund(snapshot));
    Ok(())
}

/// A dispute, with the balance transactions that it embeds.
pub(super) fn dispute(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("dispute")?;
    let id = object.id()?;
    for embedded in object.list("balance_transactions")? {
        reading.balance_transaction(&id, &embedded)?;
    }
    let snapshot = DisputeSnapshot {
        created: object.created()?,
        currency: object.currency()?,
        amount: object.require("amount", object.amount("amount")?)?,
        status: object.require("status", object.word("status", dispute_status)?)?,
        charge: object.reference("charge")?,
        balance_transaction: named(object, "balance_transaction", &id, reading)?,
        id,
    };
    if let Some(charge) = &snapshot.charge {
        reading.link(charge, object.reference("payment_intent")?.as_ref());
    }
    reading.push(Observation::Dispute(snapshot));
    Ok(())
}

/// `charge_refunded` was the word, until it was dropped, for a dispute that ended because the charge was refunded: not lost, and
/// what it withdrew comes back by balance transactions, as when won.
fn dispute_status(word: &str) -> Option<DisputeStatus> {
    if word == "charge_refunded" { Some(DisputeStatus::Won) } else { DisputeStatus::from_text(word) }
}

/// A transfer.
///
/// Until 2017 a payout to a bank was a transfer too, with a `status` and no account for its destination. It reads as a transfer to
/// nobody that we know: its cash moves by its balance transaction, and its meaning waits for finance. One that failed or was
/// cancelled came back whole, which such objects say by status alone.
pub(super) fn transfer(object: &Object<'_>, reading: &mut Reading) -> Read {
    let snapshot = transfer_snapshot(object, reading)?;
    reading.push(Observation::Transfer(snapshot));
    Ok(())
}

/// A transfer as the API answers it, outside of any event.
///
/// # Errors
/// When a field of it is missing or is none.
pub fn read_transfer(transfer: &Value) -> Result<TransferSnapshot, Unreadable> {
    // What it embeds whole is fetched and listed like every other balance transaction.
    transfer_snapshot(&Object::new(transfer, String::new())?, &mut Reading::default())
}

fn transfer_snapshot(object: &Object<'_>, reading: &mut Reading) -> Result<TransferSnapshot, Unreadable> {
    object.expect_kind("transfer")?;
    let id = object.id()?;
    let amount = object.require("amount", object.amount("amount")?)?;
    let came_back = matches!(object.text("status")?, Some("failed" | "canceled"));
    Ok(TransferSnapshot {
        created: object.created()?,
        currency: object.currency()?,
        amount,
        amount_reversed: if came_back { amount } else { object.amount("amount_reversed")?.unwrap_or(0) },
        reversals: reversals(object, "reversals", reading)?,
        destination: object.reference("destination")?,
        balance_transaction: named(object, "balance_transaction", &id, reading)?,
        offer: attribution::creator_offer(object.get("metadata")),
        id,
    })
}

/// A payout of the platform. A negative one debits our bank.
pub(super) fn payout(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("payout")?;
    let id = object.id()?;
    let snapshot = PayoutSnapshot {
        created: object.created()?,
        currency: object.currency()?,
        amount: object.require("amount", object.signed("amount")?)?,
        status: object.require("status", object.word("status", PayoutStatus::from_text)?)?,
        balance_transaction: named(object, "balance_transaction", &id, reading)?,
        failure_balance_transaction: named(object, "failure_balance_transaction", &id, reading)?,
        id,
    };
    reading.push(Observation::Payout(snapshot));
    Ok(())
}

/// An application fee.
pub(super) fn application_fee(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("application_fee")?;
    let id = object.id()?;
    let snapshot = ApplicationFeeSnapshot {
        created: object.created()?,
        currency: object.currency()?,
        amount: object.require("amount", object.amount("amount")?)?,
        amount_refunded: object.amount("amount_refunded")?.unwrap_or(0),
        refunds: reversals(object, "refunds", reading)?,
        account: object.reference("account")?,
        originating_transaction: object.reference("originating_transaction")?,
        balance_transaction: named(object, "balance_transaction", &id, reading)?,
        id,
    };
    reading.push(Observation::ApplicationFee(snapshot));
    Ok(())
}

/// A top-up.
pub(super) fn topup(object: &Object<'_>, reading: &mut Reading) -> Read {
    object.expect_kind("topup")?;
    let id = object.id()?;
    let snapshot = TopupSnapshot {
        created: object.created()?,
        currency: object.currency()?,
        amount: object.require("amount", object.amount("amount")?)?,
        status: object.require("status", object.word("status", TopupStatus::from_text)?)?,
        balance_transaction: named(object, "balance_transaction", &id, reading)?,
        id,
    };
    reading.push(Observation::Topup(snapshot));
    Ok(())
}

/// What was given back of a transfer or an application fee, each part with its own balance transaction.
fn reversals(object: &Object<'_>, key: &str, reading: &mut Reading) -> Result<Vec<Reversal>, Unreadable> {
    let list = object.list(key)?;
    let read = |part: &Object<'_>| {
        let id = part.id()?;
        Ok(Reversal {
            created: part.created()?,
            amount: part.require("amount", part.amount("amount")?)?,
            balance_transaction: named(part, "balance_transaction", &id, reading)?,
            id,
        })
    };
    list.iter().map(read).collect()
}

/// The balance transaction that the object names; an expanded one is a fact by itself as well.
fn named(
    object: &Object<'_>,
    key: &str,
    owner: &StripeId,
    reading: &mut Reading,
) -> Result<Option<StripeId>, Unreadable> {
    let id = object.reference(key)?;
    if object.get(key).is_some_and(Value::is_object)
        && let Some(expanded) = object.object(key)?
    {
        reading.balance_transaction(owner, &expanded)?;
    }
    Ok(id)
}

impl Reading {
    fn balance_transaction(&mut self, owner: &StripeId, object: &Object<'_>) -> Read {
        let transaction = balance_transaction::read(object)?;
        self.push(Observation::BalanceTransaction { owner: owner.clone(), transaction });
        Ok(())
    }
}
