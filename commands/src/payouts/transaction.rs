//! What the sender asks of the transaction that it works in, besides the journal's streams.
//!
//! A trait, so that the same sender runs over the simulator's Postgres, where a run depends on its seed alone.

use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Uuid};

/// The transaction of a batch. It idles while Stripe is asked, and Postgres takes it back if it does for too long.
pub trait Transaction: Send {
    /// Which journal this is; also a sign of life.
    ///
    /// # Errors
    /// When the transaction is lost already.
    fn journal_id(&mut self) -> impl Future<Output = Result<Uuid, sqlx::Error>> + Send;

    /// Whether as much time has passed since something was recorded, by the clock that dated it.
    ///
    /// # Errors
    /// When the transaction is lost already.
    fn has_passed(
        &mut self,
        recorded_at: DateTime<Utc>,
        span: Duration,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;
}

impl Transaction for PgConnection {
    async fn journal_id(&mut self) -> Result<Uuid, sqlx::Error> {
        sqlx::query_scalar("SELECT journal_id FROM journal.identity").fetch_one(self).await
    }

    async fn has_passed(&mut self, recorded_at: DateTime<Utc>, span: Duration) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT clock_timestamp() >= $1::timestamptz + make_interval(secs => $2)")
            .bind(recorded_at)
            .bind(span.as_secs_f64())
            .fetch_one(self)
            .await
    }
}
