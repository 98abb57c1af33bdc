//! What development and tests need around the real thing: private servers, databases of a test's own, a stand-in
//! for Stripe's API, and made-up histories of payments.
//!
//! Reading order: [`servers`] (Postgres and NATS of our own), [`TestDatabase`] and [`TestNats`] (one per test),
//! [`stripe`] (signing, the stand-in), [`history`] (the demo and random histories), [`bookkeepers`] (hledger, beancount).
//!
//! Invariants:
//! - Everything listens on 127.0.0.1, on a port that was free; nothing assumes that a system Postgres is there or not.
//! - Servers stop with us; what a kill left behind is noticed and mended by the next start over the same directory.
//! - A fetched server is used only if its digest is the one written here. [`bookkeepers`] are those of apt and PyPI, by version.
//! - Histories depend on their seed alone.
//!
//! Not here: anything that production runs. This crate depends on nothing of ours, so that every crate's tests may
//! use it: what it says about Stripe is written from Stripe's documentation, not taken from our parser, which a
//! shared mistake would otherwise hide.

pub mod bookkeepers;
pub mod history;
pub mod servers;
pub mod stripe;
mod test_database;
mod test_nats;

pub use test_database::{TestCluster, TestDatabase};
pub use test_nats::TestNats;
