//! The platform's own movements: transfers to creators, payouts to the bank, application fees, top-ups.

use std::collections::{BTreeMap, BTreeSet};

use crate::account::{Account, Bucket, Suspense};
use crate::attribution::Attributable;
use crate::books::charge::{learn_by_finance, learn_offer};
use crate::books::{
    Awaited, Balances, Books, Figure, Standing, Transactions, book_cash, close_residuals, confirm, unmatched,
};
use crate::entry::StatementLine;
use crate::event::Event;
use crate::facts::{
    ApplicationFeeSnapshot, Attribution, BalanceTransaction, EventStamp, Offer, OfferRank, PayoutSnapshot,
    PayoutStatus, Reversal, SourceOffer, TopupSnapshot, TopupStatus, TransferSnapshot,
};
use crate::id::{CreatorId, StripeId};
use crate::money::{Currency, Money};
use crate::observations::{Observations, Snapshot};
use crate::time::Timestamp;

type Offers = BTreeMap<(OfferRank, StripeId), (EventStamp, SourceOffer)>;

/// What finance said last, and when.
type ByFinance = Option<(Timestamp, Attribution)>;

/// Whose money a transfer or application fee is: finance's word, else its own metadata, else the owner of the connected account.
fn creator_of(by_finance: &ByFinance, own: &Offer, offers: &Offers) -> Option<CreatorId> {
    if let Some((_, attribution)) = by_finance {
        return Some(attribution.creator.clone());
    }
    std::iter::once(own).chain(offers.values().map(|(_, offer)| &offer.offer)).find_map(|offer| match offer {
        Offer::Silent => None,
        Offer::Invalid(_) => Some(None),
        Offer::Valid(attribution) => Some(Some(attribution.creator.clone())),
    })?
}

/// Sent to the creator; a negative amount came back. As long as it is not known who that is, it waits in suspense.
fn book_sent(books: &mut Standing, creator: Option<CreatorId>, currency: Currency, minor: i128) {
    let Some(creator) = creator else {
        books.balances.debit(Account::Suspense(Suspense::UnknownCreator), currency, minor);
        return;
    };
    books.balances.debit(Account::Creator(creator.clone(), Bucket::Available), currency, minor);
    books.activity.add(Figure { creator, currency, line: StatementLine::Payouts, kind: None }, -minor);
}

/// What was given back of `whole` by `at`: the reversals by id, and what the cumulative amount says beyond them.
struct GivenBack {
    parts: Vec<(StripeId, i128)>,
    beyond: i128,
}

impl GivenBack {
    fn total(&self) -> i128 {
        self.parts.iter().map(|(_, amount)| amount).sum::<i128>() + self.beyond
    }
}

/// Reversals merge by id (the greatest snapshot of each); the cumulative amount never shrinks.
fn given_back<'a>(
    all: impl Iterator<Item = &'a [Reversal]>,
    cumulative: impl Iterator<Item = i64>,
    at: Timestamp,
) -> GivenBack {
    let mut by_id: BTreeMap<&StripeId, &Reversal> = BTreeMap::new();
    for reversal in all.flatten() {
        by_id.entry(&reversal.id).and_modify(|known| *known = (*known).max(reversal)).or_insert(reversal);
    }
    let parts: Vec<(StripeId, i128)> = by_id
        .values()
        .filter(|reversal| reversal.created <= at)
        .map(|reversal| (reversal.id.clone(), i128::from(reversal.amount)))
        .collect();
    let known: i128 = parts.iter().map(|(_, amount)| amount).sum();
    let cumulative = cumulative.map(i128::from).max().unwrap_or(0);
    GivenBack { parts, beyond: (cumulative - known).max(0) }
}

