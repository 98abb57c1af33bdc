//! Sending Stripe-shaped events as Stripe would: read, given fresh ids, signed, posted.

pub mod events;
pub mod fresh_ids;
pub mod replay;
