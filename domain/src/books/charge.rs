//! A charge with its refunds, disputes and balance transactions.

use std::collections::{BTreeMap, BTreeSet};

use crate::account::{Account, Bucket, Suspense};
use crate::attribution::Attributable;
use crate::books::{
    Awaited, Balances, Books, Figure, Standing, Transactions, book_cash, close_residuals, confirm, unmatched,
};
use crate::entry::StatementLine;
use crate::event::{CreatorAttributed, Event};
use crate::facts::{
    Attribution, AttributionProblem, BalanceTransaction, Category, ChargeSnapshot, DisputeSnapshot, DisputeStatus,
    EventStamp, Offer, OfferRank, PaymentKind, RefundSnapshot, RefundStatus, SourceOffer,
};
use crate::id::{CreatorId, Jurisdiction, StripeId, StripeKind};
use crate::money::{Currency, Money};
use crate::observations::{ChargePhase, Observations, Snapshot};
use crate::policy::{self, Policy, TaxOnLostDispute};
use crate::split::{BasisPoints, proportion};
use crate::time::Timestamp;

/// What is known of a charge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    charge: Observations<ChargeSnapshot>,
    refunds: BTreeMap<StripeId, Observations<RefundSnapshot>>,
    disputes: BTreeMap<StripeId, Observations<DisputeSnapshot>>,
    transactions: Transactions,
    offers: BTreeMap<(OfferRank, StripeId), (EventStamp, SourceOffer)>,
    /// What finance said last of each creator; the latest of these is its word.
    by_finance: BTreeMap<CreatorId, (Timestamp, Attribution)>,
    released_through: Option<Timestamp>,
}

/// Whose money a charge is, as far as the facts say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Somebody's.
    Creator(Split),
    /// Nobody's yet, with the reason where metadata was there and refused.
    Unattributed(Option<AttributionProblem>),
}

/// How a charge is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The creator.
    pub creator: CreatorId,
    /// What was paid for.
    pub kind: PaymentKind,
    /// The creator's share of the net.
    pub share: BasisPoints,
    /// Tax inside the gross, in minor units of the presentment currency.
    pub tax_minor: i64,
    /// Whose tax.
    pub jurisdiction: Jurisdiction,
}

/// Whether a charge's money counts at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No snapshot of the charge itself is known.
    Unknown,
    /// Under way.
    Processing,
    /// Captured and standing.
    Live,
    /// Authorised only, expired, voided, failed.
    Dead,
}

/// The instant that is asked about, and the policy that the charge is under.
#[derive(Clone, Copy)]
struct When<'a> {
    at: Timestamp,
    policy: &'a Policy,
}

/// What refunds and disputes take back at an instant, in the presentment currency.
#[derive(Clone, Copy, Debug, Default)]
struct Returned {
    /// R: refunds that stand.
    refunded: i128,
    /// L: net withdrawn by disputes that are lost.
    lost: i128,
    /// H: net withdrawn by all other disputes.
    held: i128,
}

/// What of a charge is its creator's, in the settlement currency. The last three are cumulative: lost counts refunded too, and
/// held counts both.
#[derive(Clone, Copy)]
struct OfCreator {
    /// S − Ts.
    sales: i128,
    /// P.
    platform_fees: i128,
    /// α(ρ).
    refunded: i128,
    /// α(λ).
    lost: i128,
    /// α(η).
    held: i128,
}

impl OfCreator {
    /// The balances, and the same money as the creator's statement has it: both come to C − α(λ).
    fn book(self, books: &mut Standing, split: &Split, bucket: Bucket, currency: Currency) {
        let in_bucket = Account::Creator(split.creator.clone(), bucket);
        books.balances.credit(in_bucket, currency, self.sales - self.platform_fees - self.held);
        let in_held = Account::Creator(split.creator.clone(), Bucket::Held);
        books.balances.credit(in_held, currency, self.held - self.lost);
        for (line, minor) in [
            (StatementLine::Sales, self.sales),
            (StatementLine::PlatformFees, -self.platform_fees),
            (StatementLine::Refunds, -self.refunded),
            (StatementLine::Disputes, self.refunded - self.lost),
        ] {
            let creator = split.creator.clone();
            books.activity.add(Figure { creator, currency, line, kind: Some(split.kind) }, minor);
        }
    }
}

