//! Payouts: who would be paid, runs of transfers, and what became of each.

use serde::{Deserialize, Serialize};

use crate::minor::Minor;

/// A run as it would be proposed now. Nothing is written by asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutProposal<M = Minor> {
    /// The journal position whose balances it is reckoned from.
    pub as_of_position: u64,
    /// The run that is open, which must end before another can be proposed.
    pub open_run: Option<String>,
    /// Whether a second person would have to agree, whoever proposes it.
    pub needs_approval: bool,
    /// Since when what one person paid out alone counts together with a run that they propose.
    pub alone_since: String,
    /// Who paid out how much alone since then.
    pub paid_alone: Vec<PaidAlone<M>>,
    /// What the transfers add up to, by currency.
    pub totals: Vec<PayoutTotal<M>>,
    /// The transfers.
    pub lines: Vec<ProposedPayout<M>>,
    /// What creators owe, and how the run would deal with it.
    pub recoveries: Vec<PayoutRecovery<M>>,
    /// Who would be left out, and why; the first ones where they are many.
    pub withheld: Vec<PayoutWithheld<M>>,
    /// How many would be left out.
    pub withheld_count: u64,
}

/// What one person paid out by runs that they proposed and approved themselves since `alone_since`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PaidAlone<M = Minor> {
    /// Who.
    pub by: String,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// How much, without what was refused; what came back later was paid out all the same.
    pub amount_minor: M,
    /// Whether this run, proposed by them, would need a second person's approval.
    pub needs_approval: bool,
}

/// What the proposer of a run paid out alone before it, of one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PaidBefore<M = Minor> {
    /// Lowercase ISO 4217.
    pub currency: String,
    /// How much.
    pub amount_minor: M,
}

/// A creator to whom nothing is paid until it is said again; or was not, for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutHold {
    /// The creator.
    pub creator: String,
    /// Since when.
    pub held_at: String,
    /// Who said so.
    pub held_by: String,
    /// Why.
    pub reason: String,
    /// When they were paid again; null while they are not.
    pub resumed_at: Option<String>,
    /// Who said so.
    pub resumed_by: Option<String>,
    /// Why.
    pub resume_reason: Option<String>,
    /// Where the hold is in the journal.
    pub position: u64,
}

/// What a run's transfers add up to in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutTotal<M = Minor> {
    /// Lowercase ISO 4217.
    pub currency: String,
    /// Their sum.
    pub amount_minor: M,
    /// How many there are.
    pub lines: u64,
}

/// A transfer that would be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProposedPayout<M = Minor> {
    /// Its number in the run: 1, 2, …
    pub line: u32,
    /// The creator.
    pub creator: String,
    /// The connected account, `acct_…`.
    pub destination: String,
    /// How much is sent.
    pub amount_minor: M,
    /// Lowercase ISO 4217.
    pub currency: String,
}

/// How a run deals with what a creator owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecoveryKind {
    /// What is available was negative: from now on the creator owes it.
    Claimed,
    /// What is owed is taken out of what is available, before anything is paid.
    Recovered,
}

/// What one creator owes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutRecovery<M = Minor> {
    /// The creator.
    pub creator: String,
    /// In which way.
    pub recovery: RecoveryKind,
    /// How much.
    pub amount_minor: M,
    /// Lowercase ISO 4217.
    pub currency: String,
}

/// Why somebody with money available is not in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WithheldReason {
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

/// Somebody who is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutWithheld<M = Minor> {
    /// The creator.
    pub creator: String,
    /// What is available and not owed.
    pub amount_minor: M,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// Why it is not sent.
    pub reason: WithheldReason,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PayoutRunState {
    /// It waits for approval.
    Proposed,
    /// It was approved, and no transfer has come to its end yet.
    Approved,
    /// Some transfers have.
    Sending,
    /// It was approved, and nothing more of it is sent; what is left of it is being ended.
    Stopping,
    /// It will not be sent; nothing of it was.
    Canceled,
    /// Every transfer was made or refused, or the run was stopped before it was.
    Finished,
}

