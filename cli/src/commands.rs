//! The commands, one file each.

pub mod completions;
pub mod dev;
pub mod doctor;
pub mod journal;
pub mod ledger;
pub mod migrate;
pub mod projections;
pub mod seed;
pub mod simulate;
pub mod stripe;
pub mod token;
