//! Paying creators: who may be paid, runs of transfers, and what became of each.
//!
//! Read in this order: the events, here; [`proposal`], the pure function that says who gets how much; [`run`], [`line`] and
//! [`hold`], the aggregates that decide.
//!
//! Streams: `stripe_account/acct_…` (who may be paid), `creator_payouts/crt_…` (holds), `payout_run/por_<n>` with n = 1, 2, …,
//! `payout_line/prl_<n>_<line>` (one transfer).
//!
//! Invariants:
//! - One run is open at a time, and the next is reckoned from books that hold everything that the one before sent.
//! - A line ends once: sent or failed.
//! - Nothing here looks at a balance but [`proposal::propose`]; what it read, and as of which position, is in the event.

pub mod hold;
pub mod line;
pub mod proposal;
pub mod run;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::payload;
use crate::facts::{ConnectedAccountSnapshot, EventStamp};
use crate::id::{CreatorId, IdError, StripeId, Subject};
use crate::money::Money;
use crate::time::Timestamp;

/// The number of a run; as text, `por_1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct PayoutRunId(u64);

impl PayoutRunId {
    /// The first run of all.
    pub const FIRST: Self = Self(1);

    /// The run of this number, from 1.
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The run after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The run before it; none before the first.
    pub const fn previous(self) -> Option<Self> {
        Self::new(self.0 - 1)
    }

    /// The id of the stream of one of its lines; also what its transfer is known by at Stripe.
    pub fn line(self, line: u32) -> String {
        format!("prl_{}_{line}", self.0)
    }
}

impl fmt::Display for PayoutRunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "por_{}", self.0)
    }
}

impl FromStr for PayoutRunId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        // One writing for each: no sign, no leading zero.
        let digits = text.strip_prefix("por_").filter(|digits| !digits.starts_with(['0', '+']));
        let number = digits.and_then(|digits| digits.parse().ok()).and_then(Self::new);
        number.ok_or(IdError { kind: "payout run", form: "por_ and its number, such as por_1" })
    }
}

impl TryFrom<String> for PayoutRunId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<PayoutRunId> for String {
    fn from(id: PayoutRunId) -> Self {
        id.to_string()
    }
}

payload! {
    /// A snapshot of a connected account, as far as paying it goes.
    pub struct ConnectedAccountObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub account: ConnectedAccountSnapshot,
    }
}

payload! {
    /// Nothing is paid to this creator until it is said again.
    pub struct CreatorPayoutsHeld {
        /// The creator.
        pub creator: CreatorId,
        /// When.
        pub at: Timestamp,
        /// Who said so.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}

payload! {
    /// The creator is paid again.
    pub struct CreatorPayoutsResumed {
        /// The creator.
        pub creator: CreatorId,
        /// When.
        pub at: Timestamp,
        /// Who said so.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}

/// Why a creator with money available is not in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Withheld {
    /// Finance holds it.
    Held,
    /// What is pending is negative and eats what is available.
    PendingNegative,
    /// Less than the least that is sent.
    BelowMinimum,
    /// No connected account is known to be the creator's.
    NoAccount,
    /// More than one connected account says that it is the creator's.
    SeveralAccounts,
    /// Stripe does not allow transfers to the account, does not pay it out, or wants something of its owner first.
    AccountRestricted,
    /// The run was full; the next one takes it.
    RunFull,
}

impl Withheld {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::PendingNegative => "pending_negative",
            Self::BelowMinimum => "below_minimum",
            Self::NoAccount => "no_account",
            Self::SeveralAccounts => "several_accounts",
            Self::AccountRestricted => "account_restricted",
            Self::RunFull => "run_full",
        }
    }
}

/// In which way money moves between what a creator may be paid and what a creator owes. Neither changes what is owed in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// What is available was negative: from now on the creator owes it. Dr receivable, Cr available.
    Claimed,
    /// What is owed is taken out of what is available, before anything is paid. Dr available, Cr receivable.
    Recovered,
}

