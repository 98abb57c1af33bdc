//! Reads long stretches of the journal through `COPY … (FORMAT binary)`, the fastest way out of Postgres, without
//! allocating per event: rows are borrowed from the bytes as they arrive.

use futures::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

/// Microseconds from 1970 to Postgres's epoch, 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const COLUMNS: usize = 12;

/// A row of `journal.events` as it came, unjudged: it may have been tampered with.
#[derive(Clone, Copy, Debug)]
pub struct RawEvent<'a> {
    /// `position`.
    pub position: i64,
    /// `aggregate_type`.
    pub aggregate_type: &'a [u8],
    /// `aggregate_id`.
    pub aggregate_id: &'a [u8],
    /// `sequence`.
    pub sequence: i64,
    /// `event_type`.
    pub event_type: &'a [u8],
    /// `event_version`.
    pub event_version: &'a [u8],
    /// `payload`, its exact bytes.
    pub payload: &'a [u8],
    /// `metadata`, its exact bytes.
    pub metadata: &'a [u8],
    /// `event_id`.
    pub event_id: Uuid,
    /// `recorded_at`, in microseconds since 1970.
    pub recorded_at_micros: i64,
    /// `leaf`; 32 bytes unless tampered with.
    pub leaf: &'a [u8],
    /// `chain`; 32 bytes unless tampered with.
    pub chain: &'a [u8],
}

/// Calls `each` for every row from one position to another, in order, both included.
///
/// # Errors
/// When Postgres cannot be asked, or sends what is not its own format.
pub async fn each_event(
    connection: &mut PgConnection,
    from: i64,
    to: i64,
    mut each: impl FnMut(&RawEvent<'_>),
) -> Result<(), sqlx::Error> {
    // COPY takes no parameters; these are integers.
    let statement = format!(
        "COPY (SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, \
         event_id, recorded_at, leaf, chain FROM journal.events WHERE position BETWEEN {from} AND {to} ORDER BY position) \
         TO STDOUT (FORMAT binary)"
    );
    let mut chunks = connection.copy_out_raw(&statement).await?;
    let mut held: Vec<u8> = Vec::new();
    let mut header_seen = false;
    while let Some(chunk) = chunks.try_next().await? {
        // As a rule a chunk is exactly one row; what is not whole is held until it is.
        let mut input: &[u8] = if held.is_empty() {
            &chunk
        } else {
            held.extend_from_slice(&chunk);
            &held
        };
        if !header_seen {
            match header(input)? {
                Some(rest) => {
                    input = rest;
                    header_seen = true;
                }
                None => {
                    held = input.to_vec();
                    continue;
                }
            }
        }
        while let Some((row, rest)) = tuple(input)? {
            if let Some(row) = row {
                each(&row);
            }
            input = rest;
        }
        held = input.to_vec();
    }
    if held.is_empty() { Ok(()) } else { Err(malformed("it ends within a row")) }
}

fn malformed(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("COPY out of journal.events: {what}"))
}

/// What follows the header, once it is whole.
fn header(input: &[u8]) -> Result<Option<&[u8]>, sqlx::Error> {
    let Some((start, rest)) = input.split_at_checked(SIGNATURE.len() + 8) else { return Ok(None) };
    let (signature, flags_and_extension) = start.split_at(SIGNATURE.len());
    if signature != SIGNATURE || flags_and_extension != [0; 8] {
        return Err(malformed("its header is not one that is known"));
    }
    Ok(Some(rest))
}

/// A tuple read off the input, and what is left after it. The tuple is `None` for the end marker.
type Tuple<'a> = (Option<RawEvent<'a>>, &'a [u8]);

/// The next row and what follows it, once it is whole.
fn tuple(input: &[u8]) -> Result<Option<Tuple<'_>>, sqlx::Error> {
    let Some((count, mut rest)) = input.split_first_chunk::<2>() else { return Ok(None) };
    match i16::from_be_bytes(*count) {
        -1 => return Ok(Some((None, rest))),
        count if usize::try_from(count) == Ok(COLUMNS) => {}
        count => return Err(malformed(&format!("a row has {count} columns"))),
    }
    let mut fields: [&[u8]; COLUMNS] = [&[]; COLUMNS];
    for field in &mut fields {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        // A null, which only a table that lost its constraints can hold, reads as empty: its digest cannot agree.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let Some((value, after)) = after.split_at_checked(length) else { return Ok(None) };
        *field = value;
        rest = after;
    }
    let [
        position,
        aggregate_type,
        aggregate_id,
        sequence,
        event_type,
        event_version,
        payload,
        metadata,
        event_id,
        at,
        leaf,
        chain,
    ] = fields;
    let row = RawEvent {
        position: integer(position),
        aggregate_type,
        aggregate_id,
        sequence: integer(sequence),
        event_type,
        event_version,
        payload,
        metadata,
        event_id: Uuid::from_slice(event_id).unwrap_or_default(),
        recorded_at_micros: integer(at).wrapping_add(POSTGRES_EPOCH_MICROS),
        leaf,
        chain,
    };
    Ok(Some((Some(row), rest)))
}

fn integer(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_be_bytes)
}
