//! What this crate measures. Names are permanent: dashboards and alerts are built on them.

use fanledger_domain::event::NotTranslatedReason;
use metrics::{Unit, counter, describe_counter};

/// What became of a webhook; the `verdict` of `fanledger_webhooks_total`.
pub(crate) mod verdict {
    pub const ACCEPTED: &str = "accepted";
    pub const DUPLICATE: &str = "duplicate";
    pub const CONFLICT: &str = "conflict";
    pub const BAD_SIGNATURE: &str = "bad_signature";
    pub const NO_EVENT_ID: &str = "no_event_id";
    pub const UNAVAILABLE: &str = "unavailable";
    pub const ALL: [&str; 6] = [ACCEPTED, DUPLICATE, CONFLICT, BAD_SIGNATURE, NO_EVENT_ID, UNAVAILABLE];
}

/// Why a raw event led to no facts; the `reason` of `fanledger_stripe_events_not_translated_total`.
const REASONS: [NotTranslatedReason; 8] = [
    NotTranslatedReason::UnusedType,
    NotTranslatedReason::OtherMode,
    NotTranslatedReason::ConnectedAccount,
    NotTranslatedReason::ThinEvent,
    NotTranslatedReason::Undecodable,
    NotTranslatedReason::Untranslatable,
    NotTranslatedReason::NoFacts,
    NotTranslatedReason::Erased,
];

/// How a line of a payout run ended; the `outcome` of `fanledger_payout_transfers_total`.
pub(crate) mod transfer {
    pub const SENT: &str = "sent";
    pub const FAILED: &str = "failed";
}

/// Tells the process's recorder what each metric of this crate and of the journal's means, and begins their counters at zero, so
/// that the first increment is seen as one. Once, right after the recorder is installed.
pub fn describe() {
    fanledger_journal::metrics::describe();
    describe_counter!(
        "fanledger_webhooks_total",
        Unit::Count,
        "Webhooks by `verdict`: `accepted` is new and durable, `duplicate` was there before, `conflict` was there with another \
         body, `bad_signature` and `no_event_id` are refused, `unavailable` will be sent again"
    );
    describe_counter!(
        "fanledger_stripe_events_not_translated_total",
        Unit::Count,
        "Raw Stripe events that led to no facts, by `reason`; `untranslatable` and `undecodable` want a person"
    );
    describe_counter!(
        "fanledger_translator_refused_total",
        Unit::Count,
        "Facts that the ledger refused; the money stays where it was and the inbox names the event"
    );
    describe_counter!(
        "fanledger_payout_transfers_total",
        Unit::Count,
        "Transfers to creators by `outcome`: `sent`, or `failed`, whose money stays available and whose run says why"
    );
    for outcome in [transfer::SENT, transfer::FAILED] {
        counter!("fanledger_payout_transfers_total", "outcome" => outcome).increment(0);
    }
    for verdict in verdict::ALL {
        counter!("fanledger_webhooks_total", "verdict" => verdict).increment(0);
    }
    for reason in REASONS {
        counter!("fanledger_stripe_events_not_translated_total", "reason" => reason.as_str()).increment(0);
    }
    counter!("fanledger_translator_refused_total").increment(0);
}
