//! A batch of commands: which of those that wait may go together, and the one call that carries them.

use std::collections::{HashSet, VecDeque};

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::append::{
    AppendError, BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, BATCH_EVENTS_MAX, Command, IdempotencyKey, Outcome,
};
use crate::event::{Position, StreamId};

/// How many commands the workers look at when they put a batch together: enough to fill a batch although many of them
/// write one stream, few enough to be cheap.
pub(crate) const WAITING_MAX: usize = 4 * BATCH_COMMANDS_MAX;

/// A command that somebody waits for.
#[derive(Debug)]
pub(crate) struct Pending {
    pub command: Command,
    /// The metadata as JSON, the same for each of the command's events.
    pub metadata: String,
    /// Payload and metadata of all events.
    pub bytes: usize,
    pub reply: oneshot::Sender<Result<Outcome, AppendError>>,
}

impl Pending {
    /// A caller that went away is no reason to fail.
    pub fn answer(self, result: Result<Outcome, AppendError>) {
        self.reply.send(result).ok();
    }
}

/// Commands that may share one call.
#[derive(Debug)]
pub(crate) struct Batch {
    pub pending: Vec<Pending>,
}

/// Takes from the front of the queue what may go together, `most` commands at most, and leaves the rest in its order: no two commands write one
/// stream or share a key, and none writes what another guards. What is left goes first into the next batch.
pub(crate) fn take_batch(waiting: &mut VecDeque<Pending>, most: usize) -> Batch {
    let mut taken: Vec<Pending> = Vec::with_capacity(waiting.len().min(BATCH_COMMANDS_MAX));
    let mut left = VecDeque::new();
    let (mut events, mut bytes) = (0, 0);
    {
        let mut written: HashSet<StreamId> = HashSet::with_capacity(waiting.len());
        let mut guarded: HashSet<StreamId> = HashSet::new();
        let mut keys: HashSet<[u8; 32]> = HashSet::new();
        while let Some(pending) = waiting.pop_front() {
            let command = &pending.command;
            let full = taken.len() >= most.min(BATCH_COMMANDS_MAX)
                || events + command.events.len() > BATCH_EVENTS_MAX
                || bytes + pending.bytes > BATCH_BYTES_MAX;
            if full {
                left.push_back(pending);
                break;
            }
            let meets_another = written.contains(&command.stream)
                || guarded.contains(&command.stream)
                || command.guards.iter().any(|guard| written.contains(&guard.stream))
                || command.key.is_some_and(|key| keys.contains(&key.key));
            if meets_another {
                left.push_back(pending);
                continue;
            }
            events += command.events.len();
            bytes += pending.bytes;
            written.insert(command.stream.clone());
            guarded.extend(command.guards.iter().map(|guard| guard.stream.clone()));
            keys.extend(command.key.map(|key| key.key));
            taken.push(pending);
        }
    }
    left.append(waiting);
    *waiting = left;
    Batch { pending: taken }
}

/// One statement, so that the journal's lock is held for the server's own work and one flush only.
const APPEND: &str = "SELECT outcomes, first_positions, last_positions, conflict_types, conflict_ids, conflict_sequences \
     FROM journal.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";

impl Batch {
    /// Calls `journal.append`. One outcome per command, in order.
    pub async fn call(&self, connection: &mut PgConnection, clock: DateTime<Utc>) -> Result<Vec<Outcome>, sqlx::Error> {
        let arguments = Arguments::of(&self.pending);
        let row = sqlx::query(APPEND)
            .bind(clock)
            .bind(&arguments.stream_types)
            .bind(&arguments.stream_ids)
            .bind(&arguments.expected)
            .bind(&arguments.event_counts)
            .bind(&arguments.event_ids)
            .bind(&arguments.event_types)
            .bind(&arguments.event_versions)
            .bind(&arguments.payloads)
            .bind(&arguments.metadata)
            .bind(&arguments.key_commands)
            .bind(&arguments.keys)
            .bind(&arguments.requests)
            .bind(&arguments.guard_commands)
            .bind(&arguments.guard_types)
            .bind(&arguments.guard_ids)
            .bind(&arguments.guard_sequences)
            .bind(&arguments.vault_commands)
            .bind(&arguments.vault_keys)
            .fetch_one(connection)
            .await?;
        let outcomes = outcomes(&row)?;
        if outcomes.len() == self.pending.len() {
            Ok(outcomes)
        } else {
            let (answered, sent) = (outcomes.len(), self.pending.len());
            Err(sqlx::Error::Protocol(format!("journal.append answered {answered} of {sent} commands")))
        }
    }

    /// Both halves of a batch of at least two.
    pub fn halves(mut self) -> (Self, Self) {
        let right = self.pending.split_off(self.pending.len() / 2);
        (self, Self { pending: right })
    }

