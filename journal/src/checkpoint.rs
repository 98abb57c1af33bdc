//! How far a runner has come, and why it stopped: the rows of `control.runners`, all SQL on them in one place.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{Executor as _, PgConnection, Row};
use uuid::Uuid;

use crate::event::{ChainDigest, Position, RecordedEvent};
use crate::reader::Head;

/// Up to where the journal was read. The chain tells this journal from another that only agrees in its positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which journal.
    pub journal_id: Uuid,
    /// The last event that was applied or passed over.
    pub position: Position,
    /// The chain up to and including it.
    pub chain: ChainDigest,
}

impl Checkpoint {
    /// Before the first event of a journal.
    pub const fn start(journal_id: Uuid) -> Self {
        Self { journal_id, position: Position::START, chain: ChainDigest::START }
    }

    /// Whether `event` is the very next one in this history.
    pub fn is_followed_by(&self, event: &RecordedEvent) -> bool {
        event.position == self.position.next() && event.previous_chain == self.chain
    }

    /// The checkpoint right after `event`.
    #[must_use]
    pub const fn after(&self, event: &RecordedEvent) -> Self {
        Self { journal_id: self.journal_id, position: event.position, chain: event.chain }
    }
}

/// Why a runner stands still until somebody acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HaltKind {
    /// Its checkpoint, or the head up to which it had sent commands, is not in the journal: the journal was restored or failed
    /// over. Only a rebuild helps.
    HistoryChanged,
    /// An event that it cannot apply. `resume` after a repair, or `skip` and `resume`.
    Poison,
    /// The program knows another version of this projection than the one that the tables were built by. Rebuild.
    VersionChanged,
    /// The tables are gone, as after a restore of a backup that leaves them out. Rebuild.
    GenerationMissing,
}

/// A halt as status shows it, in `control.runners.error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// What stopped it.
    pub kind: HaltKind,
    /// What happened and what to do.
    pub message: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The event that could not be applied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event: Option<HaltEvent>,
}

/// The event that stopped a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltEvent {
    /// Where it stands.
    pub position: Position,
    /// Its type.
    pub event_type: String,
    /// Its stream, `stripe_charge/ch_1`.
    pub stream: String,
    /// Its id.
    pub event_id: Uuid,
}

impl Halt {
    pub(crate) fn new(kind: HaltKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), at: Utc::now(), event: None }
    }

    pub(crate) fn poison(event: &RecordedEvent, error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            event: Some(HaltEvent {
                position: event.position,
                event_type: event.event_type.clone(),
                stream: event.stream.to_string(),
                event_id: event.event_id,
            }),
            ..Self::new(HaltKind::Poison, with_causes(error))
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.event {
            Some(event) => write!(f, " (at position {}, {} of {})", event.position, event.event_type, event.stream),
            None => Ok(()),
        }
    }
}

/// An error and its causes on one line, for where there is no room for a chain: a status, a log's field.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// How far a generation's tables are made, and who feeds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A rebuild fills them; indexes are still missing.
    Loading,
    /// A rebuild keeps them close behind the live ones.
    Following,
    /// Complete: the live generation, or the one that is kept to go back to. A runner feeds them.
    Ready,
    /// To be dropped: whoever feeds them lets go.
    Retiring,
}

impl Stage {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Following => "following",
            Self::Ready => "ready",
            Self::Retiring => "retiring",
        }
    }

    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        match row.try_get("stage")? {
            "loading" => Ok(Self::Loading),
            "following" => Ok(Self::Following),
            "ready" => Ok(Self::Ready),
            "retiring" => Ok(Self::Retiring),
            _ => Err(decode_error("stage", "a stage that this program does not know")),
        }
    }
}