impl Books for Charge {
    const STREAM: &'static str = "stripe_charge";

    fn takes(fact: &Event) -> bool {
        matches!(
            fact,
            Event::ChargeObserved(_)
                | Event::RefundObserved(_)
                | Event::DisputeObserved(_)
                | Event::BalanceTransactionObserved(_)
                | Event::AttributionOffered(_)
                | Event::CreatorAttributed(_)
                | Event::ChargeReleased(_)
        )
    }

    fn learn(&mut self, fact: &Event) -> bool {
        match fact {
            Event::ChargeObserved(seen) => self.charge.learn(&seen.stamp, &seen.charge),
            Event::RefundObserved(seen) => {
                self.refunds.entry(seen.refund.id.clone()).or_default().learn(&seen.stamp, &seen.refund)
            }
            Event::DisputeObserved(seen) => {
                self.disputes.entry(seen.dispute.id.clone()).or_default().learn(&seen.stamp, &seen.dispute)
            }
            Event::BalanceTransactionObserved(seen) => self.transactions.learn(&seen.owner, &seen.transaction),
            Event::AttributionOffered(offered) => {
                learn_offer(&mut self.offers, &offered.stamp, &offered.from, &offered.offer)
            }
            Event::CreatorAttributed(attributed) => {
                let CreatorAttributed { at, attribution, .. } = attributed;
                let is_later = self.said_by_finance().is_none_or(|known| known < (*at, attribution));
                if is_later {
                    self.by_finance.insert(attribution.creator.clone(), (*at, attribution.clone()));
                }
                is_later
            }
            Event::ChargeReleased(released) => {
                let earlier = self.released_through.is_none_or(|through| released.through < through);
                if earlier {
                    self.released_through = Some(released.through);
                }
                earlier
            }
            Event::StripeEventReceived(_)
            | Event::StripeEventBodyDiffered(_)
            | Event::StripeEventNotTranslated(_)
            | Event::StripeObjectsLinked(_)
            | Event::AttributionSourceObserved(_)
            | Event::TransferObserved(_)
            | Event::PayoutObserved(_)
            | Event::ApplicationFeeObserved(_)
            | Event::TopupObserved(_)
            | Event::EntryPosted(_)
            | Event::ProjectionEventSkipped(_)
            | Event::StripeEventOpened(_)
            | Event::PeriodClosed(_)
            | Event::PeriodReopened(_)
            | Event::ManualEntryProposed(_)
            | Event::ManualEntryApproved(_)
            | Event::ManualEntryRejected(_)
            | Event::ConnectedAccountObserved(_)
            | Event::CreatorPayoutsHeld(_)
            | Event::CreatorPayoutsResumed(_)
            | Event::PayoutRunProposed(_)
            | Event::PayoutRunApproved(_)
            | Event::PayoutRunCanceled(_)
            | Event::PayoutRunStopped(_)
            | Event::PayoutRunFinished(_)
            | Event::PayoutTransferSent(_)
            | Event::PayoutTransferFailed(_) => false,
        }
    }

    fn instants(&self) -> BTreeSet<Timestamp> {
        let charge = self.charge.instants().chain(self.charge.newest().map(|charge| charge.created));
        let refunds = self
            .refunds
            .values()
            .flat_map(|refund| refund.instants().chain(refund.newest().map(|newest| newest.created)));
        let disputes = self.disputes.values().flat_map(Observations::instants);
        charge.chain(refunds).chain(disputes).chain(self.transactions.instants()).chain(self.released_through).collect()
    }

