//! From what an event says to the streams that must learn it.
//!
//! Refunds and disputes belong to their charge's books, reversals to their transfer's, fee refunds to their fee's. Which one it
//! is, is itself a fact (`StripeObjectsLinked`) in the small object's own stream, and until it is known the small object stands
//! there alone: so a balance transaction that comes first has a place, and nothing is counted twice.

use fanledger_domain::books::balance_transaction::OwnBalanceTransaction;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::platform::{ApplicationFee, Payout, Topup, Transfer};
use fanledger_domain::books::satellite::{Dispute, FeeRefund, Refund, Satellite, SatelliteKind as _, TransferReversal};
use fanledger_domain::books::{Books, Dependent};
use fanledger_domain::event::{
    ApplicationFeeObserved, AttributionSourceObserved, BalanceTransactionObserved, ChargeObserved, DisputeObserved,
    Event, PayoutObserved, RefundObserved, StripeObjectsLinked, TopupObserved, TransferObserved,
};
use fanledger_domain::facts::BalanceTransaction;
use fanledger_domain::id::{StripeId, StripeKind};
use fanledger_domain::ledgered::{LedgerCommand, Ledgered};
use fanledger_domain::payout_run::ConnectedAccountObserved;
use fanledger_domain::source::Source;
use fanledger_domain::stripe::{Observation, Translation};
use fanledger_journal::event::{Metadata, StreamId};

use crate::executor::{ExecuteError, Executed, Executor};
use crate::store::Store;

/// What one object is to learn, together and in one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The object.
    pub object: StripeId,
    /// What it is to learn.
    pub facts: Vec<Event>,
}

/// The object in whose stream a balance transaction's money stands: its owner, or itself where it belongs to none of ours.
fn place_of(owner: &StripeId, transaction: &BalanceTransaction) -> StripeId {
    let has_stream = has_own_books(owner.kind()) || owner.kind().is_satellite();
    if transaction.category.part().is_some() && has_stream { owner.clone() } else { transaction.id.clone() }
}

/// Objects with books of their own.
const fn has_own_books(kind: StripeKind) -> bool {
    match kind {
        StripeKind::Charge
        | StripeKind::Transfer
        | StripeKind::Payout
        | StripeKind::ApplicationFee
        | StripeKind::Topup => true,
        StripeKind::Refund
        | StripeKind::Dispute
        | StripeKind::TransferReversal
        | StripeKind::FeeRefund
        | StripeKind::BalanceTransaction
        | StripeKind::PaymentIntent
        | StripeKind::CheckoutSession
        | StripeKind::Invoice
        | StripeKind::Subscription
        | StripeKind::Account
        | StripeKind::Other => false,
    }
}

/// Whether what it learns goes to the object that it belongs to, once that is known. A prefix that is not known is taken for a
/// balance transaction's.
pub(crate) const fn is_dependent(kind: StripeKind) -> bool {
    kind.is_satellite() || matches!(kind, StripeKind::BalanceTransaction | StripeKind::Other)
}

/// The object, where it is one whose books are another's, once it is known whose: what its stream holds is to be handed on then.
pub(crate) fn satellite_of(stream: &StreamId) -> Option<StripeId> {
    let streams =
        [Refund::STREAM, Dispute::STREAM, TransferReversal::STREAM, FeeRefund::STREAM, OwnBalanceTransaction::STREAM];
    if !streams.contains(&stream.aggregate_type.as_str()) {
        return None;
    }
    stream.aggregate_id.parse().ok()
}

/// Whether a satellite of one kind can belong to an object of the other.
const fn can_belong(satellite: StripeKind, owner: StripeKind) -> bool {
    matches!(
        (satellite, owner),
        (StripeKind::Refund | StripeKind::Dispute, StripeKind::Charge)
            | (StripeKind::TransferReversal, StripeKind::Transfer)
            | (StripeKind::FeeRefund, StripeKind::ApplicationFee)
    )
}

