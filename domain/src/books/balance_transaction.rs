//! Balance transactions that belong to no other object of ours: Stripe's own fees, reserves, conversions and the like.

use std::collections::BTreeSet;

use crate::account::{Account, Processing, Reserve, Suspense};
use crate::books::{Awaited, Balances, Books, Transactions, book_cash};
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

    fn at(&self, at: Timestamp) -> Balances {
        let mut books = Balances::default();
        for (_, transaction) in self.transactions.up_to(at) {
            book_cash(&mut books, transaction);
            books.credit(counter_account(transaction), transaction.currency, i128::from(transaction.amount));
        }
        books
    }

    fn awaited(&self) -> Vec<Awaited> {
        Vec::new()
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
