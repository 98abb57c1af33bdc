//! The tables of the runners, in memory: balances, the inbox, and the translator's graph.
//!
//! The projections proper write SQL and are tested against Postgres; these fold the same events to the same sums, so that what a
//! crash, a gap or a repeated event does to a projection shows as a wrong balance.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use fanledger_commands::stripe::graph::{Graph, GraphError, KnownSource};
use fanledger_commands::stripe::translator;
use fanledger_domain::account::Account;
use fanledger_domain::event::{Event, NotTranslatedReason};
use fanledger_domain::facts::{ConnectedAccountSnapshot, EventStamp};
use fanledger_domain::id::{CreatorId, StripeId};
use fanledger_domain::money::Currency;
use fanledger_domain::payout_run::proposal::PaidAlone;
use fanledger_domain::payout_run::{PayoutLine, PayoutRunId, PayoutRunProposed};
use fanledger_domain::time::Timestamp;

use crate::journal::Recorded;

/// The runners' names, besides those of the managers.
pub(crate) const BALANCES: &str = "balances";
pub(crate) const INBOX: &str = "stripe_inbox";
pub(crate) const PAYOUTS: &str = "payouts";

/// The tables of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tables {
    Balances(Balances),
    Inbox(Inbox),
    Payouts(PayoutBooks),
    Links(Links),
    None,
}

impl Tables {
    /// Those of a new generation.
    pub fn of(runner: &str) -> Self {
        match runner {
            BALANCES => Self::Balances(Balances::default()),
            INBOX => Self::Inbox(Inbox::default()),
            PAYOUTS => Self::Payouts(PayoutBooks::default()),
            translator::NAME => Self::Links(Links::default()),
            _ => Self::None,
        }
    }

    /// Takes in the next event of a projection; a manager's tables are its own affair.
    pub fn fold(&mut self, recorded: &Recorded) -> Result<(), String> {
        match self {
            Self::Balances(balances) => {
                balances.fold(&recorded.event);
                Ok(())
            }
            Self::Inbox(inbox) => inbox.fold(recorded),
            Self::Payouts(payouts) => {
                payouts.fold(&recorded.event);
                Ok(())
            }
            Self::Links(_) | Self::None => Ok(()),
        }
    }
}

/// Sums by account and currency, debits positive.
pub(crate) type Sums = BTreeMap<(Account, Currency), i128>;

/// Sums, and how many entries they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balances {
    pub sums: Sums,
    entries: u64,
}

impl Balances {
    pub fn fold(&mut self, event: &Event) {
        let Event::EntryPosted(entry) = event else { return };
        self.entries += 1;
        for posting in &entry.postings {
            let key = (posting.account.clone(), posting.money.currency());
            *self.sums.entry(key).or_default() += i128::from(posting.signed_minor());
        }
    }
}

/// What a payout run is reckoned from, besides balances: accounts, holds, and how far the runs are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PayoutBooks {
    pub accounts: BTreeMap<StripeId, (EventStamp, ConnectedAccountSnapshot)>,
    pub holds: BTreeSet<CreatorId>,
    pub last_run: Option<PayoutRunId>,
    /// The last run, as it was proposed.
    proposed: Option<PayoutRunProposed>,
    /// Lines of runs that one person proposed and approved, and that have not failed; with when each was sent, if it was.
    pub paid_alone: BTreeMap<(PayoutRunId, u32), (Option<Timestamp>, PaidAlone)>,
}

impl PayoutBooks {
    fn fold(&mut self, event: &Event) {
        if let Event::ConnectedAccountObserved(seen) = event {
            let new = (seen.stamp.clone(), seen.account.clone());
            match self.accounts.entry(seen.account.id.clone()) {
                Entry::Occupied(known) if known.get().0 > new.0 => {}
                Entry::Occupied(mut known) => drop(known.insert(new)),
                Entry::Vacant(unknown) => {
                    unknown.insert(new);
                }
            }
        } else if let Event::CreatorPayoutsHeld(held) = event {
            self.holds.insert(held.creator.clone());
        } else if let Event::CreatorPayoutsResumed(resumed) = event {
            self.holds.remove(&resumed.creator);
        } else if let Event::PayoutRunProposed(proposed) = event {
            self.last_run = self.last_run.max(Some(proposed.run));
            self.proposed = Some(proposed.clone());
        } else if let Event::PayoutRunApproved(approved) = event {
            let proposed = self.proposed.iter().filter(|proposed| proposed.run == approved.run);
            for proposed in proposed.filter(|proposed| proposed.by.is_same_person(&approved.by)) {
                let paid = |line: &PayoutLine| PaidAlone {
                    by: proposed.by.clone(),
                    currency: line.money.currency(),
                    minor: line.money.minor().into(),
                };
                let lines = proposed.lines.iter();
                self.paid_alone.extend(lines.map(|line| ((proposed.run, line.line), (None, paid(line)))));
            }
        } else if let Event::PayoutTransferSent(sent) = event {
            if let Some((at, _)) = self.paid_alone.get_mut(&(sent.run, sent.line)) {
                *at = Some(sent.at);
            }
        } else if let Event::PayoutTransferFailed(failed) = event {
            self.paid_alone.remove(&(failed.run, failed.line));
        }
    }
}