/// A balance transaction, for the object in whose stream it belongs. `namer` is the object that named or embedded it; one that
/// was only listed is known by its source.
///
/// The two can differ: a charge names the balance transaction of its failure, whose source is a `pyr_…`. It must not be booked
/// in both places. A source with books of its own has it, whoever names it (old versions give a refund's charge as source, which
/// comes to the same stream); a source that is a satellite turns out to belong
/// to the namer, which is said first, so that what is listed later, or came before, finds its way there. So is one that has no
/// source at all: whoever only lists it could not know where it went.
pub fn of_balance_transaction(namer: Option<&StripeId>, transaction: BalanceTransaction) -> Vec<Delivery> {
    let source = transaction.source.clone();
    let owner = match (namer, &source) {
        (Some(namer), Some(source))
            if !has_own_books(source.kind()) || source == namer || can_belong(namer.kind(), source.kind()) =>
        {
            namer.clone()
        }
        (_, Some(source)) => source.clone(),
        (Some(namer), None) => namer.clone(),
        (None, None) => transaction.id.clone(),
    };
    let object = place_of(&owner, &transaction);
    let mut deliveries = Vec::new();
    let satellite = match source {
        Some(source) => Some(source).filter(|source| can_belong(source.kind(), owner.kind())),
        None => Some(transaction.id.clone()).filter(|id| *id != owner),
    };
    if let Some(satellite) = satellite.filter(|_| object == owner) {
        let link = StripeObjectsLinked { from: satellite.clone(), to: owner.clone() };
        deliveries.push(Delivery { object: satellite, facts: vec![link.into()] });
    }
    deliveries.push(Delivery { object, facts: vec![BalanceTransactionObserved { owner, transaction }.into()] });
    deliveries
}

/// What each object is to learn from one event. Deliveries to one object are joined into one, and come in the order of the event.
pub fn of_translation(translation: Translation) -> Vec<Delivery> {
    let Translation { stamp, observations, links } = translation;
    let mut deliveries: Vec<Delivery> = Vec::new();
    let mut deliver = |object: &StripeId, fact: Event| match deliveries.iter_mut().find(|known| known.object == *object)
    {
        Some(known) => known.facts.push(fact),
        None => deliveries.push(Delivery { object: object.clone(), facts: vec![fact] }),
    };
    let belongs =
        |from: &StripeId, to: &StripeId| Event::from(StripeObjectsLinked { from: from.clone(), to: to.clone() });
    for observation in observations {
        let stamp = stamp.clone();
        match observation {
            Observation::Charge(charge) => deliver(&charge.id.clone(), ChargeObserved { stamp, charge }.into()),
            Observation::Refund(refund) => {
                if let Some(charge) = &refund.charge {
                    deliver(&refund.id, belongs(&refund.id, charge));
                }
                let place = refund.charge.as_ref().unwrap_or(&refund.id).clone();
                deliver(&place, RefundObserved { stamp, refund }.into());
            }
            Observation::Dispute(dispute) => {
                if let Some(charge) = &dispute.charge {
                    deliver(&dispute.id, belongs(&dispute.id, charge));
                }
                let place = dispute.charge.as_ref().unwrap_or(&dispute.id).clone();
                deliver(&place, DisputeObserved { stamp, dispute }.into());
            }
            Observation::Transfer(transfer) => {
                for reversal in &transfer.reversals {
                    deliver(&reversal.id, belongs(&reversal.id, &transfer.id));
                }
                deliver(&transfer.id.clone(), TransferObserved { stamp, transfer }.into());
            }
            Observation::Payout(payout) => deliver(&payout.id.clone(), PayoutObserved { stamp, payout }.into()),
            Observation::ApplicationFee(fee) => {
                for refund in &fee.refunds {
                    deliver(&refund.id, belongs(&refund.id, &fee.id));
                }
                deliver(&fee.id.clone(), ApplicationFeeObserved { stamp, fee }.into());
            }
            Observation::Topup(topup) => deliver(&topup.id.clone(), TopupObserved { stamp, topup }.into()),
            Observation::BalanceTransaction { owner, transaction } => {
                for Delivery { object, facts } in of_balance_transaction(Some(&owner), transaction) {
                    facts.into_iter().for_each(|fact| deliver(&object, fact));
                }
            }
            Observation::Source { object, offers } => {
                deliver(&object.clone(), AttributionSourceObserved { stamp, object, offers }.into());
            }
            Observation::ConnectedAccount(account) => {
                deliver(&account.id.clone(), ConnectedAccountObserved { stamp, account }.into());
            }
        }
    }
    // What a charge, refund or transfer links to is in its snapshot; the links of the others are facts of their own.
    for (from, to) in links {
        if Source::stream_type(from.kind()).is_some() {
            deliver(&from, belongs(&from, &to));
        }
    }
    deliveries
}

