//! What stands at an instant: balances, and what those of creators are made of.

use std::collections::BTreeMap;

use crate::books::Balances;
use crate::entry::{EntryPosted, StatementLine};
use crate::facts::PaymentKind;
use crate::id::CreatorId;
use crate::money::Currency;

/// A figure of a creator's statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// Whose.
    pub creator: CreatorId,
    /// In which currency.
    pub currency: Currency,
    /// In which line.
    pub line: StatementLine,
    /// What was paid for, where it is about a payment.
    pub kind: Option<PaymentKind>,
}

/// What creators' balances are made of, in minor units, in the creator's favour where positive. Holds no zeros, so that equal
/// ones are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activities(BTreeMap<Figure, i128>);

impl Activities {
    /// Adds to a figure.
    pub fn add(&mut self, figure: Figure, minor: i128) {
        let sum = self.0.get(&figure).copied().unwrap_or(0) + minor;
        if sum == 0 {
            self.0.remove(&figure);
        } else {
            self.0.insert(figure, sum);
        }
    }

    /// Each figure that is not zero, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Figure, i128)> {
        self.0.iter().map(|(figure, minor)| (figure, *minor))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What stands at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// By account.
    pub balances: Balances,
    /// By figure of creators' statements.
    pub activity: Activities,
}

/// Of an object that is nothing to creators.
impl From<Balances> for Standing {
    fn from(balances: Balances) -> Self {
        Self { balances, activity: Activities::default() }
    }
}

impl Standing {
    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        self.balances.add(&other.balances);
        other.activity.iter().for_each(|(figure, minor)| self.activity.add(figure.clone(), minor));
    }

    /// Takes all of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.balances.subtract(&other.balances);
        other.activity.iter().for_each(|(figure, minor)| self.activity.add(figure.clone(), -minor));
    }

    /// Adds an entry.
    pub fn post(&mut self, entry: &EntryPosted) {
        for posting in &entry.postings {
            let minor = i128::from(posting.signed_minor());
            self.balances.debit(posting.account.clone(), posting.money.currency(), minor);
        }
        for activity in &entry.activity {
            let figure = Figure {
                creator: activity.creator.clone(),
                currency: activity.currency,
                line: activity.line,
                kind: activity.kind,
            };
            self.activity.add(figure, i128::from(activity.minor));
        }
    }

    /// Whether nothing stands.
    pub fn is_empty(&self) -> bool {
        self.balances.is_empty() && self.activity.is_empty()
    }

    /// What creators' accounts hold that their statements do not say, by creator and currency: nothing, for the books of an
    /// object; what finance booked by hand, for entries of its own.
    pub fn unexplained(&self) -> BTreeMap<(CreatorId, Currency), i128> {
        let mut rest: BTreeMap<(CreatorId, Currency), i128> = BTreeMap::new();
        for (account, currency, minor) in self.balances.iter() {
            if let Some(creator) = account.creator() {
                *rest.entry((creator.clone(), currency)).or_default() -= minor;
            }
        }
        for (figure, minor) in self.activity.iter() {
            *rest.entry((figure.creator.clone(), figure.currency)).or_default() -= minor;
        }
        rest.retain(|_, minor| *minor != 0);
        rest
    }
}
