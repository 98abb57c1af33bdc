//! Webhooks and what became of them.

use chrono::{DateTime, Utc};
use fanledger_domain::id::StripeId;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{InboxItem, InboxStatus, Opening};
use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::query::{bigint, decoding, fetch, optional_time, time, undecodable, unsigned};
use super::{Read, ReadError, Slice};

const WHAT: &str = "webhooks";

/// Which webhooks; all of what is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxFilter {
    /// What became of them.
    pub status: Option<InboxStatus>,
    /// Whether somebody should look.
    pub raised: Option<bool>,
    /// Stripe's type.
    pub event_type: Option<String>,
    /// The object that they are about.
    pub object: Option<StripeId>,
}

/// Webhooks, newest first.
///
/// # Errors
/// Postgres.
pub async fn inbox(
    pool: &PgPool,
    filter: &InboxFilter,
    after: Option<u64>,
    limit: u32,
) -> Result<Read<Slice<InboxItem, u64>>, ReadError> {
    let found = find(pool, filter, None, after, limit).await?;
    let next = found.value.last().map(|item| item.position).filter(|_| found.value.len() >= limit as usize);
    Ok(Read { position: found.position, value: Slice { items: found.value, next } })
}

/// One webhook.
///
/// # Errors
/// One that is not there, or Postgres.
pub async fn inbox_item(pool: &PgPool, id: &StripeId) -> Result<Read<InboxItem>, ReadError> {
    let found = find(pool, &InboxFilter::default(), Some(id), None, 1).await?;
    let item = found.value.into_iter().next().ok_or_else(|| ReadError::UnknownStripeEvent(id.clone()))?;
    Ok(Read { position: found.position, value: item })
}

/// The translator appends what it finds before its own position moves, so a webhook behind it led to nothing new once this
/// projection has seen whatever was in the journal by then: when it is at the head. Under steady load it never quite is; then
/// a minute stands in for that, and a webhook that the translator reached just now may read `known` for a moment.
const STATUS: &str = "CASE
    WHEN i.facts > 0 AND i.facts_position > coalesce(i.reason_position, 0) THEN 'translated'
    WHEN i.reason IS NOT NULL THEN 'not_translated'
    WHEN t.position >= i.position AND (p.position >= t.head OR i.received_at < now() - interval '1 minute') THEN 'known'
    ELSE 'pending' END";

async fn find(
    pool: &PgPool,
    filter: &InboxFilter,
    id: Option<&StripeId>,
    after: Option<u64>,
    limit: u32,
) -> Result<Read<Vec<InboxItem>>, ReadError> {
    // Only what is asked for is in the statement: a plan that serves every filter can use no index, and one made anew for each
    // call takes longer than the call.
    let conditions = [
        (id.is_some(), "i.event_id = $2::text".to_owned()),
        (filter.raised.is_some(), "i.raised = $3::boolean".to_owned()),
        (filter.event_type.is_some(), "i.event_type = $4::text".to_owned()),
        (filter.object.is_some(), "i.object = $5::text".to_owned()),
        (filter.status.is_some(), format!("{STATUS} = $6::text")),
    ];
    let asked = |(is_asked, condition)| if is_asked { format!(" AND {condition}") } else { String::new() };
    let conditions: String = conditions.into_iter().map(asked).collect();
    let sql = format!(
        "WITH p AS (SELECT position FROM read.positions WHERE name = 'stripe_inbox'), found AS (
             SELECT i.*, {STATUS} AS status
             FROM p CROSS JOIN read.stripe_inbox AS i
             LEFT JOIN (SELECT position, head FROM read.runners WHERE name = 'stripe_translator') AS t ON true
             WHERE i.position < $1::bigint{conditions}
             ORDER BY i.position DESC LIMIT $7::bigint
         )
         SELECT p.position::bigint AS at, i.event_id::text AS event_id, i.position::bigint AS position, i.received_at::timestamptz AS received_at,
                i.event_type::text AS event_type, i.api_version::text AS api_version, i.created::timestamptz AS created,
                i.livemode::boolean AS livemode, i.account::text AS account, i.object::text AS object, i.flag::text AS flag,
                i.status::text AS status, i.raised::boolean AS raised, i.facts::bigint AS facts, i.entries::bigint AS entries,
                i.differing_bodies::bigint AS differing_bodies, i.reason::text AS reason, i.detail::text AS detail,
                i.translator_version::integer AS translator_version,
                (SELECT json_agg(json_build_object('at', o.opened_at, 'by', o.opened_by, 'reason', o.reason, 'position', o.position)
                                 ORDER BY o.position)
                 FROM read.stripe_event_openings AS o WHERE o.event_id = i.event_id)::text AS openings
         FROM p LEFT JOIN found AS i ON true
         ORDER BY i.position DESC"
    );
    let rows = fetch(pool, WHAT, &sql, |query| {
        query
            .bind(after.map_or(i64::MAX, bigint))
            .bind(id.map(|id| id.as_str()))
            .bind(filter.raised)
            .bind(filter.event_type.as_deref())
            .bind(filter.object.as_ref().map(|object| object.as_str()))
            .bind(filter.status.map(InboxStatus::as_str))
            .bind(i64::from(limit))
    })
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let value = rows.iter().filter_map(|row| item(row).transpose()).collect::<Result<_, _>>()?;
        Ok(Read { position: unsigned(first, "at")?, value })
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is none of the states of a webhook")]
struct NoStatus(String);

fn item(row: &PgRow) -> Result<Option<InboxItem>, sqlx::Error> {
    let Some(id) = row.try_get("event_id")? else { return Ok(None) };
    let status: String = row.try_get("status")?;
    let translator_version: Option<i32> = row.try_get("translator_version")?;
    Ok(Some(InboxItem {
        id,
        position: unsigned(row, "position")?,
        received_at: time(row, "received_at")?.to_string(),
        event_type: row.try_get("event_type")?,
        api_version: row.try_get("api_version")?,
        created: optional_time(row, "created")?.map(|at| at.to_string()),
        livemode: row.try_get("livemode")?,
        account: row.try_get("account")?,
        object: row.try_get("object")?,
        flag: row.try_get("flag")?,
        status: InboxStatus::from_text(&status).ok_or_else(|| undecodable("status", NoStatus(status)))?,
        raised: row.try_get("raised")?,
        facts: unsigned(row, "facts")?,
        entries: unsigned(row, "entries")?,
        differing_bodies: unsigned(row, "differing_bodies")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        translator_version: translator_version.map(i32::cast_unsigned),
        openings: openings(row)?,
    }))
}

#[derive(Deserialize)]
struct StoredOpening {
    at: DateTime<Utc>,
    by: String,
    reason: String,
    position: u64,
}

fn openings(row: &PgRow) -> Result<Vec<Opening>, sqlx::Error> {
    let Some(stored) = row.try_get::<Option<&str>, _>("openings")? else { return Ok(Vec::new()) };
    let stored: Vec<StoredOpening> = serde_json::from_str(stored).map_err(|error| undecodable("openings", error))?;
    let opening = |of: StoredOpening| {
        let at = Timestamp::from_chrono(of.at).map_err(|error| undecodable("openings", error))?;
        Ok(Opening { at: at.to_string(), by: of.by, reason: of.reason, position: of.position })
    };
    stored.into_iter().map(opening).collect()
}
