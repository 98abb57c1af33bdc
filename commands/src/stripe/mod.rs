//! Stripe: what comes in by webhook, what is made of it, and what is asked of its API.

pub mod api;
pub mod delivery;
pub mod fetcher;
pub mod graph;
pub mod intake;
pub mod signature;
pub mod translator;

use fanledger_domain::id::StripeId;
use fanledger_journal::event::Metadata;

/// The actor that the translator's events carry.
pub const TRANSLATOR_ACTOR: &str = "system:stripe_translator";
/// The actor that fetched balance transactions carry.
pub const FETCHER_ACTOR: &str = "system:stripe_fetcher";
/// The actor that listed balance transactions carry.
pub const SYNC_ACTOR: &str = "system:stripe_sync";
/// The actor that received webhooks carry.
pub const WEBHOOK_ACTOR: &str = "system:stripe_webhook";

/// Metadata of what one Stripe event leads to: it is both the cause and what ties all of it together.
pub(crate) fn caused_by(actor: &str, event: &StripeId) -> Metadata {
    Metadata {
        actor: Some(actor.to_owned()),
        correlation_id: Some(event.to_string()),
        causation_id: Some(event.to_string()),
        ..Metadata::default()
    }
}

/// Metadata of what has no Stripe event behind it.
pub(crate) fn acted_by(actor: &str) -> Metadata {
    Metadata { actor: Some(actor.to_owned()), ..Metadata::default() }
}