    fn at(&self, at: Timestamp) -> Standing {
        let charge = self.captured().or(self.charge.newest());
        self.at_under(&policy::in_force(charge.map_or(at, |charge| charge.created)), at)
    }

    fn awaited(&self) -> Vec<Awaited> {
        let charge = self.charge.all().flat_map(|charge| {
            self.transactions
                .missing(&charge.id, [charge.balance_transaction.as_ref(), charge.failure_balance_transaction.as_ref()])
        });
        let refunds = self.refunds.values().flat_map(Observations::all).flat_map(|refund| {
            self.transactions
                .missing(&refund.id, [refund.balance_transaction.as_ref(), refund.failure_balance_transaction.as_ref()])
        });
        let disputes = self
            .disputes
            .values()
            .flat_map(Observations::all)
            .flat_map(|dispute| self.transactions.missing(&dispute.id, [dispute.balance_transaction.as_ref()]));
        let awaited: BTreeSet<Awaited> = charge.chain(refunds).chain(disputes).collect();
        awaited.into_iter().collect()
    }
}

impl Attributable for Charge {
    fn said_by_finance(&self) -> Option<(Timestamp, &Attribution)> {
        self.by_finance.values().max().map(|(at, attribution)| (*at, attribution))
    }

    fn taxable(&self) -> Option<Money> {
        let captured = self.captured().map(|charge| Money::new(charge.amount_captured, charge.currency));
        captured.or_else(|| self.newest().map(|charge| Money::new(charge.amount, charge.currency)))
    }

    fn standing(&self) -> Option<&Attribution> {
        self.said(self.captured().or_else(|| self.newest())).ok().flatten()
    }

    fn agreed_share(&self, creator: &CreatorId) -> Option<BasisPoints> {
        if let Some((_, said)) = self.by_finance.get(creator) {
            return said.share;
        }
        match self.counting(self.captured().or_else(|| self.newest()))? {
            Offer::Valid(attribution) if attribution.creator == *creator => attribution.share,
            Offer::Valid(_) | Offer::Invalid(_) | Offer::Silent => None,
        }
    }

    fn stated_tax(&self) -> Option<i64> {
        self.stated_tax_of(self.taxable()?.minor())
    }
}

/// Takes in an offer where it is newer than the one known of the same object.
pub(crate) fn learn_offer(
    offers: &mut BTreeMap<(OfferRank, StripeId), (EventStamp, SourceOffer)>,
    stamp: &EventStamp,
    from: &StripeId,
    offer: &SourceOffer,
) -> bool {
    let key = (offer.rank, from.clone());
    let new = (stamp.clone(), offer.clone());
    let is_newer = offers.get(&key).is_none_or(|known| *known < new);
    if is_newer {
        offers.insert(key, new);
    }
    is_newer
}

/// Takes in what finance says, where it is later than what finance said before.
pub(crate) fn learn_by_finance(known: &mut Option<(Timestamp, Attribution)>, said: &CreatorAttributed) -> bool {
    let new = (said.at, said.attribution.clone());
    let is_later = known.as_ref().is_none_or(|known| *known < new);
    if is_later {
        *known = Some(new);
    }
    is_later
}

impl Charge {
    /// What stands at `at`, inclusive, under this policy; [`Books::at`] takes the one in force when the charge was made.
    pub fn at_under(&self, policy: &Policy, at: Timestamp) -> Standing {
        let mut books = Standing::default();
        let transactions = self.transactions.up_to(at);
        for (_, transaction) in &transactions {
            book_cash(&mut books.balances, transaction);
        }
        let phase = self.phase_at(at);
        let returned = self.book_returns(&mut books.balances, at, phase, &transactions);
        let settlement = self.book_charge(&mut books, When { at, policy }, phase, returned, &transactions);
        // One currency leaves nothing over, by construction of the lines.
        let presentment = self.charge.newest().map(|charge| charge.currency);
        debug_assert!(
            presentment != settlement
                || settlement.is_none_or(|only| !books.balances.is_only_in(only))
                || books.balances.residuals().is_empty(),
            "one currency, and it does not sum to zero: {books:?}"
        );
        close_residuals(&mut books.balances, settlement);
        books
    }