/// Cash of one object and its parts: each part's expected amount against its balance transactions; what belongs to no part waits.
fn book_parts(
    books: &mut Balances,
    currency: Currency,
    parts: &[(StripeId, i128)],
    beyond: i128,
    transactions: &[(&StripeId, &BalanceTransaction)],
) {
    for (_, transaction) in transactions {
        book_cash(books, transaction);
    }
    for (id, expected) in parts {
        confirm(books, *expected, currency, transactions.iter().filter(|(owner, _)| *owner == id).map(|(_, t)| *t));
    }
    confirm(books, beyond, currency, []);
    for (owner, transaction) in transactions {
        if !parts.iter().any(|(id, _)| id == *owner) {
            unmatched(books, transaction);
        }
    }
}

/// Cash of an object that is not known itself.
fn book_alone(transactions: &[(&StripeId, &BalanceTransaction)]) -> Standing {
    let mut books = Balances::default();
    for (_, transaction) in transactions {
        book_cash(&mut books, transaction);
        unmatched(&mut books, transaction);
    }
    books.into()
}

fn instants_of<T: Snapshot>(observations: &Observations<T>, created: Option<Timestamp>) -> BTreeSet<Timestamp> {
    observations.instants().chain(created).collect()
}

/// A transfer to a creator's connected account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    transfer: Observations<TransferSnapshot>,
    transactions: Transactions,
    offers: Offers,
    by_finance: ByFinance,
}

impl Books for Transfer {
    const STREAM: &'static str = "stripe_transfer";

    fn takes(fact: &Event) -> bool {
        is_common(fact) || matches!(fact, Event::TransferObserved(_) | Event::CreatorAttributed(_))
    }

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::TransferObserved(seen) = fact {
            self.transfer.learn(&seen.stamp, &seen.transfer)
        } else if let Event::CreatorAttributed(said) = fact {
            learn_by_finance(&mut self.by_finance, said)
        } else {
            learn_common(&mut self.transactions, &mut self.offers, fact)
        }
    }

    fn instants(&self) -> BTreeSet<Timestamp> {
        let mut instants = instants_of(&self.transfer, self.transfer.newest().map(|transfer| transfer.created));
        instants.extend(
            self.transfer.all().flat_map(|transfer| transfer.reversals.iter().map(|reversal| reversal.created)),
        );
        instants.extend(self.transactions.instants());
        instants
    }

    /// Dr creator available A − B.
    fn at(&self, at: Timestamp) -> Standing {
        let mut books = Standing::default();
        let transactions = self.transactions.up_to(at);
        let Some(newest) = self.transfer.newest().filter(|transfer| transfer.created <= at) else {
            return book_alone(&transactions);
        };
        let back = given_back(
            self.transfer.all().map(|transfer| transfer.reversals.as_slice()),
            self.transfer.up_to(at).map(|transfer| transfer.amount_reversed),
            at,
        );
        let amount = i128::from(newest.amount);
        book_sent(
            &mut books,
            creator_of(&self.by_finance, &newest.offer, &self.offers),
            newest.currency,
            amount - back.total(),
        );
        let mut parts = vec![(newest.id.clone(), -amount)];
        parts.extend(back.parts.iter().cloned());
        book_parts(&mut books.balances, newest.currency, &parts, back.beyond, &transactions);
        close_residuals(&mut books.balances, transactions.first().map(|(_, transaction)| transaction.currency));
        books
    }

    fn awaited(&self) -> Vec<Awaited> {
        let own = self
            .transfer
            .all()
            .flat_map(|transfer| self.transactions.missing(&transfer.id, [transfer.balance_transaction.as_ref()]));
        let parts =
            self.transfer.all().flat_map(|transfer| missing_of_reversals(&self.transactions, &transfer.reversals));
        own.chain(parts).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

macro_rules! attributable {
    ($($object:ident $observations:ident { $($more:tt)* })*) => { $(
        impl Attributable for $object {
            fn said_by_finance(&self) -> Option<(Timestamp, &Attribution)> {
                self.by_finance.as_ref().map(|(at, attribution)| (*at, attribution))
            }

            /// Nobody pays tax by being paid out.
            fn taxable(&self) -> Option<Money> {
                self.$observations.newest().map(|newest| Money::new(0, newest.currency))
            }

            $($more)*
        }
    )* };
}

attributable! {
    Transfer transfer {
        fn stated(&self) -> Option<CreatorId> {
            creator_of(&None, &self.transfer.newest()?.offer, &self.offers)
        }
    }
    ApplicationFee fee {
        fn stated(&self) -> Option<CreatorId> {
            creator_of(&None, &Offer::Silent, &self.offers)
        }
    }
}

fn missing_of_reversals(transactions: &Transactions, reversals: &[Reversal]) -> Vec<Awaited> {
    reversals
        .iter()
        .flat_map(|reversal| transactions.missing(&reversal.id, [reversal.balance_transaction.as_ref()]))
        .collect()
}

/// What [`learn_common`] takes in.
const fn is_common(fact: &Event) -> bool {
    matches!(fact, Event::BalanceTransactionObserved(_) | Event::AttributionOffered(_))
}

fn learn_common(transactions: &mut Transactions, offers: &mut Offers, fact: &Event) -> bool {
    if let Event::BalanceTransactionObserved(seen) = fact {
        transactions.learn(&seen.owner, &seen.transaction)
    } else if let Event::AttributionOffered(offered) = fact {
        learn_offer(offers, &offered.stamp, &offered.from, &offered.offer)
    } else {
        false
    }
}

/// A payout of the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payout {
    payout: Observations<PayoutSnapshot>,
    transactions: Transactions,
}

