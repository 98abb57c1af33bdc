//! `awaited`: balance transactions that an object says or implies, and that were not seen yet. Until they are, the object's
//! amount stands in `assets:stripe:unconfirmed`.
//!
//! An object and its balance transaction come in any order. So two tables remember what was seen of each, and `awaited` holds
//! what follows from both, worked out anew for the objects that a batch touches.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_domain::books::balance_transaction;
use fanledger_domain::event::{
    ApplicationFeeObserved, BalanceTransactionObserved, ChargeObserved, Event, PayoutObserved, RefundObserved,
    TopupObserved, TransferObserved,
};
use fanledger_domain::facts::{
    ApplicationFeeSnapshot, Category, ChargeSnapshot, ChargeStatus, EventStamp, PayoutSnapshot, PayoutStatus,
    RefundSnapshot, RefundStatus, Reversal, Stamp, TopupSnapshot, TopupStatus, TransferSnapshot,
};
use fanledger_domain::id::{StripeId, StripeKind};
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::{RecordedEvent, StreamId};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

mod store;

/// See the module.
#[derive(Debug)]
pub struct Awaited;

const CREATE: &str = r#"
-- How each object looked last. `live`: its money moved, as far as it says. `ended`: that was taken back afterwards.
-- `named` and `named_return` are the balance transactions that it names for the one and the other.
CREATE TABLE awaited_objects (
    object        text COLLATE "C" PRIMARY KEY,
    stream_type   text COLLATE "C" NOT NULL,
    stream_id     text COLLATE "C" NOT NULL,
    created       timestamptz NOT NULL,
    currency      text COLLATE "C" NOT NULL,
    amount        bigint NOT NULL,
    live          boolean NOT NULL,
    ended         boolean NOT NULL,
    named         text COLLATE "C",
    named_return  text COLLATE "C",
    stamp_created timestamptz NOT NULL,
    stamp_status  smallint NOT NULL,
    stamp_event   text COLLATE "C" NOT NULL
);

-- Every balance transaction that was seen, by each object that it may be of.
CREATE TABLE awaited_transactions (
    transaction_id text COLLATE "C" NOT NULL,
    object         text COLLATE "C" NOT NULL,
    part           text COLLATE "C" NOT NULL CHECK (part IN ('movement', 'return', 'other')),
    PRIMARY KEY (object, transaction_id)
);
CREATE INDEX awaited_transactions_id ON awaited_transactions (transaction_id);

CREATE TABLE awaited (
    object              text COLLATE "C" NOT NULL,
    part                text COLLATE "C" NOT NULL CHECK (part IN ('movement', 'return')),
    stream_type         text COLLATE "C" NOT NULL,
    stream_id           text COLLATE "C" NOT NULL,
    balance_transaction text COLLATE "C",
    amount              bigint NOT NULL,
    currency            text COLLATE "C" NOT NULL,
    since               timestamptz NOT NULL,
    PRIMARY KEY (object, part)
);
CREATE INDEX awaited_since ON awaited (since, object, part);
CREATE INDEX awaited_named ON awaited (balance_transaction);
"#;