/// One generation of one runner, as stored.
#[derive(Clone, Debug)]
pub(crate) struct RunnerRow {
    pub generation: i32,
    pub version: u32,
    pub live: bool,
    pub stage: Stage,
    pub paused: bool,
    pub views: Vec<String>,
    /// What its tables were made by; a rebuild that was killed is gone on with only by the same.
    pub definition: Vec<u8>,
    pub error: Option<Halt>,
    pub checkpoint: Checkpoint,
    /// Where the journal ended when the checkpoint last moved; its beginning for a runner that sends no commands.
    pub head: Head,
}

const COLUMNS: &str = "generation, version, live, stage, paused, views, definition, error::text AS error, journal_id, position, \
     chain, head_position, head_chain";

impl RunnerRow {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let journal_id = row.try_get("journal_id")?;
        let error: Option<String> = row.try_get("error")?;
        let error = error
            .map(|text| {
                serde_json::from_str(&text)
                    .map_err(|error| sqlx::Error::ColumnDecode { index: "error".into(), source: Box::new(error) })
            })
            .transpose()?;
        Ok(Self {
            generation: row.try_get("generation")?,
            version: row.try_get::<i32, _>("version")?.cast_unsigned(),
            live: row.try_get("live")?,
            stage: Stage::read(row)?,
            paused: row.try_get("paused")?,
            views: row.try_get("views")?,
            definition: row.try_get("definition")?,
            error,
            checkpoint: Checkpoint {
                journal_id,
                position: Position::from_i64(row.try_get("position")?),
                chain: digest(row, "chain")?,
            },
            head: Head {
                journal_id,
                position: Position::from_i64(row.try_get("head_position")?),
                chain: digest(row, "head_chain")?,
            },
        })
    }

    /// The generation that is fed and shown.
    pub async fn live(connection: &mut PgConnection, name: &str) -> Result<Option<Self>, sqlx::Error> {
        let sql = format!("SELECT {COLUMNS} FROM control.runners WHERE name = $1 AND live");
        let row = sqlx::query(&sql).bind(name).fetch_optional(connection).await?;
        row.as_ref().map(Self::read).transpose()
    }

    /// The live generation, locked until the end of the transaction: nobody moves its checkpoint meanwhile.
    pub async fn live_for_update(connection: &mut PgConnection, name: &str) -> Result<Option<Self>, sqlx::Error> {
        let sql = format!("SELECT {COLUMNS} FROM control.runners WHERE name = $1 AND live FOR UPDATE");
        let row = sqlx::query(&sql).bind(name).fetch_optional(connection).await?;
        row.as_ref().map(Self::read).transpose()
    }

    /// Every generation, the oldest first.
    pub async fn all(connection: &mut PgConnection, name: &str) -> Result<Vec<Self>, sqlx::Error> {
        let sql = format!("SELECT {COLUMNS} FROM control.runners WHERE name = $1 ORDER BY generation");
        let rows = sqlx::query(&sql).bind(name).fetch_all(connection).await?;
        rows.iter().map(Self::read).collect()
    }

    /// One generation, locked until the end of the transaction.
    pub async fn of_for_update(
        connection: &mut PgConnection,
        name: &str,
        generation: i32,
    ) -> Result<Option<Self>, sqlx::Error> {
        let sql = format!("SELECT {COLUMNS} FROM control.runners WHERE name = $1 AND generation = $2 FOR UPDATE");
        let row = sqlx::query(&sql).bind(name).bind(generation).fetch_optional(connection).await?;
        row.as_ref().map(Self::read).transpose()
    }

    /// One generation; `None` if it was dropped.
    pub async fn of(connection: &mut PgConnection, name: &str, generation: i32) -> Result<Option<Self>, sqlx::Error> {
        let sql = format!("SELECT {COLUMNS} FROM control.runners WHERE name = $1 AND generation = $2");
        let row = sqlx::query(&sql).bind(name).bind(generation).fetch_optional(connection).await?;
        row.as_ref().map(Self::read).transpose()
    }
}

fn digest(row: &PgRow, column: &str) -> Result<ChainDigest, sqlx::Error> {
    let digest = row.try_get::<Vec<u8>, _>(column)?.try_into();
    digest.map(ChainDigest).map_err(|_| decode_error(column, "a digest has 32 bytes"))
}