impl Books for Payout {
    const STREAM: &'static str = "stripe_payout";

    fn takes(fact: &Event) -> bool {
        is_common(fact) || matches!(fact, Event::PayoutObserved(_))
    }

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::PayoutObserved(seen) = fact {
            self.payout.learn(&seen.stamp, &seen.payout)
        } else {
            learn_common(&mut self.transactions, &mut Offers::default(), fact)
        }
    }

    fn instants(&self) -> BTreeSet<Timestamp> {
        let mut instants = instants_of(&self.payout, self.payout.newest().map(|payout| payout.created));
        instants.extend(self.transactions.instants());
        instants
    }

    /// Pending or in transit: Dr in-transit; paid: Dr bank; failed or cancelled, also after paid: neither.
    fn at(&self, at: Timestamp) -> Standing {
        let mut books = Balances::default();
        let transactions = self.transactions.up_to(at);
        let Some(newest) = self.payout.newest().filter(|payout| payout.created <= at) else {
            return book_alone(&transactions);
        };
        let status = self.payout.newest_at(at).map_or(PayoutStatus::Pending, |then| then.status);
        let amount = i128::from(newest.amount);
        let moved = match status {
            PayoutStatus::Pending | PayoutStatus::InTransit => {
                books.debit(Account::PayoutsInTransit, newest.currency, amount);
                amount
            }
            PayoutStatus::Paid => {
                books.debit(Account::Bank, newest.currency, amount);
                amount
            }
            PayoutStatus::Canceled | PayoutStatus::Failed => 0,
        };
        book_parts(&mut books, newest.currency, &[(newest.id.clone(), -moved)], 0, &transactions);
        close_residuals(&mut books, transactions.first().map(|(_, transaction)| transaction.currency));
        books.into()
    }

    fn awaited(&self) -> Vec<Awaited> {
        self.payout
            .all()
            .flat_map(|payout| {
                self.transactions.missing(
                    &payout.id,
                    [payout.balance_transaction.as_ref(), payout.failure_balance_transaction.as_ref()],
                )
            })
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

/// An application fee.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationFee {
    fee: Observations<ApplicationFeeSnapshot>,
    transactions: Transactions,
    offers: Offers,
    by_finance: ByFinance,
}

impl Books for ApplicationFee {
    const STREAM: &'static str = "stripe_application_fee";

