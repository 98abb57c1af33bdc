//! What finance said of whose money an object moves.

use fanledger_domain::id::StripeId;
use fanledger_gateway_api::SaidAttribution;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::query::{bigint, decoding, fetch, time, undecodable, unsigned};
use super::{Read, ReadError, Slice};

const WHAT: &str = "attributions";

/// What finance said, of one object or of all, newest first.
///
/// # Errors
/// Postgres.
pub async fn attributions<M: From<i128>>(
    pool: &PgPool,
    object: Option<&StripeId>,
    after: Option<u64>,
    limit: u32,
) -> Result<Read<Slice<SaidAttribution<M>, u64>>, ReadError> {
    let rows = fetch(
        pool,
        WHAT,
        "SELECT p.position::bigint AS at, a.position::bigint AS position, a.object::text AS object, a.creator::text AS creator,
                a.fan::text AS fan, a.kind::text AS kind, a.creator_share_bps::integer AS creator_share_bps,
                a.tax_minor::bigint AS tax_minor, a.tax_jurisdiction::text AS tax_jurisdiction,
                a.said_at::timestamptz AS said_at, a.said_by::text AS said_by, a.reason::text AS reason
         FROM read.positions AS p
         LEFT JOIN LATERAL (
             SELECT a.* FROM read.attributions AS a
             WHERE a.position < $1::bigint AND ($2::text IS NULL OR a.object = $2)
             ORDER BY a.position DESC LIMIT $3::bigint) AS a ON true
         WHERE p.name = 'attributions'
         ORDER BY a.position DESC",
        |query| {
            let object = object.map(StripeId::as_str);
            query.bind(after.map_or(i64::MAX, bigint)).bind(object).bind(i64::from(limit))
        },
    )
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    decoding(WHAT, || {
        let items: Vec<SaidAttribution<M>> =
            rows.iter().filter_map(|row| item(row).transpose()).collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| items.len() == limit as usize).map(|item| item.position);
        Ok(Read { position: unsigned(first, "at")?, value: Slice { items, next } })
    })
}

fn item<M: From<i128>>(row: &PgRow) -> Result<Option<SaidAttribution<M>>, sqlx::Error> {
    let Some(object) = row.try_get("object")? else { return Ok(None) };
    let share: Option<i32> = row.try_get("creator_share_bps")?;
    let share = share.map(u16::try_from).transpose().map_err(|error| undecodable("creator_share_bps", error))?;
    Ok(Some(SaidAttribution {
        object,
        creator: row.try_get("creator")?,
        fan: row.try_get("fan")?,
        kind: row.try_get("kind")?,
        creator_share_bps: share,
        tax_minor: row.try_get::<Option<i64>, _>("tax_minor")?.map(|minor| i128::from(minor).into()),
        tax_jurisdiction: row.try_get("tax_jurisdiction")?,
        said_at: time(row, "said_at")?.to_string(),
        said_by: row.try_get("said_by")?,
        reason: row.try_get("reason")?,
        position: unsigned(row, "position")?,
    }))
}
