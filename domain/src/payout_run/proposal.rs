//! Who gets how much: a pure function of what the books say at one position, of the accounts that are known, and of the holds.

use std::collections::BTreeMap;

use crate::entry::POSTING_MINOR_MAX;
use crate::facts::ConnectedAccountSnapshot;
use crate::id::{CreatorId, StripeId, Subject};
use crate::money::{Currency, Money};
use crate::payout_run::{PayoutLine, PayoutRecovery, PayoutWithheld, Recovery, Withheld};
use crate::policy::Policy;

/// Transfers of one run. Stripe takes 100 writes a second in live mode and 25 in test mode, so a full run is sent within a
/// minute; and its event stays far below what one append takes.
pub const LINES_MAX: usize = 500;
/// Claims and recoveries of one run: each is an entry of the approval's command.
pub const RECOVERIES_MAX: usize = 1_000;
/// Of those left out as many are named in the event; the rest are counted.
pub const WITHHELD_MAX: usize = 1_000;

/// What the books owe one creator in one currency, in minor units, and how the creator can be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payable {
    /// The creator.
    pub creator: CreatorId,
    /// The currency.
    pub currency: Currency,
    /// Earned and not yet releasable; negative where more went back than is pending.
    pub pending: i128,
    /// May be paid out; negative where money went back after it was paid.
    pub available: i128,
    /// Frozen by disputes.
    pub held: i128,
    /// Owed by the creator.
    pub receivable: i128,
    /// The connected accounts that say they are the creator's, as they looked last.
    pub accounts: Vec<ConnectedAccountSnapshot>,
    /// Finance holds the creator's payouts.
    pub on_hold: bool,
}

/// A run as it would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// The transfers, by creator and currency.
    pub lines: Vec<PayoutLine>,
    /// What creators owe.
    pub recoveries: Vec<PayoutRecovery>,
    /// Who is left out, the first [`WITHHELD_MAX`].
    pub withheld: Vec<PayoutWithheld>,
    /// How many are left out.
    pub withheld_count: u32,
}

/// What one person paid out of one currency by runs that they proposed and approved themselves, since [`Policy::alone_since`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidAlone {
    /// Who.
    pub by: Subject,
    /// Of which currency.
    pub currency: Currency,
    /// How much, in minor units; without what was refused.
    pub minor: i128,
}

impl PaidAlone {
    /// What `by` paid out, by currency.
    pub fn of(by: &Subject, paid: &[Self]) -> BTreeMap<Currency, i128> {
        let mut sums = BTreeMap::new();
        for paid in paid.iter().filter(|paid| paid.by.is_same_person(by)) {
            *sums.entry(paid.currency).or_default() += paid.minor;
        }
        sums
    }
}

impl Proposal {
    /// Whether there is nothing to do: nobody is paid, nothing is claimed or recovered.
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.recoveries.is_empty()
    }

    /// What its transfers add up to, by currency.
    pub fn totals(&self) -> BTreeMap<Currency, i128> {
        totals(&self.lines)
    }

    /// Whether it moves more of a currency than one person may, together with what the proposer paid out alone of late
    /// ([`PaidAlone::of`]): whoever pays much by many small runs needs a second person too.
    pub fn needs_approval(&self, paid_before: &BTreeMap<Currency, i128>, policy: &Policy) -> bool {
        let before = |currency: Currency| paid_before.get(&currency).copied().unwrap_or_default();
        let limit = |currency| i128::from(policy.approval_above(currency).minor());
        self.totals().into_iter().any(|(currency, total)| total + before(currency) > limit(currency))
    }

    fn withhold(&mut self, payable: &Payable, available: i128, reason: Withheld) {
        self.withheld_count = self.withheld_count.saturating_add(1);
        if self.withheld.len() < WITHHELD_MAX {
            let money = Money::new(sendable(available), payable.currency);
            self.withheld.push(PayoutWithheld { creator: payable.creator.clone(), money, reason });
        }
    }

    /// False where the run holds no more.
    fn recover(&mut self, payable: &Payable, recovery: Recovery, minor: i128) -> bool {
        if self.recoveries.len() == RECOVERIES_MAX {
            return false;
        }
        let money = Money::new(sendable(minor), payable.currency);
        self.recoveries.push(PayoutRecovery { creator: payable.creator.clone(), recovery, money });
        true
    }
}

/// What lines add up to, by currency.
pub fn totals(lines: &[PayoutLine]) -> BTreeMap<Currency, i128> {
    let mut totals = BTreeMap::new();
    for line in lines {
        *totals.entry(line.money.currency()).or_default() += i128::from(line.money.minor());
    }
    totals
}

/// At most what one posting holds. More than that is nobody's balance; what is beyond it would stay for the next run.
pub(super) fn sendable(minor: i128) -> i64 {
    i64::try_from(minor).map_or(POSTING_MINOR_MAX, |minor| minor.min(POSTING_MINOR_MAX))
}

/// Per creator and currency: a negative available is claimed; what is owed is recovered; of the rest, less what pending lacks,
/// what Stripe can send is sent.
pub fn propose(payables: &[Payable], policy: &Policy) -> Proposal {
    let mut sorted: Vec<&Payable> = payables.iter().collect();
    sorted.sort_by(|a, b| (&a.creator, a.currency).cmp(&(&b.creator, b.currency)));
    let mut proposal = Proposal::default();
    for payable in sorted {
        if payable.available < 0 {
            // Where it does not fit it is negative still when the next run is reckoned.
            proposal.recover(payable, Recovery::Claimed, -payable.available);
            continue;
        }
        let recovered = payable.available.min(payable.receivable).max(0);
        let rest = payable.available - recovered;
        if recovered > 0 && !proposal.recover(payable, Recovery::Recovered, recovered) {
            proposal.withhold(payable, rest, Withheld::RunFull);
            continue;
        }
        if rest == 0 {
            continue;
        }
        match destination(payable, rest, policy) {
            Err(reason) => proposal.withhold(payable, rest, reason),
            Ok(_) if proposal.lines.len() == LINES_MAX => proposal.withhold(payable, rest, Withheld::RunFull),
            Ok((destination, money)) => {
                let line = u32::try_from(proposal.lines.len()).map_or(u32::MAX, |lines| lines + 1);
                let creator = payable.creator.clone();
                proposal.lines.push(PayoutLine { line, creator, destination: destination.clone(), money });
            }
        }
    }
    proposal
}

/// Where a creator's money goes and how much of it, or why none does. `rest` is available and not owed.
fn destination<'a>(payable: &'a Payable, rest: i128, policy: &Policy) -> Result<(&'a StripeId, Money), Withheld> {
    if payable.on_hold {
        return Err(Withheld::Held);
    }
    let payable_minor = rest + payable.pending.min(0);
    if payable_minor <= 0 {
        return Err(Withheld::PendingNegative);
    }
    let money = Money::new(sendable(payable_minor), payable.currency).round_to_payable();
    // Nothing is sent of less than the least that Stripe takes, whatever the policy's minimum is.
    if money.minor() <= 0 || money.minor() < policy.payout_minimum(payable.currency).minor() {
        return Err(Withheld::BelowMinimum);
    }
    match payable.accounts.as_slice() {
        [] => Err(Withheld::NoAccount),
        [account] if account.is_payable() => Ok((&account.id, money)),
        [_] => Err(Withheld::AccountRestricted),
        _ => Err(Withheld::SeveralAccounts),
    }
}
