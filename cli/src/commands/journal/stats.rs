//! `fanledger journal stats`.

use std::collections::BTreeMap;

use fanledger_journal::event::Position;
use fanledger_journal::reader::Reader;
use serde::Serialize;
use sqlx::Row;

use crate::failure::{Failure, Outcome};
use crate::output::{Align, Output};

/// Positions per statement, so that no snapshot is held for long.
const PAGE: i64 = 100_000;

/// Why the journal could not be counted.
#[derive(Debug, thiserror::Error)]
#[error("count the events after position {after}")]
pub struct CountError {
    after: i64,
    #[source]
    source: sqlx::Error,
}

#[derive(Serialize)]
struct Stats {
    journal_id: String,
    head: Position,
    chain: String,
    batches: i64,
    types: Vec<TypeStats>,
}

#[derive(Clone, Default, Serialize)]
struct TypeStats {
    event_type: String,
    events: i64,
    stored_bytes: i64,
}

pub(super) async fn run(reader: &Reader, output: Output) -> Result<Outcome, Failure> {
    let head = reader.head().await?;
    let bar = output.bar(head.position.get(), "counting");
    let mut types: BTreeMap<String, TypeStats> = BTreeMap::new();
    let mut batches = 0;
    for after in (0..head.position.as_i64()).step_by(PAGE as usize) {
        let until = (after + PAGE).min(head.position.as_i64());
        let failed = |source| CountError { after, source };
        let rows = sqlx::query(
            "SELECT event_type, count(*), coalesce(sum(pg_column_size(payload) + pg_column_size(metadata)), 0)::bigint \
             FROM journal.events WHERE position > $1 AND position <= $2 GROUP BY event_type",
        )
        .bind(after)
        .bind(until)
        .fetch_all(reader.pool())
        .await
        .map_err(failed)?;
        for row in rows {
            let event_type: String = row.try_get(0).map_err(failed)?;
            let stats =
                types.entry(event_type.clone()).or_insert_with(|| TypeStats { event_type, ..TypeStats::default() });
            stats.events += row.try_get::<i64, _>(1).map_err(failed)?;
            stats.stored_bytes += row.try_get::<i64, _>(2).map_err(failed)?;
        }
        let page: i64 =
            sqlx::query_scalar("SELECT count(*) FROM journal.batches WHERE last_position > $1 AND last_position <= $2")
                .bind(after)
                .bind(until)
                .fetch_one(reader.pool())
                .await
                .map_err(failed)?;
        batches += page;
        bar.set_position(until.unsigned_abs());
    }
    bar.finish_and_clear();
    let stats = Stats {
        journal_id: head.journal_id.to_string(),
        head: head.position,
        chain: hex::encode(head.chain.0),
        batches,
        types: types.into_values().collect(),
    };
    if output.is_json() {
        output.json(&stats)?;
        return Ok(Outcome::Fine);
    }
    output.line(format_args!("journal  {}", stats.journal_id))?;
    output.line(format_args!("head     {}", stats.head))?;
    output.line(format_args!("chain    {}", stats.chain))?;
    output.line(format_args!("batches  {}", stats.batches))?;
    output.line("")?;
    let rows = stats
        .types
        .iter()
        .map(|stats| vec![stats.event_type.clone(), stats.events.to_string(), stats.stored_bytes.to_string()]);
    output.table(
        &[("event type", Align::Left), ("events", Align::Right), ("bytes stored", Align::Right)],
        rows.collect(),
    )?;
    Ok(Outcome::Fine)
}
