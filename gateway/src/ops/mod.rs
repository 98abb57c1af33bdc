//! For those who keep it running.

pub(crate) mod control;
pub(crate) mod journal;
pub(crate) mod operations;
pub(crate) mod projections;
pub(crate) mod skip;
