//! One entry with what led to it.

use fanledger_domain::entry::{Posting, Side as DomainSide};
use fanledger_domain::id::EntryId;
use fanledger_gateway_api::{
    Cause, CauseAct, Entry, EntryPosting, FactReference, ManualEntryState, Side, StripeEventReference,
};
use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::cut::Cut;
use super::query::{bigint, decoding, fetch, json, time, unsigned};
use super::{AsOf, By, Read, ReadError};

const WHAT: &str = "an entry";

/// One entry, if it is there as of then, inclusive, with what takes it back as of then: a reversal that waits counts from when
/// it was proposed or is to have occurred. One that was rejected is told as of no time; nothing came of it.
///
/// What led to the entry needs no bound of its own: facts, webhook and approval are of the same command or before it.
///
/// # Errors
/// A time or position before the first entry, a position that is not there yet, an entry that is not there, or was not as of
/// then; or Postgres.
pub async fn entry<M: From<i128>>(
    pool: &PgPool,
    id: &EntryId,
    as_of: AsOf,
    by: By,
) -> Result<Read<Entry<M>>, ReadError> {
    let (until_position, until) = match as_of {
        AsOf::Latest => (None, None),
        AsOf::Position(position) => (Some(bigint(position)), None),
        AsOf::Instant(at) => (None, Some(at.to_chrono())),
        AsOf::Known { instant, position } => (Some(bigint(position)), Some(instant.to_chrono())),
    };
    let cut = Cut { as_of, by };
    let sql = sql(cut);
    let rows = fetch(pool, WHAT, &sql, |query| query.bind(id.as_str()).bind(until_position).bind(until)).await?;
    let row = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    let position = decoding(WHAT, || unsigned(row, "at"))?;
    cut.check(WHAT, row, position)?;
    let entry = decoding(WHAT, || read(row))?;
    entry.map(|value| Read { position, value }).ok_or_else(|| ReadError::UnknownEntry(id.clone()))
}

/// $1 the id, $2 the last position, $3 the last instant.
fn sql(cut: Cut) -> String {
    // The column of `entries` that the instant is compared with, that which has an index and goes in the same order, and when a
    // reversal began to count. A reversal's effective time is known once it is posted.
    let (time, order, reversal_time) = match cut.axis() {
        By::Effective => (
            "effective_at",
            "effective_at",
            "coalesce((SELECT b.effective_at FROM read.entries AS b WHERE b.entry_id = r.entry_id), r.occurred_at)",
        ),
        By::Occurred => ("occurred_at", "occurred_at", "r.occurred_at"),
        By::Recorded => ("recorded_at", "position", "r.proposed_at"),
    };
    format!(
        "SELECT least(p.position, i.position, h.position, w.position,
                      CASE WHEN e.stream_type = 'payout_run' THEN o.position END)::bigint AS at,
                (SELECT f.{time} FROM read.entries AS f ORDER BY f.{order} LIMIT 1)::timestamptz AS first_at,
                (SELECT f.position FROM read.entries AS f ORDER BY f.position LIMIT 1)::bigint AS first_position,
                e.entry_id::text AS entry_id, e.position::bigint AS position, e.stream_type::text AS stream_type, e.stream_id::text AS stream_id,
                e.object::text AS object, e.facts::text AS facts, e.stripe_event::text AS stripe_event, s.position::bigint AS stripe_position,
                e.description::text AS description, e.occurred_at::timestamptz AS occurred_at, e.effective_at::timestamptz AS effective_at,
                e.recorded_at::timestamptz AS recorded_at, e.postings::text AS postings,
                coalesce(m.proposed_by, a.said_by, d.proposed_by)::text AS proposed_by,
                coalesce(m.decided_by, d.decided_by)::text AS approved_by,
                coalesce(m.reason, a.reason, 'payout run ' || e.object)::text AS reason,
                m.reverses::text AS reverses, m.clears::text AS clears,
                r.id::text AS reversed_by, r.is_posted AS reversal_is_posted
         FROM read.positions AS p JOIN read.positions AS i ON p.name = 'entries' AND i.name = 'stripe_inbox'
         JOIN read.positions AS h ON h.name = 'manual_entries'
         JOIN read.positions AS w ON w.name = 'attributions' JOIN read.positions AS o ON o.name = 'payouts'
         LEFT JOIN read.entries AS e ON e.entry_id = $1::text AND ($2::bigint IS NULL OR e.position <= $2)
              AND ($3::timestamptz IS NULL OR e.{time} <= $3)
         LEFT JOIN read.stripe_inbox AS s ON s.event_id = e.stripe_event
         LEFT JOIN read.manual_entries AS m ON e.stream_type = 'manual_entry' AND m.id = e.object
         LEFT JOIN read.payout_runs AS d ON e.stream_type = 'payout_run' AND e.object = 'por_' || d.run
         -- What somebody said is a fact of the same command.
         LEFT JOIN LATERAL (
             SELECT a.said_by, a.reason
             FROM json_array_elements(e.facts) AS f JOIN read.attributions AS a ON a.position = (f ->> 'position')::bigint
             WHERE f ->> 'event_type' = 'CreatorAttributed' AND a.said_by IS NOT NULL LIMIT 1) AS a ON true
         -- Nothing is taken back before the reversal's own entry is there, as of then.
         LEFT JOIN LATERAL (
             SELECT r.id, EXISTS (
                 SELECT FROM read.entries AS b
                 WHERE b.entry_id = r.entry_id AND ($2::bigint IS NULL OR b.position <= $2)
                   AND ($3::timestamptz IS NULL OR b.{time} <= $3)) AS is_posted
             FROM read.manual_entries AS r
             WHERE r.reverses = e.entry_id AND r.state <> 'rejected' AND ($2::bigint IS NULL OR r.position <= $2)
               AND ($3::timestamptz IS NULL OR {reversal_time} <= $3)
             LIMIT 1) AS r ON true"
    )
}

