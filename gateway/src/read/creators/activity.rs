//! The entries behind a figure of a creator's statement.

use fanledger_domain::entry::StatementLine;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::id::CreatorId;
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{CreatorActivity, LineCause};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::{CreatorSpan, Window, known_of};
use crate::read::answered_from::CREATOR_STATEMENT;
use crate::read::query::{bigint, decoding, fetch, integer, time, unsigned};
use crate::read::{Read, ReadError, Slice};

/// Which entries of a creator are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivityFilter {
    /// Only this line of the statement.
    pub line: Option<StatementLine>,
    /// Only what was paid for this; inside, `None` is what is about no payment.
    pub kind: Option<Option<PaymentKind>>,
    /// Only this currency.
    pub currency: Option<Currency>,
}

/// The last row of a page of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityKey {
    /// The position that the pages reflect.
    pin: u64,
    /// Its time on the axis of the list, in microseconds since 1970.
    at: i64,
    position: u64,
    item: i32,
}

/// The entries behind a figure of a creator's statement, newest first, each with what it contributes.
///
/// # Errors
/// As [`super::creator_statement`].
pub async fn creator_activity<M: From<i128>>(
    pool: &PgPool,
    creator: &CreatorId,
    span: CreatorSpan,
    filter: ActivityFilter,
    after: Option<&ActivityKey>,
    limit: u32,
) -> Result<Read<Slice<CreatorActivity<M>, ActivityKey>>, ReadError> {
    const WHAT: &str = "a creator's entries";
    let window = Window::from(span);
    let sql = activity_sql(window);
    // A late entry does not move the pages that follow the first.
    let known_at = [window.known_at, after.map(|key| key.pin)].into_iter().flatten().min();
    let rows = fetch(pool, WHAT, &sql, |query| {
        query
            .bind(creator.as_str())
            .bind(known_at.map(bigint))
            .bind(window.from.map(Timestamp::to_chrono))
            .bind(window.to.map(Timestamp::to_chrono))
            .bind(filter.currency.map(|currency| currency.to_string()))
            .bind(filter.line.map(StatementLine::as_str))
            .bind(filter.kind.is_none())
            .bind(filter.kind.flatten().map(PaymentKind::as_str))
            .bind(after.map(|key| key.at))
            .bind(after.map(|key| bigint(key.position)))
            .bind(after.map(|key| key.item))
            .bind(i64::from(limit))
            .bind(window.decided_at.map(bigint))
    })
    .await?;
    let first = rows.first().ok_or(ReadError::NotBuilt { what: WHAT })?;
    let (there, pin) = decoding(WHAT, || Ok((unsigned(first, "there")?, unsigned(first, "cut_position")?)))?;
    window.check(WHAT, first, creator, there)?;
    decoding(WHAT, || {
        let mut slice = Slice { items: Vec::new(), next: None };
        for row in &rows {
            let Some(item) = row.try_get::<Option<i32>, _>("item")? else { continue };
            let activity = activity_of(row)?;
            let at = time(row, window.time())?.as_unix_micros();
            slice.next = Some(ActivityKey { pin, at, position: activity.position, item });
            slice.items.push(activity);
        }
        if u32::try_from(slice.items.len()).is_ok_and(|items| items < limit) {
            slice.next = None;
        }
        Ok(Read { position: there, value: slice })
    })
}

/// $1 the creator, $2 the position that the books were known at, $3 and $4 the window, $5 the currency, $6 the line, $7 whether
/// any kind will do, $8 the kind, $9 to $11 the key, $12 the limit, $13 the position that the month's state is known at.
fn activity_sql(window: Window) -> String {
    let time = window.time();
    let order = format!("a.{time} DESC, a.position DESC, a.item DESC");
    format!(
        "WITH {known}
         SELECT cut.there::bigint AS there, cut.position::bigint AS cut_position, own.known, own.first_at, own.first_position,
                a.item::integer AS item, a.position::bigint AS entry_position, a.entry_id::text AS entry_id, a.line::text AS line,
                a.kind::text AS kind, a.currency::text AS currency, a.minor::text AS minor, a.description::text AS description,
                a.object::text AS object, a.stripe_event::text AS stripe_event, a.occurred_at::timestamptz AS occurred_at,
                a.effective_at::timestamptz AS effective_at, a.recorded_at::timestamptz AS recorded_at
         FROM cut CROSS JOIN own LEFT JOIN LATERAL (
             SELECT a.* FROM read.creator_activity AS a
             WHERE a.creator = $1::text AND a.position <= cut.position
               AND ($3::timestamptz IS NULL OR a.{time} >= $3) AND ($4::timestamptz IS NULL OR a.{time} <= $4)
               AND ($5::text IS NULL OR a.currency = $5) AND ($6::text IS NULL OR a.line = $6)
               AND ($7::boolean OR a.kind IS NOT DISTINCT FROM $8::text)
               AND ($9::bigint IS NULL OR (a.{time}, a.position, a.item)
                    < (timestamptz 'epoch' + $9 * interval '1 microsecond', $10::bigint, $11::integer))
             ORDER BY {order} LIMIT $12::bigint) AS a ON true
         ORDER BY {order}",
        known = known_of(window, CREATOR_STATEMENT, "$13"),
    )
}

fn activity_of<M: From<i128>>(row: &PgRow) -> Result<CreatorActivity<M>, sqlx::Error> {
    Ok(CreatorActivity {
        entry_id: row.try_get("entry_id")?,
        position: unsigned(row, "entry_position")?,
        occurred_at: time(row, "occurred_at")?.to_string(),
        effective_at: time(row, "effective_at")?.to_string(),
        recorded_at: time(row, "recorded_at")?.to_string(),
        line: row.try_get("line")?,
        kind: row.try_get("kind")?,
        currency: row.try_get("currency")?,
        amount_minor: integer(row, "minor")?.into(),
        description: row.try_get("description")?,
        cause: LineCause { object: row.try_get("object")?, stripe_event: row.try_get("stripe_event")? },
    })
}
