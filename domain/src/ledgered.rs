//! The aggregate behind every object that moves money: it collects facts and posts the difference.
//!
//! When a fact arrives, one command appends to the object's own stream the fact and one entry for each instant at which
//! [`Books::at`] differs from what was posted by then, in balances or in what they are to creators. No difference, no entry. So
//! the final books at every instant are a function of the set of facts, and neither order nor duplicates can matter.

use std::collections::{BTreeMap, BTreeSet};

use crate::account::{Account, Bucket};
use crate::books::{Activities, Books, Standing};
use crate::entry::{
    Activity, Cause, EntryError, EntryPosted, FactReference, POSTING_MINOR_MAX, Posting, Side, check_postings,
};
use crate::event::{ChargeReleased, Event};
use crate::id::{EntryId, IdError, StripeId};
use crate::money::{Currency, Money};
use crate::period::FirstOpen;
use crate::time::Timestamp;

/// What may be asked of an object that moves money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerCommand {
    /// Take in facts, from one Stripe event or from none.
    Learn {
        /// The facts; those already known lead to nothing.
        facts: Vec<Event>,
        /// The Stripe event that brought them.
        stripe_event: Option<StripeId>,
    },
    /// Post what the books, as they are computed today, differ by from what was posted.
    Converge,
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The entry would break an invariant.
    #[error("the books of {object} at {at} cannot be posted")]
    Entry {
        /// The object.
        object: StripeId,
        /// The instant of occurrence.
        at: Timestamp,
        /// What is wrong.
        #[source]
        source: EntryError,
    },
    /// An amount that no posting can hold.
    #[error("the books of {object} at {at} hold {minor} minor units, more than a posting can")]
    TooLarge {
        /// The object.
        object: StripeId,
        /// The instant of occurrence.
        at: Timestamp,
        /// The amount.
        minor: i128,
    },
    /// A fact of another kind of object came under this one's id: an id with a prefix that does not fit.
    #[error("{object} is none that learns {fact}: its id has the prefix of another kind of object")]
    Foreign {
        /// The object.
        object: StripeId,
        /// The type of the fact.
        fact: &'static str,
    },
    /// The object's id is too long to name an entry by.
    #[error("no entry id can be made for {object}")]
    EntryId {
        /// The object.
        object: StripeId,
        /// What is wrong.
        #[source]
        source: IdError,
    },
}

/// An object's facts, and what was posted for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledgered<B> {
    books: B,
    /// The sum of its own entries, by instant of occurrence.
    posted: BTreeMap<Timestamp, Standing>,
    sequence: u64,
}

impl<B: Books> Ledgered<B> {
    /// The facts.
    pub const fn books(&self) -> &B {
        &self.books
    }

    /// The sequence of the last event of the stream.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What was posted by `at`.
    pub fn posted_at(&self, at: Timestamp) -> Standing {
        let mut sum = Standing::default();
        self.posted.range(..=at).for_each(|(_, posted)| sum.add(posted));
        sum
    }

    /// The events that `command` leads to, where the book is open from `first_open` on; none where nothing is new.
    pub fn decide(
        &self,
        object: &StripeId,
        command: LedgerCommand,
        first_open: FirstOpen,
    ) -> Result<Vec<Event>, LedgerError> {
        match command {
            LedgerCommand::Learn { facts, stripe_event } => {
                if let Some(foreign) = facts.iter().find(|fact| !B::takes(fact)) {
                    return Err(LedgerError::Foreign { object: object.clone(), fact: foreign.type_name() });
                }
                let mut books = self.books.clone();
                let news: Vec<Event> = facts.into_iter().filter(|fact| books.learn(fact)).collect();
                if news.is_empty() {
                    return Ok(news);
                }
                let entries = self.entries(object, &books, &news, stripe_event, first_open)?;
                Ok(news.into_iter().chain(entries).collect())
            }
            LedgerCommand::Converge => self.entries(object, &self.books, &[], None, first_open),
        }
    }

    /// Takes in an event of the stream.
    pub fn evolve(&mut self, event: &Event) {
        self.sequence += 1;
        if let Event::EntryPosted(entry) = event {
            self.posted.entry(entry.occurred_at).or_default().post(entry);
        } else {
            self.books.learn(event);
        }
    }

    fn entries(
        &self,
        object: &StripeId,
        books: &B,
        news: &[Event],
        stripe_event: Option<StripeId>,
        first_open: FirstOpen,
    ) -> Result<Vec<Event>, LedgerError> {
        let first_sequence = self.sequence + 1;
        let facts: Vec<FactReference> = (first_sequence..)
            .zip(news)
            .map(|(sequence, fact)| FactReference { event_type: fact.type_name().to_owned(), sequence })
            .collect();
        let description = describe(object, news);
        let instants: BTreeSet<Timestamp> = books.instants().into_iter().chain(self.posted.keys().copied()).collect();
        let mut entries = Vec::new();
        let mut before = Standing::default();
        for at in instants {
            let standing = books.at(at);
            debug_assert!(standing.unexplained().is_empty(), "a statement that is not the balances': {standing:?}");
            let mut difference = standing.clone();
            difference.subtract(&before);
            if let Some(posted) = self.posted.get(&at) {
                difference.subtract(posted);
            }
            before = standing;
            if difference.is_empty() {
                continue;
            }
            let mut description = description.clone();
            if difference.balances.is_empty() {
                description.push_str("; restated, no balance moves");
            }
            let postings = postings(object, at, &difference)?;
            let activity = activity(object, at, &difference.activity)?;
            let entry_id: EntryId = format!("{object}:{first_sequence}:{}", at.compact())
                .parse()
                .map_err(|source| LedgerError::EntryId { object: object.clone(), source })?;
            entries.push(Event::EntryPosted(EntryPosted {
                entry_id,
                cause: Cause {
                    object: object.clone(),
                    facts: facts.clone(),
                    stripe_event: stripe_event.clone(),
                    clears: None,
                },
                description,
                occurred_at: at,
                effective_at: first_open.effective(at),
                postings,
                activity,
            }));
        }
        Ok(entries)
    }
}