    /// The snapshot that says what was captured: the newest captured one.
    fn captured(&self) -> Option<&ChargeSnapshot> {
        self.charge.newest_where(|charge| charge.status() == ChargePhase::Captured)
    }

    /// Capture is dated at the charge's `created`; a failure at the event that says so.
    fn phase_at(&self, at: Timestamp) -> Phase {
        let Some(oldest) = self.charge.oldest() else { return Phase::Unknown };
        if at < oldest.created {
            return Phase::Dead;
        }
        let then = self.charge.newest_at(at).map(Snapshot::status);
        if self.captured().is_some() {
            return if then == Some(ChargePhase::Failed) { Phase::Dead } else { Phase::Live };
        }
        match then.unwrap_or(ChargePhase::Pending) {
            ChargePhase::Pending => Phase::Processing,
            ChargePhase::Authorised | ChargePhase::Captured | ChargePhase::Failed => Phase::Dead,
        }
    }

    /// Whose money it is. Finance's word beats metadata; else the first object with a `creator_id`, taken whole. What is left
    /// open there is by policy.
    pub fn owner(&self, charge: &ChargeSnapshot, policy: &Policy) -> Owner {
        let attribution = match self.said(Some(charge)) {
            Ok(Some(attribution)) => attribution.clone(),
            Ok(None) => return Owner::Unattributed(None),
            Err(problem) => return Owner::Unattributed(Some(problem)),
        };
        let tax_minor = attribution.tax_minor.or_else(|| self.stated_tax_of(charge.amount_captured)).unwrap_or(0);
        if tax_minor > charge.amount_captured {
            return Owner::Unattributed(Some(AttributionProblem::TaxAboveCaptured));
        }
        let with_invoice = charge.invoice.is_some() || self.offers.keys().any(|(rank, _)| *rank == OfferRank::Invoice);
        Owner::Creator(Split {
            creator: attribution.creator,
            kind: attribution.kind.unwrap_or(if with_invoice { PaymentKind::Subscription } else { PaymentKind::Tip }),
            share: attribution.share.unwrap_or(policy.creator_share),
            tax_minor,
            jurisdiction: attribution.tax_jurisdiction.unwrap_or_else(Jurisdiction::unknown),
        })
    }

    /// What finance said last, else what the first object that says anything does. The charge itself need not be known yet.
    fn said<'a>(&'a self, charge: Option<&'a ChargeSnapshot>) -> Result<Option<&'a Attribution>, AttributionProblem> {
        if let Some((_, attribution)) = self.said_by_finance() {
            return Ok(Some(attribution));
        }
        match self.counting(charge) {
            Some(Offer::Valid(attribution)) => Ok(Some(attribution)),
            Some(Offer::Invalid(problem)) => Err(*problem),
            Some(Offer::Silent) | None => Ok(None),
        }
    }

    /// What counts of metadata: the first, in the order in which it is looked for, that is not silent. It is taken whole.
    fn counting<'a>(&'a self, charge: Option<&'a ChargeSnapshot>) -> Option<&'a Offer> {
        let others = self.offers.values().map(|(_, offer)| &offer.offer);
        charge.map(|charge| &charge.offer).into_iter().chain(others).find(|offer| **offer != Offer::Silent)
    }

    /// The tax that the invoice states, else the checkout session: of what was captured, where that pays only a part.
    fn stated_tax_of(&self, captured: i64) -> Option<i64> {
        let of = |rank| {
            self.offers
                .iter()
                .filter(move |((known, _), _)| *known == rank)
                .find_map(|(_, (_, offer))| offer.tax_of(captured))
        };
        of(OfferRank::Invoice).or_else(|| of(OfferRank::CheckoutSession))
    }

