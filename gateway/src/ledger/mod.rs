//! For those who read the books.

pub(crate) mod account;
pub(crate) mod accounts;
pub(crate) mod attribution;
pub(crate) mod awaited;
pub(crate) mod creator_activity;
pub(crate) mod creator_statement;
pub(crate) mod creators;
pub(crate) mod entry;
pub(crate) mod manual_entries;
pub(crate) mod open;
pub(crate) mod payouts;
pub(crate) mod periods;
pub(crate) mod postings;
pub(crate) mod reversal;
pub(crate) mod stripe_event;
pub(crate) mod stripe_events;
pub(crate) mod suspense;
pub(crate) mod trial_balance;
