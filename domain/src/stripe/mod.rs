//! Reads Stripe's JSON.