    /// Whether any snapshot says that it was captured.
    pub fn is_captured(&self) -> bool {
        self.captured().is_some()
    }

    /// The newest snapshot of the charge, for people and for release.
    pub fn newest(&self) -> Option<&ChargeSnapshot> {
        self.charge.newest()
    }

    /// Whether the charge may be released by `through`: captured, not yet released, and all its money available by then, and held for
    /// as long as the policy says that was in force when it was made.
    pub fn is_releasable(&self, through: Timestamp) -> bool {
        let made = self.newest().map_or(through, |charge| charge.created);
        self.is_releasable_under(&policy::in_force(made), through)
    }

    /// The same under this policy.
    pub fn is_releasable_under(&self, policy: &Policy, through: Timestamp) -> bool {
        let mut charge_transactions =
            self.transactions.all().filter(|(_, transaction)| transaction.category == Category::Charge).peekable();
        self.released_through.is_none()
            && self.phase_at(through) == Phase::Live
            && charge_transactions.peek().is_some()
            && charge_transactions.all(|(_, t)| t.available_on.max(policy.held_until(t.created)) <= through)
    }

    /// Refunds and disputes: what they take back, and what their own balance transactions leave open.
    fn book_returns(
        &self,
        books: &mut Balances,
        at: Timestamp,
        phase: Phase,
        transactions: &[(&StripeId, &BalanceTransaction)],
    ) -> Returned {
        let mut returned = Returned::default();
        let of = |object: &StripeId| -> Vec<&BalanceTransaction> {
            transactions
                .iter()
                .filter(|(owner, t)| *owner == object && !is_charge_category(t.category))
                .map(|(_, t)| *t)
                .collect()
        };
        for (id, refund) in &self.refunds {
            let Some(newest) = refund.newest() else { continue };
            let counts = matches!(phase, Phase::Live | Phase::Unknown) && stands(refund, newest, at);
            let amount = if counts { i128::from(newest.amount) } else { 0 };
            returned.refunded += amount;
            if phase == Phase::Unknown {
                books.debit(Account::Suspense(Suspense::UnknownCharge), newest.currency, amount);
            }
            confirm(books, -amount, newest.currency, of(id));
        }
        let mut dispute_ids: BTreeSet<&StripeId> = self.disputes.keys().collect();
        dispute_ids
            .extend(transactions.iter().map(|(owner, _)| *owner).filter(|owner| owner.kind() == StripeKind::Dispute));
        for id in &dispute_ids {
            self.book_dispute(books, at, phase, &mut returned, self.disputes.get(*id), &of(id));
        }
        // What belongs to neither the charge nor a refund or dispute that is known.
        for (owner, transaction) in transactions {
            let is_claimed = is_charge_category(transaction.category)
                || self.refunds.contains_key(*owner)
                || dispute_ids.contains(*owner);
            if !is_claimed {
                unmatched(books, transaction);
            }
        }
        returned
    }