#[derive(Deserialize)]
struct StoredFact {
    event_type: String,
    sequence: u64,
    position: u64,
}

fn read<M: From<i128>>(row: &PgRow) -> Result<Option<Entry<M>>, sqlx::Error> {
    let Some(entry_id) = row.try_get("entry_id")? else { return Ok(None) };
    let facts: Vec<StoredFact> = json(row, "facts")?;
    let postings: Vec<Posting> = json(row, "postings")?;
    let stripe_position: Option<i64> = row.try_get("stripe_position")?;
    let stripe_event: Option<String> = row.try_get("stripe_event")?;
    let cause = Cause {
        object: row.try_get("object")?,
        facts: facts
            .into_iter()
            .map(|fact| FactReference { fact: fact.event_type, sequence: fact.sequence, position: fact.position })
            .collect(),
        stripe_events: stripe_event
            .map(|id| StripeEventReference {
                id,
                position: stripe_position.and_then(|position| u64::try_from(position).ok()),
            })
            .into_iter()
            .collect(),
        act: match row.try_get("proposed_by")? {
            Some(proposed_by) => Some(CauseAct {
                proposed_by,
                approved_by: row.try_get("approved_by")?,
                reason: row.try_get("reason")?,
                reverses: row.try_get("reverses")?,
                clears: row.try_get("clears")?,
            }),
            None => None,
        },
    };
    Ok(Some(Entry {
        entry_id,
        position: unsigned(row, "position")?,
        stream: format!("{}/{}", row.try_get::<&str, _>("stream_type")?, row.try_get::<&str, _>("stream_id")?),
        occurred_at: time(row, "occurred_at")?.to_string(),
        effective_at: time(row, "effective_at")?.to_string(),
        recorded_at: time(row, "recorded_at")?.to_string(),
        description: row.try_get("description")?,
        cause,
        postings: postings.into_iter().map(posting).collect(),
        reversed_by: row.try_get("reversed_by")?,
        reversal_state: row
            .try_get::<Option<bool>, _>("reversal_is_posted")?
            .map(|is_posted| if is_posted { ManualEntryState::Posted } else { ManualEntryState::Proposed }),
    }))
}

/// A line, as the wire has it.
pub(super) fn posting<M: From<i128>>(posting: Posting) -> EntryPosting<M> {
    EntryPosting {
        account: posting.account.to_string(),
        side: match posting.side {
            DomainSide::Debit => Side::Debit,
            DomainSide::Credit => Side::Credit,
        },
        amount_minor: i128::from(posting.money.minor()).into(),
        currency: posting.money.currency().to_string(),
    }
}
