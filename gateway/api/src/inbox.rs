//! Webhooks and what became of them; what finance waits for.

use serde::{Deserialize, Serialize};

use crate::minor::Minor;

/// What became of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum InboxStatus {
    /// The translator has not come to it yet.
    Pending,
    /// It led to facts.
    Translated,
    /// Everything in it was known already.
    Known,
    /// It led to no facts; the reason says why.
    NotTranslated,
}

impl InboxStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Translated => "translated",
            Self::Known => "known",
            Self::NotTranslated => "not_translated",
        }
    }

    /// From the word on the wire.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Pending, Self::Translated, Self::Known, Self::NotTranslated]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// A webhook of Stripe's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InboxItem {
    /// `evt_…`.
    pub id: String,
    /// Where the journal holds it.
    pub position: u64,
    /// When it was received.
    pub received_at: String,
    /// Stripe's `type`, where it could be read.
    pub event_type: Option<String>,
    /// The API version that it was made with.
    pub api_version: Option<String>,
    /// When Stripe made it.
    pub created: Option<String>,
    /// Live or test mode.
    pub livemode: Option<bool>,
    /// The connected account that it is of.
    pub account: Option<String>,
    /// The object that it is about.
    pub object: Option<String>,
    /// What of the envelope could not be read: `undecodable`, `incomplete` or `thin`.
    pub flag: Option<String>,
    /// What became of it.
    pub status: InboxStatus,
    /// Whether somebody should look: it could not be read, or came again with another body.
    pub raised: bool,
    /// How many facts it led to.
    pub facts: u64,
    /// How many entries it led to.
    pub entries: u64,
    /// How often it came again with another body.
    pub differing_bodies: u64,
    /// Why it led to no facts, by kind.
    pub reason: Option<String>,
    /// Why it led to no facts, for people.
    pub detail: Option<String>,
    /// The version of the translator that said so.
    pub translator_version: Option<u32>,
    /// Who read it, oldest first.
    #[serde(default)]
    pub openings: Vec<Opening>,
}

/// That somebody read a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Opening {
    /// When.
    pub at: String,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Where the journal holds it.
    pub position: u64,
}

/// Which movement of an object's money is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AwaitedPart {
    /// The object's own.
    Movement,
    /// The one that takes it back: a refund or payout that failed.
    Return,
}

/// A balance transaction that an object says or implies, and that was not seen yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AwaitedItem<M = Minor> {
    /// The object whose money moved.
    pub object: String,
    /// Which movement.
    pub part: AwaitedPart,
    /// The stream of the object's facts, `stripe_charge/ch_1`.
    pub stream: String,
    /// The balance transaction's id, where the object names it.
    pub balance_transaction: Option<String>,
    /// The object's amount, in its own currency.
    pub amount_minor: M,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// When the object was made at Stripe.
    pub since: String,
}

/// Money that waits for its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SuspenseItem<M = Minor> {
    /// The suspense account, which names the reason.
    pub account: String,
    /// The object at Stripe whose money it is.
    pub object: String,
    /// Lowercase ISO 4217.
    pub currency: String,
    /// Debits minus credits.
    pub balance_minor: M,
    /// When the oldest of it happened.
    pub since: String,
    /// The last entry that moved it.
    pub last_position: u64,
}
