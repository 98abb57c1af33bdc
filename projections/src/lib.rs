//! The read models: tables that are derived from the journal and that people and the gateway read, as views in `read`.
//!
//! Read in this order:
//! 1. [`balances`]: sums from which any account's balance as of any instant or position is put together.
//! 2. [`postings`], [`entries`]: the lines of a statement, and entries with what led to them.
//! 3. [`stripe_inbox`]: each webhook and what became of it.
//! 4. [`awaited`], [`suspense`]: what finance waits for. [`balance_transactions`]: what it reconciles.
//! 5. [`creator_activity`]: what entries mean to creators.
//! 6. [`periods`]: what was closed when. [`attributions`], [`manual_entries`]: what finance said and booked by hand. [`payouts`]:
//!    runs of transfers.
//! 7. [`all`]: the registration of each.
//!
//! Invariants:
//! - Each is a function of the journal's events in position order, wherever batches end: built anew it is the same, row by row.
//! - Rows and checkpoint commit in one transaction, which is the runner's; so an event counts exactly once.
//! - A batch is folded in memory and written by a few set-based statements: a hot account is one row update per batch.
//! - Tables hold what `apply` needs; of large ones, indexes that only readers need are made after a load.
//! - An event that cannot be read halts that projection, with its position; nothing is skipped here.
//! - Sums are `numeric(38)`, bound and read as text, so that i128 passes exactly.
//!
//! What is not here: reading the journal, checkpoints, generations, halts (`fanledger_journal::runner`); the queries over
//! these tables (`fanledger_gateway::read`); anything that acts (`fanledger_commands`).

mod ahead;
pub mod attributions;
pub mod awaited;
pub mod balance_transactions;
pub mod balances;
mod copy;
pub mod creator_activity;
mod decode;
pub mod entries;
pub mod manual_entries;
pub mod payouts;
pub mod periods;
pub mod postings;
pub mod stripe_inbox;
pub mod suspense;

use fanledger_journal::runner::Projection;

/// Every projection.
pub fn all() -> Vec<Box<dyn Projection>> {
    vec![
        Box::new(balances::Balances),
        Box::new(postings::Postings),
        Box::new(entries::Entries),
        Box::new(stripe_inbox::StripeInbox),
        Box::new(awaited::Awaited),
        Box::new(suspense::Suspense),
        Box::new(balance_transactions::BalanceTransactions),
        Box::new(creator_activity::CreatorActivity),
        Box::new(periods::Periods),
        Box::new(attributions::Attributions),
        Box::new(manual_entries::ManualEntries),
        Box::new(payouts::Payouts),
    ]
}