    fn takes(fact: &Event) -> bool {
        is_common(fact) || matches!(fact, Event::ApplicationFeeObserved(_) | Event::CreatorAttributed(_))
    }

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::ApplicationFeeObserved(seen) = fact {
            self.fee.learn(&seen.stamp, &seen.fee)
        } else if let Event::CreatorAttributed(said) = fact {
            learn_by_finance(&mut self.by_finance, said)
        } else {
            learn_common(&mut self.transactions, &mut self.offers, fact)
        }
    }

    fn instants(&self) -> BTreeSet<Timestamp> {
        let mut instants = instants_of(&self.fee, self.fee.newest().map(|fee| fee.created));
        instants.extend(self.fee.all().flat_map(|fee| fee.refunds.iter().map(|refund| refund.created)));
        instants.extend(self.transactions.instants());
        instants
    }

    /// Cr platform-fees A, Dr income:refunds B. Of a destination charge the whole was transferred out, so the fee comes back out
    /// of the creator's money: Cr creator available A − B, and so much less was sent to the creator.
    fn at(&self, at: Timestamp) -> Standing {
        let mut books = Standing::default();
        let transactions = self.transactions.up_to(at);
        let Some(newest) = self.fee.newest().filter(|fee| fee.created <= at) else {
            return book_alone(&transactions);
        };
        let back = given_back(
            self.fee.all().map(|fee| fee.refunds.as_slice()),
            self.fee.up_to(at).map(|fee| fee.amount_refunded),
            at,
        );
        let amount = i128::from(newest.amount);
        if self.fee.all().any(|fee| fee.originating_transaction.is_some()) {
            book_sent(
                &mut books,
                creator_of(&self.by_finance, &Offer::Silent, &self.offers),
                newest.currency,
                back.total() - amount,
            );
        } else {
            books.balances.credit(Account::PlatformFees, newest.currency, amount);
            books.balances.debit(Account::Refunds, newest.currency, back.total());
        }
        let mut parts = vec![(newest.id.clone(), amount)];
        parts.extend(back.parts.iter().map(|(id, refunded)| (id.clone(), -refunded)));
        book_parts(&mut books.balances, newest.currency, &parts, -back.beyond, &transactions);
        close_residuals(&mut books.balances, transactions.first().map(|(_, transaction)| transaction.currency));
        books
    }

    fn awaited(&self) -> Vec<Awaited> {
        let own = self.fee.all().flat_map(|fee| self.transactions.missing(&fee.id, [fee.balance_transaction.as_ref()]));
        let parts = self.fee.all().flat_map(|fee| missing_of_reversals(&self.transactions, &fee.refunds));
        own.chain(parts).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// A top-up of the platform's balance from its bank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topup {
    topup: Observations<TopupSnapshot>,
    transactions: Transactions,
}

impl Books for Topup {
    const STREAM: &'static str = "stripe_topup";

    fn takes(fact: &Event) -> bool {
        is_common(fact) || matches!(fact, Event::TopupObserved(_))
    }

    fn learn(&mut self, fact: &Event) -> bool {
        if let Event::TopupObserved(seen) = fact {
            self.topup.learn(&seen.stamp, &seen.topup)
        } else {
            learn_common(&mut self.transactions, &mut Offers::default(), fact)
        }
    }

    fn instants(&self) -> BTreeSet<Timestamp> {
        let mut instants = instants_of(&self.topup, self.topup.newest().map(|topup| topup.created));
        instants.extend(self.transactions.instants());
        instants
    }

    /// Balance transactions are against the bank, whatever the object says; an object that succeeded without one stands in unconfirmed.
    fn at(&self, at: Timestamp) -> Standing {
        let mut books = Balances::default();
        let transactions = self.transactions.up_to(at);
        for (_, transaction) in &transactions {
            book_cash(&mut books, transaction);
            books.credit(Account::Bank, transaction.currency, i128::from(transaction.amount));
        }
        let succeeded =
            self.topup.newest_at(at).filter(|topup| topup.created <= at && topup.status == TopupStatus::Succeeded);
        if let Some(topup) = succeeded.filter(|_| transactions.is_empty()) {
            books.debit(Account::StripeUnconfirmed, topup.currency, i128::from(topup.amount));
            books.credit(Account::Bank, topup.currency, i128::from(topup.amount));
        }
        books.into()
    }

    fn awaited(&self) -> Vec<Awaited> {
        self.topup
            .all()
            .flat_map(|topup| self.transactions.missing(&topup.id, [topup.balance_transaction.as_ref()]))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}