/// What became of one webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Received {
    position: u64,
    facts: u64,
    entries: u64,
    differing_bodies: u64,
    reason: Option<NotTranslatedReason>,
}

/// Every webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inbox {
    rows: BTreeMap<String, Received>,
}

impl Inbox {
    fn fold(&mut self, recorded: &Recorded) -> Result<(), String> {
        match &recorded.event {
            Event::StripeEventReceived(received) => {
                let row = Received { position: recorded.row.position.get(), ..Received::default() };
                let known = self.rows.insert(received.id.to_string(), row);
                return match known {
                    Some(known) => Err(format!("{} is in the inbox already, from {}", received.id, known.position)),
                    None => Ok(()),
                };
            }
            Event::StripeEventBodyDiffered(differed) => {
                self.change(differed.id.as_str(), |row| row.differing_bodies += 1);
            }
            Event::StripeEventNotTranslated(not) => self.change(not.id.as_str(), |row| row.reason = Some(not.reason)),
            Event::ProjectionEventSkipped(_)
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
            | Event::PayoutTransferFailed(_) => {}
            Event::EntryPosted(_) => self.change_cause(recorded, |row| row.entries += 1),
            Event::StripeObjectsLinked(_)
            | Event::AttributionSourceObserved(_)
            | Event::AttributionOffered(_)
            | Event::CreatorAttributed(_)
            | Event::ChargeObserved(_)
            | Event::RefundObserved(_)
            | Event::DisputeObserved(_)
            | Event::BalanceTransactionObserved(_)
            | Event::ChargeReleased(_)
            | Event::TransferObserved(_)
            | Event::PayoutObserved(_)
            | Event::ApplicationFeeObserved(_)
            | Event::TopupObserved(_) => self.change_cause(recorded, |row| row.facts += 1),
        }
        Ok(())
    }

    fn change_cause(&mut self, recorded: &Recorded, change: impl FnOnce(&mut Received)) {
        if let Some(cause) = &recorded.cause {
            self.change(cause, change);
        }
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Received)) {
        if let Some(row) = self.rows.get_mut(id) {
            change(row);
        }
    }

    /// How many webhooks there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

/// The translator's state: see [`translator`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    links: BTreeMap<StripeId, BTreeSet<StripeId>>,
    sources: BTreeMap<StripeId, KnownSource>,
}

/// Nothing here is a step: until the transaction commits, nobody but its runner sees it.
impl Graph for Links {
    async fn expect(&mut self, _objects: &[StripeId]) -> Result<(), GraphError> {
        Ok(())
    }

    async fn link(&mut self, from: &StripeId, to: &StripeId) -> Result<bool, GraphError> {
        let forth = self.links.entry(from.clone()).or_default().insert(to.clone());
        let back = self.links.entry(to.clone()).or_default().insert(from.clone());
        Ok(forth || back)
    }

    async fn neighbours(&mut self, objects: &[StripeId]) -> Result<Vec<StripeId>, GraphError> {
        let found: BTreeSet<&StripeId> = objects.iter().filter_map(|object| self.links.get(object)).flatten().collect();
        Ok(found.into_iter().cloned().collect())
    }

    async fn sources(&mut self, objects: &[StripeId]) -> Result<Vec<(StripeId, KnownSource)>, GraphError> {
        let wanted: BTreeSet<&StripeId> = objects.iter().collect();
        let known = wanted.into_iter().filter_map(|object| Some((object.clone(), self.sources.get(object)?.clone())));
        Ok(known.collect())
    }

    async fn put_source(&mut self, object: &StripeId, source: KnownSource) -> Result<(), GraphError> {
        self.sources.insert(object.clone(), source);
        Ok(())
    }
}