#[async_trait]
impl Projection for Awaited {
    fn name(&self) -> &'static str {
        "awaited"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["awaited"] }
    }

    fn wants(&self, event_type: &str) -> bool {
        matches!(
            event_type,
            ChargeObserved::TYPE
                | RefundObserved::TYPE
                | TransferObserved::TYPE
                | PayoutObserved::TYPE
                | ApplicationFeeObserved::TYPE
                | TopupObserved::TYPE
                | BalanceTransactionObserved::TYPE
        )
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let mut snapshots = Vec::new();
        let mut transactions = Vec::new();
        for recorded in batch {
            let event = decode::event(recorded)?;
            match &event {
                Event::BalanceTransactionObserved(observed) => transactions.extend(seen(observed)),
                Event::ChargeObserved(observed) => {
                    snapshots.push(charge(&observed.stamp, &observed.charge, &recorded.stream))
                }
                Event::RefundObserved(observed) => {
                    snapshots.push(refund(&observed.stamp, &observed.refund, &recorded.stream))
                }
                Event::PayoutObserved(observed) => {
                    snapshots.push(payout(&observed.stamp, &observed.payout, &recorded.stream))
                }
                Event::TopupObserved(observed) => {
                    snapshots.push(topup(&observed.stamp, &observed.topup, &recorded.stream))
                }
                Event::TransferObserved(observed) => {
                    snapshots.extend(transfer(&observed.stamp, &observed.transfer, &recorded.stream))
                }
                Event::ApplicationFeeObserved(observed) => {
                    snapshots.extend(fee(&observed.stamp, &observed.fee, &recorded.stream))
                }
                Event::StripeEventReceived(_)
                | Event::StripeEventBodyDiffered(_)
                | Event::StripeEventNotTranslated(_)
                | Event::StripeObjectsLinked(_)
                | Event::AttributionSourceObserved(_)
                | Event::AttributionOffered(_)
                | Event::CreatorAttributed(_)
                | Event::DisputeObserved(_)
                | Event::ChargeReleased(_)
                | Event::EntryPosted(_)
                | Event::ProjectionEventSkipped(_)
                | Event::StripeEventOpened(_)
                | Event::PeriodClosed(_)
                | Event::PeriodReopened(_)
                | Event::ManualEntryProposed(_)
                | Event::ManualEntryApproved(_)
                | Event::ManualEntryRejected(_)
                | Event::ConnectedAccountObserved(_)
                | Event::CreatorPayoutsHeld(_)
                | Event::CreatorPayoutsResumed(_)
                | Event::PayoutRunProposed(_)
                | Event::PayoutRunApproved(_)
                | Event::PayoutRunCanceled(_)
                | Event::PayoutRunStopped(_)
                | Event::PayoutRunFinished(_)
                | Event::PayoutTransferSent(_)
                | Event::PayoutTransferFailed(_) => return Err(decode::unwanted(recorded, &event)),
            }
        }
        store::insert_transactions(&transactions, connection).await?;

        let mut objects =
            store::load_objects(snapshots.iter().map(|snapshot| snapshot.object.as_str()), connection).await?;
        for snapshot in snapshots {
            let merged = match objects.remove(snapshot.object.as_str()) {
                Some(known) => merge(known, snapshot),
                None => snapshot,
            };
            objects.insert(merged.object.to_string(), merged);
        }
        store::upsert_objects(objects.values(), connection).await?;

        // Touched, too, is what a balance transaction belongs to or is named by.
        let ids: BTreeSet<&str> = transactions.iter().map(|seen| seen.transaction.as_str()).collect();
        let mut touched: BTreeSet<String> = transactions.iter().map(|seen| seen.object.to_string()).collect();
        touched.extend(store::awaiting(&ids, connection).await?);
        touched.retain(|object| !objects.contains_key(object));
        objects.extend(store::load_objects(touched.iter().map(String::as_str), connection).await?);
        let seen = store::load_transactions(objects.values(), connection).await?;
        let open: Vec<_> = objects.values().flat_map(|object| open(object, &seen)).collect();
        store::replace_open(objects.keys(), &open, connection).await?;
        Ok(())
    }
}

/// How an object looked, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snapshot {
    object: StripeId,
    stream: StreamId,
    created: DateTime<Utc>,
    currency: Currency,
    amount: i64,
    live: bool,
    ended: bool,
    named: Option<StripeId>,
    named_return: Option<StripeId>,
    /// The status by its place in the object's life.
    stamp: Stamp<i16>,
}

/// The newer snapshot wins, whichever comes first; an id that only one of them names is known all the same.
fn merge(known: Snapshot, other: Snapshot) -> Snapshot {
    let (older, newer) = if other.stamp > known.stamp { (known, other) } else { (other, known) };
    Snapshot { named: newer.named.or(older.named), named_return: newer.named_return.or(older.named_return), ..newer }
}

fn charge(stamp: &EventStamp, charge: &ChargeSnapshot, stream: &StreamId) -> Snapshot {
    Snapshot {
        object: charge.id.clone(),
        stream: stream.clone(),
        created: charge.created.to_chrono(),
        currency: charge.currency,
        amount: charge.amount_captured,
        live: charge.captured && charge.status == ChargeStatus::Succeeded,
        ended: charge.status == ChargeStatus::Failed,
        named: charge.balance_transaction.clone(),
        named_return: charge.failure_balance_transaction.clone(),
        stamp: stamp.with_status(charge.status as i16 * 2 + i16::from(charge.captured)),
    }
}

fn refund(stamp: &EventStamp, refund: &RefundSnapshot, stream: &StreamId) -> Snapshot {
    let (live, ended) = match refund.status {
        RefundStatus::Pending | RefundStatus::Succeeded => (true, false),
        RefundStatus::RequiresAction => (false, false),
        RefundStatus::Canceled | RefundStatus::Failed => (false, true),
    };
    Snapshot {
        object: refund.id.clone(),
        stream: stream.clone(),
        created: refund.created.to_chrono(),
        currency: refund.currency,
        amount: refund.amount,
        live,
        ended,
        named: refund.balance_transaction.clone(),
        named_return: refund.failure_balance_transaction.clone(),
        stamp: stamp.with_status(refund.status as i16),
    }
}

fn payout(stamp: &EventStamp, payout: &PayoutSnapshot, stream: &StreamId) -> Snapshot {
    let (live, ended) = match payout.status {
        PayoutStatus::Pending | PayoutStatus::InTransit | PayoutStatus::Paid => (true, false),
        PayoutStatus::Canceled | PayoutStatus::Failed => (false, true),
    };
    Snapshot {
        object: payout.id.clone(),
        stream: stream.clone(),
        created: payout.created.to_chrono(),
        currency: payout.currency,
        amount: payout.amount,
        live,
        ended,
        named: payout.balance_transaction.clone(),
        named_return: payout.failure_balance_transaction.clone(),
        stamp: stamp.with_status(payout.status as i16),
    }
}

