//! Every event of the journal, in one registry: its type's name on the wire, its version, its payload.
//!
//! A name is permanent once written. A changed payload is a new version with an upcaster; the old JSON stays as a fixture.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entry::EntryPosted;
use crate::facts::{
    ApplicationFeeSnapshot, Attribution, BalanceTransaction, ChargeSnapshot, DisputeSnapshot, EventStamp,
    PayoutSnapshot, RefundSnapshot, SourceOffer, TopupSnapshot, TransferSnapshot,
};
use crate::id::{StripeId, Subject};
use crate::manual_entry::{ManualEntryApproved, ManualEntryProposed, ManualEntryRejected};
use crate::payout_run::{
    ConnectedAccountObserved, CreatorPayoutsHeld, CreatorPayoutsResumed, PayoutRunApproved, PayoutRunCanceled,
    PayoutRunFinished, PayoutRunProposed, PayoutRunStopped, PayoutTransferFailed, PayoutTransferSent,
};
use crate::period::{PeriodClosed, PeriodReopened};
use crate::time::Timestamp;

/// Why an event of the journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer version of this program, or not by it at all.
    #[error(
        "unknown event {event_type} version {event_version}: written by a newer version of fanledger? upgrade this one"
    )]
    Unknown {
        /// The type.
        event_type: String,
        /// The version.
        event_version: String,
    },
    /// The payload is not of the shape that its type and version promise.
    #[error("payload of {event_type} version {event_version} is not of its shape")]
    Payload {
        /// The type.
        event_type: &'static str,
        /// The version.
        event_version: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

macro_rules! events {
    ($( $(#[$doc:meta])* $name:ident $version:literal, )*) => {
        /// An event of the journal.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Event { $( $(#[$doc])* $name($name), )* }

        /// Every event type with its current version, in the order of the registry.
        pub const EVENT_TYPES: &[(&str, &str)] = &[ $( (stringify!($name), $version), )* ];

        impl Event {
            /// The type's name on the wire.
            pub const fn type_name(&self) -> &'static str {
                match self { $( Self::$name(_) => stringify!($name), )* }
            }

            /// The version of the payload's shape.
            pub const fn version(&self) -> &'static str {
                match self { $( Self::$name(_) => $version, )* }
            }

            /// The payload as JSON text, as it is hashed and stored. Fails only where serialising fails, which our types do not.
            pub fn to_payload(&self) -> Result<String, serde_json::Error> {
                match self { $( Self::$name(payload) => serde_json::to_string(payload), )* }
            }

            /// Reads an event back from what the journal holds.
            pub fn decode(event_type: &str, event_version: &str, payload: &str) -> Result<Self, DecodeError> {
                match (event_type, event_version) {
                    $( (stringify!($name), $version) => serde_json::from_str(payload).map(Self::$name)
                        .map_err(|source| DecodeError::Payload { event_type: stringify!($name), event_version: $version, source }), )*
                    _ => Err(DecodeError::Unknown { event_type: event_type.to_owned(), event_version: event_version.to_owned() }),
                }
            }

            /// The same from parsed JSON, as postgres-es hands it out.
            pub fn decode_value(event_type: &str, event_version: &str, payload: serde_json::Value) -> Result<Self, DecodeError> {
                match (event_type, event_version) {
                    $( (stringify!($name), $version) => serde_json::from_value(payload).map(Self::$name)
                        .map_err(|source| DecodeError::Payload { event_type: stringify!($name), event_version: $version, source }), )*
                    _ => Err(DecodeError::Unknown { event_type: event_type.to_owned(), event_version: event_version.to_owned() }),
                }
            }
        }

        $( impl $name {
            /// The type's name on the wire, for those who choose events before they read them.
            pub const TYPE: &'static str = stringify!($name);
        }

        impl From<$name> for Event {
            fn from(payload: $name) -> Self { Self::$name(payload) }
        } )*

        /// The JSON Schema of every payload, by type and version.
        #[cfg(feature = "schema")]
        pub fn schemas() -> Vec<(&'static str, &'static str, schemars::Schema)> {
            vec![ $( (stringify!($name), $version, schemars::schema_for!($name)), )* ]
        }
    };
}

events! {
    /// A webhook of Stripe's was received; stream `stripe_event/<evt>`, always its first event.
    StripeEventReceived "1",
    /// The same event id came again with another body; the first stands.
    StripeEventBodyDiffered "1",
    /// The translator found no facts in it, and why.
    StripeEventNotTranslated "1",
    /// Two objects at Stripe belong together.
    StripeObjectsLinked "1",
    /// A snapshot of an object that may say whose money a charge is.
    AttributionSourceObserved "1",
    /// A charge, or a transfer, learnt what a linked object says about whose money it is.
    AttributionOffered "1",
    /// Finance said whose money a charge is; beats metadata, the last one wins.
    CreatorAttributed "1",
    /// A snapshot of a charge.
    ChargeObserved "1",
    /// A snapshot of a refund.
    RefundObserved "1",
    /// A snapshot of a dispute.
    DisputeObserved "1",
    /// A balance transaction, which never changes.
    BalanceTransactionObserved "1",
    /// A charge's money may be paid out to its creator.
    ChargeReleased "1",
    /// A snapshot of a transfer.
    TransferObserved "1",
    /// A snapshot of a payout of the platform.
    PayoutObserved "1",
    /// A snapshot of an application fee.
    ApplicationFeeObserved "1",
    /// A snapshot of a top-up.
    TopupObserved "1",
    /// An entry was posted to the ledger.
    EntryPosted "1",
    /// An operator told a projection to go past an event that it cannot apply.
    ProjectionEventSkipped "1",
    /// Finance opened a raw webhook; stream `stripe_event/<evt>`.
    StripeEventOpened "1",
    /// A month of the book was closed.
    PeriodClosed "1",
    /// The last closed month was opened again.
    PeriodReopened "1",
    /// Finance wants an entry of its own.
    ManualEntryProposed "1",
    /// A second person agreed to it.
    ManualEntryApproved "1",
    /// It will not be posted.
    ManualEntryRejected "1",
    /// A snapshot of a connected account, as far as paying it goes.
    ConnectedAccountObserved "1",
    /// Finance holds what a creator would be paid.
    CreatorPayoutsHeld "1",
    /// A creator is paid again.
    CreatorPayoutsResumed "1",
    /// A run of transfers to creators was proposed.
    PayoutRunProposed "1",
    /// It may be sent.
    PayoutRunApproved "1",
    /// It will not be sent.
    PayoutRunCanceled "1",
    /// It was approved, and nothing more of it is sent.
    PayoutRunStopped "1",
    /// Every transfer of it was made or refused.
    PayoutRunFinished "1",
    /// One of its transfers was made.
    PayoutTransferSent "1",
    /// One of its transfers was refused.
    PayoutTransferFailed "1",
}

macro_rules! payload {
    ($(#[$doc:meta])* pub struct $name:ident { $( $(#[$field_doc:meta])* pub $field:ident : $type:ty, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name { $( $(#[$field_doc])* pub $field: $type, )* }
    };
}
pub(crate) use payload;

payload! {
    /// What is kept in the clear of a webhook, and its body, sealed.
    pub struct StripeEventReceived {
        /// `evt_…`; also the stream's id.
        pub id: StripeId,
        /// Stripe's `type`, where it could be read.
        pub event_type: Option<String>,
        /// The API version that the event was made with.
        pub api_version: Option<String>,
        /// When Stripe made it.
        pub created: Option<Timestamp>,
        /// Live or test mode.
        pub livemode: Option<bool>,
        /// The connected account that it is of.
        pub account: Option<StripeId>,
        /// The object that it is about.
        pub object: Option<StripeId>,
        /// Keyed digest of the body, hex: tells "same body?" after the body is erased.
        pub body_digest: String,
        /// The exact body, sealed under a key of its own that the vault holds; base64.
        pub sealed_body: String,
        /// What could not be read, where something could not.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub flag: Option<ReceivedFlag>,
    }
}

/// Why a stored webhook needs an eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReceivedFlag {
    /// Bytes from which an id could be read, and nothing else.
    Undecodable,
    /// JSON, with parts of an event's envelope missing.
    Incomplete,
    /// A thin event (`v2.core.event`), which carries no object.
    Thin,
}

payload! {
    /// The difference is kept as a digest; the body is not.
    pub struct StripeEventBodyDiffered {
        /// `evt_…`.
        pub id: StripeId,
        /// Keyed digest of the other body, hex.
        pub body_digest: String,
    }
}

payload! {
    /// No facts, and why. A newer translator may find some: `fanledger stripe retranslate`.
    pub struct StripeEventNotTranslated {
        /// `evt_…`.
        pub id: StripeId,
        /// Why, by kind.
        pub reason: NotTranslatedReason,
        /// Why, for people; names fields and types, never values.
        pub detail: String,
        /// The version of the translator that said so.
        pub translator_version: u32,
    }
}

/// Why an event led to no facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NotTranslatedReason {
    /// A type that moves no money and attributes none.
    UnusedType,
    /// Of the other mode.
    OtherMode,
    /// A connected account's own.
    ConnectedAccount,
    /// A thin event.
    ThinEvent,
    /// Not JSON of an event.
    Undecodable,
    /// An object that cannot be read: a missing amount, an unknown currency. Raised.
    Untranslatable,
    /// Of a type that we use, with nothing in it that matters. It also takes an earlier refusal back: translating again
    /// (`stripe retranslate`) appends it where nothing was refused any more.
    NoFacts,
    /// The body's key was destroyed.
    Erased,
}