fn decode_error(column: &str, message: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: message.into() }
}

/// What the row said when the checkpoint moved; it saves a look of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub live: bool,
    pub stage: Stage,
}

/// Whose checkpoint moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mover {
    pub name: &'static str,
    pub generation: i32,
    /// Then the row also says where the journal ends by now: behind everything that was sent so far.
    pub sends_commands: bool,
}

/// Moves the checkpoint, in the transaction of the rows that it stands for. `None`: it is not where we left it, so another
/// runner took over; or an operator paused it, from which moment on it does not move; or the journal has lost its end as the row
/// knows it. The transaction must be given up, and whoever opens the generation next finds out which.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    mover: Mover,
    from: Position,
    to: &Checkpoint,
) -> Result<Option<Moved>, sqlx::Error> {
    let row = sqlx::query(
        "UPDATE control.runners AS r SET journal_id = $4, position = $5, chain = $6, moved_at = now(), \
                head_position = coalesce(head.last_position, r.head_position), head_chain = coalesce(head.chain, r.head_chain) \
           FROM (SELECT) AS always \
                LEFT JOIN (SELECT last_position, chain FROM journal.batches WHERE $7 ORDER BY last_position DESC LIMIT 1) AS head \
                ON true \
          WHERE r.name = $1 AND r.generation = $2 AND r.position = $3 AND NOT r.paused \
            AND (r.head_position = 0 \
                 OR EXISTS (SELECT FROM journal.batches AS b WHERE b.last_position = r.head_position AND b.chain = r.head_chain)) \
         RETURNING r.live, r.stage",
    )
    .bind(mover.name)
    .bind(mover.generation)
    .bind(from.as_i64())
    .bind(to.journal_id)
    .bind(to.position.as_i64())
    .bind(to.chain.0.as_slice())
    .bind(mover.sends_commands)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(Moved { live: row.try_get("live")?, stage: Stage::read(&row)? })).transpose()
}

/// Records why a generation halted.
pub(crate) async fn halt(
    connection: &mut PgConnection,
    name: &str,
    generation: i32,
    halt: &Halt,
) -> Result<(), sqlx::Error> {
    let error = serde_json::to_string(halt).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query("UPDATE control.runners SET error = $3::text::json WHERE name = $1 AND generation = $2")
        .bind(name)
        .bind(generation)
        .bind(error)
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes how far a generation's tables are made.
pub(crate) async fn set_stage(
    connection: &mut PgConnection,
    name: &str,
    generation: i32,
    stage: Stage,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE control.runners SET stage = $3 WHERE name = $1 AND generation = $2")
        .bind(name)
        .bind(generation)
        .bind(stage.as_str())
        .execute(connection)
        .await
        .map(drop)
}

/// Lets a generation go on whose reason to halt has gone.
pub(crate) async fn clear_halt(connection: &mut PgConnection, name: &str, generation: i32) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE control.runners SET error = NULL WHERE name = $1 AND generation = $2")
        .bind(name)
        .bind(generation)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a lock that lasts as long as the connection does, if nobody holds it. Who waits for it asks again: waiting inside
/// Postgres would hold a snapshot, and with it back vacuum.
pub(crate) async fn try_lock(connection: &mut PgConnection, what: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('fanledger:' || $1, 0))")
        .bind(what)
        .fetch_one(connection)
        .await
}

/// Gives back a lock that [`try_lock`] took on this connection.
pub(crate) async fn unlock(connection: &mut PgConnection, what: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock(hashtextextended('fanledger:' || $1, 0))")
        .bind(what)
        .execute(connection)
        .await
        .map(drop)
}

/// Runs SQL as it is, several statements if need be. (Through `Executor::execute`: `sqlx::raw_sql(…).execute(…)` makes a future
/// that the compiler cannot prove `Send` once it is nested.)
pub(crate) async fn run_sql(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    connection.execute(sql).await.map(|_| ())
}
