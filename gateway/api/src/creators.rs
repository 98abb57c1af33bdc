//! Creators' balances and statements.

use serde::{Deserialize, Serialize};

use crate::ledger::LineCause;
use crate::minor::Minor;

/// What one creator has in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatorBalance<M = Minor> {
    /// The creator.
    pub creator: String,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// What of it is where.
    #[serde(flatten)]
    pub buckets: CreatorBuckets<M>,
    /// What the creator is owed in all: the first three less `receivable_minor`; negative where it is the creator who owes.
    pub balance_minor: M,
}

/// Where a creator's money is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatorBuckets<M = Minor> {
    /// Earned and not yet releasable.
    pub pending_minor: M,
    /// May be paid out.
    pub available_minor: M,
    /// Frozen by a dispute.
    pub held_minor: M,
    /// Owed by the creator.
    pub receivable_minor: M,
}

/// What is false is left out.
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A creator's statement: what they had, what came to it, what they have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatorStatement<M = Minor> {
    /// The creator.
    pub creator: String,
    /// The journal position whose books it shows: that of the close, for a closed month.
    pub position: u64,
    /// The month, where one was asked for.
    pub period: Option<String>,
    /// Whether that month was closed; what is closed does not change.
    pub closed: bool,
    /// The number of the close that fixed it: 1, 2, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub close: Option<u32>,
    /// The month whose close that is, where it is a later one: the first close closes everything before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed_with: Option<String>,
    /// Whether the month was opened again after that close, so that this is what the close left and not what stands.
    #[serde(skip_serializing_if = "is_false", default)]
    pub superseded: bool,
    /// The first instant; null from the beginning.
    pub from: Option<String>,
    /// The last instant, inclusive; null to the end.
    pub to: Option<String>,
    /// Which of an entry's times counts: `effective`, `occurred` or `recorded`.
    pub by: String,
    /// By currency, in the order of their codes.
    pub currencies: Vec<CreatorCurrency<M>>,
}

/// One currency of a creator's statement. The opening balance and the lines add up to the closing one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatorCurrency<M = Minor> {
    /// Lowercase ISO 4217.
    pub currency: String,
    /// What the creator was owed before.
    pub opening_minor: M,
    /// All six, in the order of a statement.
    pub lines: Vec<CreatorLine<M>>,
    /// What the creator is owed then.
    pub closing_minor: M,
    /// Where that is: the first three less `receivable_minor`.
    pub closing: CreatorBuckets<M>,
    /// How many entries the lines are of.
    pub entries: u64,
}

/// A line of a creator's statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatorLine<M = Minor> {
    /// `sales`, `platform_fees`, `refunds`, `disputes`, `payouts` or `adjustments`.
    pub line: String,
    /// In the creator's favour where positive.
    pub amount_minor: M,
    /// How many entries it is of.
    pub entries: u64,
    /// The same by what was paid for.
    pub kinds: Vec<CreatorKind<M>>,
}

/// What a line comes to for one kind of payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatorKind<M = Minor> {
    /// `subscription`, `tip` or `unlock`; null where it is about no payment.
    pub kind: Option<String>,
    /// In the creator's favour where positive.
    pub amount_minor: M,
    /// How many entries it is of.
    pub entries: u64,
}

/// What one entry contributes to one figure of a creator's statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatorActivity<M = Minor> {
    /// The entry.
    pub entry_id: String,
    /// The entry's position in the journal.
    pub position: u64,
    /// When it happened at Stripe.
    pub occurred_at: String,
    /// When it counts: the same, or the first open instant where that period was closed.
    pub effective_at: String,
    /// When the journal recorded it.
    pub recorded_at: String,
    /// The line of the statement.
    pub line: String,
    /// What was paid for; null where it is about no payment.
    pub kind: Option<String>,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// In the creator's favour where positive.
    pub amount_minor: M,
    /// One line for people.
    pub description: String,
    /// What led to it.
    pub cause: LineCause,
}