impl Recovery {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Recovered => "recovered",
        }
    }
}

payload! {
    /// A run as it is proposed: who gets how much, and who does not, and why.
    pub struct PayoutRunProposed {
        /// The run.
        pub run: PayoutRunId,
        /// The position of the journal whose balances it was reckoned from.
        pub as_of_position: u64,
        /// When.
        pub at: Timestamp,
        /// Who proposed it.
        pub by: Subject,
        /// Whether a second person must agree: it moves more than the proposer may alone, with what they paid out alone of late.
        pub needs_approval: bool,
        /// What the proposer paid out alone in the time before that counts together, of the currencies of this run.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        pub paid_alone: Vec<Money>,
        /// The transfers.
        pub lines: Vec<PayoutLine>,
        /// What is claimed from and recovered of creators; posted with the approval.
        pub recoveries: Vec<PayoutRecovery>,
        /// Who is left out; the first ones where they are many.
        pub withheld: Vec<PayoutWithheld>,
        /// How many are left out.
        pub withheld_count: u32,
    }
}

/// One transfer of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PayoutLine {
    /// Its number in the run: 1, 2, …
    pub line: u32,
    /// The creator.
    pub creator: CreatorId,
    /// The connected account.
    pub destination: StripeId,
    /// How much is sent.
    #[serde(flatten)]
    pub money: Money,
}

/// What one creator owes, and how a run deals with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PayoutRecovery {
    /// The creator.
    pub creator: CreatorId,
    /// In which way.
    pub recovery: Recovery,
    /// How much; positive.
    #[serde(flatten)]
    pub money: Money,
}

/// One creator and currency that a run leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PayoutWithheld {
    /// The creator.
    pub creator: CreatorId,
    /// What is available and not owed.
    #[serde(flatten)]
    pub money: Money,
    /// Why it is not sent.
    pub reason: Withheld,
}

payload! {
    /// It may be sent. What it claims and recovers is posted by the same command.
    pub struct PayoutRunApproved {
        /// The run.
        pub run: PayoutRunId,
        /// When.
        pub at: Timestamp,
        /// Who; where a second person is needed, never who proposed it.
        pub by: Subject,
    }
}

payload! {
    /// It will not be sent; nothing of it was.
    pub struct PayoutRunCanceled {
        /// The run.
        pub run: PayoutRunId,
        /// When.
        pub at: Timestamp,
        /// Who.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}

payload! {
    /// It was approved, and nothing more of it is sent. What was sent stays sent; the lines that are left end as failed, and the run
    /// after them.
    pub struct PayoutRunStopped {
        /// The run.
        pub run: PayoutRunId,
        /// When.
        pub at: Timestamp,
        /// Who.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}

payload! {
    /// Every transfer of it was made or refused; the next run may be proposed.
    pub struct PayoutRunFinished {
        /// The run.
        pub run: PayoutRunId,
        /// When.
        pub at: Timestamp,
        /// Transfers made.
        pub sent: u32,
        /// Transfers that were refused.
        pub failed: u32,
    }
}

payload! {
    /// Stripe made the transfer. That it moved money is the transfer's own fact, in its own stream.
    pub struct PayoutTransferSent {
        /// The run.
        pub run: PayoutRunId,
        /// The line.
        pub line: u32,
        /// `tr_…`.
        pub transfer: StripeId,
        /// When Stripe made it.
        pub at: Timestamp,
    }
}

payload! {
    /// The transfer was refused; the money stays available.
    pub struct PayoutTransferFailed {
        /// The run.
        pub run: PayoutRunId,
        /// The line.
        pub line: u32,
        /// When it was refused.
        pub at: Timestamp,
        /// Stripe's code, `balance_insufficient`; or ours, `payouts_held` and `run_stopped`.
        pub code: String,
    }
}
