//! Typed ids. An id's type says what it names; its text says the same with a prefix.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the id it was meant to be. Carries the kind and the expected form, never the text: it may be anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {form}")]
pub struct IdError {
    /// What was expected, `creator id`.
    pub kind: &'static str,
    /// The form it must have.
    pub form: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $form:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(IdError { kind: $kind, form: $form }) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_prefixed(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (1..=64).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    })
}

fn is_outside_id(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
}

text_id!(
    /// A creator. The id is given to us; whoever it names need not be registered for money to be theirs.
    CreatorId, "creator id", "crt_ and 1 to 64 of A-Z a-z 0-9 _ -", |text| is_prefixed(text, "crt_")
);
text_id!(
    /// A fan.
    FanId, "fan id", "fan_ and 1 to 64 of A-Z a-z 0-9 _ -", |text| is_prefixed(text, "fan_")
);
text_id!(
    /// A tax jurisdiction, `us-ca`; `unknown` where tax comes without one.
    Jurisdiction, "jurisdiction", "1 to 32 of a-z 0-9 -",
    |text| (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);
text_id!(
    /// The id of an object at Stripe, `ch_…`, `txn_…`, `evt_…`. Its prefix says what it is; see [`StripeId::kind`].
    StripeId, "Stripe id", "1 to 200 of A-Z a-z 0-9 _ . : -", is_outside_id
);
text_id!(
    /// The id of an entry: object id, sequence of its command's first event, instant, joined by colons.
    EntryId, "entry id", "1 to 200 of A-Z a-z 0-9 _ . : -", |text| is_outside_id(text)
);

text_id!(
    /// Who acts: the `sub` of a token. It is in the journal for good, so it is an id: an e-mail address names a person.
    Subject, "subject", "1 to 128 visible ASCII characters without @",
    |text| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'@')
);

impl Subject {
    /// Whether both name one person, where two are needed: sign-in services differ in whether capitals matter.
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Jurisdiction {
    /// Where tax comes without a jurisdiction.
    pub fn unknown() -> Self {
        Self("unknown".to_owned())
    }
}

/// What an id at Stripe names, read off its prefix (<https://docs.stripe.com/api>, seen in practice: `py_` and `pyr_` for bank payments, `du_` for disputes since 2022).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StripeKind {
    /// `ch_`, `py_`.
    Charge,
    /// `re_`, `pyr_`.
    Refund,
    /// `dp_`, `du_`, `pdp_`.
    Dispute,
    /// `tr_`.
    Transfer,
    /// `trr_`.
    TransferReversal,
    /// `po_`; also `tr_` of old accounts, which reads as a transfer.
    Payout,
    /// `fee_`.
    ApplicationFee,
    /// `fr_`.
    FeeRefund,
    /// `tu_`.
    Topup,
    /// `txn_`.
    BalanceTransaction,
    /// `pi_`.
    PaymentIntent,
    /// `cs_`.
    CheckoutSession,
    /// `in_`.
    Invoice,
    /// `sub_`.
    Subscription,
    /// `acct_`.
    Account,
    /// Anything else.
    Other,
}

impl StripeKind {
    /// Whether it names an object whose books are another's, once it is known whose.
    pub const fn is_satellite(self) -> bool {
        matches!(self, Self::Refund | Self::Dispute | Self::TransferReversal | Self::FeeRefund)
    }
}

impl StripeId {
    /// What this id names, by its prefix.
    pub fn kind(&self) -> StripeKind {
        match self.0.split_once('_').map(|(prefix, _)| prefix) {
            Some("ch" | "py") => StripeKind::Charge,
            Some("re" | "pyr") => StripeKind::Refund,
            Some("dp" | "du" | "pdp") => StripeKind::Dispute,
            Some("tr") => StripeKind::Transfer,
            Some("trr") => StripeKind::TransferReversal,
            Some("po") => StripeKind::Payout,
            Some("fee") => StripeKind::ApplicationFee,
            Some("fr") => StripeKind::FeeRefund,
            Some("tu") => StripeKind::Topup,
            Some("txn") => StripeKind::BalanceTransaction,
            Some("pi") => StripeKind::PaymentIntent,
            Some("cs") => StripeKind::CheckoutSession,
            Some("in") => StripeKind::Invoice,
            Some("sub") => StripeKind::Subscription,
            Some("acct") => StripeKind::Account,
            _ => StripeKind::Other,
        }
    }
}
