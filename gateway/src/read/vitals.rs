//! Whether the books are well, in a few numbers: what is watched, not what is shown to people.

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::ReadError;
use super::query::{decoding, fetch, integer, unsigned};

/// How much of something waits, and for how long the oldest of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// How many.
    pub items: u64,
    /// The age of the oldest in seconds; 0 where there is none.
    pub oldest_seconds: f64,
}

impl Backlog {
    /// Nothing waits.
    pub const NONE: Self = Self { items: 0, oldest_seconds: 0.0 };
}

/// Debits minus credits over all accounts, by currency, in minor units. Anything but zero is a bug or a tampered table.
///
/// Reads one row per account and currency: some milliseconds for ten thousand creators.
///
/// # Errors
/// Postgres.
pub async fn imbalance(pool: &PgPool) -> Result<Vec<(String, i128)>, ReadError> {
    const WHAT: &str = "the imbalance of the books";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT t.currency::text AS currency, sum(t.debits - t.credits)::text AS imbalance
         FROM read.balance_totals AS t GROUP BY t.currency ORDER BY t.currency",
        |query| query,
    )
    .await?;
    decoding(WHAT, || rows.iter().map(|row| Ok((row.try_get("currency")?, integer(row, "imbalance")?))).collect())
}

/// Open money in suspense by account, which names the reason.
///
/// # Errors
/// Postgres.
pub async fn suspense_backlog(pool: &PgPool) -> Result<Vec<(String, Backlog)>, ReadError> {
    const WHAT: &str = "how much is in suspense";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT s.account::text AS account, count(*)::bigint AS items,
                extract(epoch FROM clock_timestamp() - min(s.since))::double precision AS oldest_seconds
         FROM read.suspense AS s GROUP BY s.account ORDER BY s.account",
        |query| query,
    )
    .await?;
    decoding(WHAT, || rows.iter().map(|row| Ok((row.try_get("account")?, backlog(row)?))).collect())
}

/// Balance transactions awaited.
///
/// # Errors
/// Postgres.
pub async fn awaited_backlog(pool: &PgPool) -> Result<Backlog, ReadError> {
    const WHAT: &str = "how many balance transactions are awaited";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT count(*)::bigint AS items,
                coalesce(extract(epoch FROM clock_timestamp() - min(a.since)), 0)::double precision AS oldest_seconds
         FROM read.awaited AS a",
        |query| query,
    )
    .await?;
    let row = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || backlog(row))
}

/// The last thing that was asked of a runner and takes its time: a rebuild, a proof, a rollback, a retirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastOperation {
    /// The runner.
    pub runner: String,
    /// It is waiting or being worked on.
    pub active: bool,
    /// It ended without what was asked for.
    pub failed: bool,
    /// How many events it has yet to read, as far as is known.
    pub remaining_events: u64,
}

/// The last operation of each runner of which anything was asked.
///
/// # Errors
/// Postgres.
pub async fn last_operations(pool: &PgPool) -> Result<Vec<LastOperation>, ReadError> {
    const WHAT: &str = "the runners' last operations";
    let rows = fetch(
        pool,
        WHAT,
        "SELECT o.runner::text AS runner, o.finished_at IS NULL AS active, o.phase = 'failed' AS failed,
                CASE WHEN o.finished_at IS NULL THEN greatest(o.target - o.position, 0) ELSE 0 END::bigint AS remaining_events
         FROM read.operations AS o ORDER BY o.runner",
        |query| query,
    )
    .await?;
    decoding(WHAT, || {
        let operation = |row: &PgRow| {
            Ok(LastOperation {
                runner: row.try_get("runner")?,
                active: row.try_get("active")?,
                failed: row.try_get("failed")?,
                remaining_events: unsigned(row, "remaining_events")?,
            })
        };
        rows.iter().map(operation).collect()
    })
}

fn backlog(row: &PgRow) -> Result<Backlog, sqlx::Error> {
    Ok(Backlog { items: unsigned(row, "items")?, oldest_seconds: row.try_get("oldest_seconds")? })
}