impl NotTranslatedReason {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnusedType => "unused_type",
            Self::OtherMode => "other_mode",
            Self::ConnectedAccount => "connected_account",
            Self::ThinEvent => "thin_event",
            Self::Undecodable => "undecodable",
            Self::Untranslatable => "untranslatable",
            Self::NoFacts => "no_facts",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for NotTranslatedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

payload! {
    /// A link; symmetric in meaning, written in the stream of `from`.
    pub struct StripeObjectsLinked {
        /// The object that names the other.
        pub from: StripeId,
        /// The object that it names.
        pub to: StripeId,
    }
}

payload! {
    /// A snapshot of a payment intent, checkout session, invoice, subscription or account, as far as attribution goes.
    pub struct AttributionSourceObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The object.
        pub object: StripeId,
        /// What it says. An invoice says two things: its own metadata and its subscription's.
        pub offers: Vec<SourceOffer>,
    }
}

payload! {
    /// An offer, delivered.
    pub struct AttributionOffered {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The object that says it.
        pub from: StripeId,
        /// What it says.
        pub offer: SourceOffer,
    }
}

payload! {
    /// An act of finance.
    pub struct CreatorAttributed {
        /// When it was said.
        pub at: Timestamp,
        /// Who said it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub by: Option<Subject>,
        /// What was said.
        pub attribution: Attribution,
        /// Why.
        pub reason: String,
    }
}

