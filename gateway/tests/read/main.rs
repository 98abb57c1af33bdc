//! The read queries against plain sums over the same postings, at every edge of an hour, a day, a month and a leap day.
//!
//! The events are made up and applied by the projections themselves, straight into their live tables: only so can they be
//! recorded at times of the test's choosing. How rows get there through the journal is the projections' own tests.

#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

mod balances;
mod creators;
mod levels;
mod lists;
mod made;
mod periods;
mod refusals;
mod statements;
