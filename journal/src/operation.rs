//! The rows of `control.operations`: what operators ask for that takes longer than a request, and how far it is.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, PgPool, Row};

use crate::event::Position;
use crate::generation::{Phase, Progress};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Build the next generation, prove it, switch.
    Rebuild,
    /// Build the next generation, prove it, drop it.
    Verify,
    /// Switch back to the generation that is kept.
    Rollback,
    /// Drop what is kept.
    Retire,
}

impl OperationKind {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Verify => "verify",
            Self::Rollback => "rollback",
            Self::Retire => "retire",
        }
    }

    /// From what is stored.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Rebuild, Self::Verify, Self::Rollback, Self::Retire].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// An open operation that nobody works on.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub id: i64,
    pub runner: String,
    pub kind: OperationKind,
    pub confirmed: bool,
    /// The version that began it; `None` where nobody has.
    pub version: Option<u32>,
    /// The version of the live generation.
    pub live_version: u32,
}

impl Waiting {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let kind: &str = row.try_get("kind")?;
        let unknown = || sqlx::Error::ColumnDecode {
            index: "kind".to_owned(),
            source: format!("{kind} is no operation that this program knows").into(),
        };
        Ok(Self {
            id: row.try_get("id")?,
            runner: row.try_get("runner")?,
            kind: OperationKind::from_text(kind).ok_or_else(unknown)?,
            confirmed: row.try_get("confirmed")?,
            version: row.try_get::<Option<i32>, _>("version")?.map(i32::cast_unsigned),
            live_version: row.try_get::<i32, _>("live_version")?.cast_unsigned(),
        })
    }
}

/// Operations that nobody has begun, or that whoever did has not been heard of for five seconds.
pub(crate) async fn waiting(pool: &PgPool) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT o.id, o.runner, o.kind, o.confirmed, o.version, r.version AS live_version
         FROM control.operations AS o JOIN control.runners AS r ON r.name = o.runner AND r.live
         WHERE o.finished_at IS NULL AND (o.phase = 'queued' OR o.updated_at < clock_timestamp() - interval '5 s')
         ORDER BY o.id",
    )
    .fetch_all(pool)
    .await?;
    rows.iter().map(Waiting::read).collect()
}

/// Who begins to work on something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning<'a> {
    pub runner: &'a str,
    pub kind: OperationKind,
    pub version: u32,
    pub confirmed: bool,
    /// The row that asked for it; `None` where somebody asks for it now.
    pub asked: Option<i64>,
}

/// A row that is being worked on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub id: i64,
    /// What whoever began it before aimed at.
    pub generation: Option<i32>,
}

/// Opens a row, or takes over the one that is open; the caller holds the projection's lock, so nobody works on that. `None`:
/// what asked for it is no longer open.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    beginning: Beginning<'_>,
) -> Result<Option<Begun>, sqlx::Error> {
    let Beginning { runner, kind, version, confirmed, asked } = beginning;
    let version = version.cast_signed();
    let phase = match kind {
        OperationKind::Rebuild | OperationKind::Verify => Phase::Loading,
        OperationKind::Rollback | OperationKind::Retire => Phase::Switching,
    };
    let mut transaction = connection.begin().await?;
    let taken = sqlx::query(
        "UPDATE control.operations
         SET version = $3, confirmed = confirmed OR $4, phase = $6, updated_at = clock_timestamp()
         WHERE runner = $1 AND finished_at IS NULL AND kind = $2 AND (version IS NULL OR version = $3)
           AND ($5::bigint IS NULL OR id = $5)
         RETURNING id, generation",
    )
    .bind(runner)
    .bind(kind.as_str())
    .bind(version)
    .bind(confirmed)
    .bind(asked)
    .bind(phase.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    if taken.is_some() || asked.is_some() {
        transaction.commit().await?;
        return taken
            .map(|row| Ok(Begun { id: row.try_get("id")?, generation: row.try_get("generation")? }))
            .transpose();
    }
    // Of another kind or version, and whoever worked on it is gone.
    sqlx::query(
        "UPDATE control.operations SET phase = 'failed', error = 'given up: another operation was asked for instead',
                updated_at = clock_timestamp(), finished_at = clock_timestamp()
         WHERE runner = $1 AND finished_at IS NULL",
    )
    .bind(runner)
    .execute(&mut *transaction)
    .await?;
    let id = sqlx::query_scalar(
        "INSERT INTO control.operations (runner, kind, confirmed, version, phase) VALUES ($1, $2, $3, $4, $5) RETURNING id",
    )
    .bind(runner)
    .bind(kind.as_str())
    .bind(confirmed)
    .bind(version)
    .bind(phase.as_str())
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(Begun { id, generation: None }))
}