payload! {
    /// How a charge looked.
    pub struct ChargeObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub charge: ChargeSnapshot,
    }
}

payload! {
    /// How a refund looked.
    pub struct RefundObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub refund: RefundSnapshot,
    }
}

payload! {
    /// How a dispute looked.
    pub struct DisputeObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub dispute: DisputeSnapshot,
    }
}

payload! {
    /// A balance transaction, embedded in an object, fetched or listed. No stamp: it never changes.
    pub struct BalanceTransactionObserved {
        /// The object that it belongs to: its source, or the object that named it.
        pub owner: StripeId,
        /// The balance transaction.
        pub transaction: BalanceTransaction,
    }
}

payload! {
    /// A release.
    pub struct ChargeReleased {
        /// The date released through; the money is available from then.
        pub through: Timestamp,
    }
}

payload! {
    /// How a transfer looked.
    pub struct TransferObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub transfer: TransferSnapshot,
    }
}

payload! {
    /// How a payout looked.
    pub struct PayoutObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub payout: PayoutSnapshot,
    }
}

payload! {
    /// How an application fee looked.
    pub struct ApplicationFeeObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub fee: ApplicationFeeSnapshot,
    }
}

payload! {
    /// How a top-up looked.
    pub struct TopupObserved {
        /// The event that it came with.
        pub stamp: EventStamp,
        /// The snapshot.
        pub topup: TopupSnapshot,
    }
}

payload! {
    /// A skip, keyed by projection, version and position in its stream's id.
    pub struct ProjectionEventSkipped {
        /// The projection.
        pub projection: String,
        /// Its version.
        pub version: u32,
        /// The position of the event that is skipped.
        pub position: u64,
        /// Why.
        pub reason: String,
    }
}

payload! {
    /// Somebody read what a webhook said. Written before it is shown.
    pub struct StripeEventOpened {
        /// `evt_…`.
        pub id: StripeId,
        /// When.
        pub at: Timestamp,
        /// Who.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}

impl cqrs_es::DomainEvent for Event {
    fn event_type(&self) -> String {
        self.type_name().to_owned()
    }

    fn event_version(&self) -> String {
        self.version().to_owned()
    }
}
