//! Paying creators: who may be paid, runs of transfers, and what became of each.
//!
//! Streams: `stripe_account/acct_…` (who may be paid), `creator_payouts/crt_…` (holds), `payout_run/<n>` with n = 1, 2, …,
//! `payout_line/prl_<run>_<line>` (one transfer).

use serde::{Deserialize, Serialize};

use crate::event::payload;
use crate::facts::EventStamp;
use crate::id::{CreatorId, StripeId, Subject};
use crate::money::Money;
use crate::time::Timestamp;

payload! {
    /// A snapshot of a connected account, as far as paying it goes.
    pub struct ConnectedAccountObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// `acct_…`.
        pub account: StripeId,
        /// Whose account it is, by its metadata.
        pub creator: Option<CreatorId>,
        /// Whether transfers to it are allowed (`capabilities.transfers` is `active`).
        pub transfers_active: bool,
        /// Whether Stripe pays it out (`payouts_enabled`).
        pub payouts_enabled: bool,
        /// How many requirements are due now or past due.
        pub requirements_due: u32,
        /// Stripe's word for why it is disabled, where it is (`requirements.disabled_reason`).
        pub disabled_reason: Option<String>,
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
    /// Less than the least that is sent.
    BelowMinimum,
    /// Finance holds it.
    Held,
    /// No connected account is known to be the creator's.
    NoAccount,
    /// More than one connected account says that it is the creator's.
    SeveralAccounts,
    /// Stripe does not allow transfers to the account, or wants something of its owner first.
    AccountRestricted,
    /// What is pending is negative and eats what is available.
    PendingNegative,
    /// The run was full; the next one takes it.
    RunFull,
}

payload! {
    /// A run as it is proposed: who gets how much, and who does not, and why.
    pub struct PayoutRunProposed {
        /// Its number: 1, 2, …
        pub run: u64,
        /// The position of the journal whose balances it was reckoned from.
        pub as_of_position: u64,
        /// When.
        pub at: Timestamp,
        /// Who proposed it.
        pub by: Subject,
        /// Whether a second person must agree.
        pub needs_approval: bool,
        /// The transfers.
        pub lines: Vec<PayoutLine>,
        /// Who is left out.
        pub withheld: Vec<PayoutWithheld>,
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

/// One creator and currency that a run leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PayoutWithheld {
    /// The creator.
    pub creator: CreatorId,
    /// What would be payable.
    #[serde(flatten)]
    pub money: Money,
    /// Why it is not sent.
    pub reason: Withheld,
}

payload! {
    /// It may be sent.
    pub struct PayoutRunApproved {
        /// The run.
        pub run: u64,
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
        pub run: u64,
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
        pub run: u64,
        /// When.
        pub at: Timestamp,
        /// Transfers made.
        pub sent: u32,
        /// Transfers that Stripe refused.
        pub failed: u32,
    }
}

payload! {
    /// Stripe made the transfer. That it moved money is the transfer's own fact, in its own stream.
    pub struct PayoutTransferSent {
        /// The run.
        pub run: u64,
        /// The line.
        pub line: u32,
        /// `tr_…`.
        pub transfer: StripeId,
        /// When Stripe made it.
        pub at: Timestamp,
    }
}

payload! {
    /// Stripe refused the transfer; the money stays available.
    pub struct PayoutTransferFailed {
        /// The run.
        pub run: u64,
        /// The line.
        pub line: u32,
        /// When it was refused.
        pub at: Timestamp,
        /// Stripe's code, `balance_insufficient`.
        pub code: String,
    }
}