    fn book_dispute(
        &self,
        books: &mut Balances,
        at: Timestamp,
        phase: Phase,
        returned: &mut Returned,
        dispute: Option<&Observations<DisputeSnapshot>>,
        transactions: &[&BalanceTransaction],
    ) {
        // No balance transaction, no money: an inquiry moves none.
        let Some(first) = transactions.iter().find(|transaction| transaction.amount < 0).or(transactions.first())
        else {
            return;
        };
        let newest = dispute.and_then(Observations::newest);
        let status = dispute.and_then(|dispute| dispute.newest_at(at)).map(|snapshot| snapshot.status);
        let own_currency = newest.map_or(first.currency, |snapshot| snapshot.currency);
        let currency = self.captured().map_or(own_currency, |charge| charge.currency);
        let net: i128 =
            -transactions.iter().filter(|t| t.currency == first.currency).map(|t| i128::from(t.amount)).sum::<i128>();
        let reinstated = transactions.iter().any(|transaction| transaction.amount > 0);
        let is_won_back = first.currency != currency && status == Some(DisputeStatus::Won) && reinstated;
        // In the presentment currency.
        let taken = if is_won_back {
            0
        } else if first.currency == currency {
            net
        } else {
            let amount = newest.map_or(0, |snapshot| i128::from(snapshot.amount));
            let withdrawn = i128::from(first.amount).abs();
            let ceiling = if withdrawn == 0 { 0 } else { -(-amount * net).div_euclid(withdrawn) };
            amount.min(ceiling)
        };
        let is_lost = status == Some(DisputeStatus::Lost);
        if is_lost {
            returned.lost += taken.max(0);
            if phase == Phase::Unknown {
                books.debit(Account::Suspense(Suspense::UnknownCharge), currency, taken.max(0));
            } else if phase != Phase::Live {
                books.debit(Account::DisputeLosses, currency, taken.max(0));
            }
        } else {
            returned.held += taken.max(0);
        }
        // Reinstated beyond what was withdrawn (the withdrawal is not here yet) stands against what is held.
        let held = if is_won_back || (is_lost && net > 0) { 0 } else { net };
        books.debit(Account::DisputesHeld, first.currency, held);
    }

    /// The charge itself; gives the settlement currency.
    fn book_charge(
        &self,
        books: &mut Standing,
        when: When<'_>,
        phase: Phase,
        returned: Returned,
        transactions: &[(&StripeId, &BalanceTransaction)],
    ) -> Option<Currency> {
        let own: Vec<&BalanceTransaction> = transactions
            .iter()
            .map(|(_, transaction)| *transaction)
            .filter(|t| is_charge_category(t.category))
            .collect();
        let gross: Vec<&BalanceTransaction> =
            own.iter().copied().filter(|t| t.category != Category::ChargeFailure).collect();
        match (phase, self.captured()) {
            (Phase::Live, Some(charge)) => {
                let settlement = gross.first().map_or(charge.currency, |transaction| transaction.currency);
                let captured = i128::from(charge.amount_captured);
                let settled = if settlement == charge.currency {
                    confirm(&mut books.balances, captured, charge.currency, own);
                    captured
                } else {
                    // Failures that no event has told of yet wait; the rest is S.
                    own.iter()
                        .filter(|t| t.category == Category::ChargeFailure)
                        .for_each(|t| unmatched(&mut books.balances, t));
                    gross.iter().filter(|t| t.currency == settlement).map(|t| i128::from(t.amount)).sum()
                };
                self.book_split(books, when, charge, settlement, settled, returned);
                Some(settlement)
            }
            (Phase::Processing, _) => {
                for transaction in &gross {
                    books.balances.credit(
                        Account::PaymentsProcessing,
                        transaction.currency,
                        i128::from(transaction.amount),
                    );
                }
                own.iter()
                    .filter(|t| t.category == Category::ChargeFailure)
                    .for_each(|t| unmatched(&mut books.balances, t));
                None
            }
            (Phase::Dead, _) => {
                let newest = self.charge.newest()?;
                confirm(&mut books.balances, 0, newest.currency, own);
                gross.first().map(|transaction| transaction.currency)
            }
            (Phase::Live | Phase::Unknown, _) => {
                own.iter().for_each(|transaction| unmatched(&mut books.balances, transaction));
                None
            }
        }
    }

