//! `books(facts, instant) -> balances by account`: what stands at an instant of occurrence, and with it what creators'
//! statements say of it.
//!
//! One module per object that moves money. `domain/tests/worked/` has worked examples of a charge, with the balances expected.
//! Each is a function of the *set* of facts known. None looks at a running balance: that would depend on order.
//!
//! Cash always moves by balance transactions: Dr clearing `net`, each part of the fee to its account. An object without its
//! balance transaction, or the reverse, stands in `assets:stripe:unconfirmed`, so that clearing stays Σ `net`.

pub mod balance_transaction;
pub mod charge;
pub mod platform;
pub mod satellite;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use crate::account::{Account, Processing};
use crate::event::Event;
use crate::facts::{BalanceTransaction, Category, FeeType};
use crate::id::{Jurisdiction, StripeId};
use crate::money::Currency;
use crate::time::Timestamp;

pub use standing::{Activities, Figure, Standing};

/// Facts about one object that moves money, and what they add up to.
pub trait Books: Clone + Default + Send + Sync {
    /// The type of the object's stream, `stripe_charge`.
    const STREAM: &'static str;

    /// Whether a fact is of those that such an object learns; what is not is refused, lest it be lost without a word.
    fn takes(fact: &Event) -> bool;

    /// Takes in a fact; false where it was known, or is none of this object's.
    fn learn(&mut self, fact: &Event) -> bool;

    /// Every instant at which the books may change.
    fn instants(&self) -> BTreeSet<Timestamp>;

    /// What stands at `at`, inclusive.
    fn at(&self, at: Timestamp) -> Standing;

    /// The balance transactions that the facts name and that are not among them, each with the object that names it.
    fn awaited(&self) -> Vec<Awaited>;
}

/// Books that are another object's, once it is known whose; see [`satellite`].
pub trait Dependent: Books {
    /// The object whose books these are, once known. The first link stands: an object does not move to another.
    fn belongs_to(&self) -> Option<&StripeId>;

    /// The facts as they can be handed on to that object; none while it is not known.
    fn handed_on(&self) -> Vec<Event>;
}

/// A balance transaction known by its id only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Awaited {
    /// The balance transaction.
    pub transaction: StripeId,
    /// The object that names it.
    pub owner: StripeId,
}

/// Balances by account and currency in minor units, debits positive. Holds no zeros, so that equal books are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balances(BTreeMap<(Account, Currency), i128>);

impl Balances {
    /// Adds to the debit side; a negative amount credits.
    pub fn debit(&mut self, account: Account, currency: Currency, minor: i128) {
        if minor == 0 {
            return;
        }
        let key = (account, currency);
        let sum = self.0.get(&key).copied().unwrap_or(0) + minor;
        if sum == 0 {
            self.0.remove(&key);
        } else {
            self.0.insert(key, sum);
        }
    }

    /// Adds to the credit side; a negative amount debits.
    pub fn credit(&mut self, account: Account, currency: Currency, minor: i128) {
        self.debit(account, currency, -minor);
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        for ((account, currency), minor) in &other.0 {
            self.debit(account.clone(), *currency, *minor);
        }
    }

    /// Takes all of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        for ((account, currency), minor) in &other.0 {
            self.credit(account.clone(), *currency, *minor);
        }
    }

    /// Whether nothing stands.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each account and currency that is not zero, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Account, Currency, i128)> {
        self.0.iter().map(|((account, currency), minor)| (account, *currency, *minor))
    }

    /// One balance; zero where nothing stands.
    pub fn of(&self, account: &Account, currency: Currency) -> i128 {
        self.0.get(&(account.clone(), currency)).copied().unwrap_or(0)
    }

    /// Whether all that stands is in `currency`.
    pub fn is_only_in(&self, currency: Currency) -> bool {
        self.0.keys().all(|(_, own)| *own == currency)
    }

    /// Debits minus credits by currency, zeros left out: empty means balanced.
    pub fn residuals(&self) -> BTreeMap<Currency, i128> {
        let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
        for ((_, currency), minor) in &self.0 {
            *sums.entry(*currency).or_default() += minor;
        }
        sums.retain(|_, sum| *sum != 0);
        sums
    }
}

/// The balance transactions of one object's stream, each with the object that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transactions(BTreeMap<StripeId, (StripeId, BalanceTransaction)>);

impl Transactions {
    /// Adds one; false where it was known. It never changes; should two differ all the same, the greater is kept, whichever came first.
    /// A refund or dispute is a nearer owner than its charge, which only names it: old versions list it under the charge.
    pub(crate) fn learn(&mut self, owner: &StripeId, transaction: &BalanceTransaction) -> bool {
        let new = (owner.clone(), transaction.clone());
        let nearness = |owner: &StripeId| owner.kind().is_satellite();
        match self.0.get(&transaction.id) {
            Some(known) if (nearness(&known.0), known) >= (nearness(owner), &new) => false,
            Some(_) | None => {
                self.0.insert(transaction.id.clone(), new);
                true
            }
        }
    }

    pub(crate) fn contains(&self, id: &StripeId) -> bool {
        self.0.contains_key(id)
    }

    pub(crate) fn instants(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.0.values().map(|(_, transaction)| transaction.created)
    }

    /// Those created at or before `at`, in order of creation, then id.
    pub(crate) fn up_to(&self, at: Timestamp) -> Vec<(&StripeId, &BalanceTransaction)> {
        let mut seen: Vec<_> = self.0.values().filter(|(_, t)| t.created <= at).map(|(owner, t)| (owner, t)).collect();
        seen.sort_by(|a, b| (a.1.created, &a.1.id).cmp(&(b.1.created, &b.1.id)));
        seen
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&StripeId, &BalanceTransaction)> {
        self.0.values().map(|(owner, transaction)| (owner, transaction))
    }

