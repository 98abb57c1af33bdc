//! Asking Postgres.

use fanledger_domain::time::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Connection, PgPool, Postgres, Row};

use super::ReadError;

pub(super) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// A prepared statement's plan was made for a view that has been replaced by another shape.
const CACHED_PLAN_CHANGED: &str = "0A000";
/// The views appear when the projector first starts.
const UNDEFINED_TABLE: &str = "42P01";

/// Runs one statement. A connection whose plans are stale is closed, and the question asked once more with fresh ones.
pub(super) async fn fetch<'q>(
    pool: &PgPool,
    what: &'static str,
    sql: &'q str,
    bind: impl Fn(Query<'q>) -> Query<'q>,
) -> Result<Vec<PgRow>, ReadError> {
    let attempt = async {
        let mut connection = pool.acquire().await?;
        match bind(sqlx::query(sql)).fetch_all(&mut *connection).await {
            Err(error) if code(&error) == Some(CACHED_PLAN_CHANGED) => connection.close().await?,
            outcome => return outcome,
        }
        // The pool's other connections hold plans of the same age.
        let mut connection = pool.acquire().await?;
        connection.clear_cached_statements().await?;
        bind(sqlx::query(sql)).fetch_all(&mut *connection).await
    };
    attempt.await.map_err(|source| failed(what, source))
}

/// Why a statement had no answer.
pub(super) fn failed(what: &'static str, source: sqlx::Error) -> ReadError {
    match code(&source) {
        Some(UNDEFINED_TABLE) => ReadError::NotBuilt { what },
        _ => ReadError::Query { what, source },
    }
}

fn code(error: &sqlx::Error) -> Option<&str> {
    match error {
        sqlx::Error::Database(error) => {
            error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().map(|error| error.code())
        }
        // `sqlx::Error` is not ours; all else has no code.
        _ => None,
    }
}

/// Wraps what goes wrong in reading rows.
pub(super) fn decoding<T>(what: &'static str, read: impl FnOnce() -> Result<T, sqlx::Error>) -> Result<T, ReadError> {
    read().map_err(|source| ReadError::Query { what, source })
}

/// A `numeric` that was cast to text.
pub(super) fn integer(row: &PgRow, column: &str) -> Result<i128, sqlx::Error> {
    parsed(row, column)
}

/// A text that is one of ours.
pub(super) fn parsed<T>(row: &PgRow, column: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.try_get::<&str, _>(column)?.parse().map_err(|error: T::Err| undecodable(column, error))
}

pub(super) fn undecodable(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}

/// A column that Postgres wrote as JSON, cast to text.
pub(super) fn json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| undecodable(column, error))
}

/// A position or a count.
pub(super) fn unsigned(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| undecodable(column, error))
}

pub(super) fn time(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_chrono(row.try_get(column)?).map_err(|error| undecodable(column, error))
}

pub(super) fn optional_time(row: &PgRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let at: Option<_> = row.try_get(column)?;
    at.map(|at| Timestamp::from_chrono(at).map_err(|error| undecodable(column, error))).transpose()
}

/// As Postgres's `bigint`, with room for one more; what is beyond it is beyond every position, too.
pub(super) fn bigint(position: u64) -> i64 {
    i64::try_from(position).map_or(i64::MAX - 1, |position| position.min(i64::MAX - 1))
}

#[cfg(test)]
mod tests {
    use fanledger_devkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn a_stale_plan_is_made_anew() {
        let database = TestDatabase::create().await;
        let pool = fanledger_journal::database::connect(database.url(), 2).await.unwrap();
        let run = async |sql: &str| sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        run("CREATE VIEW read.shape AS SELECT 1::integer AS n").await;
        let ask = async || fetch(&pool, "a shape", "SELECT * FROM read.shape", |query| query).await;
        // Both connections prepare the statement, so that the one that replaces the other is stale, too.
        let (one, other) = tokio::join!(ask(), ask());
        assert_eq!((one.unwrap()[0].get::<i32, _>(0), other.unwrap()[0].get::<i32, _>(0)), (1, 1));
        run("DROP VIEW read.shape; CREATE VIEW read.shape AS SELECT '2'::text AS n").await;
        for _ in 0..4 {
            assert_eq!(ask().await.unwrap()[0].get::<String, _>(0), "2");
        }
        run("DROP VIEW read.shape").await;
        assert!(matches!(ask().await, Err(ReadError::NotBuilt { what: "a shape" })));
    }
}
