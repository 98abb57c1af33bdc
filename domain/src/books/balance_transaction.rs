//! Balance transactions that belong to no other object of ours: Stripe's own fees, reserves, conversions and the like.
//!
//! One that belongs to an object and does not say to which (it has no `source`) stands here, too, until an object names it. It is
//! a satellite then, as in [`super::satellite`]: whoever only lists it finds here where it went, and nothing is counted twice.

use std::collections::BTreeSet;

use crate::account::{Account, Processing, Reserve, Suspense};
use crate::books::{Awaited, Balances, Books, Dependent, Standing, Transactions, book_cash};
use crate::event::{BalanceTransactionObserved, Event};
use crate::facts::{BalanceTransaction, Category};
use crate::id::{Jurisdiction, StripeId};
use crate::time::Timestamp;

/// What is known of one balance transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnBalanceTransaction {
    transactions: Transactions,
    belongs_to: Option<StripeId>,
}

impl Books for OwnBalanceTransaction {
    const STREAM: &'static str = "stripe_balance_transaction";

    fn takes(fact: &Event) -> bool {
        matches!(fact, Event::BalanceTransactionObserved(_) | Event::StripeObjectsLinked(_))
    }

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::StripeObjectsLinked(link) = fact {
            let is_first = self.belongs_to.is_none();
            self.belongs_to.get_or_insert_with(|| link.to.clone());
            is_first
        } else if let Event::BalanceTransactionObserved(seen) = fact {
            self.transactions.learn(&seen.owner, &seen.transaction)
        } else {
            false
        }
    }

    fn instants(&self) -> BTreeSet<Timestamp> {
        self.transactions.instants().collect()
    }

    fn at(&self, at: Timestamp) -> Standing {
        let mut books = Balances::default();
        if self.belongs_to.is_some() {
            return books.into();
        }
        for (_, transaction) in self.transactions.up_to(at) {
            book_cash(&mut books, transaction);
            books.credit(counter_account(transaction), transaction.currency, i128::from(transaction.amount));
        }
        books.into()
    }

    fn awaited(&self) -> Vec<Awaited> {
        Vec::new()
    }
}

impl Dependent for OwnBalanceTransaction {
    fn belongs_to(&self) -> Option<&StripeId> {
        self.belongs_to.as_ref()
    }

    /// As the object's own, whoever was taken for its owner before.
    fn handed_on(&self) -> Vec<Event> {
        let Some(owner) = &self.belongs_to else { return Vec::new() };
        let as_its_own = |(_, transaction): (&StripeId, &BalanceTransaction)| {
            BalanceTransactionObserved { owner: owner.clone(), transaction: transaction.clone() }.into()
        };
        self.transactions.all().map(as_its_own).collect()
    }
}

/// What a balance transaction is to the object that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its money moves as it says.
    Movement,
    /// That money comes back.
    Return,
    /// It is the movement of a reversal, and so the return of what is reversed.
    Reversal,
    /// Another part of a charge's money: a capture cut short, what a dispute takes or gives.
    Other,
}

impl Category {
    /// What it is to its object; `None` where it belongs to none and stands in books of its own.
    pub const fn part(self) -> Option<Part> {
        match self {
            Self::Charge | Self::Refund | Self::Payout | Self::Topup | Self::Transfer | Self::PlatformEarning => {
                Some(Part::Movement)
            }
            Self::ChargeFailure | Self::RefundFailure | Self::PayoutReversal | Self::TopupReversal => {
                Some(Part::Return)
            }
            Self::TransferReversal | Self::PlatformEarningRefund => Some(Part::Reversal),
            Self::PartialCaptureReversal | Self::Dispute | Self::DisputeReversal => Some(Part::Other),
            Self::ProductFee
            | Self::DisputeFee
            | Self::PayoutFee
            | Self::FxFee
            | Self::NetworkCost
            | Self::Tax
            | Self::TaxWithholding
            | Self::OtherBalance
            | Self::ConnectCollection
            | Self::ReserveConnect
            | Self::ReserveRisk
            | Self::ReserveNetwork
            | Self::ReserveMinimum
            | Self::CurrencyConversion
            | Self::Financing
            | Self::Contribution
            | Self::UnreconciledCustomerFunds
            | Self::OtherIncome
            | Self::Unknown => None,
        }
    }
}

/// The account that the amount goes to: positive amounts credit it, negative ones debit it.
fn counter_account(transaction: &BalanceTransaction) -> Account {
    match transaction.category {
        Category::ProductFee => Account::ProcessingFees(Processing::Products),
        Category::DisputeFee => Account::DisputeFees,
        Category::PayoutFee => Account::PayoutFees,
        Category::FxFee => Account::ProcessingFees(Processing::Fx),
        Category::NetworkCost => Account::ProcessingFees(Processing::Network),
        Category::Tax => Account::FeeTax,
        Category::TaxWithholding => Account::TaxRecoverable(Jurisdiction::unknown()),
        Category::OtherBalance => Account::StripeOtherBalances,
        Category::Topup | Category::TopupReversal => Account::Bank,
        // Without metadata it is not known whose it is.
        Category::ConnectCollection => Account::Suspense(Suspense::UnknownCreator),
        Category::ReserveConnect => Account::StripeReserved(Reserve::Connect),
        Category::ReserveRisk => Account::StripeReserved(Reserve::Risk),
        Category::ReserveNetwork => Account::StripeReserved(Reserve::Network),
        Category::ReserveMinimum => Account::StripeReserved(Reserve::Minimum),
        Category::CurrencyConversion => Account::EquityFx(transaction.currency),
        Category::Financing => Account::Financing,
        Category::Contribution => Account::Contributions,
        Category::UnreconciledCustomerFunds => Account::Unclaimed,
        Category::OtherIncome => Account::OtherIncome,
        Category::Unknown => Account::Suspense(Suspense::UnknownBalanceTransaction),
        // These belong to an object; one that names none waits for it.
        Category::Charge
        | Category::ChargeFailure
        | Category::PartialCaptureReversal
        | Category::Refund
        | Category::RefundFailure
        | Category::Dispute
        | Category::DisputeReversal
        | Category::Payout
        | Category::PayoutReversal
        | Category::Transfer
        | Category::TransferReversal
        | Category::PlatformEarning
        | Category::PlatformEarningRefund => Account::StripeUnconfirmed,
    }
}
