//! Objects whose money belongs to another object's books: a refund or dispute to its charge, a reversal to its transfer.
//!
//! Until it is known which, their facts stand in their own stream (`suspense:unknown-charge`, unconfirmed). When the link is
//! known, this stream gives its facts up first and the other takes them over, so that nothing is ever counted twice.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use crate::books::charge::Charge;
use crate::books::{Awaited, Books, Dependent, Standing};
use crate::event::Event;
use crate::id::StripeId;
use crate::time::Timestamp;

/// Which kind of object it is.
pub trait SatelliteKind: Clone + Default + Send + Sync + 'static {
    /// The type of its stream.
    const STREAM: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $stream:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name;
        impl SatelliteKind for $name { const STREAM: &'static str = $stream; }
    )* };
}

kinds! {
    /// A refund, of a charge.
    Refund "stripe_refund";
    /// A dispute, of a charge.
    Dispute "stripe_dispute";
    /// A reversal, of a transfer.
    TransferReversal "stripe_transfer_reversal";
    /// A refund, of an application fee.
    FeeRefund "stripe_fee_refund";
}

/// What is known of such an object while it stands alone, and to which object it belongs once that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Satellite<K> {
    /// The same lines as those of a charge that is not known.
    alone: Charge,
    facts: Vec<Event>,
    belongs_to: Option<StripeId>,
    kind: PhantomData<K>,
}

// Not derived: `K` itself need not be there.
impl<K> Default for Satellite<K> {
    fn default() -> Self {
        Self { alone: Charge::default(), facts: Vec::new(), belongs_to: None, kind: PhantomData }
    }
}

impl<K: SatelliteKind> Books for Satellite<K> {
    const STREAM: &'static str = K::STREAM;

    fn takes(fact: &Event) -> bool {
        matches!(fact, Event::StripeObjectsLinked(_)) || Charge::takes(fact)
    }

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::StripeObjectsLinked(link) = fact {
            let is_first = self.belongs_to.is_none();
            self.belongs_to.get_or_insert_with(|| link.to.clone());
            return is_first;
        }
        let is_new = self.alone.learn(fact);
        if is_new {
            self.facts.push(fact.clone());
        }
        is_new
    }

    fn instants(&self) -> BTreeSet<Timestamp> {
        self.alone.instants()
    }

    fn at(&self, at: Timestamp) -> Standing {
        if self.belongs_to.is_some() { Standing::default() } else { self.alone.at(at) }
    }

    fn awaited(&self) -> Vec<Awaited> {
        if self.belongs_to.is_some() { Vec::new() } else { self.alone.awaited() }
    }
}

impl<K: SatelliteKind> Dependent for Satellite<K> {
    fn belongs_to(&self) -> Option<&StripeId> {
        self.belongs_to.as_ref()
    }

    fn handed_on(&self) -> Vec<Event> {
        if self.belongs_to.is_some() { self.facts.clone() } else { Vec::new() }
    }
}
