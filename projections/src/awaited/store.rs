//! The SQL of `awaited`.

use std::collections::BTreeSet;

use fanledger_domain::facts::Stamp;
use fanledger_journal::event::StreamId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::{Objects, Open, Part, Seen, SeenSoFar, Snapshot, timestamp};

pub(super) async fn insert_transactions(seen: &[Seen], connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if seen.is_empty() {
        return Ok(());
    }
    // The same one may be observed in two streams: by the object that names it and by its source.
    sqlx::query(
        "INSERT INTO awaited_transactions (transaction_id, object, part)
         SELECT d.transaction_id, d.object, d.part FROM unnest($1::text[], $2::text[], $3::text[]) AS d (transaction_id, object, part)
         ON CONFLICT (object, transaction_id) DO NOTHING",
    )
    .bind(seen.iter().map(|seen| seen.transaction.as_str()).collect::<Vec<_>>())
    .bind(seen.iter().map(|seen| seen.object.as_str()).collect::<Vec<_>>())
    .bind(seen.iter().map(|seen| seen.part.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn load_objects(
    ids: impl Iterator<Item = &str>,
    connection: &mut PgConnection,
) -> Result<Objects, sqlx::Error> {
    let ids: BTreeSet<&str> = ids.collect();
    if ids.is_empty() {
        return Ok(Objects::new());
    }
    sqlx::query(
        "SELECT object, stream_type, stream_id, created, currency, amount, live, ended, named, named_return,
                stamp_created, stamp_status, stamp_event
         FROM awaited_objects WHERE object = ANY ($1)",
    )
    .bind(ids.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?
    .iter()
    .map(|row| Ok((row.try_get("object")?, snapshot(row)?)))
    .collect()
}

fn snapshot(row: &PgRow) -> Result<Snapshot, sqlx::Error> {
    Ok(Snapshot {
        object: parsed(row, "object")?,
        stream: StreamId::new(row.try_get::<String, _>("stream_type")?, row.try_get::<String, _>("stream_id")?),
        created: row.try_get("created")?,
        currency: parsed(row, "currency")?,
        amount: row.try_get("amount")?,
        live: row.try_get("live")?,
        ended: row.try_get("ended")?,
        named: optional(row, "named")?,
        named_return: optional(row, "named_return")?,
        stamp: Stamp {
            created: timestamp(row.try_get("stamp_created")?)?,
            status: row.try_get("stamp_status")?,
            event: parsed(row, "stamp_event")?,
        },
    })
}

fn parsed<T>(row: &PgRow, column: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    parse(column, row.try_get(column)?)
}

fn optional<T>(row: &PgRow, column: &str) -> Result<Option<T>, sqlx::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.try_get::<Option<&str>, _>(column)?.map(|text| parse(column, text)).transpose()
}

fn parse<T>(column: &str, text: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse()
        .map_err(|error: T::Err| sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) })
}

pub(super) async fn upsert_objects<'a>(
    objects: impl Iterator<Item = &'a Snapshot>,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let objects: Vec<_> = objects.collect();
    if objects.is_empty() {
        return Ok(());
    }
    let all = || objects.iter();
    sqlx::query(
        "INSERT INTO awaited_objects (object, stream_type, stream_id, created, currency, amount, live, ended, named, named_return,
             stamp_created, stamp_status, stamp_event)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::bigint[], $7::boolean[],
             $8::boolean[], $9::text[], $10::text[], $11::timestamptz[], $12::smallint[], $13::text[])
         ON CONFLICT (object) DO UPDATE SET
             stream_type = excluded.stream_type, stream_id = excluded.stream_id, created = excluded.created,
             currency = excluded.currency, amount = excluded.amount, live = excluded.live, ended = excluded.ended,
             named = excluded.named, named_return = excluded.named_return, stamp_created = excluded.stamp_created,
             stamp_status = excluded.stamp_status, stamp_event = excluded.stamp_event",
    )
    .bind(all().map(|object| object.object.as_str()).collect::<Vec<_>>())
    .bind(all().map(|object| object.stream.aggregate_type.as_str()).collect::<Vec<_>>())
    .bind(all().map(|object| object.stream.aggregate_id.as_str()).collect::<Vec<_>>())
    .bind(all().map(|object| object.created).collect::<Vec<_>>())
    .bind(all().map(|object| object.currency.as_str()).collect::<Vec<_>>())
    .bind(all().map(|object| object.amount).collect::<Vec<_>>())
    .bind(all().map(|object| object.live).collect::<Vec<_>>())
    .bind(all().map(|object| object.ended).collect::<Vec<_>>())
    .bind(all().map(|object| object.named.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
    .bind(all().map(|object| object.named_return.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
    .bind(all().map(|object| object.stamp.created.to_chrono()).collect::<Vec<_>>())
    .bind(all().map(|object| object.stamp.status).collect::<Vec<_>>())
    .bind(all().map(|object| object.stamp.event.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The objects that wait for one of these by name.
pub(super) async fn awaiting(
    transactions: &BTreeSet<&str>,
    connection: &mut PgConnection,
) -> Result<Vec<String>, sqlx::Error> {
    if transactions.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT DISTINCT object FROM awaited WHERE balance_transaction = ANY ($1)")
        .bind(transactions.iter().copied().collect::<Vec<_>>())
        .fetch_all(connection)
        .await
}

pub(super) async fn load_transactions<'a>(
    objects: impl Iterator<Item = &'a Snapshot>,
    connection: &mut PgConnection,
) -> Result<SeenSoFar, sqlx::Error> {
    let mut ids = Vec::new();
    let mut named = Vec::new();
    for object in objects {
        ids.push(object.object.as_str());
        named.extend(object.named.iter().chain(&object.named_return).map(|id| id.as_str()));
    }
    let mut seen = SeenSoFar::default();
    if ids.is_empty() {
        return Ok(seen);
    }
    let rows = sqlx::query(
        "SELECT transaction_id, object, part FROM awaited_transactions WHERE object = ANY ($1)
         UNION ALL
         SELECT transaction_id, object, part FROM awaited_transactions WHERE transaction_id = ANY ($2)",
    )
    .bind(ids)
    .bind(named)
    .fetch_all(connection)
    .await?;
    for row in rows {
        seen.transactions.insert(row.try_get("transaction_id")?);
        let part = match row.try_get("part")? {
            "movement" => Part::Movement,
            "return" => Part::Return,
            _ => Part::Other,
        };
        seen.parts.entry(row.try_get("object")?).or_default().insert(part);
    }
    Ok(seen)
}

pub(super) async fn replace_open(
    objects: impl Iterator<Item = &String>,
    open: &[Open<'_>],
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let objects: Vec<_> = objects.collect();
    if objects.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM awaited WHERE object = ANY ($1)").bind(objects).execute(&mut *connection).await?;
    if open.is_empty() {
        return Ok(());
    }
    let all = || open.iter();
    sqlx::query(
        "INSERT INTO awaited (object, part, stream_type, stream_id, balance_transaction, amount, currency, since)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::timestamptz[])",
    )
    .bind(all().map(|open| open.object.object.as_str()).collect::<Vec<_>>())
    .bind(all().map(|open| open.part.as_str()).collect::<Vec<_>>())
    .bind(all().map(|open| open.object.stream.aggregate_type.as_str()).collect::<Vec<_>>())
    .bind(all().map(|open| open.object.stream.aggregate_id.as_str()).collect::<Vec<_>>())
    .bind(all().map(|open| open.named.map(|id| id.as_str())).collect::<Vec<_>>())
    .bind(all().map(|open| open.object.amount).collect::<Vec<_>>())
    .bind(all().map(|open| open.object.currency.as_str()).collect::<Vec<_>>())
    .bind(all().map(|open| open.object.created).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