impl Ledgered<crate::books::charge::Charge> {
    /// Releases the charge's money through a date, where all of it is available by then and it was not released before.
    pub fn decide_release(
        &self,
        object: &StripeId,
        through: Timestamp,
        first_open: FirstOpen,
    ) -> Result<Vec<Event>, LedgerError> {
        if !self.books.is_releasable(through) {
            return Ok(Vec::new());
        }
        let facts = vec![ChargeReleased { through }.into()];
        self.decide(object, LedgerCommand::Learn { facts, stripe_event: None }, first_open)
    }
}

fn postings(object: &StripeId, at: Timestamp, difference: &Standing) -> Result<Vec<Posting>, LedgerError> {
    let lines: Vec<(Account, Currency, i128)> = if difference.balances.is_empty() {
        restatement(&difference.activity)
    } else {
        difference.balances.iter().map(|(account, currency, minor)| (account.clone(), currency, minor)).collect()
    };
    let postings = lines
        .into_iter()
        .map(|(account, currency, minor)| {
            let side = if minor > 0 { Side::Debit } else { Side::Credit };
            let magnitude =
                i64::try_from(minor.abs()).map_err(|_| LedgerError::TooLarge { object: object.clone(), at, minor })?;
            Ok(Posting { account, side, money: Money::new(magnitude, currency) })
        })
        .collect::<Result<Vec<_>, LedgerError>>()?;
    check_postings(&postings).map_err(|source| LedgerError::Entry { object: object.clone(), at, source })?;
    Ok(postings)
}

/// Only what creators' balances are made of has changed: an invoice says that it was no tip. An entry has postings, so each
/// creator's `pending` is debited and credited with what is restated.
fn restatement(activity: &Activities) -> Vec<(Account, Currency, i128)> {
    let mut moved: BTreeMap<(Account, Currency), (i128, i128)> = BTreeMap::new();
    for (figure, minor) in activity.iter() {
        let account = Account::Creator(figure.creator.clone(), Bucket::Pending);
        let (into, out_of) = moved.entry((account, figure.currency)).or_default();
        *into += minor.max(0);
        *out_of -= minor.min(0);
    }
    moved
        .into_iter()
        .flat_map(|((account, currency), (into, out_of))| {
            let minor = into.max(out_of);
            [(account.clone(), currency, minor), (account, currency, -minor)]
        })
        .collect()
}

fn activity(object: &StripeId, at: Timestamp, difference: &Activities) -> Result<Vec<Activity>, LedgerError> {
    difference
        .iter()
        .map(|(figure, minor)| {
            let fits = i64::try_from(minor).ok().filter(|minor| minor.abs() <= POSTING_MINOR_MAX);
            Ok(Activity {
                creator: figure.creator.clone(),
                line: figure.line,
                kind: figure.kind,
                minor: fits.ok_or_else(|| LedgerError::TooLarge { object: object.clone(), at, minor })?,
                currency: figure.currency,
            })
        })
        .collect()
}

/// One line for people: the object and what became known of it.
fn describe(object: &StripeId, news: &[Event]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for fact in news {
        let part = match fact {
            Event::ChargeObserved(seen) => format!("charge {}", seen.charge.status.as_str()),
            Event::RefundObserved(seen) => format!("refund {} {}", seen.refund.id, seen.refund.status.as_str()),
            Event::DisputeObserved(seen) => format!("dispute {} {}", seen.dispute.id, seen.dispute.status.as_str()),
            Event::BalanceTransactionObserved(seen) => format!("balance transaction {}", seen.transaction.id),
            Event::AttributionOffered(offered) => format!("attribution by {}", offered.from),
            Event::CreatorAttributed(attributed) => {
                format!("attributed to {} by finance", attributed.attribution.creator)
            }
            Event::ChargeReleased(released) => format!("released through {}", released.through),
            Event::TransferObserved(seen) => format!("transfer, {} reversed", seen.transfer.amount_reversed),
            Event::PayoutObserved(seen) => format!("payout {}", seen.payout.status.as_str()),
            Event::ApplicationFeeObserved(seen) => format!("application fee, {} refunded", seen.fee.amount_refunded),
            Event::TopupObserved(seen) => format!("top-up {}", seen.topup.status.as_str()),
            Event::StripeObjectsLinked(link) => format!("belongs to {}", link.to),
            Event::StripeEventReceived(_)
            | Event::StripeEventBodyDiffered(_)
            | Event::StripeEventNotTranslated(_)
            | Event::AttributionSourceObserved(_)
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
            | Event::PayoutTransferFailed(_) => fact.type_name().to_owned(),
        };
        // An invoice says two things, by its own metadata and by its subscription's; that it did is news once.
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    if parts.is_empty() { format!("{object}: books re-evaluated") } else { format!("{object}: {}", parts.join(", ")) }
}