fn topup(stamp: &EventStamp, topup: &TopupSnapshot, stream: &StreamId) -> Snapshot {
    let (live, ended) = match topup.status {
        TopupStatus::Pending => (false, false),
        TopupStatus::Succeeded => (true, false),
        TopupStatus::Canceled | TopupStatus::Failed => (false, true),
        TopupStatus::Reversed => (true, true),
    };
    Snapshot {
        object: topup.id.clone(),
        stream: stream.clone(),
        created: topup.created.to_chrono(),
        currency: topup.currency,
        amount: topup.amount,
        live,
        ended,
        named: topup.balance_transaction.clone(),
        named_return: None,
        stamp: stamp.with_status(topup.status as i16),
    }
}

/// A transfer and the reversals that it embeds, each of which moves money by a balance transaction of its own.
fn transfer(stamp: &EventStamp, transfer: &TransferSnapshot, stream: &StreamId) -> Vec<Snapshot> {
    let whole = lasting(
        stamp,
        stream,
        transfer.currency,
        &Reversal {
            id: transfer.id.clone(),
            created: transfer.created,
            amount: transfer.amount,
            balance_transaction: transfer.balance_transaction.clone(),
        },
    );
    let parts = transfer.reversals.iter().map(|part| lasting(stamp, stream, transfer.currency, part));
    std::iter::once(whole).chain(parts).collect()
}

/// An application fee and the refunds of it that it embeds.
fn fee(stamp: &EventStamp, fee: &ApplicationFeeSnapshot, stream: &StreamId) -> Vec<Snapshot> {
    let whole = lasting(
        stamp,
        stream,
        fee.currency,
        &Reversal {
            id: fee.id.clone(),
            created: fee.created,
            amount: fee.amount,
            balance_transaction: fee.balance_transaction.clone(),
        },
    );
    let parts = fee.refunds.iter().map(|part| lasting(stamp, stream, fee.currency, part));
    std::iter::once(whole).chain(parts).collect()
}

/// What has no status: it moved money when it was made, for good.
fn lasting(stamp: &EventStamp, stream: &StreamId, currency: Currency, part: &Reversal) -> Snapshot {
    Snapshot {
        object: part.id.clone(),
        stream: stream.clone(),
        created: part.created.to_chrono(),
        currency,
        amount: part.amount,
        live: true,
        ended: false,
        named: part.balance_transaction.clone(),
        named_return: None,
        stamp: stamp.with_status(0),
    }
}

/// Which movement of its object's money a balance transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    Movement,
    Return,
    Other,
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Movement => "movement",
            Self::Return => "return",
            Self::Other => "other",
        }
    }

    fn of(category: Category, object: &StripeId) -> Self {
        match category.part() {
            Some(balance_transaction::Part::Movement) => Self::Movement,
            Some(balance_transaction::Part::Return) => Self::Return,
            // An old balance transaction has for its source what is reversed.
            Some(balance_transaction::Part::Reversal) => {
                if matches!(object.kind(), StripeKind::TransferReversal | StripeKind::FeeRefund) {
                    Self::Movement
                } else {
                    Self::Return
                }
            }
            Some(balance_transaction::Part::Other) | None => Self::Other,
        }
    }
}

/// A balance transaction with an object that it may be of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    transaction: StripeId,
    object: StripeId,
    part: Part,
}

/// Its owner, and its source where that is another.
fn seen(observed: &BalanceTransactionObserved) -> Vec<Seen> {
    let transaction = &observed.transaction;
    let objects: BTreeSet<&StripeId> = std::iter::once(&observed.owner).chain(&transaction.source).collect();
    objects
        .into_iter()
        .map(|object| Seen {
            transaction: transaction.id.clone(),
            object: object.clone(),
            part: Part::of(transaction.category, object),
        })
        .collect()
}

/// What was seen of the objects at hand.
#[derive(Default)]
struct SeenSoFar {
    parts: HashMap<String, HashSet<Part>>,
    transactions: HashSet<String>,
}

/// A balance transaction that is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open<'a> {
    object: &'a Snapshot,
    part: Part,
    named: Option<&'a StripeId>,
}

/// What an object still awaits. A zero amount moves nothing.
fn open<'a>(object: &'a Snapshot, seen: &SeenSoFar) -> Vec<Open<'a>> {
    let has = |part: Part, named: &Option<StripeId>| {
        named.as_ref().is_some_and(|id| seen.transactions.contains(id.as_str()))
            || seen.parts.get(object.object.as_str()).is_some_and(|parts| parts.contains(&part))
    };
    let moved = has(Part::Movement, &object.named);
    let returned = has(Part::Return, &object.named_return);
    let mut open = Vec::new();
    if object.amount != 0 && !moved && (object.live || object.named.is_some()) {
        open.push(Open { object, part: Part::Movement, named: object.named.as_ref() });
    }
    if object.amount != 0 && !returned && (object.named_return.is_some() || (object.ended && moved)) {
        open.push(Open { object, part: Part::Return, named: object.named_return.as_ref() });
    }
    open
}

/// By id, as loaded.
type Objects = BTreeMap<String, Snapshot>;

fn timestamp(at: DateTime<Utc>) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_chrono(at).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests;
