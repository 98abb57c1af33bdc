//! A second, plain model of the books: from a whole set of raw webhook events and the balance transactions that Stripe's
//! API would answer, the balances by account and currency at an instant of occurrence.
//!
//! It is written from the design pages alone and shares no code with `domain/`, so that a mistake must be made twice to
//! stay hidden. It is slow, works on the whole set at once, and knows no order of arrival: [`seen`] gathers snapshots by
//! object, [`attribution`] finds whose money a charge is, [`charge`] and [`other`] write down the lines of the tables,
//! [`cash`] the counter-accounts of `balance-transactions.md`. Accounts are text here, and times are Stripe's seconds.

mod attribution;
mod cash;
mod charge;
mod other;
mod seen;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use seen::{Seen, text};

/// Balances by account and currency, debits positive, zeros left out.
pub type Trial = BTreeMap<(String, String), i128>;

/// Which balance transactions come to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knows {
    /// There is no key: only those that disputes embed.
    Embedded,
    /// Those too that a money object names by id: they are fetched.
    Named,
    /// All that Stripe lists.
    Listed,
}

/// What finance did, apart from webhooks.
#[derive(Clone, Debug, Default)]
pub struct Acts {
    /// `ledger release --through` this second, once.
    pub released_through: Option<i64>,
}

/// What creators' statements say: by creator, currency, line and kind, in the creator's favour where positive, zeros left out.
pub type Statements = BTreeMap<(String, String, String, Option<String>), i128>;

/// Lines being written down, debits positive; and what they are to creators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Trial, Statements);

impl Lines {
    pub(crate) fn dr(&mut self, account: &str, currency: &str, minor: i128) {
        *self.0.entry((account.to_owned(), currency.to_owned())).or_default() += minor;
    }

    pub(crate) fn cr(&mut self, account: &str, currency: &str, minor: i128) {
        self.dr(account, currency, -minor);
    }

    pub(crate) fn tell(&mut self, creator: &str, currency: &str, line: &str, kind: Option<&str>, minor: i128) {
        let figure = (creator.to_owned(), currency.to_owned(), line.to_owned(), kind.map(str::to_owned));
        *self.1.entry(figure).or_default() += minor;
    }

    /// What does not sum to zero, by currency.
    pub(crate) fn left(&self) -> BTreeMap<String, i128> {
        let mut left = BTreeMap::new();
        for ((_, currency), minor) in &self.0 {
            *left.entry(currency.clone()).or_insert(0) += minor;
        }
        left.retain(|_, minor| *minor != 0);
        left
    }

    pub(crate) fn add(&mut self, other: Self) {
        for ((account, currency), minor) in other.0 {
            self.dr(&account, &currency, minor);
        }
        for (figure, minor) in other.1 {
            *self.1.entry(figure).or_default() += minor;
        }
    }
}

pub struct Model {
    seen: Seen,
    acts: Acts,
}

impl Model {
    /// Of events in any order, with any repeats; `api` is what Stripe's API would answer.
    pub fn new(events: &[Value], api: &[Value], knows: Knows) -> Self {
        Self { seen: Seen::new(events, api, knows), acts: Acts::default() }
    }

    pub fn with_acts(mut self, acts: Acts) -> Self {
        self.acts = acts;
        self
    }

    /// The balances at an instant of occurrence, inclusive, and what they are to creators; `i64::MAX` for all.
    pub fn at(&self, instant: i64) -> (Trial, Statements) {
        let mut all = Lines::default();
        for id in self.seen.charge_ids() {
            all.add(charge::lines(&self.seen, &self.acts, &id, instant));
        }
        all.add(other::lines(&self.seen, instant));
        let left = all.left();
        assert!(left.is_empty(), "the model does not balance at {instant}: {left:?}");
        let Lines(mut trial, mut statements) = all;
        trial.retain(|_, minor| *minor != 0);
        statements.retain(|_, minor| *minor != 0);
        (trial, statements)
    }

    /// The balances of each charge with its refunds and disputes, by the charge's id: to find what differs.
    pub fn charges_at(&self, instant: i64) -> BTreeMap<String, Trial> {
        let ids = self.seen.charge_ids();
        ids.into_iter().map(|id| (id.clone(), charge::lines(&self.seen, &self.acts, &id, instant).0)).collect()
    }

    /// Every second at which something happened.
    pub fn instants(&self) -> BTreeSet<i64> {
        self.seen.instants()
    }

    /// Σ net of the balance transactions that are known, by currency: what clearing must be.
    pub fn nets(&self) -> BTreeMap<String, i128> {
        let mut nets = BTreeMap::new();
        for transaction in self.seen.transactions.values() {
            *nets.entry(text(transaction, "currency").unwrap()).or_insert(0) +=
                i128::from(transaction["net"].as_i64().unwrap());
        }
        nets.retain(|_, net| *net != 0);
        nets
    }
}