    /// Tells everyone of the same failure.
    pub fn fail(self, error: &AppendError) {
        for pending in self.pending {
            pending.answer(Err(error.clone()));
        }
    }

    /// The stream type of the first command: of the only one, where one is to blame.
    pub fn first_type(&self) -> String {
        self.pending.first().map(|pending| pending.command.stream.aggregate_type.clone()).unwrap_or_default()
    }

    /// Its length as a histogram takes it; at most [`BATCH_COMMANDS_MAX`], so nothing is rounded.
    pub fn len_f64(&self) -> f64 {
        u32::try_from(self.pending.len()).map_or(f64::MAX, f64::from)
    }
}

/// The parallel arrays that `journal.append` takes, borrowed from the commands.
#[derive(Default)]
struct Arguments<'a> {
    stream_types: Vec<&'a str>,
    stream_ids: Vec<&'a str>,
    expected: Vec<i64>,
    event_counts: Vec<i32>,
    event_ids: Vec<Uuid>,
    event_types: Vec<&'a str>,
    event_versions: Vec<&'a str>,
    payloads: Vec<&'a str>,
    metadata: Vec<&'a str>,
    key_commands: Vec<i32>,
    keys: Vec<&'a [u8]>,
    requests: Vec<&'a [u8]>,
    guard_commands: Vec<i32>,
    guard_types: Vec<&'a str>,
    guard_ids: Vec<&'a str>,
    guard_sequences: Vec<i64>,
    vault_commands: Vec<i32>,
    vault_keys: Vec<&'a [u8]>,
}

impl<'a> Arguments<'a> {
    fn of(pending: &'a [Pending]) -> Self {
        let mut all = Self::default();
        for (number, Pending { command, metadata, .. }) in (1..).zip(pending) {
            all.stream_types.push(&command.stream.aggregate_type);
            all.stream_ids.push(&command.stream.aggregate_id);
            all.expected.push(command.expected.cast_signed());
            // At most BATCH_EVENTS_MAX, so nothing is cut off.
            all.event_counts.push(i32::try_from(command.events.len()).unwrap_or(i32::MAX));
            for event in &command.events {
                all.event_ids.push(Uuid::now_v7());
                all.event_types.push(&event.event_type);
                all.event_versions.push(&event.event_version);
                all.payloads.push(&event.payload);
                all.metadata.push(metadata);
            }
            if let Some(IdempotencyKey { key, request }) = &command.key {
                all.key_commands.push(number);
                all.keys.push(key);
                all.requests.push(request);
            }
            for guard in &command.guards {
                all.guard_commands.push(number);
                all.guard_types.push(&guard.stream.aggregate_type);
                all.guard_ids.push(&guard.stream.aggregate_id);
                all.guard_sequences.push(guard.sequence.cast_signed());
            }
            if let Some(vault_key) = &command.vault_key {
                all.vault_commands.push(number);
                all.vault_keys.push(vault_key);
            }
        }
        all
    }
}

/// Reads the parallel arrays that `journal.append` answers with.
fn outcomes(row: &PgRow) -> Result<Vec<Outcome>, sqlx::Error> {
    let words: Vec<String> = row.try_get(0)?;
    let firsts: Vec<Option<i64>> = row.try_get(1)?;
    let lasts: Vec<Option<i64>> = row.try_get(2)?;
    // Null as a whole when there is no conflict.
    let types: Vec<String> = row.try_get::<Option<_>, _>(3)?.unwrap_or_default();
    let ids: Vec<String> = row.try_get::<Option<_>, _>(4)?.unwrap_or_default();
    let sequences: Vec<i64> = row.try_get::<Option<_>, _>(5)?.unwrap_or_default();
    let lacks = |what: &str| sqlx::Error::Protocol(format!("journal.append answered without {what}"));
    let position = |of: &[Option<i64>], n: usize| {
        of.get(n).copied().flatten().map(Position::from_i64).ok_or_else(|| lacks("a position"))
    };
    words
        .iter()
        .enumerate()
        .map(|(n, word)| match word.as_str() {
            "appended" => Ok(Outcome::Appended { first: position(&firsts, n)?, last: position(&lasts, n)? }),
            "duplicate" => Ok(Outcome::Duplicate { first: position(&firsts, n)?, last: position(&lasts, n)? }),
            "conflict" => match (types.get(n), ids.get(n), sequences.get(n)) {
                (Some(aggregate_type), Some(id), Some(actual)) => {
                    Ok(Outcome::Conflict { stream: StreamId::new(aggregate_type, id), actual: actual.cast_unsigned() })
                }
                _ => Err(lacks("the stream of a conflict")),
            },
            "misuse" => Ok(Outcome::Misuse),
            other => Err(sqlx::Error::Protocol(format!("journal.append answered {other:?}"))),
        })
        .collect()
}