    /// The lines of a live charge, in the settlement currency: what is owed to whom after what was given back.
    fn book_split(
        &self,
        books: &mut Standing,
        when: When<'_>,
        charge: &ChargeSnapshot,
        settlement: Currency,
        settled: i128,
        returned: Returned,
    ) {
        let balances = &mut books.balances;
        let whole = i128::from(charge.amount_captured);
        let value = |part: i128| proportion(settled, part, whole);
        // ρ, λ, η: given back by refunds; with lost disputes; with held ones.
        let refunded = returned.refunded.min(whole);
        let lost = (returned.refunded + returned.lost).min(whole);
        let held = (returned.refunded + returned.lost + returned.held).min(whole);
        balances.debit(Account::DisputeLosses, settlement, value(returned.refunded + returned.lost - lost));
        let split = match self.owner(charge, when.policy) {
            Owner::Unattributed(_) => {
                balances.credit(Account::Suspense(Suspense::Unattributed), settlement, settled - value(lost));
                return;
            }
            Owner::Creator(split) => split,
        };
        let tax_invoiced = i128::from(split.tax_minor);
        let tax = value(tax_invoiced);
        let creator_share = split.share.of(settled - tax);
        let platform_share = settled - tax - creator_share;
        let from_creator = |part: i128| proportion(creator_share, part, whole);
        let from_tax = |part: i128| proportion(tax, part, whole);

        let tax_returned_through = match when.policy.tax_on_lost_dispute {
            TaxOnLostDispute::Return => lost,
            TaxOnLostDispute::Keep => {
                balances.debit(Account::DisputeLosses, settlement, from_tax(lost) - from_tax(refunded));
                refunded
            }
        };
        let tax_owed = tax - from_tax(tax_returned_through);
        if settlement == charge.currency {
            balances.credit(Account::Tax(split.jurisdiction.clone()), settlement, tax_owed);
        } else {
            // Tax is owed as invoiced, in the presentment currency.
            let owed_as_invoiced = tax_invoiced - proportion(tax_invoiced, tax_returned_through, whole);
            balances.credit(Account::Tax(split.jurisdiction.clone()), charge.currency, owed_as_invoiced);
            balances.debit(Account::EquityFx(charge.currency), charge.currency, owed_as_invoiced);
            balances.credit(Account::EquityFx(settlement), settlement, tax_owed);
        }
        let bucket = if self.released_through.is_some_and(|through| through <= when.at) {
            Bucket::Available
        } else {
            Bucket::Pending
        };
        let of_creator = OfCreator {
            sales: settled - tax,
            platform_fees: platform_share,
            refunded: from_creator(refunded),
            lost: from_creator(lost),
            held: from_creator(held),
        };
        of_creator.book(books, &split, bucket, settlement);
        let balances = &mut books.balances;
        balances.credit(Account::PlatformFees, settlement, platform_share);
        balances.debit(Account::Refunds, settlement, value(refunded) - from_creator(refunded) - from_tax(refunded));
        balances.debit(
            Account::Chargebacks,
            settlement,
            (value(lost) - value(refunded))
                - (from_creator(lost) - from_creator(refunded))
                - (from_tax(lost) - from_tax(refunded)),
        );
    }
}

/// Whether a refund counts at `at`: from its `created` until the event that says it failed or was cancelled. One that was only
/// ever seen as failed counted before: money left, and came back.
fn stands(refund: &Observations<RefundSnapshot>, newest: &RefundSnapshot, at: Timestamp) -> bool {
    if at < newest.created {
        return false;
    }
    match refund.newest_at(at) {
        Some(then) => match then.status {
            RefundStatus::Pending | RefundStatus::Succeeded => true,
            RefundStatus::RequiresAction | RefundStatus::Canceled | RefundStatus::Failed => false,
        },
        None => refund.oldest().is_some_and(|oldest| match oldest.status {
            RefundStatus::Pending | RefundStatus::Succeeded | RefundStatus::Failed => true,
            RefundStatus::RequiresAction | RefundStatus::Canceled => false,
        }),
    }
}

fn is_charge_category(category: Category) -> bool {
    matches!(category, Category::Charge | Category::PartialCaptureReversal | Category::ChargeFailure)
}
