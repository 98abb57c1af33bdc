//! Months of the book: what was closed, by whom, and what fixes its balances.

use serde::{Deserialize, Serialize};

use crate::minor::Minor;

/// Whether something can still be booked into a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PeriodState {
    /// It can.
    Open,
    /// It cannot.
    Closed,
}

/// What was done to a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PeriodActKind {
    /// It was closed.
    Closed,
    /// It was opened again.
    Reopened,
}

/// The periods of the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Periods {
    /// The journal position that it reflects.
    pub position: u64,
    /// The first instant to which something can be booked, RFC 3339; null while nothing was closed.
    pub first_open: Option<String>,
    /// The month that can be closed next, once it has ended, `2026-11`; null while nothing was closed: then any can.
    pub next: Option<String>,
    /// Each month that was ever closed by itself, newest first.
    pub periods: Vec<PeriodHistory>,
}

/// One month and what was done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeriodHistory {
    /// The month in UTC, `2026-10`.
    pub period: String,
    /// Whether it is closed now.
    pub state: PeriodState,
    /// Oldest first.
    pub acts: Vec<PeriodAct>,
}

/// One close, or one reopening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeriodAct {
    /// What was done.
    pub act: PeriodActKind,
    /// The number of the close among those of its month: 1, 2, … Of a reopening, that of the close which it opened.
    pub close: u32,
    /// Its position in the journal; a close's balances are as of here.
    pub position: u64,
    /// The journal's chain there, hex.
    pub chain: String,
    /// When, RFC 3339.
    pub at: String,
    /// Who: the subject of the token.
    pub by: String,
    /// Why; of a reopening.
    pub reason: Option<String>,
}

/// What fixes the closing balances of a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Closing {
    /// The month in UTC, `2026-10`.
    pub period: String,
    /// The month whose close closed it, where that is a later one: the first close closes everything before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed_with: Option<String>,
    /// The number of the close among those of its month: 1, 2, …
    pub close: u32,
    /// Its position in the journal.
    pub position: u64,
    /// The journal's chain there, hex.
    pub chain: String,
    /// The first instant after the month, RFC 3339.
    pub first_open: String,
    /// When it was closed, RFC 3339.
    pub closed_at: String,
    /// Who closed it.
    pub closed_by: String,
    /// SHA-256 of the canonical text of the balances, hex (docs/period-close.md): equal digests are equal balances.
    pub digest: String,
}

/// What was done to a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeriodActed {
    /// The month in UTC, `2026-10`.
    pub period: String,
    /// What it is now.
    pub state: PeriodState,
    /// The position of the act in the journal.
    pub position: u64,
}

/// What is open by the end of a month. It is for finance to judge: nothing of it refuses a close.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeriodReview<M = Minor> {
    /// The month in UTC, `2026-10`.
    pub period: String,
    /// The journal position that it reflects.
    pub position: u64,
    /// By kind, account and currency, what is owed apart from what is due; empty where nothing is open.
    pub open: Vec<OpenMoney<M>>,
}

/// Why money is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OpenKind {
    /// In suspense: whose it is, or what it is of, is not known. By account, which names the reason, and sign: never netted.
    Suspense,
    /// Objects whose balance transaction was not seen.
    Awaited,
    /// What stands in `assets:stripe:unconfirmed`: one balance, of what was seen at Stripe without its balance transaction and of
    /// the reverse.
    Unconfirmed,
    /// Creators whose `available` is negative. What is pending may cover it; what it does not, the next payout run states as a
    /// receivable.
    NegativeAvailable,
    /// Entries by hand that occurred by then, and payout runs that were proposed by then, which nobody has agreed to yet.
    WaitingForApproval,
}

/// Money that is open, of one kind and currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenMoney<M = Minor> {
    /// Why it is open.
    pub kind: OpenKind,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// The account that it stands in, of what is in suspense or unconfirmed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<String>,
    /// How many objects, accounts, creators, or proposals.
    pub count: u64,
    /// Debits minus credits. Of what is awaited, the amounts as the objects say them; of what waits for approval, what it debits or
    /// sends: both are sums without a sign.
    pub balance_minor: M,
}
