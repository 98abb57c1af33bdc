//! Executes decisions: from what happens outside to events in the journal.
//!
//! Read in this order:
//! 1. [`executor`]: load a stream, decide, append, again where somebody else was first. [`store`]: over which journal.
//! 2. [`vault`]: how bodies are sealed.
//! 3. [`stripe`]: the webhook's intake, the translator, the fetcher of balance transactions, the port to Stripe's API.
//! 4. [`payouts`]: runs of transfers to creators, and who sends them.
//! 5. [`operations`]: what an operator or finance starts by hand: retranslate, sync, converge, release.
//! 6. [`finance`]: what a person of finance says and is remembered for: attribution, opening a webhook; [`manual_entries`].
//! 7. [`periods`]: closing months, and opening them again.
//!
//! Invariants:
//! - A 2xx is sent after the commit, never before.
//! - A process manager decides by position, and a crash repeats its commands: the facts are then already there.
//! - Only infrastructure stops the translator; money never waits behind one strange event.
//! - A replay never calls Stripe: every answer is stored as a fact.
//!
//! What is not here: what facts mean for money (`fanledger-domain`), how the journal keeps them (`fanledger-journal`), and what
//! people read (`fanledger-projections`).

pub mod executor;
pub mod finance;
pub mod manual_entries;
pub mod metrics;
pub mod operations;
pub mod payouts;
pub mod periods;
pub mod store;
pub mod stripe;
pub mod vault;

/// An error and its causes on one line, for those above who do not see the journal.
pub use fanledger_journal::checkpoint::with_causes;

use fanledger_journal::runner::Projection;

use crate::executor::Executor;
use crate::payouts::sender::Sender;
use crate::stripe::api::StripeApi;
use crate::stripe::fetcher::Fetcher;
use crate::stripe::translator::Translator;
use crate::vault::Vault;
use std::sync::Arc;

/// What process managers need.
#[derive(Clone)]
pub struct Dependencies {
    /// Sends their commands.
    pub executor: Executor,
    /// Opens raw events.
    pub vault: Vault,
    /// Stripe's API; none where there is no key: what would be fetched is then awaited, and payouts wait.
    pub stripe: Option<Arc<dyn StripeApi>>,
    /// Whether ours is live mode.
    pub livemode: bool,
}

/// The name of every process manager.
pub const MANAGERS: [&str; 3] = [stripe::translator::NAME, stripe::fetcher::NAME, payouts::sender::NAME];

/// Every process manager, for the runner.
pub fn managers(dependencies: &Dependencies) -> Vec<Box<dyn Projection>> {
    vec![
        Box::new(Translator::new(dependencies.executor.clone(), dependencies.vault.clone(), dependencies.livemode)),
        Box::new(Fetcher::new(dependencies.executor.clone(), dependencies.stripe.clone())),
        Box::new(Sender::new(dependencies.executor.clone(), dependencies.stripe.clone())),
    ]
}
