//! The clock, read here and nowhere else in this crate, and passed on.

use chrono::{DateTime, Utc};

/// Now.
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Now, in whole seconds since 1970, as Stripe writes times.
pub fn unix_seconds() -> i64 {
    now().timestamp()
}
