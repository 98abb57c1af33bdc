//! What finance does: attribution, manual entries and reversals, opening a webhook. Whoever does it is named by their token.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ledger::EntryPosting;
use crate::minor::Minor;

/// Whose money an object is, by finance's word. What is left out stays as it stands; where nothing does it is by policy.
/// The share is agreed with a creator: left out, it is what was agreed with this one, else the policy's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttributionRequest {
    /// `crt_…`.
    pub creator: String,
    /// `fan_…`. Of a charge only, like all that follows but the reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fan: Option<String>,
    /// What was paid for: `subscription`, `tip` or `unlock`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// The creator's share of the net, from 0 to 10000 basis points.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creator_share_bps: Option<u16>,
    /// The tax inside the gross, in the currency that the fan paid in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tax_minor: Option<Minor>,
    /// Whose tax, `us-ca`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tax_jurisdiction: Option<String>,
    /// Why; it is kept in the journal for good, so name no person. At most 500 characters.
    pub reason: String,
}

/// What an attribution led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttributionReceipt {
    /// The object.
    pub object: String,
    /// False where finance had said the same last: nothing was added.
    pub changed: bool,
    /// Whether the books held nothing of the creator before, and no account at Stripe says it is theirs. Where that is a slip, attribute
    /// it again. False also where it could not be asked at once.
    pub creator_is_new: bool,
    /// The entries that the books of the object converged by, oldest occurrence first.
    pub entries: Vec<String>,
}

/// What finance said of whose money an object moves. The last word of an object stands, unless its own metadata or the connected
/// account's says whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SaidAttribution<M = Minor> {
    /// The charge, transfer or application fee.
    pub object: String,
    /// Whose money it is.
    pub creator: String,
    /// Who paid.
    pub fan: Option<String>,
    /// `subscription`, `tip` or `unlock`.
    pub kind: Option<String>,
    /// The creator's share of the net in basis points.
    pub creator_share_bps: Option<u16>,
    /// The tax inside what was paid.
    pub tax_minor: Option<M>,
    /// Whose tax.
    pub tax_jurisdiction: Option<String>,
    /// When it was said.
    pub said_at: String,
    /// Who said it; null where nobody was written down.
    pub said_by: Option<String>,
    /// Why.
    pub reason: String,
    /// Where it is in the journal.
    pub position: u64,
}

/// An entry as somebody proposes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManualEntryRequest {
    /// One line for people, at most 200 characters.
    pub description: String,
    /// Why; at most 500 characters.
    pub reason: String,
    /// When what it books happened, RFC 3339; not in the future, not before 2000.
    pub occurred_at: String,
    /// The object whose suspense it clears, as the list of suspense names it: else what leaves suspense stays in that list, beside
    /// what it cleared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clears: Option<String>,
    /// At least two; each currency sums to zero. Never `assets:stripe:clearing` or `assets:stripe:unconfirmed`.
    pub postings: Vec<EntryPosting>,
}

/// Why an entry is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReversalRequest {
    /// Why; at most 500 characters.
    pub reason: String,
    /// Until when the entry stood, RFC 3339; now where it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub occurred_at: Option<String>,
}

/// Why something is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReasonRequest {
    /// Why; it is kept in the journal for good, so name no person. At most 500 characters.
    pub reason: String,
}

/// Where a manual entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ManualEntryState {
    /// It waits for a second person.
    Proposed,
    /// It is in the books.
    Posted,
    /// It never will be.
    Rejected,
}

impl ManualEntryState {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Posted => "posted",
            Self::Rejected => "rejected",
        }
    }

    /// From the word on the wire.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Proposed, Self::Posted, Self::Rejected].into_iter().find(|state| state.as_str() == text)
    }
}

/// What an act on a manual entry came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManualEntryReceipt {
    /// `mne_…`.
    pub id: String,
    /// Where it stands.
    pub state: ManualEntryState,
    /// Whether a second person must agree: it moves more than one may alone.
    pub needs_approval: bool,
    /// The entry, once it is posted.
    pub entry_id: Option<String>,
}

/// An entry that finance made by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManualEntry<M = Minor> {
    /// `mne_…`.
    pub id: String,
    /// Where it stands.
    pub state: ManualEntryState,
    /// One line for people.
    pub description: String,
    /// Why.
    pub reason: String,
    /// When what it books happened.
    pub occurred_at: String,
    /// The entry that it takes back, where it does.
    pub reverses: Option<String>,
    /// The object whose suspense it clears, where it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clears: Option<String>,
    /// At least two; each currency sums to zero.
    pub postings: Vec<EntryPosting<M>>,
    /// Whether a second person must agree.
    pub needs_approval: bool,
    /// When it was proposed.
    pub proposed_at: String,
    /// Who proposed it.
    pub proposed_by: String,
    /// When a second person agreed, or somebody said no.
    pub decided_at: Option<String>,
    /// Who did.
    pub decided_by: Option<String>,
    /// Why it was rejected; of a reversal that was proposed again, why it was the last time.
    pub rejection_reason: Option<String>,
    /// When it was rejected, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rejected_at: Option<String>,
    /// Who rejected it, likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rejected_by: Option<String>,
    /// The entry, once it is posted.
    pub entry_id: Option<String>,
    /// Where the journal holds the proposal.
    pub position: u64,
}

/// A webhook exactly as it was received.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenedStripeEvent {
    /// `evt_…`.
    pub id: String,
    /// When it was opened.
    pub opened_at: String,
    /// Who opened it.
    pub opened_by: String,
    /// SHA-256 of the bytes that were received, hex.
    pub sha256: String,
    /// How many they are.
    pub bytes: u64,
    /// The body, its numbers and the order of its keys as they were received; null where it is no JSON.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub body: Option<Box<RawValue>>,
    /// The body in base64, where it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body_base64: Option<String>,
}

// The body holds personal data, which no log may.
impl fmt::Debug for OpenedStripeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedStripeEvent").field("id", &self.id).field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

impl<M> EntryPosting<M> {
    /// The same line with its amount in another representation.
    pub fn map_minor<N>(self, map: impl Fn(M) -> N) -> EntryPosting<N> {
        EntryPosting {
            account: self.account,
            side: self.side,
            amount_minor: map(self.amount_minor),
            currency: self.currency,
        }
    }
}
