//! Entries: postings that sum to zero in each currency. Nothing is edited; a correction is a new entry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::facts::PaymentKind;
use crate::id::{CreatorId, EntryId, StripeId};
use crate::manual_entry::ManualEntry;
use crate::money::{Currency, Money};
use crate::payout_run::PayoutRunId;
use crate::time::Timestamp;

/// The largest amount of one posting: what JSON readers everywhere hold exactly.
pub const POSTING_MINOR_MAX: i64 = (1 << 53) - 1;

/// Debit or credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Left; positive in a balance.
    Debit,
    /// Right; negative in a balance.
    Credit,
}

impl Side {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debit => "debit",
            Self::Credit => "credit",
        }
    }
}

/// One line of an entry. `minor` is positive; the side gives the sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Posting {
    /// Where.
    pub account: Account,
    /// Debit or credit.
    pub side: Side,
    /// How much.
    #[serde(flatten)]
    pub money: Money,
}

impl Posting {
    /// The amount as a balance counts it: debits positive, credits negative. In minor units.
    pub const fn signed_minor(&self) -> i64 {
        match self.side {
            Side::Debit => self.money.minor(),
            Side::Credit => -self.money.minor(),
        }
    }
}

/// What led to an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cause {
    /// The object at Stripe whose books changed; or the manual entry, or the payout run.
    pub object: StripeId,
    /// The facts appended by the same command, by type and sequence in the object's stream; none where the books were re-evaluated.
    pub facts: Vec<FactReference>,
    /// The Stripe event that brought those facts; none for a fetched balance transaction or an act of finance.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stripe_event: Option<StripeId>,
    /// The object whose suspense it moves, where that is another than `object`: of an entry that finance made by hand.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clears: Option<StripeId>,
}

impl Cause {
    /// Whether somebody decided the entry: by hand, or by approving a payout run that claims or recovers. All others are what the
    /// books of an object come to, and those take back what no longer holds by themselves.
    pub fn is_decision(&self) -> bool {
        ManualEntry::is_id(&self.object) || self.object.as_str().parse::<PayoutRunId>().is_ok()
    }

    /// The object in whose name money waits, or stops waiting, where the entry moves suspense.
    pub fn suspense_object(&self) -> &StripeId {
        self.clears.as_ref().unwrap_or(&self.object)
    }
}

/// A fact in the stream of an entry's object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FactReference {
    /// Its event type, `RefundObserved`.
    pub event_type: String,
    /// Its sequence in the stream.
    pub sequence: u64,
}

/// A line of a creator's statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StatementLine {
    /// What fans paid, without tax.
    Sales,
    /// The platform's share of it.
    PlatformFees,
    /// The creator's share of what was refunded.
    Refunds,
    /// The creator's share of what was lost in disputes.
    Disputes,
    /// Sent to the creator, less what came back.
    Payouts,
    /// Anything else: entries that finance made by hand.
    Adjustments,
}

impl StatementLine {
    /// All of them, in the order of a statement.
    pub const ALL: [Self; 6] =
        [Self::Sales, Self::PlatformFees, Self::Refunds, Self::Disputes, Self::Payouts, Self::Adjustments];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sales => "sales",
            Self::PlatformFees => "platform_fees",
            Self::Refunds => "refunds",
            Self::Disputes => "disputes",
            Self::Payouts => "payouts",
            Self::Adjustments => "adjustments",
        }
    }

    /// From the word; `None` for one that names no line.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|line| line.as_str() == text)
    }
}

/// What an entry means to a creator. Per creator and currency, an entry's activities add up to what it credits the creator's
/// accounts less what it debits them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Activity {
    /// The creator.
    pub creator: CreatorId,
    /// The line of the statement.
    pub line: StatementLine,
    /// What was paid for, where it is about a payment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<PaymentKind>,
    /// In the creator's favour where positive; in minor units.
    pub minor: i64,
    /// Of `minor`.
    pub currency: Currency,
}

/// The event that posts an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryPosted {
    /// Unique in the journal: object id : sequence of its command's first event : instant.
    pub entry_id: EntryId,
    /// What led to it.
    pub cause: Cause,
    /// One line for people.
    pub description: String,
    /// When it happened at Stripe.
    pub occurred_at: Timestamp,
    /// The same, or the first open instant where that period is closed.
    pub effective_at: Timestamp,
    /// At least two; each currency sums to zero.
    pub postings: Vec<Posting>,
    /// What it means to creators; empty where it touches none of their accounts, or finance made it by hand.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub activity: Vec<Activity>,
}

/// Why an entry was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// One posting moves nothing anywhere.
    #[error("an entry needs at least two postings, this has {0}")]
    TooFewPostings(usize),
    /// Zero, negative or too large.
    #[error("a posting's amount must be from 1 to {POSTING_MINOR_MAX}, this is {0}")]
    Amount(i64),
    /// A currency does not sum to zero.
    #[error("{currency} does not sum to zero: debits minus credits are {difference_minor}")]
    Unbalanced {
        /// Which.
        currency: Currency,
        /// Debits minus credits.
        difference_minor: i128,
    },
}

/// Checks the invariants of an entry's postings.
pub fn check_postings(postings: &[Posting]) -> Result<(), EntryError> {
    if postings.len() < 2 {
        return Err(EntryError::TooFewPostings(postings.len()));
    }
    let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
    for posting in postings {
        if !(1..=POSTING_MINOR_MAX).contains(&posting.money.minor()) {
            return Err(EntryError::Amount(posting.money.minor()));
        }
        *sums.entry(posting.money.currency()).or_default() += i128::from(posting.signed_minor());
    }
    match sums.into_iter().find(|(_, sum)| *sum != 0) {
        Some((currency, difference_minor)) => Err(EntryError::Unbalanced { currency, difference_minor }),
        None => Ok(()),
    }
}

impl EntryPosted {
    /// The same postings with the sides exchanged: what takes this entry back. The new entry has its own id, cause and dates.
    pub fn reversed_postings(&self) -> Vec<Posting> {
        self.postings
            .iter()
            .map(|posting| Posting {
                account: posting.account.clone(),
                side: match posting.side {
                    Side::Debit => Side::Credit,
                    Side::Credit => Side::Debit,
                },
                money: posting.money,
            })
            .collect()
    }
}
