//! Rows of `journal.batches`, unjudged, for those who check or export them.

use sqlx::PgConnection;

use crate::copy::{each_row, integer, time_micros};

/// One append, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchRow {
    pub first: i64,
    pub last: i64,
    pub recorded_at_micros: i64,
    pub chain: Vec<u8>,
}

/// The rows that end from `from` to `to`, and the one that goes beyond, in order.
pub(crate) async fn load(connection: &mut PgConnection, from: i64, to: i64) -> Result<Vec<BatchRow>, sqlx::Error> {
    // COPY takes no parameters; these are integers. In its binary form an infinite time is a number like any other.
    let statement = format!(
        "COPY (SELECT first_position, last_position, recorded_at, chain FROM journal.batches \
         WHERE last_position >= {from} AND last_position <= coalesce( \
             (SELECT last_position FROM journal.batches WHERE last_position >= {to} ORDER BY last_position LIMIT 1), {to}) \
         ORDER BY last_position) TO STDOUT (FORMAT binary)"
    );
    let mut rows = Vec::new();
    each_row(connection, &statement, |[first, last, at, chain]: [&[u8]; 4]| {
        rows.push(BatchRow {
            first: integer(first),
            last: integer(last),
            recorded_at_micros: time_micros(at),
            chain: chain.to_vec(),
        });
    })
    .await?;
    Ok(rows)
}