    /// Of `named` those that are not here.
    pub(crate) fn missing<'a>(
        &self,
        owner: &StripeId,
        named: impl IntoIterator<Item = Option<&'a StripeId>>,
    ) -> Vec<Awaited> {
        named
            .into_iter()
            .flatten()
            .filter(|id| !self.contains(id))
            .map(|id| Awaited { transaction: id.clone(), owner: owner.clone() })
            .collect()
    }
}

/// Dr clearing `net`, Dr each part of the fee: together Dr `amount`, which the caller credits to what it stands for.
pub(crate) fn book_cash(books: &mut Balances, transaction: &BalanceTransaction) {
    let currency = transaction.currency;
    books.debit(Account::StripeClearing, currency, i128::from(transaction.net));
    let own = fee_account(transaction.category);
    let mut unlisted = i128::from(transaction.fee);
    for detail in &transaction.fee_details {
        let account = match detail.fee_type {
            FeeType::Stripe | FeeType::Application | FeeType::Other => own.clone(),
            FeeType::Passthrough => Account::ProcessingFees(Processing::Network),
            FeeType::Tax => Account::FeeTax,
            FeeType::WithheldTax => Account::TaxRecoverable(Jurisdiction::unknown()),
        };
        books.debit(account, currency, i128::from(detail.amount));
        unlisted -= i128::from(detail.amount);
    }
    books.debit(own, currency, unlisted);
}

/// Where Stripe's own fee on a balance transaction of this category goes.
fn fee_account(category: Category) -> Account {
    match category {
        Category::Dispute | Category::DisputeReversal | Category::DisputeFee => Account::DisputeFees,
        Category::Payout | Category::PayoutReversal | Category::PayoutFee => Account::PayoutFees,
        Category::ProductFee => Account::ProcessingFees(Processing::Products),
        Category::FxFee => Account::ProcessingFees(Processing::Fx),
        Category::NetworkCost => Account::ProcessingFees(Processing::Network),
        Category::Charge
        | Category::ChargeFailure
        | Category::PartialCaptureReversal
        | Category::Refund
        | Category::RefundFailure
        | Category::Tax
        | Category::TaxWithholding
        | Category::OtherBalance
        | Category::Topup
        | Category::TopupReversal
        | Category::Transfer
        | Category::TransferReversal
        | Category::PlatformEarning
        | Category::PlatformEarningRefund
        | Category::ConnectCollection
        | Category::ReserveConnect
        | Category::ReserveRisk
        | Category::ReserveNetwork
        | Category::ReserveMinimum
        | Category::CurrencyConversion
        | Category::Financing
        | Category::Contribution
        | Category::UnreconciledCustomerFunds
        | Category::OtherIncome
        | Category::Unknown => Account::ProcessingFees(Processing::Payments),
    }
}

/// What an object says it moved (`expected`, in `currency`, positive when money came to us) against its balance transactions;
/// the difference stands in unconfirmed.
///
/// In one currency that is a subtraction. Where the balance transactions are in another currency, those that move the way the
/// object says confirm it whatever their amount, and those that move the other way (a failure whose event is not here yet) wait.
/// An object that moved nothing after all is confirmed by a way out and a way back; what they differ by is an exchange difference.
pub(crate) fn confirm<'a>(
    books: &mut Balances,
    expected: i128,
    currency: Currency,
    transactions: impl IntoIterator<Item = &'a BalanceTransaction>,
) {
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        transactions.into_iter().partition(|transaction| transaction.currency == currency);
    // What a partial capture leaves out was never there: without a capture that is known, the rest of it still waits.
    let went_back = |t: &&BalanceTransaction| t.amount < 0 && t.category != Category::PartialCaptureReversal;
    let is_round_trip = elsewhere.iter().any(|t| t.amount > 0) && elsewhere.iter().any(went_back);
    let mut is_confirmed_elsewhere = false;
    for transaction in elsewhere {
        let amount = i128::from(transaction.amount);
        if expected != 0 && amount.signum() == expected.signum() {
            is_confirmed_elsewhere = true;
        } else if expected != 0 || !is_round_trip {
            books.credit(Account::StripeUnconfirmed, transaction.currency, amount);
        }
    }
    let moved: i128 = here.iter().map(|transaction| i128::from(transaction.amount)).sum();
    let expected_here = if is_confirmed_elsewhere { 0 } else { expected };
    books.debit(Account::StripeUnconfirmed, currency, expected_here - moved);
}

/// A balance transaction whose object is not known here waits whole.
pub(crate) fn unmatched(books: &mut Balances, transaction: &BalanceTransaction) {
    books.credit(Account::StripeUnconfirmed, transaction.currency, i128::from(transaction.amount));
}

/// What remains: in one currency nothing does. Left in the settlement currency alone it is an exchange difference; left in
/// several, each is the open leg of a conversion.
pub(crate) fn close_residuals(books: &mut Balances, settlement: Option<Currency>) {
    let residuals = books.residuals();
    let only = if residuals.len() == 1 { residuals.keys().next().copied() } else { None };
    for (currency, residual) in residuals {
        let account = if only.is_some() && only == settlement { Account::Fx } else { Account::EquityFx(currency) };
        books.credit(account, currency, residual);
    }
}
