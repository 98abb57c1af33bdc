//! Objects that move no money and may say whose money a charge is: payment intents, checkout sessions, invoices, subscriptions,
//! connected accounts. Their streams hold snapshots of what they say, and links.

use std::collections::BTreeSet;

use crate::event::Event;
use crate::facts::{ConnectedAccountSnapshot, EventStamp, SourceOffer};
use crate::id::{StripeId, StripeKind};

/// What is known of such an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    newest: Option<(EventStamp, Vec<SourceOffer>)>,
    /// Of a connected account: how it looked last.
    account: Option<(EventStamp, ConnectedAccountSnapshot)>,
    links: BTreeSet<StripeId>,
    sequence: u64,
}

impl Source {
    /// The type of the stream of a source of this kind; `None` where the id names none.
    pub const fn stream_type(kind: StripeKind) -> Option<&'static str> {
        match kind {
            StripeKind::PaymentIntent => Some("stripe_payment_intent"),
            StripeKind::CheckoutSession => Some("stripe_checkout_session"),
            StripeKind::Invoice => Some("stripe_invoice"),
            StripeKind::Subscription => Some("stripe_subscription"),
            StripeKind::Account => Some("stripe_account"),
            StripeKind::Charge
            | StripeKind::Refund
            | StripeKind::Dispute
            | StripeKind::Transfer
            | StripeKind::TransferReversal
            | StripeKind::Payout
            | StripeKind::ApplicationFee
            | StripeKind::FeeRefund
            | StripeKind::Topup
            | StripeKind::BalanceTransaction
            | StripeKind::Other => None,
        }
    }

    /// The sequence of the last event of the stream.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Of `facts` those that are news: a snapshot newer than the newest, a link that is not known.
    pub fn decide(&self, facts: Vec<Event>) -> Vec<Event> {
        let mut known = self.clone();
        facts.into_iter().filter(|fact| known.learn(fact)).collect()
    }

    /// Takes in an event of the stream.
    pub fn evolve(&mut self, event: &Event) {
        self.sequence += 1;
        self.learn(event);
    }

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::AttributionSourceObserved(seen) = fact {
            replace_older(&mut self.newest, (seen.stamp.clone(), seen.offers.clone()))
        } else if let Event::ConnectedAccountObserved(seen) = fact {
            replace_older(&mut self.account, (seen.stamp.clone(), seen.account.clone()))
        } else if let Event::StripeObjectsLinked(link) = fact {
            self.links.insert(link.to.clone())
        } else {
            false
        }
    }
}

/// Keeps the newer of two snapshots; false where that is the known one.
fn replace_older<T: Ord>(known: &mut Option<T>, new: T) -> bool {
    let is_newer = known.as_ref().is_none_or(|known| *known < new);
    if is_newer {
        *known = Some(new);
    }
    is_newer
}
