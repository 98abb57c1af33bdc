//! Balance transactions that belong to no other object of ours: Stripe's own fees, reserves, conversions and the like.

use std::collections::BTreeSet;

use crate::account::{Account, Processing, Reserve, Suspense};
use crate::books::{Awaited, Balances, Books, Standing, Transactions, book_cash};
use crate::event::Event;
use crate::facts::{BalanceTransaction, Category};
use crate::id::Jurisdiction;
use crate::time::Timestamp;

/// What is known of one balance transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnBalanceTransaction {
    transactions: Transactions,
}

impl Books for OwnBalanceTransaction {
    const STREAM: &'static str = "stripe_balance_transaction";

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::BalanceTransactionObserved(seen) = fact {
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