/// A run, without its transfers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutRunSummary<M = Minor> {
    /// `por_1`.
    pub run: String,
    /// Where it stands.
    pub state: PayoutRunState,
    /// Whether it needs another's approval than the proposer's: it moves more than they may alone, together with what
    /// they paid out alone in the weeks before.
    pub needs_approval: bool,
    /// That, of the currencies that it pays.
    pub paid_alone: Vec<PaidBefore<M>>,
    /// The journal position whose balances it was reckoned from.
    pub as_of_position: u64,
    /// When it was proposed.
    pub proposed_at: String,
    /// Who proposed it.
    pub proposed_by: String,
    /// When it was approved or cancelled.
    pub decided_at: Option<String>,
    /// Who approved or cancelled it.
    pub decided_by: Option<String>,
    /// Why it was cancelled or stopped.
    pub reason: Option<String>,
    /// When it was stopped, after its approval.
    pub stopped_at: Option<String>,
    /// Who stopped it first.
    pub stopped_by: Option<String>,
    /// When the last of its transfers was made or refused.
    pub finished_at: Option<String>,
    /// What its transfers were to add up to, by currency.
    pub totals: Vec<PayoutTotal<M>>,
    /// What those that were made add up to, also where some of it came back; less where the run was stopped or some were refused.
    pub sent_totals: Vec<PayoutTotal<M>>,
    /// How many transfers were made.
    pub sent: u64,
    /// How many were refused, or not asked for any more.
    pub failed: u64,
    /// How many creators it leaves out, by currency.
    pub withheld_count: u64,
    /// The position of the last thing that became of the run itself.
    pub last_position: u64,
}

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PayoutLineState {
    /// It is not asked for yet, or no answer has come.
    Waiting,
    /// Stripe made it; its balance transaction is awaited.
    Sent,
    /// Its balance transaction is booked.
    Confirmed,
    /// Some of it came back.
    PartlyReversed,
    /// All of it came back.
    Reversed,
    /// It was refused; the money stays available.
    Failed,
}

/// One transfer of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutLine<M = Minor> {
    /// Its number in the run: 1, 2, …
    pub line: u32,
    /// The creator.
    pub creator: String,
    /// The connected account, `acct_…`.
    pub destination: String,
    /// How much is sent.
    pub amount_minor: M,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// What became of it.
    pub state: PayoutLineState,
    /// When Stripe made or refused it.
    pub ended_at: Option<String>,
    /// `tr_…`; its entries are those of this object.
    pub transfer: Option<String>,
    /// How much of it came back.
    pub reversed_minor: M,
    /// Whether it waits and its creator's payouts are held: nothing more is asked for while they are.
    pub held: bool,
    /// Why it was not made: Stripe's code, or ours, `payouts_held` and `run_stopped`.
    pub code: Option<String>,
}

/// A run with its transfers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutRun<M = Minor> {
    /// The run.
    #[serde(flatten)]
    pub summary: PayoutRunSummary<M>,
    /// Its transfers.
    pub lines: Vec<PayoutLine<M>>,
    /// What it claims and recovers, posted with its approval.
    pub recoveries: Vec<PayoutRecovery<M>>,
    /// Who is left out, and why; the first ones where they are many.
    pub withheld: Vec<PayoutWithheld<M>>,
}

/// What became of an act on a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutRunReceipt {
    /// `por_1`.
    pub run: String,
    /// Where it stands now.
    pub state: PayoutRunState,
    /// Of one that was proposed: whether another person than its proposer must approve it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub needs_approval: Option<bool>,
}

/// What became of a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PayoutHoldReceipt {
    /// The creator.
    pub creator: String,
    /// Whether nothing is paid to them.
    pub held: bool,
    /// Whether the books hold nothing of the creator, and no account at Stripe says it is theirs: is the id a slip? False also where it
    /// could not be asked at once, and of one that is resumed.
    pub creator_is_new: bool,
}