impl<S: Store> Executor<S> {
    /// Delivers one after the other.
    pub async fn deliver_all(
        &self,
        deliveries: Vec<Delivery>,
        cause: Option<&StripeId>,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let mut all = Executed::default();
        for delivery in deliveries {
            let executed = self.deliver(delivery, cause, metadata).await?;
            all.events.extend(executed.events);
            all.last = all.last.max(executed.last);
        }
        Ok(all)
    }

    /// Delivers: the object learns the facts, or, where it belongs to another object's books, that one does.
    pub async fn deliver(
        &self,
        delivery: Delivery,
        cause: Option<&StripeId>,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let Delivery { object, facts } = delivery;
        match object.kind() {
            StripeKind::Charge => self.learn::<Charge>(&object, facts, cause, metadata).await,
            StripeKind::Transfer => self.learn::<Transfer>(&object, facts, cause, metadata).await,
            StripeKind::Payout => self.learn::<Payout>(&object, facts, cause, metadata).await,
            StripeKind::ApplicationFee => self.learn::<ApplicationFee>(&object, facts, cause, metadata).await,
            StripeKind::Topup => self.learn::<Topup>(&object, facts, cause, metadata).await,
            StripeKind::Refund => self.learn_dependent::<Satellite<Refund>>(&object, facts, cause, metadata).await,
            StripeKind::Dispute => self.learn_dependent::<Satellite<Dispute>>(&object, facts, cause, metadata).await,
            StripeKind::TransferReversal => {
                self.learn_dependent::<Satellite<TransferReversal>>(&object, facts, cause, metadata).await
            }
            StripeKind::FeeRefund => {
                self.learn_dependent::<Satellite<FeeRefund>>(&object, facts, cause, metadata).await
            }
            StripeKind::PaymentIntent
            | StripeKind::CheckoutSession
            | StripeKind::Invoice
            | StripeKind::Subscription
            | StripeKind::Account => Ok(self.learn_source(&object, facts, metadata).await?.unwrap_or_default()),
            // A prefix that is not known is taken for a balance transaction's; what is not one's is refused there.
            StripeKind::BalanceTransaction | StripeKind::Other => {
                self.learn_dependent::<OwnBalanceTransaction>(&object, facts, cause, metadata).await
            }
        }
    }

    async fn learn<B: Books>(
        &self,
        object: &StripeId,
        facts: Vec<Event>,
        cause: Option<&StripeId>,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        self.execute::<B>(object, LedgerCommand::Learn { facts, stripe_event: cause.cloned() }, metadata).await
    }

