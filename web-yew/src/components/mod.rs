//! What pages are made of.

pub mod amount;
pub(crate) mod as_of;
pub(crate) mod bits;
pub(crate) mod confirm;
pub(crate) mod icon;
pub(crate) mod link;
pub(crate) mod problem;
pub(crate) mod shell;
pub mod table;
pub(crate) mod toast;

pub(crate) use amount::{account_name, moment, money, money_in};
pub(crate) use bits::{badge, empty, fact, facts, heading, hint, loading, pager};
pub(crate) use link::Link;
pub(crate) use problem::{problem, stale};
