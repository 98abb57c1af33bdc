//! One file per page.

pub(crate) mod account;
pub(crate) mod attribution;
pub(crate) mod awaited;
pub(crate) mod creator;
pub(crate) mod creators;
pub(crate) mod entry;
pub(crate) mod home;
pub(crate) mod no_access;
pub(crate) mod periods;
pub(crate) mod projection;
pub(crate) mod projections;
pub(crate) mod sign_in;
pub(crate) mod stripe_event;
pub(crate) mod suspense;
pub(crate) mod trial_balance;
