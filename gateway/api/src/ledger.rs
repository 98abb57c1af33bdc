//! Balances, statements and entries.

use serde::{Deserialize, Serialize};

use crate::acts::ManualEntryState;
use crate::minor::Minor;
use crate::periods::Closing;

/// As of when a question was asked: an instant (RFC 3339) or a position of the journal. Both inclusive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum AsOf {
    /// A position of the journal.
    Position(u64),
    /// An instant, RFC 3339.
    Instant(String),
}

/// Debit or credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Left; positive in a balance.
    Debit,
    /// Right; negative in a balance.
    Credit,
}

/// Every account's balance; in each currency debits equal credits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrialBalance<M = Minor> {
    /// The journal position that it reflects.
    pub position: u64,
    /// As of when; null is as of that position.
    pub as_of: Option<AsOf>,
    /// By currency, in the order of their codes.
    pub currencies: Vec<CurrencyBalances<M>>,
    /// Of a closed month: what fixes it. The position above is then the close's, and nothing here ever changes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closing: Option<Closing>,
}

/// One currency of a trial balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CurrencyBalances<M = Minor> {
    /// Lowercase ISO 4217.
    pub currency: String,
    /// All debits.
    pub debits_minor: M,
    /// All credits.
    pub credits_minor: M,
    /// Debits minus credits, where they differ: the books are broken then. Absent where they balance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imbalance_minor: Option<M>,
    /// Every account with turnover, also where its balance is zero, in the order of their names.
    pub accounts: Vec<AccountTurnover<M>>,
}

/// One account of a trial balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountTurnover<M = Minor> {
    /// The account.
    pub account: String,
    /// Turnover on the debit side; depends on the order in which facts arrived.
    pub debits_minor: M,
    /// Turnover on the credit side; depends on the order in which facts arrived.
    pub credits_minor: M,
    /// Debits minus credits.
    pub balance_minor: M,
}

/// One account in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountBalance<M = Minor> {
    /// The account.
    pub account: String,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// Turnover on the debit side; depends on the order in which facts arrived.
    pub debits_minor: M,
    /// Turnover on the credit side; depends on the order in which facts arrived.
    pub credits_minor: M,
    /// Debits minus credits.
    pub balance_minor: M,
}

/// One account in all its currencies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountBalances<M = Minor> {
    /// The account.
    pub account: String,
    /// The journal position that it reflects.
    pub position: u64,
    /// As of when; null is as of that position.
    pub as_of: Option<AsOf>,
    /// By currency, in the order of their codes.
    pub currencies: Vec<AccountBalance<M>>,
}

/// One account in one currency with what moved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountStatement<M = Minor> {
    /// The account.
    pub account: String,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// What stood before the first line, debits minus credits.
    pub opening_minor: M,
    /// What stands after the last, debits minus credits.
    pub balance_minor: M,
    /// What moved it, oldest first; the last line's balance is the statement's.
    pub postings: Vec<PostingLine<M>>,
}

/// One line of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PostingLine<M = Minor> {
    /// The entry that it is of.
    pub entry_id: String,
    /// The entry's position in the journal.
    pub position: u64,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// When it happened at Stripe.
    pub occurred_at: String,
    /// When it counts: the same, or the first open instant where that period was closed.
    pub effective_at: String,
    /// When the journal recorded it.
    pub recorded_at: String,
    /// Debit or credit.
    pub side: Side,
    /// How much; positive.
    pub amount_minor: M,
    /// The account's balance in this currency right after this line.
    pub balance_minor: M,
    /// One line for people.
    pub description: String,
    /// What led to it.
    pub cause: LineCause,
}

/// What led to a line, in short; the entry tells the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LineCause {
    /// The object at Stripe whose books changed; of a line of suspense, the object whose suspense it is.
    pub object: String,
    /// The Stripe event that brought the fact; null for a fetched balance transaction or an act of finance.
    pub stripe_event: Option<String>,
}

/// An entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry<M = Minor> {
    /// Its id.
    pub entry_id: String,
    /// Its position in the journal.
    pub position: u64,
    /// The stream that it is in, `stripe_charge/ch_1`.
    pub stream: String,
    /// When it happened at Stripe.
    pub occurred_at: String,
    /// When it counts.
    pub effective_at: String,
    /// When the journal recorded it.
    pub recorded_at: String,
    /// One line for people.
    pub description: String,
    /// What led to it.
    pub cause: Cause,
    /// At least two lines; each currency sums to zero.
    pub postings: Vec<EntryPosting<M>>,
    /// The entry by hand, `mne_…`, that takes this one back, or waits to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reversed_by: Option<String>,
    /// Where that one stands: `posted`, or `proposed` while it waits for a second person, and this entry stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reversal_state: Option<ManualEntryState>,
}

/// What led to an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cause {
    /// The object at Stripe whose books changed.
    pub object: String,
    /// The facts of the same command; none where the books were evaluated again.
    pub facts: Vec<FactReference>,
    /// The Stripe events that brought them; none for a fetched balance transaction or an act of finance.
    pub stripe_events: Vec<StripeEventReference>,
    /// What finance did that led to it: an entry by hand, a payout run, or its word of whose money the object is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub act: Option<CauseAct>,
}

/// What finance did: an entry by hand, a payout run, or an attribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CauseAct {
    /// Who proposed or said it.
    pub proposed_by: String,
    /// Who agreed, where a second person had to.
    pub approved_by: Option<String>,
    /// Why.
    pub reason: String,
    /// The entry that it takes back, where it does.
    pub reverses: Option<String>,
    /// The object whose suspense it clears, where it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clears: Option<String>,
}

/// A fact in the stream of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactReference {
    /// Its type, `RefundObserved`.
    pub fact: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its position in the journal.
    pub position: u64,
}

/// A webhook that led to something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StripeEventReference {
    /// `evt_…`.
    pub id: String,
    /// Where the journal holds it; null while the list of webhooks is behind.
    pub position: Option<u64>,
}

/// One line of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EntryPosting<M = Minor> {
    /// Where.
    pub account: String,
    /// Debit or credit.
    pub side: Side,
    /// How much; positive.
    pub amount_minor: M,
    /// Lowercase ISO 4217.
    pub currency: String,
}

impl<M> PostingLine<M> {
    /// The same line with its amounts in another representation.
    pub fn map_minor<N>(self, map: impl Fn(M) -> N) -> PostingLine<N> {
        PostingLine {
            entry_id: self.entry_id,
            position: self.position,
            currency: self.currency,
            occurred_at: self.occurred_at,
            effective_at: self.effective_at,
            recorded_at: self.recorded_at,
            side: self.side,
            amount_minor: map(self.amount_minor),
            balance_minor: map(self.balance_minor),
            description: self.description,
            cause: self.cause,
        }
    }
}