/// Notes which generation is to be live afterwards, so that whoever takes it over knows whether it is done.
pub(crate) async fn aim(connection: &mut PgConnection, id: i64, generation: i32) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE control.operations SET generation = $2, updated_at = clock_timestamp() WHERE id = $1")
        .bind(id)
        .bind(generation)
        .execute(connection)
        .await
        .map(drop)
}

/// Notes how far it is; also the sign of life.
pub(crate) async fn report(connection: &mut PgConnection, id: i64, now: &Progress) -> Result<(), sqlx::Error> {
    let bounded = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE control.operations SET phase = $2, generation = $3, position = $4, target = $5, events_per_second = $6,
                seconds_left = $7, updated_at = clock_timestamp()
         WHERE id = $1 AND finished_at IS NULL",
    )
    .bind(id)
    .bind(now.phase.as_str())
    .bind(now.generation.cast_signed())
    .bind(now.position.as_i64())
    .bind(now.target.as_i64())
    .bind(bounded(now.events_per_second))
    .bind(now.seconds_left.map(bounded))
    .execute(connection)
    .await
    .map(drop)
}

/// Closes it with what came of it. Where that cannot be written it stays open, and whoever takes it over finds out.
pub(crate) async fn finish(
    connection: &mut PgConnection,
    id: i64,
    outcome: Option<&serde_json::Value>,
    error: Option<&str>,
) {
    let finished = sqlx::query(
        "UPDATE control.operations SET phase = CASE WHEN $3::text IS NULL THEN 'succeeded' ELSE 'failed' END,
                outcome = $2::text::json, error = $3, updated_at = clock_timestamp(), finished_at = clock_timestamp()
         WHERE id = $1 AND finished_at IS NULL",
    )
    .bind(id)
    .bind(outcome.map(ToString::to_string))
    .bind(error)
    .execute(connection)
    .await;
    if let Err(error) = finished {
        tracing::warn!(operation = id, %error, "how an operation ended could not be written down");
    }
}

/// The last operation on each runner, as `fanledger projections status` tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperationStatus {
    /// The projection or process manager.
    pub name: String,
    /// What was asked for.
    pub kind: String,
    /// What is being done, or how it ended.
    pub phase: String,
    /// The generation that is being built.
    pub generation: Option<u32>,
    /// The last position that it has.
    pub position: Position,
    /// The position that it has to reach.
    pub target: Position,
    /// Events read per second.
    pub events_per_second: u64,
    /// Seconds left to the target.
    pub seconds_left: Option<u64>,
    /// When it last gave a sign of life.
    pub updated_at: DateTime<Utc>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The last operation on each runner, by name. Any role that may read `read.operations` may ask.
///
/// # Errors
/// If Postgres cannot be asked.
pub async fn last(pool: &PgPool) -> Result<Vec<OperationStatus>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT runner, kind, phase, generation, position, target, events_per_second, seconds_left, updated_at, error
         FROM read.operations ORDER BY runner",
    )
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(OperationStatus {
                name: row.try_get("runner")?,
                kind: row.try_get("kind")?,
                phase: row.try_get("phase")?,
                generation: row.try_get::<Option<i32>, _>("generation")?.map(i32::cast_unsigned),
                position: Position::from_i64(row.try_get("position")?),
                target: Position::from_i64(row.try_get("target")?),
                events_per_second: row.try_get::<i64, _>("events_per_second")?.cast_unsigned(),
                seconds_left: row.try_get::<Option<i64>, _>("seconds_left")?.map(i64::cast_unsigned),
                updated_at: row.try_get("updated_at")?,
                error: row.try_get("error")?,
            })
        })
        .collect()
}