    /// A satellite whose owner is known hands money facts on to it; the link itself is its own.
    async fn learn_dependent<B: Dependent>(
        &self,
        object: &StripeId,
        facts: Vec<Event>,
        cause: Option<&StripeId>,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let (links, money): (Vec<Event>, Vec<Event>) =
            facts.into_iter().partition(|fact| matches!(fact, Event::StripeObjectsLinked(_)));
        let mut executed = Executed::default();
        if !links.is_empty() {
            executed = self.learn::<B>(object, links, cause, metadata).await?;
        }
        if money.is_empty() {
            return Ok(executed);
        }
        let satellite: Ledgered<B> = self.load(object).await?;
        let handed = match satellite.books().belongs_to() {
            Some(owner) => self.learn_by_kind(&owner.clone(), money, cause, metadata).await?,
            // Should the link be written between the load and this append, the facts wait in a stream whose books are empty;
            // the translator hands them on when it comes by them.
            None => self.learn::<B>(object, money, cause, metadata).await?,
        };
        executed.events.extend(handed.events);
        executed.last = executed.last.max(handed.last);
        Ok(executed)
    }

    async fn learn_by_kind(
        &self,
        owner: &StripeId,
        facts: Vec<Event>,
        cause: Option<&StripeId>,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        match owner.kind() {
            StripeKind::Transfer => self.learn::<Transfer>(owner, facts, cause, metadata).await,
            StripeKind::ApplicationFee => self.learn::<ApplicationFee>(owner, facts, cause, metadata).await,
            StripeKind::Payout => self.learn::<Payout>(owner, facts, cause, metadata).await,
            StripeKind::Topup => self.learn::<Topup>(owner, facts, cause, metadata).await,
            // Whom a balance transaction belongs to may itself belong to another.
            StripeKind::Refund | StripeKind::Dispute | StripeKind::TransferReversal | StripeKind::FeeRefund => {
                Box::pin(self.deliver(Delivery { object: owner.clone(), facts }, cause, metadata)).await
            }
            StripeKind::Charge
            | StripeKind::BalanceTransaction
            | StripeKind::PaymentIntent
            | StripeKind::CheckoutSession
            | StripeKind::Invoice
            | StripeKind::Subscription
            | StripeKind::Account
            | StripeKind::Other => self.learn::<Charge>(owner, facts, cause, metadata).await,
        }
    }

    /// Delivers what a satellite held while it stood alone to the object that it turned out to belong to.
    pub async fn hand_on(&self, satellite: &StripeId, metadata: &Metadata) -> Result<Executed, ExecuteError> {
        match satellite.kind() {
            StripeKind::Refund => self.hand_on_of::<Satellite<Refund>>(satellite, metadata).await,
            StripeKind::Dispute => self.hand_on_of::<Satellite<Dispute>>(satellite, metadata).await,
            StripeKind::TransferReversal => self.hand_on_of::<Satellite<TransferReversal>>(satellite, metadata).await,
            StripeKind::FeeRefund => self.hand_on_of::<Satellite<FeeRefund>>(satellite, metadata).await,
            StripeKind::BalanceTransaction | StripeKind::Other => {
                self.hand_on_of::<OwnBalanceTransaction>(satellite, metadata).await
            }
            StripeKind::Charge
            | StripeKind::Transfer
            | StripeKind::Payout
            | StripeKind::ApplicationFee
            | StripeKind::Topup
            | StripeKind::PaymentIntent
            | StripeKind::CheckoutSession
            | StripeKind::Invoice
            | StripeKind::Subscription
            | StripeKind::Account => Ok(Executed::default()),
        }
    }

    async fn hand_on_of<B: Dependent>(
        &self,
        satellite: &StripeId,
        metadata: &Metadata,
    ) -> Result<Executed, ExecuteError> {
        let loaded: Ledgered<B> = self.load(satellite).await?;
        let facts = loaded.books().handed_on();
        // The webhook that first told of it; a balance transaction alone may have come without one.
        let cause = facts.iter().find_map(|fact| {
            if let Event::RefundObserved(seen) = fact {
                Some(seen.stamp.event.clone())
            } else if let Event::DisputeObserved(seen) = fact {
                Some(seen.stamp.event.clone())
            } else {
                None
            }
        });
        match loaded.books().belongs_to() {
            Some(owner) if !facts.is_empty() => {
                self.learn_by_kind(&owner.clone(), facts, cause.as_ref(), metadata).await
            }
            Some(_) | None => Ok(Executed::default()),
        }
    }
}
